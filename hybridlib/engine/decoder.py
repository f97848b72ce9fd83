"""How likely is each next token? A Llama-style decoder on distinct tokens, adapters folded in.

transformers pads a batch to its longest row, repeats a prompt for each of its samples and applies
an adapter beside its matrix. This module reads the weights of a loaded model and computes the same
function on distinct tokens only, from one matrix where the model has two or three: an adapter is
added to its matrix first, (W + sBA) x = W x + s B (A x); gradients reach A and B through the sum.
Equality with transformers, gradients included, is tested for every supported model type.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

MODELS = ("llama", "mistral", "qwen2", "qwen3")


def unsupported(model: Any, training: bool = False) -> str:
    """Why this module cannot stand in for the model's own forward pass; "" where it can.

    Args:
        training: gradients are wanted, too.
    """
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.variants import DoraLinearVariant
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = model.config.get_text_config()
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    lora = [m for m in layers if isinstance(m, LoraLayer)]
    variants = [v for m in lora for v in m.lora_variant.values()]
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    sliding |= config.model_type == "mistral" and bool(config.sliding_window)
    quantised = getattr(model, "is_quantized", False) or getattr(config, "quantization_config", 0)
    prompts = getattr(model, "active_peft_config", None)
    dropout = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    half = model.get_input_embeddings().weight.element_size() < 4
    reasons = (
        (f"model type {config.model_type}", config.model_type not in MODELS),
        ("activation other than silu", getattr(config, "hidden_act", "") != "silu"),
        ("sliding windows", sliding),
        ("4-bit weights stay packed on a GPU", bool(quantised) and model.device.type != "cpu"),
        ("weights in half precision beside an adapter", bool(layers) and half),
        ("virtual tokens", bool(getattr(prompts, "is_prompt_learning", False))),
        ("adapter other than LoRA", len(lora) < len(layers)),
        ("a variant of LoRA", any(not isinstance(v, DoraLinearVariant) for v in variants)),
        ("LoRA with a bias", any(any(m.lora_bias.values()) for m in lora)),
        ("several adapters at once", any(len(m.active_adapters) > 1 for m in layers)),
        ("a merged adapter that is off", any(m.merged and m.disable_adapters for m in layers)),
        ("an adapter on the embedding", any(len(m.lora_embedding_A) for m in lora)),
        ("dropout", training and any([*dropout, getattr(config, "attention_dropout", 0)])),
        ("gradient checkpointing", training and getattr(model, "is_gradient_checkpointing", False)),
    )
    return next((reason for reason, holds in reasons if holds), "")


def effective(layer: Any) -> "Tensor":
    """The matrix a linear layer multiplies by, (out, in): dequantised, its adapter added.

    DoRA's column norm is a constant to the gradient, as in Liu et al. 2024 (arXiv:2402.09353).
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.integrations import dequantize_module_weight

    if not isinstance(layer, BaseTunerLayer):
        return dequantize_module_weight(layer)
    weight = effective(layer.get_base_layer())
    active = [] if layer.disable_adapters or layer.merged else layer.active_adapters
    for name in active:
        if name not in layer.lora_A:
            continue
        weight = weight + layer.get_delta_weight(name)
        if name in layer.lora_magnitude_vector:
            size = layer.lora_magnitude_vector[name].weight
            weight = weight * (size / torch.linalg.norm(weight, dim=1).detach())[:, None]
    return weight


class Layer(NamedTuple):
    """The weights of one block, those that read the same input stacked."""

    norm_in: "Tensor"
    qkv: "Tensor"
    qkv_bias: "Tensor | None"
    norm_heads: "Tensor | None"  # (query and key heads, head size)
    out: "Tensor"
    out_bias: "Tensor | None"
    norm_mlp: "Tensor"
    gate_up: "Tensor"
    gate_up_bias: "Tensor | None"
    down: "Tensor"
    down_bias: "Tensor | None"


class Decoder:
    """The weights of a model as they are now; under autograd, unless gradients are off."""

    def __init__(self, model: Any):
        import torch

        inner = getattr(model, "get_base_model", lambda: model)()
        config = inner.config.get_text_config()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding = inner.get_input_embeddings().weight
        self.head = effective(inner.get_output_embeddings())
        self.norm, self.rotary = inner.model.norm.weight, inner.model.rotary_emb

        def stack(*layers: Any) -> tuple["Tensor", "Tensor | None"]:
            bias = [layer.bias for layer in layers]
            weight = torch.cat([effective(layer) for layer in layers])
            return weight, None if bias[0] is None else torch.cat(bias)

        def block(layer: Any) -> Layer:
            attention, mlp, heads = layer.self_attn, layer.mlp, None
            if hasattr(attention, "q_norm"):
                scales = (
                    (attention.q_norm.weight, self.heads),
                    (attention.k_norm.weight, self.kv_heads),
                )
                heads = torch.cat([scale.expand(n, -1) for scale, n in scales])
            return Layer(
                layer.input_layernorm.weight,
                *stack(attention.q_proj, attention.k_proj, attention.v_proj),
                heads,
                effective(attention.o_proj), attention.o_proj.bias,
                layer.post_attention_layernorm.weight,
                *stack(mlp.gate_proj, mlp.up_proj),
                effective(mlp.down_proj), mlp.down_proj.bias,
            )  # fmt: skip

        self.layers = [block(layer) for layer in inner.model.layers]

    def hidden(
        self, tokens: "Tensor", positions: "Tensor", attend: Callable[..., "Tensor"]
    ) -> "Tensor":
        """Hidden states (tokens, size) before the head, of tokens in any arrangement.

        Args:
            tokens, positions: (tokens,) ids and places in their sequences.
            attend: called per layer with its index, queries (tokens, heads, head size), keys and
                values (tokens, key heads, head size); it knows which token sees which, and returns
                the shape of the queries.
        """
        from torch import cat
        from torch.nn.functional import embedding, linear, rms_norm, silu

        x = embedding(tokens, self.embedding)
        cos, sin = (t[0, :, None] for t in self.rotary(x, positions[None]))
        half, rotated = self.head_dim // 2, self.heads + self.kv_heads
        # (x1, x2) turns into (x1 cos - x2 sin, x2 cos + x1 sin): signs go into the sine once.
        sin = cat([-sin[..., :half], sin[..., half:]], -1)
        for i, w in enumerate(self.layers):
            normed = rms_norm(x, x.shape[-1:], w.norm_in, self.eps)
            qkv = linear(normed, w.qkv, w.qkv_bias).view(len(x), -1, self.head_dim)
            qk, v = qkv.split([rotated, self.kv_heads], 1)
            if w.norm_heads is not None:
                qk = rms_norm(qk, qk.shape[-1:], None, self.eps) * w.norm_heads
            qk = qk * cos + cat(qk.split(half, -1)[::-1], -1) * sin
            seen = attend(i, *qk.split([self.heads, self.kv_heads], 1), v)
            x = x + linear(seen.flatten(1), w.out, w.out_bias)
            normed = rms_norm(x, x.shape[-1:], w.norm_mlp, self.eps)
            gate, up = linear(normed, w.gate_up, w.gate_up_bias).chunk(2, -1)
            x = x + linear(silu(gate) * up, w.down, w.down_bias)
        return rms_norm(x, x.shape[-1:], self.norm, self.eps)

    def logits(self, hidden: "Tensor") -> "Tensor":
        """(rows, vocabulary) scores of the token after each hidden state."""
        return hidden @ self.head.T


class Tree:
    """Prompts with their completions as one row of distinct tokens, and who attends to whom.

    A prompt stands once before its completions; each of them sees the prompt and itself.

    Args:
        prompts: token ids of each prompt, not empty.
        completions: for each prompt its completions, each a list of token ids.
    """

    def __init__(
        self,
        prompts: Sequence[list[int]],
        completions: Sequence[Sequence[list[int]]],
        device: Any = None,
    ):
        import torch

        tokens, positions, sources, targets = [], [], [], []
        blocks: list[tuple[list[range], range]] = []  # sequences, and what all of them see before
        whole: list[range] = []  # sequences that see nothing else
        for prompt, answers in zip(prompts, completions, strict=True):
            start, last = len(tokens), len(tokens) + len(prompt) - 1
            tokens += prompt
            positions += range(len(prompt))
            parts = []
            for answer in answers:
                here = range(len(tokens), len(tokens) + max(0, len(answer) - 1))
                parts += [here] if here else []  # the last token predicts nothing
                sources += [last, *here][: len(answer)]
                targets += answer
                tokens += answer[:-1]
                positions += range(len(prompt), len(prompt) + len(here))
            if len(answers) == 1:  # all of it is one sequence
                whole.append(range(start, len(tokens)))
            else:
                whole.append(range(start, last + 1))
                blocks += [(parts, whole[-1])] if parts else []
        whole.sort(key=len)  # side by side little of them is padded
        blocks += [(whole[i : i + 8], range(0)) for i in range(0, len(whole), 8)]

        def tensor(numbers: list[int]) -> "Tensor":
            return torch.tensor(numbers, dtype=torch.long, device=device)

        self.tokens, self.positions, self.sources, self.targets = (
            tensor(numbers) for numbers in (tokens, positions, sources, targets)
        )
        queries, keys, back = [], [], [0] * len(tokens)
        self.blocks: list[tuple[int, int, int, Any]] = []  # rows, queries, keys, mask
        for rows, before in blocks:
            longest = max(map(len, rows))
            for row in rows:
                for place, token in enumerate(row, len(queries)):
                    back[token] = place
                # Behind its end a row repeats a token: nothing that is kept looks there.
                padded = [*row, *[row[0]] * (longest - len(row))]
                queries += padded
                keys += [*before, *padded]
            mask = torch.ones(longest, len(before) + longest, dtype=torch.bool, device=device)
            mask = mask.tril(len(before)) if before else None
            self.blocks.append((len(rows), longest, len(before) + longest, mask))
        self.queries, self.keys, self.back = tensor(queries), tensor(keys), tensor(back)

    def attend(self, layer: int, q: "Tensor", k: "Tensor", v: "Tensor") -> "Tensor":
        """Attention of every token to its prompt and to itself up to now."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention as attention

        sizes = [[n * size for n, size, _, _ in self.blocks], [n * s for n, _, s, _ in self.blocks]]
        places = (self.queries, sizes[0]), (self.keys, sizes[1]), (self.keys, sizes[1])
        # One gather for all blocks: the gradient of each is as large as what it was cut from.
        parts = [
            t.index_select(0, at).split(size)
            for t, (at, size) in zip((q, k, v), places, strict=True)
        ]
        seen = []
        for (n, _, _, mask), *rows in zip(self.blocks, *parts, strict=True):
            found = attention(
                *(t.unflatten(0, (n, -1)).transpose(1, 2) for t in rows),
                attn_mask=mask, is_causal=mask is None, enable_gqa=True,
            )  # fmt: skip
            seen.append(found.transpose(1, 2).flatten(0, 1))
        return torch.cat(seen).index_select(0, self.back)


def every(decoder: Decoder, tree: Tree, temperature: float = 1.0) -> "Tensor":
    """Log-probabilities of all tokens where a completion token stands, (tokens, vocabulary)."""
    hidden = decoder.hidden(tree.tokens, tree.positions, tree.attend).index_select(0, tree.sources)
    return (decoder.logits(hidden).float() / temperature).log_softmax(-1)


def logps(
    decoder: Decoder, tree: Tree, temperature: float = 1.0, teach_entropy: bool = False
) -> "tuple[Tensor, Tensor, Tensor]":
    """Log-probability of each completion token, entropy there, whether it was the likeliest.

    Three tensors (completion tokens,). Entropies, in nats, have gradients where `teach_entropy`.
    """
    import torch

    found = every(decoder, tree, temperature)
    with torch.set_grad_enabled(teach_entropy and torch.is_grad_enabled()):
        entropy = -(found.exp() * found).sum(-1)
    hit = found.detach().argmax(-1) == tree.targets
    return found.gather(1, tree.targets[:, None])[:, 0], entropy, hit
