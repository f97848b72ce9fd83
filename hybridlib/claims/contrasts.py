"""How do finished runs compare? Comparisons name the runs that they read, `Evidence` holds these.

A comparison is plain data until it is measured, so that what has to be run for it is known before
anything is run. It names runs under all seeds that are planned; `stages` measures it with those of
each stage that has finished. `Contrast` compares accuracies; `SeedStatistic` what records say of
each seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hybridlib import results, stats
from hybridlib.crossed import Estimate, Parts, blocks
from hybridlib.grids import RING
from hybridlib.partition import bucket
from hybridlib.profiles import Profile
from hybridlib.runs import Run
from hybridlib.trials.scores import Scores
from hybridlib.trials.stages import DESIGN

if TYPE_CHECKING:
    import pandas as pd

SEEDS = tuple(range(DESIGN.seeds[-1]))
"""All seeds that a claim may come to read."""
REGION = 0.02
"""Accuracy below which a difference does not matter, unless a rule says else."""


class Evidence:
    """The finished runs of a profile, read from their records when they are first asked for."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self._scores: dict[str, Scores] = {}

    @cached_property
    def items(self) -> pd.DataFrame:
        """One row per run and evaluated item, as `results.items` has it, with the item's bucket.

        The bucket is one of `partition.BUCKETS`, by the base's own samples of that item.
        """
        items = results.items(self.profile.name)
        if items.empty:
            return items
        base = items[items["id"] == "base"]
        rates = (base["correct"] / base["samples"]).map(bucket)
        return items.merge(base[stats.ITEM].assign(bucket=rates), on=stats.ITEM, how="left")

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The finished runs' records by id."""
        return {record["id"]: record for record in results.read(self.profile.name)}

    @cached_property
    def finished(self) -> frozenset[str]:
        """The ids of the runs that have been evaluated."""
        return frozenset(self.items["id"])

    def scores(self, metric: str) -> Scores:
        """Return the scores of all finished runs under a metric."""
        if metric not in self._scores:
            self._scores[metric] = Scores(self.items, metric)
        return self._scores[metric]

    def missing(self, runs: Iterable[Run]) -> list[Run]:
        """Return those of the runs that have not finished, each once."""
        return [run for run in dict.fromkeys(runs) if run.id not in self.finished]

    def facts(self, runs: Iterable[Run]) -> list[dict[str, Any]]:
        """Return what the records of some runs say beside their scores, in the runs' order."""
        return [self.records[run.id]["facts"] for run in runs]


class Comparison(Protocol):
    """One effect: what a claim rests on, or what is shown beside it."""

    @property
    def what(self) -> str:
        """What a reader calls it."""

    @property
    def margin(self) -> float:
        """What the claim says that it lies above."""

    @property
    def region(self) -> float:
        """What it stays below, to both sides of 0, where it does not matter."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that it reads, and no others."""

    def first(self, seeds: int) -> Comparison:
        """Return the same over the first so many seeds."""

    def estimate(self, evidence: Evidence) -> Estimate | None:
        """Return what its runs show, all of which must have finished; None: they cannot tell."""


class Effects(NamedTuple):
    """What decides a claim, and what stands beside it and decides nothing."""

    primary: tuple[Comparison, ...]  # claimed to lie above their margins, all of them
    beside: tuple[Comparison, ...] = ()


def stages(comparison: Comparison, evidence: Evidence) -> tuple[Estimate, ...]:
    """Return the estimates at the stages whose runs have all finished, from the first."""
    found: list[Estimate] = []
    for seeds in DESIGN.seeds:
        part = comparison.first(seeds)
        estimate = None if evidence.missing(part.runs) else part.estimate(evidence)
        if estimate is None:
            break
        found.append(estimate)
    return tuple(found)


def at_hand(comparison: Comparison, evidence: Evidence) -> Estimate | None:
    """Return the estimate over as many seeds as have finished, in order; None for fewer than two.

    For what is shown beside a claim and decides nothing, whatever its number of seeds.
    """
    for seeds in range(len(SEEDS), 1, -1):
        part = comparison.first(seeds)
        if not evidence.missing(part.runs):
            return part.estimate(evidence)
    return None


# ---------------------------------------------------------------- accuracies


@dataclass(frozen=True)
class Arm:
    """One run under each seed, and the test items on which it is compared."""

    runs: tuple[Run, ...]
    split: str = "test"
    bucket: str = ""  # of partition.BUCKETS, "" for all

    @property
    def is_base(self) -> bool:
        """Whether this is the base: one run, whatever the seeds."""
        return len(self.runs) == 1 and self.runs[0].method == "base"

    def first(self, seeds: int) -> Arm:
        """Return the arm under its first so many seeds."""
        return replace(self, runs=self.runs[:seeds])


BASE = Arm((Run("base"),))


def arm(run: Run, seeds: Sequence[int] = SEEDS, **where: str) -> Arm:
    """Return the arm of a run under some seeds; `where` is split or bucket."""
    return arm_by_seed(lambda seed: replace(run, seed=seed), seeds, **where)


def arm_after(first: Run, then: Run, seeds: Sequence[int] = SEEDS, **where: str) -> Arm:
    """Return the arm of a run that goes on from another one of the same seed."""

    def build(seed: int) -> Run:
        return replace(then, start=replace(first, seed=seed).id, seed=seed)

    return arm_by_seed(build, seeds, **where)


def arm_by_seed(build: Callable[[int], Run], seeds: Sequence[int] = SEEDS, **where: str) -> Arm:
    """Return the arm of the runs that a function makes of some seeds."""
    return Arm(tuple(build(seed) for seed in seeds), **where)


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the accuracies of arms; `metric` is one of `stats.item_scores`."""

    what: str
    terms: tuple[tuple[float, Arm], ...]
    margin: float = 0.0
    region: float = REGION
    metric: str = "greedy"

    @property
    def runs(self) -> tuple[Run, ...]:
        arms = [term for _, term in self.terms]
        runs = [run for one in arms for run in one.runs]
        if any(one.bucket for one in arms):
            runs.insert(0, Run("base"))  # its pass rates sort the items into buckets
        return tuple(dict.fromkeys(runs))

    def first(self, seeds: int) -> Contrast:
        return replace(self, terms=tuple((w, arm.first(seeds)) for w, arm in self.terms))

    def estimate(self, evidence: Evidence) -> Estimate:
        """Return `trials.estimate`; arms that share runs are compared seed by seed."""
        arms = [arm for _, arm in self.terms]
        prerequisites = {run.id: run.prerequisites for run in self.runs}
        shared = blocks([[run.id for run in arm.runs] for arm in arms], prerequisites)
        scores = evidence.scores(self.metric)
        terms = [
            scores.term(
                weight, [run.id for run in arm.runs], arm.split, arm.bucket, block, arm.is_base
            )
            for (weight, arm), block in zip(self.terms, shared, strict=True)
        ]
        return scores.estimate(terms)


def difference(what: str, better: Arm, worse: Arm, **fields: Any) -> Contrast:
    """Return the contrast of two arms, the first of which is claimed to be the better one.

    fields: margin, region and metric of the contrast.
    """
    return Contrast(what, ((1, better), (-1, worse)), **fields)


# ---------------------------------------------------------------- what records say of each seed


@dataclass(frozen=True)
class SeedStatistic:
    """A statistic of one value per seed; see `jackknife`.

    columns: tuples of runs, each with one run per seed.
    value: called once per seed with the facts of that seed's run of each column; returns the value.
    """

    what: str
    columns: tuple[tuple[Run, ...], ...]
    value: Callable[..., Any]
    region: float
    statistic: Callable[[Sequence[Any]], float] = fmean
    margin: float = 0.0
    overlapping: bool = False

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(dict.fromkeys(run for column in self.columns for run in column))

    def first(self, seeds: int) -> SeedStatistic:
        return replace(self, columns=tuple(column[:seeds] for column in self.columns))

    def estimate(self, evidence: Evidence) -> Estimate:
        facts = [evidence.facts(column) for column in self.columns]
        values = [self.value(*row) for row in zip(*facts, strict=True)]
        return jackknife(values, self.statistic, self.overlapping)


def jackknife(
    values: Sequence[Any],
    statistic: Callable[[Sequence[Any]], float] = fmean,
    overlapping: bool = False,
) -> Estimate:
    """Return a statistic of one value per seed, and its error.

    The standard error is the jackknife's (Efron and Tibshirani 1993, chapter 11), with n - 1
    degrees of freedom; it is that of the seeds alone.

    Args:
        values: one per seed, at least two, in the order of the seeds.
        overlapping: each value is of a seed and the next one in its ring (of the last seed of a
            ring of `grids.RING` and its first), so that each seed stands in two values, which are
            left out together.
    """
    import numpy as np

    n = len(values)

    def without(seed: int) -> list[Any]:
        start = seed - seed % RING
        before = start + (seed - start - 1) % min(RING, n - start)
        left_out = {seed, before} if overlapping else {seed}
        return [value for index, value in enumerate(values) if index not in left_out]

    replicates = np.array([statistic(without(seed)) for seed in range(n)])
    variance = float((n - 1) / n * ((replicates - replicates.mean()) ** 2).sum())
    return Estimate(
        value=float(statistic(values)),
        se=max(variance**0.5, 1e-12),
        df=n - 1,
        parts=Parts(variance, 0.0, 0.0),
        seeds=(n,),
    )
