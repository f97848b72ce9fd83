"""Trials: how to judge a comparison of arms whose seeds come in stages, and how to plan it.

`hybridlib.crossed` estimates a contrast over seeds and items, `scores` cuts its terms from records,
`stages` says when a study may stop, `decisions` turns effects into verdicts, `planning` says what
all this will find, `worlds` simulates studies to check the others by. `claims` judges by them.
"""

from hybridlib.crossed import LEVEL, Estimate, Parts, Term, blocks, estimate
from hybridlib.trials.decisions import Levels, Primary, equivalence, levels, verdicts
from hybridlib.trials.planning import Plan, seeds_needed, smallest_found, stage_power
from hybridlib.trials.scores import Scores
from hybridlib.trials.stages import DESIGN, Design, repeated_interval, repeated_p

__all__ = [
    "DESIGN",
    "LEVEL",
    "Design",
    "Estimate",
    "Levels",
    "Parts",
    "Plan",
    "Primary",
    "Scores",
    "Term",
    "blocks",
    "equivalence",
    "estimate",
    "levels",
    "repeated_interval",
    "repeated_p",
    "seeds_needed",
    "smallest_found",
    "stage_power",
    "verdicts",
]
