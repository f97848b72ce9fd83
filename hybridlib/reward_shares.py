"""Which share has each reward in the total reward of a run, and in its advantages?

The shares go through the trainer's log, which checkpoints store, so that a resumed run has those of
its earlier steps, too.
"""

from collections.abc import Sequence
from typing import Any

from hybridlib.rewards import FAILURES


def logging_shares(trainer: type) -> type:
    """Return a GRPO trainer that logs each reward's share of the squared advantage.

    In a group with total R = sum_k w_k r_k the share of reward k is cov(w_k r_k, R) / var(R): the
    shares add up to 1, and one that pulls against the others is below 0. The logged value,
    `advantage/<reward>`, is the mean over groups, those without variance, and so without an
    advantage, counting as 0.

    Args:
        trainer: trl.GRPOTrainer, or a subclass.
    """

    class ShareLogger(trainer):  # type: ignore[misc, valid-type]
        def _calculate_rewards(self, *batch: Any) -> Any:
            rewards = super()._calculate_rewards(*batch)  # (samples, rewards)
            shares = _shares(rewards, self.reward_weights, self.num_generations)
            for name, share in zip(self.reward_func_names, shares, strict=True):
                self._log_metric(f"advantage/{name}", share)
            return rewards

    return ShareLogger


def _shares(rewards: Any, weights: Any, group: int) -> list[float]:
    """Return the share of each reward in the squared advantage, the mean over groups.

    Args:
        rewards: (samples, rewards), the samples of a group side by side.
        weights: (rewards,).
        group: Samples per group.
    """
    parts = rewards.nan_to_num() * weights.to(rewards.device)
    parts = parts.unflatten(0, (-1, group))
    parts = parts - parts.mean(1, keepdim=True)
    total = parts.sum(2, keepdim=True)
    variance = total.square().sum(1)  # (groups, 1)
    shares = (parts * total).sum(1) / variance
    shares = shares.where(variance > 1e-10, 0)  # less is the rounding of equal totals
    return shares.mean(0).tolist()


def facts(
    logged: Sequence[dict[str, Any]], weights: dict[str, float], samples: int
) -> dict[str, Any]:
    """Return what a record stores of a trainer's log about grading and rewards.

    Args:
        logged: The trainer's log, one dict a step.
        weights: Of each reward.
        samples: How many completions were graded.
    Returns:
        graded: counts of samples, and of those that could not be compared, by reason (left out
        where no reward grades). pay: for several rewards, by name its weight, its mean over
        training, its signed share of the total reward (of_reward) and of the squared advantage
        (of_advantage).
    """
    summary: dict[str, Any] = {}
    if any(f"graded/{FAILURES[0]}" in entry for entry in logged):
        failures = {name: round(_mean(logged, f"graded/{name}") * samples) for name in FAILURES}
        summary["graded"] = {"samples": samples} | failures
    if len(weights) > 1:
        summary["pay"] = _shares_by_reward(logged, weights)
    return summary


def _shares_by_reward(
    logged: Sequence[dict[str, Any]], weights: dict[str, float]
) -> dict[str, dict]:
    means = {name: _mean(logged, f"rewards/{name}/mean") for name in weights}
    shares = {name: _mean(logged, f"advantage/{name}") for name in weights}
    total_reward = sum(abs(weights[name] * means[name]) for name in weights) or 1.0
    all_shares = sum(shares.values()) or 1.0  # below 1 where groups had no variance
    return {
        name: {
            "weight": weight,
            "mean": round(means[name], 4),
            "of_reward": round(weight * means[name] / total_reward, 4),
            "of_advantage": round(shares[name] / all_shares, 4),
        }
        for name, weight in weights.items()
    }


def _mean(logged: Sequence[dict[str, Any]], key: str) -> float:
    # None: the reward applied to no sample of that step.
    values = [float(entry[key]) for entry in logged if entry.get(key) is not None]
    return sum(values) / len(values) if values else 0.0
