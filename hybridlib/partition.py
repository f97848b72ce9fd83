"""Which rows are trained on, and which of them feed SFT and which RL?

A rule of RULES or SELECTIONS gives every row a score: `rule(rows, pass_rates, seed)` returns a list
of floats. A partition sends the rows with the lowest scores to SFT, half of them unless told
otherwise, so that arms are compared at equal sizes; a selection takes the rows with the highest,
equally many of each family, never one that scores NaN. Where a rule leaves rows equal, a seeded
shuffle decides.
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

PassRates = Sequence[float]
"""Share of the base's samples that are right, in 0..1, one per row; `difficulty` measures it."""

RULES = Registry("partition rule", optional=("needs_passrate",))
SELECTIONS = Registry("selection rule", optional=("needs_passrate",))
BUCKETS = {"zero": (0.0, 0.0), "low": (0.0, 0.25), "middle": (0.25, 0.75), "high": (0.75, 1.0)}
"""Pass rates of the base: above the first number (zero: exactly it) and up to the second."""


class Partition(NamedTuple):
    """The rows of the two stages, each in the order of the source."""

    sft: Dataset
    rl: Dataset


def split(
    rows: Dataset,
    rule: str,
    seed: int = 0,
    pass_rates: PassRates | None = None,
    share: float = 0.5,
    overlap: float = 0.0,
) -> Partition:
    """Divide rows between SFT and RL.

    The same arguments give the same parts, and the rows that a smaller overlap shares are among
    those that a larger one shares.

    Args:
        rule: one of RULES.
        pass_rates: needed by the rules that state `needs_passrate`.
        share: of the rows that go to SFT, rounded down.
        overlap: share of RL's rows that are exchanged for rows of SFT, as far as these go.

    Raises:
        StudyError: there is no such rule, or the pass rates that it needs are missing or of other
            rows.
    """
    if rule == "all":
        return Partition(rows, rows)
    order = _by_score(rows, RULES[rule], seed, pass_rates)
    cut = int(share * len(rows))
    sft = order[:cut]
    shared = sft[: round(overlap * (len(rows) - cut))]
    rl = shared + order[cut + len(shared) :]
    return Partition(rows.select(sorted(sft)), rows.select(sorted(rl)))


def select(
    rows: Dataset,
    rule: str,
    per_family: int,
    seed: int = 0,
    pass_rates: PassRates | None = None,
) -> list[int]:
    """Choose equally many rows of each family and return their positions, in order.

    Args:
        rule: one of SELECTIONS.
        per_family: how many rows of each family.
        pass_rates: needed by the rules that state `needs_passrate`.

    Raises:
        StudyError: as in `split`, or a family has fewer rows that the rule may take.
    """
    best_first = _by_score(rows, SELECTIONS[rule], seed, pass_rates)[::-1]
    families = list(rows["family"])
    chosen: list[int] = []
    for name in dict.fromkeys(families):
        candidates = [index for index in best_first if families[index] == name]
        if len(candidates) < per_family:
            raise StudyError(
                f"{rule} finds {len(candidates)} rows of {name}; n_train asks for {per_family}"
            )
        chosen += candidates[:per_family]
    return sorted(chosen)


def bucket(pass_rate: float) -> str:
    """Return the name of the BUCKETS that a pass rate in 0..1 falls into."""
    return next(name for name, (_, top) in BUCKETS.items() if pass_rate <= top)


def _by_score(rows: Dataset, rule: Callable, seed: int, pass_rates: PassRates | None) -> list[int]:
    """Return the positions of the rows whose score is not NaN, the lowest score first."""
    import numpy as np

    if getattr(rule, "needs_passrate", False) and pass_rates is None:
        raise StudyError(f"partition {rule.__name__} needs pass rates of the base; run difficulty")
    if pass_rates is not None and len(pass_rates) != len(rows):
        raise StudyError(
            f"{len(pass_rates)} pass rates for {len(rows)} rows; rerun difficulty on these rows"
        )
    scores = np.asarray(rule(rows, pass_rates, seed), float)
    if scores.shape != (len(rows),):
        raise StudyError(
            f"rule {rule.__name__} gives {scores.size} scores for {len(rows)} rows; give one each"
        )
    shuffle = np.random.default_rng(seed).permutation(len(scores))
    order = np.lexsort((shuffle, scores))
    return [int(index) for index in order if not np.isnan(scores[index])]


# ---------------------------------------------------------------- partitions: low scores imitate


@RULES.register(name="all")
def all_rows(rows: Dataset, pass_rates: PassRates | None, seed: int) -> list[float]:
    """Both stages get every row: full overlap, twice the rows per stage."""
    return [0.0] * len(rows)


@RULES.register(name="random")
def random_halves(rows: Dataset, pass_rates: PassRates | None, seed: int) -> list[float]:
    """Parts at random: the control."""
    return [0.0] * len(rows)


@RULES.register(name="level")
def by_level(rows: Dataset, pass_rates: PassRates | None, seed: int) -> list[float]:
    """The high levels learn by imitation: difficulty as the benchmark states it.

    Levels of different families are not on one scale, so each row is ranked among its family.
    """
    import pandas as pd

    frame = pd.DataFrame({"family": rows["family"], "level": rows["level"]})
    return list(-frame.groupby("family")["level"].rank(pct=True))


@RULES.register(name="passrate", needs_passrate=True)
def by_pass_rate(rows: Dataset, pass_rates: PassRates, seed: int) -> list[float]:
    """Rows that the base rarely solves learn by imitation: RL gets no signal from them.

    The split behind ReLIFT (Ma et al. 2025, arXiv:2506.07527).
    """
    return list(pass_rates)


@RULES.register(name="family", needs_passrate=True)
def by_family(rows: Dataset, pass_rates: PassRates, seed: int) -> list[float]:
    """Families that the base solves less often learn by imitation, the others by reward.

    Ordered by mean pass rate, so that the choice is not tied to one base; the family in the
    middle is cut at random to keep the parts at their sizes.
    """
    import pandas as pd

    frame = pd.DataFrame({"family": rows["family"], "pass_rate": pass_rates})
    return list(frame.groupby("family")["pass_rate"].transform("mean"))


@RULES.register(name="length")
def by_length(rows: Dataset, pass_rates: PassRates | None, seed: int) -> list[float]:
    """Long solutions learn by imitation: the further the reward, the less it says per step."""
    return [-len(turns[-1]["content"]) for turns in rows["completion"]]


# ---------------------------------------------------------------- selections: high scores stay


def _only(bucket_name: str, pass_rates: PassRates) -> list[float]:
    """Return equal scores for the rows of a bucket and NaN for all others."""
    return [0.0 if bucket(rate) == bucket_name else float("nan") for rate in pass_rates]


@SELECTIONS.register(name="sample")
def random_rows(rows: Dataset, pass_rates: PassRates | None, seed: int) -> list[float]:
    """Rows at random, others for each seed: the control of the other selections."""
    return [0.0] * len(rows)


@SELECTIONS.register(needs_passrate=True)
def zero(rows: Dataset, pass_rates: PassRates, seed: int) -> list[float]:
    """Rows that no sample of the base solves."""
    return _only("zero", pass_rates)


@SELECTIONS.register(needs_passrate=True)
def low(rows: Dataset, pass_rates: PassRates, seed: int) -> list[float]:
    """Rows that the base solves, but at most one time in four."""
    return _only("low", pass_rates)


@SELECTIONS.register(needs_passrate=True)
def middle(rows: Dataset, pass_rates: PassRates, seed: int) -> list[float]:
    """Rows that the base solves between one and three times in four."""
    return _only("middle", pass_rates)


@SELECTIONS.register(needs_passrate=True)
def high(rows: Dataset, pass_rates: PassRates, seed: int) -> list[float]:
    """Rows that the base solves more than three times in four."""
    return _only("high", pass_rates)


@SELECTIONS.register(needs_passrate=True)
def window(rows: Dataset, pass_rates: PassRates, seed: int) -> list[float]:
    """Rows whose pass rate is nearest to one half, where a group's rewards vary most.

    The window of DAPO's dynamic sampling (Yu et al. 2025, arXiv:2503.14476), drawn beforehand.
    """
    return [rate * (1 - rate) for rate in pass_rates]
