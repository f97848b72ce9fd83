"""The sandbox as measured: what the record claims, and how MBPP+ becomes asserts."""

import ast
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import mbppplus
from benchmarks import sandbox as benchmark
from hybridlib import ROOT, StudyError
from hybridlib.sandbox import judge

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
)
ROW = {
    "task_id": "Mbpp/2", "entry_point": "f", "base_input": [[[1, 2], [2]]], "plus_input": {},
    "canonical_solution": "def f(a, b): return tuple({*a} & {*b})",
}  # fmt: skip


@pytest.fixture
def record():
    return json.loads(benchmark.RECORD.read_text())


def test_the_record_is_one_of_full_isolation_in_which_everything_passed(record):
    assert record["isolation"] == ["network", "processes", "files", "system calls"]
    rates = {row["way"]: row for row in record["rates"]}
    assert rates["ours, all"]["programs"] == rates["ours, all"]["passed"] == 974
    speed = {way: min(row["seconds"]) for way, row in rates.items()}  # least disturbed
    ours, theirs = (
        "ours, those that EvalPlus can be asked",
        "EvalPlus, untrusted_check, two workers",
    )
    assert speed[ours] <= speed[theirs]
    assert record["memory"]["peak"] <= 150
    assert all(row["right"] and row["seconds"] < 15 for row in record["loops"])


def test_every_disagreement_with_a_label_has_its_reason(record):
    for row in record["agreement"]["kinds"]:
        assert row["passed"] == row["references"] > 390
        assert row["agree"] >= 0.99 * row["labelled"] > 370
        assert len(row["disagreements"]) == row["labelled"] - row["agree"]
        assert all(other["why"] for other in row["disagreements"])


def test_tables_say_what_the_record_says(record):
    text = benchmark.tables(record)
    widths = [{line.count("|") for line in block.split("\n")} for block in text.split("\n\n")]
    assert [len(width) for width in widths] == [1, 1, 1]
    for row in record["rates"]:
        rate = row["programs"] / min(row["seconds"])
        assert f"| {row['way']} | {row['programs']} | {row['passed']} |" in text
        assert f"| {rate:.0f} |" in text


@given(plain)
def test_a_literal_is_read_back(value):
    text = mbppplus.literal(value)
    assert eval(text) == value and type(eval(text)) is type(value)


def test_a_row_of_mbppplus_becomes_asserts_that_its_reference_passes():
    task = mbppplus.task(ROW)
    assert task.tests["base"].endswith("\nassert set(f((1, 2), (2,))) == {2}")
    assert set(task.tests) == {"base"} and task.left_out == 0
    reversed_ = "def f(a, b): return [x for x in b if x in a]"
    outcomes = judge.judge(
        [task.solution, reversed_, "def f(a, b): return ()"], [task.tests["base"]] * 3
    )
    assert [outcome.reason for outcome in outcomes] == ["pass", "pass", "wrong"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("0.5 + 1e-9", "pass"), ("0.5 + 1e-3", "wrong"), ("'0.5'", "wrong"), ("None", "wrong")],
)
def test_floats_agree_within_evalplus_tolerance(answer, reason):
    rows = {"0.5": answer, "[0.5, 0.25]": f"[{answer}, 0.25]"}
    for expected, given_ in rows.items():
        rule = mbppplus.same(1, "f", "f(1)", ast.literal_eval(expected))
        (outcome,) = judge.judge([f"def f(x): return {given_}"], [f"import math\nassert {rule}"])
        assert outcome.reason == reason


def test_long_answers_are_left_out_and_counted():
    row = {**ROW, "task_id": "Mbpp/1", "canonical_solution": "def f(a, b): return 'x' * 9000"}
    assert mbppplus.task(row).left_out == 1


def test_programs_that_evalplus_cannot_be_asked_are_left_to_us():
    tests = [
        "assert f(1) == 2",
        "assert f([1]) == (2,)",
        "assert len(f(1)) == 2",
        "x = 1\nassert f(x) == 2",
        "assert f(1) != 2",
        "assert f(1) == 2\nassert g(1) == 2",
    ]
    cases = benchmark.cases(["def f(x): return x"] * len(tests), tests)
    assert list(cases) == [0, 1] and cases[1]["inputs"] == "[[[1]]]"


def test_a_missing_folder_is_named():
    with pytest.raises(StudyError, match="name its folder"):
        mbppplus.read(ROOT / "nowhere", "mbpp.jsonl")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sandbox", "--mbpp", "nowhere", "--mbppplus", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
