"""Questions of GSM8K and MATH whose right answers are known, and model solutions with labels."""

import json
from pathlib import Path
from typing import Any

from hybridlib import StudyError, data

SPLITS = ("train", "valid", "test")


def gold_rows(name: str) -> list[dict[str, Any]]:
    """Return all rows of GSM8K or MATH, which HYBRIDLIB_HUB has to hold."""
    return [row for split in SPLITS for row in data.load(name, split)]


def labelled_rows(folder: Path, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the solutions of ProcessBench to questions of GSM8K or MATH, each with its gold row.

    Solutions to questions that are not among the gold rows are left out. Raises StudyError where
    the folder has no such file.
    """
    files = sorted(folder.glob(f"{name}*.jsonl"))
    if not files:
        raise StudyError(f"no {name}*.jsonl in {folder}; --data names the folder above it")
    golds = {_question(row["prompt"][-1]["content"]): row for row in gold_rows(name)}
    solutions = [json.loads(line) for line in files[0].read_text().splitlines()]
    questions = [_question(solution["problem"]) for solution in solutions]
    return [
        (solution, golds[question])
        for solution, question in zip(solutions, questions, strict=True)
        if question in golds
    ]


def _question(text: str) -> str:
    return " ".join(text.split())
