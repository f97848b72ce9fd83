"""Claims: what the study set out to test, and what its finished runs say of it.

`rules` holds the claims, one decorated function each from a profile to the comparisons that decide
it; `contrasts` and `forgetting` are the kinds of comparison, `verdicts` judges all by one rule,
keeps the history and writes the page; `staged` measures the comparisons by `hybridlib.trials`, for
planning. Import the names below from here, and `rules`, `verdicts` and `staged` as modules; the
others are not for other wings. To add a claim, decorate a function in `rules`. The intervals are
ours because no library has the bootstrap that crosses seeds with items (`stats.contrast`) and
Satterthwaite's degrees of freedom for so few seeds.
"""

from hybridlib.claims.contrasts import (
    Arm,
    Contrast,
    Effect,
    Evidence,
    arm,
    arm_after,
    arm_by_seed,
    difference,
)
from hybridlib.claims.forgetting import forgotten
from hybridlib.claims.registry import CLAIMS
from hybridlib.claims.verdicts import LEVEL, Judgement, beyond_margins, ledger

__all__ = [
    "CLAIMS",
    "LEVEL",
    "Arm",
    "Contrast",
    "Effect",
    "Evidence",
    "Judgement",
    "arm",
    "arm_after",
    "arm_by_seed",
    "beyond_margins",
    "difference",
    "forgotten",
    "ledger",
]
