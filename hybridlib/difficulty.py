"""How hard is a training row for the base? Its pass rate over k samples, stored by content.

The first right samples are stored beside the adapters: they are what S3FT imitates.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import files, grading, models
from hybridlib.engine import rollout
from hybridlib.profiles import Profile

if TYPE_CHECKING:
    from datasets import Dataset


def pass_rates(profile: Profile, rows: "Dataset", seed: int = 0) -> list[float]:
    """Return the share of the base's samples that are right, in 0..1, for each row, in order.

    Loads the base, samples `profile.n_difficulty` answers per row and grades them where that has
    not been done; the counts are stored under the profile's results, one file per family. What they
    are stored by is everything that decides them: the model's weights, the rows' prompts and
    answers, the number of samples, the length limit, the precision, the seed.
    """
    rates = [0.0] * len(rows)
    for places in _places_by_family(rows):
        family_rows = rows.select(places)
        file = _counts_file(profile, _cache_key(profile, family_rows, seed))
        if not file.exists():
            _measure(profile, family_rows, seed)
        counts = files.read_object(file)["correct"]
        for place, count in zip(places, counts, strict=True):
            rates[place] = count / profile.n_difficulty
    return rates


def first_right_samples(profile: Profile, rows: "Dataset", seed: int = 0) -> list[str | None]:
    """Return the first of the base's samples that is right, None where none is, for each row.

    Measures what is not stored, as `pass_rates` does; the texts lie under the profile's runs.
    """
    texts: list[str | None] = [None] * len(rows)
    for places in _places_by_family(rows):
        family_rows = rows.select(places)
        file = _samples_file(profile, _cache_key(profile, family_rows, seed))
        if not file.exists():
            _measure(profile, family_rows, seed)
        for place, text in zip(places, files.read_json(file), strict=True):
            texts[place] = text
    return texts


def _places_by_family(rows: "Dataset") -> list[list[int]]:
    """Return the positions of each family's rows."""
    places: dict[str, list[int]] = {}
    for place, family in enumerate(rows["family"]):
        places.setdefault(family, []).append(place)
    return list(places.values())


def _counts_file(profile: Profile, key: str) -> Path:
    return files.results_folder(profile.name) / "difficulty" / f"{key}.json"


def _samples_file(profile: Profile, key: str) -> Path:
    return files.runs_folder(profile.name) / "difficulty" / f"{key}.json"


def _cache_key(profile: Profile, rows: "Dataset", seed: int) -> str:
    """Return a digest of what decides the samples; committed files go by it, so that it stays."""
    parts: list[Any] = [
        models.revision(profile),
        profile.n_difficulty,
        profile.max_completion_tokens,
        profile.nf4,
        seed,
    ]
    parts += [[row["prompt"], row["answer"]] for row in rows]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _measure(profile: Profile, rows: "Dataset", seed: int) -> None:
    """Sample and grade answers to the rows of one family, and write both of its files."""
    n_samples = profile.n_difficulty
    model, tokenizer = models.load(profile, nf4=profile.nf4)
    samples = rollout.sample(
        model.eval(),
        tokenizer,
        rows["prompt"],
        n_samples,
        profile.max_completion_tokens,
        seed=seed,
        batch=profile.n_batch,
    )
    correct = _grade(samples, rows)
    first_right = []
    for texts, flags in zip(samples, correct, strict=True):
        right = (text for text, flag in zip(texts, flags, strict=True) if flag)
        first_right.append(next(right, None))
    key = _cache_key(profile, rows, seed)
    files.write(_samples_file(profile, key), json.dumps(first_right))
    record = {
        "model": models.revision(profile),
        "samples": n_samples,
        "seed": seed,
        "correct": [sum(flags) for flags in correct],
    }
    files.write(_counts_file(profile, key), json.dumps(record) + "\n")


def _grade(samples: list[list[str]], rows: "Dataset") -> list[list[bool]]:
    """Return which of each row's samples are right, graded in one batch."""
    texts, answers, kinds, asked = [], [], [], []
    columns = (rows["answer"], rows["kind"], rows["asked"])
    for row_samples, answer, kind, form in zip(samples, *columns, strict=True):
        texts += row_samples
        answers += [answer] * len(row_samples)
        kinds += [kind] * len(row_samples)
        asked += [form] * len(row_samples)
    verdicts = iter(grading.grade_many(texts, answers, kinds, asked))
    return [[next(verdicts).correct for _ in row_samples] for row_samples in samples]
