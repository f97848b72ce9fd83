"""Which derivatives are shorter than those that autograd finds? Four functions with their own.

Autograd derives a function from its steps: it keeps what each step needs and runs each backwards.
Here the derivative of the whole is written down, which reads and writes a fraction of that. It
cannot be derived again. Equality with autograd, of values and gradients, is tested.

Importing this module imports torch, so that the rest of the engine imports it where it trains.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

ELEMENTS = 2**18  # logits of `label_log_probs` at a time: they stay in a core's cache
MIN_ROWS = 256  # at a time, where a vocabulary is large


class FoldedLinear(Function):
    """x W' + b, where W = W0 + up down is LoRA's sum and only the factors and the bias learn.

    The gradient of `down` is (dy up)' x and that of `up` is dy' (x down'): a few columns instead of
    the gradient of W, which costs as much as a third of the whole pass.

    Args:
        x: (tokens, in).
        weight: W, (out, in), the factors added; it gets no gradient.
        bias: (out,) or None.
        down, up: LoRA's A and scaled B, (rank, in) and (out, rank).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        return functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up = ctx.saved_tensors
        needs_x, _, needs_bias, *_ = ctx.needs_input_grad
        if needs_x:  # in one product: the few columns of `up` would take a third as long alone
            grad_x, low = (grad @ torch.cat([weight, up], 1)).split(
                [*weight.shape[1:], len(down)], 1
            )
        else:
            grad_x, low = None, grad @ up
        grad_bias = grad.sum(0) if needs_bias else None
        return grad_x, None, grad_bias, low.T @ x, ((x @ down.T).T @ grad).T


def rms_norm(inputs: Tensor, eps: float) -> Tensor:
    """Return inputs / sqrt(mean(inputs^2) + eps), the mean over the last axis."""
    if torch.is_grad_enabled() and inputs.requires_grad:
        return RMSNorm.apply(inputs, eps)
    return (inputs * _inverse_root(inputs, eps)).type_as(inputs)


def _inverse_root(inputs: Tensor, eps: float) -> Tensor:
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    norm = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=dtype)
    return norm.square_().div_(inputs.shape[-1]).add_(eps).rsqrt_()


def gated(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, where gate and up are the halves of the last axis."""
    if torch.is_grad_enabled() and gate_up.requires_grad:
        return GatedUnit.apply(gate_up)
    gate, up = gate_up.chunk(2, -1)
    return functional.silu(gate).mul_(up)


class RMSNorm(Function):
    """`rms_norm` of any inputs."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, eps: float) -> Tensor:
        inverse = _inverse_root(inputs, eps)
        ctx.save_for_backward(inputs, inverse)
        return (inputs * inverse).type_as(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, inputs).unsqueeze(-1)
        along = along * inverse.pow(3).div_(-inputs.shape[-1])
        return (grad * inverse).addcmul_(inputs, along).type_as(inputs), None


class GatedUnit(Function):
    """`gated` of (tokens, 2 size)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        opened = functional.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        return opened * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        gate_up, opened = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, -1)
        torch.mul(grad, opened, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return grad_gate_up


class ShortAttention(Function):
    """Softmax attention of a few short sequences, each query to the keys that a mask allows.

    Keeps all shares for the backward pass, which PyTorch's kernel for CPUs computes again, block by
    block; at a hundred tokens that takes it three times as long.

    Args:
        q: (rows, queries, key heads, queries of one, head size).
        k, v: (rows, keys, key heads, head size).
        allowed: (queries, keys), which key each query sees.
    Returns:
        (rows, queries, heads * head size).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        rows, length, heads, group, size = ctx.shape = q.shape
        q = q.permute(0, 2, 3, 1, 4).reshape(rows * heads, group * length, size)
        k, v = (t.transpose(1, 2).flatten(0, 1) for t in (k, v))
        mask = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(~allowed, float("-inf"))
        shares = torch.baddbmm(mask.repeat(group, 1), q, k.mT, alpha=size**-0.5).softmax(-1)
        ctx.save_for_backward(q, k, v, shares)
        result = torch.bmm(shares, v).view(rows, heads, group, length, size)
        return result.permute(0, 3, 1, 2, 4).reshape(rows, length, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, shares = ctx.saved_tensors
        rows, length, heads, group, size = ctx.shape
        grad = grad.view(rows, length, heads, group, size).permute(0, 2, 3, 1, 4)
        grad = grad.reshape(rows * heads, group * length, size)
        slope = torch.ops.aten._softmax_backward_data(
            torch.bmm(grad, v.mT), shares, -1, shares.dtype
        ).mul_(size**-0.5)
        grad_q = torch.bmm(slope, k).view(rows, heads, group, length, size)
        grad_k, grad_v = torch.bmm(slope.mT, q), torch.bmm(shares.mT, grad)
        grad_k, grad_v = (t.unflatten(0, (rows, heads)).transpose(1, 2) for t in (grad_k, grad_v))
        return grad_q.permute(0, 3, 1, 2, 4), grad_k, grad_v, None


class LabelLogProbs(Function):
    """Log-probability of one label a row, and the row's entropy, from hidden states and a head.

    A row's log-probability depends on its own hidden state alone, and its derivative is known as
    soon as its distribution is: (head[label] - sum_v p_v head[v]) / temperature. So the logits are
    made a few rows at a time, turned into that vector and dropped; neither pass holds them all.

    Args:
        hidden: (rows, size).
        head: (vocabulary, size), without a gradient.
        labels: (rows,) ids.
    Returns:
        Log-probabilities and entropies in nats, (rows,) float32; the latter have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        log_probs, entropies, slopes = [], [], []
        step = max(MIN_ROWS, ELEMENTS // len(head))
        for rows, targets in zip(hidden.split(step), labels.split(step), strict=True):
            logits = (rows @ head.T).float()
            if temperature != 1:
                logits.div_(temperature)
            logits.sub_(logits.amax(-1, keepdim=True))
            weights = logits.exp()
            total = weights.sum(-1, keepdim=True)
            log_probs.append((logits.gather(1, targets[:, None]) - total.log())[:, 0])
            mean = torch.linalg.vecdot(weights, logits) / total[:, 0]
            entropies.append(total[:, 0].log() - mean)
            if ctx.needs_input_grad[0]:
                expected = (weights.to(head.dtype) @ head).div_(total)
                slopes.append((head[targets] - expected).div_(temperature))
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(log_probs), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (grad[:, None] * slopes).to(slopes.dtype), None, None, None
