"""Which rows of a set can be trained on, and what is wrong with each of the others?

`rows.load` refuses a set for its first bad row; here the other rows go on. A row is refused if it
cannot be converted, or if `audit` finds that the grader cannot check it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, grading
from hybridlib.data import sources
from hybridlib.data.audit import audit
from hybridlib.data.rows import (
    DATASETS,
    Source,
    convert_row,
    custom_converter,
    gsm8k_row,
    level_number,
    limited,
    math_row,
    mbpp_row,
    row_id,
    text_of,
)
from hybridlib.data.textfiles import RawRow

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("id", "family", "kind", "level", "prompt", "completion", "answer", "asked")
FORMS = {"test_list": mbpp_row, "problem": math_row, "question": gsm8k_row}
"""A column that tells a form of rows -> what converts them; the first that is filled counts."""


def usable(
    name: str, limit: int = 0, columns: dict[str, str] | None = None
) -> tuple[Dataset, dict[str, str]]:
    """Return the training rows of a set that the grader can check, and why the others are refused.

    Grades the solution of every row, for programs by running it in the sandbox.

    Args:
        name, limit, columns: as `rows.load` has them. A custom data set without other splits gives
            all its rows. Without `columns`, each of its rows may have the form of GSM8K, MATH or
            MBPP, or that of the rows that `advise` writes.

    Returns:
        The rows, with COLUMNS; and id -> reason of each row that is refused.

    Raises:
        StudyError: the set itself cannot be read.
    """
    from datasets import Dataset

    raw_rows, convert = _training_source(name, limit, columns or {})
    rows, refused = [], {}
    for index, raw in limited(raw_rows, limit):
        try:
            row = convert_row(name, "train", index, raw, convert)
        except ValueError as error:
            refused[row_id(name, "train", index)] = str(error)
        else:
            rows.append({column: row[column] for column in COLUMNS})
    table = Dataset.from_list(rows)
    unsound = _unsound(table) if rows else {}
    sound = [index for index, row in enumerate(rows) if row["id"] not in unsound]
    return table.select(sound), refused | unsound


def _training_source(name: str, limit: int, columns: dict[str, str]) -> Source:
    """Return the training rows of a known or custom set, and what converts one of them."""
    if name in DATASETS:
        return DATASETS[name]("train", limit)
    convert = custom_converter(name, columns) if columns else _convert_by_form
    tables = sources.read(name)
    # Without `columns` each row is converted by the columns that it fills, so none can be demanded
    # of the table; `split_rows` needs one, and any that the table has will do.
    required = list(columns.values()) or list(next(iter(tables.values()))[0])[:1]
    return sources.split_rows([tables], name, "train", required, carved=()), convert


def _convert_by_form(raw: RawRow) -> dict[str, Any]:
    """Convert a row of any form; the columns that it fills tell which form it has."""
    if {"kind", "prompt", "completion"} <= raw.keys():
        return _prepared_row(raw)
    for column, convert in FORMS.items():
        if column in raw:
            return convert(raw)
    columns = ", ".join([*reversed(FORMS), "kind"])
    raise ValueError(f"of unknown kind, as no column {columns} is filled")


def _prepared_row(raw: RawRow) -> dict[str, Any]:
    """Convert a row that has the columns of `rows.load` already, such as `advise` writes."""
    if raw["kind"] not in grading.KINDS:
        raise ValueError(f"unknown kind {raw['kind']!r}; valid: {', '.join(grading.KINDS)}")
    optional = {"family": text_of(raw, "family")} if "family" in raw else {}
    return optional | {
        "kind": raw["kind"],
        "level": level_number(raw.get("level", 0)),
        "question": text_of(raw["prompt"][-1], "content"),
        "answer": text_of(raw, "answer"),
        "completion": text_of(raw["completion"][-1], "content"),
    }


def _unsound(rows: Dataset) -> dict[str, str]:
    """Return id -> reason of the rows that `audit` refuses.

    `audit` accepts or refuses a batch as a whole, so a refused batch is halved until each part
    passes or is a single row. Bisection grades in few batches where few rows are bad, and one
    unreadable row does not cost the others.
    """
    try:
        audit(rows)
    except (StudyError, SyntaxError) as error:
        if len(rows) > 1:
            half = len(rows) // 2
            return _unsound(rows.select(range(half))) | _unsound(
                rows.select(range(half, len(rows)))
            )
        name = rows[0]["id"]
        reason = str(error).partition(f"({name}: ")[2].rpartition("); ")[0]
        return {name: reason or str(error)}
    return {}
