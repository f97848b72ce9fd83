"""What is forgotten at equal distance from the base? A regression over the runs on one family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hybridlib.claims.contrasts import Effect, Evidence
from hybridlib.proportions import bootstrap_shares
from hybridlib.runs import Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class EqualDistance:
    """Accuracy lost elsewhere grows with distance, and at equal distance methods are equivalent.

    trained: the runs on one family each. Two effects, those of `at_equal_distance`.
    """

    trained: tuple[Run, ...]
    margin: float

    @property
    def runs(self) -> tuple[Run, ...]:
        return (Run("base"), *self.trained)  # what is lost is lost from the base

    def measure(self, evidence: Evidence) -> list[Effect]:
        return at_equal_distance(*forgotten(evidence, self.trained), self.margin)


def forgotten(evidence: Evidence, runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what runs on one family have lost on the others.

    Returns:
        One row per run: arm, home (its family), kl (from the base, on the home) and its log, lost
        (mean accuracy over the other families, less than the base's), is_rl (1.0 for GRPO). And the
        share of each test item in the loss, (runs, items): the sums of its rows are the losses.
    """
    import pandas as pd

    test = evidence.items[evidence.items["split"] == "test"]
    test = test.assign(accuracy=test["correct"] / test["samples"])
    accuracy = test.pivot_table("accuracy", "id", ["family", "item"])
    families = accuracy.columns.get_level_values("family")
    distance = evidence.drift.set_index(["id", "family"])["kl"]
    rows, shares = [], []
    for run in runs:
        home = run.on[0].removeprefix("tiny_")
        away = families != home
        divisor = families.map(families[away].value_counts() * families[away].nunique())
        loss = (accuracy.loc["base"] - accuracy.loc[run.id]) / divisor
        shares.append(loss.where(away, 0.0))
        kl = distance[run.id, home]
        rows.append(
            {
                "arm": replace(run, seed=0).id,
                "home": home,
                "kl": kl,
                "log_kl": math.log(max(kl, 1e-6)),
                "lost": float(shares[-1].sum()),
                "is_rl": float(run.method == "grpo"),
            }
        )
    return pd.DataFrame(rows), pd.DataFrame(shares).reset_index(drop=True)


def at_equal_distance(losses: pd.DataFrame, shares: pd.DataFrame, margin: float) -> list[Effect]:
    """Fit accuracy lost to distance and method, and return the two effects of the fit.

    lost = a_home + b log_kl + c is_rl, by least squares to the rows of `forgotten`, so that
    families of different height explain nothing. The effects are b, and margin - |c|, which is
    above 0 where the methods are equivalent within the margin; its error is that of c (two
    one-sided tests, Schuirmann 1987). Runs are resampled within their arm, the test items, which
    all runs share, within their family; intervals are Student's with Satterthwaite's degrees of
    freedom. Where the distances of the two methods do not meet, c is an extrapolation.
    """
    import numpy as np

    homes = sorted(losses["home"].unique())
    indicators = [losses["home"] == home for home in homes]
    inputs = np.column_stack([losses["log_kl"], losses["is_rl"], *indicators]).astype(float)
    rng = np.random.default_rng(0)
    sizes = shares.columns.get_level_values("family").value_counts(sort=False)
    weights = np.hstack([n * bootstrap_shares(rng, n) for n in sizes])
    resampled = weights @ shares.to_numpy().T  # (draws, runs)
    places = [np.flatnonzero(losses["arm"] == arm) for arm in losses["arm"].unique()]
    draws = []
    for row in resampled:
        picked = np.concatenate([rng.choice(place, len(place)) for place in places])
        draws.append(np.linalg.lstsq(inputs[picked], row[picked], rcond=None)[0][:2])
    solve = np.linalg.pinv(inputs)[:2]
    slope, method = solve @ losses["lost"].to_numpy(float)
    se_slope, se_method = np.array(draws).std(0)
    items_slope, items_method = (resampled @ solve.T).std(0)
    df = len(losses) - 2 - len(homes)
    facts = {"n": shares.shape[1], "seeds": [min(map(len, places))]}
    equivalence = "margin - |RL - SFT at equal KL|"
    return [
        _effect("loss per unit of log KL", slope, se_slope, items_slope, df) | facts,
        _effect(equivalence, margin - abs(method), se_method, items_method, df) | facts,
    ]


def _effect(
    what: str, estimate: np.floating, se: np.floating, se_items: np.floating, residual_df: int
) -> Effect:
    """A coefficient against 0; the runs' part of its error has `residual_df` degrees of freedom."""
    from scipy.stats import t

    value, se = float(estimate), max(float(se), 1e-12)
    df = residual_df * (se**2 / max(se**2 - se_items**2, 1e-30)) ** 2
    half_width = float(t.ppf(0.975, df)) * se
    return {
        "what": what,
        "estimate": value,
        "low": value - half_width,
        "high": value + half_width,
        "p": 2 * float(t.sf(abs(value) / se, df)),
        "margin": 0.0,
        "se": se,
        "se_items": float(se_items),
    }
