import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import StudyError, data, grading
from hybridlib.tiny import tasks

NAMES = sorted(tasks.FAMILIES)
COLUMNS = {
    "tiny_gsm8k": {"question", "answer"},
    "tiny_math": {"problem", "level", "type", "solution"},
    "tiny_mbpp": {"text", "code", "test_list"},
}


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_those_of_the_real_set(name):
    assert set(tasks.raw_rows(name, "train", 1)[0]) == COLUMNS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_list_starts_with_a_shorter(name):
    assert tasks.raw_rows(name, "test", 40)[:15] == tasks.raw_rows(name, "test", 15)
    assert tasks.raw_rows(name, "test", 15, seed=1) != tasks.raw_rows(name, "test", 15)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_chain_is_shared_between_training_and_test(name):
    def chains(split):
        stream = tasks.stream(name, split)
        return {repr(next(stream)[0]) for _ in range(2000)}

    train, test = (
        chains("pretrain") | chains("train") | chains("valid"),
        chains("test") | chains("wording"),
    )
    assert train and test and not train & test
    assert not chains("pretrain") & (chains("train") | chains("valid"))


@pytest.mark.parametrize("name", NAMES)
def test_no_question_stands_in_two_splits(name):
    def questions(split):
        rows = tasks.raw_rows(name, split, 500)
        return {str(row.get("question") or row.get("problem") or row["text"]) for row in rows}

    def without_wording(split):
        return {re.sub(r"[^$]*(\$.*\$)[^$]*", r"\1", text) for text in questions(split)}

    by_split = {split: without_wording(split) for split in ("pretrain", "train", "valid", "test")}
    for one, other in itertools.combinations(by_split, 2):
        assert not by_split[one] & by_split[other], (one, other)


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_the_number_of_steps(name):
    rows = data.load(name, "test", limit=25)
    assert sorted(set(rows["level"])) == [1, 2, 3, 4, 5]
    assert set(data.load(name, "longer", limit=5)["level"]) == {6}


@pytest.mark.parametrize("name", NAMES)
def test_the_wording_split_uses_sentences_that_training_does_not(name):
    def shape(row):
        return re.sub(r"\d+|\$[^$]*\$", "0", next(iter(row.values()))).split()[:6]

    trained = {tuple(shape(row)) for row in tasks.raw_rows(name, "train", 300)}
    assert all(tuple(shape(row)) not in trained for row in tasks.raw_rows(name, "wording", 50))


@given(st.sampled_from(NAMES), st.integers(1, 6), st.integers(0, 10**6))
def test_reference_solutions_are_right_and_slips_are_not(name, level, seed):
    rng = random.Random(seed)
    task = tasks.FAMILIES[name]
    chain = task.draw(level, rng)
    raw = task.row(chain, task.ask(chain, task.WORDINGS[0], rng), task.solve(chain), rng)
    row = data.DATASETS[name]("test", 1)[1](raw)
    assert row["level"] == level
    right = task.solve(chain)
    assert grading.grade(right, row["answer"], row["kind"]).correct
    if name != "tiny_mbpp":  # another operation may happen to pass the asserts
        wrong = task.solve(chain, lambda value: value + 1)
        # Two slips can undo each other: only the last line is graded.
        same = wrong.splitlines()[-1] == right.splitlines()[-1]
        assert grading.grade(wrong, row["answer"], row["kind"]).correct == same
        assert grading.grade(task.solve(chain, steps=False), row["answer"], row["kind"]).correct


def test_an_unknown_task_is_named():
    with pytest.raises(StudyError, match="valid: tiny_gsm8k, tiny_math, tiny_mbpp"):
        tasks.raw_rows("tiny_gsm9k", "train", 1)
