"""Claims: what the study set out to test, and what its finished runs say of it.

`rules` holds the claims, one decorated function each from a profile to the effects that decide it;
`contrasts` and `forgetting` are the kinds of comparison, `verdicts` judges all by the rule of
`hybridlib.trials`, says which runs an undecided claim needs next, and keeps the history; `power`
says beforehand what will be found, `page` writes it all down. Import the names below from here, and
`rules`, `verdicts`, `page` and `power` as modules; the others are not for other wings. To add a
claim, decorate a function in `rules`.
"""

from hybridlib.claims.contrasts import (
    BASE,
    Arm,
    Contrast,
    Effects,
    Evidence,
    arm,
    arm_after,
    arm_by_seed,
    at_hand,
    difference,
)
from hybridlib.claims.forgetting import forgotten
from hybridlib.claims.registry import CLAIMS
from hybridlib.claims.verdicts import (
    Effect,
    Judgement,
    beyond_margins,
    in_words,
    ledger,
    runs_to_come,
)

__all__ = [
    "BASE",
    "CLAIMS",
    "Arm",
    "Contrast",
    "Effect",
    "Effects",
    "Evidence",
    "Judgement",
    "arm",
    "arm_after",
    "arm_by_seed",
    "at_hand",
    "beyond_margins",
    "difference",
    "forgotten",
    "in_words",
    "ledger",
    "runs_to_come",
]
