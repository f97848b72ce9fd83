"""How hard is a training row for the base? Its pass rate over k samples, kept by content."""

import hashlib
import json
from typing import TYPE_CHECKING

from hybridlib import grading, models, results, rollout
from hybridlib.profiles import Profile

if TYPE_CHECKING:
    from datasets import Dataset


def passrate(profile: Profile, rows: "Dataset", seed: int = 0) -> list[float]:
    """Share of `profile.n_difficulty` sampled answers that are right, for each row, in order.

    The cache key is everything that decides the number: the model's weights, the rows' prompts and
    answers, k, the length limit, the seed.
    """
    k = profile.n_difficulty
    parts = [models.revision(profile), k, profile.max_completion_tokens, profile.nf4, seed]
    parts += [[r["prompt"], r["answer"]] for r in rows]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    file = results.folder(profile.name) / "difficulty" / f"{key}.json"
    if file.exists():
        return [c / k for c in json.loads(file.read_text())["correct"]]
    model, tokenizer = models.load(profile, nf4=profile.nf4)
    answers = rollout.sample(
        model.eval(),
        tokenizer,
        rows["prompt"],
        k,
        profile.max_completion_tokens,
        seed=seed,
        batch=profile.n_batch,
    )
    verdicts = grading.grade_many(
        [text for texts in answers for text in texts],
        [a for a in rows["answer"] for _ in range(k)],
        [kind for kind in rows["kind"] for _ in range(k)],
    )
    correct = [sum(v.correct for v in verdicts[i : i + k]) for i in range(0, len(verdicts), k)]
    results.write(
        file, json.dumps({"model": parts[0], "samples": k, "seed": seed, "correct": correct}) + "\n"
    )
    return [c / k for c in correct]
