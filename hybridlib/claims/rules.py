"""Which claims are under test? Each states its rule before the runs that decide it.

A claim is one decorated function from a profile to its effects, which name the runs that they read
under all seeds that are planned; its docstring is the rule: which effects have to lie above which
margin, and what is too small to matter. `verdicts` does the rest, the same for all claims. What a
claim compares is written out here and never read from a registry, so that a later entry of one
belongs to no registered claim. Accuracies are of greedy decoding, as shares of one, and arms cost
equally many operations (`grids`), unless a rule says else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from hybridlib import StudyError
from hybridlib.claims.contrasts import (
    BASE,
    SEEDS,
    Arm,
    Contrast,
    Effects,
    SeedStatistic,
    arm,
    arm_after,
    arm_by_seed,
    difference,
)
from hybridlib.claims.forgetting import EqualDistance
from hybridlib.claims.registry import CLAIMS
from hybridlib.grids import (
    OTHER_MERGES,
    TRAIN_SIZES,
    adapter_pairs,
    divided_budget,
    divided_rows,
    halves,
    hybrid,
    lengths,
    modified,
    of_bucket,
    of_length,
    of_size,
    on_few_rows,
    second,
    seeded,
    seen_rows,
    stacked,
    steps_at_equal_visits,
)
from hybridlib.profiles import Profile
from hybridlib.runs import Run

DATED = "2026-11-27"
SIZES = ("tiny-full", "middle-full", "large-full")
"""The profiles of the three sizes of base. The first has all claims, the others those of CORE."""
BUCKETS = ("zero", "low", "middle", "high")
TENTH = 0.1
METRICS = ("greedy", "sampled")
"""Co-primary where their signs could differ."""

SFT, GRPO = Run("sft"), Run("grpo")


def _slope(
    what: str, places: Sequence[float], one: Sequence[Arm], other: Sequence[Arm], region: float
) -> Contrast:
    """Return the slope of the accuracy of arms over their places, less that of other arms."""
    centre = fmean(places)
    spread = sum((place - centre) ** 2 for place in places)
    weights = [(place - centre) / spread for place in places]
    rising = tuple(zip(weights, one, strict=True))
    falling = tuple((-weight, arm) for weight, arm in zip(weights, other, strict=True))
    return Contrast(what, (*rising, *falling), region=region)


# ---------------------------------------------------------------- which rows for which method


@CLAIMS.register(
    code="C1",
    grid="flip",
    chapter="04b_flip",
    figure="04b-effects-figure",
    dated=DATED,
    source="arXiv:2506.07527",
    says="The more often the base solves the rows, the better they are for RL and not for SFT.",
)
def the_flip(profile: Profile) -> Effects:
    """SFT and GRPO train on rows of one bucket of pass rates (zero, low, middle, high; equally many
    rows of each), each for its own number of steps, and answer the whole test split: what who has
    such rows gets. Over the buckets, one step apart, the slope of GRPO lies above that of SFT; less
    than .01 per step does not matter. Beside it: the same on the test rows of the bucket itself,
    and with SFT at as many visits of rows as GRPO has prompts, and at as many sequences."""
    places = (-1.5, -0.5, 0.5, 1.5)

    def trained(method: str, steps: int = 0, at_home: bool = False) -> list[Arm]:
        return [
            arm(of_bucket(method, name, steps), bucket=name if at_home else "") for name in BUCKETS
        ]

    def gap(what: str, sft: list[Arm], grpo: list[Arm]) -> Contrast:
        return _slope(what, places, grpo, sft, region=0.01)

    grpo = trained("grpo")
    visits, sequences = (trained("sft", run.steps) for run in lengths(profile))
    name = "slope of GRPO - slope of SFT, per bucket"
    at_home = [trained(method, at_home=True) for method in ("sft", "grpo")]
    return Effects(
        (gap(name, trained("sft"), grpo),),
        (
            gap(f"{name}, on its own test rows", *at_home),
            gap(f"{name}, equal visits", visits, grpo),
            gap(f"{name}, equal sequences", sequences, grpo),
        ),
    )


@CLAIMS.register(
    code="C4a",
    grid="scale",
    chapter="04b_flip",
    figure="04b-claims-figure",
    dated=DATED,
    source="the seed of this study",
    says="SFT gains more from each doubling of distinct rows than RL does.",
)
def more_rows(profile: Profile) -> Effects:
    """Over 16, 64, 256 and 1,024 distinct rows of each family, the slope of SFT per doubling lies
    above that of GRPO, each for its own number of steps; less than .01 per doubling does not
    matter. Beside it: the same with SFT at equal visits of rows, and at equal sequences."""
    doublings = [math.log2(size) for size in TRAIN_SIZES]

    def trained(method: str, steps: int = 0) -> list[Arm]:
        return [arm(of_size(profile, method, size, steps=steps)) for size in TRAIN_SIZES]

    def gap(what: str, sft: list[Arm]) -> Contrast:
        return _slope(what, doublings, sft, trained("grpo"), region=0.01)

    visits, sequences = (trained("sft", run.steps) for run in lengths(profile))
    name = "slope of SFT - slope of GRPO, per doubling"
    return Effects(
        (gap(name, trained("sft")),),
        (gap(f"{name}, equal visits", visits), gap(f"{name}, equal sequences", sequences)),
    )


@CLAIMS.register(
    code="C4b",
    grid="scale",
    chapter="04b_flip",
    figure="04b-claims-figure",
    dated=DATED,
    source="the seed of this study",
    says="RL gains from the structure of its reward.",
)
def richer_reward(profile: Profile) -> Effects:
    """On 64 rows of each family, GRPO paid for answers and steps lies above GRPO paid for answers
    alone; less than .02 does not matter."""
    steps, answers = arm(on_few_rows("correct", "arithmetic")), arm(on_few_rows("correct"))
    return Effects((difference("answers and steps - answers", steps, answers),))


# ---------------------------------------------------------------- both methods, at equal operations


@CLAIMS.register(
    code="C2",
    grid="hybrids",
    chapter="05b_hybrids",
    figure="05b-effects-figure",
    dated=DATED,
    source="the seed of this study",
    says="Rows divided by pass rate, trained apart and merged, beat SFT, RL, and both in turn.",
    costs=True,
)
def divide_and_merge(profile: Profile) -> Effects:
    """The merge (ties) of the halves by pass rate lies above SFT, above GRPO, and above SFT then
    GRPO, decoded greedily and sampled: all six have to hold. The halves together, and SFT then
    GRPO, have the operations of GRPO alone; SFT alone has the steps after which it gains nothing.
    Less than .02 does not matter. Beside it: the same merge of random halves, and the mean and the
    norm-matched mean of the halves by pass rate, against SFT then GRPO."""
    merge = arm_by_seed(lambda seed: hybrid(profile, "passrate", seed))
    in_turn = arm_by_seed(lambda seed: stacked(profile, seed))
    coin = arm_by_seed(lambda seed: hybrid(profile, "random", seed))
    rivals = {"SFT": arm(SFT), "GRPO": arm(GRPO), "SFT, then GRPO": in_turn}
    others = [
        difference(
            f"hybrid by {how} - SFT, then GRPO",
            arm_by_seed(lambda seed, how=how: hybrid(profile, "passrate", seed, how)),
            in_turn,
        )
        for how in OTHER_MERGES
    ]
    return Effects(
        tuple(
            difference(f"hybrid - {name}", merge, rival, metric=metric)
            for metric in METRICS
            for name, rival in rivals.items()
        ),
        (difference("hybrid - random halves", merge, coin), *others),
    )


@CLAIMS.register(
    code="C14",
    grid="hybrids",
    chapter="05b_hybrids",
    figure="05b-effects-figure",
    dated=DATED,
    source="arXiv:2604.23747",
    says="SFT first and RL second beat either alone.",
    costs=True,
)
def sft_first(profile: Profile) -> Effects:
    """GRPO after SFT, both on all rows, lies above SFT and above GRPO, decoded greedily and
    sampled: all four have to hold. It has the operations of GRPO alone; SFT alone has the steps
    after which it gains nothing. Less than .02 does not matter. Beside it: SFT of twice its steps,
    less SFT."""
    in_turn = arm_by_seed(lambda seed: stacked(profile, seed))
    rivals = {"SFT": arm(SFT), "GRPO": arm(GRPO)}
    doubled = arm(replace(SFT, steps=2 * profile.sft["max_steps"]))
    return Effects(
        tuple(
            difference(f"SFT, then GRPO - {name}", in_turn, rival, metric=metric)
            for metric in METRICS
            for name, rival in rivals.items()
        ),
        (difference("SFT of twice the steps - SFT", doubled, arm(SFT)),),
    )


@CLAIMS.register(
    code="C3",
    grid="hybrids",
    chapter="05b_hybrids",
    figure="05b-unseen-figure",
    dated=DATED,
    source="arXiv:2604.13515",
    says="After SFT, RL gains more on rows that SFT has not seen.",
)
def unseen_rows(profile: Profile) -> Effects:
    """SFT on a random half, then GRPO: where its rows are the other half, accuracy lies above that
    of GRPO on the rows of SFT; less than .02 does not matter. Both have equally many visits,
    sequences and operations by construction. Beside it: what GRPO on unseen rows adds to SFT."""
    unseen, seen = (
        arm_by_seed(lambda seed, share=share: seen_rows(profile, seed, share)[1])
        for share in (0.0, 1.0)
    )
    first = arm_by_seed(lambda seed: halves(profile, "random", seed)[0])
    return Effects(
        (difference("unseen rows - seen rows", unseen, seen),),
        (difference("unseen rows - SFT alone", unseen, first),),
    )


@CLAIMS.register(
    code="C13a",
    grid="budget",
    chapter="04b_flip",
    figure="04b-claims-figure",
    dated=DATED,
    source="arXiv:2502.11284",
    says="A tenth of the rows for SFT first, and the others for RL, beat all rows for RL.",
    costs=True,
)
def a_tenth_of_the_rows(profile: Profile) -> Effects:
    """With a tenth of the rows for SFT and the others for the GRPO after it, at the operations of
    GRPO alone, accuracy lies above that of GRPO on all rows; less than .02 does not matter. The two
    differ in visits and sequences by what SFT has of them."""
    both = arm_after(*divided_rows(profile, TENTH))
    return Effects((difference("a tenth of the rows first - GRPO", both, arm(GRPO)),))


@CLAIMS.register(
    code="C13b",
    grid="budget",
    chapter="04b_flip",
    figure="04b-claims-figure",
    dated=DATED,
    source="arXiv:2502.11284",
    says="A tenth of the operations for SFT first, the rest for RL, beats all of them for RL.",
    costs=True,
)
def a_tenth_of_the_operations(profile: Profile) -> Effects:
    """With all rows for both, and a tenth of the operations of GRPO for the SFT before it, accuracy
    lies above that of GRPO with all of them; less than .02 does not matter."""
    both = arm_after(*divided_budget(profile, TENTH))
    return Effects((difference("a tenth of the operations first - GRPO", both, arm(GRPO)),))


@CLAIMS.register(
    code="C8",
    grid="starts",
    chapter="02b_imitation",
    figure="02b-effects-figure",
    dated=DATED,
    source="arXiv:2508.05629",
    says="SFT weighted by the policy's own probability is the better start for RL.",
)
def the_better_start(profile: Profile) -> Effects:
    """GRPO after DFT lies above GRPO after likelihood, both for equally many steps; less than .02
    does not matter. Beside it: GRPO after likelihood that was stopped early, the simpler way to
    keep entropy."""
    grpo = second(profile)
    dft = arm_after(Run("sft", objective="dft"), grpo)
    stopped = of_length(profile, "sft", steps_at_equal_visits(profile))
    return Effects(
        (difference("after DFT - after likelihood", dft, arm_after(SFT, grpo)),),
        (difference("after DFT - after stopped likelihood", dft, arm_after(stopped, grpo)),),
    )


# ---------------------------------------------------------------- what else training does


@CLAIMS.register(
    code="C9",
    grid="forgetting",
    chapter="02b_imitation",
    figure="02b-effects-figure",
    dated=DATED,
    source="arXiv:2509.04259",
    says="What is forgotten depends on the distance from the base, not on SFT or RL.",
    equivalence=True,
)
def distance_not_method(profile: Profile) -> Effects:
    """Of runs on one family, read at checkpoints along their training, the loss of accuracy on the
    other families is fitted to the logarithm of KL(model || base) on the trained one, to the method
    and to the family, where both methods reach the same distances. The claim is that there is no
    difference that matters: at equal KL, GRPO and SFT differ by less than .03."""
    trained = [
        Run(method, on=(family,)) for family in profile.datasets for method in ("sft", "grpo")
    ]
    planned = seeded(replace(profile, seeds=SEEDS), *trained)
    return Effects((EqualDistance("loss of RL - loss of SFT at equal KL", tuple(planned), 0.03),))


@CLAIMS.register(
    code="C11",
    dated=DATED,
    source="arXiv:2510.00237",
    says="SFT is fragile under other prompts because it has only seen one.",
    withdrawn="The base reads one template alone. Under any other it answers next to nothing, and "
    "so does what was trained on that one: the drop of a method was its accuracy, and no sign of "
    "fragility.",
)
def fragile_prompts(profile: Profile) -> Effects:
    """None since it was withdrawn. Until then: SFT loses more accuracy under unseen prompt
    templates than GRPO does, and more than SFT on rows whose prompts vary."""
    return Effects(())


@CLAIMS.register(
    code="C15",
    grid="partitions",
    chapter="05b_hybrids",
    figure="05b-effects-figure",
    dated=DATED,
    source="arXiv:2504.13837",
    says="RL narrows what a few answers reach, and SFT widens it.",
)
def narrowed_and_widened(profile: Profile) -> Effects:
    """Of pass@8, or of as many answers as a run has: the base lies above GRPO, and SFT lies above
    the base: both have to hold. Less than .02 does not matter."""
    k = f"pass@{min(8, profile.n_samples)}"
    return Effects(
        (
            difference(f"base - GRPO, {k}", BASE, arm(GRPO), metric=k),
            difference(f"SFT - base, {k}", arm(SFT), BASE, metric=k),
        )
    )


@CLAIMS.register(
    code="C16",
    grid="partitions",
    chapter="05b_hybrids",
    figure="05b-effects-figure",
    dated=DATED,
    source="arXiv:2501.17161",
    says="Gains carry to longer chains for RL more than for SFT.",
)
def longer_chains(profile: Profile) -> Effects:
    """On questions that need more steps than any training row (split `longer`), GRPO lies above
    SFT; less than .02 does not matter. Beside it: each less the base there."""
    sft, grpo, base = (replace(one, split="longer") for one in (arm(SFT), arm(GRPO), BASE))
    return Effects(
        (difference("GRPO - SFT on longer chains", grpo, sft),),
        (
            difference("GRPO - base on longer chains", grpo, base),
            difference("SFT - base on longer chains", sft, base),
        ),
    )


CORE = ("the_flip", "divide_and_merge", "sft_first")


@CLAIMS.register(
    code="C17",
    dated=DATED,
    source="this study",
    says="The verdicts of C1, C2 and C14 are the same at all three sizes of the base.",
    agrees=CORE,
)
def at_all_sizes(profile: Profile) -> Effects:
    """No runs of its own, and outside the correction for the number of claims. Supported where each
    of the three claims is decided at every size, and alike; refuted where two sizes decide one of
    them differently; else undecided."""
    return Effects(())


# ---------------------------------------------------------------- what an update is


@CLAIMS.register(
    code="C6",
    grid="geometry",
    chapter="05c_geometry",
    figure="05c-effects-figure",
    dated=DATED,
    source="arXiv:2607.19331",
    says="Under LoRA, too, SFT moves the singular values of the base twice as much as RL does.",
)
def spectrum_kept(profile: Profile) -> Effects:
    """The logarithm of the spectral residual of SFT over that of GRPO of the same seed lies above
    log 2; a factor below 1.1 does not matter. Beside it: what putting the base's singular values
    back costs GRPO, and what it costs SFT."""

    def log_ratio(facts: dict[str, Any]) -> float:
        sft, grpo = facts["pair"]["spectra"]
        return math.log(sft["residual"] / grpo["residual"])

    pairs = tuple(adapter_pairs(replace(profile, seeds=SEEDS))["SFT and GRPO of one seed"])
    return Effects(
        (
            SeedStatistic(
                "log residual of SFT - log residual of GRPO",
                (pairs,),
                log_ratio,
                region=math.log(1.1),
                margin=math.log(2),
            ),
        ),
        tuple(
            difference(
                f"{method.upper()} - {method.upper()} on the base's spectrum",
                arm(Run(method)),
                _arm_of_modified("isospectral", method),
            )
            for method in ("grpo", "sft")
        ),
    )


@CLAIMS.register(
    code="C7",
    grid="geometry",
    chapter="05c_geometry",
    figure="05c-effects-figure",
    dated=DATED,
    source="arXiv:2601.11258",
    says="The updates of SFT and RL are near-orthogonal: less than half as parallel as two of one "
    "method.",
)
def orthogonal(profile: Profile) -> Effects:
    """Between seeds, the cosine of an SFT and a GRPO update, over the geometric mean of the cosines
    of two SFT and of two GRPO updates, is below one half; less than .05 from it does not matter.
    Beside it: the same of what the updates do to the inputs of the layers (functional)."""
    pairs = adapter_pairs(replace(profile, seeds=SEEDS))
    columns = tuple(tuple(pairs[kind]) for kind in ("SFT and GRPO", "SFT and SFT", "GRPO and GRPO"))

    def parallel(name: str) -> SeedStatistic:
        return SeedStatistic(
            f"half - relative {name} of SFT and GRPO",
            columns,
            value=lambda *facts: tuple(one["pair"]["between"][name] for one in facts),
            region=0.05,
            statistic=lambda cosines: 0.5 - corrected_cosine(cosines),
            overlapping=True,
        )

    return Effects((parallel("cosine"),), (parallel("functional"),))


def corrected_cosine(cosines: Sequence[tuple[float, float, float]]) -> float:
    """Return the mean cosine between two methods over the geometric mean of those within each.

    1 where both methods move the weights the same way but for the noise of single updates
    (correction for attenuation, Spearman 1904).

    Args:
        cosines: per seed, of two updates of different methods, of two of the first method, and of
            two of the second.

    Raises:
        StudyError: the mean cosine within a method is not above 0.
    """
    across, *within = (fmean(column) for column in zip(*cosines, strict=True))
    if min(within) <= 0:
        raise StudyError("updates of one method and different seeds have nothing in common")
    return abs(across) / math.sqrt(math.prod(within))


@CLAIMS.register(
    code="C12",
    grid="geometry",
    chapter="05c_geometry",
    figure="05c-effects-figure",
    dated=DATED,
    source="this study, after arXiv:2511.08567",
    says="An RL adapter that is merged into bfloat16 weights loses skill.",
)
def lost_in_rounding(profile: Profile) -> Effects:
    """With the base in bfloat16, a GRPO adapter merged and rounded is more than .01 below the same
    adapter beside the base; less than .01 does not matter. Beside it: the same of SFT."""

    def loss(method: str) -> Contrast:
        kept, rounded = (_arm_of_modified(how, method) for how in ("unrounded", "rounded"))
        return difference(f"loss of {method.upper()}", kept, rounded, margin=0.01, region=0.01)

    return Effects((loss("grpo"),), (loss("sft"),))


def _arm_of_modified(how: str, method: str) -> Arm:
    """Return the arm of a method's adapters, modified by another method: see `grids.modified`."""
    return arm_by_seed(lambda seed: modified(how, method, seed))
