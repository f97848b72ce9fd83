"""Which runs answer a chapter's question? One decorated function per grid.

A grid is small where a build computes it while the reader waits, and large where the profile says
`full`: the published evidence, five seeds.
"""

from dataclasses import replace
from typing import Any

from hybridlib.objectives import OBJECTIVES
from hybridlib.partition import BUCKETS
from hybridlib.profiles import Profile
from hybridlib.registry import Registry
from hybridlib.runs import Run

GRIDS = Registry("grid")  # name -> (profile) -> runs of a chapter
RATES = {"sft": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), "grpo": (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2)}
"""Learning rates tried on validation rows, equally many for each method."""
AS_GOOD = {"sft": 4e-3, "grpo": 3e-3}
"""Not told apart there from the rates that `tiny-full` uses: what is the choice worth?"""
PAID = ("format",), ("random",), ("arithmetic",), ("correct", "format"), ("correct", "arithmetic")
SIZES = (16, 32, 64, 128, 256, 1024)  # distinct training rows of each family
PROMPTS = tuple(f"test@{way}" for way in ("plain", "label", "polite", "steps", "exam"))
BUDGET = (0.1, 0.25, 0.5)  # shares of a budget that go to SFT
PER_BUCKET, PER_SELECTION, PER_BUDGET = 32, 64, 128  # training rows of each family


def seeded(profile: Profile, *runs: Run) -> list[Run]:
    return [replace(run, seed=seed) for seed in profile.seeds for run in runs]


def after(first: Run, then: Run) -> list[Run]:
    """A run, and another one of the same seed on its adapter."""
    return [first, replace(then, start=first.id, seed=first.seed)]


def of_size(profile: Profile, method: str, n: int, **fields: Any) -> Run:
    """A run on n rows of each family; on all that the profile has, it is the plain run."""
    return Run(method, n_train=0 if n == profile.n_train else n, **fields)


def batch(profile: Profile, method: str) -> int:
    """How many sequences does one optimizer step of a method see?"""
    own = getattr(profile, method)
    return own["per_device_train_batch_size"] * own.get("gradient_accumulation_steps", 1)


def visits(profile: Profile) -> int:
    """SFT steps after which SFT has visited as many rows as GRPO has prompts."""
    rows = profile.grpo["max_steps"] * batch(profile, "grpo") // profile.grpo["num_generations"]
    return -(-rows // batch(profile, "sft"))


def shared(profile: Profile, share: float) -> tuple[Run, Run]:
    """SFT on a share of a budget of rows and steps, and the GRPO that gets the rest."""
    rows = dict(n_train=PER_BUDGET, partition="random", share=share)
    steps = [round(part * own["max_steps"])
             for part, own in ((share, profile.sft), (1 - share, profile.grpo))]  # fmt: skip
    return Run("sft", **rows, steps=steps[0]), Run("grpo", **rows, steps=steps[1])


@GRIDS.register
def base(profile: Profile) -> list[Run]:
    """The untrained base: the bar that every arm must pass."""
    return [Run("base")]


@GRIDS.register
def sweep(profile: Profile) -> list[Run]:
    """Learning rates of SFT and GRPO, equally many each; for a profile that scores validation.

    Five seeds each: two do not tell neighbouring rates apart.
    """
    runs = [Run(method, learning_rate=rate) for method, rates in RATES.items() for rate in rates]
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
        arms += [Run("sft", learning_rate=AS_GOOD["sft"])]
        arms += [Run("sft", rank=rank) for rank in (2, 32)]
        arms += [Run("sft", steps=steps) for steps in (visits(profile), 40, 240)]
        arms += [Run("sft", target=target) for target in ("answer", "own")]
        arms += [Run("sft", objective=name) for name in OBJECTIVES if name != "nll"]
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
    firsts.append(Run("sft", steps=visits(profile)))
    firsts = firsts if profile.full else firsts[:1]
    pairs = [after(first, Run("grpo")) for first in seeded(profile, *firsts)]
    return base(profile) + seeded(profile, Run("grpo")) + [run for pair in pairs for run in pair]


@GRIDS.register
def rewards(profile: Profile) -> list[Run]:
    """What RL is paid for: right answers, parts of them, or a coin (the control)."""
    paid = PAID if profile.full else PAID[1:2]
    arms = [Run("grpo"), *(Run("grpo", rewards=names) for names in paid)]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def losses(profile: Profile) -> list[Run]:
    """TRL's GRPO losses on twice-used samples, group size, temperature, KL to base and to SFT."""
    if not profile.full:
        return base(profile) + seeded(profile, Run("grpo"))
    kinds = [("loss_type=grpo",), ("loss_type=dapo",), ("loss_type=dr_grpo",), ("loss_type=cispo",),
             ("importance_sampling_level=sequence",)]  # fmt: skip
    arms = [Run("grpo"), *(Run("grpo", options=("num_iterations=2", *kind)) for kind in kinds)]
    single = ("num_generations=4", "temperature=0.7", "temperature=1.3", "beta=0.05")
    arms += [Run("grpo", options=(option,)) for option in single]
    arms += [Run("grpo", learning_rate=AS_GOOD["grpo"])]
    anchored = Run("grpo", options=("beta=0.05",))
    pairs = [after(first, anchored) for first in seeded(profile, Run("sft"))]
    return base(profile) + seeded(profile, *arms) + [run for pair in pairs for run in pair]


@GRIDS.register
def scale(profile: Profile) -> list[Run]:
    """Distinct rows at equal optimizer steps; in full also SFT at equal visits of rows."""
    sizes = SIZES if profile.full else (25, 0)  # 0 = all of the profile's
    arms = [of_size(profile, method, n) for n in sizes for method in ("sft", "grpo")]
    if profile.full:
        arms += [of_size(profile, "sft", n, steps=visits(profile)) for n in sizes]
        paid = ("correct", "arithmetic"), ("format",)
        arms += [Run("grpo", n_train=sizes[2], rewards=names) for names in paid]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def budget(profile: Profile) -> list[Run]:
    """One budget of rows and steps, divided between SFT and the GRPO that follows it."""
    if not profile.full:
        return base(profile)
    whole = [Run(method, n_train=PER_BUDGET) for method in ("sft", "grpo")]
    runs = base(profile) + seeded(profile, *whole)
    for share in BUDGET:
        first, then = shared(profile, share)
        runs += [run for one in seeded(profile, first) for run in after(one, then)]
    return runs


@GRIDS.register
def selection(profile: Profile) -> list[Run]:
    """A few rows, chosen by the base's pass rate or at random."""
    rules = ("window", "sample") if profile.full else ()
    arms = [Run(method, select=rule, n_train=PER_SELECTION)
            for rule in rules for method in ("sft", "grpo")]  # fmt: skip
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def flip(profile: Profile) -> list[Run]:
    """SFT and GRPO on rows that the base solves never, seldom, often, nearly always."""
    arms = []
    for name in BUCKETS if profile.full else ():
        rows = dict(select=name, n_train=PER_BUCKET)
        arms += [Run("sft", **rows), Run("sft", **rows, steps=visits(profile)), Run("grpo", **rows)]
    return base(profile) + seeded(profile, *arms)


@GRIDS.register
def forgetting(profile: Profile) -> list[Run]:
    """Trained on one family: what becomes of the others?"""
    arms = []
    for name in profile.datasets if profile.full else ():
        arms += [Run("sft", on=(name,)), Run("sft", on=(name,), objective="dft"),
                 Run("grpo", on=(name,))]  # fmt: skip
    return base(profile) + seeded(profile, *arms)


from hybridlib import hybrid_grids  # noqa: E402, F401  (it registers its grids)
