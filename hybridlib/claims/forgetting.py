"""What is forgotten at equal distance from the base? A regression over trainings on one family."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hybridlib.chapter import arm_key
from hybridlib.claims.contrasts import Evidence
from hybridlib.crossed import Estimate, Term, estimate
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

FLOOR = 1e-6  # nats; nearer to the base than this is the base


@dataclass(frozen=True)
class EqualDistance:
    """The accuracy that RL loses on other families, less that of SFT, at equal distance.

    See `at_equal_distance`.

    trained: runs that trained on one family each, by SFT or GRPO, under all seeds.
    """

    what: str
    trained: tuple[Run, ...]
    region: float
    margin: float = 0.0

    @property
    def runs(self) -> tuple[Run, ...]:
        return (Run("base"), *self.trained)  # what is lost is lost from the base

    def first(self, seeds: int) -> EqualDistance:
        known = sorted({run.seed for run in self.trained})[:seeds]
        return replace(self, trained=tuple(run for run in self.trained if run.seed in known))

    def estimate(self, evidence: Evidence) -> Estimate | None:
        return at_equal_distance(*forgotten(evidence, self.trained))


def forgotten(evidence: Evidence, runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what runs on one family have lost on the others, along their training.

    Decoded greedily. Where a record has no distances at checkpoints, its end is its only point.
    The test items are those that all points have answered.

    Returns:
        Two frames. The first has one row per run and point: arm (id without seed), seed, home (the
        family it trained on), step (-1 for the end alone), kl (from the base, on that family, in
        nats), log_kl, lost (mean accuracy on the other families, base minus run) and is_rl (1.0
        for GRPO). The second, (points, items), holds what each test item contributes to `lost`:
        its rows sum to that column.
    """
    import pandas as pd

    points = [
        (run, home, step, kl, _test_answers(greedy))
        for run in runs
        for home in [run.on[0].removeprefix("tiny_")]
        for step, kl, greedy in _points(evidence.records[run.id], home)
    ]
    before = _test_answers(_greedy(evidence.records["base"]))
    asked = [answers.index for *_, answers in points]
    before = before.loc[functools.reduce(pd.Index.intersection, asked, before.index)]
    families = before.index.get_level_values("family")
    rows, shares = [], []
    for run, home, step, kl, answers in points:
        away = families != home
        divisor = families.map(families[away].value_counts() * families[away].nunique())
        shares.append(((before - answers.loc[before.index]) / divisor).where(away, 0.0))
        rows.append(
            {
                "arm": arm_key(run),
                "seed": run.seed,
                "home": home,
                "step": step,
                "kl": kl,
                "log_kl": math.log(max(kl, FLOOR)),
                "lost": float(shares[-1].sum()),
                "is_rl": float(run.method == "grpo"),
            }
        )
    return pd.DataFrame(rows), pd.DataFrame(shares).reset_index(drop=True)


def _points(record: dict[str, Any], home: str) -> Iterator[tuple[int, float, dict[str, str]]]:
    """Yield step, distance and answers ("family/split" -> a digit per row) along a training."""
    points = [point for point in record.get("checkpoints", []) if "kl" in point]
    for point in points:
        yield point["step"], point["kl"], point["greedy"]
    if not points:
        yield -1, record["facts"]["drift"][home]["kl"], _greedy(record)


def _greedy(record: dict[str, Any]) -> dict[str, str]:
    return {name: part["greedy"] for name, part in record["items"].items()}


def _test_answers(greedy: dict[str, str]) -> pd.Series:
    """Return 1.0 for each right answer on the test split, by family and item."""
    import pandas as pd

    right = {
        (name.removesuffix("/test"), item): float(digit)
        for name, digits in greedy.items()
        if name.endswith("/test")
        for item, digit in enumerate(digits)
    }
    return pd.Series(right).rename_axis(["family", "item"])


def at_equal_distance(points: pd.DataFrame, shares: pd.DataFrame) -> Estimate | None:
    """Fit the accuracy lost to distance and method; return the coefficient of the method.

    The model is lost = a_home + b log_kl + c is_rl, by least squares over those rows of `forgotten`
    whose distance both methods reach on the same family, so that c is no extrapolation. The
    intercept of each home family absorbs that some families lose more than others.

    The error is `trials.estimate`'s: c is a sum over items, each the coefficient of a fit to that
    item alone, and a seed moves it by its points' residuals, weighted as in the fit. So seeds with
    all their points are drawn, not points (a sandwich estimate clustered by seed; Liang and Zeger
    1986, doi:10.1093/biomet/73.1.13).

    Args:
        points, shares: see `forgotten`.

    Returns:
        The estimate of c; None where there are fewer than two seeds, or the methods' distances do
        not overlap enough to tell them apart.
    """
    import numpy as np

    seeds = points["seed"].unique()
    kept = _overlapping(points)
    points, cells = points[kept], shares[kept].to_numpy()
    homes = sorted(points["home"].unique())
    indicators = [points["home"] == home for home in homes]
    design = np.column_stack([points["is_rl"], points["log_kl"], *indicators]).astype(float)
    if len(seeds) < 2 or len(points) <= 2 + len(homes):
        return None
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    solve = np.linalg.pinv(design)
    coefficients = solve @ cells
    moved = solve[0][:, None] * (cells - design @ coefficients)
    by_seed = np.array([moved[(points["seed"] == seed).to_numpy()].sum(0) for seed in seeds])
    n_seeds, n_items = by_seed.shape
    scores = (coefficients[0] + n_seeds * by_seed) * n_items  # whose mean over all is c
    families = shares.columns.get_level_values("family")
    return estimate([Term(1.0, scores)], list(families))


def _overlapping(points: pd.DataFrame) -> pd.Series:
    """Return whether each point lies where both methods have been, on its family."""
    ends = points.groupby(["home", "is_rl"])["kl"].agg(["min", "max"]).unstack()
    low, high = ends["min"].max(axis=1, skipna=False), ends["max"].min(axis=1, skipna=False)
    return points["kl"].between(points["home"].map(low), points["home"].map(high))
