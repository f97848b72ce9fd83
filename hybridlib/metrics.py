"""What can be said of a solution beside right or wrong, without a judge?

METRICS score solutions one by one: `fn(solutions, gold=..., **_) -> list[float | None]`, in [0, 1],
None where a metric does not apply. A solution is a text or the list of its steps, gold the text of
GSM8K's worked solution. The other functions score groups of samples, prefixes and whole runs. All
take one entry per row and raise StudyError with the index of a row that they cannot use. What a
metric can mean is what `validity` measures on the labels of human readers.
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
    return [
        _mean([equation.holds for equation in row if not equation.marked])
        for row in _equations(solutions)
    ]


@METRICS.register
def arithmetic_coverage(solutions: Solutions, **_: Any) -> Scores:
    """C = #(steps with an equation that can be checked) / #(steps), 0 to 1; None without a step.

    The share of a chain in the sense of Golovneva et al. (2023) that V speaks of.
    """
    return [
        _mean([any(not equation.marked for equation in step) for step in steps])
        for steps in _equations_by_step(solutions)
    ]


@METRICS.register
def mark_validity(solutions: Solutions, **_: Any) -> Scores:
    """M = #(marks `<<a+b=c>>` that hold) / #(marks), 0 to 1 (Cobbe et al. 2021); None without one.

    Where a calculator fills in the marks they always hold, and M says nothing.
    """
    return [
        _mean([equation.holds for equation in row if equation.marked])
        for row in _equations(solutions)
    ]


@METRICS.register
def intermediate_recall(solutions: Solutions, gold: Sequence[str], **_: Any) -> Scores:
    """R = |I & V| / |I|, 0 to 1: I the values marked in gold but the last, V those computed here.

    None where I is empty. Marks are those of Cobbe et al. (2021). Another valid route has other
    values on its way, so a right solution can be below 1.
    """
    _check(gold, lambda row: isinstance(row, str), "gold is a text")
    _check_pairs(solutions, gold)
    marked = [[e.value for e in arithmetic.find_equations(text) if e.marked] for text in gold]
    scores = []
    for row, values in zip(_equations(solutions), marked, strict=True):
        computed = {equation.value for equation in row}
        scores.append(_mean([value in computed for value in set(values) - set(values[-1:])]))
    return scores


@METRICS.register
def answer_follows(solutions: Solutions, **_: Any) -> Scores:
    """1 if the final answer is the value of the last computation, else 0 (Lyu et al. 2023).

    None without a computation or without a number as the answer. Both can be wrong and agree.
    """
    rows = _equations(solutions)
    texts = [row if isinstance(row, str) else "\n".join(row) for row in solutions]
    pairs = zip(rows, map(arithmetic.final_number, texts), strict=True)
    return [
        float(equations[-1].value == answer) if equations and answer is not None else None
        for equations, answer in pairs
    ]


def first_error(solutions: Solutions) -> list[int]:
    """Return the first step, from 0, with a false equation; -1 without one (Zheng et al. 2024)."""
    return [
        _first_false([all(equation.holds for equation in step) for step in steps])
        for steps in _equations_by_step(solutions)
    ]


# ---------------------------------------------------------------- groups, prefixes, whole runs


def agreement(groups: Answers) -> list[list[float]]:
    """Return A_g = #(samples with the answer of sample g) / G, 1/G to 1 (Wang et al. 2023).

    A missing answer, None, agrees with no other. Numbers agree by value, all else by its text.
    """
    counted = [(keys, Counter(keys)) for keys in _answer_keys(groups)]
    return [[counts[key] / len(keys) for key in keys] for keys, counts in counted]


def majority_accuracy(groups: Answers, right: Sequence[Sequence[bool]]) -> list[float]:
    """Return whether the most frequent answer is right, 0 to 1 (Wang et al. 2023).

    The mean over the most frequent answers where some tie.
    """
    _check_pairs(groups, right)
    _check(right, _are_flags, "verdicts are true or false, one or more")
    rows = [*zip(agreement(groups), right, strict=True)]
    _check(rows, lambda row: len(row[0]) == len(row[1]), "as many verdicts as answers")
    return [
        _mean([flag for share, flag in zip(shares, flags, strict=True) if share == max(shares)])
        for shares, flags in rows
    ]


def answer_entropy(groups: Answers) -> list[float]:
    """Return H = -sum p ln p over the answers of a group, 0 to ln G (Kuhn et al. 2023)."""
    return [max(0.0, -_mean([math.log(share) for share in row])) for row in agreement(groups)]


def truncation_aoc(answers: Answers) -> Scores:
    """Return AOC = 1 - (1/T) sum_{k<T} [answer after k of T steps = final answer], 0 to 1.

    A row has the answers that the model gives after 0, 1, ..., T steps; None where the last is
    missing. 0: the steps change nothing, they may be decoration; 1: only the last settles the
    answer (Lanham et al. 2023, whose mean weighted by length is the mean over rows).
    """
    _check(answers, lambda row: len(row) > 1, "answers after 0 and up to all steps, two or more")
    keys = _answer_keys(answers)
    return [
        None if answer[-1] is None else 1 - _mean([key == row[-1] for key in row[:-1]])
        for row, answer in zip(keys, answers, strict=True)
    ]


def step_values(rollouts: Sequence[Sequence[Sequence[bool]]]) -> list[list[float]]:
    """Return v_k = #(right rollouts from the first k steps) / N, 0 to 1 (Wang et al. 2024).

    One value per step: an estimate of what the policy can still reach, with an error of
    sqrt(v (1 - v) / N).
    """
    _check(rollouts, lambda row: bool(row) and all(map(_are_flags, row)), "outcomes for every step")
    return [[_mean(step) for step in row] for row in rollouts]


def first_drop(values: Sequence[Sequence[float]]) -> list[int]:
    """Return the first step, from 0, whose value is 0, -1 without one.

    Math-Shepherd's hard label, which stands in for the first error (Wang et al. 2024): no rollout
    from there on was right.
    """
    _check(values, lambda row: all(map(_is_rate, row)), "values of steps from 0 to 1")
    return [_first_false(row) for row in values]


def informative_share(right: Sequence[Sequence[bool]]) -> float:
    """Return #(groups with 0 < right < G) / #(groups), 0 to 1 (Yu et al. 2025).

    Only those have an advantage, and so a gradient, in GRPO.
    """
    _check([*right] or [()], _are_flags, "verdicts are true or false, one or more")
    return _mean([0 < sum(row) < len(row) for row in right])


def hacking_gap(rewards: Sequence[float], held_out: Sequence[float]) -> float:
    """Return H = mean training reward - mean held-out judgement of the same samples, -1 to 1.

    The gap that grows as a proxy is over-optimised (Gao et al. 2023). For programs: passes the
    tests of the reward, minus passes further inputs too (Liu et al. 2023).
    """
    _check_pairs(rewards, held_out)
    for row in (rewards, held_out):
        _check([*row] or [None], _is_rate, "a number from 0 to 1")
    return _mean(rewards) - _mean(held_out)


def corrected(observed: float, alpha: float, beta: float) -> float:
    """Return p = (p_obs - alpha) / (1 - alpha - beta), clipped to 0 to 1 (Rogan & Gladen 1978).

    The true rate behind a verifier that accepts a share alpha of wrong answers and rejects a share
    beta of right ones. Raises StudyError at alpha + beta >= 1, where it knows no more than a coin.
    """
    _check([observed, alpha, beta], _is_rate, "observed, alpha and beta are numbers from 0 to 1")
    if alpha + beta >= 1:
        raise StudyError(f"alpha + beta = {alpha + beta:g}: such a verifier cannot be corrected")
    return min(1.0, max(0.0, (observed - alpha) / (1 - alpha - beta)))


def validity(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measure how well each metric tells a wrong step and a right answer, by human labels.

    Args:
        rows: of ProcessBench: subset, steps, label (the first wrong step, -1 for none),
            final_answer_correct, and gold ("" for none).
    Returns:
        One dict per subset, metric and target: n rows, positives among them, flagged by a score
        below 1 (wrong step) or of 1 (right answer), precision and recall of the flag, AUC over the
        `scored` rows. The final answer is there for comparison. `first_error` has
        F1 = 2ab / (a + b), a (`found`) the share of wrong solutions whose first wrong step is
        located, b (`passed`) that of right ones without an alarm (Zheng et al. 2024). All as
        [estimate, low, high] at 95 %.
    """
    _check(rows, _is_labelled, "subset, steps, gold, a label and final_answer_correct")
    table = []
    for subset in dict.fromkeys(row["subset"] for row in rows):
        part = [row for row in rows if row["subset"] == subset]
        place = {"subset": subset, "n": len(part)}
        table += [place | row for row in _metric_rows(part)]
        table.append(place | _first_error_row(part))
    return table


def _metric_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each metric tells of wrong steps and right answers in one subset."""
    steps, gold = [row["steps"] for row in rows], [row["gold"] for row in rows]
    wrong = [row["label"] >= 0 for row in rows]
    right = [row["final_answer_correct"] for row in rows]
    table = [
        {"metric": "final_answer", **_detection_row([*map(float, right)], wrong, "wrong step")}
    ]
    for name, metric in METRICS.items():
        scores = metric(steps, gold=gold)
        if any(score is not None for score in scores):
            table.append({"metric": name, **_detection_row(scores, wrong, "wrong step")})
            table.append({"metric": name, **_detection_row(scores, right, "right answer")})
    return table


def _detection_row(scores: Scores, truth: list[bool], target: str) -> dict[str, Any]:
    """Return precision, recall and AUC of one metric for one target."""
    low_is_positive = target == "wrong step"
    flags = [score is not None and (score < 1) is low_is_positive for score in scores]
    scored = [
        (-score if low_is_positive else score, true)
        for score, true in zip(scores, truth, strict=True)
        if score is not None
    ]
    sides = ([score for score, true in scored if true is side] for side in (True, False))
    pairs = list(zip(truth, flags, strict=True))
    return {
        "target": target,
        "positives": sum(truth),
        "flagged": sum(flags),
        "scored": len(scored),
        "precision": proportions.share([true for true, flag in pairs if flag]),
        "recall": proportions.share([flag for true, flag in pairs if true]),
        "auc": proportions.auc(*sides),
    }


def _first_error_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how well the first false equation names the first wrong step of one subset."""
    predicted = first_error([row["steps"] for row in rows])
    hits = [step == row["label"] for step, row in zip(predicted, rows, strict=True)]
    located = [hit for hit, row in zip(hits, rows, strict=True) if row["label"] >= 0]
    passed = [hit for hit, row in zip(hits, rows, strict=True) if row["label"] < 0]
    return {
        "metric": "first_error",
        "target": "first wrong step",
        "positives": len(located),
        "found": proportions.share(located),
        "passed": proportions.share(passed),
        "f1": proportions.f1(located, passed),
    }


# ---------------------------------------------------------------- reading and checking rows


def _equations_by_step(solutions: Solutions) -> list[list[list[arithmetic.Equation]]]:
    _check(solutions, lambda row: isinstance(row, str) or _are_texts(row), "a text, or its steps")
    rows = [arithmetic.split_steps(row) if isinstance(row, str) else row for row in solutions]
    return [[arithmetic.find_equations(step) for step in row] for row in rows]


def _equations(solutions: Solutions) -> list[list[arithmetic.Equation]]:
    rows = _equations_by_step(solutions)
    return [[equation for step in steps for equation in step] for steps in rows]


def _answer_keys(groups: Answers) -> list[list[Any]]:
    """Return what answers are compared by: numbers by value, texts, and None equal to nothing."""
    _check(groups, lambda row: isinstance(row, list | tuple) and len(row), "a list of answers")
    _check(groups, lambda row: _are_texts([a for a in row if a is not None]), "texts or None")
    return [[_answer_key(answer, index) for index, answer in enumerate(row)] for row in groups]


def _answer_key(answer: str | None, index: int) -> Any:
    if answer is None:
        return "missing", index
    number = grading.parse_number(answer)
    return answer.strip() if number is None else number


def _check(rows: Sequence[Any], valid: Callable[[Any], Any], expected: str) -> None:
    """Raise StudyError with the index of the first row that is not valid."""
    for index, row in enumerate(rows):
        try:
            good = valid(row)
        except (TypeError, KeyError, IndexError):
            good = False
        if not good:
            raise StudyError(f"row {index}: expected {expected}, not {str(row)[:60]!r}")


def _check_pairs(first: Sequence[Any], second: Sequence[Any]) -> None:
    """Raise StudyError where one of two columns is longer."""
    if len(first) != len(second):
        index = min(len(first), len(second))
        raise StudyError(f"row {index} has no partner; rows must come in pairs")


def _is_labelled(row: dict[str, Any]) -> bool:
    texts = _are_texts([row["subset"], row["gold"]]) and _are_texts(row["steps"])
    label = row["label"] in range(-1, len(row["steps"]))
    return texts and label and isinstance(row["final_answer_correct"], bool)


def _are_texts(row: Any) -> bool:
    return isinstance(row, list | tuple) and all(isinstance(text, str) for text in row)


def _are_flags(row: Any) -> bool:
    return len(row) > 0 and all(flag in (0, 1) for flag in row)


def _is_rate(value: Any) -> bool:
    return 0 <= value <= 1


def _first_false(row: Sequence[Any]) -> int:
    return next((index for index, value in enumerate(row) if not value), -1)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if len(values) else None
