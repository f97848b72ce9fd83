"""How many seeds, how many items? Power from the parts of the variance, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridlib.crossed import LEVEL, Estimate, Parts
from hybridlib.trials.decisions import REFUTED, SAME, SUPPORTED
from hybridlib.trials.stages import DESIGN, Design

POWER = 0.8
VERDICTS = (SUPPORTED, SAME, REFUTED)
EFFECTS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)
"""The true effects of a power table, in accuracy."""


@dataclass(frozen=True)
class Plan:
    """What the error of a contrast consists of, with one seed and one item to each arm.

    arms: blocks of seeds that are compared; each adds degrees of freedom.
    """

    seed: float  # standard deviation of the contrast over seeds
    item_by_arm: float
    residual: float
    arms: int = 2

    @classmethod
    def of(cls, estimate: Estimate, arms: int = 2) -> Plan:
        """Return the plan that an estimate's own parts make."""
        found = estimate.components
        return cls(found["seed"], found["item by arm"], found["residual"], arms)

    def parts(self, seeds: int, items: int) -> Parts:
        """Return the parts of the variance with so many seeds and items."""
        return Parts(self.seed**2, self.item_by_arm**2, self.residual**2).at(seeds, items)

    def df(self, seeds: int, items: int) -> float:
        """Return the degrees of freedom that `crossed.estimate` will have, about."""
        parts = self.parts(seeds, items)
        left = parts.residual**2 / (self.arms * (seeds - 1) * (items - 1))
        of_seeds = (parts.seeds + parts.residual) ** 2 / (self.arms * (seeds - 1))
        of_items = (parts.items + parts.residual) ** 2 / (items - 1)
        return parts.total**2 / (of_seeds + of_items + left)


def seeds_needed(
    plan: Plan, effect: float, items: int, power: float = POWER, level: float = LEVEL
) -> float:
    """Return how many seeds per arm find an effect with this power in one look; inf if no number.

    More seeds shrink the seeds' part and the residual. What stays is the items' own part.

    Args:
        effect: its distance from the margin; the smallest that matters, not the estimate.
    """
    from scipy.stats import t

    def enough(seeds: int) -> bool:
        df, se = plan.df(seeds, items), plan.parts(seeds, items).total ** 0.5
        return abs(effect) >= float(t.isf(level / 2, df) + t.isf(1 - power, df)) * se

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def stage_power(
    plan: Plan,
    effect: float,
    items: int,
    margin: float = 0.0,
    region: float = 0.02,
    level: float = LEVEL,
    design: Design = DESIGN,
    draws: int = 20_000,
) -> dict[str, list[float]]:
    """Return how likely each verdict has been reached by each stage; what is left is undecided.

    Estimates of the stages are drawn as they depend on each other, and standard errors with the
    degrees of freedom that they will have.
    """
    import numpy as np
    from scipy.stats import t

    rng = np.random.default_rng(0)
    by_items = rng.normal(0, plan.parts(1, items).items ** 0.5, draws)
    by_seed = (plan.seed**2 + plan.residual**2 / items) ** 0.5
    total, count = np.zeros(draws), 0
    low, high = np.full(draws, -np.inf), np.full(draws, np.inf)
    verdict = np.full(draws, "", dtype=f"U{len(SAME)}")
    reached: dict[str, list[float]] = {name: [] for name in VERDICTS}
    for stage, seeds in enumerate(design.seeds):
        total += rng.normal(0, by_seed * (seeds - count) ** 0.5, draws)
        count = seeds
        df, se = plan.df(seeds, items), plan.parts(seeds, items).total ** 0.5
        half_width = t.isf(design.level_at(stage, level) / 2, df) * se
        half_width = half_width * (rng.chisquare(df, draws) / df) ** 0.5
        value = effect + by_items + total / seeds
        low, high = np.maximum(low, value - half_width), np.minimum(high, value + half_width)
        for name, holds in (
            (SAME, (low > -region) & (high < region)),
            (SUPPORTED, low > margin),
            (REFUTED, high < margin),
        ):
            verdict[holds & (verdict == "")] = name
        for name, shares in reached.items():
            shares.append(float((verdict == name).mean()))
    return reached


def smallest_found(
    plan: Plan, items: int, power: float = POWER, level: float = LEVEL, design: Design = DESIGN
) -> list[float]:
    """Return the smallest effect beyond the margin that each stage has found with this power."""
    from scipy.optimize import brentq

    def missing(effect: float, stage: int) -> float:
        found = stage_power(plan, effect, items, 0.0, 1e-9, level, design, 4_000)
        return found[SUPPORTED][stage] - power

    return [
        float(brentq(missing, 0.0, 50.0, args=(stage,), xtol=2e-4))
        for stage in range(len(design.seeds))
    ]


def power_table(
    plan: Plan,
    items: int,
    region: float = 0.02,
    effects: Sequence[float] = EFFECTS,
    level: float = LEVEL,
    design: Design = DESIGN,
) -> list[dict[str, Any]]:
    """Return a row per true effect: what `stage_power` says, and the seeds of a single look.

    Columns: effect, needed (`seeds_needed`; None for no effect) and the verdicts, the probabilities
    of each by stage. The margin is 0. With the level divided by the number of claims it is what the
    first of them to be decided meets.
    """
    return [
        {
            "effect": effect,
            "needed": seeds_needed(plan, effect, items, level=level) if effect else None,
        }
        | stage_power(plan, effect, items, region=region, level=level, design=design)
        for effect in effects
    ]


def pooled(estimates: Sequence[Estimate]) -> Plan:
    """Return the plan of the typical contrast of two arms: the mean square of each component."""
    plans = [Plan.of(one) for one in estimates]

    def typical(name: str) -> float:
        return (sum(getattr(plan, name) ** 2 for plan in plans) / len(plans)) ** 0.5

    return Plan(typical("seed"), typical("item_by_arm"), typical("residual"))
