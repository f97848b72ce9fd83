"""Where to apply LoRA for reasoning: SFT or RL? The thin library under the book."""

import os
from pathlib import Path

ROOT = Path(os.environ.get("HYBRIDLIB_ROOT") or Path(__file__).resolve().parents[1])
"""The folder of data/, runs/ and _build/: the repository, unless HYBRIDLIB_ROOT says else."""


class StudyError(Exception):
    """A failure the user can fix: the command line prints its one line and exits with code 2."""
