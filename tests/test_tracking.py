"""What a tracker holds is what the record's curve holds, and no number of a run depends on it."""

import importlib.util
import json
import sys
from dataclasses import asdict
from types import ModuleType

import pytest

from hybridlib import StudyError, files, study, tracking
from hybridlib import __main__ as cli
from hybridlib.methods import METHODS, Job
from hybridlib.runs import Run


def trained(run, profile, folder):
    return METHODS[run.method](Job(run, profile, folder, rows=study.rows_for(run, profile)))


@pytest.mark.slow
def test_tensorboard_holds_the_curve_the_answers_and_the_run(small, world, monkeypatch, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is missing: pip install '.[trackers]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run("grpo", rewards=("correct", "format"))
    untracked = trained(run, small, tmp_path / "untracked")
    monkeypatch.setenv(tracking.CHOSEN, "tensorboard")
    tracked = trained(run, small, tmp_path / "tracked")
    assert tracked.curve == untracked.curve and tracked.facts == untracked.facts

    folder = files.runs_folder(small.name) / "tensorboard" / run.id
    events = EventAccumulator(str(folder)).Reload()
    for name in {*tracked.curve[0]} - {"step"}:
        points = {point.step: point.value for point in events.Scalars(f"train/{name}")}
        for point in tracked.curve:
            assert points[point["step"]] == pytest.approx(point[name], abs=6e-5), name
    config = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    found = json.loads(config.removeprefix("```json\n").removesuffix("\n```"))
    assert Run(**found["run"]) == run and found["setting"]["model"] == small.model
    assert found["trainer"]["num_generations"] == small.grpo["num_generations"]
    tables = events.Tensors("completions/text_summary")
    assert [table.step for table in tables] == [point["step"] for point in tracked.curve]
    lines = tables[0].tensor_proto.string_val[0].decode().splitlines()
    assert lines[0] == "| question | answer | correct | format |"
    assert len(lines) == 2 + small.grpo["per_device_train_batch_size"]
    pays = [[float(cell) for cell in line.strip("| ").split(" | ")[-2:]] for line in lines[2:]]
    mean = sum(correct for correct, _ in pays) / len(pays)
    assert mean == pytest.approx(tracked.curve[0]["rewards/correct/mean"], abs=6e-5)


class Tracker(ModuleType):
    """A package that notes how it is used: Weights & Biases and Trackio have this in common."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def init(self, **given):
        self.calls.append(("init", given))
        return self

    def log(self, metrics, step):
        self.calls.append(("log", metrics, step))

    def Table(self, **given):  # noqa: N802 (the packages' own name)
        return given

    def finish(self):
        self.calls.append(("finish",))


class Trainer:
    """As much of TRL's trainer as is tracked."""

    def __init__(self):
        self._logs = {"prompt": ["1 + 1?"], "completion": ["a | 2"], "rewards": {"correct": [1.0]}}
        self.args = self
        self.callbacks = []

    def to_dict(self):
        return {"learning_rate": 0.1}

    def add_callback(self, callback):
        self.callbacks.append(callback)

    def train(self, rank=0):
        state = type("State", (), {"is_world_process_zero": rank == 0, "global_step": 0})()
        for callback in self.callbacks:
            callback.on_train_begin(self.args, state, None)
            state.global_step = 1
            callback.on_log(self.args, state, None, logs={"loss": 0.5, "kl": None})
            callback.on_log(self.args, state, None, logs={"train_runtime": 1.0})
            callback.on_train_end(self.args, state, None)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_get_the_same(name, small, world, monkeypatch):
    package = Tracker(name)
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setenv(tracking.CHOSEN, name)
    for variable in ("WANDB_MODE", "TRACKIO_DIR"):
        monkeypatch.delenv(variable, raising=False)
    trainer = Trainer()
    tracking.attach(trainer, Run("grpo"), small)
    trainer.train()
    (_, opened), *calls, last = package.calls
    assert opened["project"] == small.name and opened["name"] == "grpo"
    assert opened["config"]["run"] == json.loads(json.dumps(asdict(Run("grpo"))))
    assert opened.get("mode") == ("offline" if name == "wandb" else None)
    assert calls[0] == ("log", {"train/loss": 0.5}, 1) and last == ("finish",)
    assert calls[2] == ("log", {"train/train_runtime": 1.0}, 1)
    [[table]] = [call[1].values() for call in calls if "completions" in call[1]]
    if name == "trackio":
        frame = table["dataframe"]
        table = {"columns": [*frame], "data": frame.to_numpy().tolist()}
    assert table == {
        "columns": ["question", "answer", "correct"],
        "data": [["1 + 1?", "a | 2", 1.0]],
    }


def test_the_first_process_alone_writes_and_no_name_tracks_nothing(small, world, monkeypatch):
    package = Tracker("wandb")
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv(tracking.CHOSEN, raising=False)
    trainer = Trainer()
    tracking.attach(trainer, Run("grpo"), small)
    assert trainer.callbacks == []
    monkeypatch.setenv(tracking.CHOSEN, "wandb")
    tracking.attach(trainer, Run("grpo"), small)
    trainer.train(rank=1)
    assert package.calls == []


def test_a_tracker_that_is_missing_or_unknown_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv(tracking.CHOSEN, raising=False)
    tracking.choose("")
    assert tracking.CHOSEN not in tracking.os.environ
    with pytest.raises(StudyError, match="unknown tracker 'mlflow'; valid: tensorboard, trackio"):
        tracking.choose("mlflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for verb in ("run --method sft", "sweep scale"):
        assert cli.main(f"{verb} --track trackio --dry-run".split()) == 2
        error = capsys.readouterr().err.strip()
        assert "trackio is not installed; pip install trackio" in error and "\n" not in error


def test_a_table_of_tensorboard_is_one_line_an_answer():
    assert tracking._in_a_cell("a | b\nc") == "a \\| b<br>c"
    assert tracking._in_a_cell(0.5) == "0.5"
