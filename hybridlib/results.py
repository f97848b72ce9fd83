"""What has been run, and what came out? One JSON per finished run, one tidy table.

A record holds id, profile, run, setting, scores, items, curve, samples, cost, facts and provenance;
data/README.md describes each field. Items are strings of one digit each, so that a thousand of
them cost a kilobyte (`stats.unpack` reads them).
"""

from __future__ import annotations

import functools
import json
import math
import platform
import subprocess
import sys
from collections.abc import Collection
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridlib
from hybridlib import StudyError, fingerprint, stats
from hybridlib.files import results_folder, write
from hybridlib.profiles import Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
MAX_RECORD_BYTES = 32_000
"""The largest allowed record: records are kept in git, and a reader may open one."""

CHECKPOINT_COSTS = ("sequences", "prompts", "tokens", "operations", "seconds")
"""What a training has cost until a checkpoint, as columns of `checkpoints`."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")


class Stale(StudyError):
    """The stored record was made by another run or setting than today's of the same id."""


def save(record: Record, force: bool = False) -> Path:
    """Write a record to its file, in one step, so that a killed run leaves no half file.

    Numbers that are not finite (a diverged loss) are stored as null.

    Args:
        force: replace a stored record that differs in run, setting, code or scores.
    Returns:
        The file.
    Raises:
        StudyError: a different record is stored, or this one is larger than MAX_RECORD_BYTES.
    """
    path = _path(record["profile"], record["id"])
    record = as_json(record)
    # One top-level field per line: a change of one shows as one line in a diff.
    lines = [f"{json.dumps(key)}: {_compact(value)}" for key, value in record.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if len(text) > MAX_RECORD_BYTES:
        largest = max(record, key=lambda key: len(json.dumps(record[key])))
        raise StudyError(
            f"record {record['id']} has {len(text):,} bytes, allowed are {MAX_RECORD_BYTES:,}; "
            f"its largest field is {largest!r} with {len(json.dumps(record[largest])):,}: "
            "store less of it"
        )
    if path.exists() and not force:
        if differences := _differences(_load(path), record):
            raise StudyError(
                f"a different result of {record['id']} is stored ({'; '.join(differences)}); "
                "--force replaces it"
            )
    return write(path, text)


def find(run: Run, profile: Profile) -> Record | None:
    """Return the record of a run, or None where it has not finished.

    Raises:
        Stale: the record's run or setting differs. A change of code does not raise: see
            `stale_reason`.
    """
    path = _path(profile.name, run.id)
    if not path.exists():
        return None
    record = _load(path)
    if changes := _changes_since(record, run, profile):
        raise Stale(f"stale result {run.id}: {'; '.join(changes)}; --force runs it again")
    return record


def stale_reason(run: Run, profile: Profile) -> str:
    """Return why this run has to be executed (again), or "" where its record is up to date.

    The reasons are "missing", or every difference in run, setting and code.
    """
    path = _path(profile.name, run.id)
    if not path.exists():
        return "missing"
    record = _load(path)
    reasons = _changes_since(record, run, profile)
    if changed := _changed_code(record, fingerprint.digests_of(run, profile)):
        reasons.append(f"code changed since: {', '.join(changed)}")
    return "; ".join(reasons)


def provenance(**facts: Any) -> dict[str, Any]:
    """Return versions, commit, device, threads and time of a result, and `facts` beside them.

    backend="unsloth" among the facts adds the version of unsloth.
    """
    import torch

    libraries = [*LIBRARIES, *(["unsloth"] if facts.get("backend") == "unsloth" else [])]
    gpu = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in libraries},
        "commit": commit(),
        # Results are written while others run: they do not make the code dirty.
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":(exclude)data/results")),
        "device": torch.cuda.get_device_name() if gpu else _processor(),
        "threads": torch.get_num_threads(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    } | facts


def commit() -> str:
    """Return the commit of the project, "" outside a repository."""
    return _git("rev-parse", "HEAD")


def read(profile_name: str) -> list[Record]:
    """Return all records of a profile, sorted by id. A file is read once per process and change.

    Records are shared by all callers: copy one before you change it.
    """
    return [_load(path) for path in sorted(results_folder(profile_name).glob("*.json"))]


def table(profile_name: str) -> pd.DataFrame:
    """Return one row per run, family, split and metric, with run fields, cost and shares."""
    import pandas as pd

    rows = [
        run_fields(record)
        | {"profile": record["profile"]}
        | score
        | record["cost"]
        | _advantage_shares(record)
        for record in read(profile_name)
        for score in record["scores"]
    ]
    columns = ["id", "profile", "family", "split", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def items(profile_name: str, ids: Collection[str] | None = None) -> pd.DataFrame:
    """Return `stats.unpack` of each record, one row per run and item, with id and run fields.

    The column prerequisites has the ids that `Run.prerequisites` names, as a tuple.

    Args:
        ids: of these runs; None: of all.
    """
    import numpy as np
    import pandas as pd

    records = [r for r in read(profile_name) if ids is None or r["id"] in ids]
    unpacked = stats.unpack(*(record["items"] for record in records))
    if not records:
        return unpacked.assign(id="", seed=0)
    sizes = [sum(len(part["level"]) for part in r["items"].values()) for r in records]
    runs = pd.DataFrame(map(run_fields, records))
    runs["prerequisites"] = [Run(**record["run"]).prerequisites for record in records]
    runs = runs.loc[np.repeat(np.arange(len(records)), sizes)]
    return pd.concat([unpacked, runs.reset_index(drop=True)], axis=1)


def distances(profile_name: str) -> pd.DataFrame:
    """Return how far each run moved from its base: one row per run and family.

    Columns: run fields, family, corpus_loss and what `drift.measure` gives.
    """
    import pandas as pd

    rows = []
    for record in read(profile_name):
        measured = dict(record["facts"].get("drift", {}))
        loss = measured.pop("corpus_loss", math.nan)
        for family, values in measured.items():
            rows.append(run_fields(record) | {"family": family, "corpus_loss": loss} | values)
    columns = ["id", "family", "kl", "entropy", "tokens", "distinct", "corpus_loss"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def checkpoints(profile_name: str, ids: Collection[str] | None = None) -> pd.DataFrame:
    """Return the accuracies read during trainings, one row per run, point, family and split.

    Columns: run fields, step, sequences, prompts, tokens, operations (see `methods.checkpoints`),
    seconds, family, split, value (the share of greedy answers that are right), n (rows), and kl
    where runs on one family have it. What the runs before it have cost is not in the columns.

    Args:
        ids: of these runs; None: of all.
    """
    import pandas as pd

    rows = []
    for record in read(profile_name):
        if ids is not None and record["id"] not in ids:
            continue
        points = record.get("checkpoints", [])
        seconds = record["cost"].get("checkpoint_seconds", [])
        for point, elapsed in zip(points, seconds, strict=True):
            spent = {name: value for name, value in point.items() if name != "greedy"}
            for name, digits in point["greedy"].items():
                family, _, split = name.rpartition("/")
                rows.append(
                    run_fields(record)
                    | spent
                    | {
                        "seconds": elapsed,
                        "family": family,
                        "split": split,
                        "value": digits.count("1") / len(digits),
                        "n": len(digits),
                    }
                )
    columns = ["id", "step", *CHECKPOINT_COSTS, "family", "split", "value", "n"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def run_fields(record: Record) -> dict[str, Any]:
    """Return id and run fields as table cells; several values of one field are joined by +."""
    return {"id": record["id"]} | {
        name: "+".join(map(str, value)) if isinstance(value, list) else value
        for name, value in record["run"].items()
    }


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def as_json(record: Record) -> Record:
    """Return the record as JSON stores it: tuples become lists, NaN and infinities None."""
    return json.loads(json.dumps(_finite(record), default=_scalar))


def _path(profile_name: str, run_id: str) -> Path:
    return results_folder(profile_name) / f"{run_id}.json"


def _load(path: Path) -> Record:
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _parsed(path: Path, modified: int, size: int) -> Record:
    """Return one record, with the default of each run field that is newer than the record.

    `modified` and `size` are there so that a changed file misses the cache.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        run = record["run"]
        missing = {name: value for name, value in _defaults("run").items() if name not in run}
        return record | {"run": run | missing}
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is no readable record ({error!r}); delete it to rerun") from error


def _advantage_shares(record: Record) -> dict[str, float]:
    shares = record["facts"].get("pay", {})
    return {f"advantage_{name}": share["of_advantage"] for name, share in shares.items()}


def _differences(stored: Record, record: Record) -> list[str]:
    """Return what a record differs in from the stored one."""
    differences = [*_changes("run", stored, record), *_changes("setting", stored, record)]
    if changed := _changed_code(stored, record["provenance"]["code"]):
        differences.append(f"code of {', '.join(changed)}")
    if stored["scores"] != record["scores"]:
        differences.append("scores")
    return differences


def _changes_since(record: Record, run: Run, profile: Profile) -> list[str]:
    today = as_json({"run": asdict(run), "setting": asdict(profile)})
    return [*_changes("run", record, today), *_changes("setting", record, today)]


def _changes(part: str, stored: Record, today: Record) -> list[str]:
    """Return what differs, as ["setting n_eval: 10 -> 12"]; what is lacking is the default."""
    old, new = ({**_defaults(part), **record[part]} for record in (stored, today))
    return [
        f"{part} {name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in {**old, **new}
        if name not in old or name not in new or old[name] != new[name]
    ]


@functools.cache
def _defaults(part: str) -> dict[str, Any]:
    """Return the default of each field of a `Run` ("run") or a `Profile` ("setting")."""
    kind = Run if part == "run" else Profile
    return as_json({f.name: f.default for f in fields(kind) if f.default is not MISSING})


def _changed_code(record: Record, code: dict[str, str]) -> list[str]:
    stored = record["provenance"]["code"]
    return [name for name in {**stored, **code} if stored.get(name) != code.get(name)]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalar(value: Any) -> Any:
    """Turn numpy and torch scalars into Python numbers; refuse anything else."""
    if hasattr(value, "item"):
        return _finite(value.item())
    raise TypeError(f"{type(value).__name__} does not belong in a record")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    """Return what git says about the project; "" without git or outside a repository."""
    try:
        command = ["git", "-C", str(hybridlib.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
