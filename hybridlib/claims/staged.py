"""What do finished runs say of the variance of contrasts? Registered comparisons, measured anew.

For planning: `trials` with the parts of the error that the present records show. No verdict here;
those of the registered claims are `verdicts`'.
"""

from __future__ import annotations

from dataclasses import replace

from hybridlib.claims.contrasts import Arm, Contrast, Evidence
from hybridlib.claims.registry import CLAIMS
from hybridlib.methods import METHODS
from hybridlib.trials.crossed import Estimate
from hybridlib.trials.scores import Scores, blocks
from hybridlib.trials.stages import DESIGN, Design


def measure(contrast: Contrast, scores: Scores) -> Estimate:
    """Return the estimate of a contrast; arms that share runs are compared seed by seed."""
    arms = [arm for _, arm in contrast.terms]
    prerequisites = {run.id: run.prerequisites for run in contrast.runs}
    shared = blocks([[run.id for run in arm.runs] for arm in arms], prerequisites)
    terms = []
    for (weight, arm), block in zip(contrast.terms, shared, strict=True):
        ids = [run.id for run in arm.runs]
        fixed = _is_base(arm)
        terms.append(scores.term(weight, ids, arm.split, arm.bucket, block, fixed))
    return scores.estimate(terms)


def stages(
    contrast: Contrast, evidence: Evidence, scores: Scores, design: Design = DESIGN
) -> tuple[Estimate, ...]:
    """Return the estimates of a contrast at the stages whose runs have all finished, in order.

    A stage reads the first runs of each arm, as many as it has seeds; the base is one run always.
    """
    found: list[Estimate] = []
    for seeds in design.seeds:
        if any(len(arm.runs) < seeds and not _is_base(arm) for _, arm in contrast.terms):
            break
        terms = [(weight, replace(arm, runs=arm.runs[:seeds])) for weight, arm in contrast.terms]
        part = replace(contrast, terms=tuple(terms))
        if evidence.missing(part.runs):
            break
        found.append(measure(part, scores))
    return tuple(found)


def _is_base(arm: Arm) -> bool:
    return len(arm.runs) == 1 and arm.runs[0].method == "base"


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
