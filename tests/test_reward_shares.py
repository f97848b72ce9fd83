"""Whose pay moves the policy: shares by hand, by property, and in the record of a run."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import results, reward_shares, study

batches = st.lists(
    st.lists(st.integers(-8, 8).map(lambda n: n / 8), min_size=3, max_size=3),
    min_size=8,
    max_size=8,
)


def shares(rewards, weights, group=4):
    """Return what a trainer with these (samples, rewards) would log."""
    import torch

    class Trainer:
        reward_weights = torch.tensor(weights)
        num_generations = group
        reward_func_names = [f"r{k}" for k in range(len(weights))]

        def _calculate_rewards(self, *batch):
            return torch.tensor(rewards)

        def _log_metric(self, name, value):
            logged[name] = value

    logged = {}
    trainer = reward_shares.logging_shares(Trainer)()
    assert trainer._calculate_rewards("inputs").tolist() == torch.tensor(rewards).tolist()
    return [logged[f"advantage/r{k}"] for k in range(len(weights))]


def test_shares_by_hand():
    # One group, two rewards: the first varies, the second is the same for all.
    assert shares([[1.0, 0.5], [0.0, 0.5], [1.0, 0.5], [0.0, 0.5]], [1.0, 1.0]) == [1, 0]
    # Equal and equally spread: half each; at a weight of 3 three quarters.
    both = [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert shares(both, [1.0, 1.0]) == pytest.approx([0.5, 0.5])
    assert shares(both, [1.0, 3.0]) == pytest.approx([0.25, 0.75])
    # One that always pulls the other way is below 0.
    against = [[1.0, 0.0], [0.0, 0.5], [1.0, 0.0], [0.0, 0.5]]
    assert shares(against, [1.0, 1.0]) == pytest.approx([2, -1])
    # Rewards that cancel out leave nothing to learn, and no quotient of rounding errors.
    cancel = [[x, 1 - x] for x in (0.1, 0.7, 0.3, 0.9)]
    assert shares(cancel, [1.0, 1.0]) == [0, 0]
    # A second group without variance has no advantage and counts as 0.
    assert shares(both + [[1.0, 1.0]] * 4, [1.0, 1.0]) == pytest.approx([0.25, 0.25])


@given(batches)
def test_shares_are_those_of_the_squared_advantage(rewards):
    import torch

    weights = [1.0, 0.5, -2.0]
    parts = (torch.tensor(rewards) * torch.tensor(weights)).view(2, 4, 3)
    total = parts.sum(2)
    logged = shares(rewards, weights)
    varied = total.var(1) > 1e-6
    assert sum(logged) == pytest.approx(float(varied.float().mean()), abs=1e-3)
    if varied.all():
        advantages = (total - total.mean(1, keepdim=True)) / total.std(1, correction=0)[:, None]
        scaled = (parts - parts.mean(1, keepdim=True)) / total.std(1, correction=0)[:, None, None]
        expected = (advantages[:, :, None] * scaled).mean((0, 1))
        assert logged == pytest.approx(expected.tolist(), abs=1e-2, rel=1e-2)


def test_facts_sum_up_the_log():
    logged = [
        {
            "loss": 1.0,
            "rewards/a/mean": 0.5,
            "rewards/b/mean": -0.25,
            "advantage/a": 0.6,
            "advantage/b": 0.2,
            "graded/timeout": 0.25,
            "graded/error": 0.0,
            "graded/refused": 0.0,
        },
        {
            "loss": 1.0,
            "rewards/a/mean": 0.7,
            "rewards/b/mean": -0.15,
            "advantage/a": 0.0,
            "advantage/b": 0.2,
            "graded/timeout": 0.0,
            "graded/error": 0.5,
            "graded/refused": 0.0,
        },
        {"train_runtime": 3.0},
    ]
    facts = reward_shares.facts(logged, {"a": 1.0, "b": 2.0}, 16)
    assert facts["graded"] == {"samples": 16, "timeout": 2, "error": 4, "refused": 0}
    assert facts["pay"]["a"] == dict(weight=1.0, mean=0.6, of_reward=0.6, of_advantage=0.6)
    assert facts["pay"]["b"] == dict(weight=2.0, mean=-0.2, of_reward=-0.4, of_advantage=0.4)
    assert "pay" not in reward_shares.facts(logged, {"a": 1.0}, 16)
    assert reward_shares.facts([{"loss": 1.0}], {"format": 1.0}, 16) == {}


def test_steps_to_which_a_reward_did_not_apply_are_left_out_of_its_mean():
    logged = [
        {"rewards/correct/mean": 0.5, "rewards/tidy/mean": mean, "advantage/correct": 1.0}
        for mean in (None, 1.0, None)
    ]
    pay = reward_shares.facts(logged, {"correct": 1.0, "tidy": 1.0}, 8)["pay"]
    assert pay["tidy"]["mean"] == 1.0 and pay["correct"]["mean"] == 0.5


@pytest.mark.slow
def test_a_record_says_what_the_rewards_paid_and_what_could_not_be_graded(small, world):
    run = study.Run("grpo", rewards=("correct", "format", "recall"), reward_weights=(1, 0.2, 0.2))
    record = results.as_json(study.execute(run, small))
    graded, paid = record["facts"]["graded"], record["facts"]["pay"]
    assert graded["samples"] == 2 * 8 and set(graded) == {"samples", "timeout", "error", "refused"}
    assert list(paid) == list(run.rewards)
    for name, part in paid.items():
        mean = sum(point[f"rewards/{name}/mean"] for point in record["curve"]) / 2
        assert part["mean"] == pytest.approx(mean, abs=1e-3)
    assert sum(part["of_advantage"] for part in paid.values()) in (pytest.approx(1, abs=1e-3), 0)
    assert sum(part["of_reward"] for part in paid.values()) == pytest.approx(1, abs=1e-3)
    table = results.table(small.name)
    assert table["advantage_format"].tolist() == [paid["format"]["of_advantage"]] * len(table)
    assert len(json.dumps(record["facts"])) < 1000


@pytest.mark.slow
def test_one_reward_has_no_shares_and_a_coin_no_grading(small, world):
    profile = replace(small, drift=True, grpo=small.grpo | dict(max_steps=1))
    facts = study.execute(study.Run("grpo"), profile, save=False)["facts"]
    assert (
        set(facts) == {"rows", "graded", "drift", "solutions"} and facts["graded"]["samples"] == 8
    )
    coin = study.Run("grpo", rewards=("random",))
    facts = study.execute(coin, replace(profile, drift=False), save=False)["facts"]
    assert set(facts) == {"rows", "solutions"}
