"""Where do the rows of a bucket go, to SFT, to RL or to neither? By the finished runs alone.

A row belongs to one of `partition.BUCKETS` by the base's pass rate, and a bucket goes where the
runs of the grid `flip` have gained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, grids, stats
from hybridlib.claims import Effect, Evidence, arm, arm_by_seed, difference
from hybridlib.partition import BUCKETS, bucket
from hybridlib.profiles import Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

METHOD_OF_FILE = {"sft": "sft", "rl": "grpo"}  # a file of rows -> the method that trains on it

Terms = list[tuple[float, dict[str, Any]]]
"""What `stats.contrast` takes: weights and selections of rows."""


@dataclass(frozen=True)
class BucketChoice:
    """What becomes of the rows of a bucket, and the effects that say so."""

    bucket: str
    advice: str  # sft, rl, either or leave out; solutions first, whatever the evidence
    file: str  # sft, rl, or "" where the rows are left out
    sft: Effect  # gain of SFT over the base
    rl: Effect  # gain of GRPO over the base
    gap: Effect  # SFT - GRPO


class FlipEvidence:
    """The finished runs of the grid `flip`, compared with the base on the test rows of a bucket.

    Reads the records of a profile. Raises StudyError where runs are missing.
    """

    def __init__(self, profile: Profile):
        self.profile, self.evidence = profile, Evidence(profile)
        trained = [
            self.runs(method, name) for method in METHOD_OF_FILE.values() for name in BUCKETS
        ]
        runs = [Run("base"), *(run for one in trained for run in one)]
        if missing := self.evidence.missing(runs):
            raise StudyError(
                f"the evidence lacks {len(missing)} of {len(runs)} runs; "
                f"python -m hybridlib sweep flip --profile {profile.name} makes them"
            )
        items = self.evidence.items
        used = items["id"].isin([run.id for run in runs]) & (items["split"] == "test")
        self.items = leave_one_sample_out(items[used])

    def runs(self, method: str, bucket: str) -> tuple[Run, ...]:
        """Return the runs of a method that trained on the rows of a bucket, one for each seed."""
        return arm(grids.of_bucket(method, bucket), self.profile.seeds).runs

    def selection(self, method: str, bucket: str) -> dict[str, Any]:
        """Return the selection, for `stats.contrast`, of such runs on the rows of that bucket."""
        return {"id": [run.id for run in self.runs(method, bucket)], "bucket": bucket}

    def gain(self, method: str, bucket: str, weight: float = 1.0) -> Terms:
        """Return the terms of a method's gain over the base on a bucket, with a weight."""
        base = {"id": "base", "bucket": bucket}
        return [(weight, self.selection(method, bucket)), (-weight, base)]

    def contrast(self, terms: Terms) -> Effect:
        """Return a weighted sum of sampled accuracies, by `stats.contrast`."""
        return stats.contrast(self.items, terms, "sampled")


def leave_one_sample_out(items: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of every item for each sample of the base, in the bucket of the others.

    In each copy the base's accuracy is that of the sample left out, and the bucket is that of the
    base's other samples of the item. If the same samples chose the bucket and were compared in it,
    bad luck would turn into gains on `zero` and good luck into losses on `high` (regression to the
    mean; Galton 1886). The column `split` numbers the copies, "test/0" and so on; `stats.contrast`
    still counts them as one item.

    Args:
        items: of one split, as `results.items` has them; those of the run "base" are among them.
    """
    import pandas as pd

    base = items[items["id"] == "base"]
    copies = []
    for sample in range(int(base["samples"].max())):
        left_out = (base["correct"] > sample).astype(float)  # the order of samples does not matter
        rates = (base["correct"] - left_out) / (base["samples"] - 1)
        copy = base[["family", "item"]].assign(
            copy=f"test/{sample}", copy_bucket=rates.map(bucket), left_out=left_out
        )
        copies.append(copy)
    merged = items.merge(pd.concat(copies), on=["family", "item"])
    is_base = merged["id"] == "base"
    return merged.assign(
        split=merged["copy"],
        bucket=merged["copy_bucket"],
        correct=merged["correct"].mask(is_base, merged["left_out"]),
        samples=merged["samples"].mask(is_base, 1),
    )


def choose(flip: FlipEvidence) -> list[BucketChoice]:
    """Return where the rows of each bucket go by the evidence, in the order of BUCKETS."""
    choices = []
    for name in BUCKETS:
        sft, rl = (flip.contrast(flip.gain(method, name)) for method in METHOD_OF_FILE.values())
        gap = flip.contrast([(1, flip.selection("sft", name)), (-1, flip.selection("grpo", name))])
        advice, file = bucket_advice(sft, rl, gap)
        choices.append(BucketChoice(name, advice, file, sft, rl, gap))
    return choices


def bucket_advice(sft: Effect, rl: Effect, gap: Effect) -> tuple[str, str]:
    """Return the advice on a bucket and the file of its rows, as BucketChoice has them.

    A bucket is left out unless one of the gains is surely above 0; it goes to the method with the
    larger estimate.
    """
    if max(sft["low"], rl["low"]) <= 0:
        return "leave out", ""
    better = "sft" if gap["estimate"] > 0 else "rl"
    separated = gap["low"] > 0 or gap["high"] < 0
    return better if separated else "either", better


def expected_gain(
    flip: FlipEvidence, choices: Sequence[BucketChoice], shares: dict[str, float]
) -> Effect | None:
    """Return the mean gain expected over a set of rows; None if all of them are left out.

    Args:
        shares: bucket -> its share of the rows. Rows that are left out gain 0.
    """
    terms: Terms = []
    for choice in choices:
        if choice.file and shares[choice.bucket]:
            method = METHOD_OF_FILE[choice.file]
            terms += flip.gain(method, choice.bucket, shares[choice.bucket])
    return flip.contrast(terms) if terms else None


def merge_or_stack(evidence: Evidence) -> Effect | None:
    """Return the effect of halves by pass rate merged, less SFT then GRPO on all rows.

    Both at the operations of GRPO alone; greedy accuracy. None where runs are missing.
    """
    profile = evidence.profile
    merged, stacked = (
        arm_by_seed(build, profile.seeds)
        for build in (
            lambda seed: grids.hybrid(profile, "passrate", seed),
            lambda seed: grids.stacked(profile, seed),
        )
    )
    contrast = difference("merged - stacked", merged, stacked)
    if evidence.missing(contrast.runs):
        return None
    found = contrast.estimate(evidence)
    low, high = found.interval()
    seeds = list(found.seeds)
    return {"estimate": found.value, "low": low, "high": high, "n": found.items, "seeds": seeds}
