"""Directions, spaces and spectra of updates against constructions whose answer is known."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.linalg import subspace_angles

from hybridlib import StudyError
from hybridlib.merging import geometry
from hybridlib.profiles import ROOT

SIDES = ("left", "right")
SHAPES = st.tuples(st.integers(2, 24), st.integers(2, 24))
BOTH = (*(f"energy_{side}" for side in SIDES), *(f"angles_{side}" for side in SIDES))


def draw(seed):
    return torch.Generator().manual_seed(seed)


def gaussian(seed, *shape):
    return torch.randn(*shape, generator=draw(seed))


def delta(seed, shape=(20, 12), rank=3):
    """A delta (out, in) of this rank or, where the shape allows no more, of full rank."""
    return gaussian(seed, shape[0], rank) @ gaussian(seed + 1000, rank, shape[1])


def rotation(seed, n):
    return torch.linalg.qr(gaussian(seed, n, n).double())[0]


def moment(seed, n):
    x = gaussian(seed, 3 * n, n)
    return x.T @ x / len(x)


def frobenius(x):
    return x.double().norm().item()


def values(x):
    return torch.linalg.svdvals(x.double()).numpy()


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 30), st.floats(0.01, 100), st.integers(0, 99))
def test_an_update_lies_along_itself_and_against_its_opposite(shape, rank, scale, seed):
    one, c = {"a": delta(seed, shape, rank)}, {"a": moment(seed, shape[1])}
    for sign in (1, -1):
        scores = geometry.similarity(one, {"a": sign * scale * one["a"]}, c)
        assert [scores["cosine"], scores["functional"]] == pytest.approx([sign, sign])
        assert [scores[key] for key in BOTH] == pytest.approx([1] * 4)
        assert scores["modules"]["a"] == {k: v for k, v in scores.items() if k != "modules"}
    assert scores["chance_left"] == pytest.approx(min(rank, *shape) / shape[0])
    assert scores["chance_right"] == pytest.approx(min(rank, *shape) / shape[1])


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_two_updates_agree_with_numpy_and_scipy(shape, rank, other_rank, seed):
    one, two, c = delta(seed, shape, rank), delta(seed + 1, shape, other_rank), moment(3, shape[1])
    scores = geometry.similarity({"a": one}, {"a": two}, {"a": c})
    x, y, c = (part.double().numpy() for part in (one, two, c))
    assert scores["cosine"] == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))
    inner = [np.trace(p @ c @ q.T) for p, q in ((x, y), (x, x), (y, y))]
    assert scores["functional"] == pytest.approx(inner[0] / math.sqrt(inner[1] * inner[2]))
    for side, p, q in (("left", x, y), ("right", x.T, y.T)):
        p_basis, q_basis = (
            np.linalg.svd(m)[0][:, : min(r, *shape)] for m, r in ((p, rank), (q, other_rank))
        )
        projected = p_basis @ (p_basis.T @ q)
        share = (np.linalg.norm(projected) / np.linalg.norm(q)) ** 2
        assert scores[f"energy_{side}"] == pytest.approx(share, abs=1e-6)
        angles = np.cos(subspace_angles(p_basis, q_basis)).mean()
        assert scores[f"angles_{side}"] == pytest.approx(angles, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 99))
def test_without_preferred_inputs_the_functional_cosine_is_the_cosine(shape, seed):
    one, two = {"a": delta(seed, shape)}, {"a": delta(seed + 1, shape)}
    scores = geometry.similarity(one, two, {"a": 3 * torch.eye(shape[1])})
    assert scores["functional"] == pytest.approx(scores["cosine"], abs=1e-9)
    assert "functional" not in geometry.similarity(one, two)


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(1, 5), st.integers(0, 99))
def test_no_measure_of_a_pair_depends_on_the_basis(shape, rank, seed):
    one, two, c = delta(seed, shape, rank).double(), delta(seed + 1, shape).double(), moment(1, 24)
    c = c[: shape[1], : shape[1]].double()
    p, q = rotation(seed, shape[0]), rotation(seed + 1, shape[1])
    before = geometry.similarity({"a": one}, {"a": two}, {"a": c})["modules"]["a"]
    after = geometry.similarity({"a": p @ one @ q.T}, {"a": p @ two @ q.T}, {"a": q @ c @ q.T})
    assert after["modules"]["a"] == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
def test_updates_in_disjoint_directions_share_nothing(shape):
    p, q = (rotation(i, n) for i, n in enumerate(shape))
    one, two = p[:, :3] @ q[:, :3].T, p[:, 3:8] @ q[:, 3:8].T
    scores = geometry.similarity({"a": one}, {"a": two}, {"a": torch.eye(shape[1])})
    assert [scores[key] for key in ("cosine", "functional", *BOTH)] == pytest.approx([0] * 6)
    same_inputs_other_outputs = p[:, 3:6] @ q[:, :3].T
    rows = geometry.similarity({"a": one}, {"a": same_inputs_other_outputs})
    assert [rows[key] for key in BOTH] == pytest.approx([0, 1, 0, 1])
    assert rows["cosine"] == pytest.approx(0)


def test_over_all_modules_an_update_is_one_long_vector():
    shapes = {"a": (12, 20), "b": (8, 8), "c": (30, 10), "d": (6, 6)}
    one = {m: delta(i, shape, 1 + i) for i, (m, shape) in enumerate(shapes.items()) if m != "d"}
    two = {m: 5**i * delta(i + 9, shape) for i, (m, shape) in enumerate(shapes.items()) if m != "a"}
    c = {m: moment(i, shape[1]) for i, (m, shape) in enumerate(shapes.items())}
    scores = geometry.similarity(one, two, c)
    zero = {m: torch.zeros(shape) for m, shape in shapes.items()}
    assert geometry.similarity(zero | one, zero | two, c) == scores
    x, y = (torch.block_diag(*(zero | part).values()) for part in (one, two))
    whole = geometry.similarity({"all": x}, {"all": y}, {"all": torch.block_diag(*c.values())})
    for key in ("cosine", "functional", "energy_left", "energy_right"):
        assert scores[key] == pytest.approx(whole[key])
    # b, c, d carry the energy 5^2, 5^4, 5^6 times their size; a space of d there is none.
    energy = {m: frobenius(d) ** 2 for m, d in two.items()}
    chance = (energy["b"] * 2 / 8 + energy["c"] * 3 / 30) / sum(energy.values())
    assert scores["chance_left"] == pytest.approx(chance)
    modules = scores["modules"]
    angles = (2 * modules["b"]["angles_left"] + 3 * modules["c"]["angles_left"]) / 5
    assert scores["angles_left"] == pytest.approx(angles)
    assert set(modules["a"].values()) == set(modules["d"].values()) == {0.0}
    json.dumps(scores, allow_nan=False)


@pytest.mark.parametrize(
    ("one", "two", "inputs", "reason"),
    [
        ((3, 4), (4, 3), None, "a has two shapes"),
        ((3, 4), (3, 4), {"b": torch.eye(4)}, "inputs of"),
    ],
)
def test_a_pair_of_two_bases_or_without_its_inputs_is_refused(one, two, inputs, reason):
    with pytest.raises(StudyError, match=reason):
        geometry.similarity({"a": torch.ones(one)}, {"a": torch.ones(two)}, inputs)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 30), st.integers(0, 99))
def test_a_null_keeps_length_and_spectrum(shape, rank, seed):
    d = delta(seed, shape, rank)
    for make in (geometry.permuted, geometry.isotropic):
        drawn = make(d, draw(seed))
        assert (drawn.shape, drawn.dtype) == (d.shape, d.dtype)
        assert values(drawn) == pytest.approx(values(d), rel=1e-5, abs=1e-5)
        assert frobenius(drawn) == pytest.approx(frobenius(d), rel=1e-5)
        assert torch.equal(drawn, make(d, draw(seed)))
    shuffled = geometry.permuted(d, draw(seed))
    assert sorted(shuffled.flatten().tolist()) == sorted(d.flatten().tolist())


@pytest.mark.slow
def test_isotropic_singular_vectors_have_no_preferred_direction_or_sign():
    d = torch.diag(torch.tensor([3.0, 1.0, 0.0]))[:, :2]
    generator = draw(0)
    drawn = torch.stack([geometry.isotropic(d, generator) for _ in range(4000)]).double()
    assert drawn.mean(0).numpy() == pytest.approx(np.zeros((3, 2)), abs=0.1)
    assert drawn.square().mean(0).numpy() == pytest.approx(np.full((3, 2), 10 / 6), rel=0.1)


def test_a_null_is_what_unrelated_updates_score():
    shapes = {"a": (60, 40), "b": (40, 60)}
    one, two = ({m: delta(i, s, 8) for m, s in shapes.items()} for i in (0, 50))
    c = {m: moment(1, s[1]) for m, s in shapes.items()}
    actual = geometry.similarity(one, two, c)
    null = geometry.null_distribution(one, two, draw(0), 40, c)
    for name in ("permuted", "isotropic"):
        assert list(null[name]) == ["cosine", "energy_left", "energy_right", "functional"]
        for key, spread in null[name].items():
            assert abs(actual[key] - spread["mean"]) < 4 * spread["sd"]
            chance = actual.get(key.replace("energy", "chance"), 0) if "energy" in key else 0
            assert spread["mean"] == pytest.approx(chance, abs=spread["sd"])
    entries = sum(math.prod(shape) for shape in shapes.values())
    # Whatever the ranks, E cos^2 = 1 / entries for Haar bases; 40 draws know the sd to 11 %.
    assert null["isotropic"]["cosine"]["sd"] * math.sqrt(entries) == pytest.approx(1, abs=0.3)


def test_a_null_repeats_its_draws_in_every_measure():
    one, two, c = {"a": delta(1)}, {"a": delta(2)}, {"a": moment(3, 12)}
    null = geometry.null_distribution(one, two, draw(4), 5, c)
    generator, drawn = draw(4), []
    for _ in range(5):
        drawn.append(geometry.similarity(one, {"a": geometry.permuted(two["a"], generator)}, c))
        geometry.isotropic(two["a"], generator)
    for key, spread in null["permuted"].items():
        column = [measures[key] for measures in drawn]
        assert spread["mean"] == pytest.approx(np.mean(column))
        assert spread["sd"] == pytest.approx(np.std(column, ddof=1))


def test_a_direction_that_two_updates_share_stands_out_of_the_null():
    one, noise = {"a": delta(0, (60, 40), 4)}, delta(1, (60, 40), 4)
    two = {"a": one["a"] + noise}
    actual, null = geometry.similarity(one, two), geometry.null_distribution(one, two, draw(0), 20)
    for key in ("cosine", "energy_left", "energy_right"):
        for name in null:
            assert actual[key] > null[name][key]["mean"] + 5 * null[name][key]["sd"]


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_an_update_of_the_spectrum_alone(shape):
    w, q = gaussian(0, *shape).double(), min(shape)
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    d = (u * (0.01 * s)) @ v
    measures = geometry.spectral_measures(w, d)
    assert measures["residual"] == pytest.approx(1)
    assert measures["shift"] == pytest.approx(0.01)
    assert measures["kappa"] == pytest.approx(math.prod(shape) / q)
    assert measures["rotation_left"] == pytest.approx(0, abs=1e-6)
    assert measures["rotation_right"] == pytest.approx(0, abs=1e-6)
    assert frobenius(geometry.isospectral(w, d)) < 1e-12


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_an_update_of_the_singular_vectors_alone(shape):
    w = gaussian(0, *shape).double()
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    sine, cosine = math.sin(math.radians(30)), math.cos(math.radians(30))
    turn = torch.eye(len(s), dtype=torch.float64)  # the first direction towards the last one
    turn[0, 0], turn[0, -1], turn[-1, 0], turn[-1, -1] = cosine, -sine, sine, cosine
    d = (u @ turn * s) @ v - w
    measures = geometry.spectral_measures(w, d, principal_rank=1)
    assert measures["residual"] == pytest.approx(0, abs=1e-12)
    assert measures["shift"] == pytest.approx(0, abs=1e-12)
    assert measures["rotation_left"] == pytest.approx(30)
    assert measures["rotation_right"] == pytest.approx(0, abs=1e-6)
    of_five = geometry.spectral_measures(w, d, principal_rank=5)
    assert of_five["rotation_left"] == pytest.approx(6)  # one angle of five
    transposed = geometry.spectral_measures(w.T, d.T, principal_rank=1)
    assert transposed["rotation_right"] == pytest.approx(30)
    assert geometry.isospectral(w, d).numpy() == pytest.approx(d.numpy(), abs=1e-12)


def test_a_small_angle_keeps_its_digits():
    w = torch.diag(torch.tensor([4.0, 2, 1], dtype=torch.float64))
    turn = torch.eye(3, dtype=torch.float64)
    turn[0, 1], turn[1, 0] = -1e-9, 1e-9
    measures = geometry.spectral_measures(w, turn @ w - w)
    assert measures["rotation_left"] == pytest.approx(math.degrees(1e-9), rel=1e-4)


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (40, 40)])
@pytest.mark.parametrize("rank", [1, 4, 40])
def test_an_update_without_preference_has_kappa_one_and_no_favourite_entries(shape, rank):
    w = gaussian(0, *shape)
    samples = [geometry.spectral_measures(w, delta(seed, shape, rank)) for seed in range(1, 61)]
    for key in ("kappa", "principal", "low_magnitude"):
        column = [measures[key] for measures in samples]
        assert np.mean(column) == pytest.approx(1, abs=4 * np.std(column) / math.sqrt(60))
        assert np.mean(column) == pytest.approx(1, abs=0.15)


def test_principal_and_low_magnitude_find_the_entries():
    w, k = gaussian(0, 40, 30), 2
    u, s, v = torch.linalg.svd(w)
    low_rank = (u[:, :k] * s[:k]) @ v[:k]
    count = round(0.1 * w.numel())
    for key, scores in (("principal", low_rank.abs()), ("low_magnitude", -w.abs())):
        inside = scores >= scores.flatten().sort().values[-count]
        noise = 0.01 * gaussian(1, 40, 30)
        assert geometry.spectral_measures(w, inside + noise, k)[key] == pytest.approx(10)
        assert geometry.spectral_measures(w, ~inside + noise, k)[key] == pytest.approx(0)
        one = torch.zeros(40, 30)  # a sparse update: entries that did not move do not count
        one.view(-1)[scores.flatten().argmax()] = 1
        assert geometry.spectral_measures(w, one, k)[key] == pytest.approx(10)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(1, 30), st.integers(-12, 2), st.integers(0, 99))
def test_the_measures_keep_their_bounds_and_restoring_takes_the_residual_away(
    shape, rank, exponent, seed
):
    w, d = gaussian(seed, *shape), 10.0**exponent * delta(seed + 1, shape, rank)
    measures = geometry.spectral_measures(w, d)
    assert tuple(sorted(measures)) == tuple(sorted(geometry.SPECTRAL_MEASURES))
    assert all(type(value) is float and math.isfinite(value) for value in measures.values())
    size, total = frobenius(d), frobenius(w.bfloat16().double() + d.double())
    noise = 1e-13 * frobenius(w) / size  # what float64 leaves of a tiny update
    assert 0 <= measures["residual"] <= 1 + noise
    assert 0 <= measures["kappa"] <= max(shape) * (1 + 1e-9)
    assert 0 <= measures["lost"] <= min(1, 2**-8 * total / size) * (1 + 1e-4)
    assert 0 <= measures["rotation_left"] <= 90 and 0 <= measures["rotation_right"] <= 90
    assert measures["shift"] == pytest.approx(measures["residual"] * size / frobenius(w))
    back = geometry.isospectral(w.double(), d.double())
    assert values(w.double() + back) == pytest.approx(values(w), abs=1e-12 * (1 + total))
    gone = frobenius(back - d.double()) / size
    assert gone == pytest.approx(measures["residual"], abs=noise + 1e-6)
    assert geometry.isospectral(w, d).dtype == torch.float32


def test_a_merge_into_bfloat16_loses_what_is_below_its_last_digit():
    w = gaussian(0, 32, 48)
    size = 2.0 ** -torch.arange(4.0, 30, 2)
    lost = [geometry.spectral_measures(w, float(s) * delta(1, (32, 48)))["lost"] for s in size]
    assert lost == pytest.approx(sorted(lost), abs=1e-6)
    assert lost[0] < 0.1 and lost[-1] > 0.999
    coarse, d = w.bfloat16().float(), delta(1, (32, 48)) / 100
    merged = w.bfloat16() + d  # in float32, as an adapter is added
    assert torch.equal(coarse + geometry.rounded(coarse, d), merged.bfloat16().float())
    assert geometry.unrounded(coarse, d).numpy() == pytest.approx(d.numpy())
    both = geometry.rounded(w, d).double() - geometry.unrounded(w, d).double()
    assert geometry.spectral_measures(w, d)["lost"] == pytest.approx(
        frobenius(both) / frobenius(d), 1e-3
    )
    assert geometry.spectral_measures(coarse, d)["lost"] == geometry.spectral_measures(w, d)["lost"]
    base = coarse.double() - w.double()
    for make in (geometry.rounded, geometry.unrounded):
        assert make(w, torch.zeros(32, 48)).double().numpy() == pytest.approx(base.numpy())


def test_a_zero_update_moves_nothing():
    w, zero = gaussian(0, 6, 9), torch.zeros(6, 9)
    nothing = dict.fromkeys(geometry.SPECTRAL_MEASURES, 0.0)
    assert geometry.spectral_measures(w, zero) == nothing
    assert geometry.pooled_spectral_measures({"a": w}, {"a": zero}) == nothing
    assert torch.equal(geometry.isospectral(w, zero), zero)
    assert geometry.spectral_measures(zero, w)["shift"] == 0  # nothing to compare with


def test_over_modules_norms_are_summed_before_they_are_divided():
    weights = {"a": gaussian(0, 12, 20), "b": 9 * gaussian(1, 30, 10), "c": gaussian(2, 5, 5)}
    deltas = {"a": delta(3, (12, 20)), "b": delta(4, (30, 10)) / 50, "c": torch.zeros(5, 5)}
    measures = geometry.pooled_spectral_measures(weights, deltas)
    parts = {m: geometry.spectral_measures(weights[m], deltas[m]) for m in "ab"}
    after = {m: values(weights[m].double() + deltas[m].double()) for m in "ab"}
    moved = math.sqrt(sum(((after[m] - values(weights[m])) ** 2).sum() for m in "ab"))
    length, size = (math.hypot(*(frobenius(d[m]) for m in "ab")) for d in (deltas, weights))
    assert measures["residual"] == pytest.approx(moved / length)
    assert measures["shift"] == pytest.approx(moved / size)
    lost = math.hypot(*(parts[m]["lost"] * frobenius(deltas[m]) for m in "ab"))
    assert measures["lost"] == pytest.approx(lost / length)
    for key in geometry.SPECTRAL_MEASURES[3:]:
        assert measures[key] == pytest.approx((parts["a"][key] + parts["b"][key]) / 2)


def test_random_adapters_of_the_shipped_base_have_no_preference():
    stored = load_file(ROOT / "data" / "bases" / "small" / "model.safetensors")
    weights = {name: w.float() for name, w in stored.items() if "proj.weight" in name}
    deltas = {m: delta(i, w.shape, 4) / 500 for i, (m, w) in enumerate(weights.items())}
    measures = geometry.pooled_spectral_measures(weights, deltas)
    assert measures["kappa"] == pytest.approx(1, abs=0.2)
    assert measures["principal"] == pytest.approx(1, abs=0.1)
    assert measures["low_magnitude"] == pytest.approx(1, abs=0.1)
    assert 0 < measures["residual"] < 0.5 and 0 < measures["lost"] < 1
