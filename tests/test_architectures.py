"""An adapter reaches every linear layer of whatever it is put on, or says what it does not."""

import functools
import json
import re
from dataclasses import replace

import pytest
import torch
from strangers import SIZES, STYLES, gpt2, neox, phi3

from hybridlib import StudyError, adapters, estimate, files, models, study
from hybridlib.__main__ import main
from hybridlib.adapters import ADAPTERS

GPT2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=64)
KINDS = {
    "qwen2": {}, "qwen3": dict(head_dim=8), "llama": {}, "mistral": {}, "gemma2": dict(head_dim=8),
    "gemma3_text": dict(head_dim=8), "phi": {}, "phi3": dict(pad_token_id=0),
    "stablelm": {}, "starcoder2": {}, "cohere": {}, "olmo2": {}, "granite": {}, "smollm3": {},
    "gpt_neox": {}, "bloom": dict(n_layer=2, n_head=4), "falcon": {}, "gpt2": GPT2,
    "gpt_bigcode": GPT2, "glm": dict(head_dim=8),
    "gptj": GPT2 | dict(rotary_dim=8), "codegen": GPT2 | dict(rotary_dim=8),
    "mpt": dict(d_model=32, n_heads=4, n_layers=2, max_seq_len=64),
    "opt": dict(ffn_dim=64, word_embed_proj_dim=16),
    "gpt_neo": dict(num_layers=2, num_heads=4, attention_types=[[["global"], 2]]),
}  # fmt: skip
NOT_LAYERS = re.compile(
    r"(embed\w*|word_embeddings|wte|wpe|lm_head)(\.weight)?$"
)  # what stands before the first layer and behind the last


def outline(kind, **options):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = SIZES | dict(vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = AutoConfig.for_model(kind, **sizes | options)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def attached(name, model):
    with torch.device("meta"):
        return adapters.attach(ADAPTERS[name](2), model)


@functools.cache
def matrices_and_adapted(kind):
    """The names of the matrices of an architecture, and it with an adapter on all layers."""
    model = outline(kind, **KINDS[kind])
    return [name for name, w in model.named_parameters() if w.ndim > 1], attached("lora", model)


@pytest.mark.parametrize("kind", KINDS)
def test_every_matrix_between_embedding_and_head_learns(kind):
    matrices, model = matrices_and_adapted(kind)
    learns = adapters.learning(model)
    assert learns["left_out"] and all(map(NOT_LAYERS.search, learns["left_out"]))
    assert not any(map(NOT_LAYERS.search, learns["modules"]))
    assert learns["number"] == len([name for name in matrices if not NOT_LAYERS.search(name)])
    trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
    whole = sum(w.numel() for w in model.parameters())
    assert learns["share"] == pytest.approx(trained / whole, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_attention_and_the_rest_are_the_whole(kind):
    adapted = {name: attached(name, outline(kind, **KINDS[kind])) for name in ("attention", "mlp")}
    adapted["lora"] = matrices_and_adapted(kind)[1]
    parts = {name: adapters.learning(model)["modules"] for name, model in adapted.items()}
    assert parts["attention"] and parts["mlp"]
    assert sorted(parts["attention"] + parts["mlp"]) == sorted(parts["lora"])
    assert not any(re.search("mlp|ffn|fc", name) for name in parts["attention"])
    assert not any(re.search("attn|attention", name) for name in parts["mlp"])


@pytest.mark.slow
def test_the_tiny_base_has_the_adapter_that_it_always_had(tiny):
    """The same modules, drawn in the same order, under the same seven names."""
    import copy

    from peft import get_peft_model

    names = {
        "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "mlp": ["gate_proj", "up_proj", "down_proj"],
    }
    names["lora"] = names["rslora"] = names["dora"] = names["attention"] + names["mlp"]
    for name, modules in names.items():
        before = ADAPTERS[name](4)
        before.target_modules = modules
        torch.manual_seed(0)
        old = get_peft_model(copy.deepcopy(tiny[0]), before)
        torch.manual_seed(0)
        new = adapters.attach(ADAPTERS[name](4), copy.deepcopy(tiny[0]))
        pairs = zip(old.named_parameters(), new.named_parameters(), strict=True)
        assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
        assert sorted(new.peft_config["default"].target_modules) == sorted(modules)
        assert adapters.entry_name(new.peft_config["default"].to_dict()) in (name, "lora")


def test_of_a_model_that_sees_the_language_model_learns():
    text = SIZES | dict(vocab_size=50, head_dim=8, pad_token_id=0)
    vision = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    model = outline("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    learns = adapters.learning(attached("lora", model))
    assert len(learns["modules"]) == 7 and learns["number"] == 14
    assert all("language_model" in name for name in learns["modules"])
    assert any("vision_tower" in name for name in learns["left_out"])


MLA = dict(
    n_routed_experts=2, first_k_dense_replace=2, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
    qk_nope_head_dim=4, v_head_dim=8, n_group=1, topk_group=1, num_experts_per_tok=1,
    moe_intermediate_size=8, num_key_value_heads=4,
)  # fmt: skip


@pytest.mark.parametrize(
    "kind, options, name, says",
    [
        ("mixtral", dict(num_local_experts=2), "lora", "experts.gate_up_proj.*--adapter attention"),
        ("mixtral", dict(num_local_experts=2), "mlp", "one tensor each"),
        ("gpt_oss", dict(num_local_experts=2, head_dim=8), "dora", "experts.down_proj"),
        ("qwen3_moe", dict(num_experts=2, moe_intermediate_size=16), "rslora", "gate_up_proj"),
        ("mamba", {}, "attention", "no layers that are attention-linear"),
        ("mamba", {}, "lora", "no adapter fits model type mamba: .*out_proj"),
        ("deepseek_v3", MLA, "lora", "PEFT leaves model.layers.*mlp.gate_proj.* without"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_would_be_left_out_in_silence_is_refused(kind, options, name, says):
    with pytest.raises(StudyError, match=says) as error:
        attached(name, outline(kind, **options))
    assert "\n" not in str(error.value)


def test_attention_of_a_mixture_of_experts_learns_and_the_rest_is_listed():
    learns = adapters.learning(attached("attention", outline("mixtral", num_local_experts=2)))
    assert "model.layers.*.mlp.experts.gate_up_proj" in learns["left_out"]
    assert "model.layers.*.mlp.gate" in learns["left_out"]


def test_other_libraries_are_given_the_names_too(tiny):
    import copy

    from peft import get_peft_model

    given = []

    def make(model, config):
        given.append(sorted(config.target_modules))
        return get_peft_model(model, config)

    adapters.attach(ADAPTERS["mlp"](2), copy.deepcopy(tiny[0]), make)
    assert given == [["down_proj", "gate_proj", "up_proj"]]


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_a_dry_run_lists_what_learns_and_what_ends(style, tmp_path, capsys):
    folder, stops = style(tmp_path / "model")
    assert main(["run", "--method", "sft", "--model", str(folder), "--dry-run"]) == 0
    out = capsys.readouterr().out
    learns = adapters.learning(models.outline(folder, "lora", 8)[0])
    assert ", ".join(learns["modules"]) in out and f"beside {learns['number']} modules" in out
    assert f"{learns['share']:.2%}" in out and ", ".join(learns["left_out"]) in out
    ending = re.search("an answer ends in +(.*)", out)[1].split(", ")
    assert len(ending) == len(stops)


def _unknown(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "warp9"}))


def _sequence_to_sequence(folder):
    from transformers import T5Config

    T5Config().save_pretrained(folder)


def _nothing(folder):
    for file in folder.iterdir():
        file.unlink()


def _cut(folder):
    (folder / "config.json").write_text('{"model_type": "gpt')


def _no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize("how", [_unknown, _sequence_to_sequence, _nothing, _cut, _no_tokenizer])
@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_what_is_no_model_is_one_line_before_anything_starts(
    how, flags, tmp_path, world, monkeypatch, capsys
):
    folder, _ = gpt2(tmp_path / "model")
    how(folder)
    monkeypatch.setattr(study, "Pool", None)  # no worker is started
    assert main(["run", "--method", "sft", "--model", str(folder), *flags]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and str(folder) in err


@pytest.mark.slow
@pytest.mark.parametrize("style", [neox, gpt2, phi3])
def test_other_architectures_are_trained_merged_and_scored(style, small, world, tmp_path):
    """By SFT and by GRPO; an adapter on fused or transposed weights is a delta like any other."""
    from hybridlib.merging import merge

    folder, _ = style(tmp_path / "model")
    profile = replace(
        small, model=str(folder), datasets=("tiny_math",), max_completion_tokens=24, n_eval=2
    )
    runs = [study.Run("sft"), study.Run("grpo")]
    for run in runs:
        record = study.execute(run, profile)
        trained = record["provenance"]["trained"]
        assert trained == adapters.learning(models.outline(folder, "lora", 8)[0])
        assert record["scores"] and len(record["curve"]) == 2
    folders = [files.run_folder(run.id, profile.name) / "adapter" for run in runs]
    deltas = merge.deltas(folders[0])
    model, _ = models.load(profile)
    assert len(deltas) == trained["number"]
    for name, delta in deltas.items():
        assert delta.shape == model.get_submodule(name).weight.shape and delta.abs().max() > 0
    merged = study.execute(
        study.Run("merge", parents=("sft", "grpo"), merge="mean"),
        replace(profile, drift=True, full=True),
    )
    assert merged["facts"]["modules"] == trained["number"] and merged["facts"]["drift"]
    assert merged["facts"]["pair"]
    learnt = study.execute(study.Run("cat", parents=("sft", "grpo")), profile)
    assert [*learnt["facts"]["weights"]] == ["0", "1"]


def test_an_estimate_counts_what_would_be_trained(tmp_path):
    folder, _ = neox(tmp_path / "model")
    profile = replace(study.Profile(name="x", model=str(folder)))
    weights, adapter = estimate.parameters(study.Run("sft", rank=4), profile)
    model, _ = models.load(profile, "lora", 4)
    assert adapter == sum(w.numel() for w in model.parameters() if w.requires_grad)
    assert weights == sum(w.numel() for w in model.parameters()) - adapter
