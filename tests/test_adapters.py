"""The facts that adapters state are true, and what they decide."""

import copy

import pytest
import torch

from hybridlib import StudyError, adapters, data
from hybridlib.adapters import ADAPTERS
from hybridlib.engine import rollout
from hybridlib.merging import merge
from hybridlib.registry import Registry


@pytest.fixture(scope="module")
def ids(tiny):
    return torch.tensor(rollout.encode(tiny[1], data.load("tiny_math", "test", 1)["prompt"]))


def wrapped(tiny, name):
    """Return the base with a fresh adapter of this name that does something."""
    torch.manual_seed(0)
    model = adapters.attach(ADAPTERS[name](4), copy.deepcopy(tiny[0])).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.05)
    return model


@torch.no_grad()
def logits(model, ids):
    return model(ids).logits


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_leaves_the_base_alone_unless_it_says_so(tiny, ids, name):
    model = wrapped(tiny, name)
    with model.disable_adapter():
        off = logits(model, ids)
    assert torch.equal(off, logits(tiny[0], ids)) != ADAPTERS[name].mutates_base
    assert not torch.allclose(logits(model, ids), off, atol=1e-2), "it does something"


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_saved_adapter_is_a_dense_delta_or_is_refused(tiny, ids, name, tmp_path):
    model = wrapped(tiny, name)
    model.save_pretrained(tmp_path / name)
    if not ADAPTERS[name].mergeable:
        with pytest.raises(StudyError, match=f"cannot merge {name}: "):
            merge.check_mergeable([tmp_path / name])
        return
    merged = copy.deepcopy(tiny[0])
    with torch.no_grad():
        for module, delta in merge.deltas(tmp_path / name).items():
            merged.get_submodule(module).weight += delta
    torch.testing.assert_close(logits(merged, ids), logits(model, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_fresh_adapter_is_made_without_data_or_is_refused(name):
    if ADAPTERS[name].needs_data or ADAPTERS[name].mutates_base:
        with pytest.raises(StudyError, match=name):
            adapters.trainable(name, 4)
    else:
        assert adapters.trainable(name, 4).r == 4


@pytest.fixture
def added(monkeypatch):
    """Return a function that adds an entry to the registry for the length of a test."""

    def add(entry, **facts):
        stated = dict(mutates_base=False, mergeable=True, needs_data=False) | facts
        other = Registry("adapter of a test", *ADAPTERS.facts)
        monkeypatch.setitem(ADAPTERS, entry.__name__, other.register(**stated)(entry))

    return add


def test_what_an_adapter_declares_is_asked_before_it_is_trained_or_merged(added, tiny, tmp_path):
    def odd(rank):
        return adapters._lora(rank, target_modules=["q_proj"], lora_dropout=0.3)

    added(odd, needs_data=True)
    with pytest.raises(StudyError, match="'odd' is initialised from data"):
        adapters.trainable("odd", 4)
    added(odd, mutates_base=True)
    with pytest.raises(StudyError, match="'odd' changes the base weights"):
        adapters.trainable("odd", 4)
    wrapped(tiny, "odd").save_pretrained(tmp_path / "saved")
    assert merge.check_mergeable([tmp_path / "saved"])
    added(odd, mergeable=False)
    with pytest.raises(StudyError, match="cannot merge saved: the adapter 'odd' is declared not"):
        merge.check_mergeable([tmp_path / "saved"])


def test_an_adapter_has_to_state_its_facts():
    with pytest.raises(StudyError, match="'silent' has to state register.mergeable"):

        @ADAPTERS.register(mutates_base=False)
        def silent(rank): ...


@pytest.mark.slow
def test_an_adapter_other_than_lora_is_one_function(added, small, world, capsys):
    """Trains by SFT and by GRPO, is saved, loaded again and evaluated; TRL's pass takes over."""
    from peft import VeraConfig

    from hybridlib import models, study
    from hybridlib.engine import decoder
    from hybridlib.files import run_folder

    def vera(rank):
        """Two learnt vectors around frozen random matrices (Kopiczko et al. 2024)."""
        return VeraConfig(r=rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")

    added(vera, mergeable=False)
    paid = ("random",)  # whatever the base is sure of
    for method, fields in (("sft", {}), ("grpo", dict(rewards=paid))):
        run = study.Run(method, adapter="vera", learning_rate=0.05, **fields)
        record = study.execute(run, small)
        assert record["scores"] and len(record["curve"]) == 2
        model, _ = models.load(small, start=run_folder(run.id, small.name) / "adapter")
        assert decoder.unsupported(model) == "adapter other than LoRA"
        moved = [w for n, w in model.named_parameters() if "vera_lambda_b" in n and bool(w.any())]
        assert moved, f"{method} has trained it"
    assert "adapter other than LoRA" in capsys.readouterr().out
