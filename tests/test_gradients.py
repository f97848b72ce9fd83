"""Derivatives that are written down against those that autograd finds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = st.integers(1, 5)


def _equal(ours, stock, *inputs):
    """Values and gradients of both functions, at the same inputs and the same outer gradient."""
    import torch

    results = []
    for function in (ours, stock):
        leaves = [t.clone().requires_grad_() for t in inputs]
        value = function(*leaves)
        outer = torch.arange(value.numel(), dtype=value.dtype).view(value.shape).cos()
        results.append((value.detach(), *torch.autograd.grad(value, leaves, outer)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def _random(*shape, seed=0):
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(tokens=SIZES, inputs=SIZES, outputs=SIZES, rank=SIZES, bias=st.booleans())
def test_the_factors_of_a_folded_layer_get_the_gradient_of_its_weight(
    tokens, inputs, outputs, rank, bias
):
    from torch.nn.functional import linear

    from hybridlib.engine.gradients import FoldedLinear

    base = _random(outputs, inputs, seed=1)

    def ours(x, down, up, b):
        weight = (base + up @ down).detach()
        return FoldedLinear.apply(x, weight, b, down, up) + 0 * b.sum()

    def stock(x, down, up, b):
        return linear(x, base + up @ down, b) + 0 * b.sum()

    if not bias:
        ours, stock = (lambda x, down, up, b, f=f: f(x, down, up, b * 0) for f in (ours, stock))
    parts = _random(tokens, inputs), _random(rank, inputs, seed=2), _random(outputs, rank, seed=3)
    _equal(ours, stock, *parts, _random(outputs, seed=4))


@settings(max_examples=20, deadline=None)
@given(tokens=SIZES, size=SIZES)
def test_norms_and_gates(tokens, size):
    from torch.nn import functional

    from hybridlib.engine import gradients

    _equal(
        lambda x: gradients.rms_norm(x, 1e-6),
        lambda x: functional.rms_norm(x, (size,), None, 1e-6),
        _random(tokens, size),
    )
    _equal(
        gradients.gated,
        lambda x: functional.silu(x[:, :size]) * x[:, size:],
        _random(tokens, 2 * size),
    )


@settings(max_examples=20, deadline=None)
@given(rows=SIZES, queries=SIZES, prefix=st.integers(0, 4), heads=SIZES, group=SIZES)
def test_short_attention(rows, queries, prefix, heads, group):
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from hybridlib.engine.gradients import ShortAttention

    allowed = torch.ones(queries, prefix + queries, dtype=torch.bool).tril(prefix)

    def stock(q, k, v):
        parts = (t.transpose(1, 2) for t in (q.flatten(2, 3), k, v))
        result = scaled_dot_product_attention(*parts, attn_mask=allowed, enable_gqa=True)
        return result.transpose(1, 2).flatten(2)

    _equal(
        lambda *parts: ShortAttention.apply(*parts, allowed),
        stock,
        _random(rows, queries, heads, group, 4),
        _random(rows, prefix + queries, heads, 4, seed=1),
        _random(rows, prefix + queries, heads, 4, seed=2),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_labels_a_few_rows_at_a_time(temperature, monkeypatch):
    import torch

    from hybridlib.engine import gradients

    monkeypatch.setattr(gradients, "ELEMENTS", 0)
    monkeypatch.setattr(gradients, "MIN_ROWS", 3)
    head, labels = _random(11, 4, seed=1).float(), torch.tensor([0, 5, 10, 5, 2, 7, 7])

    def stock(hidden):
        return (hidden @ head.T / temperature).log_softmax(-1)

    _equal(
        lambda hidden: gradients.LabelLogProbs.apply(hidden, head, labels, temperature)[0],
        lambda hidden: stock(hidden).gather(1, labels[:, None])[:, 0],
        _random(7, 4).float(),
    )
    hidden = _random(7, 4).float()
    _, entropy = gradients.LabelLogProbs.apply(hidden, head, labels, temperature)
    torch.testing.assert_close(entropy, -(stock(hidden).exp() * stock(hidden)).sum(-1))
