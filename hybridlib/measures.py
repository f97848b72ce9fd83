"""What is a run worth beside accuracy? One number per measure, read from its record.

A measure is one decorated function, record -> number, or None where the record does not say; over
families it is their mean. Its facts are the label it is shown by, which way is better (1 up, -1
down, 0 neither), and its span: the least and the most that it can be.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from hybridlib import results, stats
from hybridlib.registry import Registry
from hybridlib.rewards import REWARDS

if TYPE_CHECKING:
    import pandas as pd

MEASURES = Registry("measure", "label", "better", "span")
UNIT_INTERVAL, NON_NEGATIVE = (0.0, 1.0), (0.0, float("inf"))
FINAL_POINTS = 10  # points of the curve that count as the end of training


def table(profile_name: str, ids: Collection[str] | None = None) -> pd.DataFrame:
    """Return one row per run: id, run fields, and a column per measure, NaN where unknown.

    ids: of the runs that are wanted; None = all that have finished.
    """
    import pandas as pd

    rows = [
        results.run_fields(record) | {name: fn(record) for name, fn in MEASURES.items()}
        for record in results.read(profile_name)
        if ids is None or record["id"] in ids
    ]
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(MEASURES, float)) if rows else frame


def over_seeds(runs: pd.DataFrame, by: list[str], name: str) -> pd.DataFrame:
    """Return `stats.over_seeds` of a measure of `table`, its interval cut to the measure's span."""
    means = stats.over_seeds(runs, by, name)
    ends = ["low", "high"]
    means[ends] = means[ends].clip(*MEASURES[name].span)
    return means


def _mean(values: Collection[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _score(record: dict[str, Any], metric: str, split: str = "test") -> float | None:
    values = [
        score["value"]
        for score in record["scores"]
        if score["split"] == split and score["metric"].split("@")[0] == metric
    ]
    return _mean(values)


def _solutions(record: dict[str, Any], name: str) -> float | None:
    return _mean([family.get(name) for family in record["facts"].get("solutions", {}).values()])


def _drift(record: dict[str, Any], name: str) -> float | None:
    families = record["facts"].get("drift", {}).values()
    return _mean([family.get(name) for family in families if isinstance(family, dict)])


# ---------------------------------------------------------------- right or wrong


@MEASURES.register(label="one sampled answer", better=1, span=UNIT_INTERVAL)
def sampled(record: dict[str, Any]) -> float | None:
    """Share of right answers at temperature 1."""
    return _score(record, "sampled")


@MEASURES.register(label="greedy answer", better=1, span=UNIT_INTERVAL)
def greedy(record: dict[str, Any]) -> float | None:
    """Share of right greedy answers."""
    return _score(record, "greedy")


@MEASURES.register(label="any of k", better=1, span=UNIT_INTERVAL)
def any_of_k(record: dict[str, Any]) -> float | None:
    """pass@k, k being the answers per question (arXiv:2107.03374)."""
    return _score(record, "pass")


@MEASURES.register(label="majority", better=1, span=UNIT_INTERVAL)
def majority(record: dict[str, Any]) -> float | None:
    """Share of questions whose most frequent answer is right (arXiv:2203.11171).

    Of runs with the profile's samples: a majority of more of them is another measure.
    """
    samples = {part["samples"] for name, part in record["items"].items() if name.endswith("/test")}
    if samples - {record["setting"]["n_samples"]}:
        return None
    return _solutions(record, "majority_accuracy")


@MEASURES.register(label="longer chains", better=1, span=UNIT_INTERVAL)
def longer(record: dict[str, Any]) -> float | None:
    """Share of right answers to questions with more steps than were trained on."""
    return _score(record, "sampled", "longer")


@MEASURES.register(label="other wording", better=1, span=UNIT_INTERVAL)
def wording(record: dict[str, Any]) -> float | None:
    """Share of right answers to questions in words that were not trained on."""
    return _score(record, "sampled", "wording")


# ---------------------------------------------------------------- how it is reached


@MEASURES.register(label="agreement", better=1, span=UNIT_INTERVAL)
def agreement(record: dict[str, Any]) -> float | None:
    """How often two answers to one question, drawn separately, agree: consistency, right or wrong.

    The record counts the agreement of an answer with itself, too; here it does not count.
    """
    shares = []
    for family, facts in record["facts"].get("solutions", {}).items():
        n = record["items"][f"{family}/test"]["samples"]
        if n > 1:
            shares.append((n * facts["agreement"] - 1) / (n - 1))
    return _mean(shares)


@MEASURES.register(label="right steps", better=1, span=UNIT_INTERVAL)
def right_steps(record: dict[str, Any]) -> float | None:
    """Share of the equations of an answer that hold, final answer right or wrong."""
    return _solutions(record, "steps_right")


@MEASURES.register(label="steps of the solution found", better=1, span=UNIT_INTERVAL)
def recall(record: dict[str, Any]) -> float | None:
    """Share of the intermediate values of the worked solution that the answer shows."""
    return _solutions(record, "intermediate_recall")


@MEASURES.register(label="answer follows", better=1, span=UNIT_INTERVAL)
def follows(record: dict[str, Any]) -> float | None:
    """Share of answers that state the value of their own last step."""
    return _solutions(record, "answer_follows")


@MEASURES.register(label="pay in excess", better=-1, span=(-1.0, 1.0))
def excess(record: dict[str, Any]) -> float | None:
    """Reward alignment of RL: mean reward at the end of training minus held-out accuracy.

    The hacking gap (`metrics.hacking_gap`). Rewards that do not add up to 0 .. 1 have none, and
    runs on chosen rows have none, because their rows are not like the held-out ones.
    """
    run, held_out = record["run"], _score(record, "sampled")
    rewards = [point["reward"] for point in record["curve"][-FINAL_POINTS:] if "reward" in point]
    chosen_rows = run["partition"] not in ("all", "random") or run["select"] or run["on"]
    if not rewards or held_out is None or chosen_rows or not _is_share(run):
        return None
    return sum(rewards) / len(rewards) - held_out


def _is_share(run: dict[str, Any]) -> bool:
    """Return whether the weighted rewards of a run add up to something from 0 to 1."""
    weights = run["reward_weights"] or [1.0] * len(run["rewards"])
    ranges = [
        (weight * REWARDS[name].low, weight * REWARDS[name].high)
        for weight, name in zip(weights, run["rewards"], strict=True)
    ]
    return sum(map(min, ranges)) >= 0 and sum(map(max, ranges)) <= 1


# ---------------------------------------------------------------- what it costs


@MEASURES.register(label="length (tokens)", better=0, span=NON_NEGATIVE)
def length(record: dict[str, Any]) -> float | None:
    """Tokens of an answer."""
    return _drift(record, "tokens")


@MEASURES.register(label="different answers", better=0, span=UNIT_INTERVAL)
def variety(record: dict[str, Any]) -> float | None:
    """Share of the answers to one question that differ in any token."""
    return _drift(record, "distinct")


@MEASURES.register(label="KL from the base (nats)", better=-1, span=NON_NEGATIVE)
def distance(record: dict[str, Any]) -> float | None:
    """KL(model || base) of an answer, which predicts forgetting (arXiv:2509.04259)."""
    return _drift(record, "kl")


@MEASURES.register(label="corpus loss (nats)", better=-1, span=NON_NEGATIVE)
def corpus(record: dict[str, Any]) -> float | None:
    """Nats per token of what the base was pretrained on: what has been forgotten."""
    return record["facts"].get("drift", {}).get("corpus_loss")


@MEASURES.register(label="training (s)", better=-1, span=NON_NEGATIVE)
def seconds(record: dict[str, Any]) -> float | None:
    """Seconds of this run's own training, without its parents' and without its first stage's."""
    return record["cost"]["train_seconds"]
