"""A model that is never right is not reinforced; another one trains as it would without a pilot."""

import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import StudyError, files, pilot, results, study
from hybridlib import __main__ as cli
from hybridlib.pilot import Pilot
from hybridlib.profiles import PROFILES
from hybridlib.runs import Run
from hybridlib.verify import COMPARED


@pytest.fixture
def profile(small, monkeypatch):
    """The small profile, known to the command line."""
    profile = replace(small, n_train=32, datasets=("tiny_gsm8k",), n_eval=2)
    monkeypatch.setitem(PROFILES, "small", profile)
    return profile


@pytest.fixture
def unstarted(monkeypatch):
    """No worker may start."""

    def submit(*_, **__):
        raise AssertionError("a worker has started")

    monkeypatch.setattr(study.Pool, "submit", submit)


@pytest.fixture
def too_hard(tmp_path):
    """Rows of products that the tiny base cannot know."""
    rows = [{"q": f"What is {a} * {a + 7}?", "a": str(a * (a + 7))} for a in range(4321, 4381)]
    file = tmp_path / "hard.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.slow
def test_rows_that_the_base_cannot_do_are_refused(profile, too_hard, world, unstarted, capsys):
    mine = f"--profile small --dataset {too_hard} --columns question=q,answer=a"
    assert cli.main(f"run --method grpo {mine}".split()) == 2
    out, error = capsys.readouterr()
    assert "before training: 0.0% of 32 x 4 answers are right" in out
    for remedy in ("--method sft", "--select", "num_generations=16", "--anyway"):
        assert remedy in error
    assert error.startswith("hybridlib: grpo has next to nothing to reinforce") and (
        "\n" not in error.strip()
    )


@pytest.mark.slow
def test_an_untrained_model_is_refused_and_its_answers_are_cut_off(profile, stranger, monkeypatch):
    untrained = replace(profile, model=str(stranger))
    found = pilot.measure(Run("grpo"), untrained)
    assert found.cut > 0.5
    monkeypatch.setattr(pilot, "measure", lambda *_: found)
    with pytest.raises(StudyError, match=r"0\.0% of answers are right, under 2%; imitate"):
        pilot.check(Run("grpo"), untrained)


@pytest.mark.slow
def test_easy_rows_pass_and_every_count_is_of_the_same_answers(profile, monkeypatch, capsys):
    run = Run("grpo", seed=3)
    found = pilot.measure(run, profile)
    assert found == pilot.measure(run, profile)  # its own random stream
    assert len(found.right) == pilot.PROMPTS and found.group == profile.grpo["num_generations"]
    assert 0.2 < found.strict <= found.lenient and found.informative > 0.1
    monkeypatch.setattr(pilot, "measure", lambda *_: found)
    pilot.check(run, profile)
    said = f"{found.strict:.1%} of 32 x 4 answers are right, {found.lenient:.1%} wherever"
    assert said in capsys.readouterr().out


def test_what_has_another_teacher_or_another_aim_is_not_asked(monkeypatch, profile):
    monkeypatch.setattr(pilot, "measure", lambda *_: Pilot(8, [0] * 32, 0, 0))
    for run in (
        Run("sft"),
        Run("chord"),
        Run("distil", teacher="sft"),
        Run("grpo", rewards=("format",)),
        Run("merge", merge="mean", parents=("a", "b")),
    ):
        pilot.check(run, profile)
    for run in (Run("grpo"), Run("stack", start="sft"), Run("grpo", rewards=("format", "correct"))):
        with pytest.raises(StudyError, match="nothing to reinforce"):
            pilot.check(run, profile)


def test_a_form_that_is_missing_is_told_from_an_answer_that_is(monkeypatch, profile):
    monkeypatch.setattr(pilot, "measure", lambda *_: Pilot(8, [1] * 5 + [0] * 27, 0.4, 0))
    with pytest.raises(StudyError, match=r"2\.0% of .*; the answers are there and their form"):
        pilot.check(Run("grpo"), profile)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40))
def test_shares_of_a_pilot(right):
    found = Pilot(6, right, 1.0, 0.0)
    assert 0 <= found.informative <= 1 and 0 <= found.strict <= 1
    assert (found.informative == 0) == ({*right} <= {0, 6})
    alike = Pilot(6, [3] * len(right), 1.0, 0.0)
    assert alike.informative == 1 and alike.informative_if_alike == 1 - 2 * 0.5**6


@pytest.mark.slow
def test_a_run_has_the_same_numbers_with_a_pilot_and_without(
    profile, world, in_process, monkeypatch
):
    asked = []
    monkeypatch.setattr(pilot, "measure", asking(asked, pilot.measure))
    assert cli.main("run --method sft --profile small".split()) == 0
    command = "run --method grpo --start sft --profile small".split()
    run, records = Run("grpo", start="sft"), []
    for flags in ([], ["--anyway"]):
        assert cli.main(command + flags) == 0
        records.append(results.find(run, profile))
        (files.results_folder("small") / f"{run.id}.json").rename(world / "away.json")
        shutil.rmtree(files.run_folder(run.id, "small"))
    assert asked == [run]
    first, second = records
    for part in COMPARED:
        assert first.get(part) == second.get(part), part
    (world / "away.json").rename(files.results_folder("small") / f"{run.id}.json")
    assert cli.main(command) == 0
    assert asked == [run]  # what is finished is not asked again


def asking(asked, measure):
    def measure_and_note(run, profile):
        asked.append(run)
        return measure(run, profile)

    return measure_and_note
