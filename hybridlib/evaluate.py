"""How good is a model? Greedy and sampled answers to held-out rows, graded, kept per item.

The only module that reads the test split and its out-of-distribution companions.
"""

from typing import TYPE_CHECKING, Any

from hybridlib import data, grading, rollout, stats
from hybridlib.profiles import Profile

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
        splits: others than the profile's; selection passes ("valid",).
        samples: answers per row at temperature 1, at most 9; 0 = the profile's.
    Returns:
        items: {"family/split": {level, greedy, correct: one character per row, samples}};
        scores: one dict per family, split and metric (value, 95 % low and high, n rows);
        samples: answers to look at, right and wrong.
    """
    from datasets import concatenate_datasets

    n, limit = samples or profile.n_samples, profile.max_completion_tokens
    parts: dict[str, Any] = {}
    for name in profile.datasets:
        for split in splits or profile.splits:
            count = profile.n_eval if split in ("test", "valid") else -(-profile.n_eval // 4)
            rows = data.load(name, split, limit=count, columns=profile.columns)
            parts[f"{rows[0]['family']}/{split}"] = rows
    # Everything at once: rows of one length share a batch, whatever they were drawn from.
    every = concatenate_datasets(list(parts.values()))
    ask = (model.eval(), tokenizer, every["prompt"])
    greedy = rollout.sample(*ask, 1, limit, temperature=0, batch=profile.n_batch)
    sampled = rollout.sample(*ask, n, limit, seed=seed, batch=profile.n_batch)
    right, counts = _grade(greedy, every), _grade(sampled, every)
    items: dict[str, Any] = {}
    shown: list[dict[str, Any]] = []
    start = 0
    for name, rows in parts.items():
        here = slice(start, start := start + len(rows))
        items[name] = {
            "level": "".join(str(min(level, 9)) for level in rows["level"]),
            "greedy": "".join(str(sum(r)) for r in right[here]),
            "correct": "".join(str(sum(c)) for c in counts[here]),
            "samples": n,
        }
        shown += [
            {"id": row["id"], "text": texts[0][:400], "correct": good[0]}
            for row, texts, good in zip(rows, sampled[here], counts[here], strict=True)
        ][: 2 if name.endswith("/test") else 0]
    return {"items": items, "scores": stats.scores(items, profile.n_samples), "samples": shown[:6]}


def _grade(answers: list[list[str]], rows: Any) -> list[list[bool]]:
    n = len(answers[0])
    verdicts = grading.grade_many(
        [text for texts in answers for text in texts],
        [a for a in rows["answer"] for _ in range(n)],
        [kind for kind in rows["kind"] for _ in range(n)],
    )
    return [[v.correct for v in verdicts[i : i + n]] for i in range(0, len(verdicts), n)]
