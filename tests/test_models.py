"""Both backends really train, and NF4 trains on after an evaluation."""

import inspect
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from peft import LoraConfig, VeraConfig

from hybridlib import StudyError, adapters, data, models
from hybridlib.adapters import ADAPTERS

PROMPT = [[{"role": "user", "content": "Compute $3+4$."}]]


def _gradients(model, ids):
    model.zero_grad()
    model.train()
    model(ids, labels=ids).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _one_evaluation(model, ids):
    import torch

    model.eval()
    with torch.no_grad():
        model(ids)


@pytest.mark.parametrize("repaired", [True, False])
def test_nf4_trains_on_after_an_evaluation(small, repaired):
    import torch
    from bitsandbytes.nn.modules import has_avx512bf16

    if not repaired and not has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, so bitsandbytes has nothing to break")
    torch.manual_seed(0)
    model, tokenizer = models.load(small, adapter="lora", rank=4, nf4=True)
    ids = torch.tensor([[7, 45, 60, 33, 90, 12]], device=model.device)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    before = _gradients(model, ids)
    if not repaired:  # what bitsandbytes does by itself
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = True
    _one_evaluation(model, ids)
    if not repaired:
        # Layers with a bias fail aloud, the others are silently wrong; neither trains on.
        with pytest.raises((RuntimeError, AssertionError)):
            assert _same(before, _gradients(model, ids))
    else:
        assert _same(before, _gradients(model, ids))


def _same(a, b):
    import torch

    return all(torch.equal(a[name], b[name]) for name in a)


def test_every_linear_layer_of_an_nf4_base_is_quantised(small):
    import bitsandbytes as bnb

    model, _ = models.load(small, adapter="lora", rank=4, nf4=True)
    quantised = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(quantised) == 7 * model.config.num_hidden_layers
    assert not any(m.support_avx512bf16_for_cpu for m in quantised)
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())


def test_unknown_backends_and_missing_models_are_named(small):
    from dataclasses import replace

    with pytest.raises(StudyError, match="valid: hf, unsloth"):
        models.import_backend("tpu")
    with pytest.raises(StudyError, match="--profile tiny"):
        models.load(replace(small, model="nobody/nothing"))


def test_a_process_that_trains_with_plain_trl_refuses_unsloth(small):
    models.import_backend("hf")
    with pytest.raises(StudyError, match="process"):
        models.import_backend("unsloth")


def _get_peft_model(model, r=16, lora_alpha=16, target_modules=(), use_rslora=False):
    """Take what an Unsloth that knows these fields alone would take."""


def _get_any_peft_model(model, r=16, lora_alpha=16, target_modules=(), bias="none", **kwargs):
    """Take what today's Unsloth takes: the rest goes to LoraConfig."""


def _options(name, config, function):
    return models.unsloth_options(name, config, inspect.signature(function).parameters)


def test_unsloth_gets_every_field_that_is_not_its_default():
    given = _options("rslora", ADAPTERS["rslora"](16), _get_peft_model)
    assert given == {
        "lora_alpha": 32,
        "use_rslora": True,
        "target_modules": "all-linear",
    }
    assert _options("lora", ADAPTERS["lora"](8), _get_peft_model)["r"] == 8  # PEFT's default
    config = adapters._lora(
        4, target_modules="all-linear", rank_pattern={"q_proj": 2}, bias="all", use_dora=True
    )
    assert _options("odd", config, _get_any_peft_model) == dict(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        rank_pattern={"q_proj": 2},
        bias="all",
        use_dora=True,
    )


def test_the_adapter_that_unsloth_makes_is_the_one_of_peft():
    """What goes through its keyword arguments is the whole config."""
    lora = {name: entry for name, entry in ADAPTERS.items() if entry(8).peft_type == "LORA"}
    for name, entry in lora.items():
        given = _options(name, entry(8), _get_any_peft_model)
        assert LoraConfig(**dict(r=16, lora_alpha=16, task_type="CAUSAL_LM") | given) == entry(8)


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("dora", ADAPTERS["dora"](4), "does not take use_dora of adapter 'dora'"),
        ("odd", LoraConfig(lora_dropout=0.1, bias="all", task_type="CAUSAL_LM"),
         "does not take lora_dropout, bias of adapter 'odd'"),
        ("other", LoraConfig(task_type="SEQ_CLS"), "does not take task_type of adapter 'other'"),
        ("vera", VeraConfig(r=4), "LoRA alone, and adapter 'vera' is a VeraConfig"),
    ],
)  # fmt: skip
def test_what_unsloth_does_not_take_of_an_adapter_is_named(name, config, reason):
    with pytest.raises(StudyError, match=reason):
        _options(name, config, _get_peft_model)


class Stretching:
    """Load as Unsloth does on a GPU: positions that do not reach are stretched by RoPE scaling."""

    at_least = 0

    @classmethod
    def from_pretrained(cls, name, max_seq_length, dtype, **_):
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(name)
        wanted = max(max_seq_length, cls.at_least)
        if (factor := wanted / config.max_position_embeddings) > 1:
            config.rope_parameters |= {"rope_type": "linear", "factor": factor}
            config.max_position_embeddings = wanted
        return AutoModelForCausalLM.from_pretrained(name, config=config, dtype=dtype), None


@pytest.mark.parametrize("asked", [0, 4096])
def test_unsloth_loads_the_base_that_it_is_or_none(small, tiny, monkeypatch, asked):
    """The tiny base has 1,024 positions; to 2,048, Unsloth made another model of it."""
    import types

    import torch

    monkeypatch.setattr(models, "import_backend", lambda _: None)
    monkeypatch.setattr(Stretching, "at_least", asked)
    stand_in = types.SimpleNamespace(FastLanguageModel=Stretching)
    monkeypatch.setitem(sys.modules, "unsloth", stand_in)
    if asked:
        with pytest.raises(StudyError, match="1024 positions to 4096"):
            models.load(small, backend="unsloth")
        return
    model, _ = models.load(small, backend="unsloth")
    ids = torch.tensor([[7, 45, 60, 33, 90, 12]])
    with torch.no_grad():
        ours, plain = (each(ids.to(each.device)).logits.cpu() for each in (model, tiny[0]))
    torch.testing.assert_close(ours, plain)


UNSLOTH = """
import json, sys
from hybridlib import study
from hybridlib.profiles import Profile
profile = Profile(**json.loads(sys.argv[1]))
runs = [study.Run("sft", nf4=True, backend="unsloth"), study.Run("grpo", backend="unsloth")]
records = [study.execute(run, profile) for run in runs]
import inspect, trl
assert "unsloth" in inspect.getsourcefile(trl.SFTTrainer.__init__), "Unsloth did not patch TRL"
from hybridlib import models
from hybridlib.adapters import ADAPTERS
made = models.load(profile, "rslora", 4, backend="unsloth")[0].peft_config["default"]
asked = ADAPTERS["rslora"](4)
for field in ("r", "lora_alpha", "use_rslora", "lora_dropout", "bias", "task_type"):
    assert getattr(made, field) == getattr(asked, field), field
for r in records:
    print(json.dumps({key: r[key] for key in ("id", "curve", "cost", "provenance")}))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not find_spec("unsloth"), reason="Unsloth is not installed (requirements-unsloth.txt)"
)
def test_unsloth_trains_nf4_sft_and_lora_grpo(small, world):
    from dataclasses import asdict

    done = subprocess.run(
        [sys.executable, "-c", UNSLOTH, json.dumps(asdict(small))],
        capture_output=True,
        text=True,
        cwd=world,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sft, grpo = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"id"')]
    assert len(sft["curve"]) == len(grpo["curve"]) == 2
    assert sft["cost"]["tokens"] > 0
    assert all(p["loss"] > 0 for p in sft["curve"]) and all("reward" in p for p in grpo["curve"])
    assert sft["provenance"]["backend"] == "unsloth" and sft["provenance"]["versions"]["unsloth"]


@pytest.mark.slow
def test_the_tokens_are_those_the_base_was_trained_on(tiny):
    from hybridlib import pretrain

    trained = pretrain.build_tokenizer(pretrain.SIZES["small"])
    for text in ("def f(xs):\n    xs = xs[::-1]\n    return xs", "<<12+7=19>>19\n#### 19"):
        assert tiny[1](text)["input_ids"] == trained(text)["input_ids"]


def test_the_chat_template_starts_the_assistants_turn(tiny):
    text = tiny[1].apply_chat_template(PROMPT[0], tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>Compute $3+4$.<|end|><|assistant|>"
    assert data.chat_prompt("Compute $3+4$.") == PROMPT[0]
