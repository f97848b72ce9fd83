"""How sure is a share? Intervals of proportions, pass@k, and how well a score tells two groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybridlib import StudyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

RESAMPLES = 2_000
"""Bootstrap draws behind every interval of the study."""
Z = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


def pass_at_k(samples: ArrayLike, correct: ArrayLike, draws: int) -> np.ndarray:
    """Return pass@k, the unbiased chance that at least one of k = `draws` answers is right.

    1 - C(n - c, k) / C(n, k) for c right ones of n samples, elementwise over arrays (Chen et al.
    2021, arXiv:2107.03374). Choosing the first k samples instead would be noisier; 1 - (1 - c/n)^k
    is biased low.

    Raises StudyError unless 1 <= k <= n.
    """
    import numpy as np

    n, c = np.broadcast_arrays(np.asarray(samples, float), np.asarray(correct, float))
    if draws < 1 or (n < draws).any():
        raise StudyError(
            f"pass@{draws} needs 1 <= k <= samples, and there are {n.min():.0f} samples"
        )
    all_wrong = np.ones_like(n)
    for drawn in range(draws):
        all_wrong = all_wrong * np.clip(n - c - drawn, 0, None) / (n - drawn)
    return 1 - all_wrong


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, (0, 1) without trials.

    The score interval of Wilson (1927): unlike the bootstrap it stays honest when no item, or
    every item, is right.
    """
    if trials == 0:
        return 0.0, 1.0
    n, share = trials, successes / trials
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half_width = Z / (1 + Z * Z / n) * (share * (1 - share) / n + Z * Z / (4 * n * n)) ** 0.5
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    low = max(0.0, centre - half_width) if share else 0.0
    high = min(1.0, centre + half_width) if share < 1 else 1.0
    return low, high


def share(flags: Sequence[bool]) -> list[float] | None:
    """Return the share that is true as [estimate, low, high] by `wilson`; None without flags."""
    return [sum(flags) / len(flags), *wilson(sum(flags), len(flags))] if flags else None


def auc(positive: Sequence[float], negative: Sequence[float]) -> list[float] | None:
    """Return how often a positive scores higher than a negative, a tie counting half.

    The area under the ROC curve (Hanley & McNeil 1982) as [estimate, low, high], 95 % by a
    bootstrap of each side; None where a side is empty.
    """
    import numpy as np

    above, below = np.array(positive, float), np.array(negative, float)
    if not above.size or not below.size:
        return None
    rng = np.random.default_rng(0)
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    by_positive = bootstrap_shares(rng, len(above)) @ wins
    draws = (by_positive * bootstrap_shares(rng, len(below))).sum(1)
    low, high = np.quantile(draws.clip(0, 1), [0.025, 0.975])
    return [float(wins.mean()), float(low), float(high)]


def f1(located: Sequence[bool], passed: Sequence[bool]) -> list[float] | None:
    """Return the harmonic mean of two shares as [estimate, low, high].

    ProcessBench's measure (Zheng et al. 2024), 95 % by a bootstrap of each side; None where a side
    is empty.

    Args:
        located: of each wrong solution, whether its first error was found.
        passed: of each right one, whether no error was reported.
    """
    import numpy as np

    if not len(located) or not len(passed):
        return None
    rng = np.random.default_rng(0)
    sides = [np.array(side, float) for side in (located, passed)]
    a, b = (np.append(side.mean(), bootstrap_shares(rng, len(side)) @ side) for side in sides)
    value, *draws = 2 * a * b / np.maximum(a + b, 1e-12)
    return [float(value), *map(float, np.quantile(draws, [0.025, 0.975]))]


def bootstrap_shares(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return the shares of `count` things in each bootstrap draw, (RESAMPLES, count)."""
    import numpy as np

    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
