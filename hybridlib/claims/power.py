"""What will the stages of the study find? A table dated before its runs, from recorded scatter.

The parts of the variance are those of the same comparison in earlier records where these have its
runs, else those of the typical comparison of two trained arms.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from hybridlib import ROOT, StudyError, files
from hybridlib.chapter import arm_key
from hybridlib.claims.contrasts import Arm, Comparison, Contrast, Evidence, at_hand
from hybridlib.claims.rules import CLAIMS
from hybridlib.runs import Run
from hybridlib.trials import DESIGN, LEVEL, Estimate, Plan, smallest_found
from hybridlib.trials.planning import pooled

FILE = ROOT / "data" / "verdicts" / "power.json"
ITEMS = 900
"""Test items of the study that is planned: 300 of each family."""


def of_two_arms(evidence: Evidence, metric: str) -> dict[str, Estimate]:
    """Return what each recorded arm of SFT or GRPO adds to plain GRPO on the whole test split.

    Arms on all families under all seeds of the profile: what most claims compare. Adapters that
    were only modified, and merges, are left out.

    Returns:
        Arm (see `chapter.arm_key`) -> estimate under a metric.
    """
    arms: dict[str, list[Run]] = {}
    for record in evidence.records.values():
        run = Run(**record["run"])
        if run.method in ("sft", "grpo") and not run.on:
            arms.setdefault(arm_key(run), []).append(run)
    whole = {
        name: Arm(tuple(sorted(runs, key=lambda run: run.seed)))
        for name, runs in arms.items()
        if len(runs) >= max(2, len(evidence.profile.seeds))
    }
    plain = whole.pop("grpo", None)
    return {
        name: Contrast(name, ((1, arm), (-1, plain)), metric=metric).estimate(evidence)
        for name, arm in whole.items()
        if plain
    }


def typical(evidence: Evidence, metric: str = "greedy") -> Plan:
    """Return the plan of the typical comparison of two arms.

    Raises StudyError where none has finished.
    """
    found = of_two_arms(evidence, metric)
    if not found:
        name = evidence.profile.name
        raise StudyError(f"no two arms to plan by have finished under {name}")
    return pooled([*found.values()])


def table(evidence: Evidence, items: int = ITEMS) -> list[dict[str, Any]]:
    """Return the effects that are found four times in five: a row per claim with runs.

    Keys: code, what (its effect that is hardest to find), own (whether its parts are from its own
    comparison), alone (the smallest effect beyond the margin that each stage has found, if the
    claim is tested alone), first (the same as the first claim to be decided, which Holm's
    correction asks most of).

    Args:
        items: of the test split that is planned, all families together.
    """
    usual = typical(evidence)
    tests = evidence.items[evidence.items["split"] == "test"]
    grown = items / len(tests[["family", "item"]].drop_duplicates())
    claims = [claim for claim in CLAIMS.values() if claim(evidence.profile).primary]
    found_by = functools.cache(smallest_found)  # many effects have the same, typical plan
    rows = []
    for claim in claims:
        found = []
        for one in claim(evidence.profile).primary:
            plan, count, own = _plan(one, evidence, usual, items, grown)
            levels = (LEVEL, LEVEL / len(claims))
            alone, first = (found_by(plan, count, level=level) for level in levels)
            found.append({"what": one.what, "own": own, "alone": alone, "first": first})
        hardest = max(found, key=lambda row: row["alone"][-1])
        rows.append({"code": claim.code} | hardest)
    return rows


def _plan(
    one: Comparison, evidence: Evidence, usual: Plan, items: int, grown: float
) -> tuple[Plan, int, bool]:
    """Return a plan, its number of items, and whether the parts are the comparison's own."""
    measured = at_hand(one, evidence)
    if measured is None:
        return usual, items, False
    arms = sum(count > 1 for count in measured.seeds)
    return Plan.of(measured, arms), max(2, round(grown * measured.items)), True


def lines(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the power table, its heading first; `found` is what `keep` stores."""
    seeds = found["seeds"]
    stages = [f"{count} seeds" for count in seeds]
    yield ("claim", "effect", *stages, f"first of {len(found['rows'])}", "parts from")
    for row in found["rows"]:
        cells = [f"{effect:.3f}" for effect in (*row["alone"], row["first"][-1])]
        yield (row["code"], row["what"], *cells, "its own" if row["own"] else "typical")


def measured(evidence: Evidence, items: int = ITEMS) -> dict[str, Any]:
    """Return the power table with its day, the seeds of the stages, and what it was made from."""
    return {
        "dated": datetime.now(UTC).date().isoformat(),
        "profile": evidence.profile.name,
        "items": items,
        "seeds": DESIGN.seeds,
        "rows": table(evidence, items),
    }


def keep(found: dict[str, Any]) -> None:
    """Store a power table for the page of claims."""
    files.write(FILE, json.dumps(found, indent=1) + "\n")


def kept() -> dict[str, Any] | None:
    """Return the stored power table, None where there is none."""
    return json.loads(FILE.read_text()) if FILE.exists() else None
