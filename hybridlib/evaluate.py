"""How good is a model? Greedy and sampled answers to held-out rows, graded, kept per item.

The only module that reads the test split and its out-of-distribution companions.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

from hybridlib import data, grading, metrics, rewards, stats
from hybridlib.engine import rollout
from hybridlib.profiles import Profile

GIVEN_UP = ("refused", "timeout", "error")

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    profile: Profile,
    splits: tuple[str, ...] = (),
    seed: int = 0,
    samples: int = 0,
) -> dict[str, Any]:
    """Items, scores and a few samples of every dataset and split of the profile.

    Args:
        splits: () = the profile's; selection passes ("valid",). "test@polite" are test
            rows under that prompt template of `data.TEMPLATES`.
        samples: answers per row at temperature 1, at most 9; 0 = the profile's.
    Returns:
        items: {"family/split": {level, greedy, correct: one character per row, samples}};
        scores: one dict per family, split and metric (value, 95 % low and high, n rows); that of
            `lenient`, the share of sampled answers that are right wherever the answer stands, also
            counts those the grader gave up on: `refused`, `timeout`, `error`;
        samples: answers to look at, right and wrong;
        solutions: {family: what else can be said of the sampled answers to test questions}: how
            far they agree, whether the majority is right, and, but for programs, which share of
            visible steps holds, how many answers show one, recall of the solution's intermediate
            values, and whether the answer is the value of the last step (`metrics`).
    """
    from datasets import concatenate_datasets

    n, limit = samples or profile.n_samples, profile.max_completion_tokens
    parts: dict[str, Any] = {}
    for name in profile.datasets:
        for split in splits or profile.splits:
            count = profile.n_eval if split in ("test", "valid") else -(-profile.n_eval // 4)
            source, _, template = split.partition("@")
            rows = data.load(name, source, limit=count, columns=profile.columns)
            parts[f"{rows[0]['family']}/{split}"] = data.with_template(rows, template)
    # Everything at once: rows of one length share a batch, whatever they were drawn from.
    every = concatenate_datasets(list(parts.values()))
    ask = (model.eval(), tokenizer, every["prompt"])
    greedy = rollout.sample(*ask, 1, limit, temperature=0, batch=profile.n_batch)
    sampled = rollout.sample(*ask, n, limit, seed=seed, batch=profile.n_batch)
    right, verdicts = _grade(greedy, every), _grade(sampled, every)
    counts = [[verdict.correct for verdict in row] for row in verdicts]
    lenient = _lenient(sampled, every, verdicts)
    items: dict[str, Any] = {}
    scores: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    said: dict[str, Any] = {}
    start = 0
    for name, rows in parts.items():
        here = slice(start, start := start + len(rows))
        items[name] = {
            "level": "".join(str(min(level, 9)) for level in rows["level"]),
            "greedy": "".join(str(row[0].correct + 0) for row in right[here]),
            "correct": "".join(str(sum(c)) for c in counts[here]),
            "samples": n,
        }
        if "@" not in name:  # templates are compared item by item
            scores += stats.scores({name: items[name]}, profile.n_samples)
            scores.append(_beside(name, items[name], lenient[here], verdicts[here]))
        if name.endswith("/test"):
            said[name.rpartition("/")[0]] = _said(rows, sampled[here], verdicts[here])
        shown += [
            {"id": row["id"], "text": texts[0][:400], "correct": good[0]}
            for row, texts, good in zip(rows, sampled[here], counts[here], strict=True)
        ][: 2 if name.endswith("/test") else 0]
    return {"items": items, "scores": scores, "samples": shown[:6], "solutions": said}


def _said(rows: Any, sampled: list[list[str]], verdicts: list) -> dict[str, float | None]:
    """Means over the answers (or rows) to which a metric applies; None where it applies to none."""
    groups = [[verdict.extracted for verdict in row] for row in verdicts]
    right = [[verdict.correct for verdict in row] for row in verdicts]
    found = {
        "agreement": [sum(row) / len(row) for row in metrics.agreement(groups)],
        "majority_accuracy": metrics.majority_accuracy(groups, right),
    }
    n, kinds = len(sampled[0]), set(rows["kind"])
    if "program" not in kinds:
        texts = [text for row in sampled for text in row]
        gold = [turns[-1]["content"] for turns in rows["completion"] for _ in range(n)]
        kept = [rewards.steps_hold(text, kind) for text in texts for kind in kinds]
        found |= {
            "steps_right": [sum(own) / len(own) if own else None for own in kept],
            "steps_shown": [bool(own) for own in kept],
            "intermediate_recall": metrics.intermediate_recall(texts, gold),
            "answer_follows": metrics.answer_follows(texts),
        }
    applies = {name: [v for v in values if v is not None] for name, values in found.items()}
    return {name: round(sum(v) / len(v), 5) if v else None for name, v in applies.items()}


def _grade(answers: list[list[str]], rows: Any) -> list[list[grading.Verdict]]:
    flat = _flat(answers, rows)
    return _rows(grading.grade_many(*flat), len(answers[0]))


def _lenient(answers: list[list[str]], rows: Any, verdicts: list) -> list[list[bool]]:
    told = grading.grade_leniently(*_flat(answers, rows), [v for row in verdicts for v in row])
    return _rows([verdict.correct for verdict in told], len(answers[0]))


def _flat(answers: list[list[str]], rows: Any) -> tuple[list[str], list[str], list[str]]:
    n = len(answers[0])
    texts = [text for texts in answers for text in texts]
    return texts, *(
        [value for value in rows[name] for _ in range(n)] for name in ("answer", "kind")
    )


def _rows(values: list, n: int) -> list[list]:
    return [values[i : i + n] for i in range(0, len(values), n)]


def _beside(name: str, item: dict[str, Any], lenient: list[list[bool]], verdicts: list) -> dict:
    """The score `lenient` of the sampled answers, with counts of those the grader gave up on."""
    counts = {"correct": "".join(str(sum(row)) for row in lenient), "greedy": ""}
    reasons = Counter(verdict.reason for row in verdicts for verdict in row)
    given_up = {reason: reasons[reason] for reason in GIVEN_UP}
    return stats.scores({name: {**item, **counts}})[0] | {"metric": "lenient"} | given_up
