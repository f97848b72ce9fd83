"""Which runs answer a chapter's question? One decorated function per grid.

A grid is small where a build computes it while the reader waits, and large where the profile says
`full`: the published evidence. There the arms that a claim rests on have all seeds of the profile,
its first stage (`claims --next` adds the later ones), and those that are only shown have FEW.

Arms that are compared cost equally many operations, unless their name says else: SFT takes the
steps after which its validation curve is flat, GRPO alone those of the profile, and GRPO that
shares with SFT what is left of them (`second`).
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
    "sft": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "grpo": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3),
}
"""Learning rates tried on validation rows, equally many for each method."""
ALTERNATIVE_RATES = {"sft": 4e-3, "grpo": 2e-3}
"""Rates not significantly different there from those of `tiny-full`, trained as a control."""
REWARD_SETS = (
    ("format",),
    ("random",),
    ("arithmetic",),
    ("correct", "format"),
    ("correct", "arithmetic"),
)
TRAIN_SIZES = (16, 64, 256, 1024)  # distinct training rows of each family
PER_REWARD = 64  # training rows of each family, where few rows meet several rewards
BUDGET_SHARES = (0.1, 0.25, 0.5)  # shares of the operations that go to SFT
PER_BUCKET, PER_SELECTION = 32, 64  # training rows of each family
PASSES = {"sft": 3, "grpo": 4}
"""Passes of the model over a sequence: forward and back, where the way back counts twice; GRPO
samples it, too. What is read once for several answers, and padding, is left out: the page of claims
has the operations that were counted."""
FEW = 3  # seeds of arms that no claim rests on
RING = 5  # seeds among which pairs of adapters are closed; divides the seeds of every stage

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
OTHER_MERGES = ("mean", "norm_matched")  # shown beside it
MIXED_RATES = {  # a training of both losses -> its rate, chosen there too, from as many as GRPO's
    Run("chord_mu"): 3e-3,
    Run("chord", objective="chord_phi"): 1.5e-3,
    Run("relift"): 3e-3,
}
LAMBDAS = (0.0, 0.5, 1.0, 1.5)  # factors of each adapter in the surface of task arithmetic
ADAPTER_EDITS = ("isospectral", "rounded", "unrounded")
CAT_STEPS = 20  # on top of the two adapters whose weights are learnt
PUBLISHED = """
    core flip scale starts budget forgetting rewards partitions quantised sft selection losses
    hybrids geometry transfer surface
""".split()
OVERLAPS = (0.0, 0.3, 1.0)  # shares of RL's rows that SFT has seen (arXiv:2604.13515)


def seeded(profile: Profile, *runs: Run) -> list[Run]:
    """Return a copy of each run for every seed of the profile, all runs of one seed together."""
    return [replace(run, seed=seed) for seed in profile.seeds for run in runs]


def few(profile: Profile) -> Profile:
    """Return the profile with the seeds of arms that no claim rests on."""
    return replace(profile, seeds=profile.seeds[:FEW])


def once(*runs: Run) -> list[Run]:
    """Return the runs, each once, in order."""
    return list(dict.fromkeys(runs))


def after(first: Run, then: Run) -> list[Run]:
    """Return a run, and another one of the same seed that goes on from its adapter."""
    return [first, replace(then, start=first.id, seed=first.seed)]


def of_size(profile: Profile, method: str, size: int, **fields: Any) -> Run:
    """Return a run on `size` rows of each family.

    All of the profile's rows are the default, 0, so that the run has the id of the plain one.
    """
    return Run(method, n_train=0 if size == profile.n_train else size, **fields)


def of_length(profile: Profile, method: str, steps: int, **fields: Any) -> Run:
    """Return a run of so many optimizer steps; the profile's own are the default, 0."""
    own = getattr(profile, method)["max_steps"]
    return Run(method, steps=0 if steps == own else steps, **fields)


# ---------------------------------------------------------------- what is equal


def sequences_per_step(profile: Profile, method: str) -> int:
    """Return how many sequences one optimizer step of SFT or GRPO sees."""
    options = getattr(profile, method)
    return options["per_device_train_batch_size"] * options.get("gradient_accumulation_steps", 1)


def steps_at_equal_visits(profile: Profile) -> int:
    """Return how many SFT steps use as many training rows as a whole GRPO run uses prompts."""
    return -(-_sequences(profile) // profile.grpo["num_generations"] // _per_step(profile))


def steps_at_equal_sequences(profile: Profile) -> int:
    """Return how many SFT steps put as many sequences through the optimizer as a GRPO run."""
    return -(-_sequences(profile) // _per_step(profile))


def _sequences(profile: Profile) -> int:
    return profile.grpo["max_steps"] * sequences_per_step(profile, "grpo")


def _per_step(profile: Profile) -> int:
    return sequences_per_step(profile, "sft")


def steps_of_cost(profile: Profile, method: str, share: float = 1.0) -> int:
    """Return how many steps of SFT or GRPO cost a share of the operations of GRPO alone."""
    budget = share * PASSES["grpo"] * _sequences(profile)
    return max(1, round(budget / (PASSES[method] * sequences_per_step(profile, method))))


def second(profile: Profile, **fields: Any) -> Run:
    """Return GRPO for as long as it may after or beside SFT, at the operations of GRPO alone."""
    sft = PASSES["sft"] * profile.sft["max_steps"] * sequences_per_step(profile, "sft")
    share = sft / (PASSES["grpo"] * _sequences(profile))
    return Run("grpo", steps=steps_of_cost(profile, "grpo", 1 - share), **fields)


def divided_budget(profile: Profile, share: float) -> tuple[Run, Run]:
    """Return SFT for a share of the operations, and the GRPO that gets the rest; all rows each."""
    first = of_length(profile, "sft", steps_of_cost(profile, "sft", share))
    return first, Run("grpo", steps=steps_of_cost(profile, "grpo", 1 - share))


def divided_rows(profile: Profile, share: float) -> tuple[Run, Run]:
    """Return SFT on a share of the rows, and the GRPO that gets the others and comes after it."""
    rows = dict(partition="random", share=share)
    return Run("sft", **rows), second(profile, **rows)


@GRIDS.register
def base(profile: Profile) -> list[Run]:
    """The untrained base: the bar that every arm must pass."""
    return [Run("base")]


@GRIDS.register
def sweep(profile: Profile) -> list[Run]:
    """Learning rates of SFT and GRPO, equally many each; for a profile that scores validation."""
    runs = [
        Run(method, learning_rate=rate)
        for method, rates in LEARNING_RATES.items()
        for rate in rates
    ]
    return base(profile) + seeded(profile, *runs)


@GRIDS.register
def quantised(profile: Profile) -> list[Run]:
    """SFT on the base in full precision and in 4 bits (QLoRA), and the latter through Unsloth."""
    unsloth = Run("sft", nf4=True, backend="unsloth", seed=profile.seeds[0])
    return base(profile) + seeded(profile, Run("sft"), Run("sft", nf4=True)) + [unsloth]


@GRIDS.register
def sft(profile: Profile) -> list[Run]:
    """What SFT can vary: rank, length, target and objective, one at a time."""
    arms = []
    if profile.full:
        arms += [Run("sft", learning_rate=ALTERNATIVE_RATES["sft"])]
        arms += [Run("sft", rank=rank) for rank in (2, 32)]
        arms += [of_length(profile, "sft", steps_at_equal_visits(profile))]
        arms += [twice_as_long(profile, "sft")]
        arms += [Run("sft", target=target) for target in ("answer", "own")]
        arms += [Run("sft", objective=name) for name in OBJECTIVES_COMPARED[1:]]
    return once(*base(profile), *seeded(profile, Run("sft")), *seeded(few(profile), *arms))


@GRIDS.register
def starts(profile: Profile) -> list[Run]:
    """What GRPO makes of SFT by different objectives, and of SFT that was stopped early."""
    firsts = seeded(profile, Run("sft"))
    if profile.full:
        firsts += seeded(profile, Run("sft", objective="dft"))
        stopped = of_length(profile, "sft", steps_at_equal_visits(profile))
        firsts += seeded(few(profile), Run("sft", objective="asft"), stopped)
    pairs = [after(first, second(profile)) for first in firsts]
    whole = seeded(profile, Run("grpo"))
    return once(*base(profile), *whole, *(run for pair in pairs for run in pair))


@GRIDS.register
def rewards(profile: Profile) -> list[Run]:
    """What RL is rewarded for: right answers, parts of them, or a coin (the control)."""
    reward_sets = REWARD_SETS if profile.full else REWARD_SETS[1:2]
    arms = [Run("grpo", rewards=names) for names in reward_sets]
    return base(profile) + seeded(profile, Run("grpo")) + seeded(few(profile), *arms)


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
    arms = [Run("grpo", options=("num_iterations=2", variant)) for variant in variants]
    single = ("num_generations=4", "temperature=0.7", "temperature=1.3", "beta=0.05")
    arms += [Run("grpo", options=(option,)) for option in single]
    arms += [Run("grpo", learning_rate=ALTERNATIVE_RATES["grpo"])]
    anchored = second(profile, options=("beta=0.05",))
    pairs = [
        run
        for first in seeded(few(profile), Run("sft"))
        for then in (second(profile), anchored)
        for run in after(first, then)
    ]
    whole = seeded(profile, Run("grpo"))
    return once(*base(profile), *whole, *seeded(few(profile), *arms), *pairs)


@GRIDS.register
def scale(profile: Profile) -> list[Run]:
    """Distinct rows at each method's own steps; in full also SFT at equal visits and sequences."""
    sizes = TRAIN_SIZES if profile.full else (25, 0)  # 0 = all of the profile's
    arms = [of_size(profile, method, n) for n in sizes for method in ("sft", "grpo")]
    runs = base(profile)
    if profile.full:
        arms += [on_few_rows("correct", "arithmetic")]
        shown = [
            of_size(profile, "sft", n, steps=run.steps) for run in lengths(profile) for n in sizes
        ]
        runs += seeded(few(profile), *shown, on_few_rows("format"))
    return once(*runs, *seeded(profile, *arms))


def on_few_rows(*rewards: str) -> Run:
    """Return GRPO on PER_REWARD rows of each family, paid by these rewards."""
    return Run("grpo", n_train=PER_REWARD, rewards=rewards)


def lengths(profile: Profile) -> list[Run]:
    """Return SFT with as many visits of rows as GRPO has prompts, and with as many sequences."""
    steps = steps_at_equal_visits(profile), steps_at_equal_sequences(profile)
    return [of_length(profile, "sft", count) for count in steps]


@GRIDS.register
def budget(profile: Profile) -> list[Run]:
    """One budget of operations, divided between SFT and the GRPO after it; and rows divided so."""
    if not profile.full:
        return base(profile)
    runs = base(profile) + seeded(profile, Run("grpo"))
    runs += seeded(few(profile), of_length(profile, "sft", steps_of_cost(profile, "sft")))
    for share in BUDGET_SHARES:
        first, then = divided_budget(profile, share)
        seeds = profile if share == BUDGET_SHARES[0] else few(profile)
        runs += [run for one in seeded(seeds, first) for run in after(one, then)]
    first, then = divided_rows(profile, BUDGET_SHARES[0])
    runs += [run for one in seeded(profile, first) for run in after(one, then)]
    return once(*runs)


@GRIDS.register
def selection(profile: Profile) -> list[Run]:
    """A few rows, chosen by the base's pass rate or at random."""
    rules = ("window", "sample") if profile.full else ()
    arms = [
        Run(method, select=rule, n_train=PER_SELECTION)
        for rule in rules
        for method in ("sft", "grpo")
    ]
    return base(profile) + seeded(few(profile), *arms)


def of_bucket(method: str, bucket: str, steps: int = 0) -> Run:
    """Return a run on rows of one bucket of pass rates, PER_BUCKET of each family."""
    return Run(method, select=bucket, n_train=PER_BUCKET, steps=steps)


@GRIDS.register
def core(profile: Profile) -> list[Run]:
    """What is compared at every size: a method on each bucket, both in turn, both merged."""
    if not profile.full:
        return base(profile)
    arms = [of_bucket(method, name) for name in BUCKETS for method in ("sft", "grpo")]
    runs = base(profile) + seeded(profile, Run("sft"), Run("grpo"), *arms)
    for seed in profile.seeds:
        runs += [stacked(profile, seed), *halves(profile, "passrate", seed)]
        runs += [hybrid(profile, "passrate", seed)]
    return once(*runs)


@GRIDS.register
def flip(profile: Profile) -> list[Run]:
    """SFT and GRPO on rows that the base solves never, seldom, often, nearly always."""
    buckets = BUCKETS if profile.full else ()
    arms = [of_bucket(method, name) for name in buckets for method in ("sft", "grpo")]
    shown = [of_bucket("sft", name, run.steps) for name in buckets for run in lengths(profile)]
    return once(*base(profile), *seeded(profile, *arms), *seeded(few(profile), *shown))


@GRIDS.register
def forgetting(profile: Profile) -> list[Run]:
    """Trained on one family: what becomes of the others?"""
    names = profile.datasets if profile.full else ()
    arms = [Run(method, on=(name,)) for name in names for method in ("sft", "grpo")]
    return base(profile) + seeded(profile, *arms)


# ---------------------------------------------------------------- SFT and RL together


def halves(profile: Profile, rule: str, seed: int) -> list[Run]:
    """Return SFT and GRPO, each on its part of the rows, at the operations of GRPO alone."""
    rows = dict(partition=rule, seed=seed)
    return [Run("sft", **rows), second(profile, **rows)]


def merged(parents: Sequence[Run], how: str, lambdas: tuple[float, ...] = ()) -> Run:
    """Return the merge of some runs, with the seed of the first.

    Args:
        how: Name of a merging operator.
        lambdas: A factor for each parent, for the operator `sum` alone; () = all 1.
    """
    ids = tuple(run.id for run in parents)
    return Run("merge", parents=ids, merge=how, seed=parents[0].seed, lambdas=lambdas)


def hybrid(profile: Profile, rule: str, seed: int, how: str = MERGE) -> Run:
    """Return the merge of halves."""
    return merged(halves(profile, rule, seed), how)


def stacked(profile: Profile, seed: int) -> Run:
    """Return GRPO after SFT, each on all rows, at the operations of GRPO alone."""
    return after(Run("sft", seed=seed), second(profile))[1]


def seen_rows(profile: Profile, seed: int, overlap: float) -> list[Run]:
    """Return SFT on a random half, and GRPO after it on rows of which SFT has seen a share."""
    first, then = halves(profile, "random", seed)
    return after(first, replace(then, overlap=overlap))


def mixed(profile: Profile) -> list[Run]:
    """Return the CHORD and ReLIFT runs and their controls, at the operations of GRPO alone.

    What ReLIFT and its control imitate comes on top.
    """
    runs = []
    for run, rate in MIXED_RATES.items():
        imitated = DEMONSTRATIONS_PER_SAMPLE if "chord" in run.method else 0
        cost = 1 + imitated * PASSES["sft"] / PASSES["grpo"]  # of a step, in steps of GRPO
        steps = round(profile.grpo["max_steps"] / cost)
        runs.append(replace(run, steps=steps, learning_rate=rate))
    _, phi, relift = runs
    return [*runs, replace(phi, objective="nll"), replace(relift, method="interleave")]


def twice_as_long(profile: Profile, method: str) -> Run:
    """Return one method for twice its steps: the control that more of it gains little."""
    return Run(method, steps=2 * getattr(profile, method)["max_steps"])


@GRIDS.register
def partitions(profile: Profile) -> list[Run]:
    """Rows divided between SFT and GRPO, trained apart, merged; against stages on all rows."""
    runs = base(profile)
    operators = OPERATORS_COMPARED if profile.full else (MERGE, *OTHER_MERGES)
    for seed in profile.seeds:
        whole = [Run(method, seed=seed) for method in ("sft", "grpo")]
        runs += [*whole, stacked(profile, seed), merged(whole, "mean")]
        for rule in ("random", "passrate"):
            parts = halves(profile, rule, seed)
            tried = operators if rule == "passrate" else ("mean",)
            runs += [*parts, *(merged(parts, operator) for operator in tried)]
    return once(*runs)


@GRIDS.register
def choices(profile: Profile) -> list[Run]:
    """What else is chosen on validation rows: the merge, and the rates of mixed trainings."""
    rates = {m: getattr(PROFILES["tiny-full"], m)["learning_rate"] for m in LEARNING_RATES}
    runs = base(profile)
    for seed in profile.seeds:
        parts = halves(profile, "passrate", seed)
        parts = [replace(run, learning_rate=rates[run.method]) for run in parts]
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

    Each at the operations of GRPO alone, but for SFT alone, which has what it can use, the halves
    by themselves, the doubled trainings (the controls), the merges of what both did on all rows,
    and what `stack`, GRPO then SFT, ReLIFT and `cat` spend on top.
    """
    if not profile.full:
        return base(profile)
    doubled = [twice_as_long(profile, method) for method in ("sft", "grpo")]
    runs = base(profile) + seeded(profile, Run("sft"), Run("grpo"))
    runs += seeded(few(profile), *doubled, *mixed(profile))
    for seed in profile.seeds:
        runs += [stacked(profile, seed)]
        for rule in ("passrate", "random"):
            runs += [*halves(profile, rule, seed), hybrid(profile, rule, seed)]
        runs += [run for share in (0.0, 1.0) for run in seen_rows(profile, seed, share)]
    for seed in few(profile).seeds:
        whole = [Run(method, seed=seed) for method in ("sft", "grpo")]
        runs += after(whole[1], Run("sft"))
        runs += [Run("stack", start=whole[0].id, seed=seed), merged(whole, MERGE)]
        for rule in RULES_COMPARED:
            runs += [*halves(profile, rule, seed), hybrid(profile, rule, seed)]
        runs += [run for share in OVERLAPS for run in seen_rows(profile, seed, share)]
        parts = halves(profile, "passrate", seed)
        runs += [hybrid(profile, "passrate", seed, how) for how in OTHER_MERGES]
        ids = tuple(run.id for run in parts)
        runs += [after(*parts)[1], Run("route", parents=ids, seed=seed)]
        runs += [Run("cat", parents=ids, steps=CAT_STEPS, seed=seed)]
    return once(*runs)


@GRIDS.register
def surface(profile: Profile) -> list[Run]:
    """Task arithmetic on the halves by pass rate: accuracy over the factors of both adapters."""
    runs = base(profile)
    for seed in few(profile).seeds if profile.full else ():
        parts = halves(profile, "passrate", seed)
        corners = (0, 0), (0, 1), (1, 0)  # the base and the halves themselves
        pairs = [pair for pair in itertools.product(LAMBDAS, repeat=2) if pair not in corners]
        runs += [*parts, *(merged(parts, "sum", () if p == (1, 1) else p) for p in pairs)]
    return runs


def transferred(profile: Profile, source: str, target: str, seed: int) -> list[Run]:
    """Return what RL adds to SFT on one family, added to SFT on another (PaST), parents first."""
    first, aim = (Run("sft", on=(name,), seed=seed) for name in (source, target))
    then = after(first, second(profile, on=(source,)))[1]
    return [first, aim, then, merged([then, first, aim], "sum", (1.0, -1.0, 1.0))]


@GRIDS.register
def transfer(profile: Profile) -> list[Run]:
    """Does what RL adds to SFT on one family help SFT on another? PaST, arXiv:2601.11258."""
    if not profile.full:
        return base(profile)
    pairs = list(itertools.permutations(profile.datasets, 2))
    runs = [
        run
        for seed in few(profile).seeds
        for pair in pairs
        for run in transferred(profile, *pair, seed)
    ]
    return once(*base(profile), *runs)


def adapter_pairs(profile: Profile) -> dict[str, list[Run]]:
    """Return pairs of adapters to compare, as their means: description -> one merge per seed.

    Each with one of the next seed, because the same seed draws the same initial A. Seeds go round
    in rings of RING, so that later seeds leave the pairs of earlier ones as they were.
    """
    seeds = profile.seeds
    ring = [
        (rest[place], rest[(place + 1) % len(rest)])
        for start in range(0, len(seeds), RING)
        for rest in [seeds[start : start + RING]]
        for place in range(len(rest))
    ]

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
    return once(*runs)


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
            runs += [*halves(profile, rule, seed), hybrid(profile, rule, seed)]
        for operator in (name for name in OPERATORS if name not in OPERATORS_COMPARED):
            parts = halves(profile, "passrate", seed)
            runs += [*parts, merged(parts, operator)]
    return once(*runs)


@GRIDS.register
def ranking(profile: Profile) -> list[Run]:
    """The arms that the last chapter ranks: all of small grids, of large ones the main ones."""
    if not profile.full:
        return everything(profile)
    runs = [run for name in ("partitions", "starts", "rewards") for run in GRIDS[name](profile)]
    return once(*runs)


@GRIDS.register
def everything(profile: Profile) -> list[Run]:
    """All runs of all chapters, each once."""
    return once(*(run for name in PUBLISHED for run in GRIDS[name](profile)))
