"""Measures of a run: each is documented, reads a real record, and says nothing where it cannot."""

import json
import math

import pandas as pd
import pytest

from hybridlib import ROOT, results
from hybridlib.measures import MEASURES, over_seeds, table

RUN = {"method": "grpo", "seed": 0, "rewards": ["correct"], "reward_weights": [],
       "partition": "all", "select": "", "on": []}  # fmt: skip
RECORD = {
    "id": "grpo", "profile": "toy", "run": RUN,
    "scores": [
        {"family": "a", "split": "test", "metric": "sampled", "value": 0.5},
        {"family": "b", "split": "test", "metric": "sampled", "value": 0.7},
        {"family": "a", "split": "longer", "metric": "sampled", "value": 0.1},
        {"family": "a", "split": "test", "metric": "pass@3", "value": 0.9},
    ],
    "curve": [{"step": 1, "reward": 0.2}] + [{"step": s, "reward": 0.8} for s in range(2, 12)],
    "cost": {"train_seconds": 40.0},
    "setting": {"n_samples": 3},
    "items": {"a/test": {"samples": 3}, "b/test": {"samples": 3}, "a/longer": {"samples": 1}},
    "facts": {"solutions": {"a": {"agreement": 0.4, "majority_accuracy": 0.5, "steps_right": 0.9},
                            "b": {"agreement": 0.6}},
              "drift": {"a": {"kl": 0.2}, "b": {"kl": 0.4}, "corpus_loss": 0.1}},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_every_measure_says_what_it_is_and_reads_committed_records(name):
    measure = MEASURES[name]
    assert measure.__doc__ and measure.label and measure.better in (-1, 0, 1)
    paths = sorted((ROOT / "data/results/tiny-full").glob("*.json"))[:8]
    values = [measure(json.loads(path.read_text())) for path in paths]
    assert any(value is not None for value in values) or not paths
    assert all(math.isfinite(value) for value in values if value is not None)


def test_values_are_means_over_families_and_missing_ones_stay_missing(monkeypatch):
    bare = RECORD | {"id": "base", "run": RUN | {"method": "base"}, "curve": [], "facts": {}}
    monkeypatch.setattr(results, "read", lambda name: [RECORD, bare])
    runs = table("toy").set_index("id")
    assert runs.loc["grpo", "sampled"] == pytest.approx(0.6)
    assert runs.loc["grpo", "longer"] == 0.1 and runs.loc["grpo", "any_of_k"] == 0.9
    assert runs.loc["grpo", "agreement"] == pytest.approx(
        ((3 * 0.4 - 1) / 2 + (3 * 0.6 - 1) / 2) / 2
    )
    assert runs.loc["grpo", "majority"] == 0.5
    more = RECORD | {"items": {"a/test": {"samples": 6}}}
    assert MEASURES["majority"](more) is None
    assert runs.loc["grpo", "right_steps"] == 0.9 and runs.loc["grpo", "corpus"] == 0.1
    assert runs.loc["grpo", "distance"] == pytest.approx(0.3)
    assert runs.loc["grpo", "excess"] == pytest.approx(0.8 - 0.6)
    assert runs.loc["base", ["excess", "agreement", "corpus", "greedy"]].isna().all()
    for field, value in (("rewards", ["correct", "format"]), ("select", "high")):
        assert MEASURES["excess"](RECORD | {"run": RUN | {field: value}}) is None
    assert set(table("toy", ["base"])["id"]) == {"base"} and table("toy", []).empty


def test_intervals_end_where_the_measure_ends():
    runs = pd.DataFrame(
        {"arm": ["x"] * 2, "follows": [0.9, 1.0], "excess": [-0.1, 0.1], "distance": [0.0, 5.0]}
    )
    ends = {
        name: over_seeds(runs, ["arm"], name).loc[0, ["low", "high"]].tolist()
        for name in runs
        if name != "arm"
    }
    assert ends["follows"][1] == 1 and ends["distance"][0] == 0 and ends["distance"][1] > 5
    assert ends["excess"] == [-1, 1]
