"""What has been run, and what came out? One JSON per finished run, one tidy table.

A record holds id, profile, run, setting, scores, items, curve, samples, cost, facts and provenance;
data/README.md describes each field. Items are strings of one digit each, so that a thousand of
them cost a kilobyte (`stats.unpack` reads them).
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hybridlib import ROOT, StudyError, fingerprint

if TYPE_CHECKING:
    import pandas as pd

    from hybridlib.profiles import Profile
    from hybridlib.runs import Run

LIMIT = 20_000
"""Bytes a record may have: results live in git, and a reader may open one."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")


class Stale(StudyError):
    """The stored record answers another question than today's run of the same name."""


def folder(profile_name: str) -> Path:
    """Where are the records of one profile?"""
    return ROOT / "data" / "results" / profile_name


def save(record: dict, force: bool = False) -> Path:
    """Where was the record written? Atomically, so that a killed run leaves no half file.

    A stored record that differs in run, setting, code or scores is replaced only with `force`.
    Numbers that are not finite (a diverged loss) are stored as null.
    """
    path = folder(record["profile"]) / f"{record['id']}.json"
    record = plain(record)
    # One top-level field per line: a change of one shows as one line in a diff.
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if len(text) > LIMIT:
        largest = max(record, key=lambda key: len(json.dumps(record[key])))
        raise StudyError(
            f"record {record['id']} has {len(text):,} bytes, allowed are {LIMIT:,}; its largest "
            f"field is {largest!r} with {len(json.dumps(record[largest])):,}: store less of it"
        )
    if path.exists() and not force:
        stored = _load(path)
        differs = [*_changes("run", stored, record), *_changes("setting", stored, record)]
        if changed := _changed_code(stored, record["provenance"]["code"]):
            differs.append(f"code of {', '.join(changed)}")
        if stored["scores"] != record["scores"]:
            differs.append("scores")
        if differs:
            raise StudyError(
                f"a different result of {record['id']} is stored ({'; '.join(differs)}); "
                "--force replaces it"
            )
    return write(path, text)


def write(path: Path, text: str) -> Path:
    """Write a small text file so that a reader finds it complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        os.fchmod(handle, 0o644)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def find(run: Run, profile: Profile) -> dict | None:
    """Is this run finished? Its record, or None.

    Raises Stale where run or setting were others; a change of code is for `stale_reason` to tell.
    """
    path = folder(profile.name) / f"{run.id}.json"
    if not path.exists():
        return None
    record = _load(path)
    if changes := _drift(record, run, profile):
        raise Stale(f"stale result {run.id}: {'; '.join(changes)}; --force runs it again")
    return record


def stale_reason(run: Run, profile: Profile) -> str:
    """Why would this run have to be repeated? "" where its record is as good as new."""
    path = folder(profile.name) / f"{run.id}.json"
    if not path.exists():
        return "missing"
    record = _load(path)
    reasons = _drift(record, run, profile)
    if changed := _changed_code(record, fingerprint.of(run, profile)):
        reasons.append(f"code changed since: {', '.join(changed)}")
    return "; ".join(reasons)


def provenance(**facts) -> dict:
    """Where does a number come from? Versions, commit, machine, time; `facts` are added.

    backend="unsloth" among the facts adds the version of unsloth.
    """
    import torch

    libraries = [*LIBRARIES, *(["unsloth"] if facts.get("backend") == "unsloth" else [])]
    gpu = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in libraries},
        "commit": _git("rev-parse", "HEAD"),
        # Results are written while others run: they do not make the code dirty.
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":(exclude)data/results")),
        "device": torch.cuda.get_device_name() if gpu else _processor(),
        "threads": torch.get_num_threads(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    } | facts


def read(profile_name: str) -> list[dict]:
    """What is stored for this profile? All records, sorted by id; none is an empty list."""
    return [_load(path) for path in sorted(folder(profile_name).glob("*.json"))]


def table(profile_name: str) -> pd.DataFrame:
    """What came out? One row per run, family, split and metric, with run fields, cost, shares."""
    import pandas as pd

    rows = [
        run_fields(record) | {"profile": record["profile"]} | score | record["cost"]
        | {f"advantage_{k}": v["of_advantage"] for k, v in record["facts"].get("pay", {}).items()}
        for record in read(profile_name) for score in record["scores"]
    ]  # fmt: skip
    base = ["id", "profile", "family", "split", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=base)


def items(profile_name: str, ids: Collection[str] | None = None) -> pd.DataFrame:
    """How did every run do on every item? `stats.unpack` of each record, with id and run fields."""
    import numpy as np
    import pandas as pd

    from hybridlib import stats

    found = [r for r in read(profile_name) if ids is None or r["id"] in ids]
    table = stats.unpack(*(r["items"] for r in found))
    if not found:
        return table.assign(id="", seed=0)
    sizes = [sum(len(part["level"]) for part in r["items"].values()) for r in found]
    runs = pd.DataFrame(map(run_fields, found)).loc[np.repeat(np.arange(len(found)), sizes)]
    return pd.concat([table, runs.reset_index(drop=True)], axis=1)


def drift(profile_name: str) -> pd.DataFrame:
    """How far did each run move? One row per run and family: run fields and `drift.measure`'s."""
    import pandas as pd

    rows = []
    for record in read(profile_name):
        found = dict(record["facts"].get("drift", {}))
        loss = found.pop("corpus_loss", math.nan)
        for family, measured in found.items():
            rows.append(run_fields(record) | {"family": family, "corpus_loss": loss} | measured)
    base = ["id", "family", "kl", "entropy", "tokens", "distinct", "corpus_loss"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=base)


def run_fields(record: dict) -> dict:
    """Id and run fields as table cells; several values of one field are joined by +."""
    return {"id": record["id"]} | {
        field: "+".join(map(str, value)) if isinstance(value, list) else value
        for field, value in record["run"].items()
    }


def _load(path: Path) -> dict:
    """One record; a field of a run that it lacks is younger than it and means its default."""
    try:
        record = json.loads(path.read_text("utf-8"))
        return record | {"run": {**record["run"], **_defaults("run"), **record["run"]}}
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is no readable record ({error!r}); delete it to rerun") from error


def _drift(record: dict, run: Run, profile: Profile) -> list[str]:
    now = plain({"run": asdict(run), "setting": asdict(profile)})
    return [*_changes("run", record, now), *_changes("setting", record, now)]


def _changes(part: str, stored: dict, now: dict) -> list[str]:
    """["setting n_eval: 10 -> 12"]: what differs, stored -> now; what is lacking is the default."""
    old, new = ({**_defaults(part), **record[part]} for record in (stored, now))
    return [
        f"{part} {field}: {old.get(field, 'absent')} -> {new.get(field, 'absent')}"
        for field in {**old, **new}
        if field not in old or field not in new or old[field] != new[field]
    ]


@functools.cache
def _defaults(part: str) -> dict:
    """What a field of a run or of a setting means where nobody has said it."""
    from hybridlib.profiles import Profile
    from hybridlib.runs import Run

    kind = Run if part == "run" else Profile
    return plain({f.name: f.default for f in fields(kind) if f.default is not MISSING})


def _changed_code(record: dict, code: dict[str, str]) -> list[str]:
    stored = record["provenance"]["code"]
    return [name for name in {**stored, **code} if stored.get(name) != code.get(name)]


def plain(record: dict) -> dict:
    """The record as JSON keeps it: tuples are lists, numbers that are not finite are null."""
    return json.loads(json.dumps(_finite(record), default=_scalar))


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalar(value):
    """numpy and torch scalars as Python numbers; anything else is a mistake of the caller."""
    if hasattr(value, "item"):
        return _finite(value.item())
    raise TypeError(f"{type(value).__name__} does not belong in a record")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    """What git says about the project; "" without git or outside a repository."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
