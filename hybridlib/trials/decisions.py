"""What follows for a claim? Four verdicts from effects whose margins were fixed in advance.

*Supported*: every effect lies above its margin. *Refuted*: one lies below. *No difference that
matters*: every effect lies within its region of practical equivalence. *Undecided*: none of these
at the level that Holm's procedure leaves the claim. What lies within the region is called so even
where the interval is so short that it leaves out the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybridlib import StudyError
from hybridlib.crossed import LEVEL, Estimate
from hybridlib.trials.stages import DESIGN, Design, beyond, repeated_interval

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
SAME = "no difference that matters"


@dataclass(frozen=True)
class Primary:
    """One effect that a claim rests on, as far as it has been measured.

    stages: its estimates, one per stage, from the first.
    margin: what the claim says that it lies above.
    region: what it must stay below, to both sides of 0, in order not to matter.
    """

    what: str
    stages: tuple[Estimate, ...]
    margin: float
    region: float

    def __post_init__(self) -> None:
        if not self.region > 0:
            raise StudyError(f"{self.what}: the region of equivalence must have a width")

    def interval(self, level: float = LEVEL, design: Design = DESIGN) -> tuple[float, float]:
        """Return its repeated confidence interval."""
        return repeated_interval(self.stages, level, design)


@dataclass(frozen=True)
class Levels:
    """The smallest level at which each verdict on a claim would be reached; 1 for never."""

    supported: float
    refuted: float
    same: float

    @property
    def smallest(self) -> float:
        """The p value of the claim: the smallest level that decides it in any way."""
        return min(self.supported, self.refuted, self.same)

    def verdict(self, level: float) -> str:
        """Return the verdict at a level."""
        reached = {SAME: self.same, SUPPORTED: self.supported, REFUTED: self.refuted}
        return next((name for name, p in reached.items() if p < 1 and p <= level), UNDECIDED)


def levels(effects: Sequence[Primary], design: Design = DESIGN) -> Levels:
    """Return the levels at which the effects of a claim decide it.

    That all effects lie above their margins needs each test to succeed at the full level, and
    nothing for their number: an intersection-union test (Berger 1982, doi:10.2307/1267823). So
    does equivalence, which is two one-sided tests of each effect (Schuirmann 1987,
    doi:10.1007/BF01068419), here both within the two-sided level, as the interval has it. That one
    of them lies below its margin is a union, and pays for their number (Bonferroni).

    Every verdict follows from intervals that cover the truth at once; so at level .05 a claim with
    one effect gets a wrong verdict, of whichever kind, with probability .05 at most.
    """
    if not effects or not all(one.stages for one in effects):
        return Levels(1.0, 1.0, 1.0)
    above = max(beyond(one.stages, one.margin, 1, design) for one in effects)
    below = min(beyond(one.stages, one.margin, -1, design) for one in effects)
    same = max(
        beyond(one.stages, side * one.region, -side, design) for one in effects for side in (1, -1)
    )
    return Levels(above, min(1.0, len(effects) * below), same)


def equivalence(effects: Sequence[Primary], design: Design = DESIGN) -> Levels:
    """Return the levels for a claim that there is no difference, which is never *supported*.

    *No difference that matters* is what it says; *refuted* is an effect beyond its region, to
    whichever side: a union, which pays for the effects' number, but not for the sides, since one
    interval has both.
    """
    same = levels(effects, design).same
    outside = [
        beyond(one.stages, side * one.region, side, design) for one in effects for side in (1, -1)
    ]
    return Levels(1.0, min([1.0, *(len(effects) * p for p in outside)]), same)


def verdicts(claims: Sequence[Levels], level: float = LEVEL) -> list[str]:
    """Return the verdict on each claim, corrected for the number of claims by Holm (1979).

    A claim with nothing measured enters with p = 1, so that no verdict weakens when other runs
    finish. The claims' p values are ordered; the smallest is tested at level / n, the next at
    level / (n - 1), until one fails. Verdicts have directions: that none of them is wrong is proven
    for independent claims (Shaffer 1980, doi:10.1214/aos/1176345203).
    """
    given = [UNDECIDED] * len(claims)
    order = sorted(range(len(claims)), key=lambda index: claims[index].smallest)
    for rank, index in enumerate(order):
        allowed = level / (len(claims) - rank)
        given[index] = claims[index].verdict(allowed)
        if given[index] == UNDECIDED:
            break
    return given
