"""What have the finished runs shown? The one way in which claims, and advice, compare arms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hybridlib import results, stats
from hybridlib.partition import bucket
from hybridlib.profiles import Profile
from hybridlib.rates import RESAMPLES
from hybridlib.runs import Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class Evidence:
    """The finished runs of a profile, and the one way in which claims compare them."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.items, self.drift = results.items(profile.name), results.drift(profile.name)
        if not self.items.empty:
            self.items = _bucketed(self.items)

    @cached_property
    def records(self) -> dict[str, Any]:
        """The finished runs' records by id."""
        return {record["id"]: record for record in results.read(self.profile.name)}

    def arm(self, run: Run | Callable[[int], Run], **where: Any) -> dict[str, Any]:
        """The rows of a run under all seeds, or of those of its test items that `where` selects.

        A run with parents is told as a function of the seed.
        """
        return {"id": self._ids(run), "split": "test"} | where

    def after(self, first: Run, then: Run, **where: Any) -> dict[str, Any]:
        """The rows of a run that goes on from another one of the same seed."""
        return self.arm(lambda s: replace(then, start=replace(first, seed=s).id, seed=s), **where)

    def facts(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """What the records of some runs say beside their scores."""
        return [self.records[run.id]["facts"] for run in runs]

    def _ids(self, run: Run | Callable[[int], Run]) -> list[str]:
        seeds = self.profile.seeds
        if isinstance(run, Run):
            return [replace(run, seed=seed).id for seed in seeds]
        return [run(seed).id for seed in seeds]

    def effect(
        self, what: str, *terms: tuple[float, dict[str, Any]], margin: float = 0.0
    ) -> dict[str, Any]:
        """A contrast of sampled accuracies that the claim says is above its margin."""
        return {"what": what} | stats.contrast(self.items, terms, "sampled", margin)

    def of_seeds(
        self, what: str, values: Sequence[float], margin: float = 0.0, ring: bool = False
    ) -> dict[str, Any]:
        """A number that each seed gives, said to be above its margin: a t test by the jackknife.

        ring: the number is of a seed and the next, so that each seed stands in two of them; all
        numbers of a seed are left out together (Efron and Tibshirani 1993, chapter 11).
        """
        import numpy as np
        from scipy.stats import t

        n = len(values)
        without = [[v for i, v in enumerate(values) if i != s and not (ring and (i + 1) % n == s)]
                   for s in range(n)]  # fmt: skip
        mean, spread = float(np.mean(values)), np.array([np.mean(left) for left in without])
        se = float(np.sqrt((n - 1) / n * ((spread - spread.mean()) ** 2).sum()))
        reach = float(t.ppf(0.975, len(values) - 1)) * se
        if se:
            p = 2 * float(t.sf(abs(mean - margin) / se, len(values) - 1))
        else:
            p = float(mean == margin)
        return {"what": what, "estimate": mean, "low": mean - reach, "high": mean + reach, "p": p,
                "margin": margin, "se": se, "se_items": 0.0, "n": len(values),
                "seeds": [len(values)]}  # fmt: skip


def _bucketed(items: pd.DataFrame) -> pd.DataFrame:
    """With the bucket of each item, by the base's own samples."""
    base = items[items.id == "base"]
    rate = (base["correct"] / base["samples"]).map(bucket)
    known = base[stats.ITEM].assign(bucket=rate)
    return items.merge(known, on=stats.ITEM, how="left")


def at_equal_distance(runs: pd.DataFrame, margin: float) -> list[dict]:
    """Does accuracy lost grow with distance, and do methods differ at equal distance?

    Fits lost = a_home + b log_kl + c is_rl by least squares to one row per run (columns arm, home,
    log_kl, lost, is_rl), so that families of different height explain nothing. Two effects like
    those of `stats.contrast`: b, and margin - |c|, which is above 0 where the methods are
    equivalent within the margin. Runs are resampled within their arm; Student's intervals.
    """
    import numpy as np
    from scipy.stats import t

    homes = sorted(runs["home"].unique())

    def fit(rows: pd.DataFrame) -> np.ndarray:
        levels = [rows["home"] == home for home in homes]
        inputs = np.column_stack([rows["log_kl"], rows["is_rl"], *levels]).astype(float)
        return np.linalg.lstsq(inputs, rows["lost"].to_numpy(float), rcond=None)[0]

    rng = np.random.default_rng(0)
    places = [np.flatnonzero(runs["arm"] == arm) for arm in runs["arm"].unique()]
    drawn_fits = np.array([
        fit(runs.iloc[np.concatenate([rng.choice(at, len(at)) for at in places])])
        for _ in range(RESAMPLES)
    ])  # fmt: skip
    best, found, df = fit(runs), [], len(runs) - 2 - len(homes)
    for what, value, draws in (
        ("loss per unit of log KL", best[0], drawn_fits[:, 0]),
        ("margin - |RL - SFT at equal KL|", margin - abs(best[1]), margin - abs(drawn_fits[:, 1])),
    ):
        se = float(max(draws.std(), 1e-12))
        reach = float(t.ppf(0.975, df)) * se
        found.append({"what": what, "estimate": float(value), "low": float(value) - reach,
                      "high": float(value) + reach, "p": 2 * float(t.sf(abs(value) / se, df)),
                      "margin": 0.0, "se": se, "se_items": 0.0, "n": len(runs),
                      "seeds": [min(map(len, places))]})  # fmt: skip
    return found
