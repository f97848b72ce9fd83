"""Answers are the characters of the file, or the row is refused; a broken file is one line."""

import csv
import datetime
import io
import json
from decimal import Decimal

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from hybridlib import StudyError, data
from hybridlib.data import intake, textfiles

COLUMNS = {"question": "q", "answer": "a"}
RETYPED = [  # what readers of tables turn into something else
    "2031-07-01", "2031-07-01T09:30:00", "2031-07-01 00:00:00", "01/07/2031", "09:30", "9:30 PM",
    "1 day", "007", "+7", "-0", "1.10", "1e5", "1E400", "12345678901234567890",
    "0.10000000000000000555", "0x1F", "1_000", "NaN", "nan", "NA", "N/A", "null", "None",
    "Infinity", "-inf", "true", "True", "yes", "1/2", "\u0661\u0662", "a\u2028b", "a\u0085b", "x,y",
    'say "x"', "#", "-", "1-2",
]  # fmt: skip
LITERALS = [  # as JSON writes numbers and truth
    "1.10", "1e5", "1E+2", "-0", "-0.0", "12345678901234567890", "0.30000000000000004", "1e400",
    "123456789.123456789123456789", "NaN", "Infinity", "-Infinity", "true", "false",
]  # fmt: skip


def answers(path):
    """Return the answers of a file as they are trained on, in its order; none may be refused."""
    raw_rows = textfiles.read_file(path)
    convert = data.rows.custom_converter(str(path), COLUMNS)
    rows = [data.rows.convert_row("x", "train", i, raw, convert) for i, raw in enumerate(raw_rows)]
    return [row["answer"] for row in rows]


def delimited(path, rows, **form):
    with path.open("w", newline="") as file:
        csv.writer(file, **form).writerows([["q", "a"], *rows])
    return path


def test_jsons_texts_are_not_retyped(tmp_path):
    file = tmp_path / "a.jsonl"
    rows = [{"q": f"{i}?", "a": text} for i, text in enumerate(RETYPED)]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert answers(file) == RETYPED
    document = tmp_path / "a.json"
    document.write_text(json.dumps(rows, indent=1))
    assert answers(document) == RETYPED


@pytest.mark.parametrize("gap", ["null", '"x"', "2.5", "7"])
def test_jsons_numbers_keep_their_digits_whatever_stands_beside_them(tmp_path, gap):
    file = tmp_path / "a.jsonl"
    lines = [f'{{"q": "{i}?", "a": {text}, "b": {gap}}}' for i, text in enumerate(LITERALS)]
    file.write_text("\n".join([*lines, f'{{"q": "last", "a": {gap}}}']))
    values = [data.rows.text_of(row, "a") for row in textfiles.read_file(file)[: len(LITERALS)]]
    assert values == LITERALS


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_cells_of_tables_are_not_retyped(tmp_path, suffix, delimiter):
    rows = [[f"{i}?", text] for i, text in enumerate(RETYPED)]
    file = delimited(tmp_path / f"a{suffix}", rows, delimiter=delimiter)
    assert answers(file) == RETYPED


def test_a_folder_is_read_as_its_files_are(tmp_path):
    for number, name in enumerate(("train-0", "train-1")):
        rows = [[f"{number}.{i}?", text] for i, text in enumerate(RETYPED)]
        delimited(tmp_path / f"{name}.csv", rows)
    splits = data.sources.read(str(tmp_path))
    assert [row["a"] for row in splits["train"]] == 2 * RETYPED


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5))
def test_any_text_comes_back_from_any_format(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    lines = "\r\n".join(json.dumps({"a": text}, ensure_ascii=False) for text in texts)
    (folder / "a.jsonl").write_bytes(lines.encode())
    assert [row["a"] for row in textfiles.read_file(folder / "a.jsonl")] == texts
    if "\0" in "".join(texts):
        return  # no text of a table, and a sign of another encoding
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["a"], *([text] for text in texts)])
    (folder / "a.csv").write_bytes(buffer.getvalue().encode())
    assert [row["a"] for row in textfiles.read_file(folder / "a.csv")] == texts


def test_parquet_gives_declared_types_as_they_are_written(tmp_path):
    day = datetime.date(2031, 7, 1)
    declared = {
        "text": (pyarrow.array(["007"]), "007"),
        "large": (pyarrow.array([2**63 - 1]), "9223372036854775807"),
        "unsigned": (pyarrow.array([2**64 - 1], pyarrow.uint64()), "18446744073709551615"),
        "double": (pyarrow.array([0.1]), "0.1"),
        "single": (pyarrow.array([0.1], pyarrow.float32()), "0.1"),
        "decimal": (pyarrow.array([Decimal("1.10")]), "1.10"),
        "truth": (pyarrow.array([True]), "true"),
        "day": (pyarrow.array([day]), "2031-07-01"),
        "category": (pyarrow.array(["NA"]).dictionary_encode(), "NA"),
        "long text": (pyarrow.array(["1e5"], pyarrow.large_string()), "1e5"),
    }
    table = pyarrow.table({name: array for name, (array, _) in declared.items()})
    parquet.write_table(table, tmp_path / "a.parquet")
    (row,) = textfiles.read_file(tmp_path / "a.parquet")
    assert {name: data.rows.text_of(row, name) for name in declared} == {
        name: text for name, (_, text) in declared.items()
    }


NO_TEXT = {
    "a time stamp": pyarrow.array([datetime.datetime(2031, 7, 1)] * 3),
    "a time": pyarrow.array([datetime.time(9, 30)] * 3),
    "a duration": pyarrow.array([datetime.timedelta(days=1)] * 3),
    "bytes": pyarrow.array([b"7"] * 3),
    "a list": pyarrow.array([["7"]] * 3),
    "an object": pyarrow.array([{"value": "7"}] * 3),
    "no number": pyarrow.array([float("nan")] * 3),
    "infinity": pyarrow.array([float("inf")] * 3),
    "a float without its last digits": pyarrow.array([12345678901234567890.0] * 3),
    "nothing": pyarrow.nulls(3, pyarrow.string()),
    "a blank": pyarrow.array([" \n"] * 3),
}


@pytest.mark.parametrize("values", NO_TEXT.values(), ids=NO_TEXT)
def test_what_has_no_text_of_its_own_is_refused_by_index(tmp_path, values):
    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"q": ["0?", "1?", "2?"], "a": values}), file)
    rows, refused = intake.usable(str(file), columns=COLUMNS)
    assert not len(rows) and [*refused] == [f"a/train/{i}" for i in range(3)]
    assert all("'a'" in reason for reason in refused.values())
    with pytest.raises(StudyError, match=r"row \d of .*a\.parquet/train"):
        data.load(str(file), "train", columns=COLUMNS)


@pytest.mark.parametrize("value", ['["7"]', '{"b": 7}', "null", '""', '" "', '"\\ud800"'])
def test_a_bad_answer_of_json_costs_its_row_alone(tmp_path, value):
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"q": "0?", "a": {value}}}\n{{"q": "1?", "a": "7"}}\n')
    rows, refused = intake.usable(str(file), columns=COLUMNS)
    assert rows["answer"] == ["7"] and [*refused] == ["a/train/0"]


def test_levels_are_numbers_beside_gaps_and_floats(tmp_path):
    file = tmp_path / "a.jsonl"
    levels = ["3", "3.0", '"Level 3"', '"grade 3 of 5"', "null"]
    lines = [f'{{"q": "{i}?", "a": "7", "l": {level}}}' for i, level in enumerate(levels)]
    file.write_text("\n".join(lines))
    rows, refused = intake.usable(str(file), columns={**COLUMNS, "level": "l"})
    assert rows["level"] == [3, 3, 3, 3, 0] and not refused


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_do_not_matter(tmp_path, end):
    solution = end.join(["1+1=2", "#### 2", ""])
    file = tmp_path / "a.jsonl"
    rows = [json.dumps({"question": f"{i}?", "answer": solution}) for i in range(3)]
    file.write_bytes(end.join([*rows, ""]).encode())
    usable, refused = intake.usable(str(file))
    assert len(usable) == 3 and not refused
    assert usable[0]["completion"][0]["content"] == "1+1=2\n#### 2\n"


# ---------------------------------------------------------------- broken files

ROW = '{"q": "who?", "a": "caf\u00e9"}\n'
RUSSIAN = '{"q": "\u0441\u043a\u043e\u043b\u044c\u043a\u043e \u044f\u0431\u043b\u043e\u043a \u0443 \u0422\u043e\u043c\u0430?", "a": "\u043f\u044f\u0442\u044c"}\n'  # noqa: E501
BROKEN = {  # file -> its bytes, words of the one line
    "empty.jsonl": (b"", "is empty"),
    "blank.jsonl": (b"\n \n", "is empty"),
    "mark.jsonl": (b"\xef\xbb\xbf", "is empty"),
    "none.json": (b"[]", "has no rows"),
    "header.csv": (b"q,a\n", "has no rows"),
    "empty.tsv": (b"", "is empty"),
    "empty.parquet": (b"", "is empty"),
    "latin.jsonl": (ROW.encode("latin-1") * 5, "line 1 is not UTF-8 but fits CP1252"),
    "third.csv": (b"q,a\nx,y\ncaf\xe9,z\n", "line 3 is not UTF-8 but fits CP1252"),
    "russian.jsonl": (RUSSIAN.encode("cp1251") * 5, "fits CP1251"),
    "wide.jsonl": (ROW.encode("utf-16"), "fits UTF-16"),
    "wide.csv": ("q,a\nx,y\n".encode("utf-16"), "fits UTF-16"),
    "unmarked.jsonl": (b'{"q": "x", "a": "y"}\n'.decode().encode("utf-16-le"), "fits UTF-16LE"),
    "pointer.jsonl": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "cut.jsonl": (b'{"q": "x", "a": "y"}\n{"q": "x", "a', "line 2 is no JSON"),
    "cut.json": (b'[{"q": "x", "a": "y"},\n {"q": "x"', "line 2 is no JSON"),
    "list.jsonl": (b'{"q": "x"}\n["x", "y"]\n', "line 2 is no object"),
    "twice.jsonl": (b'{"q": "x", "a": "1", "a": "2"}\n', "'a' stands there twice"),
    "deep.jsonl": (b'{"q": ' + 100_000 * b"[", "line 1 is no JSON"),
    "ragged.csv": (b"q,a\nx,y\nx,y,z\n", "line 3 has 3 fields, the header has 2"),
    "short.tsv": (b"q\ta\nx\n", "line 2 has 1 fields, the header has 2"),
    "open.csv": (b'q,a\nx,"y\n', "line 2 cannot be read"),
    "twice.csv": (b"a,a\nx,y\n", "two columns are called 'a'"),
    "cut.parquet": (b"PAR1 and then nothing", "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name):
    content, words = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    for location in (tmp_path / name, tmp_path):  # the file, and a folder that holds it
        with pytest.raises(StudyError) as caught:
            data.load(str(location), "train", columns=COLUMNS)
        message = str(caught.value)
        assert name in message and words in message and "\n" not in message


def test_a_byte_order_mark_does_not_matter(tmp_path):
    for name, text in (("a.jsonl", '{"q": "x", "a": "7"}'), ("a.csv", "q,a\nx,7\n")):
        (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
        assert answers(tmp_path / name) == ["7"]


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    with pytest.raises(StudyError, match="absent.jsonl cannot be read"):
        textfiles.read_file(tmp_path / "absent.jsonl")


# ---------------------------------------------------------------- the inputs that failed


def test_the_dates_that_failed(cases):
    for file in (cases / "holiday.jsonl", cases / "J1-dates" / "dates.jsonl"):
        written = [json.loads(line)["a"] for line in file.read_text().splitlines()]
        rows, refused = intake.usable(str(file), columns=COLUMNS)
        assert rows["answer"] == written and not refused


def test_the_line_ends_that_failed(cases):
    for file, count in ((cases / "crlfsol.jsonl", 4), (cases / "L1-crlf" / "crlf.jsonl", 6)):
        rows, refused = intake.usable(str(file))
        assert len(rows) == count and not refused


def test_the_broken_files_that_failed(cases):
    folder = cases / "K1-empty-and-ragged"
    for file, words in (
        (cases / "void.jsonl", "is empty"),
        (folder / "empty.jsonl", "is empty"),
        (folder / "ragged.csv", "line 3 has 3 fields"),
    ):
        with pytest.raises(StudyError, match=words) as caught:
            intake.usable(str(file), columns=COLUMNS)
        assert file.name in str(caught.value)
