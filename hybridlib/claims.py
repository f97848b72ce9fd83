"""Which claims are under test? Each states its rule before the runs that decide it.

A claim is one decorated function from evidence to effects; its docstring is the rule: which effects
have to lie above which margin. `verdicts` does the rest, the same for all claims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hybridlib import results, stats
from hybridlib.grids import (
    BUDGET,
    GRIDS,
    PER_BUCKET,
    PER_BUDGET,
    PROMPTS,
    SIZES,
    of_size,
    shared,
    visits,
)
from hybridlib.partition import bucket
from hybridlib.profiles import Profile
from hybridlib.registry import Registry
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

CLAIMS = Registry("claim", "code", "says", "source", "grid", "chapter", "dated")
"""Dated: the day on which the rule was written, before the runs; git shows it."""


class Evidence:
    """The finished runs of a profile, and the one way in which claims compare them."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.items, self.drift = results.items(profile.name), results.drift(profile.name)
        if not self.items.empty:
            self.items = _bucketed(self.items)

    def arm(self, run: Run, **where: Any) -> dict[str, Any]:
        """The rows of a run under all seeds, or of those of its test items that `where` selects."""
        ids = [replace(run, seed=seed).id for seed in self.profile.seeds]
        return {"id": ids, "split": "test"} | where

    def after(self, first: Run, then: Run, **where: Any) -> dict[str, Any]:
        """The rows of a run that goes on from another one of the same seed."""
        seeds = self.profile.seeds
        pairs = [(replace(first, seed=s).id, s) for s in seeds]
        ids = [replace(then, start=start, seed=s).id for start, s in pairs]
        return {"id": ids, "split": "test"} | where

    def effect(
        self, what: str, *terms: tuple[float, dict[str, Any]], margin: float = 0.0
    ) -> dict[str, Any]:
        """A contrast of sampled accuracies that the claim says is above its margin."""
        return {"what": what} | stats.contrast(self.items, terms, "sampled", margin)


def _bucketed(items: pd.DataFrame) -> pd.DataFrame:
    """With the bucket of each item, by the base's own samples."""
    base = items[items.id == "base"]
    rate = (base["correct"] / base["samples"]).map(bucket)
    known = base[stats.ITEM].assign(bucket=rate)
    return items.merge(known, on=stats.ITEM, how="left")


# ---------------------------------------------------------------- the claims


@CLAIMS.register(
    code="C1", grid="flip", chapter="04b_flip", dated="2026-11-21", source="arXiv:2506.07527",
    says="Rows that the base never solves are for SFT, rows that it solves at times are for RL.",
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
    code="C4", grid="scale", chapter="04_scale", dated="2026-11-21",
    source="the seed of this study",
    says="SFT gains from more data, RL from the structure of its reward.",
)  # fmt: skip
def data_or_reward(e: Evidence) -> list[dict[str, Any]]:
    """Accuracy grows more with each doubling of distinct rows under SFT than under GRPO, at equally
    many sequences; and GRPO paid for answers and steps beats GRPO paid for answers alone."""
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
    code="C8", grid="starts", chapter="02b_imitation", dated="2026-11-21",
    source="arXiv:2508.05629",
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
    code="C9", grid="forgetting", chapter="02b_imitation", dated="2026-11-21",
    source="arXiv:2509.04259",
    says="What is forgotten depends on the distance from the base, not on SFT or RL.",
)  # fmt: skip
def distance_not_method(e: Evidence) -> list[dict[str, Any]]:
    """Among runs on one family, the loss of accuracy on the other two grows with the logarithm of
    KL(model || base) on the trained one; at equal KL, GRPO and SFT differ by less than 0.05."""
    return stats.at_equal_distance(forgotten(e), margin=0.05)


def forgotten(e: Evidence) -> pd.DataFrame:
    """One row per run on one family: arm, KL and its log there, accuracy lost elsewhere, is RL."""
    import pandas as pd

    test = e.items[e.items["split"] == "test"].assign(value=lambda x: x["correct"] / x["samples"])
    accuracy = test.groupby(["id", "family"])["value"].mean()
    moved = e.drift.set_index(["id", "family"])["kl"]
    rows = []
    for run in GRIDS["forgetting"](e.profile):
        if run.on:
            home = run.on[0].removeprefix("tiny_")
            away = [f for f in accuracy["base"].index if f != home]
            lost = sum(accuracy["base", f] - accuracy[run.id, f] for f in away) / len(away)
            rows.append(
                {"arm": replace(run, seed=0).id, "kl": moved[run.id, home],
                 "log_kl": math.log(max(moved[run.id, home], 1e-6)),
                 "lost": lost, "is_rl": float(run.method == "grpo")}
            )  # fmt: skip
    return pd.DataFrame(rows)


@CLAIMS.register(
    code="C11", grid="prompts", chapter="02b_imitation", dated="2026-11-21",
    source="arXiv:2510.00237",
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
    code="C13", grid="budget", chapter="04b_flip", dated="2026-11-21", source="arXiv:2502.11284",
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
