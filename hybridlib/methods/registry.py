"""What is a training method? A function from a job to what training left behind, and its facts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridlib.profiles import Profile
from hybridlib.registry import Registry
from hybridlib.runs import Run

if TYPE_CHECKING:
    from datasets import Dataset

METHODS = Registry("training method", "trainer", "needs", "words", "backends")
"""Name -> `fn(job) -> Trained`, with the facts

trainer: whose steps and options a run has, "sft" or "grpo" for TRL's trainers, "" without training;
needs: what a job has to hold: "rows" (training rows), "solutions" (a target and an objective, to
    imitate them; with the trainer "sft", the rows are those of SFT in a partition), "start" (one
    adapter), "parents" (two adapters or more), "teacher" (a model);
words: what a reader calls it; fields of the run may stand in braces;
backends: of `profiles.BACKENDS`, those that can carry it out.
"""


@dataclass(frozen=True)
class Job:
    """What a training method is given; folders of adapters are those of finished runs."""

    run: Run
    profile: Profile
    out: Path  # where checkpoints and the adapter go
    rows: "Dataset | None" = None
    start: Path | None = None  # adapter to go on from, or to change
    parents: tuple[Path, ...] = ()  # adapters to combine
    teacher: Path | None = None  # adapter of the model that teaches

    @property
    def nf4(self) -> bool:
        """Whether the base is loaded in 4-bit NormalFloat."""
        return self.run.nf4 or self.profile.nf4


class Trained(NamedTuple):
    """What training leaves behind: the adapter's folder, the curve by logged step, cost, facts."""

    adapter: Path | None = None  # None: the base as it is
    curve: list[dict[str, float]] = []
    cost: dict[str, float] = {}
    facts: dict[str, Any] = {}  # of GRPO: `reward_shares.facts`; of a merge: `merge.combine`'s
    weights: dict[str, Any] = {}  # which learnt: `adapters.learning`
    model: Any = None  # (model, tokenizer) to evaluate, where the result is not one adapter
    checkpoints: list[dict[str, Any]] = []  # see `methods.checkpoints`
