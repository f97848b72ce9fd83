"""What have the finished runs shown? The one way in which claims, and advice, compare arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hybridlib import results, stats
from hybridlib.grids import GRIDS
from hybridlib.partition import bucket
from hybridlib.profiles import Profile
from hybridlib.proportions import drawn
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd


METRICS = "sampled", "greedy"
"""What claims are judged by, and what stands beside it."""


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
        """A contrast of sampled accuracies that the claim says is above its margin.

        `greedy` is the same of greedy decoding (estimate, low, high), shown beside it.
        """
        found, greedy = (stats.contrast(self.items, terms, m, margin) for m in METRICS)
        return {"what": what} | found | {"greedy": [greedy[k] for k in ("estimate", "low", "high")]}

    def of_seeds(
        self,
        what: str,
        values: Sequence[Any],
        margin: float = 0.0,
        ring: bool = False,
        of: Callable[[Sequence[Any]], float] = fmean,
    ) -> dict[str, Any]:
        """A statistic `of` what each seed gives, said to be above its margin: jackknife and t test.

        ring: a value is of a seed and the next, so that each seed stands in two of them; all
        values of a seed are left out together (Efron and Tibshirani 1993, chapter 11).
        """
        import numpy as np
        from scipy.stats import t

        n = len(values)
        without = [[v for i, v in enumerate(values) if i != s and not (ring and (i + 1) % n == s)]
                   for s in range(n)]  # fmt: skip
        estimate, spread = float(of(values)), np.array([of(left) for left in without])
        se = float(np.sqrt((n - 1) / n * ((spread - spread.mean()) ** 2).sum()))
        reach = float(t.ppf(0.975, n - 1)) * se
        p = 2 * float(t.sf(abs(estimate - margin) / se, n - 1)) if se else float(estimate == margin)
        return {"what": what, "estimate": estimate, "low": estimate - reach,
                "high": estimate + reach, "p": p, "margin": margin, "se": se, "se_items": 0.0,
                "n": n, "seeds": [n]}  # fmt: skip


def _bucketed(items: pd.DataFrame) -> pd.DataFrame:
    """With the bucket of each item, by the base's own samples."""
    base = items[items.id == "base"]
    rate = (base["correct"] / base["samples"]).map(bucket)
    known = base[stats.ITEM].assign(bucket=rate)
    return items.merge(known, on=stats.ITEM, how="left")


def forgotten(e: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What have runs on one family lost on the others?

    Returns:
        One row per run: arm, home, kl and its log there, accuracy lost elsewhere, is_rl. And what
        each test item has to do with the loss, (runs, items): the sums of its rows are the losses.
    """
    import pandas as pd

    test = e.items[e.items["split"] == "test"].assign(value=lambda x: x["correct"] / x["samples"])
    right = test.pivot_table("value", "id", ["family", "item"])
    families = right.columns.get_level_values("family")
    moved = e.drift.set_index(["id", "family"])["kl"]
    rows, shares = [], []
    for run in GRIDS["forgetting"](e.profile):
        if run.on:
            home = run.on[0].removeprefix("tiny_")
            away = families != home
            each = families.map(families[away].value_counts() * families[away].nunique())
            shares.append(((right.loc["base"] - right.loc[run.id]) / each).where(away, 0.0))
            kl = moved[run.id, home]
            rows.append(
                {"arm": replace(run, seed=0).id, "home": home, "kl": kl,
                 "log_kl": math.log(max(kl, 1e-6)), "lost": float(shares[-1].sum()),
                 "is_rl": float(run.method == "grpo")}
            )  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(shares).reset_index(drop=True)


def at_equal_distance(runs: pd.DataFrame, shares: pd.DataFrame, margin: float) -> list[dict]:
    """Does accuracy lost grow with distance, and do methods differ at equal distance?

    Fits lost = a_home + b log_kl + c is_rl by least squares to the rows of `forgotten`, so that
    families of different height explain nothing. Two effects like those of `stats.contrast`: b, and
    margin - |c|, which is above 0 where the methods are equivalent within the margin; its error is
    that of c (two one-sided tests, Schuirmann 1987). Runs are resampled within their arm, the test
    items, which all runs share, within their family; Student's intervals with Satterthwaite's
    degrees of freedom. Where the distances of the two methods do not meet, c is an extrapolation.
    """
    import numpy as np
    from scipy.stats import t

    homes = sorted(runs["home"].unique())
    levels = [runs["home"] == home for home in homes]
    inputs = np.column_stack([runs["log_kl"], runs["is_rl"], *levels]).astype(float)
    rng = np.random.default_rng(0)
    sizes = shares.columns.get_level_values("family").value_counts(sort=False)
    lost = np.hstack([n * drawn(rng, n) for n in sizes]) @ shares.to_numpy().T  # (draws, runs)
    places = [np.flatnonzero(runs["arm"] == arm) for arm in runs["arm"].unique()]
    draws = np.array([
        np.linalg.lstsq(inputs[pick], row[pick], rcond=None)[0][:2]
        for row in lost for pick in [np.concatenate([rng.choice(at, len(at)) for at in places])]
    ])  # fmt: skip
    solve = np.linalg.pinv(inputs)[:2]
    (b, c), found = solve @ runs["lost"].to_numpy(float), []
    values = {"loss per unit of log KL": b, "margin - |RL - SFT at equal KL|": margin - abs(c)}
    errors = zip(draws.std(0), (lost @ solve.T).std(0), strict=True)
    for (what, value), (se, of_items) in zip(values.items(), errors, strict=True):
        se = max(float(se), 1e-12)
        df = (len(runs) - 2 - len(homes)) * (se**2 / max(se**2 - of_items**2, 1e-30)) ** 2
        reach = float(t.ppf(0.975, df)) * se
        found.append({"what": what, "estimate": float(value), "low": float(value) - reach,
                      "high": float(value) + reach, "p": 2 * float(t.sf(abs(value) / se, df)),
                      "margin": 0.0, "se": se, "se_items": float(of_items), "n": shares.shape[1],
                      "seeds": [min(map(len, places))]})  # fmt: skip
    return found
