"""Where does the study keep its files, and how are they written?"""

import os
import tempfile
from pathlib import Path

from hybridlib import ROOT


def results_folder(profile_name: str) -> Path:
    """Return the folder of a profile's records, which are kept in git."""
    return ROOT / "data" / "results" / profile_name


def runs_folder(profile_name: str) -> Path:
    """Return the folder of a profile's adapters, checkpoints and logs, which are not in git."""
    return ROOT / "runs" / profile_name


def run_folder(run_id: str, profile_name: str) -> Path:
    """Return the folder in which one run keeps its adapter and its checkpoints."""
    return runs_folder(profile_name) / run_id


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
