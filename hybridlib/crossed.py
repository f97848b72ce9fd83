"""How far apart are arms that met the same items, under several seeds? Estimate and its error.

A contrast is a weighted sum of arms' means. Seeds and items are both samples: the question is what
other seeds and other items of these families would show, so that the items' part of the error
stays however many seeds are added. Scores are split as in a two-way analysis of variance with both
factors random (Searle, Casella and McCulloch 1992, chapter 4); Satterthwaite (1946,
doi:10.2307/3002019) gives the degrees of freedom. The estimator was chosen by the simulations of
`trials.worlds`.

`stats.paired` compares two arms of a table by it, `trials.scores` cuts its terms from records.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridlib import StudyError
from hybridlib.proportions import wilson

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05
"""The chance of a wrong statement that every interval and verdict allows unless told otherwise."""


@dataclass(frozen=True, eq=False)
class Term:
    """One arm of a contrast.

    weight: of the arm's mean.
    scores: (seeds, items), each 0 to 1; NaN in the columns of items that the arm has not met.
    block: terms of one block are compared seed by seed, row by row, because their runs stand on the
        same earlier runs; the seeds of different blocks have nothing in common.
    fixed: the arm is one run and stands for itself, not for other seeds: the base.
    """

    weight: float
    scores: np.ndarray
    block: Hashable = 0
    fixed: bool = False


@dataclass(frozen=True)
class Parts:
    """The variance of a contrast's estimate by where it comes from; see `at` for other numbers."""

    seeds: float  # falls as 1 / seeds
    items: float  # item by arm: falls as 1 / items; no number of seeds takes it away
    residual: float  # seed by item, and the draw of answers: falls as 1 / (seeds x items)

    @property
    def total(self) -> float:
        """The squared standard error."""
        return self.seeds + self.items + self.residual

    def at(self, seeds: float = 1.0, items: float = 1.0) -> Parts:
        """Return the parts with so many times the seeds and items."""
        return Parts(self.seeds / seeds, self.items / items, self.residual / (seeds * items))


@dataclass(frozen=True)
class Estimate:
    """A contrast as some seeds and items show it."""

    value: float
    se: float
    df: float  # of Student's t
    parts: Parts
    difficulty: float = 0.0  # variance of items common to all arms, which the comparison cancels
    seeds: tuple[int, ...] = ()  # per term
    items: int = 0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the ends of the interval that misses the truth with probability `level`."""
        from scipy.stats import t

        half_width = float(t.isf(level / 2, self.df)) * self.se
        return self.value - half_width, self.value + half_width

    def p(self, null: float = 0.0) -> float:
        """Return the two-sided p value of the hypothesis that the contrast equals `null`."""
        from scipy.stats import t

        return float(2 * t.sf(abs(self.value - null) / self.se, self.df))

    @property
    def components(self) -> dict[str, float]:
        """Standard deviations, in accuracy, of one seed, one item by arm and one residual.

        `item` is that of the items' common difficulty. All are those of the contrast as a whole,
        the seeds' number being that of the smallest arm of several runs.
        """
        seeds = min((count for count in self.seeds if count > 1), default=1)
        return {
            "seed": (self.parts.seeds * seeds) ** 0.5,
            "item": self.difficulty**0.5,
            "item by arm": (self.parts.items * self.items) ** 0.5,
            "residual": (self.parts.residual * seeds * self.items) ** 0.5,
        }


def estimate(terms: Sequence[Term], strata: Sequence[Hashable] | None = None) -> Estimate:
    """Estimate a contrast and its error from crossed seeds and items.

    With V_seeds, V_items and V_residual the variances of the mean that the scatter of the seeds'
    sums, of the items' means and of what both leave would each give alone, the variance is
    V_seeds + V_items - V_residual, since the residual stands in all three. A part that comes out
    negative counts as zero. Seeds scatter within blocks, items within strata; blocks and strata
    with different numbers of seeds and items are added up, each with its own degrees of freedom.
    Where no item differs from another, be it that there is only one, Wilson's interval says how
    little that tells.

    Args:
        terms: all over the same items.
        strata: the family of each item: its share of the items counts as fixed, so that what
            families differ by is no error. Items that not all terms have met are told apart, too.

    Raises:
        StudyError: no term, terms over different items, a term with one seed that is not fixed,
            terms of one block with different numbers of seeds, no item, or one that only some seeds
            of a term have met.
    """
    import numpy as np

    _check(terms)
    scores = [np.asarray(term.scores, float) for term in terms]
    met = np.array([~np.isnan(one).all(0) for one in scores])
    asked = met.any(0)
    met, scores = met[:, asked], [one[:, asked] for one in scores]
    for one, columns in zip(scores, met, strict=True):
        if np.isnan(one[:, columns]).any():
            raise StudyError("not every seed of an arm has a score for every item that others have")
    if not asked.any():
        raise StudyError("a contrast needs an item")
    by_block: dict[Hashable, np.ndarray] = {}
    difficulty = 0.0
    span = sum(abs(term.weight) for term in terms)
    for term, one, columns in zip(terms, scores, met, strict=True):
        shares = np.nan_to_num(one) / columns.sum()
        difficulty = difficulty + abs(term.weight) / span * np.nan_to_num(one).mean(0)
        key = (term.block, term.fixed)
        by_block[key] = by_block.get(key, 0.0) + term.weight * shares
    value = sum(float(block.sum() / len(block)) for block in by_block.values())
    counts = {"seeds": tuple(map(len, scores)), "items": int(asked.sum())}
    variance, common = 0.0, 0.0
    if counts["items"] > 1:
        groups = _strata(met, None if strata is None else np.asarray(strata)[asked])
        variance, df, parts = _variance(list(by_block.values()), groups)
        common = np.average(
            [difficulty[g].var(ddof=1) for g in groups], weights=[*map(len, groups)]
        )
    if variance < 1e-18:  # no item differs between arms, or all by as much
        half_width = wilson(0, counts["items"])[1] * span / 2
        se = half_width / 1.959963984540054
        parts, df = Parts(0.0, se**2, 0.0), float("inf")
    else:
        se = variance**0.5
    return Estimate(value, se, df, parts, float(common), **counts)


def blocks(
    arms: Sequence[Collection[str]], prerequisites: Mapping[str, Collection[str]]
) -> list[int]:
    """Return a block for each arm: the same where runs are shared, at whatever remove.

    Such arms have luck in common that their difference cancels, and are compared seed by seed. Any
    others were trained apart, and pairing them would cost degrees of freedom for nothing: over
    seeds, the means of 92 arms of `tiny-full` that were trained apart correlate by .03.

    Args:
        arms: the ids of each arm's runs.
        prerequisites: for each run, the runs that it goes on from.
    """

    def lineage(name: str) -> set[str]:
        return {name}.union(*(lineage(before) for before in prerequisites.get(name, ())))

    found: list[int] = []
    ancestors = [set().union(*map(lineage, arm)) for arm in arms]
    for place, mine in enumerate(ancestors):
        joined = {found[other] for other in range(place) if ancestors[other] & mine}
        found.append(min(joined, default=place))
        found = [found[-1] if block in joined else block for block in found]
    return found


def _check(terms: Sequence[Term]) -> None:
    if not terms:
        raise StudyError("a contrast needs an arm")
    if len({term.scores.shape[1] for term in terms}) > 1:
        raise StudyError("the arms of a contrast lie over different items; NaN marks what is unmet")
    sizes: dict[Hashable, int] = {}
    for term in terms:
        count = len(term.scores)
        if term.fixed != (count == 1):
            raise StudyError(
                f"an arm of {count} run(s), fixed={term.fixed}: one run says nothing of other "
                "seeds; give it more seeds or declare it fixed, and several runs are not"
            )
        if not term.fixed and sizes.setdefault(term.block, count) != count:
            raise StudyError(f"block {term.block!r} pairs arms of different numbers of seeds")


def _strata(met: np.ndarray, families: np.ndarray | None) -> list[np.ndarray]:
    """Return the positions of the items of each stratum: of one family, met by the same arms.

    An item alone shows no scatter: such items make one stratum, or join the largest.
    """
    import numpy as np

    codes = np.zeros(met.shape[1], int)
    for row in [*met, *([families] if families is not None else [])]:
        values = np.unique(row, return_inverse=True)[1]
        codes = np.unique(codes * (len(row) + 1) + values, return_inverse=True)[1]
    groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    large = [group for group in groups if len(group) > 1]
    alone = [group for group in groups if len(group) == 1]
    if len(alone) > 1:
        large.append(np.concatenate(alone))
    elif alone:
        largest = max(range(len(large)), key=lambda index: len(large[index]))
        large[largest] = np.concatenate([large[largest], *alone])
    return large


def _variance(blocks: list[np.ndarray], groups: list[np.ndarray]) -> tuple[float, float, Parts]:
    """Return the variance of the estimate, its degrees of freedom and its parts.

    Args:
        blocks: (seeds, items) each, weighted so that the estimate is the sum of the column means.
        groups: positions of the items of each stratum.
    """
    import numpy as np

    by_seeds, by_residual, by_items = [], [], []  # (variance, degrees of freedom)
    for block in blocks:
        count = len(block)
        if count == 1:
            continue
        by_seeds.append((block.sum(1).var(ddof=1) / count, count - 1))
        centred = block - block.mean(0)
        for group in groups:
            part = centred[:, group]
            free = (count - 1) * (len(group) - 1)
            left = part - part.mean(1, keepdims=True)
            by_residual.append(((left**2).sum() / free * len(group) / count, free))
    means = sum(block.mean(0) for block in blocks)
    for group in groups:
        by_items.append((means[group].var(ddof=1) * len(group), len(group) - 1))
    of_seeds, of_items, residual = (
        float(sum(part for part, _ in found)) for found in (by_seeds, by_items, by_residual)
    )
    used: Iterable[tuple[float, int]]
    if of_seeds > residual and of_items > residual:
        used = (*by_seeds, *by_items, *by_residual)
    elif of_seeds > residual:
        used = by_seeds
    else:
        used = by_items if of_items > residual else by_residual or by_items
    parts = Parts(max(0.0, of_seeds - residual), max(0.0, of_items - residual), residual)
    total = parts.total
    uncertainty = sum(part**2 / free for part, free in used)
    return total, float(total**2 / uncertainty) if uncertainty else np.inf, parts
