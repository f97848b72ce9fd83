"""Where do the rows of a bucket go, to SFT, to RL or to neither? By the finished runs alone.

A row belongs to one of `partition.BUCKETS` by the base's pass rate, and a bucket goes where the
runs of the grid `flip` have gained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, grids, stats
from hybridlib.claims.contrasts import Evidence
from hybridlib.grids import MERGE, PER_BUCKET
from hybridlib.partition import BUCKETS, bucket
from hybridlib.profiles import Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

METHOD_OF_FILE = {"sft": "sft", "rl": "grpo"}  # a file of rows -> the method that trains on it


@dataclass(frozen=True)
class Choice:
    """What becomes of the rows of a bucket, and the contrasts (`stats.contrast`) that say so."""

    bucket: str
    verdict: str  # sft, rl, either, leave out; or reach: solutions first, whatever the evidence
    file: str  # sft, rl, or "" where the rows are left out
    sft: dict[str, Any]  # gain of SFT over the base
    rl: dict[str, Any]  # gain of GRPO over the base
    gap: dict[str, Any]  # SFT - GRPO


class Flip:
    """The finished runs of the grid `flip`, compared with the base on the test rows of a bucket.

    Raises StudyError where runs are missing.
    """

    def __init__(self, profile: Profile):
        self.profile, self.evidence = profile, Evidence(profile)
        ids = {"base", *(i for name in BUCKETS for m in METHOD_OF_FILE.values()
                         for i in self.arm(m, name)["id"])}  # fmt: skip
        items = self.evidence.items
        if missing := ids - set(items["id"]):
            raise StudyError(
                f"the evidence lacks {len(missing)} of {len(ids)} runs; "
                f"python -m hybridlib sweep flip --profile {profile.name} makes them"
            )
        self.items = crossed(items[items["id"].isin(ids) & (items["split"] == "test")])

    def arm(self, method: str, name: str) -> dict[str, Any]:
        """A method trained on the rows of a bucket, on the copies that `crossed` puts into it."""
        run = Run(method, select=name, n_train=PER_BUCKET)
        return {"id": [replace(run, seed=s).id for s in self.profile.seeds], "bucket": name}

    def gain(self, method: str, name: str, weight: float = 1.0) -> list[tuple[float, dict]]:
        """The terms of a method's gain over the base on a bucket, so often."""
        return [(weight, self.arm(method, name)), (-weight, {"id": "base", "bucket": name})]

    def contrast(self, terms: Sequence[tuple[float, dict]]) -> dict[str, Any]:
        return stats.contrast(self.items, terms, "sampled")


def crossed(items: pd.DataFrame) -> pd.DataFrame:
    """Every item once for each sample of the base, in the bucket of the base's other samples.

    The base's row of a copy holds the sample left out. Were all its samples to choose the bucket
    and to be compared in it, too, bad luck would turn into gains on `zero` and good luck into
    losses on `high` (regression to the mean; Galton 1886). `split` tells the copies apart:
    `stats.contrast` takes them for one item.
    """
    import pandas as pd

    base, copies = items[items["id"] == "base"], []
    for drawn in range(int(base["samples"].max())):
        right = (base["correct"] > drawn).astype(float)  # in which order they came is no matter
        others = (base["correct"] - right) / (base["samples"] - 1)
        copies.append(base[["family", "item"]].assign(
            copy=f"test/{drawn}", within=others.map(bucket), right=right
        ))  # fmt: skip
    found = items.merge(pd.concat(copies), on=["family", "item"])
    own = found["id"] == "base"
    return found.assign(
        split=found["copy"], bucket=found["within"],
        correct=found["correct"].mask(own, found["right"]), samples=found["samples"].mask(own, 1),
    )  # fmt: skip


def choices(flip: Flip) -> list[Choice]:
    """Where do the rows of each bucket go?"""
    found = []
    for name in BUCKETS:
        sft, rl = (flip.contrast(flip.gain(method, name)) for method in METHOD_OF_FILE.values())
        gap = flip.contrast([(1, flip.arm("sft", name)), (-1, flip.arm("grpo", name))])
        found.append(Choice(name, *rule(sft, rl, gap), sft, rl, gap))
    return found


def rule(sft: dict[str, Any], rl: dict[str, Any], gap: dict[str, Any]) -> tuple[str, str]:
    """The verdict on a bucket and the file of its rows, from its two gains and their difference."""
    if max(sft["low"], rl["low"]) <= 0:
        return "leave out", ""
    better = "sft" if gap["estimate"] > 0 else "rl"
    return better if gap["low"] > 0 or gap["high"] < 0 else "either", better


def expected(
    flip: Flip, chosen: Sequence[Choice], shares: dict[str, float]
) -> dict[str, Any] | None:
    """The mean gain of rows of which each bucket has that share; None where all are left out."""
    terms = [
        term for c in chosen if c.file and shares[c.bucket]
        for term in flip.gain(METHOD_OF_FILE[c.file], c.bucket, shares[c.bucket])
    ]  # fmt: skip
    return flip.contrast(terms) if terms else None


def merge_or_stack(e: Evidence) -> dict[str, Any] | None:
    """Halves by pass rate merged, minus SFT then GRPO on all rows; None where runs are missing."""
    arms = (
        e.arm(lambda seed: grids.merged(grids.halves("passrate", seed), MERGE)),
        e.after(Run("sft"), Run("grpo")),
    )
    if {one for arm in arms for one in arm["id"]} - set(e.items["id"]):
        return None
    return e.effect("merged - stacked", *zip((1, -1), arms, strict=True))
