"""What a chapter opens: arms that join, labels that tell apart, and records of its runs alone."""

from collections import defaultdict

import pandas as pd
import pytest

from hybridlib import StudyError, chapter, results, study
from hybridlib.grids import GRIDS
from hybridlib.profiles import PROFILES
from hybridlib.runs import Run


@pytest.mark.parametrize("grid", sorted(GRIDS))
@pytest.mark.parametrize("profile", ["tiny", "tiny-full"])
def test_an_arm_has_one_run_per_seed_and_one_label(grid, profile):
    runs = GRIDS[grid](PROFILES[profile])
    opened = chapter.OpenedGrids(PROFILES[profile], {grid: runs})
    seeds = defaultdict(list)
    for run in runs:
        seeds[opened.arms[run.id]].append(run.seed)
    assert all(len(set(arm)) == len(arm) for arm in seeds.values())
    assert len(set(opened.labels.values())) == len(seeds)


@pytest.mark.parametrize(
    ("run", "arm"),
    [
        (Run("base"), "base"),
        (Run("sft", nf4=True, seed=1), "sft_nf4"),
        (Run("grpo", start="sft_loss-dft_seed-1", seed=1), "grpo_after-sft_loss-dft"),
        (Run("merge", parents=("sft_seed-3", "grpo_after-sft_seed-3_seed-3"), merge="mean", seed=3),
         "merge_of-sft+grpo_after-sft_by-mean"),
        (Run("merge", parents=("sft_seed-4", "sft"), merge="mean", seed=4),
         "merge_of-sft+sft_other-seed_by-mean"),
    ],
)  # fmt: skip
def test_an_arm_is_an_id_without_seeds(run, arm):
    assert chapter.arm_key(run) == arm


def test_an_opened_grid_has_its_own_runs_alone(monkeypatch):
    executed = []
    monkeypatch.setattr(study, "execute_all", lambda runs, profile: executed.extend(runs))
    full = PROFILES["tiny-full"]
    if not results.read(full.name):
        pytest.skip("no published results")
    opened = chapter.open_grid(("quantised", "base"), full)
    assert executed == opened.runs == GRIDS["quantised"](full)
    ids = {run.id for run in opened.runs}
    frames = (opened.items, opened.table, opened.distances)
    assert {*opened.records} == ids and all(set(frame["id"]) == ids for frame in frames)
    assert set(opened.items["arm"]) == {"base", "sft", "sft_nf4", "sft_nf4_backend-unsloth"}
    assert opened.labels["sft_nf4"] == "SFT, 4-bit"
    assert {curve["run"]["method"] for curve in opened.curves} == {*opened.labels.values()} - {
        "base"
    }
    costs = opened.table[["train_seconds", "eval_seconds"]].to_numpy().sum() / 60
    assert opened.minutes == pytest.approx(costs)


def test_an_unknown_grid_is_named():
    with pytest.raises(StudyError, match="unknown grid 'quantized'"):
        chapter.open_grid("quantized", PROFILES["tiny"])


def test_a_second_stage_starts_with_the_costs_of_the_first(monkeypatch):
    first = Run("sft", seed=1)
    then = Run("grpo", start=first.id, seed=1)
    costs = dict.fromkeys(results.CHECKPOINT_COSTS, 0.0)
    rows = [
        {"id": run.id, "step": step, **costs, "tokens": tokens, "family": "f", "split": "test"}
        for run, step, tokens in ((first, 1, 10), (first, 2, 20), (then, 1, 5))
    ]
    frame = pd.DataFrame(rows).assign(value=0.5, n=4)
    monkeypatch.setattr(results, "checkpoints", lambda name, ids: frame.copy())
    points = chapter.OpenedGrids(PROFILES["tiny"], {"g": [first, then]}).checkpoints
    assert list(points["tokens"]) == [10, 20, 25]
    assert list(points["method"]) == ["sft", "sft", "grpo"] and set(points["seed"]) == {1}
