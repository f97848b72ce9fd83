"""The distance of a model from its base: nothing at the base, and what transformers says."""

import pytest
import torch

from hybridlib import drift, models
from hybridlib.engine import decoder


@pytest.fixture
def moved(small):
    model, tokenizer = models.load(small, "lora", 8)
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.05)
    return model.eval(), tokenizer


@pytest.mark.slow
def test_the_base_is_at_no_distance_from_itself(small):
    model, tokenizer = models.load(small)
    measured = drift.measure(model.eval(), tokenizer, small)
    loss = measured.pop("corpus_loss")
    assert 0 < loss < 1 and set(measured) == {"gsm8k", "math", "mbpp"}
    for family in measured.values():
        assert family["kl"] == 0 and family["entropy"] > 0
        assert 1 / drift.SAMPLES <= family["distinct"] <= 1


@pytest.mark.slow
def test_an_adapter_moves_it_and_both_ways_of_scoring_agree(moved, small, monkeypatch):
    lean = drift.measure(*moved, small)
    assert all(lean[family]["kl"] > 0 for family in ("gsm8k", "math", "mbpp"))
    padded = decoder.unsupported
    monkeypatch.setattr(drift.decoder, "unsupported", lambda model: "asked for")
    loss = drift.corpus_loss(*moved)
    monkeypatch.setattr(drift.decoder, "unsupported", padded)
    assert loss == pytest.approx(lean["corpus_loss"], abs=1e-4)


@pytest.mark.slow
def test_small_parts_give_the_same_as_large_ones(moved, small, monkeypatch):
    whole = drift.measure(*moved, small)
    monkeypatch.setattr(drift, "ELEMENTS", 1)
    parts = drift.measure(*moved, small)
    for family in ("gsm8k", "math", "mbpp"):
        assert parts[family] == pytest.approx(whole[family], rel=1e-3)
