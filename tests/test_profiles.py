import pytest

from hybridlib import StudyError, profiles, results, stats
from hybridlib.data import DATASETS
from hybridlib.grids import (
    MERGE,
    MERGES,
    MIXED_RATES,
    divided_budget,
    mixed,
    second,
    steps_at_equal_visits,
)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_every_profile_names_known_datasets(name):
    assert all(dataset in DATASETS for dataset in profiles.resolve(name).datasets)


def test_another_model_has_results_of_its_own(tmp_path):
    mine = profiles.resolve("qwen-0.5b", model=str(tmp_path), dataset="gsm8k")
    assert mine.model == str(tmp_path) and mine.datasets == ("gsm8k",)
    assert mine.name != "qwen-0.5b" and tmp_path.name in mine.name
    assert mine.name != profiles.resolve("qwen-0.5b", model=str(tmp_path), dataset="math").name
    assert profiles.resolve("tiny") is profiles.PROFILES["tiny"]


def test_bad_names_say_what_is_valid():
    with pytest.raises(StudyError, match="valid: qwen-0.5b, qwen-1.5b, qwen-7b, tiny"):
        profiles.resolve("tinny")
    with pytest.raises(StudyError, match="does not exist"):
        profiles.resolve("tiny", model="./nowhere")
    with pytest.raises(StudyError, match="--dataset"):
        profiles.resolve("tiny", columns={"question": "q"})


def test_nothing_is_told_to_be_better_on_validation_rows_than_what_the_large_grids_use():
    rows = results.items("tiny-sweep")
    if rows.empty:
        pytest.skip("no run of tiny-sweep is recorded for this base yet")
    assert set(rows["split"]) == {"valid"}

    def best(column, **kind):
        of = rows[(rows[[*kind]] == kind).all(axis=1)]
        return stats.summarise(of, [column], "greedy").set_index(column)["value"]

    merges = best("merge", method="merge")
    assert merges.idxmax() == MERGE and {*merges.index} == {*MERGES}
    full = profiles.resolve("tiny-full")
    for method in ("sft", "grpo"):
        tried = dict(method=method, partition="all")
        rates, used = best("learning_rate", **tried), getattr(full, method)["learning_rate"]
        arms = (tried | {"learning_rate": rate} for rate in (rates.idxmax(), used))
        assert stats.paired(rows, *arms, "greedy")["low"] < 0, "the best is told from what is used"
        assert rates.index[0] < min(used, rates.idxmax())  # not at the edge of the search
        assert max(used, rates.idxmax()) < rates.index[-1]
    for run, rate in MIXED_RATES.items():
        assert best("learning_rate", method=run.method, objective=run.objective).idxmax() == rate


@pytest.mark.parametrize("name", ["tiny", "tiny-full", "qwen-0.5b", "qwen-7b"])
def test_arms_cost_as_much_whatever_a_step_accumulates(name):
    profile = profiles.resolve(name)
    step = {
        method: config["per_device_train_batch_size"] * config.get("gradient_accumulation_steps", 1)
        for method, config in (("sft", profile.sft), ("grpo", profile.grpo))
    }
    sft, whole = (
        passes * getattr(profile, method)["max_steps"] * step[method]
        for method, passes in (("sft", 3), ("grpo", 4))
    )
    for run in mixed(profile):
        cost = run.steps * step["grpo"] * (4 + 0.25 * 3 * ("chord" in run.method))
        assert abs(cost - whole) <= 4 * step["grpo"]
    assert abs(sft + second(profile).steps * 4 * step["grpo"] - whole) <= 2 * step["grpo"]
    first, then = divided_budget(profile, 0.1)
    both = 3 * first.steps * step["sft"] + 4 * then.steps * step["grpo"]
    assert abs(both - whole) <= 2 * (step["grpo"] + step["sft"])
    prompts = profile.grpo["max_steps"] * step["grpo"] / profile.grpo["num_generations"]
    assert 0 <= steps_at_equal_visits(profile) * step["sft"] - prompts < step["sft"]
