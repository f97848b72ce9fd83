"""The page of claims: rules, verdicts, effects, costs of arms, what could be found, the history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from hybridlib import labels, markdown
from hybridlib.chapter import arm_key
from hybridlib.claims import power
from hybridlib.claims.contrasts import Contrast, Evidence
from hybridlib.claims.rules import CLAIMS, CORE, SIZES
from hybridlib.claims.verdicts import (
    NOT_RUN,
    VERDICTS,
    Effect,
    Judgement,
    all_runs,
    in_words,
    of_today,
)
from hybridlib.profiles import PROFILES, Profile
from hybridlib.runs import Run
from hybridlib.trials import DESIGN
from hybridlib.trials.decisions import UNDECIDED


def summary(judgements: Sequence[Judgement]) -> str:
    """Return the claims' codes by verdict as a paragraph of Markdown for the book's first page."""
    codes = {}
    for verdict in VERDICTS:
        found = [one for one in _in_order(judgements) if one.verdict == verdict]
        codes[verdict] = ", ".join(_code(one) + _remark(one) for one in found) or "none"
    judged = any(one.effects for one in judgements)
    return markdown.render("hybridlib.claims", "summary.md.j2", codes=codes, judged=judged)


def page(profile: Profile, judgements: Sequence[Judgement], past: Sequence[dict[str, Any]]) -> str:
    """Return the page of all claims in Markdown.

    past: what `verdicts.history` returns of the profile with all claims.
    """
    judgements = _in_order(judgements)
    found = power.kept()
    return markdown.render(
        "hybridlib.claims",
        "page.md.j2",
        profile=profile,
        seeds=DESIGN.seeds,
        sizes=SIZES,
        core=", ".join(CLAIMS[name].code for name in CORE),
        corrected=sum(bool(CLAIMS[one.name](_full(profile)).primary) for one in judgements),
        overview=_overview(judgements),
        power=found,
        power_table=_table(*power.lines(found)) if found else "",
        claims=[_section(profile, one, judgements, past) for one in judgements],
        **_first_study(past),
    )


def _in_order(judgements: Sequence[Judgement]) -> list[Judgement]:
    return sorted(judgements, key=lambda one: (int(re.findall(r"\d+", _code(one))[0]), _code(one)))


def _code(one: Judgement) -> str:
    return CLAIMS[one.name].code


def _remark(one: Judgement) -> str:
    """Return that the claim says so, where a reader would not expect it of the verdict."""
    return " (as it says)" if ", as it says" in in_words([one], one.name) else ""


def _anchor(one: Judgement) -> str:
    return f"claim-{_code(one).lower()}"


def _full(profile: Profile) -> Profile:
    """Return the profile whose runs the page names: the profile itself, if it has large grids."""
    return profile if profile.full else PROFILES[SIZES[0]]


def _table(heading: Sequence[str], *rows: Sequence[str]) -> str:
    import pandas as pd

    cells = [[markdown.cell(cell) for cell in row] for row in rows]
    return markdown.table(pd.DataFrame(cells, columns=list(heading)))


def _overview(judgements: Sequence[Judgement]) -> str:
    """Return a table of the claims: title, linked to its section, verdict, and its main effect."""
    rows = []
    for one in judgements:
        title = f"[{_code(one)}. {CLAIMS[one.name].says}](#{_anchor(one)})"
        effect = one.effects[0] if one.effects else None
        rows.append((title, in_words([one], one.name), _interval(effect) if effect else ""))
    return _table(("claim", "verdict", "its first effect"), *rows)


def _section(
    profile: Profile,
    one: Judgement,
    judgements: Sequence[Judgement],
    past: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the variables of one claim for the page's template."""
    claim = CLAIMS[one.name]
    verdicts = [
        f"{entry['verdict']} ({entry['on']})"
        for entry in past
        if entry["claim"] == one.name and of_today(entry)
    ]
    costs = _costs(one.name, Evidence(profile)) if getattr(claim, "costs", False) else []
    return {
        "anchor": _anchor(one),
        "code": claim.code,
        "says": claim.says,
        "source": claim.source,
        "dated": claim.dated,
        "rule": " ".join(claim.__doc__.split()),
        "withdrawn": getattr(claim, "withdrawn", ""),
        "grid": getattr(claim, "grid", ""),
        "chapter": getattr(claim, "chapter", ""),
        "figure": getattr(claim, "figure", ""),
        "runs": _arms(one.name, _full(profile)),
        "verdict": in_words(judgements, one.name),
        "not_run": one.verdict == NOT_RUN,
        "missing": one.missing,
        "p": f"{one.p:.3f}" if one.effects else "",
        "effects": _effects_table(one.effects) if one.effects else "",
        "beside": _effects_table(one.beside) if one.beside else "",
        "costs": _table(("arm", "operations, GRPO = 1", "seeds"), *costs) if costs else "",
        "history": ", ".join(verdicts),
    }


def _arms(name: str, profile: Profile) -> str:
    """Return the ids of a claim's runs without their seeds, each once, as Markdown."""
    keys = dict.fromkeys(map(arm_key, all_runs(name, profile)))
    return ", ".join(f"`{key}`" for key in keys)


def _effects_table(effects: Sequence[Effect]) -> str:
    others = list(dict.fromkeys(metric for effect in effects for metric in effect["also"]))
    heading = ("effect", "metric", "estimate", "margin", "region", "seeds", "items", *others)
    rows = [
        (
            effect["what"],
            effect["metric"],
            _interval(effect),
            f"{effect['margin']:.2g}",
            f"{effect['region']:.2g}",
            str(effect["seeds"]),
            str(effect["n"] or ""),
            *(_signed(*effect["also"][name]) if name in effect["also"] else "" for name in others),
        )
        for effect in effects
    ]
    return _table(heading, *rows)


def _interval(effect: Effect) -> str:
    return _signed(effect["estimate"], effect["low"], effect["high"])


def _signed(estimate: float, low: float, high: float) -> str:
    return f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"


def _costs(name: str, evidence: Evidence) -> list[tuple[str, str, str]]:
    """Return what the arms of a claim have cost, as a share of GRPO alone: arm, share, seeds.

    What the runs before an arm have cost is in it; the mean over the seeds that have finished.
    """
    runs: dict[str, list[Run]] = {"grpo": []}
    for one in CLAIMS[name](evidence.profile).primary:
        for _, arm in one.terms if isinstance(one, Contrast) else ():
            for run in arm.runs:
                if run.id in evidence.records and run not in runs.setdefault(arm_key(run), []):
                    runs[arm_key(run)].append(run)
    means = {
        key: fmean(_operations(run.id, evidence) for run in found)
        for key, found in runs.items()
        if found
    }
    if not means.get("grpo"):
        return []
    return [
        (
            labels.arm_label(evidence.records[runs[key][0].id]["run"]),
            f"{mean / means['grpo']:.2f}",
            str(len(runs[key])),
        )
        for key, mean in means.items()
    ]


def _operations(run_id: str, evidence: Evidence) -> float:
    """Return the operations of a run's training and of those that it goes on from."""
    record = evidence.records.get(run_id)
    if record is None:
        return 0.0
    before = Run(**record["run"]).prerequisites
    own = record["cost"].get("operations", 0)
    return own + sum(_operations(need, evidence) for need in before)


def _first_study(past: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the variables of the verdicts that the first study ended with."""
    last = {entry["claim"]: entry for entry in past if not of_today(entry)}
    rows = [
        (
            f"{entry['code']}. {entry['says']}",
            f"{entry['verdict']} ({entry['on']})",
            "; ".join(f"{e['what']}: {_interval(e)}" for e in entry["effects"]),
        )
        for entry in last.values()
    ]
    heading = ("claim", "verdict", "effects, of sampled accuracy")
    undecided = sum(entry["verdict"] == UNDECIDED for entry in last.values())
    return {
        "first_study": _table(heading, *rows) if rows else "",
        "undecided": f"{undecided} of {len(last)}",
    }
