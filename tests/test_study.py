import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hybridlib import StudyError, files, results, study
from hybridlib.profiles import PROFILES
from hybridlib.sandbox import judge
from hybridlib.study import GRIDS, Run
from hybridlib.verify import verify

TINY = PROFILES["tiny"]


def test_ids_name_only_what_differs_from_the_defaults():
    assert Run("base").id == "base"
    assert Run("sft", nf4=True, backend="unsloth", seed=1).id == "sft_nf4_backend-unsloth_seed-1"
    assert (
        Run("grpo", rewards=("correct", "format"), learning_rate=0.003).id
        == "grpo_lr-0.003_reward-correct+format"
    )
    merged = Run("merge", parents=("sft", "grpo"), merge="mean")
    assert merged.id == "merge_of-sft+grpo_by-mean" and merged.prerequisites == ("sft", "grpo")


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_have_unique_ids_and_bring_their_parents(grid):
    runs = GRIDS[grid](TINY)
    ids = [run.id for run in runs]
    assert len(set(ids)) == len(set(runs)) == len(dict.fromkeys(ids))
    assert all(need in ids for run in runs for need in run.prerequisites)
    assert all(len(name) < 150 for name in ids)
    assert all(Run(**json.loads(json.dumps(results.asdict(run)))) == run for run in runs)


def test_a_new_entry_of_a_registry_joins_no_published_grid(monkeypatch):
    from hybridlib.merging import OPERATORS
    from hybridlib.objectives import OBJECTIVES
    from hybridlib.partition import RULES

    full = PROFILES["tiny-full"]
    before = {grid: GRIDS[grid](full) for grid in GRIDS}
    for registry, like in ((RULES, "random"), (OBJECTIVES, "dft"), (OPERATORS, "mean")):
        monkeypatch.setitem(registry, "newcomer", registry[like])
    after = {grid: GRIDS[grid](full) for grid in GRIDS}
    assert {grid for grid in GRIDS if before[grid] != after[grid]} == {"unpublished"}
    new = [run.id for run in after["unpublished"] if "newcomer" in run.id]
    assert len(new) == 5 * len(full.seeds)  # an objective, two halves and their merge, an operator


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        (dict(method="sfft"), "valid: base, cat, chord, chord_mu"),
        (dict(method="grpo", rewards=("corect",)), "correct"),
        (dict(method="sft", partition="fair"), "passrate"),
        (dict(method="sft", adapter="lorra"), "lora"),
        (dict(method="merge", parents=("a", "b"), merge="slurp"), "ties"),
        (dict(method="sft", backend="tpu"), "unsloth"),
        (dict(method="merge", parents=("a",), merge="mean"), "two parents"),
        (dict(method="route", parents=("a",)), "two parents"),
        (dict(method="cat", parents=("a",)), "two parents"),
        (dict(method="stack"), "needs the one run"),
        (dict(method="rounded", start="a", parents=("b", "c")), "needs the one run"),
        (dict(method="merge", parents=("a", "b"), merge="mean", lambdas=(1, 2)), "lambdas"),
        (dict(method="merge", parents=("a", "b"), merge="sum", lambdas=(1,)), "one for each"),
        (dict(method="grpo", reward_weights=(1.0, 2.0)), "as many weights"),
        (dict(method="grpo", overlap=0.3), "--partition"),
        (dict(method="grpo", partition="random", overlap=1.5), "0 to 1"),
    ],
)
def test_a_typo_costs_a_second_and_not_a_night(fields, valid):
    with pytest.raises(StudyError, match=valid):
        Run(**fields)


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        (dict(on=("math",)), "tiny_gsm8k, tiny_math"),
        (dict(also=("tset",)), "train, valid, test"),
        (dict(also=("test@rude",)), "polite"),
    ],
)
def test_a_set_or_split_that_is_not_there_is_named_before_anything_runs(fields, valid):
    with pytest.raises(StudyError, match=valid):
        study.plan([Run("sft", **fields)], TINY)


def test_a_method_that_imitates_by_sft_gets_the_rows_of_sft(small, monkeypatch, world):
    """Whatever it is called; every other method gets those of RL."""
    from hybridlib.methods import METHODS

    monkeypatch.setitem(METHODS, "newcomer", METHODS["sft"])
    parts = {
        name: set(study.rows_for(Run(name, partition="random"), small)["id"])
        for name in ("sft", "newcomer", "grpo", "chord")
    }
    assert parts["sft"] == parts["newcomer"] and parts["grpo"] == parts["chord"]
    assert not parts["sft"] & parts["grpo"]


@pytest.mark.slow
def test_a_grid_runs_resumes_and_verifies(small, world, in_process, capsys):
    sft, grpo = Run("sft"), Run("grpo")
    runs = [
        Run("base"),
        sft,
        grpo,
        Run("merge", parents=(sft.id, grpo.id), merge="mean"),
        Run("grpo", start=sft.id),
        Run("route", parents=(sft.id, grpo.id)),
    ]
    study.execute_all(runs, small, workers=1)
    table = results.table("small")
    assert set(table.id) == {run.id for run in runs}
    assert {"greedy", "sampled", "pass@2", "lenient"} <= set(table.metric)
    assert "left)" in capsys.readouterr().out
    for run in runs:
        file = files.results_folder("small") / f"{run.id}.json"
        assert file.stat().st_size <= 20_000
        record = json.loads(file.read_text())
        assert record["provenance"]["backend"] == "hf" and record["provenance"]["model"]
        assert record["provenance"]["sandbox"] == judge.protections()
    # Nothing is left to do; one lost record, and only that run comes again.
    assert not study.plan(runs, small)
    (files.results_folder("small") / "sft.json").unlink()
    assert [r.id for r in study.plan(runs, small)] == ["sft"]
    # A run whose parent's adapter is gone brings its parent along.
    import shutil

    shutil.rmtree(files.run_folder("grpo", "small"))
    (files.results_folder("small") / f"{runs[3].id}.json").unlink()
    assert [r.id for r in study.plan(runs, small)] == ["sft", "grpo", runs[3].id]
    study.execute_all(runs, small, workers=1)
    assert verify(small, ids=["grpo", runs[3].id])
    assert "bitwise equal" in capsys.readouterr().out
    # A setting that differs is named, and nothing is overwritten.
    other = replace(small, n_eval=5)
    with pytest.raises(StudyError, match="n_eval: 4 -> 5"):
        study.execute_all(runs, other)
    # A record that somebody changed does not verify.
    file = files.results_folder("small") / "base.json"
    record = json.loads(file.read_text())
    record["items"]["gsm8k/test"]["correct"] = "1112"
    file.write_text(json.dumps(record))
    with pytest.raises(StudyError, match="not equal: base"):
        verify(small, ids=["base"])


def test_a_damaged_adapter_is_trained_again_as_one_that_is_gone(small, world, monkeypatch):
    """By the run that needs it; the reason names the file."""
    sft = Run("sft")
    after = Run("grpo", start=sft.id)
    monkeypatch.setattr(study.results, "stale_reason", lambda run, _: "" if run == sft else "new")
    folder = files.run_folder(sft.id, small.name) / "adapter"
    assert study.plan([sft, after], small)[sft].endswith("needs its adapter: it is gone")
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    factors = {f"a.lora_{factor}.weight": torch.ones(2, 2) for factor in "AB"}
    file = folder / "adapter_model.safetensors"
    save_file(factors, file)
    assert [*study.plan([sft, after], small)] == [after]
    whole = file.read_bytes()
    for damage in (b"", whole[:5], whole[:-1], b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(damage)
        todo = study.plan([sft, after], small)
        assert [*todo] == [sft, after] and str(file) in todo[sft]
    file.write_bytes(whole)
    (folder / "adapter_config.json").write_text("{")
    assert "adapter_config.json" in study.plan([sft, after], small)[sft]


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_does_not_stop_the_others(small, world):
    broken = Run("sft", options=("no_such_option=1",))
    with pytest.raises(StudyError, match="1 of 2 runs failed: sft_with-no_such_option=1"):
        study.execute_all([broken, Run("base")], small, workers=1)
    assert (files.results_folder("small") / "base.json").exists()
    assert not (files.results_folder("small") / f"{broken.id}.json").exists()


@pytest.mark.slow
def test_another_model_and_dataset_run_by_one_parameter(
    small, world, in_process, stranger, tmp_path
):
    from hybridlib.profiles import resolve

    rows = [{"frage": f"What is {a} + 2?", "loesung": str(a + 2)} for a in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    mine = resolve(
        "tiny",
        str(stranger),
        str(tmp_path / "mine.jsonl"),
        {"question": "frage", "answer": "loesung"},
    )
    mine = replace(
        mine,
        n_train=8,
        n_eval=3,
        n_samples=2,
        max_completion_tokens=8,
        sft=dict(max_steps=1, per_device_train_batch_size=4, save_strategy="no"),
    )
    study.execute_all([Run("base"), Run("sft")], mine, workers=1)
    table = results.table(mine.name)
    assert set(table.id) == {"base", "sft"} and set(table.split) == {"test"}
