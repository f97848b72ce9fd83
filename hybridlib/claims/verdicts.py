"""What does the evidence say of each claim? One rule for all verdicts, one page, one history.

A claim is *supported* if every one of its effects lies above its margin, *refuted* if one lies
below it, both at 5 % after Holm's correction over the effects of all claims, and *undecided*
otherwise, with the number of seeds that would do.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, results, stats
from hybridlib.claims.contrasts import Evidence
from hybridlib.claims.rules import CLAIMS
from hybridlib.grids import GRIDS
from hybridlib.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of one claim; effects as `stats.contrast` gives them, with `what`."""

    name: str
    verdict: str  # supported, refuted, undecided or not run
    effects: tuple[dict[str, Any], ...] = ()
    missing: int = 0  # runs of its grid that have not finished


def ledger(profile: Profile) -> list[Verdict]:
    """The verdict on every claim from the runs that this profile has finished."""
    evidence, found = Evidence(profile), {}
    done = set(evidence.items["id"])
    for name, claim in CLAIMS.items():
        missing = [run for run in GRIDS[claim.grid](profile) if run.id not in done]
        effects = tuple(claim(evidence)) if profile.full and not missing else ()
        found[name] = Verdict(name, "not run", effects, len(missing))
    # The family is all that is registered, so that no verdict lapses when another grid finishes.
    rest = sum(CLAIMS[name].effects for name, one in found.items() if not one.effects)
    ps = [effect["p"] for one in found.values() for effect in one.effects]
    adjusted = iter(stats.holm([*ps, *[1.0] * rest]))
    for name, one in found.items():
        effects = tuple(effect | {"holm": next(adjusted)} for effect in one.effects)
        if effects:
            found[name] = replace(one, effects=effects, verdict=judged(effects))
    return list(found.values())


def judged(effects: Sequence[dict[str, Any]]) -> str:
    """supported, refuted or undecided, by the rule that all claims share."""
    sure = [effect["holm"] < LEVEL for effect in effects]
    above = [effect["estimate"] > effect["margin"] for effect in effects]
    if any(s and not a for s, a in zip(sure, above, strict=True)):
        return "refuted"
    return "supported" if all(sure) else "undecided"


def effects(found: Sequence[Verdict], name: str) -> "pd.DataFrame":
    """The effects of one claim, less their margins, as `figures.differences` draws them."""
    import pandas as pd

    one = next(verdict for verdict in found if verdict.name == name)
    frame = pd.DataFrame(one.effects, columns=["what", "estimate", "low", "high", "margin", "holm"])
    ends = ["estimate", "low", "high"]
    frame[ends] = frame[ends].sub(frame["margin"], axis=0)  # the line of figures stands at 0
    frame["what"] += [f" - {margin:.2g}" * (margin != 0) for margin in frame["margin"]]
    return frame.rename(columns={"what": "arm", "estimate": "value"})


def seeds_needed(effect: dict[str, Any]) -> float:
    """Seeds at which an effect of this size is found 4 times in 5 at 5 %; inf where none suffice.

    More seeds shrink their own part of the error; the part of the test rows stays.
    """
    target = abs(effect["estimate"] - effect["margin"]) / stats.detectable(1.0)
    left = target**2 - effect["se_items"] ** 2
    own = max(0.0, effect["se"] ** 2 - effect["se_items"] ** 2)
    return math.ceil(max(effect["seeds"]) * own / left) if left > 0 else math.inf


def history(profile: Profile) -> list[dict[str, Any]]:
    """The verdicts of a profile as they were reached and changed, oldest first."""
    path = ROOT / "data" / "verdicts" / f"{profile.name}.json"
    return json.loads(path.read_text()) if path.exists() else []


def remember(profile: Profile, verdicts: Sequence[Verdict]) -> None:
    """Add to the history what is not its last word on a claim."""
    past = history(profile)
    last = {entry["claim"]: entry["verdict"] for entry in past}
    new = [
        {"claim": v.name, "verdict": v.verdict, "on": datetime.now(UTC).date().isoformat(),
         "effects": [_short(effect) for effect in v.effects]}
        for v in verdicts if v.verdict != last.get(v.name, "not run")
    ]  # fmt: skip
    if new:
        path = ROOT / "data" / "verdicts" / f"{profile.name}.json"
        results.write(path, json.dumps(past + new, indent=1) + "\n")


def _short(effect: dict[str, Any]) -> dict[str, Any]:
    return {k: round(effect[k], 4) for k in ("estimate", "low", "high", "holm")} | {
        "what": effect["what"]
    }


# ---------------------------------------------------------------- the page


def summary(verdicts: Sequence[Verdict]) -> str:
    """What was found, in a sentence of Markdown for the first page."""
    verdicts = sorted(verdicts, key=_number)
    codes = {
        kind: ", ".join(CLAIMS[v.name].code for v in verdicts if v.verdict == kind) or "none"
        for kind in ("supported", "refuted", "undecided")
    }
    told = "; ".join(f"{kind}: {names}" for kind, names in codes.items())
    if not any(v.effects for v in verdicts):
        told = "not judged in this build, whose grids are too small for them"
    return f"**What was found.** The registered claims, {told}. [](claims.md) has every effect.\n\n"


def page(profile: Profile, verdicts: Sequence[Verdict], history: Sequence[dict]) -> str:
    """The claims of the study in Markdown, every one with its rule, effects and verdict."""
    verdicts = sorted(verdicts, key=_number)
    lines = [
        "# Claims and verdicts",
        "",
        "Each claim was written down with its rule before the runs that decide it; the date stands "
        "beside it, and the history of `hybridlib/claims.py` shows it. Where a rule was amended, "
        "its entry says when, what had been seen, and what it said before. "
        "The runs of SFT, GRPO and the two in turn serve several claims and had finished when the "
        "later ones were written. A claim is *supported* if "
        "each of its effects lies above its margin, *refuted* if one lies below, both at 5 % after "
        "Holm's correction over the effects of all claims, run or not, of which there are "
        f"{sum(claim.effects for claim in CLAIMS.values())}, and *undecided* otherwise. "
        "A claim with several effects falls with one of them: the table says with which. "
        f"Evidence: profile `{profile.name}`, {len(profile.seeds)} seeds.",
        "",
        "Effects are differences of sampled accuracy, as shares of one, with 95 % intervals "
        "over seeds and items, unless they say else. *Detectable* and *seeds needed* are those of "
        "a single effect, before the correction. *Greedy* is the same effect under greedy "
        "decoding, which no rule asks for. Mind it: the tiny base was pretrained on "
        "text with slips. Sampling repeats them and greedy decoding does not, so that much of "
        "what any training gains here is that sampling becomes more reliable.",
        "",
        "| claim | verdict |", "|---|---|",
        *(f"| [{CLAIMS[v.name].code}. {CLAIMS[v.name].says}](#{_anchor(v)}) | {_outcome(v)} |"
          for v in verdicts), "",
        "C5 (which adapter suits RL) and C10 (which modules deserve full rank) have no rule and no "
        "runs yet.", "",
    ]  # fmt: skip
    for one in verdicts:
        claim = CLAIMS[one.name]
        rule = " ".join((claim.__doc__ or "").split())
        chapter = f"../notebooks/{claim.chapter}"
        shown = (
            f"in []({chapter}.ipynb), their effects in "
            f'<a href="{chapter}.html#fig-{claim.figure}">one figure</a>'
            if profile.full else "in `tiny-full`"
        )  # fmt: skip
        lines += [f"({_anchor(one)})=", f"## {claim.code}. {claim.says}", "",
                  f"Source: {claim.source}. Rule of {claim.dated}: {rule} The runs are those of "
                  f"the grid `{claim.grid}`, shown {shown}.", "",
                  f"**{one.verdict.capitalize()}.**{_why_not(one)}", ""]  # fmt: skip
        if one.effects:
            lines += [
                "| effect | estimate | margin | p, Holm | detectable | seeds needed | greedy |",
                "|---|---|---|---|---|---|---|", *map(_row, one.effects), "",
            ]  # fmt: skip
        past = [h for h in history if h["claim"] == one.name]
        if past:
            lines += [
                "History: " + ", ".join(f"{h['verdict']} ({h['on']})" for h in past) + ".",
                "",
            ]
    return "\n".join(lines)


def _number(one: Verdict) -> int:
    return int(CLAIMS[one.name].code[1:])


def _anchor(one: Verdict) -> str:
    return f"claim-{CLAIMS[one.name].code.lower()}"


def _why_not(one: Verdict) -> str:
    if one.verdict != "not run":
        return ""
    return (
        f" {one.missing} of its runs are missing." if one.missing
        else " This profile's grids are too small for it; those of `tiny-full` are not."
    )  # fmt: skip


def _outcome(one: Verdict) -> str:
    """refuted by hybrid - SFT"""
    failed = [
        _cell(e["what"]) for e in one.effects if e["holm"] < LEVEL and e["estimate"] <= e["margin"]
    ]
    return f"{one.verdict} by {', '.join(failed)}" if failed else one.verdict


def _row(effect: dict[str, Any]) -> str:
    seeds = seeds_needed(effect)
    needed = "enough" if effect["holm"] < LEVEL else "no number" if seeds == math.inf else seeds
    cells = (
        _cell(effect["what"]), _signed(*(effect[k] for k in ("estimate", "low", "high"))),
        f"{effect['margin']:g}", f"{effect['holm']:.3f}", f"{stats.detectable(effect['se']):.3f}",
        needed, _signed(*effect["greedy"]) if "greedy" in effect else "",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _signed(estimate: float, low: float, high: float) -> str:
    return f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")  # a bar would end the table's cell
