"""Which questions does the embedded study ask? Three generated benchmarks in published columns.

Each family mirrors a published set, so that one loader, prompt and grader serve both: `tiny_gsm8k`
(openai/gsm8k), `tiny_math` (hendrycks_math), `tiny_mbpp` (google-research-datasets/mbpp).
Splits are disjoint by construction: a question's chain of operations, without its wording, is
hashed to a residue modulo 100, and each split owns a range of residues. No question stands in two
splits.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hybridlib.tiny.families import FAMILIES, Chain, Family

LEVELS = [1, 2, 3, 4, 5]


class Split(NamedTuple):
    """What belongs to a split: the chains whose hash has these residues, at these levels."""

    residues: range
    levels: list[int]


SPLITS = {
    "pretrain": Split(range(0, 60), LEVELS),
    "train": Split(range(60, 85), LEVELS),
    "valid": Split(range(85, 90), LEVELS),
    "test": Split(range(90, 100), LEVELS),
    "longer": Split(range(90, 100), [6]),
    "wording": Split(range(90, 100), LEVELS),
}
"""The last two are out of distribution: longer chains, and a wording that no other split uses."""


def stream(
    name: str, split: str, seed: int = 0, levels: Sequence[int] = ()
) -> Iterator[tuple[Chain, dict[str, Any]]]:
    """Yield chains and raw rows of one family and split without end, levels taking turns.

    The chain is yielded so that callers can write other solutions of the question, by the family's
    `solve`. Questions may repeat.

    Args:
        levels: replace the split's own levels; () = the split's. Pretraining passes those of its
            curriculum.

    Raises:
        StudyError: there is no such family.
    """
    family: type[Family] = FAMILIES[name]
    levels = levels or SPLITS[split].levels
    wordings = family.WORDINGS[-1:] if split == "wording" else family.WORDINGS[:-1]
    index = 0
    while True:
        level = levels[index % len(levels)]
        rng = random.Random(f"{name}/{split}/{seed}/{level}/{index}")
        chain = family.draw(level, rng)
        while not _owns(split, chain, family):
            chain = family.draw(level, rng)
        question = family.ask(chain, rng.choice(wordings), rng)
        yield chain, family.row(chain, question, family.solve(chain), rng)
        index += 1


def documents(
    name: str, level: int, seed: int = 0, withheld: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Yield the raw rows of one family and level that pretraining reads, without end.

    Args:
        withheld: share of the pairs of consecutive operations that no document has; see
            `withheld_pairs`. Documents with such a pair are left out, the others are the same.

    Raises:
        StudyError: there is no such family.
    """
    kept_away = withheld_pairs(name, withheld)
    for number in itertools.count():
        chain, row = document(name, level, seed, number)
        if kept_away.isdisjoint(itertools.pairwise(FAMILIES[name].operations(chain))):
            yield row


def document(name: str, level: int, seed: int, number: int) -> tuple[Chain, dict[str, Any]]:
    """Return a chain of the split "pretrain" and its raw row, those of odd number oddly worded."""
    family: type[Family] = FAMILIES[name]
    rng = random.Random(f"{name}/documents/{seed}/{level}/{number}")
    chain = family.draw(level, rng)
    while not _owns("pretrain", chain, family):
        chain = family.draw(level, rng)
    wording = family.mixed_wording(rng) if number % 2 else rng.choice(family.WORDINGS[:-1])
    question = family.ask(chain, wording, rng)
    return chain, family.row(chain, question, family.solve(chain), rng)


def withheld_pairs(name: str, share: float) -> set[tuple[str, str]]:
    """Return which pairs of consecutive operations of a family are kept from pretraining.

    Pairs are ordered by hash; a larger share contains the pairs of a smaller one.
    """
    pairs = [
        pair
        for together in FAMILIES[name].OPERATIONS_TOGETHER
        for pair in itertools.product(together, repeat=2)
    ]
    return set(sorted(pairs, key=_hash)[: round(share * len(pairs))])


def _owns(split: str, chain: Chain, family: type[Family]) -> bool:
    """Return whether the question of a chain belongs to a split.

    Where two chains ask the same question, both must have a residue of the split, or the question
    could stand in two splits. Only `pretrain` takes a question with one chain: no other split can
    take it then.
    """
    chains = [chain] if split == "pretrain" else [chain, family.twin(chain)]
    return all(_residue(one) in SPLITS[split].residues for one in chains)


def _residue(chain: Chain) -> int:
    """Return the hash of a chain modulo 100; the wording of its question does not count."""
    return _hash(chain) % 100


def _hash(thing: Any) -> int:
    return int(hashlib.sha256(repr(thing).encode()).hexdigest(), 16)


def raw_rows(name: str, split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return the first `count` distinct raw rows of a split, levels taking turns.

    A longer list starts with a shorter one.

    >>> print(raw_rows("tiny_gsm8k", "test", 1)[0]["answer"].splitlines()[-1][:4])
    ####
    """
    by_level = [_distinct_rows(name, split, seed, level) for level in SPLITS[split].levels]
    return [next(by_level[index % len(by_level)]) for index in range(count)]


def _distinct_rows(name: str, split: str, seed: int, level: int) -> Iterator[dict[str, Any]]:
    """Yield raw rows of one level without end, none of them twice."""
    seen = set()
    for _, row in stream(name, split, seed, [level]):
        if repr(row) not in seen:
            seen.add(repr(row))
            yield row
