"""Which claims are under test? Each states its rule before the runs that decide it.

A claim is one decorated function from a profile to comparisons, which name the runs that they read;
its docstring is the rule: which effects have to lie above which margin. `verdicts` does the rest,
the same for all claims. What a claim compares is written out here and never read from a registry,
so that a later entry of one belongs to no registered claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from hybridlib import StudyError
from hybridlib.claims.contrasts import (
    Arm,
    Contrast,
    SeedStatistic,
    arm,
    arm_after,
    arm_by_seed,
    difference,
)
from hybridlib.claims.forgetting import EqualDistance
from hybridlib.claims.registry import CLAIMS
from hybridlib.grids import (
    adapter_pairs,
    divided_budget,
    halves,
    merged,
    modified,
    of_size,
    seeded,
    steps_at_equal_visits,
    twice_as_long,
)
from hybridlib.profiles import Profile
from hybridlib.runs import Run

# As registered with the claims. The grids may change their own sizes later; these never change.
PER_BUCKET, PER_BUDGET = 32, 128  # training rows of each family
SIZES = (16, 32, 64, 128, 256, 1024)  # distinct training rows of each family
TEMPLATES = ("test@plain", "test@label", "test@polite", "test@steps", "test@exam")
MERGE = "ties"  # the merge operator of the halves


@CLAIMS.register(
    code="C1",
    effects=3,
    grid="flip",
    chapter="04b_flip",
    figure="04b-effects-figure",
    dated="2026-11-21",
    source="arXiv:2506.07527",
    says="Rows that the base never solves are for SFT, those it solves often enough are for RL.",
)
def the_flip(profile: Profile) -> list[Contrast]:
    """Trained on the rows of one bucket and measured on its test rows: SFT beats GRPO on `zero`,
    and GRPO beats SFT on `middle` and on `high`; equally many sequences for both."""

    def trained(method: str, bucket: str) -> Arm:
        return arm(profile, Run(method, select=bucket, n_train=PER_BUCKET), bucket=bucket)

    def gap(better: str, worse: str, bucket: str) -> Contrast:
        what = f"{better.upper()} - {worse.upper()} on {bucket}"
        return difference(what, trained(better, bucket), trained(worse, bucket))

    return [gap("sft", "grpo", "zero"), gap("grpo", "sft", "middle"), gap("grpo", "sft", "high")]


@CLAIMS.register(
    code="C4",
    effects=2,
    grid="scale",
    chapter="04b_flip",
    figure="04b-claims-figure",
    dated="2026-11-21",
    source="the seed of this study",
    says="SFT gains from more data, RL from the structure of its reward.",
)
def data_or_reward(profile: Profile) -> list[Contrast]:
    """Accuracy grows more with each doubling of distinct rows under SFT than under GRPO, at equally
    many sequences; and on 64 rows of each family GRPO paid for answers and steps beats GRPO that is
    paid for answers alone."""
    doublings = [math.log2(size) for size in SIZES]
    centre = sum(doublings) / len(doublings)
    spread = sum((x - centre) ** 2 for x in doublings)
    slopes = tuple(
        (sign * (x - centre) / spread, arm(profile, of_size(profile, method, size)))
        for sign, method in ((1, "sft"), (-1, "grpo"))
        for x, size in zip(doublings, SIZES, strict=True)
    )
    steps = arm(profile, Run("grpo", n_train=64, rewards=("correct", "arithmetic")))
    answers = arm(profile, Run("grpo", n_train=64, rewards=("correct",)))
    return [
        Contrast("slope of SFT - slope of GRPO, per doubling", slopes),
        difference("answers and steps - answers", steps, answers),
    ]


@CLAIMS.register(
    code="C8",
    effects=2,
    grid="starts",
    chapter="02b_imitation",
    figure="02b-effects-figure",
    dated="2026-11-21",
    source="arXiv:2508.05629",
    says="SFT weighted by the policy's own probability is the better start for RL.",
)
def the_better_start(profile: Profile) -> list[Contrast]:
    """GRPO after DFT beats GRPO after likelihood, and beats GRPO after likelihood that was stopped
    early, the simpler way to keep entropy."""
    grpo = Run("grpo")
    dft = arm_after(profile, Run("sft", objective="dft"), grpo)
    plain = arm_after(profile, Run("sft"), grpo)
    early = arm_after(profile, Run("sft", steps=steps_at_equal_visits(profile)), grpo)
    return [
        difference("after DFT - after likelihood", dft, plain),
        difference("after DFT - after stopped likelihood", dft, early),
    ]


@CLAIMS.register(
    code="C9",
    effects=2,
    grid="forgetting",
    chapter="02b_imitation",
    figure="02b-effects-figure",
    dated="2026-11-21",
    source="arXiv:2509.04259",
    says="What is forgotten depends on the distance from the base, not on SFT or RL.",
)
def distance_not_method(profile: Profile) -> list[EqualDistance]:
    """Among runs on one family, the loss of accuracy on the other two grows with the logarithm of
    KL(model || base) on the trained one; at equal KL, GRPO and SFT differ by less than 0.05. The
    rule stands, but since 2026-11-22, after the runs, the errors count the test items, too, and
    that of the second effect, which had been too small, is the difference's own."""
    trained = [
        run
        for family in profile.datasets
        for run in (
            Run("sft", on=(family,)),
            Run("sft", on=(family,), objective="dft"),
            Run("grpo", on=(family,)),
        )
    ]
    return [EqualDistance(tuple(seeded(profile, *trained)), margin=0.05)]


@CLAIMS.register(
    code="C11",
    effects=2,
    grid="prompts",
    chapter="02b_imitation",
    figure="02b-effects-figure",
    dated="2026-11-21",
    source="arXiv:2510.00237",
    says="SFT is fragile under other prompts because it has only seen one.",
)
def fragile_prompts(profile: Profile) -> list[Contrast]:
    """SFT loses more accuracy under unseen prompt templates than GRPO does, and more than SFT on
    rows whose prompts vary loses under the template that it has not seen either."""
    sft = Run("sft", also=TEMPLATES)
    varied = Run("sft", target="templates", also=TEMPLATES)
    grpo = Run("grpo", also=TEMPLATES)
    plain, *others = TEMPLATES

    def drop(sign: float, run: Run, unseen: Sequence[str]) -> list[tuple[float, Arm]]:
        moved = [(-sign / len(unseen), arm(profile, run, split=split)) for split in unseen]
        return [(sign, arm(profile, run, split=plain)), *moved]

    return [
        Contrast("drop of SFT - drop of GRPO", (*drop(1, sft, others), *drop(-1, grpo, others))),
        Contrast(
            "drop of SFT - drop of varied SFT",
            (*drop(1, sft, ["test@exam"]), *drop(-1, varied, ["test@exam"])),
        ),
    ]


@CLAIMS.register(
    code="C13",
    effects=2,
    grid="budget",
    chapter="04b_flip",
    figure="04b-claims-figure",
    dated="2026-11-21",
    source="arXiv:2502.11284",
    says="A tenth of the budget spent on SFT first beats spending all of it on RL, or on SFT.",
)
def a_tenth_first(profile: Profile) -> list[Contrast]:
    """With rows and steps divided 1 : 9 between SFT and the GRPO after it, accuracy is above that
    of GRPO alone and of SFT alone on the whole budget."""
    both = arm_after(profile, *divided_budget(profile, 0.1))
    grpo, sft = (arm(profile, Run(method, n_train=PER_BUDGET)) for method in ("grpo", "sft"))
    return [
        difference("a tenth first - GRPO alone", both, grpo),
        difference("a tenth first - SFT alone", both, sft),
    ]


@CLAIMS.register(
    code="C2",
    effects=4,
    grid="hybrids",
    chapter="05b_hybrids",
    figure="05b-effects-figure",
    dated="2026-11-21",
    source="the seed of this study",
    says="Rows divided by pass rate, trained apart and merged, beat SFT, RL, both in turn, a coin.",
)
def divide_and_merge(profile: Profile) -> list[Contrast]:
    """The merge of the halves by pass rate beats, at equally many sequences, SFT on all rows, GRPO
    on all rows, SFT followed by GRPO, and the same merge of random halves."""
    hybrid = arm_by_seed(profile, lambda seed: merged(halves("passrate", seed), MERGE))
    coin = arm_by_seed(profile, lambda seed: merged(halves("random", seed), MERGE))
    return [
        difference("hybrid - SFT", hybrid, arm(profile, twice_as_long(profile, "sft"))),
        difference("hybrid - GRPO", hybrid, arm(profile, twice_as_long(profile, "grpo"))),
        difference("hybrid - SFT, then GRPO", hybrid, arm_after(profile, Run("sft"), Run("grpo"))),
        difference("hybrid - random halves", hybrid, coin),
    ]


@CLAIMS.register(
    code="C3",
    effects=2,
    grid="hybrids",
    chapter="05b_hybrids",
    figure="05b-unseen-figure",
    dated="2026-11-21",
    source="arXiv:2604.13515",
    says="GRPO after SFT gains, and gains more on rows that SFT has not seen.",
)
def unseen_rows(profile: Profile) -> list[Contrast]:
    """SFT on a random half, then GRPO: accuracy is above that of the SFT half where the rows of
    GRPO are the other half, and above that of GRPO on the rows of SFT."""
    first, then = halves("random", 0)
    unseen, seen = (arm_after(profile, first, replace(then, overlap=o)) for o in (0.0, 1.0))
    return [
        difference("unseen rows - SFT alone", unseen, arm(profile, first)),
        difference("unseen rows - seen rows", unseen, seen),
    ]


@CLAIMS.register(
    code="C6",
    effects=3,
    grid="geometry",
    chapter="05c_geometry",
    figure="05c-effects-figure",
    dated="2026-11-22",
    source="arXiv:2607.19331",
    says="Under LoRA, too, RL leaves the singular values of the base alone, and SFT does not.",
)
def spectrum_kept(profile: Profile) -> list[SeedStatistic | Contrast]:
    """The spectral residual of SFT is at least twice that of GRPO (a log ratio above log 2);
    putting the base's singular values back costs GRPO less than 0.02, and costs SFT something.
    Until 2026-11-22, when spectra of one seed had been seen but none of these accuracies, the
    second and third were one: that it costs SFT more than GRPO. That would have compared changes of
    different size."""

    def log_ratio(facts: dict[str, Any]) -> float:
        sft, grpo = facts["pair"]["spectra"]
        return math.log(sft["residual"] / grpo["residual"])

    pairs = tuple(adapter_pairs(profile)["SFT and GRPO of one seed"])
    sft, grpo = (arm(profile, Run(method)) for method in ("sft", "grpo"))
    return [
        SeedStatistic(
            "log residual of SFT - log residual of GRPO", (pairs,), log_ratio, margin=math.log(2)
        ),
        difference(
            "GRPO on the base's spectrum - GRPO",
            _arm_of_modified(profile, "isospectral", "grpo"),
            grpo,
            margin=-0.02,
        ),
        difference(
            "SFT - SFT on the base's spectrum",
            sft,
            _arm_of_modified(profile, "isospectral", "sft"),
        ),
    ]


@CLAIMS.register(
    code="C7",
    effects=2,
    grid="geometry",
    chapter="05c_geometry",
    figure="05c-effects-figure",
    dated="2026-11-22",
    source="arXiv:2601.11258",
    says="The updates of SFT and RL are near-orthogonal: less than half as parallel as two of one "
    "method.",
)
def orthogonal(profile: Profile) -> list[SeedStatistic]:
    """Between seeds, the cosine of an SFT and a GRPO update, over the geometric mean of the cosines
    of two SFT and of two GRPO updates, is below one half; of the weights, and of what the updates
    do to the inputs of the layers (functional). Until 2026-11-22, when pairs of one seed had been
    seen but none of two: the cosine itself below 0.1, and below the two others. But LoRA's random A
    makes all of them small."""
    pairs = adapter_pairs(profile)
    columns = tuple(tuple(pairs[kind]) for kind in ("SFT and GRPO", "SFT and SFT", "GRPO and GRPO"))

    def parallel(name: str) -> SeedStatistic:
        return SeedStatistic(
            f"half - relative {name} of SFT and GRPO",
            columns,
            value=lambda *facts: tuple(one["pair"]["between"][name] for one in facts),
            statistic=lambda cosines: 0.5 - corrected_cosine(cosines),
            overlapping=True,
        )

    return [parallel("cosine"), parallel("functional")]


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
    effects=2,
    grid="geometry",
    chapter="05c_geometry",
    figure="05c-effects-figure",
    dated="2026-11-21",
    source="this study, after arXiv:2511.08567",
    says="An RL adapter that is merged into bfloat16 weights loses skill, more than SFT's does.",
)
def lost_in_rounding(profile: Profile) -> list[Contrast]:
    """With the base in bfloat16, a GRPO adapter merged and rounded is more than 0.01 below the same
    adapter beside the base, and loses more by it than an SFT adapter does."""

    def loss(sign: int, method: str) -> list[tuple[float, Arm]]:
        return [
            (sign, _arm_of_modified(profile, "unrounded", method)),
            (-sign, _arm_of_modified(profile, "rounded", method)),
        ]

    return [
        Contrast("loss of GRPO", tuple(loss(1, "grpo")), margin=0.01),
        Contrast("loss of GRPO - loss of SFT", (*loss(1, "grpo"), *loss(-1, "sft"))),
    ]


def _arm_of_modified(profile: Profile, how: str, method: str) -> Arm:
    """Return the arm of a method's adapters, modified by another method: see `grids.modified`."""
    return arm_by_seed(profile, lambda seed: modified(how, method, seed))
