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
    targets = TARGETS[name](rows, small, 0)
    assert TARGETS[name].__doc__
    assert list(targets["id"]) == list(rows["id"]) and list(targets["answer"]) == list(
        rows["answer"]
    )
    assert all(verdict.correct for verdict in graded(targets))
    again = TARGETS[name](rows, small, 0)
    assert list(again["completion"]) == list(targets["completion"])


@pytest.mark.slow
def test_answers_alone_are_short_and_programs_stay(rows, small):
    targets = TARGETS["answer"](rows, small, 0)
    for old, new in zip(rows, targets, strict=True):
        before, after = (row["completion"][-1]["content"] for row in (old, new))
        assert (after == before) if old["kind"] == "program" else ("\n" not in after)


@pytest.mark.slow
def test_own_answers_are_taken_where_a_sample_is_right(rows, small):
    from hybridlib import difficulty

    texts, rates = difficulty.first_right_samples(small, rows), difficulty.pass_rates(small, rows)
    targets = TARGETS["own"](rows, small, 0)
    assert [text is None for text in texts] == [rate == 0 for rate in rates]
    for text, old, new in zip(texts, rows, targets, strict=True):
        assert new["completion"][-1]["content"] == (text or old["completion"][-1]["content"])


@pytest.mark.slow
def test_templates_never_use_the_last_one(rows, small):
    targets = TARGETS["templates"](rows, small, 0)
    last = TEMPLATES[list(TEMPLATES)[-1]].partition("{}")[0]
    texts = [turns[-1]["content"] for turns in targets["prompt"]]
    assert not any(text.startswith(last) for text in texts)
    assert len({text.split()[0] for text in texts}) > 1
