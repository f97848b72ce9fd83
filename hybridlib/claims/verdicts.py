"""What does the evidence say of each claim? One rule for all verdicts, one page, one history.

A claim is *supported* if every one of its effects lies above its margin, *refuted* if one lies
below it, both at 5 % after Holm's correction over the effects of all claims, and *undecided*
otherwise, with the number of seeds that would do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, files, markdown, stats
from hybridlib.claims.contrasts import Effect, Evidence
from hybridlib.claims.rules import CLAIMS
from hybridlib.profiles import PROFILES, Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
NOT_RUN = "not run"


@dataclass(frozen=True)
class Judgement:
    """What the evidence says of one claim."""

    name: str
    verdict: str  # supported, refuted, undecided or NOT_RUN
    effects: tuple[Effect, ...] = ()  # in a ledger with `holm`, the adjusted p
    missing: int = 0  # how many of the runs that the claim reads have not finished


def ledger(profile: Profile) -> list[Judgement]:
    """Return the judgement on every claim from the runs that a profile has finished.

    Nothing is run. Profiles that are not `full` have small grids and judge no claim. Holm's
    correction is over the effects of all registered claims; those not yet measured enter with
    p = 1, so that no verdict weakens when other runs finish.
    """
    if not profile.full:
        return [Judgement(name, NOT_RUN) for name in CLAIMS]
    evidence = Evidence(profile)
    judgements = [_measured(name, evidence) for name in CLAIMS]
    unmeasured = sum(CLAIMS[one.name].effects for one in judgements if not one.effects)
    p_values = [effect["p"] for one in judgements for effect in one.effects]
    adjusted = iter(stats.holm([*p_values, *[1.0] * unmeasured]))
    decided = []
    for one in judgements:
        effects = tuple(effect | {"holm": next(adjusted)} for effect in one.effects)
        if effects:
            one = replace(one, effects=effects, verdict=decide(effects))
        decided.append(one)
    return decided


def runs(name: str, profile: Profile) -> tuple[Run, ...]:
    """Return the runs that the effects of a claim read under a profile, each once."""
    named = [run for comparison in CLAIMS[name](profile) for run in comparison.runs]
    return tuple(dict.fromkeys(named))


def _measured(name: str, evidence: Evidence) -> Judgement:
    """Return the effects of a claim, or how many runs are missing; NOT_RUN stands as the verdict.

    `ledger` decides once the effects of all claims are known, since Holm's correction needs them.
    """
    missing = evidence.missing(runs(name, evidence.profile))
    if missing:
        return Judgement(name, NOT_RUN, missing=len(missing))
    comparisons = CLAIMS[name](evidence.profile)
    effects = [effect for comparison in comparisons for effect in comparison.measure(evidence)]
    return Judgement(name, NOT_RUN, tuple(effects))


def decide(effects: Sequence[Effect]) -> str:
    """Return supported, refuted or undecided, by the rule that all claims share."""
    sure = [effect for effect in effects if effect["holm"] < LEVEL]
    if any(effect["estimate"] <= effect["margin"] for effect in sure):
        return "refuted"
    return "supported" if len(sure) == len(effects) else "undecided"


def beyond_margins(judgements: Sequence[Judgement], name: str) -> pd.DataFrame:
    """Return the effects of one claim less their margins, as `figures.differences` draws them."""
    import pandas as pd

    judgement = next(one for one in judgements if one.name == name)
    columns = ["what", "estimate", "low", "high", "margin", "holm"]
    frame = pd.DataFrame(judgement.effects, columns=columns)
    ends = ["estimate", "low", "high"]
    frame[ends] = frame[ends].sub(frame["margin"], axis=0)  # the line of figures stands at 0
    frame["what"] += [f" - {margin:.2g}" if margin else "" for margin in frame["margin"]]
    return frame.rename(columns={"what": "label", "estimate": "value"})


def seeds_needed(effect: Effect) -> float:
    """Return how many seeds would detect an effect of this size with power 80 % at 5 %.

    Infinity where no number would do: more seeds shrink the seeds' part of the standard error, and
    the test items' part stays.
    """
    target = abs(effect["estimate"] - effect["margin"]) / stats.detectable(1.0)
    room = target**2 - effect["se_items"] ** 2
    if room <= 0:
        return math.inf
    variance = max(0.0, effect["se"] ** 2 - effect["se_items"] ** 2)
    return math.ceil(max(effect["seeds"]) * variance / room)


# ---------------------------------------------------------------- the history


def history(profile: Profile) -> list[dict[str, Any]]:
    """Return the verdicts of a profile as they were reached and changed, oldest first."""
    path = _history_file(profile)
    return json.loads(path.read_text()) if path.exists() else []


def extend_history(profile: Profile, judgements: Sequence[Judgement]) -> None:
    """Append the verdicts that differ from the last ones in the history of a profile."""
    past = history(profile)
    last = {entry["claim"]: entry["verdict"] for entry in past}
    today = datetime.now(UTC).date().isoformat()
    changes = [
        {
            "claim": one.name,
            "verdict": one.verdict,
            "on": today,
            "effects": [_rounded(effect) for effect in one.effects],
        }
        for one in judgements
        if one.verdict != last.get(one.name, NOT_RUN)
    ]
    if changes:
        files.write(_history_file(profile), json.dumps(past + changes, indent=1) + "\n")


def _history_file(profile: Profile) -> Path:
    return ROOT / "data" / "verdicts" / f"{profile.name}.json"


def _rounded(effect: Effect) -> Effect:
    numbers = {key: round(effect[key], 4) for key in ("estimate", "low", "high", "holm")}
    return numbers | {"what": effect["what"]}


# ---------------------------------------------------------------- the page


def summary(judgements: Sequence[Judgement]) -> str:
    """Return the claims' codes by verdict as a paragraph of Markdown for the book's first page."""
    codes = {}
    for verdict in ("supported", "refuted", "undecided"):
        names = [one.name for one in sorted(judgements, key=_number) if one.verdict == verdict]
        codes[verdict] = ", ".join(CLAIMS[name].code for name in names) or "none"
    judged = any(one.effects for one in judgements)
    return markdown.render("hybridlib.claims", "summary.md.j2", codes=codes, judged=judged)


def page(profile: Profile, judgements: Sequence[Judgement], past: Sequence[dict[str, Any]]) -> str:
    """Return the page of all claims in Markdown: rule, runs, verdict, effects, history of each.

    past: what `history` returns.
    """
    judgements = sorted(judgements, key=_number)
    return markdown.render(
        "hybridlib.claims",
        "page.md.j2",
        profile=profile,
        n_effects=sum(claim.effects for claim in CLAIMS.values()),
        overview=_overview(judgements),
        claims=[_section(profile, one, past) for one in judgements],
    )


def _number(one: Judgement) -> int:
    return int(CLAIMS[one.name].code[1:])


def _anchor(one: Judgement) -> str:
    return f"claim-{CLAIMS[one.name].code.lower()}"


def _overview(judgements: Sequence[Judgement]) -> str:
    """Return a Markdown table of the claims: title, linked to its section, and verdict."""
    import pandas as pd

    titles = [
        f"[{CLAIMS[one.name].code}. {CLAIMS[one.name].says}](#{_anchor(one)})" for one in judgements
    ]
    outcomes = [_outcome(one) for one in judgements]
    return markdown.table(pd.DataFrame({"claim": titles, "verdict": outcomes}))


def _outcome(one: Judgement) -> str:
    """Return the verdict and the effects that refute, such as "refuted by hybrid - SFT"."""
    failed = [
        markdown.cell(effect["what"])
        for effect in one.effects
        if effect["holm"] < LEVEL and effect["estimate"] <= effect["margin"]
    ]
    return f"{one.verdict} by {', '.join(failed)}" if failed else one.verdict


def _section(profile: Profile, one: Judgement, past: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the variables of one claim for the page's template."""
    claim = CLAIMS[one.name]
    verdicts = [f"{e['verdict']} ({e['on']})" for e in past if e["claim"] == one.name]
    return {
        "anchor": _anchor(one),
        "code": claim.code,
        "says": claim.says,
        "source": claim.source,
        "dated": claim.dated,
        "rule": " ".join(claim.__doc__.split()),
        "grid": claim.grid,
        "chapter": claim.chapter,
        "figure": claim.figure,
        "runs": _arms(one.name, profile if profile.full else PROFILES["tiny-full"]),
        "verdict": one.verdict,
        "missing": one.missing,
        "effects": _effects_table(one.effects) if one.effects else "",
        "history": ", ".join(verdicts),
    }


def _arms(name: str, profile: Profile) -> str:
    """Return the ids of a claim's runs without their seeds, each once, as Markdown."""
    ids = [re.sub(r"_seed-\d+", "", run.id) for run in runs(name, profile)]
    return ", ".join(f"`{name}`" for name in dict.fromkeys(ids))


def _effects_table(effects: Sequence[Effect]) -> str:
    import pandas as pd

    rows = [
        {
            "effect": markdown.cell(effect["what"]),
            "estimate": _signed(*(effect[key] for key in ("estimate", "low", "high"))),
            "margin": f"{effect['margin']:g}",
            "p, Holm": f"{effect['holm']:.3f}",
            "detectable": f"{stats.detectable(effect['se']):.3f}",
            "seeds needed": _needed(effect),
            "greedy": _signed(*effect["greedy"]) if "greedy" in effect else "",
        }
        for effect in effects
    ]
    return markdown.table(pd.DataFrame(rows))


def _needed(effect: Effect) -> str:
    if effect["holm"] < LEVEL:
        return "enough"
    seeds = seeds_needed(effect)
    return "no number" if seeds == math.inf else str(seeds)


def _signed(estimate: float, low: float, high: float) -> str:
    return f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"
