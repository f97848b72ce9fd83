"""How sure is a share? Intervals of proportions, pass@k, and how well a score tells two groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybridlib import StudyError

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2_000


def pass_at_k(n, correct, k: int) -> np.ndarray:
    """How likely is it that at least one of `k` answers is right? Unbiased, from `n` samples.

    1 - C(n - correct, k) / C(n, k), elementwise over arrays (Chen et al. 2021, arXiv:2107.03374).
    Needs 1 <= k <= n. Choosing the first k samples instead would be noisier; 1 - (1 - c/n)^k is
    biased low.
    """
    import numpy as np

    n, correct = np.broadcast_arrays(np.asarray(n, float), np.asarray(correct, float))
    if k < 1 or (n < k).any():
        raise StudyError(f"pass@{k} needs 1 <= k <= samples, and there are {n.min():.0f} samples")
    all_wrong = np.ones_like(n)
    for drawn in range(k):
        all_wrong = all_wrong * np.clip(n - correct - drawn, 0, None) / (n - drawn)
    return 1 - all_wrong


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Between which shares does the true one lie, at 95 %? (0, 1) for n = 0.

    The score interval of Wilson (1927): unlike the bootstrap it stays honest when no item, or
    every item, is right.
    """
    if n == 0:
        return 0.0, 1.0
    z, share = 1.959963984540054, successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return max(0.0, centre - half) if share else 0.0, min(1.0, centre + half) if share < 1 else 1.0


def share(flags: Sequence[bool]) -> list[float] | None:
    """Which share is true, as [estimate, low, high] with Wilson's interval? None without any."""
    return [sum(flags) / len(flags), *wilson(sum(flags), len(flags))] if flags else None


def auc(positive: Sequence[float], negative: Sequence[float]) -> list[float] | None:
    """How often does a positive score higher than a negative, a tie counting half? With 95 %.

    The area under the ROC curve (Hanley & McNeil 1982) as [estimate, low, high], by a bootstrap of
    each side; None where a side is empty.
    """
    import numpy as np

    yes, no, rng = np.array(positive, float), np.array(negative, float), np.random.default_rng(0)
    if not yes.size or not no.size:
        return None
    wins = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
    draws = ((drawn(rng, len(yes)) @ wins) * drawn(rng, len(no))).sum(1)
    low, high = np.quantile(draws.clip(0, 1), [0.025, 0.975])
    return [float(wins.mean()), float(low), float(high)]


def f1(found: Sequence[bool], passed: Sequence[bool]) -> list[float] | None:
    """The harmonic mean of two shares as [estimate, low, high], 95 % by a bootstrap of each.

    None where a side is empty. ProcessBench's measure (Zheng et al. 2024): `found` says of each
    wrong solution whether its first error was found, `passed` of each right one that none was.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    if not len(found) or not len(passed):
        return None
    sides = [np.array(side, float) for side in (found, passed)]
    a, b = (np.append(side.mean(), drawn(rng, len(side)) @ side) for side in sides)
    value, *draws = 2 * a * b / np.maximum(a + b, 1e-12)
    return [float(value), *map(float, np.quantile(draws, [0.025, 0.975]))]


def drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """Shares of n things in each bootstrap draw, (RESAMPLES, n)."""
    import numpy as np

    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
