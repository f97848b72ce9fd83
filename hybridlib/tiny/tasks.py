"""Which questions does the embedded study ask? Three generated benchmarks in real columns.

Each family mirrors a real set, so that one loader, prompt and grader serve both: `tiny_gsm8k`
(openai/gsm8k), `tiny_math` (hendrycks_math), `tiny_mbpp` (google-research-datasets/mbpp).
Splits are disjoint by construction: a question's chain of operations, without its wording, is
hashed into one bucket, and each split owns its buckets. No question stands in two splits.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

from hybridlib.tiny.families import FAMILIES, Chain

LEVELS = [1, 2, 3, 4, 5]  # of train, valid, test and wording
# split -> (its buckets of 100, its levels); "longer" and "wording" are out of distribution
SPLITS = {
    "pretrain": (range(0, 60), LEVELS),
    "train": (range(60, 85), LEVELS),
    "valid": (range(85, 90), LEVELS),
    "test": (range(90, 100), LEVELS),
    "longer": (range(90, 100), [6]),
    "wording": (range(90, 100), LEVELS),
}


def bucket(chain: Chain) -> int:
    """The bucket in 0..99 that a chain, whatever its wording, belongs to."""
    return int(hashlib.sha256(repr(chain).encode()).hexdigest(), 16) % 100


def stream(name: str, split: str, seed: int = 0, levels: Sequence[int] = ()) -> Iterator[tuple]:
    """Endless (chain, raw row) of one family and split, levels taking turns.

    Args:
        levels: others than the split's own (pretraining's curriculum).
    Pass the chain to the family's `solve` for other solutions of the same question.
    """
    task, own = FAMILIES[name], SPLITS[split][1]
    levels = levels or own
    says = task.SAY[-1:] if split == "wording" else task.SAY[:-1]
    i = 0
    while True:
        level = levels[i % len(levels)]
        rng = random.Random(f"{name}/{split}/{seed}/{level}/{i}")
        chain = task.draw(level, rng)
        while not _owned(chain, task, split):
            chain = task.draw(level, rng)
        question = task.ask(chain, rng.choice(says), rng)
        yield chain, task.row(chain, question, task.solve(chain), rng)
        i += 1


def _owned(chain: Chain, task: Any, split: str) -> bool:
    """Does the split own the question? Of two chains that ask the same, it must own both.

    Pretraining need not: what it takes, the other splits leave.
    """
    chains = [chain]
    if split != "pretrain" and hasattr(task, "twin"):
        chains.append(task.twin(chain))
    return all(bucket(one) in SPLITS[split][0] for one in chains)


def raw_rows(name: str, split: str, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """The first n distinct rows of a split, levels in turn; a longer list starts with a shorter.

    >>> print(raw_rows("tiny_gsm8k", "test", 1)[0]["answer"].splitlines()[-1][:4])
    ####
    """
    FAMILIES[name]
    levels = [distinct(name, split, seed, level) for level in SPLITS[split][1]]
    return [next(levels[i % len(levels)]) for i in range(n)]


def distinct(name: str, split: str, seed: int, level: int) -> Iterator[dict[str, Any]]:
    """Endless distinct rows of one level."""
    seen = set()
    for _, row in stream(name, split, seed, [level]):
        if repr(row) not in seen:
            seen.add(repr(row))
            yield row
