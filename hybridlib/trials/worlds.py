"""Does an interval cover the truth as often as it says? Simulated studies, where it is known.

A world draws items of random difficulty, seeds that differ, items that suit one arm better than
the other, and answers, all in logits, and scores two or more arms as a study would.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridlib.crossed import Term

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class World:
    """What is true of the arms of a simulated study; standard deviations are in logits."""

    effect: float = 0.059  # the contrast of `weights`, in accuracy: the first arm is better by it
    seeds: tuple[int, ...] = (5, 5)  # of each arm
    items: int = 300  # of all families together
    difficulty: float = 2.0
    seed: float = 0.25
    item_by_arm: float = 0.5
    seed_by_item: float = 0.0
    samples: int = 1  # answers per item and seed
    families: int = 1
    apart: float = 0.0  # how far easiest and hardest family lie
    ease: float = 0.0  # of all items: logits of the mean family
    shared: float = 0.0  # share of the seeds' variance that arms of one seed have in common
    weights: tuple[float, ...] = (1.0, -1.0)

    @property
    def strata(self) -> list[int]:
        """The family of each item."""
        return [item * self.families // self.items for item in range(self.items)]

    def draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the scores of each arm, (seeds, items), in one study."""
        import numpy as np

        ease = _family_eases(self)[self.strata] + rng.normal(0, self.difficulty, self.items)
        common = rng.normal(0, self.seed * self.shared**0.5, max(self.seeds))
        arms = []
        for index, count in enumerate(self.seeds):
            own = rng.normal(0, self.seed * (1 - self.shared) ** 0.5, count)
            logits = ease + rng.normal(0, self.item_by_arm, self.items)
            logits = logits + (common[:count] + own)[:, None] + (_shift(self) if index == 0 else 0)
            if self.seed_by_item:
                logits = logits + rng.normal(0, self.seed_by_item, logits.shape)
            chance = 1 / (1 + np.exp(-logits))
            arms.append(rng.binomial(self.samples, chance) / self.samples)
        return arms

    def terms(self, arms: Sequence[np.ndarray], paired: bool = False) -> list[Term]:
        """Return the arms as the terms of the contrast."""
        return [
            Term(weight, scores, block=0 if paired else index)
            for index, (weight, scores) in enumerate(zip(self.weights, arms, strict=True))
        ]


def studies(world: World, repetitions: int, start: int = 0) -> Iterator[list[np.ndarray]]:
    """Yield what `World.draw` gives, for as many studies, the same ones each time."""
    import numpy as np

    for index in range(repetitions):
        yield world.draw(np.random.default_rng([start, index]))


Interval = Callable[[World, list], tuple[float, float]]
"""What a way of judging makes of the arms of a study."""


def coverage(world: World, judge: Interval, repetitions: int) -> dict[str, float]:
    """Return how often intervals cover the effect, with its Monte-Carlo error, and their width."""
    import numpy as np

    ends = np.array([judge(world, arms) for arms in studies(world, repetitions)])
    covered = (ends[:, 0] <= world.effect) & (world.effect <= ends[:, 1])
    share = float(covered.mean())
    return {
        "covered": share,
        "error": float((share * (1 - share) / repetitions) ** 0.5),
        "width": float(np.ptp(ends, axis=1).mean()),
    }


def _family_eases(world: World) -> np.ndarray:
    import numpy as np

    return world.ease + np.linspace(-0.5, 0.5, world.families) * world.apart * (world.families > 1)


@functools.lru_cache(maxsize=256)
def _shift(world: World) -> float:
    """Return the logits that the first arm is ahead by, such that accuracies differ by `effect`.

    Raises ValueError where no shift gives the effect.
    """
    import numpy as np
    from scipy.optimize import brentq

    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    variances = (world.difficulty, world.seed, world.item_by_arm, world.seed_by_item)
    spread = sum(sd**2 for sd in variances) ** 0.5
    counts = np.bincount(world.strata, minlength=world.families)

    def mean(shift: float) -> float:
        logits = _family_eases(world)[:, None] + shift + spread * nodes
        return float(np.average((1 / (1 + np.exp(-logits))) @ weights, weights=counts))

    total, scale = weights.sum(), world.weights[0]
    gap = world.effect - sum(world.weights) * mean(0.0) / total
    return brentq(lambda shift: scale * (mean(shift) - mean(0.0)) / total - gap, -30, 30)
