"""What is one model under test? A Run: what was trained, on which rows, how, from where."""

import functools
import math
from dataclasses import Field, dataclass, field, fields
from typing import Any

from hybridlib import StudyError
from hybridlib.profiles import BACKENDS
from hybridlib.registry import REGISTRIES

LARGEST_SEED = 2**32 - 1  # that numpy takes
ID_NAMES = dict(  # field -> its name in an id
    learning_rate="lr", n_train="n", partition="by", rewards="reward", reward_weights="weights",
    start="after", parents="of", merge="by", options="with", objective="loss", teacher="taught-by",
)  # fmt: skip


def registry_field(kind: str, default: Any) -> Any:
    """Declare a field that names an entry, or a tuple of entries, of the registry of this kind."""
    return field(default=default, metadata={"registry": kind})


def at_least(low: int, **numbers: float) -> None:
    """Check numbers that go by the names of flags.

    Raises:
        StudyError: names the flag of a number that is below `low`, or not finite.
    """
    for name, value in numbers.items():
        if not (value >= low and math.isfinite(value)):
            flag = f"--{name.replace('_', '-')}"
            raise StudyError(f"{flag} {value:g} makes no sense; give a number from {low} on")


@dataclass(frozen=True)
class Run:
    """Everything about one model under test: the flags, the table's columns, the file name.

    A new field needs a default that means what runs did before it, so that ids and records stay
    valid. Names of entries are checked against every registry that has been imported;
    `hybridlib.study` imports all of them.

    Raises:
        StudyError: an unknown name (with the valid ones), or fields that contradict each other.
    """

    method: str = field(metadata={"registry": "training method"})  # base, sft, grpo, merge, ...
    adapter: str = registry_field("adapter", "lora")
    rank: int = 8
    nf4: bool = False  # 4-bit NormalFloat base: QLoRA
    backend: str = "hf"  # or unsloth
    learning_rate: float = 0.0  # 0 = the profile's
    steps: int = 0  # optimizer steps, 0 = the profile's
    n_train: int = 0  # training rows per dataset, 0 = the profile's
    partition: str = registry_field("partition rule", "all")  # rule that gives this method its rows
    rewards: tuple[str, ...] = registry_field("reward", ("correct",))
    reward_weights: tuple[float, ...] = ()  # () = all 1
    start: str = ""  # id of the run whose adapter is trained on
    parents: tuple[str, ...] = ()  # ids of the runs to merge, or to route between
    merge: str = registry_field("merge method", "")
    seed: int = 0
    on: tuple[str, ...] = ()  # the profile's datasets that it trains on, () = all
    # chooses the n_train rows, "" = by their hash
    select: str = registry_field("selection rule", "")
    share: float = 0.5  # of the rows that a partition gives to SFT
    target: str = registry_field("target", "solution")  # what SFT imitates
    objective: str = registry_field("objective", "nll")  # what SFT minimises
    options: tuple[str, ...] = ()  # name=value of TRL's config, over the profile's
    overlap: float = 0.0  # share of RL's rows that SFT has seen, too
    also: tuple[str, ...] = ()  # splits that are scored beside the profile's
    lambdas: tuple[float, ...] = ()  # factors of the parents in a merge by sum, () = all 1
    teacher: str = ""  # id of the run whose model teaches, "" = none
    temperature: float = 1.0  # of the answers that are sampled to test the base

    def __post_init__(self) -> None:
        for spec in _fields():  # JSON and flags give lists
            if isinstance(spec.default, tuple):
                object.__setattr__(self, spec.name, tuple(getattr(self, spec.name)))
        self._check_numbers()
        self._check_names()
        self._check_method()
        self._check_rows()

    def _check_numbers(self) -> None:
        at_least(1, rank=self.rank)
        at_least(0, steps=self.steps, n_train=self.n_train, seed=self.seed)
        at_least(0, learning_rate=self.learning_rate)
        if self.seed > LARGEST_SEED:
            raise StudyError(f"--seed {self.seed} is too large; at most {LARGEST_SEED}")
        for name in ("reward_weights", "lambdas"):
            if not all(map(math.isfinite, getattr(self, name))):
                raise StudyError(f"--{name.replace('_', '-')} takes finite numbers")

    def _check_names(self) -> None:
        if self.backend not in BACKENDS:
            valid = ", ".join(BACKENDS)
            raise StudyError(f"unknown backend {self.backend!r}; valid: {valid}")
        for kind, names in self.entries().items():
            for name in names:
                if kind in REGISTRIES:
                    REGISTRIES[kind][name]  # raises with the valid names
        if wrong := [option for option in self.options if "=" not in option]:
            raise StudyError(f"option {wrong[0]!r} is not name=value")

    def _check_method(self) -> None:
        if "training method" in REGISTRIES:
            method = REGISTRIES["training method"][self.method]
            needs = method.needs
            if self.backend not in method.backends:
                valid = " or ".join(method.backends)
                raise StudyError(f"{self.method} needs the backend {valid}")
            if "parents" in needs and len(self.parents) < 2:
                raise StudyError(f"a {self.method} needs at least two parents: --parents ID ID")
            if (self.method == "merge") != bool(self.merge):
                raise StudyError("--merge NAME goes with --method merge, and the other way round")
            if "start" in needs and (not self.start or self.parents):
                raise StudyError(f"a {self.method} needs the one run that it changes: --start ID")
            if "solutions" not in needs and (self.target, self.objective) != ("solution", "nll"):
                raise StudyError("target and objective belong to SFT")
            if ("teacher" in needs) != bool(self.teacher):
                raise StudyError(
                    f"a {self.method} needs the run that teaches: --teacher ID"
                    if "teacher" in needs
                    else f"a {self.method} has no teacher; leave out --teacher"
                )
        if self.temperature != 1 and (self.method != "base" or self.temperature <= 0):
            raise StudyError(
                "a temperature is a positive number and goes with --method base; trained models "
                "are tested at 1, and every model greedily beside that"
            )
        if self.lambdas and (self.merge != "sum" or len(self.lambdas) != len(self.parents)):
            raise StudyError("lambdas go with --merge sum, one for each parent")
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            raise StudyError(f"{len(self.rewards)} rewards need as many weights")

    def _check_rows(self) -> None:
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

    def entries(self) -> dict[str, tuple[str, ...]]:
        """Return the entries that this run names, by the kind of their registry."""
        return {
            spec.metadata["registry"]: _names(getattr(self, spec.name))
            for spec in _fields()
            if "registry" in spec.metadata and self._applies(spec)
        }

    def _applies(self, spec: Field) -> bool:
        """Tell whether a field has a meaning here; `merge` has one in merges alone."""
        return spec.name != "merge" or self.method == "merge"

    @functools.cached_property
    def id(self) -> str:
        """The method and the fields that are not at their default, so a new field changes no id."""
        parts = [self.method]
        for spec in _fields()[1:]:
            value = getattr(self, spec.name)
            if value == spec.default:
                continue
            if value is True:
                parts.append(spec.name)
            else:
                text = "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
                parts.append(f"{ID_NAMES.get(spec.name, spec.name)}-{text}")
        return "_".join(parts)

    @property
    def prerequisites(self) -> tuple[str, ...]:
        """Ids of the runs whose adapters this one reads: parents or start, and the teacher."""
        before = self.parents or ((self.start,) if self.start else ())
        return (*before, self.teacher) if self.teacher else before


@functools.cache
def _fields() -> tuple[Field, ...]:
    """Return the fields of a run; a judgement of claims makes thousands of runs."""
    return fields(Run)


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return value
