"""Which runs answer a chapter's question? One decorated function per grid.

A grid is small where a build computes it while the reader waits, and large where the profile says
`full`: the published evidence, five seeds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hybridlib.merging import OPERATORS
from hybridlib.methods.mixed import DEMONSTRATIONS_PER_SAMPLE
from hybridlib.objectives import OBJECTIVES
from hybridlib.partition import BUCKETS, RULES
from hybridlib.profiles import PROFILES, Profile
from hybridlib.registry import Registry
from hybridlib.runs import Run

GRIDS = Registry("grid")  # name -> (profile) -> runs of a chapter
LEARNING_RATES = {
    "sft": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "grpo": (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2),
}
"""Learning rates tried on validation rows, equally many for each method."""
ALTERNATIVE_RATES = {"sft": 4e-3, "grpo": 3e-3}
"""Rates not significantly different there from those of `tiny-full`, trained as a control."""
REWARD_SETS = (
    ("format",),
    ("random",),
    ("arithmetic",),
    ("correct", "format"),
    ("correct", "arithmetic"),
)
TRAIN_SIZES = (16, 32, 64, 128, 256, 1024)  # distinct training rows of each family
PROMPTS = tuple(f"test@{way}" for way in ("plain", "label", "polite", "steps", "exam"))
BUDGET_SHARES = (0.1, 0.25, 0.5)  # shares of a budget that go to SFT
PER_BUCKET, PER_SELECTION, PER_BUDGET = 32, 64, 128  # training rows of each family

# The published grids name their entries, so that a later entry of a registry leaves them as they
# are; it is tried by the grid `unpublished`.
RULES_COMPARED = ("random", "level", "passrate", "family", "length")
OBJECTIVES_COMPARED = ("nll", "dft", "asft", "chord_phi", "luffy", "otr", "top_entropy", "smooth")
OPERATORS_COMPARED = (
    "sum",
    "mean",
    "norm_matched",
    "slerp",
    "magnitude",
    "ties",
    "ram",
    "knots",
    "dare",
)
MERGES = ("sum", "mean", "norm_matched", "ties", "knots")
MERGE = "ties"  # the best of them in `tiny-sweep`, on validation rows
MIXED_RATES = {  # a training of both losses -> its rate, chosen there too, from as many as GRPO's
    Run("chord_mu"): 3e-3,
    Run("chord", objective="chord_phi"): 1.5e-3,
    Run("relift"): 3e-3,
}
LAMBDAS = (0.0, 0.5, 1.0, 1.5)  # factors of each adapter in the surface of task arithmetic
ADAPTER_EDITS = ("isospectral", "rounded", "unrounded")
CAT_STEPS = 20  # on top of the two adapters whose weights are learnt
PUBLISHED = """
    flip scale starts budget forgetting prompts rewards partitions quantised sft selection losses
    hybrids geometry transfer surface
""".split()
OVERLAPS = (0.0, 0.3, 1.0)  # shares of RL's rows that SFT has seen (arXiv:2604.13515)


def seeded(profile: Profile, *runs: Run) -> list[Run]:
    """Return a copy of each run for every seed of the profile, all runs of one seed together."""
    return [replace(run, seed=seed) for seed in profile.seeds for run in runs]


def after(first: Run, then: Run) -> list[Run]:
    """Return a run, and another one of the same seed that goes on from its adapter."""
    return [first, replace(then, start=first.id, seed=first.seed)]


def of_size(profile: Profile, method: str, size: int, **fields: Any) -> Run:
    """Return a run on `size` rows of each family.

    All of the profile's rows are the default, 0, so that the run has the id of the plain one.
    """
    return Run(method, n_train=0 if size == profile.n_train else size, **fields)


def sequences_per_step(profile: Profile, method: str) -> int:
    """Return how many sequences one optimizer step of SFT or GRPO sees."""
    options = getattr(profile, method)
    return options["per_device_train_batch_size"] * options.get("gradient_accumulation_steps", 1)


def steps_at_equal_visits(profile: Profile) -> int:
    """Return how many SFT steps use as many training rows as a whole GRPO run uses prompts."""
    samples = profile.grpo["max_steps"] * sequences_per_step(profile, "grpo")
    prompts = samples // profile.grpo["num_generations"]
    return -(-prompts // sequences_per_step(profile, "sft"))


def divided_budget(profile: Profile, share: float) -> tuple[Run, Run]:
    """Return SFT on a share of a budget of rows and steps, and the GRPO that gets the rest."""
    rows = dict(n_train=PER_BUDGET, partition="random", share=share)
    sft_steps = round(share * profile.sft["max_steps"])
    grpo_steps = round((1 - share) * profile.grpo["max_steps"])
    return Run("sft", **rows, steps=sft_steps), Run("grpo", **rows, steps=grpo_steps)


@GRIDS.register
def base(profile: Profile) -> list[Run]:
    """The untrained base: the bar that every arm must pass."""
    return [Run("base")]


@GRIDS.register
def sweep(profile: Profile) -> list[Run]:
    """Learning rates of SFT and GRPO, equally many each; for a profile that scores validation.

    Five seeds each: two do not tell neighbouring rates apart.
    """
    runs = [
        Run(method, learning_rate=rate)
        for method, rates in LEARNING_RATES.items()
        for rate in rates
    ]
    return base(profile) + seeded(replace(profile, seeds=tuple(range(5))), *runs)


@GRIDS.register
def quantised(profile: Profile) -> list[Run]:
    """SFT on the base in full precision and in 4 bits (QLoRA), and the latter through Unsloth."""
    unsloth = Run("sft", nf4=True, backend="unsloth", seed=profile.seeds[0])
    return base(profile) + seeded(profile, Run("sft"), Run("sft", nf4=True)) + [unsloth]


@GRIDS.register
def sft(profile: Profile) -> list[Run]:
    """What SFT can vary: rank, length, target and objective, one at a time."""
    arms = [Run("sft")]
    if profile.full:
        arms += [Run("sft", learning_rate=ALTERNATIVE_RATES["sft"])]
        arms += [Run("sft", rank=rank) for rank in (2, 32)]
        arms += [Run("sft", steps=steps) for steps in (steps_at_equal_visits(profile), 40, 240)]
        arms += [Run("sft", target=target) for target in ("answer", "own")]
        arms += [Run("sft", objective=name) for name in OBJECTIVES_COMPARED[1:]]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def prompts(profile: Profile) -> list[Run]:
    """SFT, GRPO, and SFT whose prompts vary: what do other prompt templates cost each?"""
    if not profile.full:
        return base(profile)
    asked = [Run("sft"), Run("grpo"), Run("sft", target="templates")]
    arms = [replace(run, also=PROMPTS) for run in asked]
    return [Run("base", also=PROMPTS), *seeded(profile, *arms)]


@GRIDS.register
def starts(profile: Profile) -> list[Run]:
    """What GRPO makes of SFT by different objectives, and of SFT that was stopped early."""
    firsts = [Run("sft", objective=name) for name in ("nll", "dft", "asft")]
    firsts.append(Run("sft", steps=steps_at_equal_visits(profile)))
    firsts = firsts if profile.full else firsts[:1]
    pairs = [after(first, Run("grpo")) for first in seeded(profile, *firsts)]
    return base(profile) + seeded(profile, Run("grpo")) + [run for pair in pairs for run in pair]


@GRIDS.register
def rewards(profile: Profile) -> list[Run]:
    """What RL is rewarded for: right answers, parts of them, or a coin (the control)."""
    reward_sets = REWARD_SETS if profile.full else REWARD_SETS[1:2]
    arms = [Run("grpo"), *(Run("grpo", rewards=names) for names in reward_sets)]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def losses(profile: Profile) -> list[Run]:
    """TRL's GRPO losses on twice-used samples, group size, temperature, KL to base and to SFT."""
    if not profile.full:
        return base(profile) + seeded(profile, Run("grpo"))
    variants = (
        "loss_type=grpo",
        "loss_type=dapo",
        "loss_type=dr_grpo",
        "loss_type=cispo",
        "importance_sampling_level=sequence",
    )
    arms = [Run("grpo"), *(Run("grpo", options=("num_iterations=2", v)) for v in variants)]
    single = ("num_generations=4", "temperature=0.7", "temperature=1.3", "beta=0.05")
    arms += [Run("grpo", options=(option,)) for option in single]
    arms += [Run("grpo", learning_rate=ALTERNATIVE_RATES["grpo"])]
    anchored = Run("grpo", options=("beta=0.05",))
    pairs = [after(first, anchored) for first in seeded(profile, Run("sft"))]
    return base(profile) + seeded(profile, *arms) + [run for pair in pairs for run in pair]


@GRIDS.register
def scale(profile: Profile) -> list[Run]:
    """Distinct rows at equal optimizer steps; in full also SFT at equal visits of rows."""
    sizes = TRAIN_SIZES if profile.full else (25, 0)  # 0 = all of the profile's
    arms = [of_size(profile, method, n) for n in sizes for method in ("sft", "grpo")]
    if profile.full:
        arms += [of_size(profile, "sft", n, steps=steps_at_equal_visits(profile)) for n in sizes]
        reward_sets = ("correct", "arithmetic"), ("format",)
        arms += [Run("grpo", n_train=sizes[2], rewards=names) for names in reward_sets]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def budget(profile: Profile) -> list[Run]:
    """One budget of rows and steps, divided between SFT and the GRPO that follows it."""
    if not profile.full:
        return base(profile)
    whole = [Run(method, n_train=PER_BUDGET) for method in ("sft", "grpo")]
    runs = base(profile) + seeded(profile, *whole)
    for share in BUDGET_SHARES:
        first, then = divided_budget(profile, share)
        runs += [run for one in seeded(profile, first) for run in after(one, then)]
    return runs


@GRIDS.register
def selection(profile: Profile) -> list[Run]:
    """A few rows, chosen by the base's pass rate or at random."""
    rules = ("window", "sample") if profile.full else ()
    arms = [
        Run(method, select=rule, n_train=PER_SELECTION)
        for rule in rules
        for method in ("sft", "grpo")
    ]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def flip(profile: Profile) -> list[Run]:
    """SFT and GRPO on rows that the base solves never, seldom, often, nearly always."""
    arms = []
    for name in BUCKETS if profile.full else ():
        rows = dict(select=name, n_train=PER_BUCKET)
        arms += [
            Run("sft", **rows),
            Run("sft", **rows, steps=steps_at_equal_visits(profile)),
            Run("grpo", **rows),
        ]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def forgetting(profile: Profile) -> list[Run]:
    """Trained on one family: what becomes of the others?"""
    arms = []
    for name in profile.datasets if profile.full else ():
        arms += [
            Run("sft", on=(name,)),
            Run("sft", on=(name,), objective="dft"),
            Run("grpo", on=(name,)),
        ]
    return base(profile) + seeded(profile, *arms)


# ---------------------------------------------------------------- SFT and RL together


def halves(rule: str, seed: int) -> list[Run]:
    """Return SFT and GRPO, each on its part of the rows."""
    return [Run(method, partition=rule, seed=seed) for method in ("sft", "grpo")]


def merged(parents: Sequence[Run], how: str, lambdas: tuple[float, ...] = ()) -> Run:
    """Return the merge of some runs, with the seed of the first.

    Args:
        how: Name of a merging operator.
        lambdas: A factor for each parent, for the operator `sum` alone; () = all 1.
    """
    ids = tuple(run.id for run in parents)
    return Run("merge", parents=ids, merge=how, seed=parents[0].seed, lambdas=lambdas)


def mixed(profile: Profile) -> list[Run]:
    """Return the CHORD and ReLIFT runs and their controls, as long as SFT and GRPO together.

    As long: with as many sequences; what ReLIFT and its control imitate comes on top.
    """
    grpo_step = sequences_per_step(profile, "grpo")
    total = sum(
        getattr(profile, method)["max_steps"] * sequences_per_step(profile, method)
        for method in ("sft", "grpo")
    )
    runs = []
    for run, rate in MIXED_RATES.items():
        imitated = DEMONSTRATIONS_PER_SAMPLE if "chord" in run.method else 0
        steps = round(total / (grpo_step * (1 + imitated)))
        runs.append(replace(run, steps=steps, learning_rate=rate))
    _, phi, relift = runs
    return [*runs, replace(phi, objective="nll"), replace(relift, method="interleave")]


def twice_as_long(profile: Profile, method: str) -> Run:
    """Return one method for as long as two stages take."""
    return Run(method, steps=2 * getattr(profile, method)["max_steps"])


@GRIDS.register
def partitions(profile: Profile) -> list[Run]:
    """Rows divided between SFT and GRPO, trained apart, merged; against stages on all rows."""
    runs = base(profile)
    operators = OPERATORS_COMPARED if profile.full else ("mean", "norm_matched")
    for seed in profile.seeds:
        whole = [Run(method, seed=seed) for method in ("sft", "grpo")]
        runs += [*whole, *after(whole[0], Run("grpo")), merged(whole, "mean")]
        for rule in ("random", "passrate"):
            parts = halves(rule, seed)
            tried = operators if rule == "passrate" else ("mean",)
            runs += [*parts, *(merged(parts, operator) for operator in tried)]
    return list(dict.fromkeys(runs))


@GRIDS.register
def choices(profile: Profile) -> list[Run]:
    """What else is chosen on validation rows: the merge, and the rates of mixed trainings."""
    rates = {m: getattr(PROFILES["tiny-full"], m)["learning_rate"] for m in LEARNING_RATES}
    runs = base(profile)
    for seed in profile.seeds:
        parts = [replace(run, learning_rate=rates[run.method]) for run in halves("passrate", seed)]
        runs += [*parts, *(merged(parts, how) for how in MERGES)]
    tried = [
        replace(run, learning_rate=rate)
        for run in mixed(profile)[: len(MIXED_RATES)]
        for rate in LEARNING_RATES["grpo"]
    ]
    return runs + seeded(profile, *tried)


@GRIDS.register
def hybrids(profile: Profile) -> list[Run]:
    """Every way to have SFT and RL: stages, one training, merges.

    As many sequences as SFT and GRPO get together, but for SFT, GRPO and the halves by themselves,
    which have half, and for what `mixed` and `cat` spend on top.
    """
    if not profile.full:
        return base(profile)
    alone = [twice_as_long(profile, method) for method in ("sft", "grpo")]
    arms = [Run("sft"), Run("grpo"), *alone, *mixed(profile)]
    runs = base(profile) + seeded(profile, *arms)
    for seed in profile.seeds:
        whole = [Run(method, seed=seed) for method in ("sft", "grpo")]
        runs += after(whole[0], Run("grpo")) + after(whole[1], Run("sft"))
        runs += [Run("stack", start=whole[0].id, seed=seed), merged(whole, MERGE)]
        for rule in RULES_COMPARED:
            parts = halves(rule, seed)
            runs += [*parts, merged(parts, MERGE)]
            if rule in ("random", "passrate"):
                runs += after(parts[0], replace(parts[1], seed=seed))
        ids = tuple(run.id for run in halves("passrate", seed))
        runs += [Run("route", parents=ids, seed=seed)]
        runs += [Run("cat", parents=ids, steps=CAT_STEPS, seed=seed)]
        first, then = halves("random", seed)
        runs += [after(first, replace(then, overlap=share))[1] for share in OVERLAPS]
    return list(dict.fromkeys(runs))


@GRIDS.register
def surface(profile: Profile) -> list[Run]:
    """Task arithmetic on the halves by pass rate: accuracy over the factors of both adapters."""
    runs = base(profile)
    for seed in profile.seeds if profile.full else ():
        parts = halves("passrate", seed)
        corners = (0, 0), (0, 1), (1, 0)  # the base and the halves themselves
        pairs = [pair for pair in itertools.product(LAMBDAS, repeat=2) if pair not in corners]
        runs += [*parts, *(merged(parts, "sum", () if p == (1, 1) else p) for p in pairs)]
    return runs


def transferred(source: str, target: str, seed: int) -> list[Run]:
    """Return what RL adds to SFT on one family, added to SFT on another (PaST), parents first."""
    first, aim = (Run("sft", on=(name,), seed=seed) for name in (source, target))
    then = after(first, Run("grpo", on=(source,)))[1]
    return [first, aim, then, merged([then, first, aim], "sum", (1.0, -1.0, 1.0))]


@GRIDS.register
def transfer(profile: Profile) -> list[Run]:
    """Does what RL adds to SFT on one family help SFT on another? PaST, arXiv:2601.11258."""
    if not profile.full:
        return base(profile)
    pairs = list(itertools.permutations(profile.datasets, 2))
    runs = [run for seed in profile.seeds for pair in pairs for run in transferred(*pair, seed)]
    return list(dict.fromkeys(base(profile) + runs))


def adapter_pairs(profile: Profile) -> dict[str, list[Run]]:
    """Return pairs of adapters to compare, as their means: description -> one merge per seed.

    Each with one of the next seed, because the same seed draws the same initial A.
    """
    seeds = profile.seeds
    ring = list(zip(seeds, [*seeds[1:], seeds[0]], strict=True))

    def pair(one: Run, other: Run) -> list[Run]:
        return [merged([replace(one, seed=s), replace(other, seed=t)], "mean") for s, t in ring]

    sft, grpo = Run("sft"), Run("grpo")
    pairs = {
        "SFT and SFT": pair(sft, sft),
        "GRPO and GRPO": pair(grpo, grpo),
        "SFT and GRPO": pair(sft, grpo),
        "SFT and GRPO of one seed": [
            merged([replace(sft, seed=seed), replace(grpo, seed=seed)], "mean") for seed in seeds
        ],
    }
    if len(profile.datasets) > 1:
        one, other = (replace(sft, on=(name,)) for name in profile.datasets[:2])
        pairs["SFT on one family and SFT on another"] = pair(one, other)
    return pairs


@GRIDS.register
def geometry(profile: Profile) -> list[Run]:
    """The angles between updates and to the base, and the effect of restoring or rounding them."""
    if not profile.full:
        return base(profile)
    trained = [Run("sft"), Run("grpo"), *(Run("sft", on=(name,)) for name in profile.datasets[:2])]
    runs = base(profile) + seeded(profile, *trained)
    runs += [run for pairs in adapter_pairs(profile).values() for run in pairs]
    runs += [
        modified(how, method, seed)
        for seed in profile.seeds
        for how in ADAPTER_EDITS
        for method in ("sft", "grpo")
    ]
    return list(dict.fromkeys(runs))


def modified(how: str, method: str, seed: int) -> Run:
    """Return the run that changes a trained adapter: its spectrum restored, rounded, or neither.

    Args:
        how: one of ADAPTER_EDITS, or "" for the adapter as it is.
    """
    plain = Run(method, seed=seed)
    return Run(how, start=plain.id, seed=seed) if how else plain


@GRIDS.register
def unpublished(profile: Profile) -> list[Run]:
    """Entries of registries that no published grid names: one arm each, for a first look."""
    objectives = [
        Run("sft", objective=name) for name in OBJECTIVES if name not in OBJECTIVES_COMPARED
    ]
    runs = base(profile) + seeded(profile, *objectives)
    for seed in profile.seeds:
        for rule in (name for name in RULES if name not in ("all", *RULES_COMPARED)):
            parts = halves(rule, seed)
            runs += [*parts, merged(parts, MERGE)]
        for operator in (name for name in OPERATORS if name not in OPERATORS_COMPARED):
            parts = halves("passrate", seed)
            runs += [*parts, merged(parts, operator)]
    return list(dict.fromkeys(runs))


@GRIDS.register
def ranking(profile: Profile) -> list[Run]:
    """The arms that the last chapter ranks: all of small grids, of large ones the main ones."""
    if not profile.full:
        return everything(profile)
    runs = [run for name in ("partitions", "starts", "rewards") for run in GRIDS[name](profile)]
    return list(dict.fromkeys(runs))


@GRIDS.register
def everything(profile: Profile) -> list[Run]:
    """All runs of all chapters, each once."""
    return list(dict.fromkeys(run for name in PUBLISHED for run in GRIDS[name](profile)))
