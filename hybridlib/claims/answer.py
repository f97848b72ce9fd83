"""The answer: what do SFT, RL and both bring, on questions that the base solves seldom or often?

The first page shows it: gains of the four ways to train that a reader chooses between, by how often
the base solves the question, and the paragraph that says what to do with which rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hybridlib import figures, markdown
from hybridlib.claims.contrasts import (
    BASE,
    REGION,
    Arm,
    Contrast,
    Evidence,
    arm,
    arm_after,
    arm_by_seed,
    at_hand,
    difference,
)
from hybridlib.claims.rules import SIZES
from hybridlib.grids import hybrid, second
from hybridlib.partition import BUCKETS
from hybridlib.profiles import PROFILES, Profile
from hybridlib.runs import Run
from hybridlib.trials import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SFT, RL = "SFT", "GRPO"
IN_WORDS = {
    "zero": "never in its samples",
    "low": "in up to a quarter of them",
    "middle": "in up to three quarters of them",
    "high": "nearly always",
}
"""How often the base solves the questions of a bucket."""


def ways(profile: Profile) -> dict[str, Arm]:
    """Return the ways to train that the answer compares: what each is called, and its arm.

    Each sees all training rows, or both halves of them, at the operations of GRPO alone; SFT by
    itself stops where its validation curve is flat.
    """
    return {
        SFT: arm(Run("sft")),
        RL: arm(Run("grpo")),
        "SFT, then GRPO": arm_after(Run("sft"), second(profile)),
        "merge of halves by pass rate": arm_by_seed(lambda seed: hybrid(profile, "passrate", seed)),
    }


def gains(evidence: Evidence) -> pd.DataFrame:
    """Return how many right greedy answers each way adds to the base, per test question.

    The base's samples sort the questions into buckets, and its greedy answers are what is improved
    upon: two measurements, so that chance in the one does not pass for a gain in the other.

    Returns:
        One row per way and bucket, and per way over "all": label, bucket, value, low and high (a
        single look at as many seeds as have finished), seeds, items. Ways with fewer than two
        finished seeds are left out, and so are buckets with fewer than two questions.
    """
    import pandas as pd

    rows = [
        {"label": label, "bucket": bucket or "all", **_numbers(estimate)}
        for label, way in ways(evidence.profile).items()
        for bucket in (*BUCKETS, "")
        if (estimate := _measure(_in_bucket(label, way, BASE, bucket), evidence))
    ]
    columns = ["label", "bucket", "value", "low", "high", "seeds", "items"]
    return pd.DataFrame(rows, columns=columns)


def choices(evidence: Evidence) -> list[dict[str, Any]]:
    """Return who wins in each bucket, SFT or GRPO, and by how much.

    Returns:
        Per bucket: bucket, when (in words), wins (SFT, RL, "same" where the interval lies within
        the region that does not matter, or "open"), value (of SFT less GRPO), low, high, seeds,
        items. Nothing where either has fewer than two finished seeds.
    """
    ours = ways(evidence.profile)
    found = []
    for bucket, when in IN_WORDS.items():
        contrast = _in_bucket(f"{SFT} - {RL}", ours[SFT], ours[RL], bucket)
        if estimate := _measure(contrast, evidence):
            low, high = estimate.interval()
            decided = {SFT: low > 0, RL: high < 0, "same": -REGION < low and high < REGION}
            wins = next((name for name, holds in decided.items() if holds), "open")
            found.append({"bucket": bucket, "when": when, "wins": wins, **_numbers(estimate)})
    return found


def evidences(profile: Profile) -> list[Evidence]:
    """Return what the answer of a build rests on, the first of it in words, all in the figure.

    The published runs of every size that has some, or else those of the build's own profile; []
    where there are none of either.
    """
    sizes = [PROFILES[name] for name in SIZES if name in PROFILES]
    published = [one for one in map(Evidence, sizes) if not gains(one).empty]
    own = Evidence(profile)
    return published or ([] if gains(own).empty else [own])


def section(evidence: Evidence) -> str:
    """Return the answer in Markdown, with the figure's place."""
    table = gains(evidence)
    overall = table[table["bucket"] == "all"].sort_values("value", ascending=False)
    overall = overall.to_dict("records")
    return markdown.render(
        "hybridlib.claims",
        "answer.md.j2",
        profile=evidence.profile.name,
        committed=evidence.profile.full,
        choices=choices(evidence),
        overall="; ".join(f"{row['label']} {_interval(row)}" for row in overall),
        seeds=int(table["seeds"].min()),
        interval=_interval,
        alt=_alt(table),
        sft=SFT,
        rl=RL,
    )


def figure(evidence: Sequence[Evidence]) -> Figure:
    """Return the figure of the first page, a panel per profile."""
    import pandas as pd

    tables = [gains(one).assign(base=one.profile.name) for one in evidence]
    table = pd.concat(tables, ignore_index=True)
    return figures.gains(table[table["bucket"] != "all"])


def _alt(table: pd.DataFrame) -> str:
    """Return what the figure shows, in one sentence for who cannot see it."""
    best = table.loc[table.groupby("bucket", sort=False)["value"].idxmax()]
    found = [
        f"{IN_WORDS[row['bucket']]}: {row['label']}, {_interval(row)}"
        for row in best.to_dict("records")
        if row["bucket"] in IN_WORDS
    ]
    return "Largest gain over the base where it solves a question " + "; ".join(found)


def _in_bucket(what: str, better: Arm, worse: Arm, bucket: str) -> Contrast:
    better, worse = (replace(one, bucket=bucket) for one in (better, worse))
    return difference(what, better, worse)


def _measure(contrast: Contrast, evidence: Evidence) -> Estimate | None:
    """Return the estimate; None where seeds are too few, or the bucket's questions are."""
    bucket = contrast.terms[0][1].bucket
    if bucket and not evidence.missing([Run("base")]):
        items = evidence.items
        asked = (items["id"] == "base") & (items["split"] == "test") & (items["bucket"] == bucket)
        if asked.sum() < 2:
            return None
    return at_hand(contrast, evidence)


def _numbers(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval()
    ends = {"value": estimate.value, "low": low, "high": high}
    return ends | {"seeds": max(estimate.seeds), "items": estimate.items}


def _interval(row: dict[str, Any]) -> str:
    """Return a difference in points with its interval, as text."""
    value, low, high = (100 * row[end] for end in ("value", "low", "high"))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
