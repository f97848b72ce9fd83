"""How hard is a training row for the base? Its pass rate over k samples, kept by content.

The samples themselves are kept beside the adapters: the right ones are what S3FT imitates.
"""

import hashlib
import json
from typing import TYPE_CHECKING

from hybridlib import files, grading, models
from hybridlib.engine import rollout
from hybridlib.profiles import Profile

if TYPE_CHECKING:
    from datasets import Dataset


def pass_rates(profile: Profile, rows: "Dataset", seed: int = 0) -> list[float]:
    """Share of `profile.n_difficulty` sampled answers that are right, for each row, in order.

    Each family is kept by itself. The cache key is everything that decides the number: the model's
    weights, the rows' prompts and answers, k, the length limit, the seed.
    """
    rates = [0.0] * len(rows)
    for places in _families(rows):
        part = rows.select(places)
        file = files.results_folder(profile.name) / "difficulty" / f"{_key(profile, part, seed)}.json"
        if not file.exists():
            _measure(profile, part, seed)
        for place, right in zip(places, json.loads(file.read_text())["correct"], strict=True):
            rates[place] = right / profile.n_difficulty
    return rates


def right_answers(profile: Profile, rows: "Dataset", seed: int = 0) -> list[str | None]:
    """The first right one of the base's samples for each row, in order; None where none is."""
    texts: list[str | None] = [None] * len(rows)
    for places in _families(rows):
        part = rows.select(places)
        name = f"{_key(profile, part, seed)}.json"
        file = files.runs_folder(profile.name) / "difficulty" / name
        if not file.exists():
            _measure(profile, part, seed)
        for place, text in zip(places, json.loads(file.read_text()), strict=True):
            texts[place] = text
    return texts


def _families(rows: "Dataset") -> list[list[int]]:
    """The positions of each family's rows."""
    names = list(rows["family"])
    return [[i for i, own in enumerate(names) if own == name] for name in dict.fromkeys(names)]


def _key(profile: Profile, rows: "Dataset", seed: int) -> str:
    parts = [models.revision(profile), profile.n_difficulty, profile.max_completion_tokens]
    parts += [profile.nf4, seed, *([r["prompt"], r["answer"]] for r in rows)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _measure(profile: Profile, rows: "Dataset", seed: int) -> None:
    k, key = profile.n_difficulty, _key(profile, rows, seed)
    model, tokenizer = models.load(profile, nf4=profile.nf4)
    limit = profile.max_completion_tokens
    ask = (model.eval(), tokenizer, rows["prompt"], k, limit)
    answers = rollout.sample(*ask, seed=seed, batch=profile.n_batch)
    verdicts = grading.grade_many(
        [text for texts in answers for text in texts],
        [a for a in rows["answer"] for _ in range(k)],
        [kind for kind in rows["kind"] for _ in range(k)],
    )
    right = [[v.correct for v in verdicts[i : i + k]] for i in range(0, len(verdicts), k)]
    first = [next((t for t, r in zip(*pair, strict=True) if r), None)
             for pair in zip(answers, right, strict=True)]  # fmt: skip
    files.write(files.runs_folder(profile.name) / "difficulty" / f"{key}.json", json.dumps(first))
    record = {"model": models.revision(profile), "samples": k, "seed": seed,
              "correct": [sum(r) for r in right]}  # fmt: skip
    file = files.results_folder(profile.name) / "difficulty" / f"{key}.json"
    files.write(file, json.dumps(record) + "\n")
