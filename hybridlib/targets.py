"""What does SFT imitate? One decorated function per kind of target, rows to rows.

`fn(rows, profile, seed) -> Dataset` with the same rows in the same order; a function changes
completions (or prompts) and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridlib import data, grading
from hybridlib.data import TEMPLATES
from hybridlib.registry import Registry

if TYPE_CHECKING:
    from datasets import Dataset

    from hybridlib.profiles import Profile

TARGETS = Registry("target")


@TARGETS.register
def solution(rows: Dataset, profile: Profile, seed: int) -> Dataset:
    """The worked solution, as it stands."""
    return rows


@TARGETS.register
def answer(rows: Dataset, profile: Profile, seed: int) -> Dataset:
    """The final answer without its reasoning; programs are their own reasoning and stay."""

    def short(row: dict) -> dict:
        text = row["completion"][-1]["content"]
        if row["kind"] == "number":
            text = f"#### {row['answer']}"
        elif row["kind"] == "expression":
            text = f"\\boxed{{{grading.last_boxed(text)}}}"
        return {"completion": [{"role": "assistant", "content": text}]}

    return rows.map(short, load_from_cache_file=False)


@TARGETS.register
def own(rows: Dataset, profile: Profile, seed: int) -> Dataset:
    """The base's own answer where one of its samples is right, else the solution.

    S3FT (Gupta et al. 2025, arXiv:2502.08130) without its second choice, a paraphrase by the model
    of the solution, which a base that only answers questions cannot write.
    """
    from hybridlib import difficulty

    texts = difficulty.right_answers(profile, rows, seed)

    def mine(row: dict, index: int) -> dict:
        if texts[index] is None:
            return {"completion": row["completion"]}
        return {"completion": [{"role": "assistant", "content": texts[index]}]}

    return rows.map(mine, with_indices=True, load_from_cache_file=False)


@TARGETS.register
def templates(rows: Dataset, profile: Profile, seed: int) -> Dataset:
    """The worked solution, asked for in one of the trained prompt templates, drawn per row.

    The control of claims about prompt fragility (arXiv:2510.00237): the last
    template is never drawn, so that it stays new to the model.
    """
    import random

    rng = random.Random(seed)
    kinds = [rng.choice(list(TEMPLATES)[:-1]) for _ in range(len(rows))]

    def asked(row: dict, index: int) -> dict:
        return {"prompt": data.apply_template(row["prompt"], kinds[index])}

    return rows.map(asked, with_indices=True, load_from_cache_file=False)
