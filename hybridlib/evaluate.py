"""How good is a model? Greedy and sampled answers to held-out rows, graded, stored per item.

The only module that reads the test split and its out-of-distribution companions.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

from hybridlib import data, grading, metrics, rewards, stats
from hybridlib.engine import rollout
from hybridlib.profiles import Profile
from hybridlib.sandbox import judge

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GIVEN_UP = ("refused", "timeout", "error")
"""Reasons for which the grader gives up on an answer."""
MAJORITY = 8
"""The fewest samples of a row of which a majority is kept."""
EXAMPLES = 6  # answers that a record stores to look at
EXAMPLES_PER_SPLIT, EXAMPLE_CHARACTERS = 2, 400


def score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    profile: Profile,
    splits: tuple[str, ...] = (),
    seed: int = 0,
    samples: int = 0,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Answer and grade every dataset and split of the profile; leaves the model in eval mode.

    Args:
        splits: () = the profile's; selection passes ("valid",). "test@polite" are test
            rows under that prompt template of `data.TEMPLATES`.
        samples: answers per row, at most 9; 0 = the profile's.
        temperature: of the sampled answers.
    Returns:
        items: {"family/split": {level, greedy, correct: one character per row, samples}}, and from
            MAJORITY samples on majority: whether the most frequent answer is right, a number per
            row, a share where several are equally frequent;
        scores: one dict per family, split and metric (value, 95 % low and high, n rows); that of
            `lenient`, the share of sampled answers that are right wherever the answer stands, also
            counts those the grader gave up on: `refused`, `timeout`, `error`;
        samples: answers to look at, right and wrong;
        solutions: {family: `solution_facts` of the sampled answers to test questions};
        sandbox: `judge.protections` where answers were programs, None where none were.
    """
    from datasets import concatenate_datasets

    n_samples, limit = samples or profile.n_samples, profile.max_completion_tokens
    parts = _held_out(profile, splits or profile.splits)
    # Everything at once: rows of one length share a batch, whatever they were drawn from.
    rows = concatenate_datasets(list(parts.values()))
    sampler = (model.eval(), tokenizer, rows["prompt"])
    greedy = rollout.sample(*sampler, 1, limit, temperature=0, batch=profile.n_batch)
    sampled = rollout.sample(
        *sampler, n_samples, limit, temperature, seed=seed, batch=profile.n_batch
    )
    greedy_verdicts, verdicts = _grade(greedy, rows), _grade(sampled, rows)
    lenient = _grade_leniently(sampled, rows, verdicts)
    scored: dict[str, Any] = {"items": {}, "scores": [], "samples": [], "solutions": {}}
    start = 0
    for name, part in parts.items():
        here = slice(start, start + len(part))
        start += len(part)
        item = {
            "level": "".join(str(min(level, 9)) for level in part["level"]),
            "greedy": _correct_digits(greedy_verdicts[here]),
            "correct": _correct_digits(verdicts[here]),
            "samples": n_samples,
        }
        if n_samples >= MAJORITY:
            shares = _majorities(verdicts[here])
            item["majority"] = [round(share, 3) if share % 1 else int(share) for share in shares]
        scored["items"][name] = item
        if "@" not in name:  # templates are compared item by item
            scored["scores"] += stats.scores({name: item}, profile.n_samples)
            scored["scores"].append(_lenient_score(name, item, lenient[here], verdicts[here]))
        if name.endswith("/test"):
            family = name.rpartition("/")[0]
            scored["solutions"][family] = solution_facts(part, sampled[here], verdicts[here])
            scored["samples"] += _examples(part, sampled[here], verdicts[here])
    scored["samples"] = scored["samples"][:EXAMPLES]
    scored["sandbox"] = judge.protections() if "program" in rows["kind"] else None
    return scored


def greedy(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    profile: Profile,
    splits: tuple[str, ...],
    first: int = 0,
) -> dict[str, str]:
    """Return which rows the likeliest answer is right for; leaves the model in eval mode.

    first: so many of the rows that `score` asks of each dataset and split, 0 = all of them.

    Returns:
        {"family/split": a digit per row, 1 = right}, as `greedy` in the items of `score`.
    """
    from datasets import concatenate_datasets

    parts = _held_out(profile, splits)
    if first:
        parts = {name: rows.take(min(first, len(rows))) for name, rows in parts.items()}
    rows = concatenate_datasets(list(parts.values()))
    answers = rollout.sample(
        model.eval(),
        tokenizer,
        rows["prompt"],
        1,
        profile.max_completion_tokens,
        temperature=0,
        batch=profile.n_batch,
    )
    digits = _correct_digits(_grade(answers, rows))
    right, start = {}, 0
    for name, part in parts.items():
        right[name] = digits[start : start + len(part)]
        start += len(part)
    return right


def solution_facts(
    rows: "Dataset", sampled: list[list[str]], verdicts: list[list[grading.Verdict]]
) -> dict[str, float | None]:
    """Return facts about the sampled answers of one family, beside their accuracy.

    How far they agree, whether the majority is right, and, but for programs, which share of visible
    steps holds, how many answers show one, recall of the solution's intermediate values, and
    whether the answer is the value of the last step (`metrics`). Means over the answers, or rows,
    to which a metric applies; None where it applies to none.
    """
    groups = [[verdict.extracted for verdict in row] for row in verdicts]
    scores: dict[str, list] = {
        "agreement": [sum(row) / len(row) for row in metrics.agreement(groups)],
        "majority_accuracy": _majorities(verdicts),
    }
    n_samples, kinds = len(sampled[0]), set(rows["kind"])
    if "program" not in kinds:
        texts = [text for row in sampled for text in row]
        gold = [turns[-1]["content"] for turns in rows["completion"] for _ in range(n_samples)]
        steps = [rewards.steps_hold(text, kind) for text in texts for kind in kinds]
        scores |= {
            "steps_right": [sum(row) / len(row) if row else None for row in steps],
            "steps_shown": [bool(row) for row in steps],
            "intermediate_recall": metrics.intermediate_recall(texts, gold),
            "answer_follows": metrics.answer_follows(texts),
        }
    applicable = {name: [v for v in values if v is not None] for name, values in scores.items()}
    return {
        name: round(sum(values) / len(values), 5) if values else None
        for name, values in applicable.items()
    }


def _majorities(verdicts: list[list[grading.Verdict]]) -> list[float]:
    """Return whether the most frequent answer to each row is right, 0 to 1."""
    groups = [[verdict.extracted for verdict in row] for row in verdicts]
    return metrics.majority_accuracy(groups, [[v.correct for v in row] for row in verdicts])


def _held_out(profile: Profile, splits: tuple[str, ...]) -> "dict[str, Dataset]":
    """Return the rows of every dataset and split as {"family/split": rows}."""
    parts = {}
    for name in profile.datasets:
        for split in splits:
            count = profile.n_eval if split in ("test", "valid") else -(-profile.n_eval // 4)
            source, _, template = split.partition("@")
            rows = data.load(name, source, count, profile.columns, profile.ask)
            parts[f"{rows[0]['family']}/{split}"] = data.with_template(rows, template)
    return parts


def _grade(answers: list[list[str]], rows: "Dataset") -> list[list[grading.Verdict]]:
    texts, gold, kinds, asked = _one_per_answer(answers, rows)
    return _by_row(grading.grade_many(texts, gold, kinds, asked), len(answers[0]))


def _grade_leniently(
    answers: list[list[str]], rows: "Dataset", strict: list[list[grading.Verdict]]
) -> list[list[grading.Verdict]]:
    verdicts = [verdict for row in strict for verdict in row]
    texts, gold, kinds, asked = _one_per_answer(answers, rows)
    lenient = grading.grade_leniently(texts, gold, kinds, verdicts, asked)
    return _by_row(lenient, len(answers[0]))


def _one_per_answer(answers: list[list[str]], rows: "Dataset") -> tuple[list, ...]:
    """Return texts, true answers, kinds and forms asked for, one of each per sampled answer."""
    n_samples = len(answers[0])
    texts = [text for row in answers for text in row]
    columns = (rows["answer"], rows["kind"], rows["asked"])
    return texts, *([value for value in column for _ in range(n_samples)] for column in columns)


def _by_row(values: list, n_samples: int) -> list[list]:
    return [values[i : i + n_samples] for i in range(0, len(values), n_samples)]


def _correct_digits(verdicts: list[list[grading.Verdict]]) -> str:
    """Return the number of right answers to each row as one character."""
    return "".join(str(sum(verdict.correct for verdict in row)) for row in verdicts)


def _lenient_score(
    name: str,
    item: dict[str, Any],
    lenient: list[list[grading.Verdict]],
    strict: list[list[grading.Verdict]],
) -> dict[str, Any]:
    """Return the score `lenient` of sampled answers and counts of ungraded answers by reason."""
    stored = {name: {**item, "correct": _correct_digits(lenient), "greedy": ""}}
    reasons = Counter(verdict.reason for row in strict for verdict in row)
    given_up = {reason: reasons[reason] for reason in GIVEN_UP}
    return stats.scores(stored)[0] | {"metric": "lenient"} | given_up


def _examples(
    rows: "Dataset", sampled: list[list[str]], verdicts: list[list[grading.Verdict]]
) -> list[dict[str, Any]]:
    """Return the first sampled answers to the first rows, cut to EXAMPLE_CHARACTERS."""
    examples = [
        {"id": row["id"], "text": texts[0][:EXAMPLE_CHARACTERS], "correct": judged[0].correct}
        for row, texts, judged in zip(rows, sampled, verdicts, strict=True)
    ]
    return examples[:EXAMPLES_PER_SPLIT]
