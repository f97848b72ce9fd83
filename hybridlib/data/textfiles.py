"""What rows does a data file hold? Its own characters: no date, number or gap is guessed at.

Readers of tables infer types and thereby change answers: 2031-07-01 gets a time of day, 007 loses
its zeros, a large integer beside a gap its last digits. Here a number comes as it is written.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from hybridlib import StudyError, files

RawRow = dict[str, Any]  # column -> value, as the source has it
MOSTLY_ASCII = 0.2  # share of bytes beyond ASCII up to which a text counts as Western European


def read_file(path: Path, form: str = "") -> list[RawRow]:
    """Return the rows of a data file, each with all columns of the file, None where one is empty.

    Text, and the numbers of JSON, NaN and Infinity among them, come as the characters of the file;
    so does every cell of CSV and TSV. JSON's true and false are bool. Parquet declares the types of
    its columns and gives their values. Line ends and a byte order mark do not matter.

    Args:
        form: the key of READERS, in place of the file's suffix.

    Raises:
        StudyError: names the file, and where possible the line, that cannot be read.
    """
    form = form or path.suffix
    if form not in READERS:
        raise StudyError(f"{path} is no data file; valid: {', '.join(READERS)}")
    files.check_content(path)
    rows = READERS[form](path)
    if not rows:
        raise StudyError(f"{path} has no rows; give a file that has some")
    return with_all_columns(rows)


def with_all_columns(rows: list[RawRow]) -> list[RawRow]:
    """Return the rows, each with the columns of all of them; what it lacked is None."""
    blank = dict.fromkeys(column for row in rows for column in row)
    return [blank | row for row in rows]


def _text(path: Path) -> str:
    """Return the text of a file; StudyError names the encoding where it is not UTF-8."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        place = text.find("\0")
    except UnicodeDecodeError as error:
        place = error.start
    if place >= 0:
        line = content.count(b"\n", 0, place) + 1
        fitting = _encoding(content)
        raise StudyError(
            f"{path}, line {line} is not UTF-8 but fits {fitting}; "
            f"convert it: iconv -f {fitting} -t UTF-8"
        )
    if not text.strip():
        raise StudyError(f"{path} is empty; give a file with rows")
    return text


def _encoding(content: bytes) -> str:
    """Return the encoding that fits a text that is not UTF-8."""
    from charset_normalizer import from_bytes

    for mark, name in ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32")):
        if content.startswith(mark):
            return name
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    if b"\0" in content:  # of ASCII characters in two bytes, one is 0
        return "UTF-16LE" if content[1::2].count(0) > content[::2].count(0) else "UTF-16BE"
    if sum(byte > 127 for byte in content) < MOSTLY_ASCII * len(content):
        return "CP1252"
    best = from_bytes(content).best()
    return best.encoding.upper() if best else "LATIN1"


# ---------------------------------------------------------------- JSON


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; ValueError where a key stands twice, as one value would go."""
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return members


DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_distinct
)


def _json_rows(path: Path) -> list[RawRow]:
    """Read objects one a line, or one document: a list of objects, or a single one."""
    text = _text(path)
    if text.lstrip().startswith("["):
        return _objects(path, enumerate(_decoded(path, text)), "entry")
    # Not splitlines(): a text of JSON may hold the separators of Unicode as they are.
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    try:
        numbered = [
            (number, _decoded(path, line, number)) for number, line in lines if line.strip()
        ]
    except StudyError:
        try:  # a single object, over several lines
            return [DECODER.decode(text)]
        except (ValueError, RecursionError):
            pass
        raise
    return _objects(path, numbered, "line")


def _decoded(path: Path, text: str, first_line: int = 1) -> Any:
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        line = first_line + getattr(error, "lineno", 1) - 1
        raise StudyError(f"{path}, line {line} is no JSON: {error}") from None


def _objects(path: Path, numbered: Iterable[tuple[int, Any]], unit: str) -> list[RawRow]:
    rows = []
    for number, value in numbered:
        if not isinstance(value, dict):
            raise StudyError(f"{path}, {unit} {number} is no object, which has named columns")
        rows.append(value)
    return rows


# ---------------------------------------------------------------- tables


def _delimited_rows(path: Path, delimiter: str) -> list[RawRow]:
    """Read a table whose first line names the columns; StudyError where a line is longer."""
    csv.field_size_limit(sys.maxsize)  # Python's limit, 128 KiB, is that of no format
    lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        header = next(cells for cells in lines if cells)
        if twice := {column for column in header if header.count(column) > 1}:
            raise StudyError(f"{path}: two columns are called {min(twice)!r}; rename one")
        for cells in lines:
            if cells and len(cells) != len(header):
                raise StudyError(
                    f"{path}, line {lines.line_num} has {len(cells)} fields, "
                    f"the header has {len(header)}"
                )
            if cells:
                rows.append({name: cell or None for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise StudyError(f"{path}, line {lines.line_num} cannot be read: {error}") from None
    return rows


def _parquet_rows(path: Path) -> list[RawRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
        for place, field in enumerate(table.schema):
            # As Python's float, which has more bits, 0.1 would end in other digits.
            if pyarrow.types.is_float16(field.type) or pyarrow.types.is_float32(field.type):
                table = table.set_column(place, field.name, table[place].cast(pyarrow.string()))
        return table.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise StudyError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


READERS = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".parquet": _parquet_rows,
    ".csv": partial(_delimited_rows, delimiter=","),
    ".tsv": partial(_delimited_rows, delimiter="\t"),
}
"""Suffix -> how a file of this kind is read."""
