"""Which rows of a set can be trained on, and what is wrong with each of the others?

`data.load` refuses a set for its first bad row; here the rest goes on. Of the rows that `data` can
convert, `audit` says which a program can check.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, grading
from hybridlib.data import rows as data
from hybridlib.data import sources
from hybridlib.data.audit import audit

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("id", "family", "kind", "level", "prompt", "completion", "answer")
FORMS = {"question": "tiny_gsm8k", "problem": "tiny_math", "test_list": "tiny_mbpp"}
"""The column that a form of rows has and no other -> a set of that form."""
UNUSABLE = (LookupError, ValueError, TypeError, AttributeError, SyntaxError)


def usable(
    name: str, limit: int = 0, columns: dict[str, str] | None = None
) -> tuple[Dataset, dict[str, str]]:
    """The training rows of a set that a program can check; id -> what is wrong with the others.

    Args as `data.load` has them. Of a set of one's own that has no other splits, these are all
    rows. Without `columns`, each row may have the form of GSM8K, of MATH, of MBPP or of the rows
    that `advise` writes.
    """
    from datasets import Dataset

    raw, convert = _source(name, limit, columns or {})
    if 0 < limit < len(raw):  # the rows that data.load chooses
        chosen = sorted(raw, key=lambda numbered: sources.digest("limit", numbered[1]))[:limit]
        raw = sorted(chosen, key=lambda numbered: numbered[0])
    own = Path(name).stem if Path(name).is_file() else Path(name).name
    rows, refused = [], {}
    for index, source in raw:
        place = f"{own}/train/{index}"
        try:
            row = convert(source)
        except UNUSABLE as error:
            empty = f"the column {error} is empty"
            refused[place] = empty if isinstance(error, KeyError) else str(error)
            continue
        turn = {"role": "assistant", "content": row.pop("completion")}
        asked = data.chat(row.pop("question"))
        row = {"family": own} | row | {"id": place, "prompt": asked, "completion": [turn]}
        rows.append({column: row[column] for column in COLUMNS})
    found = Dataset.from_list(rows)
    unsound = _unsound(found) if rows else {}
    kept = [i for i, row in enumerate(rows) if row["id"] not in unsound]
    return found.select(kept), refused | unsound


def _source(name: str, limit: int, columns: dict[str, str]) -> data.Raw:
    if name in data.DATASETS:
        return data.DATASETS[name]("train", limit)
    convert = data._own(name, "train", columns)[1] if columns else _by_form()
    tables = sources.read(name)
    wanted = [*columns.values()] or next(iter(tables.values())).column_names[:1]  # any will do
    raw = sources.part([tables], name, "train", wanted, cut=())
    level = columns.get("level", "level")  # the one column that a row need not fill

    def filled(row: dict[str, Any]) -> dict[str, Any]:
        return convert({level: 0} | {k: v for k, v in row.items() if v is not None})

    return raw, filled


def _by_form() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A converter that sees by a row's columns which one it needs."""
    known = {column: data.DATASETS[name]("train", 1)[1] for column, name in FORMS.items()}
    known["kind"] = _written

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        marks = [*FORMS, *["kind"] * ({"kind", "prompt", "completion"} <= row.keys())]
        told = next((column for column in reversed(marks) if column in row), None)
        if told is None:
            raise ValueError(f"of unknown kind, as no column {', '.join(known)} is filled")
        return known[told](row)

    return convert


def _written(row: dict[str, Any]) -> dict[str, Any]:
    if row["kind"] not in grading.KINDS:
        raise ValueError(f"unknown kind {row['kind']!r}; valid: {', '.join(grading.KINDS)}")
    if not str(row["answer"]).strip():
        raise ValueError("the column 'answer' is empty")
    texts = {"question": row["prompt"][-1]["content"], "answer": str(row["answer"]),
             "completion": row["completion"][-1]["content"]}  # fmt: skip
    return {k: row[k] for k in ("family", "kind", "level") if k in row} | texts


def _unsound(rows: Dataset) -> dict[str, str]:
    """What `audit` has against single rows: it says so of a batch, which is halved until it passes.

    So the sandbox gets few batches, and one row that cannot be read spoils no other.
    """
    try:
        audit(rows)
    except (StudyError, SyntaxError) as error:
        if len(rows) == 1:
            told = str(error).partition(f"({rows[0]['id']}: ")[2].rpartition("); ")[0]
            return {rows[0]["id"]: told or str(error)}
        half = len(rows) // 2
        return _unsound(rows.select(range(half))) | _unsound(rows.select(range(half, len(rows))))
    return {}
