"""Where do the rows of a bucket go, to SFT, to RL or to neither? By the finished runs alone.

A row belongs to one of `partition.BUCKETS` by the base's pass rate, and a bucket goes where the
runs of the grid `flip` have gained on test rows of the same bucket. The base's samples sort the
test rows and greedy answers are compared, two measurements: if the samples that chose the bucket
were compared in it, bad luck would turn into gains on `zero` and good luck into losses on `high`
(regression to the mean; Galton 1886).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hybridlib import StudyError, grids
from hybridlib.claims import (
    BASE,
    Arm,
    Contrast,
    Evidence,
    arm,
    arm_by_seed,
    at_hand,
    difference,
)
from hybridlib.crossed import Estimate
from hybridlib.partition import BUCKETS
from hybridlib.profiles import Profile

METHOD_OF_FILE = {"sft": "sft", "rl": "grpo"}  # a file of rows -> the method that trains on it


@dataclass(frozen=True)
class BucketChoice:
    """What becomes of the rows of a bucket, and what says so, as shares of greedy answers."""

    bucket: str
    advice: str  # sft, rl, either or leave out; solutions first, whatever the evidence
    file: str  # sft, rl, or "" where the rows are left out
    sft: Estimate  # gain of SFT over the base
    rl: Estimate  # gain of GRPO over the base
    gap: Estimate  # SFT - GRPO


def evidence_of(profile: Profile) -> Evidence:
    """Return the finished runs of a profile.

    Raises StudyError where runs of the grid `flip` on the rows of a bucket are missing.
    """
    evidence = Evidence(profile)
    arms = [trained(method, name) for method in METHOD_OF_FILE.values() for name in BUCKETS]
    runs = [*BASE.runs, *(run for one in arms for run in one.runs if run.seed in profile.seeds)]
    if missing := evidence.missing(runs):
        raise StudyError(
            f"the evidence lacks {len(missing)} of {len(runs)} runs; "
            f"python -m hybridlib sweep flip --profile {profile.name} makes them"
        )
    return evidence


def trained(method: str, bucket: str) -> Arm:
    """Return the runs of a method on the rows of a bucket, on the test rows of that bucket."""
    return arm(grids.of_bucket(method, bucket), bucket=bucket)


def gain(method: str, bucket: str) -> Contrast:
    """Return the gain over the base of a method on a bucket."""
    return difference(f"{method} - base", trained(method, bucket), replace(BASE, bucket=bucket))


def choose(evidence: Evidence) -> list[BucketChoice]:
    """Return where the rows of each bucket go by the evidence, in the order of BUCKETS."""
    choices = []
    for name in BUCKETS:
        gap = difference("SFT - GRPO", trained("sft", name), trained("grpo", name))
        contrasts = (gain("sft", name), gain("grpo", name), gap)
        found = [at_hand(contrast, evidence) for contrast in contrasts]
        choices.append(BucketChoice(name, *bucket_advice(*found), *found))
    return choices


def bucket_advice(sft: Estimate, rl: Estimate, gap: Estimate) -> tuple[str, str]:
    """Return the advice on a bucket and the file of its rows, as BucketChoice has them.

    A bucket is left out unless one of the gains is surely above 0; it goes to the method with the
    larger estimate.
    """
    if max(one.interval()[0] for one in (sft, rl)) <= 0:
        return "leave out", ""
    better = "sft" if gap.value > 0 else "rl"
    low, high = gap.interval()
    return better if low > 0 or high < 0 else "either", better


def expected_gain(
    evidence: Evidence, choices: Sequence[BucketChoice], shares: dict[str, float]
) -> Estimate | None:
    """Return the mean gain expected over a set of rows; None if all of them are left out.

    Args:
        shares: bucket -> its share of the rows. Rows that are left out gain 0.
    """
    terms = tuple(
        (weight * shares[choice.bucket], one)
        for choice in choices
        if choice.file and shares[choice.bucket]
        for weight, one in gain(METHOD_OF_FILE[choice.file], choice.bucket).terms
    )
    return at_hand(Contrast("expected gain", terms), evidence) if terms else None


def merge_or_stack(evidence: Evidence) -> Estimate | None:
    """Return the effect of halves by pass rate merged, less SFT then GRPO on all rows.

    Both at the operations of GRPO alone. None where fewer than two seeds of each have finished.
    """
    profile = evidence.profile
    merged = arm_by_seed(lambda seed: grids.hybrid(profile, "passrate", seed))
    stacked = arm_by_seed(lambda seed: grids.stacked(profile, seed))
    return at_hand(difference("merged - stacked", merged, stacked), evidence)
