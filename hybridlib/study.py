"""How is a run carried out? Rows, training or merging, evaluation, one record; and many of them."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, fingerprint, preflight, results, weights
from hybridlib.files import read_json, recorded_times, run_folder, write
from hybridlib.grids import GRIDS
from hybridlib.methods import METHODS, Job, Trained
from hybridlib.partition import RULES, SELECTIONS
from hybridlib.pool import Pool
from hybridlib.profiles import Profile
from hybridlib.rewards import REWARDS
from hybridlib.runs import Run
from hybridlib.targets import TARGETS

if TYPE_CHECKING:
    from datasets import Dataset

# All registries whose entries a Run may name are imported with this module: Run checks the names.
__all__ = [
    "GRIDS",
    "METHODS",
    "REWARDS",
    "Run",
    "execute",
    "execute_all",
    "plan",
    "recorded",
    "rows_for",
]


def execute(run: Run, profile: Profile, save: bool = True, force: bool = False) -> dict[str, Any]:
    """Carry out the whole pipeline: rows, train or merge, evaluate; return the record.

    Writes the adapter into the run's folder and, with `save`, the record into the results.

    Args:
        save: write the record; a verification compares it instead.
        force: replace a stored record that differs.
    """
    from hybridlib import drift, evaluate, models

    models.import_backend(run.backend)
    trained, row_facts = _train(run, profile, _workspace(run, profile))
    began = time.perf_counter()
    model, tokenizer = trained.model or models.load(
        profile,
        start=trained.adapter,
        nf4=run.nf4 or profile.nf4,
        backend=run.backend,
        trainable=False,
    )
    # Every arm is compared with the base: its noise would be in all differences at once.
    samples = min(9, 2 * profile.n_samples) if run.method == "base" else 0
    splits = (*profile.splits, *run.also)
    evaluated = evaluate.score(
        model, tokenizer, profile, splits, samples=samples, temperature=run.temperature
    )
    facts = row_facts | {"solutions": evaluated.pop("solutions")}
    sandbox = evaluated.pop("sandbox")
    if profile.drift:
        facts["drift"] = drift.measure(model, tokenizer, profile)
    cost = {"train_seconds": 0.0, "tokens": 0, "trainable": 0, "peak_gb": 0.0}
    record = {
        "id": run.id,
        "profile": profile.name,
        "run": asdict(run),
        "setting": asdict(profile),
        **evaluated,
        "curve": trained.curve,
        **({"checkpoints": trained.checkpoints} if trained.checkpoints else {}),
        "cost": cost | trained.cost | {"eval_seconds": round(time.perf_counter() - began, 2)},
        "facts": facts | trained.facts,
        "provenance": results.provenance(
            backend=run.backend,
            trained=trained.weights,
            model=models.revision(profile),
            code=fingerprint.digests_of(run, profile),
            **({"sandbox": sandbox} if sandbox is not None else {}),
        ),
    }
    if save:
        results.save(record, force=force)
    return record


def check(run: Run, profile: Profile) -> None:
    """Raise StudyError where a run names a data set, split or template that is not there."""
    from hybridlib.data import SPLITS, TEMPLATES

    for name in run.on:
        if name not in profile.datasets:
            valid = ", ".join(profile.datasets)
            raise StudyError(f"{name!r} is not trained on; valid: {valid}")
    for name in run.also:
        split, _, template = name.partition("@")
        if split not in SPLITS or (template and template not in TEMPLATES):
            raise StudyError(
                f"unknown split {name!r}; valid: {', '.join(SPLITS)}, "
                f"each with @ and one of {', '.join(TEMPLATES)}"
            )


def rows_for(run: Run, profile: Profile) -> "Dataset":
    """Return the training rows of a run: its datasets, selected or limited, its part of them.

    A method that imitates solutions by SFT gets the part of SFT, with the run's target in place of
    the solutions; every other one the part of RL.

    Samples the base's answers where a rule needs pass rates that are not stored yet.
    """
    from datasets import concatenate_datasets

    from hybridlib import data, difficulty, partition

    check(run, profile)
    names = run.on or profile.datasets
    limit = profile.n_train if run.select else run.n_train or profile.n_train
    rows = concatenate_datasets(
        [data.load(n, "train", limit, profile.columns, profile.ask) for n in names]
    )
    rules = [RULES[run.partition], *([SELECTIONS[run.select]] if run.select else [])]
    rates = None
    if any(getattr(rule, "needs_passrate", False) for rule in rules):
        rates = difficulty.pass_rates(profile, rows)
    if run.select:
        selected = partition.select(rows, run.select, run.n_train, run.seed, rates)
        rows = rows.select(selected)
        rates = rates and [rates[index] for index in selected]
    parts = partition.split(rows, run.partition, run.seed, rates, run.share, run.overlap)
    method = METHODS[run.method]
    if method.trainer == "sft" and "solutions" in method.needs:
        return TARGETS[run.target](parts.sft, profile, run.seed)
    return parts.rl


def _workspace(run: Run, profile: Profile) -> Path:
    """Return the run's folder; what another setting or other code left there is thrown away."""
    out = run_folder(run.id, profile.name)
    note = out / "started.json"
    today = results.as_json([asdict(run), asdict(profile), fingerprint.digests_of(run, profile)])
    if _noted(note) != today:
        shutil.rmtree(out, ignore_errors=True)
        write(note, json.dumps(today))
    return out


def _noted(note: Path) -> Any:
    """Return what a run noted when it was started, None where that is absent or damaged."""
    try:
        return read_json(note)
    except StudyError:
        return None


def _train(run: Run, profile: Profile, out: Path) -> tuple[Trained, dict[str, Any]]:
    """Train as the run's method does; return what it left behind, and how many rows it read."""
    for need in run.prerequisites:
        folder = _adapter_folder(need, profile)
        weights.check_adapter(folder)
        weights.check_finite([folder / weights.ADAPTER_WEIGHTS])
    method = METHODS[run.method]
    job = Job(
        run,
        profile,
        out,
        rows=rows_for(run, profile) if "rows" in method.needs else None,
        start=_adapter_folder(run.start, profile),
        parents=tuple(_adapter_folder(parent, profile) for parent in run.parents),
        teacher=_adapter_folder(run.teacher, profile),
    )
    return method(job), {} if job.rows is None else {"rows": len(job.rows)}


def _adapter_folder(run_id: str, profile: Profile) -> Path | None:
    return run_folder(run_id, profile.name) / "adapter" if run_id else None


def _adapter_damage(run_id: str, profile: Profile) -> str:
    """Return why the adapter of a run cannot be used, "" where it can."""
    folder = _adapter_folder(run_id, profile)
    if not folder.is_dir():
        return "it is gone"
    try:
        weights.check_adapter(folder)
    except StudyError as error:
        return str(error)
    return ""


def execute_all(
    runs: Sequence[Run],
    profile: Profile,
    workers: int = 0,
    force: bool = False,
    gate: Callable[[Run, Profile], None] | None = None,
) -> None:
    """Execute the runs that are missing, in worker processes, and store their records.

    What is finished stays, so that a second call goes on where the first stopped. Calls at the same
    time share the work: each run is executed by one of them, and all return when all are done.

    Args:
        workers: processes at once; 0 = one per `profile.threads` cores, or one per GPU.
        force: run again what is stored.
        gate: called before the last of the runs to execute, when the others are done; raises where
            it is not to be started.
    Raises:
        StudyError: stale results (see `results.find`), what `preflight` finds before anything runs,
            or runs that failed, by name.
    """
    seen = recorded_times(profile.name)
    if todo := [*plan(runs, profile, force)]:
        preflight.check(todo, profile)
        with Pool(profile, execute, workers) as pool:
            if gate:
                *before, last = todo
                if before:
                    pool.work(before, seen=seen)
                gate(last, profile)
                todo = [last]
            pool.work(todo, seen=seen)


def plan(runs: Sequence[Run], profile: Profile, force: bool = False) -> dict[Run, str]:
    """Return what has to run, and why: run -> reason, parents first.

    A parent whose adapter is gone (only records are in git) or damaged is trained again when a
    missing run needs it.
    """
    known = {run.id: run for run in runs}
    todo: dict[Run, str] = {}

    def visit(run: Run, why: str) -> None:
        if run in todo:
            return
        for need in run.prerequisites:
            if damage := _adapter_damage(need, profile):
                parent = known.get(need) or recorded(need, profile)
                visit(parent, f"{run.id} needs its adapter: {damage}")
        todo[run] = why

    for run in known.values():
        check(run, profile)
        if force:
            visit(run, "forced")
            continue
        results.find(run, profile)  # raises where the stored record means something else
        if reason := results.stale_reason(run, profile):
            visit(run, reason)
    return todo


def recorded(run_id: str, profile: Profile) -> Run:
    """Return the run of the stored record with this id.

    Raises:
        StudyError: no such run is stored.
    """
    for record in results.read(profile.name):
        if record["id"] == run_id:
            return Run(**record["run"])
    raise StudyError(f"no run {run_id!r} in {profile.name}; python -m hybridlib table lists them")
