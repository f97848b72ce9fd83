"""Rows are trained on only if the grader knows right from wrong in them."""

import time

import pytest
from datasets import Dataset

from hybridlib import StudyError, data, grading, study
from hybridlib.data import audit
from hybridlib.methods import METHODS, Job, train
from hybridlib.runs import Run


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(audit, "_PASSED", set())


def row(completion, answer, kind, name="own/train/0"):
    return {
        "id": name,
        "completion": [{"role": "assistant", "content": completion}],
        "answer": answer,
        "kind": kind,
        "asked": "",
    }


GOOD = row("def f(x):\n    return x", "assert f(3) == 3", "program")


@pytest.mark.slow
@pytest.mark.parametrize("family", data.DATASETS)
def test_every_training_set_is_sound(family, request):
    if not family.startswith("tiny"):
        request.getfixturevalue("hub")
    if family == "math500":
        pytest.skip("has no rows for training")
    audit.audit(data.load(family, "train", limit=100))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (row("#### 18", "19", "number", "own/train/7"), "own/train/7: its own solution.*'wrong'"),
        (row("19", "19", "number", "own/train/8"), "own/train/8: its own solution.*'no answer'"),
        (row("\\boxed{x}", "y", "expression", "own/train/9"), "own/train/9: its own.*'wrong'"),
        (row("def f(x): return 1 / 0", "assert f(3) == 3", "program"), "'error'.*ZeroDivision"),
        (row("def f(x): return x > 0", "assert f(3)", "program"), "always returns '[?]' passes"),
    ],
)
def test_a_row_that_would_teach_the_wrong_thing_is_named(bad, why):
    with pytest.raises(StudyError, match=f"^1 of 2 training rows.*{why}.*leave them out"):
        audit.audit(Dataset.from_list([GOOD, bad]))


def test_answers_that_cannot_be_read_are_refused_by_index():
    answers = ["x<sup>2</sup>", "x^2", r"\foo{3}", "1" * 400, r"\text{odd}"]
    rows = [
        row(f"\\boxed{{{answer}}}", answer, "expression", f"own/train/{n}")
        for n, answer in enumerate(answers)
    ]
    with pytest.raises(StudyError) as error:
        audit.audit(Dataset.from_list(rows))
    assert str(error.value).startswith("3 of 5 training rows cannot be graded (row 0, own/train/0")
    assert "row 2, own/train/2: its answer" in str(error.value)
    assert "row 3, own/train/3: its answer" in str(error.value)


def test_tests_that_cannot_be_judged_are_refused_by_index():
    bound = row(
        "def f(x):\n    return x", "want = 3\nassert f(3) == want", "program", "own/train/1"
    )
    bad = row(
        "def f(x):\n    return x", "x = f(3)\nif x:\n    assert x == 3", "program", "own/train/2"
    )
    audit.audit(Dataset.from_list([GOOD, bound]))
    with pytest.raises(StudyError, match="^1 of 3 training rows.*row 2, own/train/2: .*depends on"):
        audit.audit(Dataset.from_list([GOOD, bound, bad]))


def test_many_bad_rows_are_counted_and_the_first_named():
    rows = [row("#### 1", str(n), "number", f"own/train/{n}") for n in range(20)]
    with pytest.raises(StudyError, match="^19 of 20.*own/train/0:.*own/train/5:") as error:
        audit.audit(Dataset.from_list(rows))
    assert "own/train/6" not in str(error.value)


def test_rows_are_graded_once_and_again_when_they_change(monkeypatch):
    graded = []
    grade = grading.grade_many
    monkeypatch.setattr(grading, "grade_many", lambda *a: graded.append(len(a[0])) or grade(*a))
    rows = data.load("tiny_gsm8k", "train", limit=20)
    for part in (rows.select(range(10)), rows, rows):
        audit.audit(part)
    assert [n for n in graded if n] == [10, 10]
    changed = rows.map(lambda r: {"answer": str(int(r["answer"]) + 1)}, load_from_cache_file=False)
    with pytest.raises(StudyError, match="^20 of 20"):
        audit.audit(changed)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_training_refuses_to_start(method, small, world, monkeypatch):
    loaded = []
    monkeypatch.setattr(train, "load_model", loaded.append)
    run = Run(method)
    rows = study.rows_for(run, small)
    rows = rows.remove_columns("answer").add_column("answer", ["assert f(1)"] * len(rows))
    with pytest.raises(StudyError, match="cannot be graded"):
        METHODS[method](Job(run, small, world / "out", rows=rows))
    assert not loaded and not (world / "out").exists()


@pytest.mark.slow
def test_auditing_is_cheap():
    rows = data.load("tiny_mbpp", "train", limit=200)
    audit.audit(rows.select([0]))  # starts the sandbox
    began = time.perf_counter()
    audit.audit(rows)
    assert time.perf_counter() - began < 5  # a second on an idle machine
