"""Claims and verdicts: every claim is complete, and a verdict follows from the runs alone."""

import json
import math
import re
from dataclasses import asdict, replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import ROOT, StudyError, results
from hybridlib.__main__ import main
from hybridlib.claims import (
    CLAIMS,
    Effects,
    Evidence,
    Judgement,
    answer,
    beyond_margins,
    forgotten,
    ledger,
    page,
    power,
    runs_to_come,
    verdicts,
)
from hybridlib.claims.contrasts import SEEDS, at_hand, jackknife, stages
from hybridlib.claims.forgetting import at_equal_distance
from hybridlib.claims.rules import CORE, SIZES, corrected_cosine
from hybridlib.grids import FEW, GRIDS, adapter_pairs
from hybridlib.merging.operators import OPERATORS
from hybridlib.objectives import OBJECTIVES
from hybridlib.partition import RULES, SELECTIONS
from hybridlib.profiles import PROFILES
from hybridlib.rewards import REWARDS
from hybridlib.trials import DESIGN
from hybridlib.trials.decisions import REFUTED, SAME, SUPPORTED, UNDECIDED

FULL = PROFILES[SIZES[0]]
BASE = {"zero": 0, "low": 2, "middle": 4, "high": 8}
RUN = sorted(name for name in CLAIMS if CLAIMS[name](FULL).primary)
FAMILIES = ("gsm8k", "math", "mbpp")


# ---------------------------------------------------------------- what a claim names


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_every_claim_has_a_rule_and_a_date(name):
    claim = CLAIMS[name]
    assert claim.__doc__ and claim.says.endswith(".") and claim.source
    assert date.fromisoformat(claim.dated) <= date.today()
    kinds = [hasattr(claim, fact) for fact in ("grid", "agrees", "withdrawn")]
    assert sum(kinds) == 1 and isinstance(claim(FULL), Effects)


@pytest.mark.parametrize("name", RUN)
def test_every_claim_with_runs_has_a_figure(name):
    claim = CLAIMS[name]
    cells = json.loads((ROOT / "notebooks" / f"{claim.chapter}.ipynb").read_text())["cells"]
    figure = next(cell["metadata"]["mystnb"] for cell in cells if cell["id"] == claim.figure)
    assert figure["figure"]["name"] == f"fig-{claim.figure}", "the page links to this name"


@pytest.mark.parametrize("name", RUN)
def test_the_grid_of_a_claim_has_its_runs_under_all_seeds(name):
    grid = GRIDS[CLAIMS[name].grid]
    planned = set(grid(replace(FULL, seeds=SEEDS)))
    assert set(verdicts.primary_runs(name, FULL)) <= planned
    for count, kind in ((DESIGN.seeds[0], "primary"), (FEW, "beside")):
        first = replace(FULL, seeds=SEEDS[: DESIGN.seeds[0]])
        for one in getattr(CLAIMS[name](FULL), kind):
            assert set(one.first(count).runs) <= set(grid(first)), one.what


def test_the_core_has_the_runs_of_what_is_asked_at_every_size():
    first = replace(FULL, seeds=SEEDS[: DESIGN.seeds[0]])
    named = {
        run
        for name in CORE
        for one in CLAIMS[name](FULL).primary
        for run in one.first(DESIGN.seeds[0]).runs
    }
    needed = {run.id for run in named} | {need for run in named for need in run.prerequisites}
    trained = {run.id for run in GRIDS["core"](first)} - {"base"}
    assert trained == needed


def test_codes_are_unique_and_holm_counts_the_claims_with_runs():
    assert len({claim.code for claim in CLAIMS.values()}) == len(CLAIMS)
    assert len(RUN) == len(CLAIMS) - 2  # one is withdrawn, one has no runs of its own
    assert all(one.region > 0 for name in RUN for one in CLAIMS[name](FULL).primary)


def test_a_claim_must_say_where_it_comes_from():
    with pytest.raises(StudyError, match="has to state register"):
        CLAIMS.register(code="C0")(lambda profile: Effects(()))


def test_later_seeds_leave_the_pairs_of_earlier_ones():
    few, many = (adapter_pairs(replace(FULL, seeds=SEEDS[:n])) for n in DESIGN.seeds[:2])
    assert all(many[kind][: DESIGN.seeds[0]] == pairs for kind, pairs in few.items())


# ---------------------------------------------------------------- worlds


def alike(kinds):
    """Facts of a pair whose cosine is .1 within a method, .02 across; SFT bends the spectrum."""
    cosine = 0.1 if len(kinds) == 1 else 0.02
    spectra = [{"residual": 0.4}, {"residual": 0.1}]
    between = {"cosine": cosine, "functional": 2 * cosine}
    return {"pair": {"between": between, "spectra": spectra}}


def parallel(kinds):
    """Facts of a pair that looks the same whatever the methods are, nearly orthogonal by chance."""
    between = {"cosine": 0.02, "functional": 0.05}
    return {"pair": {"between": between, "spectra": [{"residual": 0.1}] * 2}}


def digits(rates):
    return "".join(str(int(rate)) for rate in rates)


def world(monkeypatch, accuracy, names, seeds=5, items=16, noise=0.0, facts=alike):
    """Stored results in which a run is right as often as `accuracy(run, split, metric)` says.

    Args:
        names: of the claims whose runs have finished.
        seeds: so many of each arm.
        noise: standard deviation of a run's accuracy.
        facts: of the methods of the parents of a merge.
    """
    runs = {run.id: run for name in names for run in verdicts.all_runs(name, FULL)}
    runs = {i: run for i, run in runs.items() if run.seed < seeds or run.method == "base"}
    rng = np.random.default_rng(0)
    rows = []
    for run in runs.values():
        luck = rng.normal(0, noise)
        for family in FAMILIES:
            for split in FULL.splits:
                for item in range(items if split == "test" else 8):
                    at = (item * 7) % 10 / 10
                    right = {m: accuracy(run, split, m) + luck for m in ("greedy", "sampled")}
                    sampled = math.floor(8 * right["sampled"] + at)
                    if run.method == "base":
                        sampled = list(BASE.values())[item % 4]
                    row = (run.id, run.seed, family, split, item, 1, right["greedy"] > at)
                    rows.append((*row, min(8, max(0, sampled)), 8))
    columns = ["id", "seed", "family", "split", "item", "level", "greedy", "correct", "samples"]
    table = pd.DataFrame(rows, columns=columns).astype({"greedy": float})
    records = [
        {"id": i, "run": asdict(run), "cost": {"operations": 100 + run.steps}}
        | {"facts": facts({parent.split("_")[0] for parent in run.parents})}
        for i, run in runs.items()
    ]
    monkeypatch.setattr(results, "items", lambda name: table if name == FULL.name else table[:0])
    monkeypatch.setattr(results, "read", lambda name: records if name == FULL.name else [])
    return {one.name: one for one in ledger(FULL)}


def flipping(by):
    """A world in which GRPO gains over the buckets, and SFT loses, by so much a step."""

    def accuracy(run, split, metric):
        place = list(BASE).index(run.select) - 1.5 if run.select else 0
        return 0.5 + by * place * (1 if run.method == "grpo" else -1)

    return accuracy


@pytest.mark.parametrize(
    ("by", "noise", "seeds", "items", "expected"),
    [
        (0.1, 0.0, 5, 40, SUPPORTED),
        (-0.1, 0.0, 5, 40, REFUTED),
        pytest.param(0.0, 0.0, 5, 400, SAME, marks=pytest.mark.slow),
        (0.02, 0.15, 5, 16, UNDECIDED),
        (0.1, 0.0, 4, 16, "not run"),
    ],
)
def test_known_effects_get_their_verdict(monkeypatch, by, noise, seeds, items, expected):
    names = ["the_flip"]
    one = world(monkeypatch, flipping(by), names, seeds, items, noise)["the_flip"]
    assert one.verdict == expected
    assert (one.missing > 0) == (expected in (UNDECIDED, "not run"))
    if seeds < 5:
        return
    effect = one.effects[0]
    assert effect["estimate"] == pytest.approx(2 * by, abs=0.25 * noise + 0.01)
    assert effect["low"] < effect["estimate"] < effect["high"] and effect["seeds"] == 5
    assert set(effect["also"]) == {"sampled", f"pass@{FULL.n_samples}"}
    assert [beside["what"].rpartition(", ")[2] for beside in one.beside] == [
        "on its own test rows",
        "equal visits",
        "equal sequences",
    ]


@pytest.mark.slow
def test_all_effects_have_to_hold_by_both_metrics(monkeypatch):
    def merges(run, split, metric):
        return 0.8 if run.method == "merge" else 0.4

    def sampled_alone(run, split, metric):
        return 0.8 - (0.75 * (metric == "greedy")) if run.method == "merge" else 0.4

    def in_turn_too(run, split, metric):
        return 0.95 if run.start else merges(run, split, metric)

    name = "divide_and_merge"
    found = world(monkeypatch, merges, [name], items=40)[name]
    assert found.verdict == SUPPORTED and len(found.effects) == 6 and found.holds
    assert world(monkeypatch, sampled_alone, [name], items=40)[name].verdict == REFUTED
    assert world(monkeypatch, in_turn_too, [name], items=40)[name].verdict == REFUTED


@pytest.mark.slow
def test_cosines_and_spectra_decide_by_their_records(monkeypatch):
    names = ["orthogonal", "spectrum_kept"]
    for facts, verdict in ((alike, SUPPORTED), (parallel, REFUTED)):
        judged = world(monkeypatch, flipping(0), names, facts=facts)
        if facts is parallel:  # ratio 1, cosine 1
            assert judged["spectrum_kept"].verdict == SAME
            assert judged["orthogonal"].verdict == REFUTED
        else:
            assert {judged[name].verdict for name in names} == {verdict}


@pytest.mark.slow
def test_further_sizes_are_asked_the_core_alone(monkeypatch):
    world(monkeypatch, flipping(0.1), ["the_flip"])
    items = results.items(FULL.name)
    monkeypatch.setattr(results, "items", lambda name: items)
    further = replace(FULL, name=SIZES[1])
    judged = {one.name: one for one in ledger(further)}
    assert judged["the_flip"].verdict == SUPPORTED
    assert {one.verdict for name, one in judged.items() if name not in CORE} == {
        "not run",
        "withdrawn",
    }
    assert set(runs_to_come(further)) == set(CORE) - {"the_flip"}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(SUPPORTED, REFUTED), (SUPPORTED, REFUTED), (SUPPORTED, REFUTED)], SUPPORTED),
        ([(SUPPORTED, SAME), (SUPPORTED, SAME), (SUPPORTED, UNDECIDED)], UNDECIDED),
        ([(SUPPORTED, SAME), (SUPPORTED, REFUTED), (UNDECIDED, "not run")], REFUTED),
        ([(SUPPORTED, SAME), (SUPPORTED, "not run"), ("not run", "not run")], UNDECIDED),
        ([(SUPPORTED, SAME), ("not run", "not run"), ("not run", "not run")], "not run"),
    ],
)
def test_sizes_agree_where_each_decides_alike(sizes, expected):
    named = [dict(zip(("a", "b"), size, strict=True)) for size in sizes]
    assert verdicts.agreement(named) == verdicts.agreement(named[::-1]) == expected


# ---------------------------------------------------------------- more seeds


@pytest.mark.slow
def test_only_what_is_undecided_gets_more_seeds(monkeypatch, capsys):
    def accuracy(run, split, metric):
        return flipping(0.1)(run, split, metric) if run.select else 0.5

    names = ["the_flip", "longer_chains"]
    judged = world(monkeypatch, accuracy, names, items=40)
    assert judged["the_flip"].verdict == SUPPORTED
    assert judged["longer_chains"].verdict == UNDECIDED
    to_come = runs_to_come(FULL)
    open_ones = {name for name in RUN if judged[name].verdict in (UNDECIDED, "not run")}
    assert set(to_come) == open_ones and "the_flip" not in open_ones
    seeds = range(*DESIGN.seeds[:2])
    assert {(run.method, run.seed) for run in to_come["longer_chains"]} == {
        (method, seed) for method in ("sft", "grpo") for seed in seeds
    }
    assert len(to_come["longer_chains"]) == judged["longer_chains"].missing
    finished = Evidence(FULL).finished
    for runs in to_come.values():  # what they go on from comes first, or is there
        for place, run in enumerate(runs):
            before = {one.id for one in runs[:place]} | finished
            assert before.issuperset(run.prerequisites)
    assert main(["claims", "--profile", FULL.name, "--next", "--dry-run"]) == 0
    said = capsys.readouterr().out
    once = {run for runs in to_come.values() for run in runs}
    assert said.splitlines()[-1] == f"{len(once)} runs would run"


@pytest.mark.slow
def test_after_the_last_stage_nothing_is_asked_for(monkeypatch):
    judged = world(monkeypatch, lambda *_: 0.5, ["longer_chains"], seeds=20, noise=0.2)
    assert judged["longer_chains"].verdict == UNDECIDED and judged["longer_chains"].missing == 0
    assert "longer_chains" not in runs_to_come(FULL)
    evidence = Evidence(FULL)
    effect = CLAIMS["longer_chains"](FULL).primary[0]
    assert [one.seeds for one in stages(effect, evidence)] == [(5, 5), (10, 10), (20, 20)]


@pytest.mark.slow
def test_an_effect_reads_no_run_but_those_that_it_names(monkeypatch):
    names = ["the_flip", "divide_and_merge", "orthogonal"]
    world(monkeypatch, flipping(0.05), names)
    everything = Evidence(FULL)
    for name in names:
        effects = CLAIMS[name](FULL)
        for one in (*effects.primary, *effects.beside):
            part = one.first(5)
            ids = {run.id for run in part.runs}
            few = Evidence(FULL)
            few.items = everything.items[everything.items["id"].isin(ids)]
            few.records = {i: record for i, record in everything.records.items() if i in ids}
            assert part.estimate(few).value == pytest.approx(part.estimate(everything).value)
            assert at_hand(one, few).value == pytest.approx(part.estimate(few).value)


@pytest.mark.slow
def test_one_more_entry_of_any_registry_leaves_every_verdict_as_it_was(monkeypatch):
    before = world(monkeypatch, flipping(0.1), ["the_flip"])
    published = {name: verdicts.all_runs(name, FULL) for name in CLAIMS}
    for registry in (RULES, SELECTIONS, OBJECTIVES, OPERATORS, REWARDS):
        monkeypatch.setitem(registry, "newcomer", next(iter(registry.values())))
    assert {one.name: one for one in ledger(FULL)} == before
    assert {name: verdicts.all_runs(name, FULL) for name in CLAIMS} == published


# ---------------------------------------------------------------- forgetting


def along(rng, by_method=0.0, seeds=5, items=60, apart=0.0, noise=0.3, luck=0.02):
    """Points and shares of trainings whose loss grows with distance, and with the method."""
    columns = pd.MultiIndex.from_product([FAMILIES, range(items)], names=["family", "item"])
    rows, shares = [], []
    own = rng.normal(0, luck, (2, seeds))
    weak = rng.normal(0, 0.3, len(columns))  # items that are lost sooner
    for home in FAMILIES:
        away = columns.get_level_values("family") != home
        for seed in range(seeds):
            for is_rl in (0, 1):
                for step, log_kl in enumerate(np.linspace(-3, 0, 5) + apart * is_rl):
                    lost = 0.1 * (3 + log_kl) + by_method * is_rl + own[is_rl, seed]
                    share = (lost + weak + rng.normal(0, noise, len(columns))) * away / away.sum()
                    shares.append(share)
                    row = dict(arm="", seed=seed, home=home, step=step, kl=math.exp(log_kl))
                    rows.append(row | dict(log_kl=log_kl, lost=share.sum(), is_rl=float(is_rl)))
    return pd.DataFrame(rows), pd.DataFrame(shares, columns=columns)


def test_forgetting_by_distance_alone_is_told_from_forgetting_by_method():
    rng = np.random.default_rng(0)
    low, high = at_equal_distance(*along(rng)).interval()
    assert low < 0 < high and high - low < 0.1
    found = at_equal_distance(*along(rng, by_method=0.2))
    assert found.value == pytest.approx(0.2, abs=0.05) and found.interval()[0] > 0.1
    assert found.seeds == (5,) and found.items == 180
    assert at_equal_distance(*along(rng, apart=9.0)) is None  # nowhere at equal distance
    assert at_equal_distance(*along(rng, seeds=1)) is None


@pytest.mark.slow
def test_the_interval_at_equal_distance_covers_what_is_true():
    rng = np.random.default_rng(1)
    ends = [at_equal_distance(*along(rng, 0.05, items=20)).interval() for _ in range(60)]
    assert 51 <= sum(low <= 0.05 <= high for low, high in ends)  # of 60 at 95 %: all but 1 in 1,000


@pytest.mark.slow
def test_equality_is_what_the_claim_on_forgetting_says(monkeypatch):
    name = "distance_not_method"
    for by_method, verdict, holds in ((0.0, SAME, True), (0.4, REFUTED, False)):
        points, shares = along(np.random.default_rng(2), by_method, 20, 60, noise=0.1, luck=0.001)

        def of_seeds(evidence, runs, points=points, shares=shares):
            kept = points["seed"].isin({run.seed for run in runs})
            return points[kept].reset_index(drop=True), shares[kept].reset_index(drop=True)

        monkeypatch.setattr("hybridlib.claims.forgetting.forgotten", of_seeds)
        one = world(monkeypatch, flipping(0), [name], seeds=20, items=4)[name]
        assert (one.verdict, one.holds) == (verdict, holds)
        assert ("as it says" in verdicts.in_words([one], name)) == holds


def test_what_is_forgotten_is_read_along_a_training(monkeypatch):
    def record(name, greedy, **fields):
        items = {f"{family}/test": {"greedy": greedy[family]} for family in FAMILIES}
        return {"id": name, "items": items, **fields}

    base = record("base", dict(gsm8k="1111", math="1111", mbpp="1111"))
    run = next(run for run in GRIDS["forgetting"](FULL) if run.on == ("tiny_math",))
    half = {f"{family}/test": "1100" for family in FAMILIES}
    end = {"gsm8k": "1000", "math": "0000", "mbpp": "0000"}
    points = [
        {"step": 1, "kl": 0.5, "greedy": half},
        {"step": 2, "kl": 1.0, "greedy": {f"{k}/test": v for k, v in end.items()}},
    ]
    drift = {"drift": {"math": {"kl": 1.0}}}
    known = record(run.id, end, facts=drift, checkpoints=points)
    evidence = Evidence(FULL)
    evidence.records = {"base": base, run.id: known}
    rows, shares = forgotten(evidence, [run])
    assert list(rows["lost"]) == pytest.approx([0.5, 0.875]) and list(rows["kl"]) == [0.5, 1.0]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(rows["lost"].to_numpy())
    assert not shares.loc[:, "math"].to_numpy().any()
    evidence.records[run.id] = {**known, "checkpoints": []}
    assert list(forgotten(evidence, [run])[0]["lost"]) == pytest.approx([0.875])


# ---------------------------------------------------------------- statistics of seeds


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=12))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    found = jackknife(values)
    assert found.value == pytest.approx(np.mean(values)) and found.df == len(values) - 1
    assert found.se == pytest.approx(np.std(values, ddof=1) / len(values) ** 0.5, abs=1e-9)


def test_pairs_that_share_seeds_count_for_less():
    values = [float(ring % 2) for ring in range(2) for _ in range(5)]
    values = [value + seed / 10 for seed, value in enumerate(values)]
    apart, shared = (jackknife(values, overlapping=overlapping) for overlapping in (False, True))
    assert shared.value == apart.value and shared.se > 1.2 * apart.se
    left_out = []
    jackknife(range(10), lambda rest: left_out.append({*range(10)} - {*rest}) or 0.0, True)
    assert left_out[:-1] == [{s, s - 1 if s % 5 else s + 4} for s in range(10)]


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 1))
def test_a_relative_cosine_forgets_what_makes_single_updates_differ(sft, rl, shared):
    noisy = [(shared * math.sqrt(sft * rl), sft, rl)] * 3
    assert corrected_cosine(noisy) == pytest.approx(shared)


# ---------------------------------------------------------------- the page


def test_what_has_not_run_is_said(monkeypatch):
    judged = list(world(monkeypatch, flipping(0), []).values())
    assert {one.verdict for one in judged} == {"not run", "withdrawn"}
    text = page.page(FULL, judged, [])
    assert "not judged in this build" in page.summary(judged)
    assert text.count("**Not run.**") == len(CLAIMS) - 1 and text.count("**Withdrawn.**") == 1
    assert text.count("runs of the next stage are missing") == len(RUN)
    assert all(claim.says in text and claim.dated in text for claim in CLAIMS.values())
    small = PROFILES["tiny"]
    assert "too small for it" in page.page(small, ledger(small), [])


@pytest.mark.slow
def test_the_page_has_effects_by_all_metrics_costs_and_power(monkeypatch):
    names = ["the_flip", "sft_first"]
    judged = world(monkeypatch, flipping(0.1), names, items=40)
    text = page.page(FULL, list(judged.values()), [])
    assert "| slope of GRPO - slope of SFT, per bucket | greedy | +0.2" in text
    assert f"| sampled | pass@{FULL.n_samples} |" in text
    second = next(run for run in verdicts.primary_runs("sft_first", FULL) if run.start).steps
    assert re.search(rf"\| SFT, then GRPO, steps {second} \| {2 + second / 100:.2f} \| 5 \|", text)
    assert "What could be found" in text and "| C17 |" not in text
    summary = page.summary(list(judged.values()))
    assert "supported: C1" in " ".join(summary.split())
    lines = beyond_margins(list(judged.values()), "sft_first")
    assert list(lines["label"])[:3:2] == ["SFT, then GRPO - SFT", "SFT, then GRPO - SFT, sampled"]


def test_a_bar_in_an_effect_does_not_end_its_cell():
    effect = {"what": "|RL - SFT|", "metric": "greedy", "estimate": 0.1, "low": 0.0, "high": 0.2}
    effect |= {"margin": 0, "region": 0.1, "seeds": 5, "n": 9, "also": {}}
    judged = [Judgement(name, UNDECIDED, (effect,)) for name in RUN]
    rows = [row for row in page.page(FULL, judged, []).splitlines() if "RL - SFT\\|" in row]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8} and len(rows) == len(RUN)


def test_the_history_keeps_changes_only_and_the_first_study_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(verdicts, "ROOT", tmp_path)
    old = {"claim": "the_flip", "code": "C1", "says": "Old.", "verdict": SUPPORTED}
    old |= {"on": "2026-11-22", "effects": []}
    file = tmp_path / "data" / "verdicts" / f"{FULL.name}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps([old]))
    for said in (SUPPORTED, SUPPORTED, UNDECIDED):
        verdicts.extend_history(FULL, [Judgement("the_flip", said)])
    past = verdicts.history(FULL)
    assert [entry["verdict"] for entry in past] == [SUPPORTED, SUPPORTED, UNDECIDED]
    assert [verdicts.of_today(entry) for entry in past] == [False, True, True]


def test_the_first_study_stays_readable(monkeypatch):
    judged = list(world(monkeypatch, flipping(0), []).values())
    past = verdicts.history(FULL)
    text = page.page(FULL, judged, past)
    first = [entry for entry in past if not verdicts.of_today(entry)]
    assert len(first) > 10 and "why its instrument was replaced" in text
    assert all(f"| {entry['code']}. {entry['says']} |" in text for entry in first)


@pytest.mark.slow
def test_power_is_planned_for_every_claim(monkeypatch):
    world(monkeypatch, flipping(0.05), ["the_flip", "more_rows"], noise=0.02)
    found = power.measured(Evidence(FULL))
    assert [row["code"] for row in found["rows"]] == [
        claim.code for name, claim in CLAIMS.items() if name in RUN
    ]
    for row in found["rows"]:
        assert row["alone"] == sorted(row["alone"], reverse=True)
        assert row["first"][-1] > row["alone"][-1] > 0
    own = {row["code"] for row in found["rows"] if row["own"]}
    assert {"C1", "C4a"} <= own and "C2" not in own
    heading, *lines = power.lines(found)
    assert {len(line) for line in lines} == {len(heading)} and len(lines) == len(RUN)


# ---------------------------------------------------------------- the first page


def test_the_answer_finds_which_method_gains_on_which_questions(monkeypatch):
    """SFT adds 40 points, GRPO 10; a merge does nothing. The same on the questions of a bucket."""
    right = {"sft": 0.7, "grpo": 0.4, "merge": 0.3, "base": 0.3}
    world(
        monkeypatch,
        lambda run, *_: right[run.method],
        ["the_flip", "divide_and_merge", "sft_first"],
        items=40,
    )
    evidence = Evidence(FULL)
    table = answer.gains(evidence).set_index(["label", "bucket"])
    assert table.loc[("SFT", "all"), "value"] == pytest.approx(0.4)
    assert table.loc[("GRPO", "all"), "value"] == pytest.approx(0.1)
    assert len(table) == 4 * (1 + len(BASE)) and (table["seeds"] == 5).all()
    found = answer.choices(evidence)
    assert [one["wins"] for one in found] == ["SFT"] * len(BASE)
    assert found[0]["value"] == pytest.approx(0.3, abs=0.1)
    text = answer.section(evidence)
    assert text.count("imitate them") == len(BASE) and "is none yet" not in text
    assert answer.evidences(PROFILES["tiny"])[0].profile == FULL  # published runs come first
    assert [axis.get_title() for axis in answer.figure([evidence]).axes] == [FULL.name]


def test_without_runs_there_is_no_answer(monkeypatch):
    world(monkeypatch, flipping(0), [])
    assert answer.evidences(FULL) == []
