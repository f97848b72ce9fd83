"""How do several updates of one weight matrix become one? A function per merge method.

Each gets the stack (adapters, out, in) of one module's dense deltas and a generator, and returns
the merged delta (out, in). Unless it says else, an adapter merged with itself is itself again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hybridlib.merging import geometry
from hybridlib.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OPERATORS = Registry("merge method")

DENSITY = 0.2  # share of the entries that trimming keeps
DARE_DROP = 0.5


@OPERATORS.register
def sum(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Task arithmetic with weight 1 (Ilharco et al. 2023, arXiv:2212.04089): all adapters active.

    An adapter that meets itself is doubled.
    """
    return stack.sum(0)


@OPERATORS.register
def mean(stack: Tensor, generator: torch.Generator) -> Tensor:
    """The average delta, as in model soups (Wortsman et al. 2022, arXiv:2203.05482)."""
    return stack.mean(0)


@OPERATORS.register
def norm_matched(stack: Tensor, generator: torch.Generator) -> Tensor:
    """The average of deltas brought to one length: RL moves far less than SFT, and would drown.

    Each nonzero delta of a module is rescaled to their mean Frobenius norm, then all are averaged.
    A zero delta has no direction: it counts in the average and not in the norm.
    """
    norms = stack.flatten(1).norm(dim=1)
    target = norms.sum() / norms.count_nonzero().clamp(min=1)
    factors = (target / norms).where(norms > 0, 0)
    return (factors[:, None, None] * stack).mean(0)


@OPERATORS.register
def slerp(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Half-way on the great circle between two deltas (Shoemake 1985), their lengths averaged.

    sin((1 - t) w) / sin w u + sin(t w) / sin w v for unit u, v at the angle w. More than two are
    taken in one by one, the k-th at t = 1 / k. Where a direction is missing, a zero delta, or where
    the two are opposite, the circle is not defined and the plain average is taken.
    """
    merged = stack[0]
    for k, delta in enumerate(stack[1:], 2):
        merged = _between(merged, delta, 1 / k)
    return merged


def _between(one: Tensor, other: Tensor, t: float) -> Tensor:
    first, second = one.norm(), other.norm()
    cosine = float((one * other).sum() / (first * second).clamp(min=1e-30))
    length = (1 - t) * first + t * second
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if not first or not second or math.pi - angle < 1e-3:
        return (1 - t) * one + t * other
    parts = (1 - t, t)
    if angle > 1e-3:
        parts = (math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
    return length * (parts[0] * one / first + parts[1] * other / second)


@OPERATORS.register
def magnitude(stack: Tensor, generator: torch.Generator) -> Tensor:
    """The average of what pruning leaves: the largest 20 % of the entries of each delta.

    PEFT's `magnitude_prune` on dense deltas. One adapter with itself is its own trimmed delta.
    """
    return _trimmed(stack).mean(0)


@OPERATORS.register
def ties(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Trim, elect sign, disjoint mean (Yadav et al. 2023, arXiv:2306.01708), here per module.

    Keeps the largest 20 % of each delta; per entry the sign with the larger sum wins and the
    deltas that agree are averaged. One adapter alone, or with itself, is its own trimmed delta.
    """
    return _elected(_trimmed(stack))


@OPERATORS.register
def ram(stack: Tensor, generator: torch.Generator) -> Tensor:
    """What one adapter alone has changed is kept, what several have is averaged (arXiv:2601.13572).

    Made for RL, whose changes are sparse and would be diluted by averaging. A LoRA delta has no
    zeros, so "changed" are here the largest 20 % of its entries. One adapter alone, or with
    itself, is its own trimmed delta.
    """
    kept = _trimmed(stack)
    return kept.sum(0) / (kept != 0).sum(0).clamp(min=1)


@OPERATORS.register
def knots(stack: Tensor, generator: torch.Generator) -> Tensor:
    """TIES in the basis that the deltas share (Stoica et al. 2024, arXiv:2410.19735).

    [D_1 ... D_n] = U S [V_1 ... V_n]; the blocks S V_i are merged by trimming and electing signs,
    and U times the result is the delta. Low-rank updates that share no entries may share
    directions. One adapter alone, or with itself, has its own S V trimmed.
    """
    import torch

    # Directions of no length are arithmetic noise, and would take their share of what is kept.
    left, values, right = geometry.frames(torch.cat([*stack], 1))
    blocks = torch.stack((values[:, None] * right.T).chunk(len(stack), 1))
    return (left @ _elected(_trimmed(blocks))).to(stack.dtype)


@OPERATORS.register
def dare(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Drop half of the entries, double the rest, average (Yu et al. 2024, arXiv:2311.03099).

    Random by `generator`; its expectation is the mean.
    """
    import torch

    kept = torch.rand(stack.shape, generator=generator) >= DARE_DROP
    return (stack * kept).mean(0) / (1 - DARE_DROP)


def _trimmed(stack: Tensor) -> Tensor:
    """The largest share DENSITY of the entries of each matrix of the stack, the others zero."""
    flat = stack.flatten(1).abs()
    drop = flat.shape[1] - math.ceil(DENSITY * flat.shape[1])
    if not drop:
        return stack
    threshold = flat.kthvalue(drop, dim=1).values[:, None, None]
    return stack.where(stack.abs() > threshold, 0)


def _elected(stack: Tensor) -> Tensor:
    """Per entry the mean of those whose sign has the larger sum."""
    agrees = (stack.sign() == stack.sum(0).sign()) & (stack != 0)
    return (stack * agrees).sum(0) / agrees.sum(0).clamp(min=1)
