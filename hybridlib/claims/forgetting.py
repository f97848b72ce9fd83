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

    Measures the two effects of `at_equal_distance`.

    trained: runs that trained on one family each.
    margin: difference in accuracy between the methods that still counts as equivalent, 0 to 1.
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
        Two frames. The first has one row per run: arm (id without seed), home (the family it
        trained on), kl (from the base, on that family, in nats), log_kl, lost (mean accuracy on the
        other families, base minus run) and is_rl (1.0 for GRPO). The second, (runs, items), holds
        what each test item contributes to `lost`: its rows sum to that column.
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

    The model is lost = a_home + b log_kl + c is_rl, by least squares over the rows of `forgotten`.
    The intercept of each home family absorbs that some families lose more than others. The effects
    are b, and margin - |c|, which is above 0 where the methods are equivalent within the margin;
    its error is that of c (two one-sided tests, Schuirmann 1987). Intervals are Student's with
    Satterthwaite's degrees of freedom. Where the distances of SFT and GRPO do not overlap, c is an
    extrapolation.

    Args:
        losses, shares: see `forgotten`.
        margin: of accuracy, 0 to 1.
    """
    import numpy as np

    homes = sorted(losses["home"].unique())
    indicators = [losses["home"] == home for home in homes]
    design = np.column_stack([losses["log_kl"], losses["is_rl"], *indicators]).astype(float)
    arm_rows = [np.flatnonzero(losses["arm"] == arm) for arm in losses["arm"].unique()]
    solve = np.linalg.pinv(design)[:2]
    slope, method_effect = solve @ losses["lost"].to_numpy(float)
    draws, item_draws = _bootstrap(design, shares, arm_rows)
    se_slope, se_method = draws.std(0)
    items_slope, items_method = (item_draws @ solve.T).std(0)
    df = len(losses) - 2 - len(homes)
    counts = {"n": shares.shape[1], "seeds": [min(map(len, arm_rows))]}
    equivalence = "margin - |RL - SFT at equal KL|"
    return [
        _effect("loss per unit of log KL", slope, se_slope, items_slope, df) | counts,
        _effect(equivalence, margin - abs(method_effect), se_method, items_method, df) | counts,
    ]


def _bootstrap(
    design: np.ndarray, shares: pd.DataFrame, arm_rows: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Resample test items within their family, and runs within their arm; the seed is fixed.

    All runs share the test items, so a draw of items moves the losses of all runs together.

    Args:
        design: (runs, coefficients).
        arm_rows: for each arm, the positions of its runs.

    Returns:
        b and c of each draw of items and runs, (draws, 2); the losses of each draw of items alone,
        (draws, runs).
    """
    import numpy as np

    rng = np.random.default_rng(0)
    sizes = shares.columns.get_level_values("family").value_counts(sort=False)
    weights = np.hstack([n * bootstrap_shares(rng, n) for n in sizes])
    item_draws = weights @ shares.to_numpy().T
    draws = []
    for losses in item_draws:
        drawn_runs = np.concatenate([rng.choice(rows, len(rows)) for rows in arm_rows])
        fit = np.linalg.lstsq(design[drawn_runs], losses[drawn_runs], rcond=None)[0]
        draws.append(fit[:2])
    return np.array(draws), item_draws


def _effect(
    what: str, estimate: np.floating, se: np.floating, se_items: np.floating, residual_df: int
) -> Effect:
    """Test an estimate against 0; return it in the keys of `Effect`, less the counts.

    By Satterthwaite: only the runs' part of the variance, se^2 - se_items^2, is estimated from few
    values and has `residual_df` degrees of freedom; the items' part counts as known.
    """
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
