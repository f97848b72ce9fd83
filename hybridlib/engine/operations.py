"""How much arithmetic does a training take? Products with weights, counted as they are made.

Every token that a model reads is multiplied by all matrices of its layers, every token that it
scores by those of the head: two operations a weight, one multiplication and one addition. Under
gradients the way back takes as many again, and a trained parameter of an adapter takes six a token:
forward, gradient of the input, gradient of the parameter (counted as in Kaplan et al. 2020,
arXiv:2001.08361, section 2.1). Attention's own products, which grow with the length, stay out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TRAINED_PARAMETER_OPERATIONS = 6  # per token


@dataclass
class Meter:
    """What has been counted so far."""

    base: int = 0  # operations with the weights of the base
    read: int = 0  # tokens, in sampling and in training
    trained: int = 0  # tokens of them that were read under gradients

    def operations(self, parameters: int) -> int:
        """Return all operations, where an adapter has this many trained parameters."""
        return self.base + TRAINED_PARAMETER_OPERATIONS * parameters * self.trained


_running: list[Meter | None] = []  # the last one counts


def count_read(tokens: int, weights: int) -> None:
    """Count that so many tokens were multiplied by so many weights of a model's layers.

    Does nothing where nobody counts; this and `count_scored` are called by forward passes.
    """
    if _running and _running[-1]:
        import torch

        count_scored(tokens, weights)
        _running[-1].read += tokens
        _running[-1].trained += tokens * torch.is_grad_enabled()


def count_scored(tokens: int, weights: int) -> None:
    """Count that so many tokens were multiplied by so many weights, those of the head."""
    if _running and _running[-1]:
        import torch

        _running[-1].base += 2 * tokens * weights * (1 + torch.is_grad_enabled())


@contextmanager
def counting(model: Any) -> Iterator[Meter]:
    """Count all passes from here on, in the study's decoder or through this model itself.

    The model's own pass counts padding, because it computes with it, and scores all its tokens.
    """
    base = getattr(model, "get_base_model", lambda: model)()
    body = base.get_decoder()
    body_size, head_size = matrix_sizes(body), matrix_sizes(base.get_output_embeddings())

    def read(module: Any, args: tuple, named: dict[str, Any]) -> None:
        given = (named.get("input_ids"), named.get("inputs_embeds"), *args)
        ids = next(tensor for tensor in given if tensor is not None)
        count_read(ids.shape[0] * ids.shape[1], body_size)
        count_scored(ids.shape[0] * ids.shape[1], head_size)

    hook = body.register_forward_pre_hook(read, with_kwargs=True)
    meter = Meter()
    _running.append(meter)
    try:
        yield meter
    finally:
        _running.remove(meter)
        hook.remove()


@contextmanager
def uncounted() -> Iterator[None]:
    """Leave out what happens inside: evaluation is no part of a training."""
    _running.append(None)
    try:
        yield
    finally:
        _running.pop()


def matrix_sizes(module: Any) -> int:
    """Return how many weights the linear layers of a module have, those of adapters left out."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    def size(layer: Any) -> int:
        if isinstance(layer, Linear):  # 4-bit layers pack their weights; their shape tells
            return layer.in_features * layer.out_features
        return layer.weight.numel() if isinstance(layer, Conv1D) else 0

    return sum(size(m) for name, m in module.named_modules() if ".lora_" not in f".{name}")
