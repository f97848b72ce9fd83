"""What can be said of a solution beside right or wrong, without a judge?

METRICS score solutions one by one: `fn(solutions, gold=..., **_) -> list[float | None]`, in [0, 1],
None where a metric does not apply. A solution is a text or the list of its steps, gold the text of
GSM8K's worked solution. The other functions score groups of samples, prefixes and whole runs. All
take one entry per row and raise StudyError with the index of a row that they cannot use. What a
metric can mean is what `validity` asks the labels of human readers.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hybridlib import StudyError, grading, proportions
from hybridlib.grading import arithmetic
from hybridlib.registry import Registry

METRICS = Registry("metric")
Solutions = Sequence[str | Sequence[str]]
Answers = Sequence[Sequence[str | None]]
Scores = list[float | None]


@METRICS.register
def arithmetic_validity(solutions: Solutions, **_: Any) -> Scores:
    """V = #(equations that hold) / #(equations that stand in the text), 0 to 1; None without one.

    The arithmetic errors of Golovneva et al. (2023), found by calculation. A solution can go wrong
    where it calculates nothing, so read V with its coverage.
    """
    return [_mean([e.holds for e in row if not e.marked]) for row in _flat(solutions)]


@METRICS.register
def arithmetic_coverage(solutions: Solutions, **_: Any) -> Scores:
    """C = #(steps with an equation that can be checked) / #(steps), 0 to 1; None without a step.

    The share of a chain in the sense of Golovneva et al. (2023) that V speaks of.
    """
    return [_mean([any(not e.marked for e in step) for step in row]) for row in _read(solutions)]


@METRICS.register
def mark_validity(solutions: Solutions, **_: Any) -> Scores:
    """M = #(marks `<<a+b=c>>` that hold) / #(marks), 0 to 1 (Cobbe et al. 2021); None without one.

    Where a calculator fills in the marks they always hold, and M says nothing.
    """
    return [_mean([e.holds for e in row if e.marked]) for row in _flat(solutions)]


@METRICS.register
def intermediate_recall(solutions: Solutions, gold: Sequence[str], **_: Any) -> Scores:
    """R = |I & V| / |I|, 0 to 1: I the values marked in gold but the last, V those computed here.

    None where I is empty. Marks are those of Cobbe et al. (2021). Another valid route has other
    values on its way, so a right solution can be below 1.
    """
    _check(gold, lambda row: isinstance(row, str), "gold is a text")
    _pair(solutions, gold)
    wanted = [[e.value for e in arithmetic.find_equations(text) if e.marked] for text in gold]
    return [
        _mean([value in {e.value for e in row} for value in set(marks) - set(marks[-1:])])
        for row, marks in zip(_flat(solutions), wanted, strict=True)
    ]


@METRICS.register
def answer_follows(solutions: Solutions, **_: Any) -> Scores:
    """1 if the final answer is the value of the last computation, else 0 (Lyu et al. 2023).

    None without a computation or without a number as the answer. Both can be wrong and agree.
    """
    found = _flat(solutions)
    last = [arithmetic.final_number(s if isinstance(s, str) else "\n".join(s)) for s in solutions]
    pairs = zip(found, last, strict=True)
    return [float(row[-1].value == a) if row and a is not None else None for row, a in pairs]


def first_error(solutions: Solutions) -> list[int]:
    """The first step, from 0, with a false equation; -1 without one (Zheng et al. 2024)."""
    return [_first([all(e.holds for e in step) for step in row]) for row in _read(solutions)]


# ---------------------------------------------------------------- groups, prefixes, whole runs


def agreement(groups: Answers) -> list[list[float]]:
    """A_g = #(samples with the answer of sample g) / G, 1/G to 1 (Wang et al. 2023).

    A missing answer, None, agrees with no other. Numbers agree by value, all else by its text.
    """
    return [[Counter(keys)[key] / len(keys) for key in keys] for keys in _keys(groups)]


def majority_accuracy(groups: Answers, right: Sequence[Sequence[bool]]) -> list[float]:
    """Is the most frequent answer right? 0 to 1, the mean where some tie (Wang et al. 2023)."""
    _pair(groups, right)
    _check(right, _flags, "verdicts are true or false, one or more")
    rows = [*zip(agreement(groups), right, strict=True)]
    _check(rows, lambda row: len(row[0]) == len(row[1]), "as many verdicts as answers")
    return [_mean([f for s, f in zip(*row, strict=True) if s == max(row[0])]) for row in rows]


def answer_entropy(groups: Answers) -> list[float]:
    """H = -sum p ln p over the answers of a group, 0 to ln G (Kuhn et al. 2023)."""
    return [max(0.0, -_mean([math.log(share) for share in row])) for row in agreement(groups)]


def truncation_aoc(answers: Answers) -> Scores:
    """AOC = 1 - (1/T) sum_k [answer after k of T steps = final answer], k < T, 0 to 1.

    A row has the answers that the model gives after 0, 1, ..., T steps; None where the last is
    missing. 0: the steps change nothing, they may be decoration; 1: only the last settles the
    answer (Lanham et al. 2023, whose mean weighted by length is the mean over rows).
    """
    _check(answers, lambda row: len(row) > 1, "answers after 0 and up to all steps, two or more")
    keys = _keys(answers)
    return [
        None if answer[-1] is None else 1 - _mean([key == row[-1] for key in row[:-1]])
        for row, answer in zip(keys, answers, strict=True)
    ]


def step_values(rollouts: Sequence[Sequence[Sequence[bool]]]) -> list[list[float]]:
    """v_k = #(right rollouts from the first k steps) / N for each step, 0 to 1 (Wang et al. 2024).

    An estimate of what the policy can still reach, with an error of sqrt(v (1 - v) / N).
    """
    _check(rollouts, lambda row: bool(row) and all(map(_flags, row)), "outcomes for every step")
    return [[_mean(step) for step in row] for row in rollouts]


def first_drop(values: Sequence[Sequence[float]]) -> list[int]:
    """The first step, from 0, whose value is 0, -1 without one: Math-Shepherd's hard label.

    Stands in for the first error (Wang et al. 2024): no rollout from there on was right.
    """
    _check(values, lambda row: all(map(_rate, row)), "values of steps from 0 to 1")
    return [_first(row) for row in values]


def informative_share(right: Sequence[Sequence[bool]]) -> float:
    """#(groups with 0 < right < G) / #(groups), 0 to 1 (Yu et al. 2025).

    Only those have an advantage, and so a gradient, in GRPO.
    """
    _check([*right] or [()], _flags, "verdicts are true or false, one or more")
    return _mean([0 < sum(row) < len(row) for row in right])


def hacking_gap(rewards: Sequence[float], held_out: Sequence[float]) -> float:
    """H = mean training reward - mean held-out judgement of the same samples, -1 to 1.

    The gap that grows as a proxy is over-optimised (Gao et al. 2023). For programs: passes the
    tests of the reward, minus passes further inputs too (Liu et al. 2023).
    """
    _pair(rewards, held_out)
    for row in (rewards, held_out):
        _check([*row] or [None], _rate, "a number from 0 to 1")
    return _mean(rewards) - _mean(held_out)


def corrected(observed: float, alpha: float, beta: float) -> float:
    """p = (p_obs - alpha) / (1 - alpha - beta), clipped to 0 to 1 (Rogan & Gladen 1978).

    The true rate behind a verifier that accepts a share alpha of wrong answers and rejects a share
    beta of right ones. At alpha + beta >= 1 it knows no more than a coin, and none can be had.
    """
    _check([observed, alpha, beta], _rate, "observed, alpha and beta are numbers from 0 to 1")
    if alpha + beta >= 1:
        raise StudyError(f"alpha + beta = {alpha + beta:g}: such a verifier cannot be corrected")
    return min(1.0, max(0.0, (observed - alpha) / (1 - alpha - beta)))


def validity(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How well does each metric tell a wrong step and a right answer, by labels of ProcessBench?

    Rows have subset, steps, label (the first wrong step, -1 for none), final_answer_correct, and
    gold ("" for none). One dict per subset, metric and target: n rows, positives among them,
    flagged by a score below 1 (wrong step) or of 1 (right answer), precision and recall of the
    flag, AUC over the `scored` rows. The final answer is there for comparison. `first_error` has
    F1 = 2ab / (a + b), a the share of wrong solutions whose first wrong step is found, b that of
    right ones without an alarm (Zheng et al. 2024). All as [estimate, low, high] at 95 %.
    """
    _check(rows, _labelled, "subset, steps, gold, a label among the steps and final_answer_correct")
    told = []
    for subset in dict.fromkeys(row["subset"] for row in rows):
        part = [row for row in rows if row["subset"] == subset]
        steps, gold = [row["steps"] for row in part], [row["gold"] for row in part]
        wrong, right = [r["label"] >= 0 for r in part], [r["final_answer_correct"] for r in part]
        scores = {"final_answer": [*map(float, right)]}
        scores |= {name: metric(steps, gold=gold) for name, metric in METRICS.items()}
        place = {"subset": subset, "n": len(part)}
        for name, score in scores.items():
            if any(value is not None for value in score):
                told.append({**place, "metric": name, **_told(score, wrong, "wrong step")})
            if told[-1]["metric"] == name != "final_answer":
                told.append({**place, "metric": name, **_told(score, right, "right answer")})
        hits = [at == row["label"] for at, row in zip(first_error(steps), part, strict=True)]
        found = [hit for hit, row in zip(hits, part, strict=True) if row["label"] >= 0]
        passed = [hit for hit, row in zip(hits, part, strict=True) if row["label"] < 0]
        shares = {"found": proportions.share(found), "passed": proportions.share(passed)}
        told.append({**place, "metric": "first_error", "target": "first wrong step",
                     "positives": len(found), **shares, "f1": proportions.f1(found, passed)})  # fmt: skip
    return told


def _told(scores: Scores, truth: list[bool], target: str) -> dict[str, Any]:
    alarm = target == "wrong step"
    flags = [score is not None and (score < 1) is alarm for score in scores]
    scored = [(-s if alarm else s, t) for s, t in zip(scores, truth, strict=True) if s is not None]
    sides = ([score for score, true in scored if true is side] for side in (True, False))
    precision = proportions.share([true for true, flag in zip(truth, flags, strict=True) if flag])
    recall = proportions.share([flag for true, flag in zip(truth, flags, strict=True) if true])
    return {"target": target, "positives": sum(truth), "flagged": sum(flags), "scored": len(scored),
            "precision": precision, "recall": recall, "auc": proportions.auc(*sides)}  # fmt: skip


def _labelled(row: dict[str, Any]) -> bool:
    texts = _texts([row["subset"], row["gold"]]) and _texts(row["steps"])
    label = row["label"] in range(-1, len(row["steps"]))
    return texts and label and isinstance(row["final_answer_correct"], bool)


def _read(solutions: Solutions) -> list[list[list[arithmetic.Equation]]]:
    _check(solutions, lambda row: isinstance(row, str) or _texts(row), "a text, or its steps")
    rows = [arithmetic.split_steps(row) if isinstance(row, str) else row for row in solutions]
    return [[arithmetic.find_equations(step) for step in row] for row in rows]


def _flat(solutions: Solutions) -> list[list[arithmetic.Equation]]:
    return [sum(map(list, row), []) for row in _read(solutions)]


def _keys(groups: Answers) -> list[list[Any]]:
    _check(groups, lambda row: isinstance(row, list | tuple) and len(row), "a list of answers")
    _check(groups, lambda row: _texts([a for a in row if a is not None]), "texts or None")
    return [[_key(answer, place) for place, answer in enumerate(row)] for row in groups]


def _key(answer: str | None, place: int) -> Any:
    number = None if answer is None else grading.parse_number(answer)
    return ("missing", place) if answer is None else answer.strip() if number is None else number


def _check(rows: Sequence[Any], valid: Callable[[Any], Any], expected: str) -> None:
    for index, row in enumerate(rows):
        try:
            good = valid(row)
        except (TypeError, KeyError, IndexError):
            good = False
        if not good:
            raise StudyError(f"row {index}: expected {expected}, not {str(row)[:60]!r}")


def _pair(one: Sequence[Any], other: Sequence[Any]) -> None:
    if len(one) != len(other):
        raise StudyError(f"row {min(len(one), len(other))} has no partner; rows must come in pairs")


def _texts(row: Any) -> bool:
    return isinstance(row, list | tuple) and all(isinstance(text, str) for text in row)


def _flags(row: Any) -> bool:
    return len(row) > 0 and all(flag in (0, 1) for flag in row)


def _rate(value: Any) -> bool:
    return 0 <= value <= 1


def _first(row: Sequence[Any]) -> int:
    return next((index for index, value in enumerate(row) if not value), -1)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if len(values) else None
