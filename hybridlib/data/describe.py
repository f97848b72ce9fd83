"""What is in a set? Sizes, lengths, levels, kinds of answer, and test questions seen in training.

Facts are kept under data/results/sets, so that the book can show sets that are not at hand.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, results
from hybridlib.data import rows as data
from hybridlib.proportions import wilson

if TYPE_CHECKING:
    import pandas as pd

WORDS = 3  # in a shingle
ALIKE = 0.5  # Jaccard similarity of two questions' shingles from which they are near-duplicates


def facts(name: str) -> dict[str, Any]:
    """What is in one set of `data.DATASETS`? From its file, or measured and kept.

    Returns rows (train, test), levels (of train: level -> rows), question and solution (words of
    train: 10 %, median, 90 %), answers (kind -> share of train), seen (share of test questions that
    have a near-duplicate in train, 95 % low and high, and of those that are there word by word).
    Raises StudyError where the set is neither kept nor at hand.
    """
    file = results.folder("sets") / f"{name}.json"
    if not file.exists():
        train, test = (data.load(name, split) for split in ("train", "test"))
        results.write(file, json.dumps(measure(train.to_list(), test.to_list())) + "\n")
    return json.loads(file.read_text())


def measure(train: Sequence[dict], test: Sequence[dict]) -> dict[str, Any]:
    """The `facts` of these rows."""
    import numpy as np

    def quantiles(texts: Iterable[str]) -> list[int]:
        return [int(q) for q in np.quantile([len(t.split()) for t in texts], [0.1, 0.5, 0.9])]

    asked = [[row["prompt"][-1]["content"] for row in rows] for rows in (train, test)]
    closest = nearest(*asked)
    alike, same = (sum(value >= bar for value in closest) for bar in (ALIKE, 1.0))
    kinds = Counter(answer_kind(row["kind"], row["answer"]) for row in train)
    return {
        "rows": [len(train), len(test)],
        "levels": {str(k): n for k, n in sorted(Counter(row["level"] for row in train).items())},
        "question": quantiles(asked[0]),
        "solution": quantiles(row["completion"][-1]["content"] for row in train),
        "answers": {kind: round(n / len(train), 4) for kind, n in kinds.most_common()},
        "seen": [alike / len(test), *wilson(alike, len(test)), same / len(test)],
    }


def nearest(train: Sequence[str], test: Sequence[str]) -> list[float]:
    """For each test question, the Jaccard similarity of the training question most like it.

    Of sets of WORDS successive words, numbers included; exact, where MinHash estimates (Broder
    1997). 0 where nothing is shared; 1 for the same words in the same order, give or take repeats.
    """
    known: dict[tuple[str, ...], int] = {}
    sets = [{known.setdefault(s, len(known)) for s in _shingles(text)} for text in train]
    homes: dict[int, list[int]] = {}
    for place, own in enumerate(sets):
        for shingle in own:
            homes.setdefault(shingle, []).append(place)
    found = []
    for text in test:
        own = _shingles(text)
        shared = Counter(place for s in own if s in known for place in homes[known[s]])
        best = (n / (len(own) + len(sets[place]) - n) for place, n in shared.items())
        found.append(max(best, default=0.0))
    return found


def reliability(first: Sequence[float], second: Sequence[float], of: int) -> pd.DataFrame:
    """How well does a pass rate from k samples agree with a second one from k others?

    Args:
        first, second: two independent pass rates of the same rows, each from `of` samples.
    Returns:
        One row per k = 1, 2, 4 ... `of`: k, value (Pearson's correlation), low, high (95 %, over
        rows), agree (share of rows that fall into one bucket of `partition.BUCKETS` both times).
    Smaller k are drawn from the samples without replacement.
    """
    import numpy as np
    import pandas as pd

    from hybridlib.partition import bucket

    rng = np.random.default_rng(0)
    right = np.round(np.array([first, second]) * of).astype(int)
    rows, k = [], 1
    while k <= of:
        one, other = rng.hypergeometric(right, of - right, k) / k
        picks = rng.integers(len(one), size=(400, len(one)))
        spread = [np.corrcoef(one[pick], other[pick])[0, 1] for pick in picks]
        low, high = np.nanquantile(spread, [0.025, 0.975])
        agree = np.mean([bucket(a) == bucket(b) for a, b in zip(one, other, strict=True)])
        rows.append((k, np.corrcoef(one, other)[0, 1], low, high, agree))
        k *= 2
    return pd.DataFrame(rows, columns=["k", "value", "low", "high", "agree"])


def correlations(rows: pd.DataFrame, columns: Sequence[str], of: str) -> pd.DataFrame:
    """Spearman's rank correlation of `of` with each column: arm, value, low, high (95 %, rows)."""
    import numpy as np
    import pandas as pd
    from scipy.stats import rankdata, spearmanr

    rng, found = np.random.default_rng(0), []
    for column in columns:
        pair = rows[[column, of]].to_numpy(float)
        if np.ptp(pair[:, 0]) and np.ptp(pair[:, 1]):
            picks = rng.integers(len(pair), size=(400, len(pair)))
            spread = [np.corrcoef(*(rankdata(c) for c in pair[pick].T))[0, 1] for pick in picks]
            low, high = np.nanquantile(spread, [0.025, 0.975])
            found.append((column, spearmanr(*pair.T).statistic, low, high))
    return pd.DataFrame(found, columns=["arm", "value", "low", "high"])


def answer_kind(kind: str, answer: str) -> str:
    """integer, decimal, fraction, several, radical, text ... or program, by how it is written."""
    if kind == "program":
        return "program"
    patterns = (("integer", r"-?\d[\d,]*"), ("decimal", r"-?\d*\.\d+"), ("radical", r".*sqrt.*"),
                ("fraction", r"-?(\\[dt]?frac.*|\d+/\d+)"), ("several", r".*,.*"),
                ("with letters", r"[^\\]*[a-zA-Z][^\\]*"))  # fmt: skip
    plain = answer.replace("\\!", "").strip("$ ")
    return next((name for name, own in patterns if re.fullmatch(own, plain)), "other expression")


def table(names: Iterable[str]) -> pd.DataFrame:
    """Sets side by side; one that is neither kept nor at hand is left out."""
    import pandas as pd

    rows = {}
    for name in names:
        try:
            found = facts(name)
        except StudyError:
            continue
        alike, low, high, same = (100 * value for value in found["seen"])
        first = list(found["answers"].items())[:2]
        rows[name] = {
            "rows, train": found["rows"][0], "rows, test": found["rows"][1],
            "levels": f"{min(map(int, found['levels']))} to {max(map(int, found['levels']))}",
            "words, question": "{} ({} to {})".format(*(found["question"][i] for i in (1, 0, 2))),
            "words, solution": "{} ({} to {})".format(*(found["solution"][i] for i in (1, 0, 2))),
            "answers": ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in first),
            "near-duplicates (%)": f"{alike:.1f} [{low:.1f}, {high:.1f}]",
            "word by word (%)": f"{same:.1f}",
        }  # fmt: skip
    return pd.DataFrame(rows).T


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {tuple(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))}
