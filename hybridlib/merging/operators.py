"""How do several updates of one weight matrix become one? A function per merge method.

Each takes the stack (adapters, out, in) of one module's dense deltas and a generator for its random
draws, and returns the merged delta (out, in). Unless its description says otherwise, an adapter
merged with itself gives itself.
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
DARE_DROP = 0.5  # share of the entries that DARE drops
SMALL_ANGLE = 1e-3  # from parallel or opposite, in radians, where slerp divides by almost zero


@OPERATORS.register(name="sum")
def task_arithmetic(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Task arithmetic with weight 1 (Ilharco et al. 2023, arXiv:2212.04089): all adapters active.

    An adapter merged with itself gives its double.
    """
    return stack.sum(0)


@OPERATORS.register
def mean(stack: Tensor, generator: torch.Generator) -> Tensor:
    """The average delta, as in model soups (Wortsman et al. 2022, arXiv:2203.05482)."""
    return stack.mean(0)


@OPERATORS.register
def norm_matched(stack: Tensor, generator: torch.Generator) -> Tensor:
    """The average of deltas rescaled to one norm, since SFT's are far larger than those of RL.

    Each nonzero delta of a module is rescaled to their mean Frobenius norm, then all are averaged.
    A zero delta has no direction: it counts in the average and not in the mean norm.
    """
    norms = stack.flatten(1).norm(dim=1)
    target = norms.sum() / norms.count_nonzero().clamp(min=1)
    factors = (target / norms).where(norms > 0, 0)
    return (factors[:, None, None] * stack).mean(0)


@OPERATORS.register
def slerp(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Half-way on the great circle between two deltas (Shoemake 1985), with their mean norm.

    sin((1 - t) w) / sin w u + sin(t w) / sin w v for unit u, v at the angle w. More than two are
    taken in one by one, the k-th at t = 1 / k. Where a direction is missing, a zero delta, or where
    the two are opposite, the circle is not defined and the plain average is taken.
    """
    merged = stack[0]
    for count, delta in enumerate(stack[1:], 2):
        merged = _spherical_step(merged, delta, 1 / count)
    return merged


def _spherical_step(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Return the point at the share t of the way from one delta to another."""
    start_norm, end_norm = start.norm(), end.norm()
    cosine = float((start * end).sum() / (start_norm * end_norm).clamp(min=1e-30))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if not start_norm or not end_norm or math.pi - angle < SMALL_ANGLE:
        return (1 - t) * start + t * end
    start_part, end_part = 1 - t, t
    if angle > SMALL_ANGLE:
        start_part = math.sin((1 - t) * angle) / math.sin(angle)
        end_part = math.sin(t * angle) / math.sin(angle)
    norm = (1 - t) * start_norm + t * end_norm
    return norm * (start_part * start / start_norm + end_part * end / end_norm)


@OPERATORS.register
def magnitude(stack: Tensor, generator: torch.Generator) -> Tensor:
    """The average of what pruning leaves: the largest 20 % of the entries of each delta.

    PEFT's `magnitude_prune` on dense deltas. An adapter merged with itself gives its trimmed delta.
    """
    return _trimmed(stack).mean(0)


@OPERATORS.register
def ties(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Trim, elect sign, disjoint mean (Yadav et al. 2023, arXiv:2306.01708), here per module.

    Keeps the largest 20 % of each delta; per entry the sign with the larger sum wins and the
    deltas that agree are averaged. An adapter alone, or merged with itself, gives its trimmed
    delta.
    """
    return _elected(_trimmed(stack))


@OPERATORS.register
def ram(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Per entry the mean over the adapters that have changed it (RAM, arXiv:2601.13572).

    Made for RL, whose changes are sparse and would be diluted by averaging over all. A LoRA delta
    has no zeros, so "changed" are here the largest 20 % of its entries. An adapter alone, or merged
    with itself, gives its trimmed delta.
    """
    trimmed = _trimmed(stack)
    return trimmed.sum(0) / (trimmed != 0).sum(0).clamp(min=1)


@OPERATORS.register
def knots(stack: Tensor, generator: torch.Generator) -> Tensor:
    """TIES in the basis that the deltas share (Stoica et al. 2024, arXiv:2410.19735).

    [D_1 ... D_n] = U S [V_1 ... V_n]; the blocks S V_i are merged by trimming and electing signs,
    and U times the result is the delta. Low-rank updates that share no entries may share
    directions. An adapter alone, or merged with itself, gives its delta with S V trimmed.
    """
    import torch

    # Truncated, since noise in directions of zero length would use up part of DENSITY.
    left, values, right = geometry.truncated_svd(torch.cat([*stack], 1))
    blocks = torch.stack((values[:, None] * right.T).chunk(len(stack), 1))
    return (left @ _elected(_trimmed(blocks))).to(stack.dtype)


@OPERATORS.register
def dare(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Drop a random half of the entries, double the rest, average (arXiv:2311.03099).

    Yu et al. 2024. The expectation is the mean of the deltas.
    """
    import torch

    mask = torch.rand(stack.shape, generator=generator) >= DARE_DROP
    return (stack * mask).mean(0) / (1 - DARE_DROP)


def _trimmed(stack: Tensor) -> Tensor:
    """Return the stack with all entries zero but the largest, DENSITY of those of each matrix."""
    flat = stack.flatten(1).abs()
    drop = flat.shape[1] - math.ceil(DENSITY * flat.shape[1])
    if not drop:
        return stack
    threshold = flat.kthvalue(drop, dim=1).values[:, None, None]
    return stack.where(stack.abs() > threshold, 0)


def _elected(stack: Tensor) -> Tensor:
    """Return per entry the mean of the deltas whose sign has the larger sum."""
    agrees = (stack.sign() == stack.sum(0).sign()) & (stack != 0)
    return (stack * agrees).sum(0) / agrees.sum(0).clamp(min=1)
