"""Merging LoRA adapters on their dense deltas, and the geometry of weight updates.

Public are the names below, which read, merge and write saved adapters, and two modules: `geometry`
compares updates with each other and with their base, `interference` measures two adapters in one
model. The arithmetic of `merge` and the single merge methods in `operators` may not be imported
from outside, except through OPERATORS. It is our own code because PEFT's merges combine the factors
A and B separately, which is wrong by about 100 % for two random rank-8 adapters, and because no
library scores an update against its null distribution.
"""

from hybridlib.merging.merge import (
    check_mergeable,
    combine,
    concatenate,
    deltas,
    rewrite,
    weights,
)
from hybridlib.merging.operators import OPERATORS

__all__ = [
    "OPERATORS",
    "check_mergeable",
    "combine",
    "concatenate",
    "deltas",
    "rewrite",
    "weights",
]
