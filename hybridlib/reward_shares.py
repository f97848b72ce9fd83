"""What did each reward of a run pay, and which of them did the advantage listen to?

Everything goes through the trainer's log, which a checkpoint keeps, so that a run that goes on has
it all.
"""

from collections.abc import Sequence
from typing import Any

from hybridlib.rewards import FAILURES


def watched(trainer: type) -> type:
    """A GRPO trainer that logs, for each of its rewards k, its share of the squared advantage.

    In a group with total R = sum_k w_k r_k that is cov(w_k r_k, R) / var(R): the shares add up to
    1, and one that pulls against the others is below 0. The logged value is the mean over groups,
    those without variance, and so without an advantage, counting as 0.

    Args:
        trainer: trl.GRPOTrainer, or a subclass.
    """

    class Watched(trainer):  # type: ignore[misc, valid-type]
        def _calculate_rewards(self, *batch: Any) -> Any:
            paid = super()._calculate_rewards(*batch)  # (samples, rewards)
            parts = paid.nan_to_num() * self.reward_weights.to(paid.device)
            parts = parts.unflatten(0, (-1, self.num_generations))
            parts = parts - parts.mean(1, keepdim=True)
            total = parts.sum(2, keepdim=True)
            variance = total.square().sum(1)  # (groups, 1)
            shares = (parts * total).sum(1) / variance
            shares = shares.where(variance > 1e-10, 0)  # less is the rounding of equal totals
            for name, share in zip(self.reward_func_names, shares.mean(0).tolist(), strict=True):
                self._log_metric(f"advantage/{name}", share)
            return paid

    return Watched


def facts(logged: Sequence[dict[str, Any]], weights: dict[str, float], samples: int) -> dict:
    """What a record keeps of the log: failures of grading, and for several rewards their shares.

    Args:
        logged: the trainer's log, one dict a step.
        weights: of each reward.
        samples: how many completions were graded.
    Returns:
        graded: counts of samples, and of those that could not be compared, by reason (nothing
        where no reward grades); pay: by name its weight, its mean over training, its signed
        share of all that was paid (of_reward) and of the squared advantage (of_advantage).
    """
    found: dict[str, Any] = {}
    if any(f"graded/{FAILURES[0]}" in entry for entry in logged):
        counts = {r: round(_mean(logged, f"graded/{r}") * samples) for r in FAILURES}
        found["graded"] = {"samples": samples} | counts
    if len(weights) > 1:
        means = {name: _mean(logged, f"rewards/{name}/mean") for name in weights}
        pulls = {name: _mean(logged, f"advantage/{name}") for name in weights}
        paid = sum(abs(weights[name] * means[name]) for name in weights) or 1.0
        pulled = sum(pulls.values()) or 1.0
        found["pay"] = {
            name: {
                "weight": weight, "mean": round(means[name], 4),
                "of_reward": round(weight * means[name] / paid, 4),
                "of_advantage": round(pulls[name] / pulled, 4),
            }
            for name, weight in weights.items()
        }  # fmt: skip
    return found


def _mean(logged: Sequence[dict[str, Any]], key: str) -> float:
    values = [float(entry[key]) for entry in logged if key in entry]
    return sum(values) / len(values) if values else 0.0
