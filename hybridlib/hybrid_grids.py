"""Which runs join SFT and RL? The grids of chapters 5 and 6, and all of them together."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from hybridlib.grids import GRIDS, RATES, after, base, batch, seeded
from hybridlib.operators import METHODS
from hybridlib.partition import RULES
from hybridlib.profiles import PROFILES, Profile
from hybridlib.runs import Run

MERGES = ("sum", "mean", "norm_matched", "ties", "knots")
MERGE = "ties"  # the best of them in `tiny-sweep`, on validation rows
MIXED = {  # a training of both losses -> its rate, chosen there too, from as many as GRPO's
    Run("chord_mu"): 3e-3,
    Run("chord", objective="chord_phi"): 1.5e-3,
    Run("relift"): 3e-3,
}
LAMBDAS = (0.0, 0.5, 1.0, 1.5)  # factors of each adapter in the surface of task arithmetic
CHANGES = ("isospectral", "rounded", "unrounded")
CAT_STEPS = 20  # on top of the two adapters whose weights are learnt
OVERLAPS = (0.0, 0.3, 1.0)  # shares of RL's rows that SFT has seen (arXiv:2604.13515)


def halves(rule: str, seed: int) -> list[Run]:
    """SFT and GRPO, each on its part of the rows."""
    return [Run(method, partition=rule, seed=seed) for method in ("sft", "grpo")]


def merged(parents: Sequence[Run], how: str, lambdas: tuple[float, ...] = ()) -> Run:
    """The merge of some runs; it draws, where it draws, by the seed of the first."""
    ids = tuple(run.id for run in parents)
    return Run("merge", parents=ids, merge=how, seed=parents[0].seed, lambdas=lambdas)


def mixed(profile: Profile) -> list[Run]:
    """Trainings of both losses, and their controls, as long as SFT and GRPO are together.

    In sequences; what ReLIFT and its control imitate comes on top.
    """
    from hybridlib.hybrids import EXPERTS

    own = batch(profile, "grpo")
    total = sum(getattr(profile, m)["max_steps"] * batch(profile, m) for m in ("sft", "grpo"))
    runs = []
    for run, rate in MIXED.items():
        step = own * (1 + EXPERTS) if "chord" in run.method else own  # relift: of GRPO alone
        runs.append(replace(run, steps=round(total / step), learning_rate=rate))
    _, phi, relift = runs
    return [*runs, replace(phi, objective="nll"), replace(relift, method="interleave")]


def doubled(profile: Profile, method: str) -> Run:
    """One method for as long as two stages take."""
    return Run(method, steps=2 * getattr(profile, method)["max_steps"])


@GRIDS.register
def partitions(profile: Profile) -> list[Run]:
    """Rows divided between SFT and GRPO, trained apart, merged; against stages on all rows."""
    runs, kinds = base(profile), METHODS if profile.full else ("mean", "norm_matched")
    for seed in profile.seeds:
        whole = [Run(method, seed=seed) for method in ("sft", "grpo")]
        runs += [*whole, *after(whole[0], Run("grpo")), merged(whole, "mean")]
        for rule in ("random", "passrate"):
            parts = halves(rule, seed)
            runs += [
                *parts,
                *(merged(parts, m) for m in (kinds if rule == "passrate" else ["mean"])),
            ]
    return list(dict.fromkeys(runs))


@GRIDS.register
def choices(profile: Profile) -> list[Run]:
    """What else is chosen on validation rows: the merge, and the rates of mixed trainings."""
    rates = {m: getattr(PROFILES["tiny-full"], m)["learning_rate"] for m in RATES}
    runs = base(profile)
    for seed in profile.seeds:
        parts = [replace(run, learning_rate=rates[run.method]) for run in halves("passrate", seed)]
        runs += [*parts, *(merged(parts, how) for how in MERGES)]
    tried = [replace(run, learning_rate=rate)
             for run in mixed(profile)[: len(MIXED)] for rate in RATES["grpo"]]  # fmt: skip
    return runs + seeded(profile, *tried)


@GRIDS.register
def hybrids(profile: Profile) -> list[Run]:
    """Every way to have SFT and RL: stages, one training, merges.

    As many sequences as SFT and GRPO get together, but for SFT, GRPO and the halves by themselves,
    which have half, and for what `mixed` and `cat` spend on top.
    """
    if not profile.full:
        return base(profile)
    alone = [doubled(profile, method) for method in ("sft", "grpo")]
    arms = [Run("sft"), Run("grpo"), *alone, *mixed(profile)]
    runs = base(profile) + seeded(profile, *arms)
    for seed in profile.seeds:
        whole = [Run(method, seed=seed) for method in ("sft", "grpo")]
        runs += after(whole[0], Run("grpo")) + after(whole[1], Run("sft"))
        runs += [Run("stack", start=whole[0].id, seed=seed), merged(whole, MERGE)]
        for rule in (name for name in RULES if name != "all"):
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


def moved(source: str, target: str, seed: int) -> list[Run]:
    """What RL adds to SFT on one family, added to SFT on another (PaST), parents first."""
    first, aim = (Run("sft", on=(name,), seed=seed) for name in (source, target))
    then = after(first, Run("grpo", on=(source,)))[1]
    return [first, aim, then, merged([then, first, aim], "sum", (1.0, -1.0, 1.0))]


@GRIDS.register
def transfer(profile: Profile) -> list[Run]:
    """Does what RL adds to SFT on one family help SFT on another? PaST, arXiv:2601.11258."""
    if not profile.full:
        return base(profile)
    pairs = list(itertools.permutations(profile.datasets, 2))
    runs = [run for seed in profile.seeds for pair in pairs for run in moved(*pair, seed)]
    return list(dict.fromkeys(base(profile) + runs))


def neighbours(profile: Profile) -> dict[str, list[Run]]:
    """Pairs of adapters to compare, as their means: what -> one merge per seed.

    Each with one of the next seed, because the same seed draws the same initial A.
    """
    seeds = profile.seeds
    ring = list(zip(seeds, [*seeds[1:], seeds[0]], strict=True))

    def pair(one: Run, other: Run) -> list[Run]:
        return [merged([replace(one, seed=s), replace(other, seed=t)], "mean") for s, t in ring]

    sft, grpo = Run("sft"), Run("grpo")
    found = {
        "SFT and SFT": pair(sft, sft), "GRPO and GRPO": pair(grpo, grpo),
        "SFT and GRPO": pair(sft, grpo),
        "SFT and GRPO of one seed": [
            merged([replace(sft, seed=s), replace(grpo, seed=s)], "mean") for s in seeds
        ],
    }  # fmt: skip
    if len(profile.datasets) > 1:
        ones = [replace(sft, on=(name,)) for name in profile.datasets[:2]]
        found["SFT on one family and SFT on another"] = pair(*ones)
    return found


@GRIDS.register
def geometry(profile: Profile) -> list[Run]:
    """How updates lie to each other and to the base, and what restoring or rounding does."""
    if not profile.full:
        return base(profile)
    trained = [Run("sft"), Run("grpo"), *(Run("sft", on=(name,)) for name in profile.datasets[:2])]
    runs = base(profile) + seeded(profile, *trained)
    runs += [run for pairs in neighbours(profile).values() for run in pairs]
    runs += [changed(how, method, s) for s in profile.seeds for how in CHANGES
             for method in ("sft", "grpo")]  # fmt: skip
    return list(dict.fromkeys(runs))


def changed(how: str, method: str, seed: int) -> Run:
    """A trained adapter with its spectrum restored, or rounded as a merge rounds it, or not.

    how: one of CHANGES, "" for the adapter as it is.
    """
    plain = Run(method, seed=seed)
    return Run(how, start=plain.id, seed=seed) if how else plain


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
    chapters = (
        "flip", "scale", "starts", "budget", "forgetting", "prompts", "rewards", "partitions",
        "quantised", "sft", "selection", "losses", "hybrids", "geometry", "transfer", "surface",
    )  # fmt: skip
    return list(dict.fromkeys(run for name in chapters for run in GRIDS[name](profile)))
