"""Where does the study keep its files, and how are they written? What can be said of any file."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hybridlib import ROOT, StudyError

LFS_POINTER = b"version https://git-lfs"
"""How the file begins that stands in a clone for one that Git LFS has not fetched."""
PROBE_BYTES = 1 << 20  # written to see whether a folder takes files: a small adapter


class Times(NamedTuple):
    """When the results of a run were written last, in ns since the epoch; 0 = not there."""

    record: int = 0
    adapter: int = 0


def results_folder(profile_name: str) -> Path:
    """Return the folder of a profile's records, which are kept in git."""
    return ROOT / "data" / "results" / profile_name


def runs_folder(profile_name: str) -> Path:
    """Return the folder of a profile's adapters, checkpoints and logs, which are not in git."""
    return ROOT / "runs" / profile_name


def run_folder(run_id: str, profile_name: str) -> Path:
    """Return the folder in which one run keeps its adapter and its checkpoints."""
    return runs_folder(profile_name) / run_id


def times(run_id: str, profile_name: str) -> Times:
    """Return when the record and the adapter of a run were written."""
    return Times(
        _modified(results_folder(profile_name) / f"{run_id}.json"),
        _modified(run_folder(run_id, profile_name) / "adapter" / "adapter_config.json"),
    )


def recorded_times(profile_name: str) -> dict[str, Times]:
    """Return id -> `times` of every run that has a record."""
    ids = [path.stem for path in results_folder(profile_name).glob("*.json")]
    return {run_id: times(run_id, profile_name) for run_id in ids}


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def write(path: Path, text: str) -> Path:
    """Write a small text file in one step, so that a reader finds it complete or not at all.

    Creates the folders above it. A process that is killed half-way leaves the old file, or none.
    """
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


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which takes that name once the context ends well.

    So a reader finds the folder complete or not at all. Creates the folders above it.

    Raises:
        StudyError: there is something at `path` already.
    """
    if path.exists() or path.is_symlink():
        raise StudyError(f"{path} exists; remove it or choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        temporary.chmod(0o755)
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_content(path: Path) -> None:
    """Check that a file is there, can be read, and is neither empty nor a pointer of Git LFS.

    Raises:
        StudyError: names the file, and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    if start == LFS_POINTER:
        raise StudyError(f"{path} is a pointer of Git LFS and not the file; fetch it: git lfs pull")
    if not start:
        raise StudyError(f"{path} is empty; restore it")


def read_json(path: Path) -> Any:
    """Read a file of JSON.

    Raises:
        StudyError: names the file that is absent, cut or something else.
    """
    check_content(path)
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is no readable JSON ({error}); restore or delete it") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one object of JSON.

    Raises:
        StudyError: names the file that is absent, cut or something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise StudyError(f"{path} holds no object of JSON; restore or delete it")
    return content


def check_writable(folder: Path) -> None:
    """Check that files can be written below a folder, which need not exist yet; leaves nothing.

    Writes PROBE_BYTES and removes them, since permissions tell nothing of full or read-only disks.

    Raises:
        StudyError: names the folder, and why it takes no file.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".probe") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StudyError(
            f"cannot write to {folder}: {error.strerror}; make room there or choose another folder"
        ) from None
