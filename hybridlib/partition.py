"""Which rows are trained on, and which of them feed SFT and which RL?

A rule of RULES or SELECTIONS gives every row a score, `fn(rows, passrate, seed) -> list[float]`.
A partition sends the rows with the lowest scores to SFT, half of them unless told otherwise, so
that arms are compared at equal sizes; a selection keeps the rows with the highest, equally many
of each family, never one that scores NaN. Where a rule leaves rows equal, a seeded shuffle decides.
Disjoint halves matter by themselves: RL on rows that SFT has seen gains little (arXiv:2604.13515),
so `random` is the control that every other rule has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hybridlib import StudyError
from hybridlib.registry import Registry

if TYPE_CHECKING:
    from datasets import Dataset

RULES = Registry("partition rule")
SELECTIONS = Registry("selection rule")
BUCKETS = {"zero": (0.0, 0.0), "low": (0.0, 0.25), "middle": (0.25, 0.75), "high": (0.75, 1.0)}
"""Pass rates of the base: above the first number (zero: exactly it) and up to the second."""


class Split(NamedTuple):
    """The rows of the two stages, each in the order of the source."""

    sft: Dataset
    rl: Dataset


def split(
    rows: Dataset,
    rule: str,
    seed: int = 0,
    passrate: Sequence[float] | None = None,
    share: float = 0.5,
    overlap: float = 0.0,
) -> Split:
    """Which rows train SFT and which train RL under this rule?

    Args:
        passrate: share of right samples of the base per row, in 0..1 (`difficulty`); needed by
            the rules that have `needs_passrate`.
        share: of the rows that go to SFT, rounded down.
        overlap: share of RL's rows that are exchanged for rows of SFT, as far as these go.
    Same arguments, same parts; the rows of a smaller overlap are among those of a larger one.
    """
    if rule == "all":
        return Split(rows, rows)
    order = _order(rows, RULES[rule], rule, seed, passrate)
    cut = int(share * len(rows))
    seen = order[: min(cut, round(overlap * (len(rows) - cut)))]
    parts = order[:cut], seen + order[cut + len(seen) :]
    return Split(*(rows.select(sorted(part)) for part in parts))


def select(
    rows: Dataset, rule: str, n: int, seed: int = 0, passrate: Sequence[float] | None = None
) -> list[int]:
    """Which n rows of each family does a selection keep? Their positions, in order.

    Raises StudyError where a family has fewer rows that the rule may keep.
    """
    order = _order(rows, SELECTIONS[rule], rule, seed, passrate)
    kept: list[int] = []
    for family in dict.fromkeys(rows["family"]):
        own = [index for index in reversed(order) if rows[index]["family"] == family]
        if len(own) < n:
            raise StudyError(f"{rule} finds {len(own)} rows of {family}; n_train asks for {n}")
        kept += own[:n]
    return sorted(kept)


def bucket(passrate: float) -> str:
    """The name of the BUCKETS that a pass rate in 0..1 falls into."""
    return next(name for name, (_, top) in BUCKETS.items() if passrate <= top)


def needs_passrate(rule: Callable) -> Callable:
    """Mark a rule that cannot decide without the pass rate of the base."""
    rule.needs_passrate = True
    return rule


def _order(
    rows: Dataset, rule: Callable, name: str, seed: int, passrate: Sequence[float] | None
) -> list[int]:
    """Positions of the rows from the lowest score to the highest, without those that score NaN."""
    import numpy as np

    if passrate is None and getattr(rule, "needs_passrate", False):
        raise StudyError(f"rule {name!r} needs pass rates of the base; run difficulty")
    if passrate is not None and len(passrate) != len(rows):
        raise StudyError(
            f"{len(passrate)} pass rates for {len(rows)} rows; rerun difficulty on these rows"
        )
    scores = np.asarray(rule(rows, passrate, seed), float)
    shuffle = np.random.default_rng(seed).permutation(len(scores))
    order = np.lexsort((shuffle, scores))
    return [int(index) for index in order if not np.isnan(scores[index])]


# ---------------------------------------------------------------- partitions: low scores imitate


@RULES.register
def all(rows, passrate, seed) -> list[float]:
    """Both stages get every row: full overlap, twice the rows per stage."""
    return [0.0] * len(rows)


@RULES.register
def random(rows, passrate, seed) -> list[float]:
    """Parts at random: the control."""
    return [0.0] * len(rows)


@RULES.register
def level(rows, passrate, seed) -> list[float]:
    """The high levels learn by imitation: difficulty as the benchmark states it.

    Levels of different families are not on one scale, so each row is ranked among its family.
    """
    import pandas as pd

    frame = pd.DataFrame({"family": rows["family"], "level": rows["level"]})
    return list(-frame.groupby("family")["level"].rank(pct=True))


@RULES.register
@needs_passrate
def passrate(rows, passrate, seed) -> list[float]:
    """Rows that the base rarely solves learn by imitation: RL gets no signal from them.

    The split behind ReLIFT (Ma et al. 2025, arXiv:2506.07527).
    """
    return list(passrate)


@RULES.register
@needs_passrate
def family(rows, passrate, seed) -> list[float]:
    """Families that the base solves less often learn by imitation, the others by reward.

    Ordered by mean pass rate, so that the choice is not tied to one base; the family in the
    middle is cut at random to keep the parts at their sizes.
    """
    import pandas as pd

    frame = pd.DataFrame({"family": rows["family"], "passrate": passrate})
    return list(frame.groupby("family")["passrate"].transform("mean"))


@RULES.register
def length(rows, passrate, seed) -> list[float]:
    """Long solutions learn by imitation: the further the reward, the less it says per step."""
    return [-len(turns[-1]["content"]) for turns in rows["completion"]]


# ---------------------------------------------------------------- selections: high scores stay


def _inside(name: str, passrate: Sequence[float]) -> list[float]:
    return [0.0 if bucket(rate) == name else float("nan") for rate in passrate]


@SELECTIONS.register
def sample(rows, passrate, seed) -> list[float]:
    """Rows at random, others for each seed: the control of the other selections."""
    return [0.0] * len(rows)


@SELECTIONS.register
@needs_passrate
def zero(rows, passrate, seed) -> list[float]:
    """Rows that no sample of the base solves."""
    return _inside("zero", passrate)


@SELECTIONS.register
@needs_passrate
def low(rows, passrate, seed) -> list[float]:
    """Rows that the base solves, but at most one time in four."""
    return _inside("low", passrate)


@SELECTIONS.register
@needs_passrate
def middle(rows, passrate, seed) -> list[float]:
    """Rows that the base solves between one and three times in four."""
    return _inside("middle", passrate)


@SELECTIONS.register
@needs_passrate
def high(rows, passrate, seed) -> list[float]:
    """Rows that the base solves more than three times in four."""
    return _inside("high", passrate)


@SELECTIONS.register
@needs_passrate
def window(rows, passrate, seed) -> list[float]:
    """Rows whose pass rate is nearest to one half, where a group's rewards vary most.

    The window of DAPO's dynamic sampling (Yu et al. 2025, arXiv:2503.14476), drawn beforehand.
    """
    return [rate * (1 - rate) for rate in passrate]
