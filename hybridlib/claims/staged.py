"""What do finished runs say of the variance of contrasts? Registered comparisons, measured anew.

For planning: `trials` with the parts of the error that the present records show. No verdict here;
those of the registered claims are `verdicts`'.
"""

from __future__ import annotations

from hybridlib.claims.contrasts import Contrast, Evidence
from hybridlib.claims.registry import CLAIMS
from hybridlib.methods import METHODS
from hybridlib.runs import Run
from hybridlib.trials.crossed import Estimate
from hybridlib.trials.scores import Scores, blocks


def measure(contrast: Contrast, scores: Scores) -> Estimate:
    """Return the estimate of a contrast; arms that share runs are compared seed by seed."""
    arms = [arm for _, arm in contrast.terms]
    prerequisites = {run.id: run.prerequisites for run in contrast.runs}
    shared = blocks([[run.id for run in arm.runs] for arm in arms], prerequisites)
    terms = []
    for (weight, arm), block in zip(contrast.terms, shared, strict=True):
        ids = [run.id for run in arm.runs]
        fixed = arm.runs == (Run("base"),)
        terms.append(scores.term(weight, ids, arm.split, arm.bucket, block, fixed))
    return scores.estimate(terms)


def registered(evidence: Evidence, metric: str) -> dict[tuple[str, str], Estimate]:
    """Return the estimates of all registered contrasts whose runs have finished.

    Keys are the claim's code and the label of the comparison.
    """
    scores = Scores(evidence.items, metric)
    return {
        (claim.code, comparison.what): measure(comparison, scores)
        for claim in CLAIMS.values()
        for comparison in claim(evidence.profile)
        if isinstance(comparison, Contrast) and not evidence.missing(comparison.runs)
    }


def of_two_arms(evidence: Evidence, metric: str) -> dict[tuple[str, str], Estimate]:
    """Return those of `registered` that compare two trained arms on the whole test split.

    They are what most claims consist of; their parts make the plan of the next study. Arms that are
    one adapter, modified, differ by too little to plan by.
    """
    wanted = {
        (claim.code, comparison.what)
        for claim in CLAIMS.values()
        for comparison in claim(evidence.profile)
        if isinstance(comparison, Contrast)
        and len(comparison.terms) == 2
        and not any(arm.bucket or arm.split != "test" for _, arm in comparison.terms)
        and not any(METHODS[run.method].needs == ("start",) for run in comparison.runs)
    }
    found = registered(evidence, metric)
    return {key: one for key, one in found.items() if key in wanted}
