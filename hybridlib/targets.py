"""What does SFT imitate? One decorated function per kind of target, rows to rows.

`target(rows, profile, seed) -> Dataset` returns the same rows in the same order; it changes
completions (or prompts) and nothing else.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hybridlib import difficulty, grading
from hybridlib.data import TEMPLATES, apply_template
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

    def without_steps(row: dict) -> dict:
        text = row["completion"][-1]["content"]
        if row["kind"] == "number":
            text = f"#### {row['answer']}"
        elif row["kind"] == "expression":
            text = f"\\boxed{{{grading.last_boxed(text)}}}"
        return {"completion": _completion(text)}

    return rows.map(without_steps, load_from_cache_file=False)


@TARGETS.register(name="own")
def own_samples(rows: Dataset, profile: Profile, seed: int) -> Dataset:
    """The base's own answer where one of its samples is right, else the solution.

    S3FT (Gupta et al. 2025, arXiv:2502.08130) without its second choice, a paraphrase by the model
    of the solution, which a base trained only to answer questions cannot write.
    """
    samples = difficulty.first_right_samples(profile, rows, seed)

    def sample_or_solution(row: dict, place: int) -> dict:
        text = samples[place]
        return {"completion": row["completion"] if text is None else _completion(text)}

    return rows.map(sample_or_solution, with_indices=True, load_from_cache_file=False)


@TARGETS.register
def templates(rows: Dataset, profile: Profile, seed: int) -> Dataset:
    """The worked solution, asked for in one of the trained prompt templates, drawn per row.

    The control of claims about prompt fragility (arXiv:2510.00237): the last
    template is never drawn, so that it stays new to the model.
    """
    rng = random.Random(seed)
    drawn = [rng.choice(list(TEMPLATES)[:-1]) for _ in range(len(rows))]

    def with_drawn_template(row: dict, place: int) -> dict:
        return {"prompt": apply_template(row["prompt"], drawn[place])}

    return rows.map(with_drawn_template, with_indices=True, load_from_cache_file=False)


def _completion(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
