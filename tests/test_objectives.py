"""The identities that the objectives promise, and that each of them trains."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib import objectives, study
from hybridlib.objectives import OBJECTIVES, Tokens

LOGITS = st.lists(st.lists(st.floats(-6, 6), min_size=5, max_size=5), min_size=1, max_size=6)


def gradient(loss, rows, base=None):
    """The gradient of a loss with respect to the logits of the policy."""
    logits = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    log_probs = logits.log_softmax(-1)
    labels = torch.arange(len(rows)) % logits.shape[1]
    label_log_probs = log_probs.gather(1, labels[:, None])[:, 0]
    other = torch.tensor(base or rows, dtype=torch.float64).log_softmax(-1)
    loss(Tokens(label_log_probs, log_probs, labels, lambda: other)).sum().backward()
    return logits.grad, label_log_probs.detach().exp()


@settings(max_examples=30, deadline=None)
@given(rows=LOGITS, penalty=st.floats(-0.9, 0.9))
def test_one_token_rollouts_at_temperature_one_are_dft_times_one_minus_the_penalty(rows, penalty):
    rolled, _ = gradient(lambda t: objectives.expected_otr(t, 1.0, penalty), rows)
    dft, _ = gradient(OBJECTIVES["dft"], rows)
    assert torch.allclose(rolled, (1 - penalty) * dft, atol=1e-10)


def test_penalty_with_tempering_leaves_the_direction_of_dft():
    rows = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)).tolist()
    dft, _ = gradient(OBJECTIVES["dft"], rows)
    rolled, _ = gradient(OBJECTIVES["otr"], rows)
    tempered, _ = gradient(lambda t: objectives.expected_otr(t, 1.3, 0.0), rows)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(tempered, dft).item() == pytest.approx(1)
    assert cosine(rolled, dft).item() < 0.9


@settings(max_examples=30, deadline=None)
@given(rows=LOGITS)
def test_the_weights_are_those_of_the_papers(rows):
    plain, p = gradient(OBJECTIVES["nll"], rows)
    weights = {"dft": p, "chord_phi": p * (1 - p), "luffy": 0.1 * p / (p + 0.1) ** 2}
    for name, weight in weights.items():
        weighted, _ = gradient(OBJECTIVES[name], rows)
        assert torch.allclose(weighted, weight[:, None] * plain, atol=1e-10), name


@settings(max_examples=30, deadline=None)
@given(rows=LOGITS)
def test_asft_is_dft_at_the_base_and_pulls_back_to_it_elsewhere(rows):
    dft, _ = gradient(OBJECTIVES["dft"], rows)
    there, _ = gradient(OBJECTIVES["asft"], rows)
    assert torch.allclose(there, dft, atol=1e-10)
    base = [[value + (i == 0) for i, value in enumerate(row)] for row in rows]
    away, _ = gradient(OBJECTIVES["asft"], rows, base)
    pull = away - dft  # gradient of KL(base || policy): policy minus base
    now, then = (torch.tensor(r, dtype=torch.float64).softmax(-1) for r in (rows, base))
    assert torch.allclose(pull, objectives.ANCHOR * (now - then), atol=1e-10)


def test_top_entropy_teaches_only_undecided_tokens():
    rows = [[9.0, 0, 0, 0, 0], [0.1, 0, 0, 0, 0]]
    weighted, _ = gradient(OBJECTIVES["top_entropy"], rows)
    assert weighted[0].abs().max() == 0 and weighted[1].abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_has_a_source_and_trains(name, small, tmp_path):
    from hybridlib.methods import Job, train

    assert OBJECTIVES[name].__doc__
    run = study.Run("sft", objective=name, steps=2)
    trained = train.sft(Job(run, small, tmp_path, rows=study.rows_for(run, small)))
    assert all(abs(point["loss"]) < 50 for point in trained.curve) and trained.adapter.is_dir()


@pytest.mark.slow
def test_an_objective_is_the_same_with_and_without_padding(small, tmp_path, monkeypatch):
    from hybridlib.engine import trainers
    from hybridlib.methods import Job, train

    run = study.Run("sft", objective="asft", steps=2)
    rows = study.rows_for(run, small)
    packed = train.sft(Job(run, small, tmp_path / "packed", rows=rows)).curve
    monkeypatch.setattr(trainers, "can_replace_pass", lambda trainer, model: False)
    padded = train.sft(Job(run, small, tmp_path / "padded", rows=rows)).curve
    for a, b in zip(packed, padded, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-4)
