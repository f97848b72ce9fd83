"""One file per run: written whole, never overwritten unseen, read back as tidy tables."""

import json
import os
from dataclasses import asdict, replace

import pytest

import hybridlib
from hybridlib import StudyError, files, fingerprint, results
from hybridlib.profiles import Profile
from hybridlib.runs import Run


class Named(Run):
    """A run whose name does not tell all of its fields."""

    @property
    def id(self):
        return f"{self.method}_seed-{self.seed}"


RUN = Named("sft", rewards=("correct", "format"))
PROFILE = Profile("tiny", model="none", n_eval=10, splits=("test", "longer"))


def record(run=RUN, profile=PROFILE, **changes):
    return {
        "id": run.id,
        "profile": profile.name,
        "run": asdict(run),
        "setting": asdict(profile),
        "scores": [
            {
                "family": "gsm8k",
                "split": "test",
                "metric": "greedy",
                "value": 0.5,
                "low": 0.2,
                "high": 0.8,
                "n": 4,
            }
        ],
        "items": {
            "gsm8k/test": {"level": "1122", "greedy": "0110", "correct": "0340", "samples": 4}
        },
        "curve": [{"step": 1, "loss": 0.5}],
        "samples": [],
        "cost": {"train_seconds": 2.0, "tokens": 10},
        "facts": {},
        "provenance": {"code": fingerprint.digests_of(run, profile)},
    } | changes


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(hybridlib, "ROOT", tmp_path)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    return tmp_path


def test_what_is_saved_is_read_back(root):
    path = results.save(record())
    assert path == root / "data/results/tiny/sft_seed-0.json"
    assert json.loads(path.read_text())["run"]["rewards"] == ["correct", "format"]
    assert results.find(RUN, PROFILE) == results.read("tiny")[0]
    assert results.find(replace(RUN, seed=1), PROFILE) is None
    assert sorted(os.listdir(path.parent)) == [path.name], "no temporary file stays"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(monkeypatch):
    path = results.save(record())
    before = path.read_text()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        results.save(record(samples=["other"]))
    assert path.read_text() == before and os.listdir(path.parent) == [path.name]


def test_the_same_result_again_is_no_conflict():
    results.save(record())
    results.save(record(cost={"train_seconds": 3.0}))
    assert results.read("tiny")[0]["cost"] == {"train_seconds": 3.0}


@pytest.mark.parametrize(("other", "said"), [
    (record(replace(RUN, rank=16)), r"run rank: 8 -> 16"),
    (record(profile=replace(PROFILE, n_eval=12)), r"setting n_eval: 10 -> 12"),
    (record(provenance={"code": {"train.py": "abc"}}), r"code of .*train\.py"),
    (record(scores=[]), r"scores"),
])  # fmt: skip
def test_a_different_result_is_replaced_only_by_force(other, said):
    results.save(record())
    with pytest.raises(StudyError, match=rf"{said}.*; --force replaces it") as caught:
        results.save(other)
    assert "\n" not in str(caught.value)
    results.save(other, force=True)
    assert results.read("tiny")[0]["scores"] == other["scores"]


def test_a_large_record_is_refused_with_what_is_largest(root):
    with pytest.raises(StudyError, match=r"allowed are 32,000; its largest field is 'samples'"):
        results.save(record(samples=["x" * 30_000]))
    assert not (root / "data/results/tiny").exists()


def test_the_numbers_of_numpy_torch_and_divergence_fit_into_json():
    import numpy as np
    import torch

    curve = [
        {"step": np.int64(1), "loss": np.float32(0.5), "reward": torch.tensor(0.25)},
        {"step": 2, "loss": float("nan"), "reward": np.float64("inf")},
    ]
    results.save(record(curve=curve))
    assert results.read("tiny")[0]["curve"] == [
        {"step": 1, "loss": 0.5, "reward": 0.25},
        {"step": 2, "loss": None, "reward": None},
    ]
    with pytest.raises(TypeError, match="object does not belong in a record"):
        results.save(record(curve=[object()]))


def test_find_names_every_field_that_changed():
    results.save(record())
    with pytest.raises(results.Stale) as caught:
        results.find(replace(RUN, rank=16), replace(PROFILE, n_eval=12, splits=("test",)))
    for change in ("run rank: 8 -> 16", "setting n_eval: 10 -> 12", "setting splits: ['test', 'lo"):
        assert change in str(caught.value)


def test_stale_reason_tells_missing_setting_and_code_apart(root):
    assert results.stale_reason(RUN, PROFILE) == "missing"
    results.save(record())
    assert results.stale_reason(RUN, PROFILE) == ""
    assert results.stale_reason(RUN, replace(PROFILE, n_eval=12)) == "setting n_eval: 10 -> 12"
    weights = root / PROFILE.model / fingerprint.WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"other")
    assert results.stale_reason(RUN, PROFILE) == "code changed since: model.safetensors"
    assert results.find(RUN, PROFILE), "code alone does not make find fail"


def test_a_field_that_a_record_lacks_means_its_default():
    path = results.save(record())
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"run": {**stored["run"], "objective": "nll"}}))
    assert results.stale_reason(RUN, PROFILE) == ""
    path.write_text(json.dumps(stored | {"run": {**stored["run"], "objective": "dft"}}))
    assert results.stale_reason(RUN, PROFILE) == "run objective: dft -> nll"
    older = {name: value for name, value in stored["run"].items() if name != "rewards"}
    path.write_text(json.dumps(stored | {"run": older}))
    assert results.read("tiny")[0]["run"]["rewards"] == ["correct"]
    assert results.read("tiny")[0]["run"]["lambdas"] == []


def test_a_file_that_is_no_record_is_named():
    path = results.save(record())
    path.write_text('{"id": ')
    for use in (lambda: results.read("tiny"), lambda: results.find(RUN, PROFILE)):
        with pytest.raises(StudyError, match=r"sft_seed-0\.json is no readable record"):
            use()


def test_table_has_a_row_per_score_with_run_and_cost():
    for seed in (0, 1):
        results.save(record(replace(RUN, seed=seed)))
    table = results.table("tiny")
    assert table["id"].tolist() == ["sft_seed-0", "sft_seed-1"]
    row = table.iloc[1]
    assert (row["rewards"], row["seed"], row["profile"]) == ("correct+format", 1, "tiny")
    assert (row["family"], row["metric"], row["value"], row["n"]) == ("gsm8k", "greedy", 0.5, 4)
    assert (row["train_seconds"], row["tokens"]) == (2.0, 10)


def test_items_are_long_and_feed_the_statistics():
    from hybridlib import stats

    for seed in (0, 1):
        results.save(record(replace(RUN, seed=seed)))
    items = results.items("tiny")
    assert len(items) == 8 and items["level"].tolist()[:4] == [1, 1, 2, 2]
    assert items["rewards"].unique().tolist() == ["correct+format"]
    assert results.items("tiny", ids=["sft_seed-1"])["seed"].unique().tolist() == [1]
    frame = stats.summarise(items, ["method", "level"], "greedy")
    assert frame["value"].tolist() == [0.5, 0.5] and frame["n_seeds"].tolist() == [2, 2]


def test_nothing_stored_is_an_empty_table_with_columns():
    assert results.read("tiny") == []
    assert "value" in results.table("tiny") and results.table("tiny").empty
    assert "greedy" in results.items("tiny") and results.items("tiny").empty


def test_provenance_says_where_a_number_comes_from(root):
    found = results.provenance(backend="unsloth", data="abc")
    assert {"python", "torch", "trl", "peft", "unsloth"} <= set(found["versions"])
    assert "unsloth" not in results.provenance(backend="hf")["versions"]
    assert found["backend"] == "unsloth" and found["data"] == "abc"
    assert found["device"] and found["threads"] >= 1
    assert found["finished_at"].endswith("+00:00")
    assert found["commit"] == "" and found["dirty"] is False, "no repository here"
    json.dumps(found)


def test_results_that_arrive_do_not_make_the_code_dirty(root):
    import subprocess

    def git(*arguments):
        user = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(root), *user, *arguments], check=True, capture_output=True)

    (root / "code.py").write_text("1")
    git("init", "-q")
    git("add", "code.py")
    git("commit", "-qm", "code")
    results.save(record())
    found = results.provenance()
    assert len(found["commit"]) == 40 and found["dirty"] is False
    (root / "code.py").write_text("2")
    assert results.provenance()["dirty"] is True
