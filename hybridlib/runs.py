"""What is one model under test? A Run: what was trained, on which rows, how, from where."""

from dataclasses import dataclass, fields

from hybridlib import StudyError
from hybridlib.adapters import ADAPTERS
from hybridlib.merging.operators import OPERATORS
from hybridlib.objectives import OBJECTIVES
from hybridlib.partition import RULES, SELECTIONS
from hybridlib.profiles import BACKENDS
from hybridlib.rewards import REWARDS
from hybridlib.targets import TARGETS

MIXED = ("chord_mu", "chord", "relift", "interleave")  # SFT and RL in one training
COMBINING = ("merge", "route", "cat")  # of several adapters
CHANGING = ("stack", "isospectral", "rounded", "unrounded")  # of one adapter
TRAINING = ("base", "sft", "grpo", *MIXED, *COMBINING, *CHANGING)
SHORT = dict(  # field -> its name in an id
    learning_rate="lr", n_train="n", partition="by", rewards="reward", reward_weights="weights",
    start="after", parents="of", merge="by", options="with", objective="loss",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Everything about one model under test: the flags, the table's columns, the file name.

    A new field needs a default that means what runs did before it; ids and records stay valid.
    """

    method: str  # base, sft, grpo, merge or route
    adapter: str = "lora"
    rank: int = 8
    nf4: bool = False  # 4-bit NormalFloat base: QLoRA
    backend: str = "hf"  # or unsloth
    learning_rate: float = 0.0  # 0 = the profile's
    steps: int = 0  # optimizer steps, 0 = the profile's
    n_train: int = 0  # training rows per dataset, 0 = the profile's
    partition: str = "all"  # rule that gives this method its part of the rows
    rewards: tuple[str, ...] = ("correct",)
    reward_weights: tuple[float, ...] = ()  # () = all 1
    start: str = ""  # id of the run whose adapter is trained on
    parents: tuple[str, ...] = ()  # ids of the runs to merge, or to route between
    merge: str = ""  # merge method
    seed: int = 0
    on: tuple[str, ...] = ()  # the profile's datasets that it trains on, () = all
    select: str = ""  # rule that chooses the n_train rows, "" = by a hash of their content
    share: float = 0.5  # of the rows that a partition gives to SFT
    target: str = "solution"  # what SFT imitates
    objective: str = "nll"  # what SFT minimises
    options: tuple[str, ...] = ()  # name=value of TRL's config, over the profile's
    overlap: float = 0.0  # share of RL's rows that SFT has seen, too
    also: tuple[str, ...] = ()  # splits that are scored beside the profile's
    lambdas: tuple[float, ...] = ()  # factors of the parents in a merge by sum, () = all 1

    def __post_init__(self) -> None:
        for field in fields(self):  # JSON and flags give lists
            if isinstance(field.default, tuple):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        for kind, valid, name in (
            ("method", TRAINING, self.method),
            ("backend", BACKENDS, self.backend),
        ):
            if name not in valid:
                raise StudyError(f"unknown {kind} {name!r}; valid: {', '.join(valid)}")
        for registry, names in (
            (ADAPTERS, [self.adapter]), (RULES, [self.partition]), (REWARDS, self.rewards),
            (OPERATORS, [self.merge] if self.method == "merge" else []),
            (SELECTIONS, [self.select] if self.select else []),
            (TARGETS, [self.target]), (OBJECTIVES, [self.objective]),
        ):  # fmt: skip
            for name in names:
                registry[name]
        if self.method in COMBINING and len(self.parents) < 2:
            raise StudyError(f"a {self.method} needs at least two parents: --parents ID ID")
        if self.method in CHANGING and (not self.start or self.parents):
            raise StudyError(f"a {self.method} needs the one run that it changes: --start ID")
        if self.lambdas and (self.merge != "sum" or len(self.lambdas) != len(self.parents)):
            raise StudyError("lambdas go with --merge sum, one for each parent")
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            raise StudyError(f"{len(self.rewards)} rewards need as many weights")
        if not 0 < self.share < 1:
            raise StudyError(
                f"a share of {self.share:g} leaves one method without rows; 0 < share < 1"
            )
        if not 0 <= self.overlap <= 1 or (self.overlap and self.partition == "all"):
            raise StudyError(
                "an overlap is a share, 0 to 1, of the rows that a --partition gives RL"
            )
        if self.select and not self.n_train:
            raise StudyError("--select needs --n-train: how many rows per dataset are kept")
        if wrong := [option for option in self.options if "=" not in option]:
            raise StudyError(f"option {wrong[0]!r} is not name=value")
        imitates = self.method in ("sft", *MIXED)
        if not imitates and (self.target, self.objective) != ("solution", "nll"):
            raise StudyError("target and objective belong to SFT")

    @property
    def id(self) -> str:
        """The method and the fields that are not at their default: new fields rename nothing."""
        parts = [self.method]
        for f in fields(self)[1:]:
            value = getattr(self, f.name)
            if value != f.default:
                text = "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
                parts.append(f.name if value is True else f"{SHORT.get(f.name, f.name)}-{text}")
        return "_".join(parts)

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the runs whose adapters this one starts from."""
        return self.parents or ((self.start,) if self.start else ())
