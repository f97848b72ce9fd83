"""Contrasts over seeds and items, stages, verdicts, plans: closed forms and simulation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from hybridlib import StudyError, stats
from hybridlib.proportions import wilson
from hybridlib.trials import (
    DESIGN,
    Design,
    Estimate,
    Parts,
    Plan,
    Primary,
    Term,
    blocks,
    equivalence,
    estimate,
    levels,
    repeated_interval,
    seeds_needed,
    smallest_found,
    stage_power,
)
from hybridlib.trials import verdicts as judge
from hybridlib.trials.decisions import REFUTED, SAME, SUPPORTED, UNDECIDED, Levels
from hybridlib.trials.scores import Scores
from hybridlib.trials.stages import beyond, crossing, spent
from hybridlib.trials.worlds import World, coverage, studies

CHANCE = 1e-3
"""How often a simulation may fail although all is well."""


def assert_rate(hits, trials, low, high):
    """Fail unless a share between low and high could well have given so many hits."""
    assert binom.ppf(CHANCE, trials, low) <= hits <= binom.isf(CHANCE, trials, high)


def known(value, se=0.01, df=50.0):
    return Estimate(value, se, df, Parts(0.0, se**2, 0.0))


def two_arms(rng, seeds=5, items=40):
    return [Term(1.0, rng.random((seeds, items)), "a"), Term(-1.0, rng.random((seeds, items)), "b")]


# ---------------------------------------------------------------- the estimate


def test_the_error_is_that_of_a_two_way_analysis_of_variance():
    rng = np.random.default_rng(0)
    first, second = rng.random((5, 40)) + rng.normal(0, 1, 40), rng.random((5, 40))
    cells = first - second
    seeds, items = cells.mean(1), cells.mean(0)
    left = cells - seeds[:, None] - items + cells.mean()
    squares = np.array([40 * seeds.var(ddof=1), 5 * items.var(ddof=1), (left**2).sum() / 4 / 39])
    squares[0] = max(squares[0], squares[2])
    found = estimate([Term(1, first), Term(-1, second)])
    assert found.value == pytest.approx(cells.mean())
    assert found.se**2 == pytest.approx((squares[0] + squares[1] - squares[2]) / 200)
    assert found.parts.total == pytest.approx(found.se**2)
    assert found.components["residual"] == pytest.approx(squares[2] ** 0.5)
    assert found.components["item by arm"] == pytest.approx(((squares[1] - squares[2]) / 5) ** 0.5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99))
def test_an_estimate_turns_with_its_signs_and_forgets_the_order(seed):
    rng = np.random.default_rng(seed)
    terms, families = two_arms(rng), rng.integers(0, 3, 40)
    one = estimate(terms, families)
    turned = estimate([replace(term, weight=-term.weight) for term in terms], families)
    assert turned.value == -one.value and turned.se == one.se
    order = rng.permutation(40)
    moved = [replace(term, scores=term.scores[rng.permutation(5)][:, order]) for term in terms]
    again = estimate(moved, families[order])
    assert (again.value, again.se, again.df) == pytest.approx((one.value, one.se, one.df))


def test_luck_that_arms_share_cancels_where_they_are_compared_seed_by_seed():
    rng = np.random.default_rng(1)
    luck, noise = rng.normal(0, 1, (5, 1)), rng.normal(0, 0.1, (2, 5, 40))
    arms = luck + noise
    apart, paired = (
        estimate([Term(1, arms[0], "a"), Term(-1, arms[1], block)]) for block in ("b", "a")
    )
    assert paired.se < 0.1 * apart.se and paired.value == pytest.approx(apart.value)


def test_one_item_says_as_little_as_wilson_allows():
    one = estimate([Term(1, np.ones((5, 1)), "a"), Term(-1, np.zeros((5, 1)), "b")])
    low, high = one.interval()
    assert one.value == 1 and one.items == 1
    assert (high - low) / 2 == pytest.approx(wilson(0, 1)[1])


def test_what_families_differ_by_is_no_error():
    rng = np.random.default_rng(2)
    families = np.repeat([0, 1, 2], 40)
    first = rng.normal(0, 0.1, (5, 120)) + families  # the first arm gains most on the third family
    terms = [Term(1, first, "a"), Term(-1, rng.normal(0, 0.1, (5, 120)), "b")]
    assert estimate(terms, families).se < 0.5 * estimate(terms).se


def test_arms_may_have_met_different_items_and_the_base_is_itself():
    scores = np.random.default_rng(3).random((4, 30))
    half = np.where(np.arange(30) < 15, scores, np.nan)
    found = estimate([Term(1, scores), Term(-1, half)])
    assert found.value == pytest.approx(scores.mean() - scores[:, :15].mean())
    base = estimate([Term(1, scores, "a"), Term(-1, scores[:1], "base", fixed=True)])
    assert base.value == pytest.approx(scores.mean() - scores[0].mean()) and base.seeds == (4, 1)


def test_arms_that_never_differ_leave_what_the_items_cannot_exclude():
    scores = np.random.default_rng(4).integers(0, 2, (3, 12)).astype(float)
    found = estimate([Term(1, scores, "a"), Term(-1, scores, "a")])
    low, high = found.interval()
    assert found.value == 0 and low < -0.1 and high > 0.1 and found.p(0) == 1


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "needs an arm"),
        ([Term(1, np.ones((2, 3))), Term(1, np.ones((2, 4)))], "different items"),
        ([Term(1, np.ones((1, 3)))], "one run says nothing of other seeds"),
        ([Term(1, np.ones((2, 3))), Term(1, np.ones((3, 3)))], "different numbers of seeds"),
        ([Term(1, np.full((2, 1), np.nan))], "needs an item"),
        ([Term(1, np.array([[1, np.nan], [1, 1]]))], "not every seed"),
    ],
)
def test_what_cannot_be_estimated_is_said(terms, message):
    with pytest.raises(StudyError, match=message):
        estimate(terms)


def interval(world, arms, paired=False):
    return estimate(world.terms(arms, paired), world.strata).interval()


def test_a_world_has_the_effect_that_it_says():
    world = World(effect=0.059, seeds=(50, 50), items=2000, families=3, apart=4.0)
    gaps = [first.mean() - second.mean() for first, second in studies(world, 20)]
    assert np.mean(gaps) == pytest.approx(0.059, abs=4 * np.std(gaps) / 20**0.5)


def test_intervals_cover_as_often_as_they_say():
    trials = 250
    found = coverage(World(items=100), interval, trials)
    assert_rate(found["covered"] * trials, trials, 0.93, 0.97)
    assert 0.12 < found["width"] < 0.2  # the first study's: 22 points


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"effect": 0.0},
        {"families": 3, "apart": 4.0},
        {"seed_by_item": 1.0},
        {"seeds": (5, 10)},
        {"samples": 4},
        {"seeds": (5,) * 4, "weights": (1.0, -1.0, -1.0, 1.0)},
        {"shared": 0.5},
    ],
)
def test_intervals_cover_in_many_worlds(changes):
    world, trials = World(**changes), 500

    def one(world, arms):
        return interval(world, arms, paired="shared" in changes)

    found = coverage(world, one, trials)
    assert_rate(found["covered"] * trials, trials, 0.93, 0.97)


# ---------------------------------------------------------------- stages


def test_the_boundary_is_the_published_one():
    times = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    published = (4.877, 3.357, 2.680, 2.290, 2.031)  # R's ldbounds: half the level on each side
    error = np.cumsum(crossing(published, times))
    assert error == pytest.approx([2 * spent(time, 0.025) for time in times], rel=5e-3)
    assert Design(seeds=(5,)).critical() == pytest.approx((norm.isf(0.025),))


def test_the_error_is_spent_and_no_more():
    for design in (DESIGN, Design()):
        error = np.cumsum(crossing(design.critical(), (0.25, 0.5, 1.0)))
        assert error == pytest.approx([spent(time) for time in design.fractions])
    assert spent(1.0) == pytest.approx(0.05)
    assert DESIGN.critical() == pytest.approx((3.099, 2.4, 2.05), abs=0.05)


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 5), st.sampled_from([(), (0.4, 0.67, 1.0)]))
def test_the_items_part_only_lowers_the_error(items, fractions):
    design = Design(spent_at=fractions)
    variances = [items + 1 / seeds for seeds in design.seeds]
    times = [variances[-1] / variance for variance in variances]
    assert 0.03 < sum(crossing(design.critical(), times)) <= 0.05 + 1e-9


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-0.06, 0.06), min_size=1, max_size=3), st.floats(0.002, 0.3))
def test_a_repeated_p_value_is_the_level_at_which_the_interval_leaves_out(values, level):
    stages = [known(value, df=8.0) for value in values]
    ends = [one.interval(DESIGN.level_at(k, level)) for k, one in enumerate(stages)]
    for side, outside in ((1, max(low for low, _ in ends) > 0), (-1, min(h for _, h in ends) < 0)):
        p = beyond(stages, 0.0, side)
        if abs(p - level) > 0.02 * level:  # levels are interpolated
            assert (p < level) == outside


def test_stages_that_are_none_are_refused():
    for wrong in (
        {"seeds": (5, 5)},
        {"seeds": (1, 5)},
        {"spent_at": (0.5, 1.0)},
        {"spent_at": (0.2, 0.5, 0.9)},
    ):
        with pytest.raises(StudyError, match="stage"):
            Design(**wrong)


def test_an_interval_is_what_all_stages_agree_on():
    wide, late = known(0.0, se=0.02), known(0.03, se=0.01)
    low, high = repeated_interval([wide, wide, late])
    alone = repeated_interval([late])
    assert low == max(late.interval(DESIGN.level_at(2))[0], wide.interval(DESIGN.level_at(1))[0])
    assert high <= wide.interval(DESIGN.level_at(1))[1] and alone[1] - alone[0] > 0.06


def staged_verdict(world, arms, margin, region):
    stages = ()
    for seeds in DESIGN.seeds:
        terms = world.terms([scores[:seeds] for scores in arms])
        stages = (*stages, estimate(terms, world.strata))
        found = levels([Primary("effect", stages, margin, region)]).verdict(0.05)
        if found != UNDECIDED:
            return found
    return UNDECIDED


def staged_verdicts(world, trials, margin=0.0, region=1e-9):
    found = [staged_verdict(world, arms, margin, region) for arms in studies(world, trials)]
    return {name: found.count(name) for name in (SUPPORTED, REFUTED, SAME, UNDECIDED)}


def test_adding_seeds_until_decided_errs_no_more_often_than_one_look():
    trials = 80
    found = staged_verdicts(World(effect=0.0, seeds=(20, 20), items=60), trials)
    assert trials - found[UNDECIDED] <= binom.isf(CHANCE, trials, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0.0, 0.5])
def test_the_staged_rule_errs_in_five_of_a_hundred(seed):
    trials = 400
    found = staged_verdicts(World(effect=0.0, seed=seed, seeds=(20, 20), items=150), trials)
    wrong = trials - found[UNDECIDED]
    assert wrong <= binom.isf(CHANCE, trials, 0.05)
    assert wrong >= binom.ppf(CHANCE, trials, 0.02)  # nor is it idle


@pytest.mark.slow
def test_an_effect_at_the_end_of_the_region_is_seldom_called_none():
    trials = 300
    world = World(effect=0.1, seeds=(20, 20), items=600, seed=0.0)
    found = staged_verdicts(world, trials, margin=-1.0, region=0.1)
    assert found[SAME] <= binom.isf(CHANCE, trials, 0.05)


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("value", "margin", "region", "expected"),
    [
        (0.10, 0.0, 0.02, SUPPORTED),
        (-0.10, 0.0, 0.02, REFUTED),
        (0.03, 0.0, 0.02, UNDECIDED),
        (0.00, 0.0, 0.08, SAME),
        (0.07, 0.0, 0.20, SAME),  # there, but small
        (0.10, 0.2, 0.02, REFUTED),
        (-0.01, -0.2, 0.02, SUPPORTED),  # no worse than by the margin
    ],
)
def test_a_verdict_follows_from_the_interval(value, margin, region, expected):
    effect = Primary("a - b", (known(value),), margin, region)
    assert levels([effect]).verdict(0.05) == expected


def test_that_there_is_no_difference_is_refuted_by_one_beyond_the_region():
    for value, expected in ((0.0, SAME), (0.2, REFUTED), (-0.2, REFUTED), (0.07, UNDECIDED)):
        effect = Primary("a - b", (known(value),), 0.0, 0.08)
        assert equivalence([effect]).verdict(0.05) == expected
    beyond_margin = Primary("a - b", (known(0.05),), 0.0, 0.2)  # there, and small
    assert equivalence([beyond_margin]).verdict(0.05) == SAME
    assert equivalence([]).verdict(1.0) == UNDECIDED


def test_all_effects_must_hold_and_one_is_enough_to_fall():
    high, higher, lower = (Primary("x", (known(value),), 0.0, 0.001) for value in (0.07, 0.2, -0.2))
    both = levels([high, higher])
    assert both.supported == levels([high]).supported and both.verdict(0.05) == SUPPORTED
    assert levels([higher, lower]).verdict(0.05) == REFUTED
    assert levels([higher, lower]).refuted == 2 * levels([lower]).refuted
    assert levels([]).verdict(1.0) == UNDECIDED


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=8))
def test_claims_are_corrected_for_their_number_by_holm(triples):
    claims = [Levels(*triple) for triple in triples]
    adjusted = stats.holm([one.smallest for one in claims])
    decided = [verdict != UNDECIDED for verdict in judge(claims)]
    assert all(
        said == (p <= 0.05)
        for said, p in zip(decided, adjusted, strict=True)
        if abs(p - 0.05) > 1e-6
    )


def test_a_region_has_a_width():
    with pytest.raises(StudyError, match="a - b: the region"):
        Primary("a - b", (known(0.0),), 0.0, 0.0)


# ---------------------------------------------------------------- plans

PLAN = Plan(seed=0.03, item_by_arm=0.1, residual=0.35)


def test_more_seeds_take_away_all_but_the_items_part():
    parts = PLAN.parts(10, 300)
    assert parts.at(seeds=1e9).total == pytest.approx(0.1**2 / 300)
    assert PLAN.parts(20, 300) == parts.at(seeds=2)
    assert seeds_needed(PLAN, 0.01, 300) == np.inf
    few, many = (seeds_needed(PLAN, effect, 300) for effect in (0.05, 0.03))
    assert 2 <= few < many < 20


@settings(deadline=None, max_examples=30)
@given(st.floats(0.001, 0.1), st.floats(0.02, 0.2))
def test_the_number_of_seeds_is_the_smallest_that_does(seed, effect):
    plan = replace(PLAN, seed=seed)
    needed = seeds_needed(plan, effect, 600)
    if np.isfinite(needed):
        assert seeds_needed(plan, effect * 1.01, 600) <= needed
        se = plan.parts(needed, 600).total ** 0.5
        assert effect >= (norm.isf(0.025) + norm.isf(0.2)) * se


def test_seeds_planned_from_a_pilot_find_what_is_there():
    world = World(effect=0.05, items=100, item_by_arm=0.3)
    plans = [Plan.of(estimate(world.terms(arms))) for arms in studies(world, 40)]
    assert 10 <= np.median([seeds_needed(plan, 0.05, 100) for plan in plans]) <= 40


@pytest.mark.slow
def test_the_planned_power_is_what_studies_have():
    trials = 250
    world = World(effect=0.05, seeds=(20, 20), items=300, item_by_arm=0.3)
    large = World(effect=0.05, seeds=(40, 40), items=4000, item_by_arm=0.3)
    plan = Plan.of(estimate(large.terms(next(studies(large, 1, start=7)))))
    power = stage_power(plan, 0.05, 300, region=1e-9)[SUPPORTED][-1]
    found = staged_verdicts(world, trials)[SUPPORTED]
    assert_rate(found, trials, power - 0.05, power + 0.05)


def test_power_grows_with_stages_and_effects():
    none, small, large = (stage_power(PLAN, effect, 900) for effect in (0.0, 0.02, 0.05))
    for found in (none, small, large):
        for shares in found.values():
            assert shares == sorted(shares)
    assert none[SUPPORTED][-1] + none[REFUTED][-1] < 0.055
    assert none[SUPPORTED][-1] < small[SUPPORTED][-1] < large[SUPPORTED][-1]
    effects = smallest_found(PLAN, 900)
    assert effects == sorted(effects, reverse=True)
    power = stage_power(PLAN, effects[-1], 900, region=1e-9)
    assert power[SUPPORTED][-1] == pytest.approx(0.8, abs=0.03)


# ---------------------------------------------------------------- from records


def items_of(ids, rng, splits=("test",), items=12):
    return pd.DataFrame(
        [
            {
                "id": name,
                "seed": seed,
                "family": family,
                "split": split,
                "item": item,
                "level": 1,
                "greedy": rng.integers(0, 2),
                "correct": rng.integers(0, 5),
                "samples": 4,
                "bucket": "zero" if item % 2 else "high",
            }
            for seed, name in enumerate(ids)
            for family in ("f", "g")
            for split in splits
            for item in range(items)
        ]
    )


def test_a_term_reads_its_runs_on_its_split_and_bucket():
    rng = np.random.default_rng(5)
    ids = ["a0", "a1", "a2", "b0", "b1", "b2"]
    items = items_of(ids, rng, ("test", "test@exam", "longer"))
    scores = Scores(items, "sampled")
    terms = [scores.term(1.0, ids[:3]), scores.term(-1.0, ids[3:], "test@exam", "zero")]
    found = scores.estimate(terms)
    right = items["correct"] / 4
    ours = right[items["id"].isin(ids[:3]) & (items["split"] == "test")]
    elsewhere = (items["split"] == "test@exam") & (items["bucket"] == "zero")
    theirs = right[items["id"].isin(ids[3:]) & elsewhere]
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    assert found.items == 24  # an item under another prompt is the same item
    longer = scores.estimate([scores.term(1.0, ids[:3]), scores.term(-1.0, ids[:3], "longer")])
    assert longer.items == 48  # another split has other items
    with pytest.raises(StudyError, match="no sampled scores of c0"):
        scores.term(1.0, ["c0"])
    with pytest.raises(StudyError, match="a0 has no sampled scores on wording"):
        scores.term(1.0, ["a0"], "wording")


def test_arms_are_paired_where_they_share_runs():
    before = {"then0": ("sft0",), "merged0": ("half0", "then0")}
    arms = [["sft0"], ["grpo0"], ["merged0"], ["other0"], ["half0"]]
    first, second, third, fourth, fifth = blocks(arms, before)
    assert first == third == fifth and len({first, second, fourth}) == 3
