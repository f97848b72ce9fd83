"""What a base can do is counted right, and the gate says no where it should."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib import StudyError, ladder, pretrain
from hybridlib.__main__ import main
from hybridlib.tiny import FAMILIES

FIT = {1: 0.95, 2: 0.75, 3: 0.55, 4: 0.3, 5: 0.15, 6: 0.08}
ROWS = 100


def answers(greedy=FIT, gap=0.05, cool=0.03, wording=0.4):
    """Answers of a base with these accuracies, by level, exactly."""
    parts = []
    for family in FAMILIES:
        for level, share in greedy.items():
            right = np.arange(ROWS) < round(share * ROWS)
            sampled = np.where(right, 1.0, 0.0) * (1 - gap / share)
            split = "longer" if level == 6 else "test"
            parts.append(rows(family, split, level, right, sampled, cool))
        right = np.arange(ROWS) < round(wording * ROWS)
        parts.append(rows(family, "wording", 1, right, right * 0.9, cool))
    return pd.concat(parts, ignore_index=True)


def rows(family, split, level, right, sampled, cool):
    columns = {
        "family": family, "split": split, "level": level, "greedy": right.astype(float),
        "sampled": sampled, "cool": sampled + cool, "any": right.astype(float),
        "error": np.where(right, "", np.where(np.arange(ROWS) % 2, "lost step", "wrong operand")),
    }  # fmt: skip
    return pd.DataFrame(columns)


def attempts(never=20, mixed=40):
    """Training rows, of each 100 so many never right, so many at times, and the others always."""
    right = [0] * never + [9] * mixed + [ladder.TRAINING_SAMPLES] * (100 - never - mixed)
    rows = {"greedy": [float(count > 16) for count in right], "right": right}
    return pd.concat([pd.DataFrame(rows | {"family": family}) for family in FAMILIES])


def failing(found, trained=None):
    checks = ladder.gate(found, attempts() if trained is None else trained)
    return {check.what for check in checks if not check.holds}


def test_a_base_within_the_bands_passes_the_gate():
    assert failing(answers()) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, what",
    [
        (dict(greedy=FIT | {1: 0.85}), "greedy, level 1"),
        (dict(greedy=FIT | {3: 0.75}), "greedy, level 3"),
        (dict(greedy=FIT | {5: 0.02}), "greedy, level 5"),
        (dict(greedy=FIT | {6: 0.01}, gap=0.01), "greedy, longer"),
        (dict(wording=0.2), "wording over usual"),
        (dict(gap=0.13), "greedy less sampled, level 3"),
        (dict(cool=0.1), "temperature .5"),
    ],
)
def test_what_lies_outside_a_band_fails_the_gate(change, what):
    assert any(what in found for found in failing(answers(**change)))


@pytest.mark.slow
def test_training_rows_must_leave_something_to_imitate_and_something_to_choose_between():
    what = "training rows wrong greedily and in 32 samples"
    assert failing(answers(), attempts(never=10)) == {what}
    what = "training rows right in some of 32 samples and wrong in others"
    assert failing(answers(), attempts(mixed=15)) == {what}


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_a_mean_lies_within_its_interval(values):
    estimate = ladder.mean(values)
    assert estimate.value == pytest.approx(sum(values) / len(values))
    assert estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9


def test_rungs_and_errors_count_each_question_once():
    found = answers()
    rungs = ladder.rungs(found).set_index(["family", "rung"])
    assert rungs["rows"].sum() == len(found)
    assert rungs.loc[("tiny_math", "3"), "greedy"].value == 0.55
    assert set(rungs.index.get_level_values("rung")) == {*"12345", "longer", "wording"}
    kinds = ladder.errors_by_level(found).set_index(["family", "level"])
    assert kinds.loc[("tiny_math", 3), "wrong"] == 45
    assert kinds.loc[("tiny_math", 3), list(ladder.errors.ERRORS)].sum() == pytest.approx(1)


@pytest.mark.parametrize("flag", ["--ladder", "--gate"])
def test_a_base_that_is_not_there_is_named(world, monkeypatch, capsys, flag):
    monkeypatch.setattr(pretrain, "ROOT", world)
    assert main(["base", "--size", "small", "--seed", "3", flag]) == 2
    assert "small-3 is missing; build it with: python -m hybridlib base" in capsys.readouterr().err


def test_an_unknown_size_is_named(capsys):
    assert main(["base", "--size", "huge"]) == 2
    assert "unknown size 'huge'; valid: small" in capsys.readouterr().err


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(StudyError, match="is missing"):
        ladder.answer(tmp_path / "none")
