"""How do finished runs compare? Comparisons name the runs that they read, `Evidence` holds these.

A comparison is plain data until it is measured, so that what has to be run for it is known before
anything is run. `Contrast` compares accuracies; `SeedStatistic` what records say of each seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from hybridlib import results, stats
from hybridlib.partition import bucket
from hybridlib.profiles import Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

Effect = dict[str, Any]
"""The keys of `stats.contrast`, `what` (the label of the comparison) and, where accuracies
are compared, `greedy` (estimate, low, high under greedy decoding)."""


class Evidence:
    """The finished runs of a profile, read from their records when they are first asked for."""

    def __init__(self, profile: Profile):
        self.profile = profile

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
    def drift(self) -> pd.DataFrame:
        """One row per run and family: how far the run moved, as `results.distances` has it."""
        return results.distances(self.profile.name)

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The finished runs' records by id."""
        return {record["id"]: record for record in results.read(self.profile.name)}

    @cached_property
    def finished(self) -> frozenset[str]:
        """The ids of the runs that have been evaluated."""
        return frozenset(self.items["id"])

    def missing(self, runs: Iterable[Run]) -> list[Run]:
        """Return those of the runs that have not finished, each once."""
        return [run for run in dict.fromkeys(runs) if run.id not in self.finished]

    def facts(self, runs: Iterable[Run]) -> list[dict[str, Any]]:
        """Return what the records of some runs say beside their scores, in the runs' order."""
        return [self.records[run.id]["facts"] for run in runs]


class Comparison(Protocol):
    """What a claim consists of."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that the comparison reads, and no others."""

    def measure(self, evidence: Evidence) -> list[Effect]:
        """Return the effects that are claimed to lie above their margins.

        All of `runs` must have finished.
        """


# ---------------------------------------------------------------- accuracies


@dataclass(frozen=True)
class Arm:
    """One run under each seed, and the test items on which it is compared."""

    runs: tuple[Run, ...]
    split: str = "test"
    bucket: str = ""  # of partition.BUCKETS, "" for all

    @property
    def selection(self) -> dict[str, Any]:
        """Column -> value or values of the items of this arm, as `stats.contrast` takes it."""
        selection = {"id": [run.id for run in self.runs], "split": self.split}
        if self.bucket:
            selection["bucket"] = self.bucket
        return selection


def arm(profile: Profile, run: Run, **where: str) -> Arm:
    """Return the arm of a run under all seeds of a profile; `where` is split or bucket."""
    return arm_by_seed(profile, lambda seed: replace(run, seed=seed), **where)


def arm_after(profile: Profile, first: Run, then: Run, **where: str) -> Arm:
    """Return the arm of a run that goes on from another one of the same seed."""
    return arm_by_seed(
        profile,
        lambda seed: replace(then, start=replace(first, seed=seed).id, seed=seed),
        **where,
    )


def arm_by_seed(profile: Profile, build: Callable[[int], Run], **where: str) -> Arm:
    """Return the arm of the runs that a function makes of the seeds of a profile."""
    return Arm(tuple(build(seed) for seed in profile.seeds), **where)


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the sampled accuracies of arms, claimed to be above its margin.

    Measured by `stats.contrast`. `greedy` is the same of greedy decoding (estimate, low, high), to
    be shown beside it.
    """

    what: str
    terms: tuple[tuple[float, Arm], ...]
    margin: float = 0.0

    @property
    def runs(self) -> tuple[Run, ...]:
        arms = [term for _, term in self.terms]
        runs = [run for one in arms for run in one.runs]
        if any(one.bucket for one in arms):
            runs.insert(0, Run("base"))  # its pass rates sort the items into buckets
        return tuple(dict.fromkeys(runs))

    def measure(self, evidence: Evidence) -> list[Effect]:
        terms = [(weight, term.selection) for weight, term in self.terms]
        sampled, greedy = (
            stats.contrast(evidence.items, terms, metric, self.margin)
            for metric in ("sampled", "greedy")
        )
        beside = [greedy[key] for key in ("estimate", "low", "high")]
        return [{"what": self.what} | sampled | {"greedy": beside}]


def difference(what: str, better: Arm, worse: Arm, margin: float = 0.0) -> Contrast:
    """Return the contrast of two arms, the first of which is claimed to be the better one."""
    return Contrast(what, ((1, better), (-1, worse)), margin)


# ---------------------------------------------------------------- what records say of each seed


@dataclass(frozen=True)
class SeedStatistic:
    """A statistic of one value per seed, claimed to be above its margin; see `jackknife`.

    columns: tuples of runs, each with one run per seed.
    value: called once per seed with the facts of that seed's run of each column; returns the value.
    """

    what: str
    columns: tuple[tuple[Run, ...], ...]
    value: Callable[..., Any]
    statistic: Callable[[Sequence[Any]], float] = fmean
    margin: float = 0.0
    overlapping: bool = False

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(dict.fromkeys(run for column in self.columns for run in column))

    def measure(self, evidence: Evidence) -> list[Effect]:
        facts = [evidence.facts(column) for column in self.columns]
        values = [self.value(*row) for row in zip(*facts, strict=True)]
        measured = jackknife(values, self.statistic, self.margin, self.overlapping)
        return [{"what": self.what} | measured]


def jackknife(
    values: Sequence[Any],
    statistic: Callable[[Sequence[Any]], float] = fmean,
    margin: float = 0.0,
    overlapping: bool = False,
) -> dict[str, Any]:
    """Return a statistic of one value per seed with its 95 % interval, in `stats.contrast`'s keys.

    The standard error is the jackknife's (Efron and Tibshirani 1993, chapter 11). The interval and
    the two-sided p of the hypothesis that the statistic equals `margin` are Student's with n - 1
    degrees of freedom; `se_items`, the items' part of the error, is 0.

    Args:
        values: one per seed, at least two, in the order of the seeds.
        overlapping: each value is of a seed and the next one (of the last seed and the first), so
            that each seed stands in two values, which are left out together.
    """
    import numpy as np
    from scipy.stats import t

    n = len(values)

    def without(seed: int) -> list[Any]:
        left_out = {seed, (seed - 1) % n} if overlapping else {seed}
        return [value for index, value in enumerate(values) if index not in left_out]

    estimate = float(statistic(values))
    replicates = np.array([statistic(without(seed)) for seed in range(n)])
    se = float(np.sqrt((n - 1) / n * ((replicates - replicates.mean()) ** 2).sum()))
    half_width = float(t.ppf(0.975, n - 1)) * se
    p = 2 * float(t.sf(abs(estimate - margin) / se, n - 1)) if se else float(estimate == margin)
    return {
        "estimate": estimate,
        "low": estimate - half_width,
        "high": estimate + half_width,
        "p": p,
        "margin": margin,
        "se": se,
        "se_items": 0.0,
        "n": n,
        "seeds": [n],
    }
