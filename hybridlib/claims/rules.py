"""Which claims are under test? Each states its rule before the runs that decide it.

A claim is one decorated function from evidence to effects; its docstring is the rule: which effects
have to lie above which margin. `verdicts` does the rest, the same for all claims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from hybridlib import StudyError
from hybridlib.claims.contrasts import Evidence, at_equal_distance, forgotten
from hybridlib.grids import (
    BUDGET,
    MERGE,
    OVERLAPS,
    PER_BUCKET,
    PER_BUDGET,
    PROMPTS,
    SIZES,
    changed,
    doubled,
    halves,
    merged,
    neighbours,
    of_size,
    shared,
    visits,
)
from hybridlib.registry import Registry
from hybridlib.runs import Run

CLAIMS = Registry(
    "claim", "code", "effects", "says", "source", "grid", "chapter", "figure", "dated"
)
"""Effects: how many the claim has. Figure: the cell of its chapter that draws them. Dated: the day
its rule was written, before the runs that are its own; git shows it."""


# ---------------------------------------------------------------- the claims


@CLAIMS.register(
    code="C1", effects=3, grid="flip", chapter="04b_flip", dated="2026-11-21",
    source="arXiv:2506.07527", figure="04b-effects-figure",
    says="Rows that the base never solves are for SFT, those it solves often enough are for RL.",
)  # fmt: skip
def the_flip(e: Evidence) -> list[dict[str, Any]]:
    """Trained on the rows of one bucket and measured on its test rows: SFT beats GRPO on `zero`,
    and GRPO beats SFT on `middle` and on `high`; equally many sequences for both."""

    def gap(name: str, sign: float) -> dict[str, Any]:
        rows = dict(select=name, n_train=PER_BUCKET)
        sft, grpo = (e.arm(Run(method, **rows), bucket=name) for method in ("sft", "grpo"))
        what = "SFT - GRPO" if sign > 0 else "GRPO - SFT"
        return e.effect(f"{what} on {name}", (sign, sft), (-sign, grpo))

    return [gap("zero", 1), gap("middle", -1), gap("high", -1)]


@CLAIMS.register(
    code="C4", effects=2, grid="scale", chapter="04b_flip", dated="2026-11-21",
    source="the seed of this study", figure="04b-claims-figure",
    says="SFT gains from more data, RL from the structure of its reward.",
)  # fmt: skip
def data_or_reward(e: Evidence) -> list[dict[str, Any]]:
    """Accuracy grows more with each doubling of distinct rows under SFT than under GRPO, at equally
    many sequences; and on 64 rows of each family GRPO paid for answers and steps beats GRPO that is
    paid for answers alone."""
    logs = [math.log2(n) for n in SIZES]
    centre = sum(logs) / len(logs)
    spread = sum((x - centre) ** 2 for x in logs)
    slopes = [
        (sign * (x - centre) / spread, e.arm(of_size(e.profile, method, n)))
        for sign, method in ((1, "sft"), (-1, "grpo"))
        for x, n in zip(logs, SIZES, strict=True)
    ]
    few = dict(n_train=SIZES[2])
    rich = e.arm(Run("grpo", rewards=("correct", "arithmetic"), **few))
    return [
        e.effect("slope of SFT - slope of GRPO, per doubling", *slopes),
        e.effect("answers and steps - answers", (1, rich), (-1, e.arm(Run("grpo", **few)))),
    ]


@CLAIMS.register(
    code="C8", effects=2, grid="starts", chapter="02b_imitation", dated="2026-11-21",
    source="arXiv:2508.05629", figure="02b-effects-figure",
    says="SFT weighted by the policy's own probability is the better start for RL.",
)  # fmt: skip
def the_better_start(e: Evidence) -> list[dict[str, Any]]:
    """GRPO after DFT beats GRPO after likelihood, and beats GRPO after likelihood that was stopped
    early, the simpler way to keep entropy."""
    grpo = Run("grpo")
    dft = e.after(Run("sft", objective="dft"), grpo)
    plain = e.after(Run("sft"), grpo)
    early = e.after(Run("sft", steps=visits(e.profile)), grpo)
    return [
        e.effect("after DFT - after likelihood", (1, dft), (-1, plain)),
        e.effect("after DFT - after stopped likelihood", (1, dft), (-1, early)),
    ]


@CLAIMS.register(
    code="C9", effects=2, grid="forgetting", chapter="02b_imitation", dated="2026-11-21",
    source="arXiv:2509.04259", figure="02b-effects-figure",
    says="What is forgotten depends on the distance from the base, not on SFT or RL.",
)  # fmt: skip
def distance_not_method(e: Evidence) -> list[dict[str, Any]]:
    """Among runs on one family, the loss of accuracy on the other two grows with the logarithm of
    KL(model || base) on the trained one; at equal KL, GRPO and SFT differ by less than 0.05. The
    rule stands, but since 2026-11-22, after the runs, the errors count the test items, too, and
    that of the second effect, which had been too small, is the difference's own."""
    return at_equal_distance(*forgotten(e), margin=0.05)


@CLAIMS.register(
    code="C11", effects=2, grid="prompts", chapter="02b_imitation", dated="2026-11-21",
    source="arXiv:2510.00237", figure="02b-effects-figure",
    says="SFT is fragile under other prompts because it has only seen one.",
)  # fmt: skip
def fragile_prompts(e: Evidence) -> list[dict[str, Any]]:
    """SFT loses more accuracy under unseen prompt templates than GRPO does, and more than SFT on
    rows whose prompts vary loses under the template that it has not seen either."""
    plain, *new = PROMPTS

    def drop(run: Run, splits: Sequence[str], sign: float) -> list[tuple[float, dict[str, Any]]]:
        moved = [(-sign / len(splits), e.arm(run, split=split)) for split in splits]
        return [(sign, e.arm(run, split=plain)), *moved]

    asked = (Run("sft"), Run("grpo"), Run("sft", target="templates"))
    sft, grpo, varied = (replace(run, also=PROMPTS) for run in asked)
    return [
        e.effect("drop of SFT - drop of GRPO", *drop(sft, new, 1), *drop(grpo, new, -1)),
        e.effect("drop of SFT - drop of varied SFT", *drop(sft, new[-1:], 1),
                 *drop(varied, new[-1:], -1)),
    ]  # fmt: skip


@CLAIMS.register(
    code="C13", effects=2, grid="budget", chapter="04b_flip", dated="2026-11-21",
    source="arXiv:2502.11284", figure="04b-claims-figure",
    says="A tenth of the budget spent on SFT first beats spending all of it on RL, or on SFT.",
)  # fmt: skip
def a_tenth_first(e: Evidence) -> list[dict[str, Any]]:
    """With rows and steps divided 1 : 9 between SFT and the GRPO after it, accuracy is above that
    of GRPO alone and of SFT alone on the whole budget."""
    first, then = shared(e.profile, BUDGET[0])
    both = e.after(first, then)
    alone = {m: e.arm(Run(m, n_train=PER_BUDGET)) for m in ("grpo", "sft")}
    return [
        e.effect(f"a tenth first - {name.upper()} alone", (1, both), (-1, arm))
        for name, arm in alone.items()
    ]


@CLAIMS.register(
    code="C2", effects=4, grid="hybrids", chapter="05b_hybrids", dated="2026-11-21",
    source="the seed of this study", figure="05b-effects-figure",
    says="Rows divided by pass rate, trained apart and merged, beat SFT, RL, both in turn, a coin.",
)  # fmt: skip
def divide_and_merge(e: Evidence) -> list[dict[str, Any]]:
    """The merge of the halves by pass rate beats, at equally many sequences, SFT on all rows, GRPO
    on all rows, SFT followed by GRPO, and the same merge of random halves."""
    hybrid = e.arm(lambda s: merged(halves("passrate", s), MERGE))
    rivals = {
        "SFT": e.arm(doubled(e.profile, "sft")),
        "GRPO": e.arm(doubled(e.profile, "grpo")),
        "SFT, then GRPO": e.after(Run("sft"), Run("grpo")),
        "random halves": e.arm(lambda s: merged(halves("random", s), MERGE)),
    }
    return [e.effect(f"hybrid - {name}", (1, hybrid), (-1, arm)) for name, arm in rivals.items()]


@CLAIMS.register(
    code="C3", effects=2, grid="hybrids", chapter="05b_hybrids", dated="2026-11-21",
    source="arXiv:2604.13515", figure="05b-unseen-figure",
    says="GRPO after SFT gains, and gains more on rows that SFT has not seen.",
)  # fmt: skip
def unseen_rows(e: Evidence) -> list[dict[str, Any]]:
    """SFT on a random half, then GRPO: accuracy is above that of the SFT half where the rows of
    GRPO are the other half, and above that of GRPO on the rows of SFT."""

    def after(share: float) -> dict[str, Any]:
        first, then = halves("random", 0)
        return e.after(first, replace(then, overlap=share))

    none, full = after(OVERLAPS[0]), after(OVERLAPS[-1])
    return [
        e.effect("unseen rows - SFT alone", (1, none), (-1, e.arm(halves("random", 0)[0]))),
        e.effect("unseen rows - seen rows", (1, none), (-1, full)),
    ]


@CLAIMS.register(
    code="C6", effects=3, grid="geometry", chapter="05c_geometry", dated="2026-11-22",
    source="arXiv:2607.19331", figure="05c-effects-figure",
    says="Under LoRA, too, RL leaves the singular values of the base alone, and SFT does not.",
)  # fmt: skip
def spectrum_kept(e: Evidence) -> list[dict[str, Any]]:
    """The spectral residual of SFT is at least twice that of GRPO (a log ratio above log 2);
    putting the base's singular values back costs GRPO less than 0.02, and costs SFT something.
    Until 2026-11-22, when spectra of one seed had been seen but none of these accuracies, the
    second and third were one: that it costs SFT more than GRPO. That would have compared changes of
    different size."""
    pairs = e.facts(neighbours(e.profile)["SFT and GRPO of one seed"])
    spectra = [facts["pair"]["spectra"] for facts in pairs]
    ratios = [math.log(sft["residual"] / grpo["residual"]) for sft, grpo in spectra]
    whole = {method: e.arm(Run(method)) for method in ("sft", "grpo")}
    back = {method: _changed(e, "isospectral", method) for method in whole}
    return [
        e.of_seeds("log residual of SFT - log residual of GRPO", ratios, margin=math.log(2)),
        e.effect("GRPO on the base's spectrum - GRPO", (1, back["grpo"]), (-1, whole["grpo"]),
                 margin=-0.02),
        e.effect("SFT - SFT on the base's spectrum", (1, whole["sft"]), (-1, back["sft"])),
    ]  # fmt: skip


@CLAIMS.register(
    code="C7", effects=2, grid="geometry", chapter="05c_geometry", dated="2026-11-22",
    source="arXiv:2601.11258", figure="05c-effects-figure",
    says="The updates of SFT and RL are near-orthogonal: less than half as parallel as two of one "
         "method.",
)  # fmt: skip
def orthogonal(e: Evidence) -> list[dict[str, Any]]:
    """Between seeds, the cosine of an SFT and a GRPO update, over the geometric mean of the cosines
    of two SFT and of two GRPO updates, is below one half; of the weights, and of what the updates
    do to the inputs of the layers (functional). Until 2026-11-22, when pairs of one seed had been
    seen but none of two: the cosine itself below 0.1, and below the two others. But LoRA's random A
    makes all of them small."""
    kinds = neighbours(e.profile)

    def parallel(name: str) -> dict[str, Any]:
        columns = ([one["pair"]["between"][name] for one in e.facts(kinds[kind])]
                   for kind in ("SFT and GRPO", "SFT and SFT", "GRPO and GRPO"))  # fmt: skip
        what = f"half - relative {name} of SFT and GRPO"
        return e.of_seeds(what, list(zip(*columns, strict=True)), ring=True,
                          of=lambda values: 0.5 - relative(values))  # fmt: skip

    return [parallel("cosine"), parallel("functional")]


def relative(cosines: Sequence[tuple[float, float, float]]) -> float:
    """The mean cosine across two kinds over the geometric mean of those within each of them.

    One where both kinds point the same way, whatever makes single updates differ (Spearman 1904,
    correction for attenuation). Raises StudyError where a kind does not agree with itself.
    """
    across, *within = (fmean(column) for column in zip(*cosines, strict=True))
    if min(within) <= 0:
        raise StudyError("updates of one method and different seeds have nothing in common")
    return abs(across) / math.sqrt(math.prod(within))


@CLAIMS.register(
    code="C12", effects=2, grid="geometry", chapter="05c_geometry", dated="2026-11-21",
    source="this study, after arXiv:2511.08567", figure="05c-effects-figure",
    says="An RL adapter that is merged into bfloat16 weights loses skill, more than SFT's does.",
)  # fmt: skip
def lost_in_rounding(e: Evidence) -> list[dict[str, Any]]:
    """With the base in bfloat16, a GRPO adapter merged and rounded is more than 0.01 below the same
    adapter beside the base, and loses more by it than an SFT adapter does."""
    loss = {m: [(1, _changed(e, "unrounded", m)), (-1, _changed(e, "rounded", m))]
            for m in ("sft", "grpo")}  # fmt: skip
    less = [(-sign, arm) for sign, arm in loss["sft"]]
    return [
        e.effect("loss of GRPO", *loss["grpo"], margin=0.01),
        e.effect("loss of GRPO - loss of SFT", *loss["grpo"], *less),
    ]


def _changed(e: Evidence, how: str, method: str) -> dict[str, Any]:
    return e.arm(lambda seed: changed(how, method, seed))
