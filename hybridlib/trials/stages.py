"""When may a study stop, and when may it add seeds? Looks at 5, 10 and 20 seeds, one error rate.

Whoever adds seeds until a test succeeds will be wrong too often. So the chance of error is spent
over the stages, by the function of Lan and DeMets (1983, doi:10.2307/2336502) that resembles
O'Brien and Fleming's boundary: little at first. Each stage has a critical value of its own, and an
interval that is wider by it, a repeated confidence interval (Jennison and Turnbull 2000, chapter
9): all of them cover the truth at once with probability 95 %.

The items are the same at all stages. Nevertheless the estimates form the standard sequence: with b
the items' part, common to all stages, and z_s what a seed adds, the estimate of stage k is b plus
the mean of the first n_k of the z_s, so that Cov(j, k) = Var(b) + Var(z) / n_k = Var(k) for j < k,
as though information 1 / Var(k) came in independent pieces. The correlation of two stages,
(Var(k) / Var(j))^.5, is smallest where items add nothing: (n_j / n_k)^.5. Critical values are
computed for that correlation, so that no estimate of the parts enters them: if the items' part is
large, stages agree more than assumed, and the rule errs less often than it may. How much is spent
when is another matter, and free if fixed in advance. It follows the information that stages are
planned to hold, which items make larger at first than the share of the seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridlib import StudyError
from hybridlib.crossed import LEVEL, Estimate

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Design:
    """The stages of a study, fixed before its first run.

    seeds: at each stage.
    spent_at: the fraction of the study's information by which the error is spent at each stage; any
        fractions fixed in advance are honest. Empty: the fractions of the seeds.
    """

    seeds: tuple[int, ...] = (5, 10, 20)
    spent_at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        times = self.fractions
        rising = all(a < b for a, b in zip(self.seeds, self.seeds[1:], strict=False))
        if not (rising and len(times) == len(self.seeds) and list(times) == sorted(times)):
            raise StudyError(f"stages {self.seeds} spent at {times}: both must rise, one for one")
        if not (self.seeds[0] > 1 and 0 < times[0] and math.isclose(times[-1], 1)):
            raise StudyError("a stage needs two seeds, and the last one spends the whole error")

    @property
    def fractions(self) -> tuple[float, ...]:
        """The fractions of the information by which the error is spent."""
        return self.spent_at or tuple(count / self.seeds[-1] for count in self.seeds)

    def critical(self, level: float = LEVEL) -> tuple[float, ...]:
        """Return the critical value of each stage, as a standard normal deviate, two-sided."""
        return _critical(self, level)

    def level_at(self, stage: int, level: float = LEVEL) -> float:
        """Return the two-sided nominal level of a stage: what its p value has to lie below."""
        from scipy.stats import norm

        return float(2 * norm.sf(self.critical(level)[stage]))


DESIGN = Design(spent_at=(0.4, 0.67, 1.0))
"""The registered stages. In the records of the first study the items' part is such that 5 of 20
seeds hold .45 of the information on 900 items, and 10 hold .72 (`benchmarks.intervals`); seeds are
expected to matter more in the next one."""


def spent(fraction: float, level: float = LEVEL) -> float:
    """Return the chance of error that may be spent by a fraction of the information.

    2 - 2 Phi(z / fraction^.5), z the two-sided normal quantile of the level (Lan and DeMets 1983;
    Jennison and Turnbull 2000, section 7.2). Programs that spend half the level on each side by
    twice this function, at half the level, spend less at first: both are honest.
    """
    from scipy.stats import norm

    return float(2 * norm.sf(norm.isf(level / 2) / fraction**0.5))


def crossing(critical: Sequence[float], times: Sequence[float], drift: float = 0.0) -> list[float]:
    """Return the probabilities that a normal sequence first leaves its boundary at each stage.

    By recursive integration (Armitage, McPherson and Rowe 1969, doi:10.2307/2343787).

    Args:
        critical: the deviates beyond which, to both sides, a stage stops.
        times: the information of each stage, of which the last has 1.
        drift: the expected deviate at information 1.
    """
    sequence = _Sequence(drift)
    return [sequence.step(z, time) for z, time in zip(critical, times, strict=True)]


class _Sequence:
    """Paths of Brownian motion that have not crossed yet: their density at the last stage."""

    def __init__(self, drift: float = 0.0):
        import numpy as np

        self.drift, self.time = drift, 0.0
        self.places, self.masses = np.zeros(1), np.ones(1)

    def beyond(self, critical: float, time: float) -> float:
        """Return the probability to lie beyond the critical value at `time`, here for once."""
        from scipy.special import ndtr

        step = time - self.time
        ahead, edge = self.places + self.drift * step, critical * time**0.5
        tails = ndtr((ahead - edge) / step**0.5) + ndtr((-edge - ahead) / step**0.5)
        return float(self.masses @ tails)

    def step(self, critical: float, time: float) -> float:
        """Return the same and go on with the paths that lie within."""
        import numpy as np

        crossed, step = self.beyond(critical, time), time - self.time
        nodes, weights = _nodes()
        # Beyond nine deviates there is nothing; the nodes are better spent within.
        reach = min(critical, 9.0 + abs(self.drift)) * time**0.5
        places = reach * nodes
        away = (places[:, None] - self.places - self.drift * step) / step**0.5
        density = np.exp(-(away**2) / 2) @ self.masses / (2 * np.pi * step) ** 0.5
        self.masses, self.places, self.time = reach * weights * density, places, time
        return crossed


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    return np.polynomial.legendre.leggauss(96)


@functools.lru_cache(maxsize=512)
def _critical(design: Design, level: float) -> tuple[float, ...]:
    from scipy.optimize import brentq

    times = [count / design.seeds[-1] for count in design.seeds]
    budget = [spent(fraction, level) for fraction in design.fractions]
    sequence, found, before = _Sequence(), [], 0.0
    for time, until in zip(times, budget, strict=True):
        now = until - before
        z = brentq(lambda z, t=time, now=now: sequence.beyond(z, t) - now, 0.0, 38.0)
        sequence.step(z, time)
        found.append(float(z))
        before = until
    return tuple(found)


# ---------------------------------------------------------------- p values and intervals


@functools.lru_cache(maxsize=8)
def _levels(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return levels, rising, and the critical values of each stage, (stages, levels)."""
    import numpy as np

    levels = np.concatenate([np.geomspace(1e-8, 0.2, 60), np.linspace(0.22, 0.98, 20)])
    return levels, np.array([_critical(design, float(level)) for level in levels]).T


def repeated_p(estimate: Estimate, stage: int, null: float, design: Design = DESIGN) -> float:
    """Return the smallest level at which the interval of this stage leaves out `null`.

    The repeated p value: the smallest of several stages is one, too. It is 1 where no level would
    do, and never below 1e-8.
    """
    import numpy as np
    from scipy.stats import norm

    levels, critical = _levels(design)
    z = float(norm.isf(estimate.p(null) / 2))
    values = critical[stage]  # falling
    if z <= values[-1]:
        return 1.0
    return float(np.exp(np.interp(-z, -values, np.log(levels))))


def repeated_interval(
    estimates: Sequence[Estimate], level: float = LEVEL, design: Design = DESIGN
) -> tuple[float, float]:
    """Return what the intervals of all stages so far have in common, the last one's if nothing.

    Args:
        estimates: one per stage, from the first.
    """
    ends = [one.interval(design.level_at(k, level)) for k, one in enumerate(estimates)]
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    return (low, high) if low <= high else ends[-1]


def beyond(estimates: Sequence[Estimate], null: float, side: int, design: Design = DESIGN) -> float:
    """Return the smallest level at which some stage's interval lies above `null`, or below it.

    Args:
        side: 1 for above, -1 for below.
    """
    found = [
        repeated_p(one, stage, null, design)
        for stage, one in enumerate(estimates)
        if side * (one.value - null) > 0
    ]
    return min(found, default=1.0)
