"""How fast are the graders, and how right, on groups of samples as GRPO has them?"""

import random
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import perturbations
from benchmarks.contenders import accepts, math_verify, sentence
from benchmarks.golds import gold_rows, labelled_rows
from hybridlib import grading
from hybridlib.grading import comparison, equality, forms, symbolic

PROMPTS, SAMPLES = 16, 8  # of a step of GRPO
GSM8K_SOLUTIONS = 2_000  # that math-verify is tried on
Contender = Callable[[list[str], list[str]], list[bool]]  # (golds, answers) -> verdicts


class Sample(NamedTuple):
    """One sample of a group, and whether it was made to be right."""

    gold: str
    answer: str
    right: bool


def grpo_steps(folder: Path) -> list[list[Sample]]:
    """Return the samples of one step of GRPO after another.

    The prompts are the MATH problems of ProcessBench. Of eight samples none to all are right, each
    number as likely as another; a right one is the gold or the right answer of the model there; a
    wrong one is the wrong answer of the model there or one of two ways to spoil the gold. Answers
    repeat within a group, as they do in training.
    """
    rng = random.Random(0)
    groups = []
    for solution, row in labelled_rows(folder, "math"):
        gold, written = row["answer"], grading.last_boxed(solution["steps"][-1])
        ways = perturbations.spoilt(gold).items()
        spoilt = [text for way, text in ways if way not in perturbations.EQUAL_IN_VALUE]
        if len(spoilt) < 2 or not written:
            continue
        right, wrong = [gold], rng.sample(spoilt, 2)
        if solution["final_answer_correct"]:
            right.append(written)
        else:
            wrong.append(written)
        n_right = rng.randint(0, SAMPLES)
        group = [Sample(gold, rng.choice(right), True) for _ in range(n_right)]
        group += [Sample(gold, rng.choice(wrong), False) for _ in range(SAMPLES - n_right)]
        groups.append(rng.sample(group, SAMPLES))
    return [
        [sample for group in groups[start : start + PROMPTS] for sample in group]
        for start in range(0, len(groups) - PROMPTS + 1, PROMPTS)
    ]


def clear_caches() -> None:
    """Empty every cache of the study's grader."""
    equality.parse_answer.cache_clear()
    comparison.compare_expressions.cache_clear()
    comparison.is_list.cache_clear()
    forms.as_text.cache_clear()
    forms.form_of.cache_clear()
    symbolic.CACHE.clear()


def rates(folder: Path) -> dict[str, Any]:
    """Return the verdicts per second and the faults of each grader, which take turns by step."""
    steps = grpo_steps(folder)
    contenders = _contenders()
    for contender in contenders.values():  # imports, workers, the first parse
        contender(["x", "2"], ["y^2", "\\mathbb{R} \\setminus \\{0\\}"])
    clear_caches()
    _remembered_math_verify.cache_clear()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    verdicts: dict[str, list[bool]] = {name: [] for name in contenders}
    for step in steps:
        golds, answers = [sample.gold for sample in step], [sample.answer for sample in step]
        for name, contender in contenders.items():
            start = time.perf_counter()
            verdicts[name] += contender(golds, answers)
            seconds[name].append(time.perf_counter() - start)
    samples = [sample for step in steps for sample in step]
    truth = [sample.right for sample in samples]
    return {
        "steps": len(steps),
        "samples": len(samples),
        "distinct": len({sample[:2] for sample in samples}),
        "layers": layers(samples),
        "rows": [_rate(name, truth, verdicts[name], seconds[name]) for name in contenders],
        "disagreements": disagreements(samples, verdicts["ours"], verdicts["math-verify"]),
        "faults": disagreements(samples, verdicts["ours"], truth),
        "gsm8k": number_rates(),
    }


def _contenders() -> dict[str, Contender]:
    """Return the graders, those that can grade a batch at once doing so."""
    return {
        "ours": _ours_together,
        "math-verify": lambda golds, answers: [
            accepts(math_verify, *pair) for pair in zip(golds, answers, strict=True)
        ],
        "math-verify with a cache of pairs": lambda golds, answers: [
            _remembered_math_verify(*pair) for pair in zip(golds, answers, strict=True)
        ],
        "TRL's accuracy_reward": _trl_together,
    }


def _ours_together(golds: list[str], answers: list[str]) -> list[bool]:
    texts, kinds = [sentence(answer) for answer in answers], ["expression"] * len(answers)
    return [verdict.correct for verdict in grading.grade_many(texts, golds, kinds)]


@lru_cache(None)
def _remembered_math_verify(gold: str, answer: str) -> bool:
    return accepts(math_verify, gold, answer)


def _trl_together(golds: list[str], answers: list[str]) -> list[bool]:
    from trl.rewards import accuracy_reward

    texts = [[{"content": sentence(answer)}] for answer in answers]
    rewards = accuracy_reward(texts, [f"${gold}$" for gold in golds])
    return [reward == 1.0 for reward in rewards]


def _rate(name: str, truth: list[bool], verdicts: list[bool], seconds: list[float]) -> dict:
    judged = list(zip(truth, verdicts, strict=True))
    return {
        "grader": name,
        "per_second": len(judged) / sum(seconds),
        "slowest_step": max(seconds),
        "missed": sum(right and not accepted for right, accepted in judged),
        "let_through": sum(accepted and not right for right, accepted in judged),
    }


def disagreements(
    samples: list[Sample], verdicts: list[bool], others: list[bool]
) -> list[dict[str, Any]]:
    """Return the different samples on which two lists of verdicts differ, with their counts."""
    counts = Counter(
        sample
        for sample, verdict, other in zip(samples, verdicts, others, strict=True)
        if verdict != other
    )
    return [{**sample._asdict(), "n": count} for sample, count in counts.items()]


def layers(samples: list[Sample]) -> dict[str, int]:
    """Return how many samples each layer of the study's grader settles, repeats by the cache."""
    clear_caches()
    seen: set[tuple[str, str]] = set()
    counts = Counter[str]()
    for gold, answer, _ in samples:
        counts["cache" if (gold, answer) in seen else _layer(gold, answer)] += 1
        seen.add((gold, answer))
    return dict(counts)


def _layer(gold: str, answer: str) -> str:
    if gold == answer:
        return "equal strings"
    outcome = comparison.compare_expressions(gold, answer)
    if outcome == "refused":
        return "refused"
    return "grammar and values" if isinstance(outcome, str) else "math-verify"


def number_rates() -> list[dict[str, Any]]:
    """Return the verdicts per second on GSM8K's gold solutions, and how many are right."""
    rows = gold_rows("gsm8k")
    texts = [row["completion"][-1]["content"] for row in rows]
    answers = [row["answer"] for row in rows]
    contenders: dict[str, tuple[int, Contender]] = {
        "ours": (len(rows), _our_numbers),
        "math-verify": (GSM8K_SOLUTIONS, _math_verify_numbers),
    }
    records = []
    for name, (count, contender) in contenders.items():
        start = time.perf_counter()
        n_right = sum(contender(answers[:count], texts[:count]))
        seconds = time.perf_counter() - start
        records.append(
            {"grader": name, "n": count, "per_second": count / seconds, "right": n_right}
        )
    return records


def _our_numbers(golds: list[str], texts: list[str]) -> list[bool]:
    verdicts = grading.grade_many(texts, golds, ["number"] * len(texts))
    return [verdict.correct for verdict in verdicts]


def _math_verify_numbers(golds: list[str], texts: list[str]) -> list[bool]:
    return [math_verify(gold, text) for gold, text in zip(golds, texts, strict=True)]
