"""Intervals and paired tests against closed forms, simulation and scipy."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib import StudyError, proportions, stats


def table(right, seeds=None, **fields):
    """Items of one arm from a seeds x items matrix of 0 and 1."""
    right = np.atleast_2d(np.asarray(right, float))
    parts = [
        pd.DataFrame(
            {
                "family": "gsm8k",
                "split": "test",
                "item": np.arange(len(row)),
                "level": 1,
                "greedy": row,
                "correct": 4 * row,
                "samples": 4,
                "seed": seed,
                **fields,
            }
        )
        for seed, row in zip(seeds or range(len(right)), right, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_answer(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([1] * correct + [0] * (n - correct), k))
    share = sum(any(subset) for subset in subsets) / len(subsets)
    assert proportions.pass_at_k(n, correct, k) == pytest.approx(share)


def test_pass_at_k_works_on_arrays_and_refuses_k_beyond_the_samples():
    assert proportions.pass_at_k([4, 4, 4], [0, 2, 4], 1) == pytest.approx([0, 0.5, 1])
    with pytest.raises(StudyError, match="pass@5 needs .* 4 samples"):
        proportions.pass_at_k([4], [1], 5)


@given(st.integers(1, 2000), st.data())
def test_wilson_agrees_with_scipy(n, data):
    from scipy.stats import binomtest

    successes = data.draw(st.integers(0, n))
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert proportions.wilson(successes, n) == pytest.approx(tuple(expected), abs=1e-9)


def test_wilson_knows_nothing_without_items():
    assert proportions.wilson(0, 0) == (0.0, 1.0)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
)
@settings(deadline=None, max_examples=25)
def test_auc_is_that_of_mann_and_whitney(yes, no):
    from scipy.stats import mannwhitneyu

    value, low, high = proportions.auc(yes, no)
    assert value == pytest.approx(mannwhitneyu(yes, no).statistic / len(yes) / len(no))
    assert 0 <= low <= high <= 1
    assert proportions.auc(no, yes)[0] == pytest.approx(1 - value)


def test_shares_auc_and_f1_of_nothing():
    assert proportions.share([]) is None
    assert proportions.auc([], [1]) is None
    assert proportions.f1([True], []) is None
    assert proportions.f1([False, False], [False]) == [0, 0, 0]


def test_each_metric_scores_an_item():
    items = table([1, 0]).assign(correct=[1, 3])
    assert stats.item_scores(items, "greedy").tolist() == [1, 0]
    assert stats.item_scores(items, "sampled").tolist() == [0.25, 0.75]
    assert stats.item_scores(items, "pass@2").tolist() == [0.5, 1.0]
    items = items.assign(majority=[0.5, 1])
    assert stats.item_scores(items, "majority").tolist() == [0.5, 1]
    valid = "greedy, sampled, majority, pass@k"
    with pytest.raises(StudyError, match=f"unknown metric 'pass'; valid: {valid}"):
        stats.item_scores(items, "pass")


def test_unpack_reads_the_items_of_a_record():
    stored = {
        "gsm8k/test": {"level": "12", "greedy": "01", "correct": "34", "samples": 4},
        "org/set/test": {"level": "5", "greedy": "1", "majority": [0.5]},
    }
    frame = stats.unpack(stored)
    assert math.isnan(frame["majority"][1]) and frame["majority"][2] == 0.5
    assert frame["family"].tolist() == ["gsm8k", "gsm8k", "org/set"]
    assert frame["item"].tolist() == [0, 1, 0]
    assert frame["level"].tolist() == [1, 2, 5] and frame["greedy"].tolist() == [0, 1, 1]
    assert frame["correct"].tolist()[:2] == [3, 4] and math.isnan(frame["correct"][2])
    assert stats.unpack({}).empty


def test_scores_give_one_row_per_set_and_measured_metric():
    stored = {
        "gsm8k/test": {"level": "1122", "greedy": "0110", "correct": "0440", "samples": 4},
        "math/test": {"level": "1", "greedy": "1", "correct": "", "samples": 0},
    }
    stored["mbpp/test"] = {"level": "1", "greedy": "1", "majority": [0.5]}
    rows = stats.scores(stored)
    assert [(row["family"], row["metric"]) for row in rows] == [
        ("gsm8k", "greedy"),
        ("gsm8k", "sampled"),
        ("gsm8k", "pass@4"),
        ("math", "greedy"),
        ("mbpp", "greedy"),
        ("mbpp", "majority"),
    ]
    assert rows[-1]["value"] == 0.5
    assert all(row["value"] == 0.5 and row["n"] == 4 for row in rows[:3])
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)


def test_one_seed_gives_the_interval_of_the_items_alone():
    right = np.random.default_rng(1).random(400) < 0.3
    row = stats.summarise(table(right, method="sft"), ["method"], "greedy").iloc[0]
    low, high = proportions.wilson(right.sum(), 400)
    assert (row["n_items"], row["n_seeds"]) == (400, 1)
    assert row["value"] == right.mean()
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.01)


def test_seeds_that_disagree_widen_the_interval():
    agree = np.tile(np.arange(100) < 50, (4, 1))
    differ = np.stack([np.arange(100) < count for count in (30, 40, 60, 70)])
    width = [
        np.ptp(stats.summarise(table(r, method="a"), ["method"], "greedy")[["low", "high"]].iloc[0])
        for r in (agree, differ)
    ]
    assert width[1] > 1.3 * width[0]


@pytest.mark.parametrize("right", [np.zeros((2, 30)), np.ones((2, 30))])
def test_all_right_or_all_wrong_is_not_certainty(right):
    row = stats.summarise(table(right, method="a"), ["method"], "greedy").iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(proportions.wilson(right.mean() * 30, 30))
    assert row["high"] - row["low"] > 0.05


def test_summarise_repeats_itself_and_keeps_groups_in_order():
    items = pd.concat([table([[1, 0, 1]], method=m) for m in ("sft", "base")])
    frame = stats.summarise(items, ["method"], "greedy")
    assert frame["method"].tolist() == ["sft", "base"]
    assert frame.equals(stats.summarise(items, ["method"], "greedy"))


def test_a_group_that_mixes_runs_is_refused_by_the_field_to_add():
    items = pd.concat([table([[1, 0]], method="sft", rank=rank) for rank in (1, 8)])
    with pytest.raises(StudyError, match="method=sft mixes runs; tell them apart by rank"):
        stats.summarise(items, ["method"], "greedy")
    assert len(stats.summarise(items, ["method", "rank"], "greedy")) == 2


def test_an_arm_that_goes_on_from_another_is_compared_seed_by_seed():
    rng = np.random.default_rng(0)
    luck = rng.random((5, 1)) * 0.8
    before = rng.random((5, 60)) < luck  # seeds differ by a lot
    after = before.copy()
    after[:, :6] = True  # and each gains the same few items
    both = pd.concat([table(before, arm="before"), table(after, arm="after")])
    both["id"] = both["arm"] + both["seed"].astype(str)
    goes_on = both.assign(
        prerequisites=[
            (f"before{seed}",) if arm == "after" else ()
            for arm, seed in zip(both["arm"], both["seed"], strict=True)
        ]
    )

    def width(rows):
        gap = stats.paired(rows, {"arm": "after"}, {"arm": "before"}, "sampled")
        return gap["high"] - gap["low"], gap["low"]

    paired, low = width(goes_on)
    apart, _ = width(both)
    assert low > 0 and paired < 0.2 < 3 * paired < apart
    fewer = goes_on[(goes_on["arm"] == "after") | (goes_on["seed"] < 4)]
    assert width(fewer)[0] > 3 * paired  # seeds that have no partner


def test_arms_share_runs_at_whatever_remove():
    rows = pd.DataFrame(
        {
            "id": ["sft", "grpo_after-sft", "merge", "grpo"],
            "prerequisites": [(), ("sft",), ("grpo_after-sft", "other"), ()],
        }
    )
    for first, second, shared in (("sft", "merge", True), ("grpo", "merge", False)):
        arms = [rows[rows["id"] == name] for name in (first, second)]
        assert stats._share_runs(rows, arms) == shared


def test_seeds_on_different_items_are_refused():
    items = table([[1, 0, 1], [1, 0, 1]], method="sft").iloc[:-1]
    with pytest.raises(StudyError, match="not every seed has a greedy score for every item"):
        stats.summarise(items, ["method"], "greedy")


def simulated(rng, shift=0.0, seeds=3, n=80, **fields):
    """An arm whose trainings differ by a random amount, on items of random difficulty."""
    ease = rng.normal(0, 1, n)
    luck = rng.normal(0, 0.25, (seeds, 1))
    return table(rng.random((seeds, n)) < 1 / (1 + np.exp(-(ease + luck + shift))), **fields)


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth, covered = 0.5, []  # symmetric in ease and luck
    for _ in range(150):
        row = stats.summarise(simulated(rng, method="a"), ["method"], "greedy").iloc[0]
        covered.append(row["low"] <= truth <= row["high"])
    assert 0.90 <= np.mean(covered)


def test_a_curve_is_read_between_its_points():
    points = pd.DataFrame(
        {"arm": list("aaab"), "tokens": [30, 10, 20, 5], "value": [0.9, 0.1, 0.5, 0.7]}
    )

    def at(budget):
        return stats.at_budget(points, ["arm"], "tokens", budget).set_index("arm")["value"]

    assert at(15)["a"] == pytest.approx(0.3) and at(99)["a"] == 0.9 and at(99)["b"] == 0.7
    assert np.isnan(at(9)["a"])


def test_paired_is_sharper_than_two_intervals_when_items_are_shared():
    rng = np.random.default_rng(3)
    base = rng.random(300) < 0.5
    better = base | (rng.random(300) < 0.1)
    items = pd.concat([table(better, method="grpo"), table(base, method="sft")])
    gap = stats.paired(items, {"method": "grpo"}, {"method": "sft"}, "greedy")
    assert gap["value"] == pytest.approx(better.mean() - base.mean())
    assert gap["low"] > 0 and gap["p"] < 0.01 and gap["n"] == 300
    assert gap["high"] - gap["low"] < 0.08  # unpaired: about 0.16


def test_paired_changes_sign_with_its_arms():
    rng = np.random.default_rng(4)
    arms = [simulated(rng, shift, method=m) for m, shift in (("grpo", 0.5), ("sft", 0.0))]
    items = pd.concat(arms)
    one = stats.paired(items, {"method": "grpo"}, {"method": "sft"}, "greedy")
    two = stats.paired(items, {"method": "sft"}, {"method": "grpo"}, "greedy")
    assert one["value"] == -two["value"]
    assert (one["low"] > 0) == (one["p"] < 0.05) or one["high"] < 0
    assert (one["seeds_arm"], one["seeds_reference"]) == (3, 3)


@pytest.mark.parametrize(("wins", "losses"), [(12, 3), (30, 15), (20, 18), (14, 26)])
def test_paired_agrees_with_a_sign_test_on_one_seed(wins, losses):
    from scipy.stats import binom, binomtest

    a = np.repeat([1, 0, 1, 0], [wins, losses, 40, 20])
    b = np.repeat([0, 1, 1, 0], [wins, losses, 40, 20])
    items = pd.concat([table(a, method="a"), table(b, method="b")])
    gap = stats.paired(items, {"method": "a"}, {"method": "b"}, "greedy")
    exact = binomtest(wins, wins + losses).pvalue - binom.pmf(wins, wins + losses, 0.5)  # mid-p
    assert gap["p"] == pytest.approx(exact, rel=0.1, abs=0.03)


def test_identical_arms_do_not_differ_yet_few_items_say_little():
    items = pd.concat([table([1, 0] * 6, method=m) for m in "ab"])
    gap = stats.paired(items, {"method": "a"}, {"method": "b"}, "greedy")
    assert gap["value"] == 0 and gap["p"] == 1
    assert gap["low"] < -0.1 and gap["high"] > 0.1


def test_paired_uses_the_shared_items_and_names_what_is_wrong():
    items = pd.concat([table([1, 0, 1, 1], method="a"), table([0, 0], method="b")])
    assert stats.paired(items, {"method": "a"}, {"method": "b"}, "greedy")["n"] == 2
    with pytest.raises(StudyError, match="no finished run matches method=c"):
        stats.paired(items, {"method": "c"}, {"method": "b"}, "greedy")
    with pytest.raises(StudyError, match="no column 'mehtod'; valid: "):
        stats.paired(items, {"mehtod": "a"}, {"method": "b"}, "greedy")
    apart = pd.concat([table([1, 0], method="a"), table([1, 0], method="b").assign(split="valid")])
    with pytest.raises(StudyError, match="no item was answered by both"):
        stats.paired(apart, {"method": "a"}, {"method": "b"}, "greedy")


def test_an_arm_of_one_seed_counts_as_fixed():
    rng = np.random.default_rng(8)
    several, one = simulated(rng, 0.3, seeds=5, method="a"), simulated(rng, seeds=1, method="b")
    gap = stats.paired(pd.concat([several, one]), {"method": "a"}, {"method": "b"}, "greedy")
    first = several[several["seed"] == 0]
    alone = stats.paired(pd.concat([first, one]), {"method": "a"}, {"method": "b"}, "greedy")
    assert (gap["seeds_arm"], gap["seeds_reference"], alone["seeds_arm"]) == (5, 1, 1)
    assert gap["se"] > gap["se_items"] and alone["se"] == alone["se_items"]


def test_one_common_item_says_nearly_nothing():
    items = pd.concat([table([[1], [1]], method="a"), table([[0], [0]], method="b")])
    gap = stats.paired(items, {"method": "a"}, {"method": "b"}, "greedy")
    assert gap["value"] == 1 and gap["low"] < 0.3 and gap["n"] == 1


def gaps_of(worlds, seeds, n, effect=0.0):
    """Comparisons of two arms that the same items suit differently, with the true difference."""
    rng = np.random.default_rng(6)
    for _ in range(worlds):
        ease, suits = rng.normal(0, 1, n), rng.normal(0, 0.5, (2, n))
        luck = rng.normal(0, 0.25, (2, seeds, 1))
        shift = np.array([effect, 0.0])[:, None, None]
        chance = 1 / (1 + np.exp(-(ease + suits[:, None] + luck + shift)))
        arms = [
            table(rng.random((seeds, n)) < one, method=m)
            for one, m in zip(chance, "ab", strict=True)
        ]
        yield stats.paired(pd.concat(arms), {"method": "a"}, {"method": "b"}, "greedy")


@pytest.mark.slow
def test_intervals_of_differences_cover_the_truth_as_often_as_they_say():
    draws = np.random.default_rng(7).normal(0, (1 + 0.5**2 + 0.25**2) ** 0.5, 200_000)
    truth = np.mean(1 / (1 + np.exp(-(draws + 0.4)))) - 0.5
    gaps = [*gaps_of(600, 5, 80, effect=0.4)]
    covered = np.mean([gap["low"] <= truth <= gap["high"] for gap in gaps])
    assert abs(covered - 0.95) < 0.03
    assert np.mean([gap["value"] for gap in gaps]) == pytest.approx(truth, abs=0.01)


@pytest.mark.parametrize(
    ("intervals", "margin", "expected"),
    [
        ([(0.1, 0.3)], 0.0, "supported"),
        ([(-0.1, 0.3)], 0.0, "undecided"),
        ([(-0.3, -0.1)], 0.0, "refuted"),
        ([(-0.04, 0.3)], -0.05, "supported"),  # no worse than by the margin
        ([(0.1, 0.3), (-0.1, 0.1)], 0.0, "undecided"),
        ([(0.1, 0.3), (-0.3, -0.1)], 0.0, "refuted"),  # one is enough
        ([(0.0, 0.0)], 0.0, "undecided"),  # the margin itself is not above it
    ],
)
def test_a_verdict_asks_every_interval_to_lie_above_the_margin(intervals, margin, expected):
    gaps = [{"low": low, "high": high} for low, high in intervals]
    assert stats.verdict(gaps, margin) == expected


def test_a_run_against_itself_is_exactly_nothing():
    rng = np.random.default_rng(1)
    items = simulated(rng, arm="a")
    gap = stats.paired(items, {"arm": "a"}, {"arm": ["a"]}, "sampled")
    assert gap["value"] == 0 and gap["p"] == 1


@pytest.mark.slow
def test_p_values_are_uniform_where_nothing_is_to_be_found():
    p = np.array([gap["p"] for gap in gaps_of(80, 4, 40)])
    assert 0.0 <= np.mean(p < 0.05) <= 0.15 and 0.3 < np.mean(p < 0.5) < 0.7


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_orders_and_never_lowers(ps):
    adjusted = stats.holm(ps)
    assert all(a >= p - 1e-12 for a, p in zip(adjusted, ps, strict=True))
    assert max(adjusted) <= 1 and adjusted[int(np.argmin(ps))] == pytest.approx(
        min(1, len(ps) * min(ps)), abs=1e-9
    )
