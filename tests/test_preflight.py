"""What would fail a run after hours is said before it starts."""

import errno
import json
import math
import os
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from hybridlib import ROOT, StudyError, data, files, preflight, rewards, study
from hybridlib import __main__ as cli
from hybridlib.rewards import REWARDS
from hybridlib.study import Run

COLUMNS = {"question": "q", "answer": "a"}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def on_rows(small, path, rows):
    return replace(small, datasets=(lines(path, rows),), columns=COLUMNS)


@pytest.fixture
def unstarted(monkeypatch):
    """No worker may start."""

    def start(*_, **__):
        raise AssertionError("a worker has started")

    monkeypatch.setattr(study, "Pool", start)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "fields",
    [
        dict(steps=-5),
        dict(steps=-1),
        dict(n_train=-1),
        dict(rank=0),
        dict(rank=-8),
        dict(learning_rate=-1e-3),
        dict(learning_rate=math.nan),
        dict(learning_rate=math.inf),
        dict(seed=-1),
        dict(seed=2**32),
        dict(share=math.nan),
        dict(overlap=math.nan, partition="random"),
        dict(method="grpo", reward_weights=(math.nan,)),
        dict(method="grpo", reward_weights=(math.inf,)),
    ],
    ids=str,
)
def test_numbers_without_sense_are_refused(fields):
    with pytest.raises(StudyError) as caught:
        Run(**{"method": "sft"} | fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "run --method sft --steps -5",
        "run --method sft --n-train -2",
        "run --method sft --rank 0",
        "run --method sft --workers -1",
        "run --method sft --options max_steps=-5",
        "run --method sft --options max_steps=0",
        "run --method sft --options num_train_epochs=-3",
        "run --method sft --options per_device_train_batch_size=0",
        "run --method grpo --options max_completion_length=-1",
        "run --method grpo --options learning_rate=none",
        "run --method grpo --options num_generations=0",
        "run --method grpo --options temperature=-1",
        "run --method grpo --options beta=-0.1",
        "run --method sft --options warmup_steps=-5",
        "run --method sft --options weight_decay=nothing",
        "sweep scale --workers -1",
        "advise --rows -1",
        "base --ladder --rows 0",
        "book --jobs 0",
        "verify --sample 0",
        "restamp --sample -1",
    ],
)
def test_a_command_with_a_number_without_sense_ends_at_once(words, world, unstarted, capsys):
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("hybridlib: ") and "\n" not in error
    assert not list(world.glob("runs/*")) and not list(world.glob("data/results/*"))


@pytest.mark.parametrize("words", ["--n-train 1", "--options per_device_train_batch_size=8000"])
def test_fewer_rows_than_a_batch_of_grpo_end_at_once(words, world, unstarted, capsys):
    assert cli.main(f"run --method grpo --n-train 5 {words}".split()) == 2
    error = capsys.readouterr().err.strip()
    assert "training rows are fewer than the" in error and "\n" not in error


def test_a_model_that_no_network_can_fetch_ends_at_once(world, unstarted, capsys):
    assert cli.main("run --method sft --model nobody/nothing-1b".split()) == 2
    error = capsys.readouterr().err.strip()
    assert "no network to fetch the model nobody/nothing-1b" in error and "--model" in error


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("blocked", ["data/results", "runs"])
def test_a_folder_that_cannot_be_made_is_named(small, world, unstarted, blocked):
    (world / blocked).write_text("a file in its place")
    with pytest.raises(StudyError, match=f"cannot write to .*{blocked}"):
        study.execute_all([Run("sft")], small)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_or_read_only_disk_is_named(small, world, unstarted, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StudyError, match=f"cannot write to .*results.*{os.strerror(number)}"):
        study.execute_all([Run("sft")], small)


def test_a_check_leaves_nothing(small, world):
    before = sorted(world.rglob("*"))
    preflight.check_folders(small)
    assert sorted(world.rglob("*")) == before


def test_a_folder_without_permission_is_named(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="cannot write to"):
        files.check_writable(tmp_path / "results")


# ---------------------------------------------------------------- models


def test_weights_that_are_no_numbers_are_found_before_a_run(small, world, unstarted, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in (ROOT / "data" / "bases" / "small").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name].clone().fill_(torch.nan)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudyError, match=rf"model\.safetensors: the weights {name}"):
        study.execute_all([Run("sft")], replace(small, model=str(folder)))


def test_a_dry_run_on_a_folder_that_is_no_model(world, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    words = ["run", "--method", "sft", "--dry-run", "--model", str(tmp_path / "nothing")]
    assert cli.main(words) == 2
    error = capsys.readouterr().err.strip()
    assert "config.json cannot be read" in error and "\n" not in error


# ---------------------------------------------------------------- rows


def row(index, **columns):
    return {"q": f"{index} and 1?", "a": str(index + 1)} | columns


def test_a_set_too_small_to_have_test_rows(small, world, unstarted, tmp_path):
    profile = on_rows(small, tmp_path / "a.jsonl", [row(0)])
    with pytest.raises(StudyError, match=r"a\.jsonl/test has no rows"):
        study.execute_all([Run("sft")], profile)


def test_a_bad_row_among_those_held_out(small, world, unstarted, tmp_path):
    profile = on_rows(small, tmp_path / "a.jsonl", [row(i) for i in range(60)])
    preflight.check_rows([Run("sft")], profile)
    test_rows = data.load(profile.datasets[0], "test", columns=COLUMNS)
    held_out = int(test_rows[0]["id"].rpartition("/")[2])
    rows = [row(i, **({"a": ["7"]} if i == held_out else {})) for i in range(60)]
    profile = replace(on_rows(small, tmp_path / "b.jsonl", rows), n_eval=0)
    with pytest.raises(StudyError, match=f"row {held_out} of .*'a' holds no text but a list"):
        study.execute_all([Run("sft")], profile)


@pytest.mark.parametrize("verb", ["advise", "run --method sft", "run --method grpo --dry-run"])
def test_an_empty_file_ends_every_command_in_seconds(verb, world, unstarted, cases, capsys):
    began = time.perf_counter()
    words = [*verb.split(), "--dataset", str(cases / "void.jsonl"), "--columns"]
    assert cli.main([*words, "question=q,answer=a"]) == 2
    error = capsys.readouterr().err.strip()
    assert "void.jsonl is empty" in error and "\n" not in error
    assert time.perf_counter() - began < 5


# ---------------------------------------------------------------- rewards


def nothing(completions, **_):
    """What a function without a return gives."""


BROKEN = {
    "nothing": (nothing, "returns NoneType"),
    "none for all": (lambda completions, **_: [None] * len(completions), "None for every row"),
    "one too few": (lambda completions, **_: [1.0] * (len(completions) - 1), "values; it owes"),
    "one too many": (lambda completions, **_: [1.0] * (len(completions) + 1), "values; it owes"),
    "a single number": (lambda completions, **_: 1.0, "returns float"),
    "a generator": (lambda completions, **_: (1.0 for _ in completions), "returns generator"),
    "nan": (lambda completions, **_: [math.nan] * len(completions), "nan, which is no finite"),
    "infinity": (lambda completions, **_: [math.inf] * len(completions), "inf, which is no"),
    "texts": (lambda completions, **_: ["1"] * len(completions), "'1', which is no finite"),
    "nan at an empty answer": (
        lambda completions, **_: [1.0 if c[-1]["content"] else math.nan for c in completions],
        "nan, which is no finite",
    ),
    "lists": (lambda completions, **_: [[1.0]] * len(completions), "which is no finite"),
    "an error": (lambda completions, **_: [1 / 0], "fails: ZeroDivisionError"),
    "a column that is not there": (lambda completions, colour, **_: [], "fails: TypeError"),
    "an error of two lines": (lambda completions, **_: int("x\ny"), "fails: ValueError"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_reward_is_named_before_anything_is_trained(
    fault, small, world, unstarted, monkeypatch
):
    function, words = BROKEN[fault]
    monkeypatch.setattr(function, "__name__", "mine")
    monkeypatch.setitem(REWARDS, "mine", function)
    profile = replace(small, datasets=("tiny_gsm8k",))
    with pytest.raises(StudyError, match=f"the reward 'mine' .*{words}") as caught:
        study.execute_all([Run("grpo", rewards=("correct", "mine"))], profile)
    assert "\n" not in str(caught.value)


def test_every_reward_that_asks_no_model_passes_on_every_kind_of_row(small, world):
    names = tuple(
        name for name in REWARDS if not {*getattr(REWARDS[name], "needs", ())} - {"limit"}
    )
    preflight.check_rewards([Run("grpo", rewards=names)], small)


def test_a_reward_may_be_none_where_it_does_not_apply(small, world, monkeypatch):
    def tidy(completions, kind, **_):
        return [1.0 if k == "program" else None for k in kind]

    monkeypatch.setitem(REWARDS, "tidy", tidy)
    preflight.check_rewards([Run("grpo", rewards=("correct", "tidy"))], small)
    with pytest.raises(StudyError, match=r"'tidy' returns None for every row tried \(number\)"):
        preflight.check_rewards(
            [Run("grpo", rewards=("correct", "tidy"))], replace(small, datasets=("tiny_gsm8k",))
        )


def test_a_reward_that_breaks_later_is_named_too(monkeypatch):
    monkeypatch.setitem(REWARDS, "late", lambda completions, **_: [math.nan])
    (late,) = rewards.bind(["late"], None, None, 9)
    with pytest.raises(StudyError, match="nan, which is no finite number"):
        late(completions=["x"], prompts=["y"])
