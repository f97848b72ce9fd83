import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import StudyError, data, grading
from hybridlib.tiny import errors, tasks

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
        return {repr(next(stream)[0]) for _ in range(600)}

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
        assert grading.grade(right.splitlines()[-1], row["answer"], row["kind"]).correct


def test_an_unknown_task_is_named():
    with pytest.raises(StudyError, match="valid: tiny_gsm8k, tiny_math, tiny_mbpp"):
        tasks.raw_rows("tiny_gsm9k", "train", 1)


def first_documents(name, level, count, withheld=0.0):
    return list(itertools.islice(tasks.documents(name, level, 0, withheld), count))


@pytest.mark.parametrize("name", NAMES)
def test_withheld_pairs_are_in_no_document_and_leave_the_others_as_they_are(name):
    kept_away = tasks.withheld_pairs(name, 0.3)
    assert tasks.withheld_pairs(name, 0.2) < kept_away
    chains = [tasks.document(name, 3, 0, number) for number in range(60)]
    pairs = [set(itertools.pairwise(tasks.FAMILIES[name].operations(chain))) for chain, _ in chains]
    free = [row for (_, row), found in zip(chains, pairs, strict=True) if not found & kept_away]
    assert 0 < len(free) < 60
    assert first_documents(name, 3, len(free), 0.3) == free


@given(st.sampled_from(NAMES), st.integers(1, 6), st.integers(0, 10**6))
def test_every_operation_of_a_chain_has_a_name_that_pairs_are_made_of(name, level, seed):
    family = tasks.FAMILIES[name]
    found = family.operations(family.draw(level, random.Random(seed)))
    assert len(found) == level
    assert any(set(found) <= set(together) for together in family.OPERATIONS_TOGETHER)


def spoken(text):
    """The words of a question, without what is drawn anew each time."""
    text = re.sub(r"\$[^$]*\$", "0", text.partition("\n")[0])
    names = "|".join([*tasks.FAMILIES["tiny_gsm8k"].NAMES, *tasks.FAMILIES["tiny_gsm8k"].THINGS])
    return re.sub(rf"{names}|\d+", "0", text)


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_reads_many_wordings_and_none_that_is_held_out(name):
    documents = {spoken(next(iter(row.values()))) for row in first_documents(name, 1, 400)}
    trained = {spoken(next(iter(row.values()))) for row in tasks.raw_rows(name, "train", 500)[::5]}
    held_out = {spoken(next(iter(row.values()))) for row in tasks.raw_rows(name, "wording", 100)}
    assert len(documents) > 1.5 * len(trained)
    assert not documents & held_out


@pytest.mark.parametrize("name", ["tiny_gsm8k", "tiny_math"])
def test_no_way_to_say_a_part_is_the_held_out_one(name):
    family = tasks.FAMILIES[name]
    for part, ways in family.PHRASINGS.items():
        assert family.WORDINGS[-1][part] not in ways
        assert len(ways) == len(set(ways))


@given(st.sampled_from(["tiny_gsm8k", "tiny_math"]), st.integers(0, 10**4), st.data())
def test_the_first_error_of_a_spoilt_solution_is_named(name, seed, draw):
    rng = random.Random(seed)
    family = tasks.FAMILIES[name]
    chain = family.draw(4, rng)
    gold = family.solve(chain)
    kind = "number" if name == "tiny_gsm8k" else "expression"
    lines = gold.splitlines()
    place = draw.draw(st.integers(0, 3))

    count = itertools.count()

    def slip(step):
        return step + 1 if next(count) == place else step

    assert errors.first_error(gold, family.solve(chain, slip), kind) == "wrong arithmetic"
    short = "\n".join(lines[:place] + lines[-1:])
    assert errors.first_error(gold, short, kind) == "lost step"
    broken = "\n".join([*lines[:place], "and so on", *lines[place:]])
    assert errors.first_error(gold, broken, kind) == "wrong form"
    foreign = "<<77+77=154>>154" if kind == "number" else "77+77=154"
    changed = "\n".join([*lines[:place], foreign, *lines[place + 1 :]])
    assert errors.first_error(gold, changed, kind) == "wrong operand"


@pytest.mark.parametrize(
    "given_lines, error",
    [
        (["xs = xs[2:]", "xs = xs[::-1]"], "wrong operand"),
        (["xs = sorted(xs)", "xs = xs[::-1]"], "wrong operand"),
        (["xs = xs[::-1]"], "lost step"),
        (["xs = xs[::-1]", "xs = xs[1:]"], "lost step"),
        (["xs = xs[1:]", "xs = xs[::-1]", "xs = xs[::-1]"], "lost step"),
        (["xs = xs[1:]", "print(xs)"], "wrong form"),
        (["xs = xs[1", "xs = xs[::-1]"], "wrong form"),
    ],
)
def test_the_first_error_of_a_program_is_named(given_lines, error):
    def program(lines):
        return "\n".join(["def f(xs):", *(f"    {line}" for line in lines), "    return xs"])

    gold = program(["xs = xs[1:]", "xs = xs[::-1]"])
    assert errors.first_error(gold, program(given_lines), "program") == error
