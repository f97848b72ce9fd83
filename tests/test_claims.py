"""Claims and verdicts: every claim is complete, and a verdict follows from the runs alone."""

import json
import math
import re
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import ROOT, StudyError, results
from hybridlib.claims import CLAIMS, Evidence, Judgement, forgotten, verdicts
from hybridlib.claims.forgetting import at_equal_distance
from hybridlib.claims.rules import corrected_cosine
from hybridlib.grids import GRIDS
from hybridlib.merging.operators import OPERATORS
from hybridlib.objectives import OBJECTIVES
from hybridlib.partition import RULES, SELECTIONS
from hybridlib.profiles import PROFILES
from hybridlib.rewards import REWARDS

FULL = replace(PROFILES["tiny-full"], name="toy", seeds=(0, 1, 2), splits=("test",))
BASE = {"zero": 0, "low": 2, "middle": 4, "high": 8}


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_every_claim_has_a_rule_a_date_runs_and_a_chapter(name):
    claim = CLAIMS[name]
    assert claim.__doc__ and claim.says.endswith(".") and claim.source
    assert date.fromisoformat(claim.dated) <= date.today()
    cells = json.loads((ROOT / "notebooks" / f"{claim.chapter}.ipynb").read_text())["cells"]
    figure = next(cell["metadata"]["mystnb"] for cell in cells if cell["id"] == claim.figure)
    assert figure["figure"]["name"] == f"fig-{claim.figure}", "the page links to this name"
    assert len(GRIDS[claim.grid](FULL)) > 1 and claim.effects > 0


@pytest.mark.parametrize("profile", [FULL, PROFILES["tiny-full"]], ids=lambda one: one.name)
@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_the_grid_of_a_claim_has_its_runs(name, profile):
    assert set(verdicts.runs(name, profile)) <= set(GRIDS[CLAIMS[name].grid](profile))


def test_codes_are_unique():
    assert len({claim.code for claim in CLAIMS.values()}) == len(CLAIMS)


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


def world(monkeypatch, accuracy, kl=lambda run: 1.0, facts=alike):
    """Stored results in which a run is right as often as `accuracy(run, split, bucket)` says.

    facts: of the methods of the parents of a merge.
    """
    runs = {run.id: run for claim in CLAIMS.values() for run in GRIDS[claim.grid](FULL)}
    rows = []
    for run in runs.values():
        for family in ("gsm8k", "math", "mbpp"):
            for split in (*FULL.splits, *run.also):
                for item in range(16):
                    name = list(BASE)[item % 4]
                    rate = accuracy(run, split, name) if run.method != "base" else BASE[name] / 8
                    right = math.floor(8 * rate + (item * 7 + run.seed * 3) % 10 / 10)
                    rows.append((run.id, run.seed, family, split, item, 1, 0, min(8, right), 8))
    columns = ["id", "seed", "family", "split", "item", "level", "greedy", "correct", "samples"]
    items = pd.DataFrame(rows, columns=columns)
    drift = pd.DataFrame(
        [(i, f, kl(run)) for i, run in runs.items() for f in ("gsm8k", "math", "mbpp")],
        columns=["id", "family", "kl"],
    )
    monkeypatch.setattr(results, "items", lambda name: items)
    monkeypatch.setattr(results, "distances", lambda name: drift)
    records = [
        {"id": i, "facts": facts({parent.split("_")[0] for parent in run.parents})}
        for i, run in runs.items()
    ]
    monkeypatch.setattr(results, "read", lambda name: records)
    return {one.name: one for one in verdicts.ledger(FULL)}


def flipping(run, split, bucket):
    hard = 0.6 if run.method == "sft" else 0.2
    easy = 0.3 if run.method == "sft" else 0.8
    return hard if bucket == "zero" else easy


def test_a_world_in_which_the_flip_holds_supports_it(monkeypatch):
    judgement = world(monkeypatch, flipping)["the_flip"]
    assert judgement.verdict == "supported" and len(judgement.effects) == 3
    assert all(effect["low"] > 0 for effect in judgement.effects)


def test_the_opposite_world_refutes_it(monkeypatch):
    judgements = world(monkeypatch, lambda run, *where: 1 - flipping(run, *where))
    assert judgements["the_flip"].verdict == "refuted"


def test_a_world_without_differences_decides_nothing(monkeypatch):
    judgements = world(monkeypatch, lambda *_: 0.5, facts=parallel)
    assert {v.verdict for v in judgements.values()} <= {"undecided", "refuted"}
    assert judgements["the_flip"].verdict == "undecided"
    assert {name: len(one.effects) for name, one in judgements.items()} == {
        name: claim.effects for name, claim in CLAIMS.items()
    }


def test_a_gain_from_data_shows_in_the_slope(monkeypatch):
    def grows(run, split, bucket):
        return 0.2 + 0.07 * math.log2((run.n_train or 512) / 8) * (run.method == "sft")

    slope = world(monkeypatch, grows)["data_or_reward"].effects[0]
    assert slope["estimate"] == pytest.approx(0.07, abs=0.01) and slope["low"] > 0


def test_forgetting_by_distance_alone_is_told_from_forgetting_by_method(monkeypatch):
    def kl(run):
        return 0.5 + run.seed + (run.method == "sft")

    def by_distance(run, split, bucket):
        return 0.8 - 0.15 * math.log(kl(run))

    judgement = world(monkeypatch, by_distance, kl)["distance_not_method"]
    assert judgement.effects[0]["estimate"] > 0.05 and judgement.effects[0]["low"] > 0

    def by_method(run, split, bucket):
        return by_distance(run, split, bucket) - 0.3 * (run.method == "grpo")

    judgement = world(monkeypatch, by_method, kl)["distance_not_method"]
    assert judgement.effects[1]["high"] < 0 and judgement.verdict == "refuted"


def dividing(run, split, bucket):
    by_rate = run.method == "merge" and all("by-passrate" in one for one in run.parents)
    return 0.7 if by_rate else 0.4


def test_a_hybrid_that_beats_all_rivals_is_supported_and_one_that_does_not_is_refuted(monkeypatch):
    assert world(monkeypatch, dividing)["divide_and_merge"].verdict == "supported"
    opposite = world(monkeypatch, lambda *where: 1 - dividing(*where))
    assert opposite["divide_and_merge"].verdict == "refuted"

    def sequence_too(run, split, bucket):  # one rival that is better is enough
        return 0.9 if run.id.startswith("grpo_after-sft") else dividing(run, split, bucket)

    assert world(monkeypatch, sequence_too)["divide_and_merge"].verdict == "refuted"


def test_a_loss_by_overlap_shows(monkeypatch):
    def accuracy(run, split, bucket):
        return 0.7 - 0.3 * run.overlap if run.start else 0.4

    assert world(monkeypatch, accuracy)["unseen_rows"].verdict == "supported"


def test_cosines_and_spectra_decide_by_their_records(monkeypatch):
    def accuracy(run, split, bucket):
        return 0.3 if run.method == "isospectral" and "sft" in run.start else 0.7

    judgements = world(monkeypatch, accuracy)
    assert judgements["orthogonal"].verdict == judgements["spectrum_kept"].verdict == "supported"
    assert judgements["lost_in_rounding"].verdict == "refuted"  # nothing is lost

    judgements = world(monkeypatch, accuracy, facts=parallel)
    assert judgements["orthogonal"].verdict == judgements["spectrum_kept"].verdict == "refuted"


def test_what_is_forgotten_is_shared_out_to_the_items(monkeypatch):
    world(monkeypatch, flipping)
    evidence = Evidence(FULL)
    named = [run for run in GRIDS["forgetting"](FULL) if run.on]
    runs, shares = forgotten(evidence, named)
    assert len(runs) == len(shares) and shares.sum(axis=1).to_numpy() == pytest.approx(runs["lost"])
    right = evidence.items.assign(value=lambda x: x["correct"] / x["samples"])
    right = right.groupby(["id", "family"])["value"].mean().unstack()
    for run, home, lost in zip(named, runs["home"], runs["lost"], strict=True):
        gaps = (right.loc["base"] - right.loc[run.id]).drop(home)
        assert lost == pytest.approx(gaps.mean())
    for home, row in zip(runs["home"], shares.itertuples(index=False), strict=True):
        own = shares.columns.get_level_values("family") == home
        assert not any(v for v, mine in zip(row, own, strict=True) if mine)


def test_methods_that_differ_within_chance_are_not_called_equal():
    rng = np.random.default_rng(1)
    rows = [
        {"arm": f"{m}{home}", "home": home, "log_kl": rng.normal(), "is_rl": float(m == "rl")}
        for home in "ab"
        for m in ("rl", "sft")
        for _ in range(3)
    ]
    columns = pd.MultiIndex.from_product([["a", "b"], range(8)], names=["family", "item"])
    for noise, sure in ((0.5, False), (0.01, True)):
        shares = pd.DataFrame(rng.normal(0, noise / 16**0.5, (len(rows), 16)), columns=columns)
        runs = pd.DataFrame(rows).assign(lost=shares.sum(axis=1))
        assert (at_equal_distance(runs, shares, 0.05)[1]["low"] > 0) == sure


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 1))
def test_a_relative_cosine_forgets_what_makes_single_updates_differ(sft, rl, shared):
    noisy = [(shared * math.sqrt(sft * rl), sft, rl)] * 3
    assert corrected_cosine(noisy) == pytest.approx(shared)


def test_what_has_not_run_is_said(monkeypatch):
    empty = pd.DataFrame(columns=["id", "family"])
    monkeypatch.setattr(results, "items", lambda name: empty)
    monkeypatch.setattr(results, "distances", lambda name: empty)
    judgements = verdicts.ledger(FULL)
    assert {v.verdict for v in judgements} == {"not run"} and all(v.missing for v in judgements)
    page = verdicts.page(FULL, judgements, [])
    assert "not judged in this build" in verdicts.summary(judgements)
    assert page.count("Not run.") == len(CLAIMS) and "runs are missing" in page
    assert all(claim.says in page and claim.dated in page for claim in CLAIMS.values())


def test_an_effect_reads_no_run_but_those_that_it_names(monkeypatch):
    world(monkeypatch, flipping)
    everything = Evidence(FULL)
    for name, claim in CLAIMS.items():
        for comparison in claim(FULL):
            ids = {run.id for run in comparison.runs}
            few = Evidence(FULL)
            few.items, few.drift = (
                frame[frame["id"].isin(ids)] for frame in (everything.items, everything.drift)
            )
            few.records = {i: record for i, record in everything.records.items() if i in ids}
            assert comparison.measure(few) == comparison.measure(everything), name


def test_a_run_that_no_effect_reads_may_be_missing(monkeypatch):
    world(monkeypatch, flipping)
    items = results.items("toy")
    name = "divide_and_merge"
    needed = {run.id for run in verdicts.runs(name, FULL)}
    monkeypatch.setattr(results, "items", lambda _: items[items["id"].isin(needed)])
    judgements = {one.name: one for one in verdicts.ledger(FULL)}
    assert judgements[name].verdict != "not run" and judgements[name].missing == 0
    lacking = sorted(needed)[0]
    monkeypatch.setattr(results, "items", lambda _: items[items["id"] != lacking])
    judgements = {one.name: one for one in verdicts.ledger(FULL)}
    assert judgements[name].verdict == "not run" and judgements[name].missing == 1


def test_one_more_entry_of_any_registry_leaves_every_verdict_as_it_was(monkeypatch):
    before = world(monkeypatch, flipping)
    published = {name: verdicts.runs(name, PROFILES["tiny-full"]) for name in CLAIMS}
    assert all(one.effects for one in before.values())
    for registry in (RULES, SELECTIONS, OBJECTIVES, OPERATORS, REWARDS):
        monkeypatch.setitem(registry, "newcomer", next(iter(registry.values())))
    assert {one.name: one for one in verdicts.ledger(FULL)} == before
    assert {name: verdicts.runs(name, PROFILES["tiny-full"]) for name in CLAIMS} == published


def test_a_bar_in_an_effect_does_not_end_its_cell():
    effect = {"what": "margin - |RL - SFT|", "estimate": 0.1, "low": 0.0, "high": 0.2, "margin": 0}
    effect |= {"holm": 0.5, "se": 0.05, "se_items": 0.0, "seeds": [5, 5]}
    judgements = [Judgement(name, "undecided", (effect,)) for name in CLAIMS]
    tables = [
        r for r in verdicts.page(FULL, judgements, []).splitlines() if r.startswith("| margin")
    ]
    assert len(tables) == len(CLAIMS)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in tables} == {8}


def test_the_table_says_which_effect_a_claim_fell_with():
    held = {"what": "a - b", "estimate": 0.1, "low": 0.0, "high": 0.2, "margin": 0.0, "holm": 0.5}
    held |= {"se": 0.05, "se_items": 0.0, "seeds": [5], "greedy": [0.01, -0.02, 0.03]}
    fell = held | {"what": "a - c", "estimate": -0.1, "holm": 0.01}
    judgements = [Judgement(name, "refuted", (held, fell)) for name in CLAIMS]
    page = verdicts.page(FULL, judgements, [])
    assert "refuted: C1, C2, C3, C4" in verdicts.summary(judgements)
    assert page.count("| refuted by a - c |") == len(CLAIMS)
    assert page.count("| +0.010 [-0.020, +0.030] |") == 2 * len(CLAIMS)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_the_rule_of_verdicts(pairs):
    effects = [{"estimate": e, "margin": 0.0, "holm": p} for e, p in pairs]
    sure = [(e, p) for e, p in pairs if p < verdicts.LEVEL]
    expected = "undecided"
    if len(sure) == len(pairs):
        expected = "supported"
    if any(e <= 0 for e, _ in sure):
        expected = "refuted"
    assert verdicts.decide(effects) == expected


def test_seeds_that_would_decide():
    effect = {"estimate": 0.02, "margin": 0.0, "se": 0.02, "se_items": 0.0, "seeds": [5, 5]}
    assert verdicts.seeds_needed(effect) == math.ceil(5 * (2.801585) ** 2)
    assert verdicts.seeds_needed(effect | {"se_items": 0.01}) == math.inf
    assert verdicts.seeds_needed(effect | {"se": 0.001}) == 1


def test_the_history_keeps_changes_only(monkeypatch, tmp_path):
    monkeypatch.setattr(verdicts, "ROOT", tmp_path)
    for said in ("undecided", "undecided", "supported"):
        verdicts.extend_history(FULL, [Judgement("the_flip", said)])
    assert [h["verdict"] for h in verdicts.history(FULL)] == ["undecided", "supported"]


def test_a_claim_must_say_where_it_comes_from():
    with pytest.raises(StudyError, match="has to state register"):
        CLAIMS.register(code="C0")(lambda profile: [])
