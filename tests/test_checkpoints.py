from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hybridlib import results, study
from hybridlib.methods import checkpoints, train
from hybridlib.methods.registry import Job
from hybridlib.runs import Run

SHARES = (0.25, 0.5, 1.0)


@pytest.fixture
def measured(small):
    constant = dict(max_steps=4, lr_scheduler_type="constant", learning_rate=5e-3)
    return replace(
        small,
        name="measured",
        checkpoints=SHARES,
        drift=True,
        sft=small.sft | constant,
        grpo=small.grpo | constant,
    )


def trained(profile, run, out):
    return train.METHODS[run.method](Job(run, profile, out, rows=study.rows_for(run, profile)))


def test_steps_are_distinct_and_begin_with_one():
    assert checkpoints.steps_of((0.001, 0.002, 0.26, 1), 100) == [1, 26, 100]
    assert checkpoints.steps_of((), 100) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_point_is_what_a_run_of_so_many_steps_scores(measured, world, method):
    plain = replace(measured, drift=False)
    whole = study.execute(Run(method), plain)
    assert [point["step"] for point in whole["checkpoints"]] == [1, 2, 4]
    for point in whole["checkpoints"]:
        shorter = Run(method, steps=point["step"])
        record = study.execute(shorter, replace(plain, checkpoints=()))
        greedy = {name: item["greedy"] for name, item in record["items"].items()}
        assert {k: v for k, v in point["greedy"].items() if k.endswith("test")} == greedy
        assert point["operations"] == record["cost"]["operations"] > 0
        assert 0 < point["tokens"]
    per_step = measured.grpo["per_device_train_batch_size"]
    last = whole["checkpoints"][-1]
    assert last["sequences"] == 4 * per_step
    assert last["prompts"] == 4 * per_step // (4 if method == "grpo" else 1)
    table = results.checkpoints("measured")
    assert len(table) == 3 * 2 * 3 and set(table["split"]) == {"valid", "test"}
    assert table["value"].between(0, 1).all() and table["seconds"].is_monotonic_increasing


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", [Run("sft"), Run("grpo", on=("tiny_math",))], ids=lambda run: run.id
)
def test_reading_changes_nothing_in_the_training(measured, world, run):
    read = trained(replace(measured, n_checkpoint=2), run, world / "read")
    assert {len(d) for point in read.checkpoints for d in point["greedy"].values()} == {2}
    unread = trained(replace(measured, checkpoints=()), run, world / "unread")
    files = [t.adapter / "adapter_model.safetensors" for t in (read, unread)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read.curve == unread.curve and unread.checkpoints == []


@pytest.mark.slow
def test_a_resumed_training_has_the_points_of_one_without_a_break(measured, world, monkeypatch):
    saving = dict(save_strategy="steps", save_steps=1)
    profile = replace(measured, sft=measured.sft | saving)
    whole = trained(profile, Run("sft"), world / "whole")

    class Killed(Exception):
        pass

    point = checkpoints.Checkpoints._point

    def killed_at_the_end(self, step):
        if step == 4:
            raise Killed
        return point(self, step)

    monkeypatch.setattr(checkpoints.Checkpoints, "_point", killed_at_the_end)
    with pytest.raises(Killed):
        trained(profile, Run("sft"), world / "broken")
    monkeypatch.setattr(checkpoints.Checkpoints, "_point", point)
    resumed = trained(profile, Run("sft"), world / "broken")
    assert resumed.checkpoints == whole.checkpoints
    assert resumed.cost["operations"] == whole.cost["operations"]
    assert len(resumed.cost["checkpoint_seconds"]) == 3


@pytest.mark.slow
def test_the_distance_is_read_along_a_training_on_one_family(measured, world):
    record = study.execute(Run("sft", on=("tiny_math",)), measured)
    distances = [point["kl"] for point in record["checkpoints"]]
    assert distances[-1] == record["facts"]["drift"]["math"]["kl"] > distances[0] > 0


def test_a_checkpoint_that_was_cut_is_left_out_for_the_one_before_it(tmp_path, capsys):
    def save(step):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"w": torch.ones(9)}, folder / "adapter_model.safetensors")
        torch.save({"step": step}, folder / "optimizer.pt")
        (folder / "trainer_state.json").write_text('{"global_step": 1}')
        return folder

    assert train.last_checkpoint(tmp_path / "none") is None
    whole = save(9)
    for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
        for keep in (0.0, 0.5):
            file = save(10) / name
            file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
            assert train.last_checkpoint(tmp_path) == str(whole)
            line = capsys.readouterr().out.strip()
            assert str(file) in line and "\n" not in line and not file.parent.exists()
    (save(10) / "trainer_state.json").unlink()
    assert train.last_checkpoint(tmp_path) == str(whole)
    assert train.last_checkpoint(tmp_path) == str(whole)
    assert train.last_checkpoint(save(11).parent) == str(tmp_path / "checkpoint-11")
