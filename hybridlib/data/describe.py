"""What is in a set? Sizes, lengths, levels, kinds of answer, and test questions seen in training.

The facts are stored under data/results/sets, so that the book can show sets that are not at hand.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, files
from hybridlib.data.rows import load
from hybridlib.partition import bucket
from hybridlib.proportions import wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SHINGLE_WORDS = 3
NEAR_DUPLICATE = 0.5  # Jaccard similarity of two questions' shingles from which they count as one
RESAMPLES = 400  # bootstrap draws over rows
ANSWER_PATTERNS = {  # kind of answer -> how it is written; the first that fits counts
    "integer": r"-?\d[\d,]*",
    "decimal": r"-?\d*\.\d+",
    "radical": r".*sqrt.*",
    "fraction": r"-?(\\[dt]?frac.*|\d+/\d+)",
    "several": r".*,.*",
    "with letters": r"[^\\]*[a-zA-Z][^\\]*",
}

Shingle = tuple[str, ...]


def facts(name: str) -> dict[str, Any]:
    """Return what is in one of `DATASETS`, from its file; measure and store it where that lacks.

    Returns:
        rows: number of rows in train and in test.
        levels: level, as text -> number of training rows.
        question, solution: their lengths in train, in words: 10 % quantile, median, 90 % quantile.
        answers: kind of answer -> share of the training rows.
        seen: share of the test questions that have a near-duplicate in train, its 95 % limits, and
            the share of test questions whose shingles are all and only those of one in train.

    Raises:
        StudyError: the facts are not stored and the set cannot be read.
    """
    file = files.results_folder("sets") / f"{name}.json"
    if not file.exists():
        train, test = (load(name, split) for split in ("train", "test"))
        files.write(file, json.dumps(measure(train.to_list(), test.to_list())) + "\n")
    return json.loads(file.read_text())


def measure(train: Sequence[dict], test: Sequence[dict]) -> dict[str, Any]:
    """Return the `facts` of these rows."""
    train_questions, test_questions = (
        [row["prompt"][-1]["content"] for row in rows] for rows in (train, test)
    )
    similarities = closest_similarity(train_questions, test_questions)
    duplicates, identical = (
        sum(value >= threshold for value in similarities) for threshold in (NEAR_DUPLICATE, 1.0)
    )
    levels = Counter(row["level"] for row in train)
    kinds = Counter(answer_kind(row["kind"], row["answer"]) for row in train)
    return {
        "rows": [len(train), len(test)],
        "levels": {str(level): count for level, count in sorted(levels.items())},
        "question": _word_quantiles(train_questions),
        "solution": _word_quantiles([row["completion"][-1]["content"] for row in train]),
        "answers": {kind: round(count / len(train), 4) for kind, count in kinds.most_common()},
        "seen": [
            duplicates / len(test),
            *wilson(duplicates, len(test)),
            identical / len(test),
        ],
    }


def _word_quantiles(texts: Sequence[str]) -> list[int]:
    """Return how many words the texts have: 10 %, median, 90 %."""
    import numpy as np

    lengths = [len(text.split()) for text in texts]
    return [int(quantile) for quantile in np.quantile(lengths, [0.1, 0.5, 0.9])]


def closest_similarity(train: Sequence[str], test: Sequence[str]) -> list[float]:
    """Return for each test question the similarity of the training question most like it.

    The similarity is the Jaccard index of the questions' sets of shingles, each a run of
    SHINGLE_WORDS words or punctuation marks (Broder 1997): 0 where no shingle is shared, 1 where
    all are, as in identical texts. It is computed exactly and not estimated by MinHash.
    """
    train_sets = [_shingles(text) for text in train]
    containing: dict[Shingle, list[int]] = {}  # shingle -> the training questions that have it
    for index, shingles in enumerate(train_sets):
        for shingle in shingles:
            containing.setdefault(shingle, []).append(index)
    similarities = []
    for text in test:
        shingles = _shingles(text)
        shared = Counter(index for item in shingles for index in containing.get(item, []))
        candidates = (
            count / (len(shingles) + len(train_sets[index]) - count)
            for index, count in shared.items()
        )
        similarities.append(max(candidates, default=0.0))
    return similarities


def _shingles(text: str) -> set[Shingle]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return {tuple(words[start : start + SHINGLE_WORDS]) for start in starts}


def reliability(first: Sequence[float], second: Sequence[float], samples: int) -> pd.DataFrame:
    """Return how well a pass rate from k samples agrees with one from k other samples.

    Smaller k are drawn from the samples without replacement, with a fixed seed.

    Args:
        first, second: two independent pass rates of the same rows, each from `samples` samples.

    Returns:
        One row for each k = 1, 2, 4 ... `samples`: k, value (Pearson's correlation), low, high
        (95 %, over rows), agree (share of rows that both rates put into the same bucket of
        `partition.BUCKETS`).
    """
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    correct = np.round(np.array([first, second]) * samples).astype(int)
    table = []
    k = 1
    while k <= samples:
        rates = rng.hypergeometric(correct, samples - correct, k) / k
        low, high = _correlation_interval(rates, rng)
        same_bucket = np.mean([bucket(one) == bucket(other) for one, other in rates.T])
        table.append((k, _pearson(rates), low, high, same_bucket))
        k *= 2
    return pd.DataFrame(table, columns=["k", "value", "low", "high", "agree"])


def correlations(rows: pd.DataFrame, columns: Sequence[str], target: str) -> pd.DataFrame:
    """Return Spearman's rank correlation of the column `target` with each of `columns`.

    Columns that do not vary are left out.

    Returns:
        One row per column: column (its name), value, low, high (95 %, over rows).
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import rankdata, spearmanr

    rng = np.random.default_rng(0)
    table = []
    for column in columns:
        pair = rows[[column, target]].to_numpy(float).T
        if np.ptp(pair[0]) and np.ptp(pair[1]):
            low, high = _correlation_interval(pair, rng, rankdata)
            table.append((column, spearmanr(*pair).statistic, low, high))
    return pd.DataFrame(table, columns=["column", "value", "low", "high"])


def _correlation_interval(
    pair: np.ndarray, rng: np.random.Generator, transform: Any = None
) -> tuple[float, float]:
    """Return the 95 % limits of a correlation, by a bootstrap over rows.

    Args:
        pair: the two variables, (2, rows).
        transform: applied to each variable of each draw; ranks make it Spearman's correlation.
    """
    import numpy as np

    draws = rng.integers(pair.shape[1], size=(RESAMPLES, pair.shape[1]))
    values = []
    for draw in draws:
        drawn = pair[:, draw]
        values.append(_pearson([transform(part) for part in drawn] if transform else drawn))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return low, high


def _pearson(pair: Any) -> float:
    import numpy as np

    return np.corrcoef(*pair)[0, 1]


def answer_kind(kind: str, answer: str) -> str:
    """Return the kind of an answer by how it is written.

    Args:
        kind: number, expression or program, as rows have it.

    Returns:
        One of ANSWER_PATTERNS, "other expression" or "program".
    """
    if kind == "program":
        return "program"
    plain = answer.replace("\\!", "").strip("$ ")
    for name, pattern in ANSWER_PATTERNS.items():
        if re.fullmatch(pattern, plain):
            return name
    return "other expression"


def table(names: Iterable[str]) -> pd.DataFrame:
    """Return the facts of sets side by side, as text for readers.

    Sets whose facts are not stored and that cannot be read are left out.
    """
    import pandas as pd

    columns = {}
    for name in names:
        try:
            columns[name] = _described(facts(name))
        except StudyError:
            continue
    return pd.DataFrame(columns).T


def _described(measured: dict[str, Any]) -> dict[str, Any]:
    """Return one row of `table`: heading -> text."""
    levels = [int(level) for level in measured["levels"]]
    duplicates, low, high, identical = (100 * value for value in measured["seen"])
    commonest = list(measured["answers"].items())[:2]
    return {
        "rows, train": measured["rows"][0],
        "rows, test": measured["rows"][1],
        "levels": f"{min(levels)} to {max(levels)}",
        "words, question": _median_and_range(measured["question"]),
        "words, solution": _median_and_range(measured["solution"]),
        "answers": ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in commonest),
        "near-duplicates (%)": f"{duplicates:.1f} [{low:.1f}, {high:.1f}]",
        "word by word (%)": f"{identical:.1f}",
    }


def _median_and_range(quantiles: Sequence[int]) -> str:
    low, median, high = quantiles
    return f"{median} ({low} to {high})"
