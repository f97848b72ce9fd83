"""What is run? One Run a model under test, the grids of the chapters, the pipeline of a run."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, StudyError, results
from hybridlib.adapters import ADAPTERS
from hybridlib.merge import METHODS
from hybridlib.partition import RULES
from hybridlib.profiles import BACKENDS, Profile, local
from hybridlib.registry import Registry
from hybridlib.rewards import REWARDS

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

TRAINING = ("base", "sft", "grpo", "merge")
SHORT = dict(  # field -> its name in an id
    learning_rate="lr", n_train="n", partition="by", rewards="reward", reward_weights="weights",
    start="after", parents="of", merge="by",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Everything about one model under test: the flags, the table's columns, the file name."""

    method: str  # base, sft, grpo or merge
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
    parents: tuple[str, ...] = ()  # ids of the runs to merge
    merge: str = ""  # merge method
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rewards", "reward_weights", "parents"):  # JSON and flags give lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for kind, valid, name in (
            ("method", TRAINING, self.method),
            ("backend", BACKENDS, self.backend),
        ):
            if name not in valid:
                raise StudyError(f"unknown {kind} {name!r}; valid: {', '.join(valid)}")
        for registry, names in (
            (ADAPTERS, [self.adapter]), (RULES, [self.partition]), (REWARDS, self.rewards),
            (METHODS, [self.merge] if self.method == "merge" else []),
        ):  # fmt: skip
            for name in names:
                registry[name]
        if self.method == "merge" and len(self.parents) < 2:
            raise StudyError("a merge needs at least two parents: --parents ID ID")
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            raise StudyError(f"{len(self.rewards)} rewards need as many weights")

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


GRIDS = Registry("grid")  # name -> (profile) -> runs of a chapter


def _seeded(profile: Profile, *runs: Run) -> list[Run]:
    return [replace(run, seed=seed) for seed in profile.seeds for run in runs]


@GRIDS.register
def base(profile: Profile) -> list[Run]:
    """The untrained base: the bar that every arm must pass."""
    return [Run("base")]


@GRIDS.register
def sft(profile: Profile) -> list[Run]:
    """QLoRA against LoRA, and the same QLoRA arm through Unsloth."""
    arms = Run("sft"), Run("sft", nf4=True), Run("sft", nf4=True, backend="unsloth")
    return base(profile) + _seeded(profile, *arms)


@GRIDS.register
def rewards(profile: Profile) -> list[Run]:
    """What RL is paid for: right answers, their form alone, or a coin (the control)."""
    paid = [("correct",), ("format",), ("random",)]
    return base(profile) + _seeded(profile, *(Run("grpo", rewards=r) for r in paid))


@GRIDS.register
def scale(profile: Profile) -> list[Run]:
    """Distinct rows at equal optimizer steps; GRPO, which costs more, at both ends only."""
    arms = [Run("sft", n_train=n) for n in (25, 100, 0)]  # 0 = all of the profile's
    arms += [Run("grpo", n_train=n) for n in (25, 0)]
    return base(profile) + _seeded(profile, *arms)


@GRIDS.register
def partitions(profile: Profile) -> list[Run]:
    """Rows divided between SFT and GRPO, trained apart, merged; against stages on all rows."""
    runs = base(profile)
    for seed in profile.seeds:
        whole = [Run(method, seed=seed) for method in ("sft", "grpo")]
        runs += [*whole, Run("grpo", start=whole[0].id, seed=seed)]
        ids = tuple(run.id for run in whole)
        runs.append(Run("merge", parents=ids, merge="mean", seed=seed))
        for rule in ("random", "passrate"):
            halves = [Run(method, partition=rule, seed=seed) for method in ("sft", "grpo")]
            merges = METHODS if rule == "passrate" else ["mean"]
            ids = tuple(run.id for run in halves)
            runs += [*halves, *(Run("merge", parents=ids, merge=m, seed=seed) for m in merges)]
    return runs


@GRIDS.register
def everything(profile: Profile) -> list[Run]:
    """All runs of all chapters, each once."""
    runs = [run for grid in (sft, rewards, scale, partitions) for run in grid(profile)]
    return list(dict.fromkeys(runs))


def folder(run_id: str, profile: Profile) -> Path:
    """Where a run keeps its adapter and checkpoints (never in git)."""
    return ROOT / "runs" / profile.name / run_id


def rows_for(run: Run, profile: Profile) -> "Dataset":
    """The training rows of a run: all datasets, limited, and its method's part of the partition."""
    from datasets import concatenate_datasets

    from hybridlib import data, difficulty, partition

    limit = run.n_train or profile.n_train
    rows = [data.load(name, "train", limit, profile.columns) for name in profile.datasets]
    rows = concatenate_datasets(rows)
    measured = getattr(RULES[run.partition], "needs_passrate", False)
    rates = difficulty.passrate(profile, rows) if measured else None
    part = partition.split(rows, run.partition, run.seed, rates)
    return part.sft if run.method == "sft" else part.rl


def execute(run: Run, profile: Profile, save: bool = True, force: bool = False) -> dict[str, Any]:
    """The whole pipeline: rows, train or merge, evaluate, one record.

    Args:
        save: write the record; a verification compares it instead.
        force: replace a stored record that differs.
    """
    from hybridlib import evaluate, models

    models.use(run.backend)
    trained, facts = _train(run, profile, _workspace(run, profile))
    began = time.perf_counter()
    model, tokenizer = models.load(
        profile, start=trained.adapter if trained else None, nf4=run.nf4 or profile.nf4,
        backend=run.backend, trainable=False,
    )  # fmt: skip
    # Every arm is compared with the base: its noise would be in all differences at once.
    doubled = min(9, 2 * profile.n_samples) if run.method == "base" else 0
    scored = evaluate.score(model, tokenizer, profile, samples=doubled)
    cost = {"train_seconds": 0.0, "tokens": 0, "trainable": 0, "peak_gb": 0.0}
    record = {
        "id": run.id, "profile": profile.name, "run": asdict(run), "setting": asdict(profile),
        **scored,
        "curve": trained.curve if trained else [],
        "cost": cost | (trained.cost if trained else {})
        | {"eval_seconds": round(time.perf_counter() - began, 2)},
        "facts": facts | (trained.facts if trained else {}),
        "provenance": results.provenance(backend=run.backend, model=models.revision(profile)),
    }  # fmt: skip
    if save:
        results.save(record, force=force)
    return record


def _workspace(run: Run, profile: Profile) -> Path:
    """The run's folder; what another setting or other code left there is thrown away."""
    out = folder(run.id, profile)
    note = out / "started.json"
    today = results.plain([asdict(run), asdict(profile), results.fingerprint()])
    if not (note.exists() and json.loads(note.read_text()) == today):
        shutil.rmtree(out, ignore_errors=True)
        results.write(note, json.dumps(today))
    return out


def _train(run: Run, profile: Profile, out: Path) -> tuple[Any, dict[str, Any]]:
    from hybridlib import merge, train

    if run.method == "base":
        return None, {}
    if run.method == "merge":
        adapters = [folder(parent, profile) / "adapter" for parent in run.parents]
        origin = local(profile.model)
        facts = merge.combine(adapters, run.merge, out / "adapter", run.seed, base=origin)
        return train.Trained(out / "adapter", [], {}), facts
    rows = rows_for(run, profile)
    start = folder(run.start, profile) / "adapter" if run.start else None
    return getattr(train, run.method)(run, profile, rows, out, start), {"rows": len(rows)}


def execute_all(
    runs: Sequence[Run], profile: Profile, workers: int = 0, force: bool = False
) -> "pd.DataFrame":
    """Execute what is missing, in worker processes that import the heavy libraries once; the table.

    What is finished stays, so that a second call goes on where the first stopped.

    Args:
        workers: processes at once; 0 = one per `profile.threads` cores, or one per GPU.
        force: run again what is stored.
    Raises:
        StudyError: stale results (see `results.find`), or runs that failed, by name.
    """
    from hybridlib.pool import Pool

    if todo := plan(runs, profile, force):
        with Pool(profile, workers) as pool:
            pool.work(todo)
    return results.table(profile.name)


def plan(runs: Sequence[Run], profile: Profile, force: bool = False) -> dict[Run, str]:
    """What has to run, and why: run -> reason, parents first.

    A parent whose adapter is gone (only records are in git) is trained again when a missing run
    needs it.
    """
    known = {run.id: run for run in runs}
    todo: dict[Run, str] = {}

    def visit(run: Run, why: str) -> None:
        if run in todo:
            return
        for need in run.needs:
            parent = known.get(need) or recorded(need, profile)
            if not (folder(need, profile) / "adapter").is_dir():
                visit(parent, f"{run.id} needs its adapter")
        todo[run] = why

    for run in known.values():
        if force:
            visit(run, "forced")
        else:
            results.find(run, profile)  # raises where the stored record means something else
            if reason := results.stale_reason(run, profile):
                visit(run, reason)
    return todo


def recorded(run_id: str, profile: Profile) -> Run:
    """The run behind a stored record."""
    for record in results.read(profile.name):
        if record["id"] == run_id:
            return Run(**record["run"])
    raise StudyError(f"no run {run_id!r} in {profile.name}; python -m hybridlib table lists them")
