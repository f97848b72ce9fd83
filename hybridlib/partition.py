"""Which rows feed SFT and which feed RL?

A rule marks the rows that go to SFT. All rules but `all` mark half of the rows, so that arms are
compared at equal sizes; where a rule leaves rows equal, a seeded shuffle decides.
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


class Split(NamedTuple):
    """The rows of the two stages, each in the order of the source."""

    sft: Dataset
    rl: Dataset


def split(
    rows: Dataset, rule: str, seed: int = 0, passrate: Sequence[float] | None = None
) -> Split:
    """Which rows train SFT and which train RL under this rule?

    `passrate`: share of right samples of the base per row, in 0..1 (`difficulty`); needed by
    the rules that have `needs_passrate`. Same arguments, same halves.
    """
    decide = RULES[rule]
    if passrate is None and getattr(decide, "needs_passrate", False):
        raise StudyError(f"partition rule {rule!r} needs pass rates of the base; run difficulty")
    if passrate is not None and len(passrate) != len(rows):
        raise StudyError(
            f"{len(passrate)} pass rates for {len(rows)} rows; rerun difficulty on these rows"
        )
    to_sft = decide(rows, passrate, seed)
    if rule == "all":
        return Split(rows, rows)
    return Split(
        rows.select([index for index, chosen in enumerate(to_sft) if chosen]),
        rows.select([index for index, chosen in enumerate(to_sft) if not chosen]),
    )


def needs_passrate(rule: Callable) -> Callable:
    """Mark a rule that cannot decide without the pass rate of the base."""
    rule.needs_passrate = True
    return rule


def _lower_half(scores: Sequence[float], seed: int) -> list[bool]:
    """True for the n // 2 lowest scores; equal scores are ordered by a seeded shuffle."""
    import numpy as np

    shuffle = np.random.default_rng(seed).permutation(len(scores))
    order = np.lexsort((shuffle, np.asarray(scores, float)))
    chosen = np.zeros(len(scores), bool)
    chosen[order[: len(scores) // 2]] = True
    return chosen.tolist()


@RULES.register
def all(rows, passrate, seed) -> list[bool]:
    """Both stages get every row: full overlap, twice the rows per stage."""
    return [True] * len(rows)


@RULES.register
def random(rows, passrate, seed) -> list[bool]:
    """Half of the rows at random: the control."""
    return _lower_half([0.0] * len(rows), seed)


@RULES.register
def level(rows, passrate, seed) -> list[bool]:
    """The levels above the median learn by imitation: difficulty as the benchmark states it.

    Levels of different families are not on one scale, so each row is ranked among its family.
    """
    import pandas as pd

    frame = pd.DataFrame({"family": rows["family"], "level": rows["level"]})
    return _lower_half(-frame.groupby("family")["level"].rank(pct=True), seed)


@RULES.register
@needs_passrate
def passrate(rows, passrate, seed) -> list[bool]:
    """Rows that the base rarely solves learn by imitation: RL gets no signal from them.

    The split behind ReLIFT (Ma et al. 2025, arXiv:2506.07527).
    """
    return _lower_half(passrate, seed)


@RULES.register
@needs_passrate
def family(rows, passrate, seed) -> list[bool]:
    """Families that the base solves less often learn by imitation, the others by reward.

    Ordered by mean pass rate, so that the choice is not tied to one base; the family in the
    middle is cut at random to keep the halves equal.
    """
    import pandas as pd

    frame = pd.DataFrame({"family": rows["family"], "passrate": passrate})
    return _lower_half(frame.groupby("family")["passrate"].transform("mean"), seed)


@RULES.register
def length(rows, passrate, seed) -> list[bool]:
    """Long solutions learn by imitation: the further the reward, the less it says per step."""
    return _lower_half([-len(turns[-1]["content"]) for turns in rows["completion"]], seed)
