"""What SFT imitates: the same rows, other completions, and right ones."""

import pytest

from hybridlib import grading, study
from hybridlib.data import TEMPLATES
from hybridlib.targets import TARGETS


@pytest.fixture
def rows(small, world):
    return study.rows_for(study.Run("sft"), small)


def graded(rows):
    texts = [turns[-1]["content"] for turns in rows["completion"]]
    return grading.grade_many(texts, rows["answer"], rows["kind"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_keeps_the_rows_and_is_right(name, rows, small):
    found = TARGETS[name](rows, small, 0)
    assert TARGETS[name].__doc__
    assert list(found["id"]) == list(rows["id"]) and list(found["answer"]) == list(rows["answer"])
    assert all(verdict.correct for verdict in graded(found))
    again = TARGETS[name](rows, small, 0)
    assert list(again["completion"]) == list(found["completion"])


@pytest.mark.slow
def test_answers_alone_are_short_and_programs_stay(rows, small):
    found = TARGETS["answer"](rows, small, 0)
    for old, new in zip(rows, found, strict=True):
        before, after = (row["completion"][-1]["content"] for row in (old, new))
        assert (after == before) if old["kind"] == "program" else ("\n" not in after)


def test_own_answers_are_taken_where_a_sample_is_right(rows, small):
    from hybridlib import difficulty

    texts, rates = difficulty.right_answers(small, rows), difficulty.pass_rates(small, rows)
    found = TARGETS["own"](rows, small, 0)
    assert [text is None for text in texts] == [rate == 0 for rate in rates]
    for text, old, new in zip(texts, rows, found, strict=True):
        assert new["completion"][-1]["content"] == (text or old["completion"][-1]["content"])


@pytest.mark.slow
def test_templates_never_use_the_last_one(rows, small):
    found = TARGETS["templates"](rows, small, 0)
    last = TEMPLATES[list(TEMPLATES)[-1]].partition("{}")[0]
    texts = [turns[-1]["content"] for turns in found["prompt"]]
    assert not any(text.startswith(last) for text in texts)
    assert len({text.split()[0] for text in texts}) > 1
