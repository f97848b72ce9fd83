"""How is a run carried out? Rows, training or merging, evaluation, one record; and many of them."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, StudyError, fingerprint, results
from hybridlib.grids import GRIDS
from hybridlib.partition import RULES, SELECTIONS
from hybridlib.profiles import Profile
from hybridlib.runs import TRAINING, Run
from hybridlib.targets import TARGETS

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

__all__ = [
    "GRIDS",
    "TRAINING",
    "Run",
    "execute",
    "execute_all",
    "folder",
    "plan",
    "recorded",
    "rows_for",
]


def folder(run_id: str, profile: Profile) -> Path:
    """Where a run keeps its adapter and checkpoints (never in git)."""
    return ROOT / "runs" / profile.name / run_id


def rows_for(run: Run, profile: Profile) -> "Dataset":
    """The training rows of a run: its datasets, selected or limited, its part of the partition."""
    from datasets import concatenate_datasets

    from hybridlib import data, difficulty, partition

    limit = 0 if run.select else run.n_train
    names = run.on or profile.datasets
    if unknown := set(names) - set(profile.datasets):
        raise StudyError(
            f"{unknown.pop()!r} is not trained on; valid: {', '.join(profile.datasets)}"
        )
    limit = limit or profile.n_train
    rows = concatenate_datasets([data.load(n, "train", limit, profile.columns) for n in names])
    rules = RULES[run.partition], SELECTIONS[run.select] if run.select else None
    rates = None
    if any(getattr(rule, "needs_passrate", False) for rule in rules):
        rates = difficulty.pass_rates(profile, rows)
    if run.select:
        kept = partition.select(rows, run.select, run.n_train, run.seed, rates)
        rows, rates = rows.select(kept), rates and [rates[index] for index in kept]
    halves = partition.split(rows, run.partition, run.seed, rates, run.share, run.overlap)
    if run.method != "sft":
        return halves.rl
    return TARGETS[run.target](halves.sft, profile, run.seed)


def execute(run: Run, profile: Profile, save: bool = True, force: bool = False) -> dict[str, Any]:
    """The whole pipeline: rows, train or merge, evaluate, one record.

    Args:
        save: write the record; a verification compares it instead.
        force: replace a stored record that differs.
    """
    from hybridlib import drift, evaluate, models

    models.use(run.backend)
    trained, facts = _train(run, profile, _workspace(run, profile))
    began = time.perf_counter()
    model, tokenizer = trained.model or models.load(
        profile, start=trained.adapter, nf4=run.nf4 or profile.nf4, backend=run.backend,
        trainable=False,
    )  # fmt: skip
    # Every arm is compared with the base: its noise would be in all differences at once.
    doubled = min(9, 2 * profile.n_samples) if run.method == "base" else 0
    splits = (*profile.splits, *run.also)
    scored = evaluate.score(model, tokenizer, profile, splits, samples=doubled)
    facts["solutions"] = scored.pop("solutions")
    if profile.drift:
        facts["drift"] = drift.measure(model, tokenizer, profile)
    cost = {"train_seconds": 0.0, "tokens": 0, "trainable": 0, "peak_gb": 0.0}
    record = {
        "id": run.id, "profile": profile.name, "run": asdict(run), "setting": asdict(profile),
        **scored,
        "curve": trained.curve,
        "cost": cost | trained.cost | {"eval_seconds": round(time.perf_counter() - began, 2)},
        "facts": facts | trained.facts,
        "provenance": results.provenance(
            backend=run.backend, model=models.revision(profile), code=fingerprint.of(run, profile)
        ),
    }  # fmt: skip
    if save:
        results.save(record, force=force)
    return record


def _workspace(run: Run, profile: Profile) -> Path:
    """The run's folder; what another setting or other code left there is thrown away."""
    out = folder(run.id, profile)
    note = out / "started.json"
    today = results.plain([asdict(run), asdict(profile), fingerprint.of(run, profile)])
    if not (note.exists() and json.loads(note.read_text()) == today):
        shutil.rmtree(out, ignore_errors=True)
        results.write(note, json.dumps(today))
    return out


def _train(run: Run, profile: Profile, out: Path) -> tuple[Any, dict[str, Any]]:
    from hybridlib.methods import train

    method = train.METHODS[run.method]
    adapters = [folder(need, profile) / "adapter" for need in run.needs]
    if not method.rows:
        return method(run, profile, out, adapters), {}
    rows = rows_for(run, profile)
    return method(run, profile, rows, out, *adapters), {"rows": len(rows)}


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
