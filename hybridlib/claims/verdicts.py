"""What does the evidence say of each claim? One rule for all verdicts: that of `trials`.

A claim is *supported* if each of its effects lies above its margin, *refuted* if one lies below,
there is *no difference that matters* if each lies within its region, and it is *undecided*
otherwise: by intervals that hold for all stages at once, after Holm's correction for the number of
claims. More seeds are for what is undecided, and for nothing else (`runs_to_come`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, files, stats
from hybridlib.claims.contrasts import (
    Comparison,
    Contrast,
    Effects,
    Evidence,
    at_hand,
    stages,
)
from hybridlib.claims.rules import CLAIMS, CORE, SIZES
from hybridlib.grids import GRIDS
from hybridlib.profiles import PROFILES, Profile
from hybridlib.runs import Run
from hybridlib.trials import DESIGN, Estimate, Levels, Primary, equivalence, levels
from hybridlib.trials import verdicts as decide
from hybridlib.trials.decisions import REFUTED, SAME, SUPPORTED, UNDECIDED

if TYPE_CHECKING:
    import pandas as pd

NOT_RUN, WITHDRAWN = "not run", "withdrawn"
VERDICTS = (SUPPORTED, REFUTED, SAME, UNDECIDED)

Effect = dict[str, Any]
"""An effect as it was measured: what, metric ("" where no accuracy is compared), estimate, low,
high, margin, region, seeds (per arm), n (items), and also: another metric -> [estimate, low, high],
by a single look at the same runs."""


@dataclass(frozen=True)
class Judgement:
    """What the evidence says of one claim.

    verdict: one of VERDICTS, NOT_RUN or WITHDRAWN.
    effects: with the intervals that hold for all stages at once.
    beside: what is shown with them and decides nothing, by a single look.
    missing: how many runs the next stage lacks.
    p: the smallest level at which the claim is decided, after Holm's correction.
    """

    name: str
    verdict: str
    effects: tuple[Effect, ...] = ()
    beside: tuple[Effect, ...] = ()
    missing: int = 0
    p: float = 1.0

    @property
    def holds(self) -> bool:
        """Whether the verdict is what the claim says."""
        equivalent = getattr(CLAIMS[self.name], "equivalence", False)
        return self.verdict == (SAME if equivalent else SUPPORTED)


# ---------------------------------------------------------------- the rule


def ledger(profile: Profile) -> list[Judgement]:
    """Return the judgement on every claim from the runs that a profile has finished.

    Nothing is run. Profiles that are not `full` have small grids and judge no claim; those of the
    further sizes judge the claims of CORE. A claim whose runs are missing enters Holm's correction
    with p = 1, so that no verdict weakens when other runs finish.
    """
    names = _judged(profile)
    evidence = Evidence(profile)
    measured = {name: _measured(name, evidence) for name in names}
    weighed = [_levels(name, measured[name]) for name in names]
    corrected = stats.holm([one.smallest for one in weighed])
    found = {
        name: _judgement(name, measured[name], verdict, p, evidence)
        for name, verdict, p in zip(names, decide(weighed), corrected, strict=True)
    }
    return [found.get(name) or _without_runs(name, profile, found) for name in CLAIMS]


def _judged(profile: Profile) -> list[str]:
    """Return the claims that the runs of a profile decide."""
    if not profile.full:
        return []
    names = CORE if profile.name in SIZES[1:] else CLAIMS
    return [name for name in names if CLAIMS[name](profile).primary]


Measured = tuple[tuple[Comparison, tuple[Estimate, ...]], ...]
"""The primary effects of a claim, each with its estimates by stage; all have as many."""


def _measured(name: str, evidence: Evidence) -> Measured:
    primary = CLAIMS[name](evidence.profile).primary
    found = [stages(one, evidence) for one in primary]
    common = min(map(len, found))
    return tuple((one, by_stage[:common]) for one, by_stage in zip(primary, found, strict=True))


def _levels(name: str, measured: Measured) -> Levels:
    rule = equivalence if getattr(CLAIMS[name], "equivalence", False) else levels
    return rule([_primary(*one) for one in measured])


def _primary(one: Comparison, by_stage: tuple[Estimate, ...]) -> Primary:
    return Primary(one.what, by_stage, one.margin, one.region)


def _judgement(
    name: str, measured: Measured, verdict: str, p: float, evidence: Evidence
) -> Judgement:
    missing = len(evidence.missing(_next_runs(measured))) if verdict == UNDECIDED else 0
    if not measured[0][1]:
        return Judgement(name, NOT_RUN if missing else UNDECIDED, missing=missing)
    effects = tuple(
        _effect(one, by_stage[-1], _primary(one, by_stage).interval(), evidence)
        for one, by_stage in measured
    )
    shown = [(one, at_hand(one, evidence)) for one in CLAIMS[name](evidence.profile).beside]
    beside = tuple(_effect(one, now, now.interval(), evidence) for one, now in shown if now)
    return Judgement(name, verdict, effects, beside, missing, p)


def _effect(
    one: Comparison, now: Estimate, interval: tuple[float, float], evidence: Evidence
) -> Effect:
    return {
        "what": one.what,
        "metric": getattr(one, "metric", ""),
        "estimate": now.value,
        "low": interval[0],
        "high": interval[1],
        "margin": one.margin,
        "region": one.region,
        "seeds": max(now.seeds),
        "n": now.items,
        "also": _by_other_metrics(one, max(now.seeds), evidence),
    }


def _by_other_metrics(one: Comparison, seeds: int, evidence: Evidence) -> dict[str, list[float]]:
    if not isinstance(one, Contrast):
        return {}
    several = evidence.profile.n_samples
    metrics = ["greedy", "sampled", *([f"pass@{min(8, several)}"] if several > 1 else [])]
    found = {}
    for metric in metrics:
        if metric != one.metric:
            estimate = replace(one.first(seeds), metric=metric).estimate(evidence)
            found[metric] = [estimate.value, *estimate.interval()]
    return found


def _without_runs(name: str, profile: Profile, found: dict[str, Judgement]) -> Judgement:
    """Return the judgement on a claim that no runs of this profile decide."""
    claim = CLAIMS[name]
    if hasattr(claim, "withdrawn"):
        return Judgement(name, WITHDRAWN)
    if not hasattr(claim, "agrees") or profile.name != SIZES[0]:
        return Judgement(name, NOT_RUN)
    verdicts = [{other: found[other].verdict for other in claim.agrees}]
    for size in SIZES[1:]:
        if size in PROFILES:
            judged = {one.name: one.verdict for one in ledger(PROFILES[size])}
            verdicts.append({other: judged[other] for other in claim.agrees})
        else:
            verdicts.append(dict.fromkeys(claim.agrees, NOT_RUN))
    return Judgement(name, agreement(verdicts))


def agreement(sizes: Sequence[dict[str, str]]) -> str:
    """Return whether claims have the same verdicts at all sizes.

    "supported" where each claim is decided at every size, and alike; "refuted" where two sizes
    decide one of them differently; "not run" where no size but one has been judged; else
    "undecided".

    Args:
        sizes: per size, claim -> verdict.
    """
    decided = (SUPPORTED, REFUTED, SAME)
    by_claim = [[size[name] for size in sizes] for name in sizes[0]]
    if any(len(set(verdicts) & set(decided)) > 1 for verdicts in by_claim):
        return REFUTED
    if all(verdict in decided for verdicts in by_claim for verdict in verdicts):
        return SUPPORTED
    judged = sum({*size.values()} != {NOT_RUN} for size in sizes)
    return UNDECIDED if judged > 1 else NOT_RUN


# ---------------------------------------------------------------- runs


def primary_runs(name: str, profile: Profile) -> tuple[Run, ...]:
    """Return the runs under all planned seeds on which the verdict on a claim rests, each once."""
    return _runs(CLAIMS[name](profile).primary)


def all_runs(name: str, profile: Profile) -> tuple[Run, ...]:
    """Return the same with the runs of what stands beside the claim."""
    effects: Effects = CLAIMS[name](profile)
    return _runs((*effects.primary, *effects.beside))


def _runs(comparisons: Sequence[Comparison]) -> tuple[Run, ...]:
    return tuple(dict.fromkeys(run for one in comparisons for run in one.runs))


def _next_runs(measured: Measured) -> tuple[Run, ...]:
    """Return the runs of the first stage that has not been measured; none after the last."""
    done = len(measured[0][1])
    if done == len(DESIGN.seeds):
        return ()
    return _runs([one.first(DESIGN.seeds[done]) for one, _ in measured])


def runs_to_come(profile: Profile) -> dict[str, list[Run]]:
    """Return the missing runs of the next stage of every claim that is not decided.

    Claim -> its runs, with those that they go on from, in the order in which they can be run.
    Claims that are decided, and those whose last stage has been measured, are not among them.
    """
    evidence, found = Evidence(profile), {}
    for one in ledger(profile):
        if one.missing:
            found[one.name] = _with_prerequisites(
                one.name, _next_runs(_measured(one.name, evidence)), evidence
            )
    return found


def _with_prerequisites(name: str, runs: Collection[Run], evidence: Evidence) -> list[Run]:
    seeds = tuple(range(1 + max(run.seed for run in runs)))
    grid = GRIDS[CLAIMS[name].grid](replace(evidence.profile, seeds=seeds))
    known = {run.id: run for run in grid}
    wanted: dict[Run, None] = {}

    def visit(run: Run) -> None:
        for need in run.prerequisites:
            visit(known[need])
        wanted[run] = None

    for run in runs:
        visit(run)
    return evidence.missing(wanted)


# ---------------------------------------------------------------- what chapters read


def beyond_margins(
    judgements: Sequence[Judgement], *names: str, beside: bool = False
) -> pd.DataFrame:
    """Return the effects of claims less their margins, as `figures.differences` draws them.

    beside: with what stands beside them and decides nothing.
    """
    import pandas as pd

    found = [one for name in names for one in judgements if one.name == name]
    effects = [e for one in found for e in (*one.effects, *(one.beside if beside else ()))]
    columns = ["what", "metric", "estimate", "low", "high", "margin", "region"]
    frame = pd.DataFrame(effects, columns=columns)
    ends = ["estimate", "low", "high"]
    frame[ends] = frame[ends].sub(frame["margin"], axis=0)  # the line of figures stands at 0
    frame["what"] += [f" - {margin:.2g}" if margin else "" for margin in frame["margin"]]
    sampled = frame["metric"].eq("sampled")
    frame["what"] += sampled.map({True: ", sampled", False: ""})
    return frame.rename(columns={"what": "label", "estimate": "value"})


def in_words(judgements: Sequence[Judgement], name: str) -> str:
    """Return the verdict on one claim, as a sentence about it would have it."""
    one = next(one for one in judgements if one.name == name)
    return f"{one.verdict}, as it says" if one.holds and one.verdict == SAME else one.verdict


# ---------------------------------------------------------------- the history


def history(profile: Profile) -> list[dict[str, Any]]:
    """Return the verdicts of a profile as they were reached and changed, oldest first.

    Keys: claim, code, says, verdict, on (the day), effects. Entries older than the rule of a claim
    are of the first study, which asked other rules of another base.
    """
    path = _history_file(profile)
    return json.loads(path.read_text()) if path.exists() else []


def of_today(entry: dict[str, Any]) -> bool:
    """Return whether an entry of the history was reached by today's rule of its claim."""
    return entry["claim"] in CLAIMS and entry["on"] >= CLAIMS[entry["claim"]].dated


def extend_history(profile: Profile, judgements: Sequence[Judgement]) -> None:
    """Append the verdicts that differ from the last ones in the history of a profile."""
    past = history(profile)
    last = {entry["claim"]: entry["verdict"] for entry in past if of_today(entry)}
    today = datetime.now(UTC).date().isoformat()
    changes = [
        {
            "claim": one.name,
            "code": CLAIMS[one.name].code,
            "says": CLAIMS[one.name].says,
            "verdict": one.verdict,
            "on": today,
            "effects": [_rounded(effect) for effect in one.effects],
        }
        for one in judgements
        if one.verdict not in (WITHDRAWN, last.get(one.name, NOT_RUN))
    ]
    if changes:
        files.write(_history_file(profile), json.dumps(past + changes, indent=1) + "\n")


def _history_file(profile: Profile) -> Path:
    return ROOT / "data" / "verdicts" / f"{profile.name}.json"


def _rounded(effect: Effect) -> Effect:
    numbers = {key: round(effect[key], 4) for key in ("estimate", "low", "high")}
    return numbers | {key: effect[key] for key in ("what", "metric", "seeds")}
