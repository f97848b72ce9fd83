"""How likely is each next token? A Llama-style decoder on distinct tokens, adapters folded in.

transformers pads a batch to its longest row, repeats a prompt for each of its samples and applies
an adapter beside its matrix. This module reads the weights of a loaded model and computes the same
function on distinct tokens only, from one matrix where the model has two or three: an adapter is
added to its matrix first, (W + sBA) x = W x + s B (A x); gradients reach A and B past the sum.
Equality with transformers, gradients included, is tested for every supported model type.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridlib.engine import operations

if TYPE_CHECKING:
    from torch import Tensor

MODELS = ("llama", "mistral", "qwen2", "qwen3")
SHORT = 2**16  # pairs of a query and a key, of one sequence and head, that are kept for gradients


def unsupported(model: Any, training: bool = False) -> str:
    """Return why `Decoder` cannot stand in for the model's own forward pass; "" where it can.

    Args:
        training: Whether gradients are wanted, too.
    """
    reasons = [*_architecture_obstacles(model), *_adapter_obstacles(model)]
    if training:
        reasons += _training_obstacles(model)
    return next((reason for reason, applies in reasons if applies), "")


def _architecture_obstacles(model: Any) -> list[tuple[str, bool]]:
    config = model.config.get_text_config()
    sliding_layers = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    sliding_mistral = config.model_type == "mistral" and bool(config.sliding_window)
    quantised = getattr(model, "is_quantized", False) or getattr(config, "quantization_config", 0)
    return [
        (f"model type {config.model_type}", config.model_type not in MODELS),
        ("activation other than silu", getattr(config, "hidden_act", "") != "silu"),
        ("sliding windows", sliding_layers or sliding_mistral),
        ("4-bit weights stay packed on a GPU", bool(quantised) and model.device.type != "cpu"),
    ]


def _adapter_obstacles(model: Any) -> list[tuple[str, bool]]:
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.variants import DoraLinearVariant
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    lora = [m for m in layers if isinstance(m, LoraLayer)]
    variants = [variant for m in lora for variant in m.lora_variant.values()]
    peft_config = getattr(model, "active_peft_config", None)
    half_precision = model.get_input_embeddings().weight.element_size() < 4
    return [
        ("weights in half precision beside an adapter", bool(layers) and half_precision),
        ("virtual tokens", bool(getattr(peft_config, "is_prompt_learning", False))),
        ("adapter other than LoRA", len(lora) < len(layers)),
        ("a variant of LoRA", any(not isinstance(v, DoraLinearVariant) for v in variants)),
        ("LoRA with a bias", any(any(m.lora_bias.values()) for m in lora)),
        ("several adapters at once", any(len(m.active_adapters) > 1 for m in layers)),
        ("a merged adapter that is off", any(m.merged and m.disable_adapters for m in layers)),
        ("an adapter on the embedding", any(len(m.lora_embedding_A) for m in lora)),
    ]


def _training_obstacles(model: Any) -> list[tuple[str, bool]]:
    from torch.nn import Dropout

    config = model.config.get_text_config()
    rates = [m.p for m in model.modules() if isinstance(m, Dropout)]
    rates.append(getattr(config, "attention_dropout", 0))
    checkpointing = getattr(model, "is_gradient_checkpointing", False)
    return [("dropout", any(rates)), ("gradient checkpointing", checkpointing)]


def effective_weight(layer: Any) -> "Tensor":
    """Return the matrix that a linear layer multiplies by, (out, in).

    Dequantised, its active adapter added. DoRA's column norm is a constant to the gradient, as in
    Liu et al. 2024 (arXiv:2402.09353).
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.integrations import dequantize_module_weight

    if not isinstance(layer, BaseTunerLayer):
        return dequantize_module_weight(layer)
    weight = effective_weight(layer.get_base_layer())
    if layer.disable_adapters or layer.merged:
        return weight
    for name in layer.active_adapters:
        if name not in layer.lora_A:
            continue
        weight = weight + layer.get_delta_weight(name)
        if name in layer.lora_magnitude_vector:
            magnitude = layer.lora_magnitude_vector[name].weight
            weight = weight * (magnitude / torch.linalg.norm(weight, dim=1).detach())[:, None]
    return weight


class Linear(NamedTuple):
    """A linear layer with its adapter added, or several that read the same input as one.

    Where `down` and `up` are there, gradients go to them, LoRA's factors, past the weight.
    """

    weight: "Tensor"  # (out, in)
    bias: "Tensor | None"
    down: "Tensor | None"  # (rank, in)
    up: "Tensor | None"  # (out, rank), scaled

    def __call__(self, x: "Tensor") -> "Tensor":
        """Return the outputs (tokens, out) of inputs (tokens, in)."""
        from torch.nn.functional import linear

        if self.down is None:
            return linear(x, self.weight, self.bias)
        from hybridlib.engine.gradients import FoldedLinear

        return FoldedLinear.apply(x, *self)


def _stacked(*layers: Any, norm: "Tensor | None" = None, order: "Tensor | None" = None) -> Linear:
    """Return layers that read the same input as one.

    Args:
        norm: (in,) weight of the norm before them, which is multiplied in.
        order: Which of all their outputs comes first, second, ...; as they come if not given.
    """
    import torch

    learns = norm is not None and norm.requires_grad
    down, up = (None, None) if learns else _factors(*layers)
    with torch.set_grad_enabled(torch.is_grad_enabled() and down is None):
        weight = torch.cat([effective_weight(layer) for layer in layers])
        weight = weight if norm is None else weight * norm
    if down is not None:  # beside a base of 4 bits, factors are kept in bfloat16
        down, up = down.to(weight.dtype), up.to(weight.dtype)
        down = down if norm is None else down * norm
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    if order is None:
        return Linear(weight, bias, down, up)
    weight, bias, up = (t if t is None else t[order] for t in (weight, bias, up))
    return Linear(weight, bias, down, up)


def _factors(*layers: Any) -> "tuple[Tensor, Tensor] | tuple[None, None]":
    """Return the factors of layers side by side; None where gradients have to take the weight.

    They have to where a matrix itself learns or DoRA scales it, and better do where the factors are
    no smaller than it.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not torch.is_grad_enabled():
        return None, None
    downs, ups, entries = [], [], 0
    for layer in layers:
        tuned = isinstance(layer, BaseTunerLayer)
        base = layer.get_base_layer() if tuned else layer
        on = tuned and not layer.disable_adapters and not layer.merged
        names = [name for name in layer.active_adapters if name in layer.lora_A] if on else []
        if base.weight.requires_grad or any(name in layer.lora_magnitude_vector for name in names):
            return None, None
        downs += [layer.lora_A[name].weight for name in names]
        scaled = [layer.lora_B[name].weight * layer.scaling[name] for name in names]
        ups.append((base.out_features, scaled))
        entries += base.out_features * base.in_features
    if not downs:
        return None, None
    # One above the other, B1 A1 and B2 A2 are one product, diag(B1, B2) A; a layer without an
    # adapter has rank 0.
    blocks = [torch.cat([downs[0].new_zeros(rows, 0), *scaled], 1) for rows, scaled in ups]
    factors = torch.cat(downs), torch.block_diag(*blocks)
    return factors if sum(map(torch.numel, factors)) < entries else (None, None)


class LayerWeights(NamedTuple):
    """The weights of one transformer layer."""

    qkv: Linear  # per key head: its queries, the key, the value; the halves of a head interleaved
    norm_heads: "Tensor | None"  # (key heads, queries of one and the key, head size)
    out: Linear
    gate_up: Linear
    down: Linear


class Decoder:
    """The weights of a model as they are now, and the forward pass through them.

    They are part of the autograd graph unless gradients are off. Later changes of the model (a
    training step, another active adapter) do not show; make a new one.
    """

    def __init__(self, model: Any):
        inner = getattr(model, "get_base_model", lambda: model)()
        config = inner.config.get_text_config()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding = inner.get_input_embeddings().weight
        self.head = effective_weight(inner.get_output_embeddings())
        self.norm, self.rotary = inner.model.norm.weight, inner.model.rotary_emb
        order = self._order().to(self.embedding.device)
        self.layers = [self._layer_weights(layer, order) for layer in inner.model.layers]
        self.body_size = sum(matrix.numel() for matrix in self.weights()) - self.head.numel()

    def _order(self) -> "Tensor":
        """Return where each row of the stacked queries, keys and values stood before.

        A key head's queries, key and value come side by side, so that a token's are one block. The
        two numbers that a rotation mixes come side by side, too, so that they are one complex
        number; queries and keys alike, which leaves their products as they were.
        """
        import torch

        rows = torch.arange((self.heads + 2 * self.kv_heads) * self.head_dim)
        q, k, v = rows.view(-1, self.head_dim).split([self.heads, self.kv_heads, self.kv_heads])
        qk = torch.cat([q.view(self.kv_heads, -1, self.head_dim), k[:, None]], 1)
        return torch.cat([_interleaved(qk), v[:, None]], 1).flatten()

    def _layer_weights(self, layer: Any, order: "Tensor") -> LayerWeights:
        attention, mlp = layer.self_attn, layer.mlp
        return LayerWeights(
            qkv=_stacked(
                attention.q_proj,
                attention.k_proj,
                attention.v_proj,
                norm=layer.input_layernorm.weight,
                order=order,
            ),
            norm_heads=self._head_norms(attention),
            out=_stacked(attention.o_proj),
            gate_up=_stacked(
                mlp.gate_proj, mlp.up_proj, norm=layer.post_attention_layernorm.weight
            ),
            down=_stacked(mlp.down_proj),
        )

    def _head_norms(self, attention: Any) -> "Tensor | None":
        """Return the scales of Qwen3's normed heads; None for other models."""
        import torch

        if not hasattr(attention, "q_norm"):
            return None
        queries = attention.q_norm.weight.expand(self.heads // self.kv_heads, -1)
        heads = torch.cat([queries, attention.k_norm.weight[None]])
        return _interleaved(heads).expand(self.kv_heads, -1, -1)

    def weights(self) -> "Iterator[Tensor]":
        """Yield the matrices of the layers and the head as they are multiplied by."""
        yield self.head
        for layer in self.layers:
            yield from (part.weight for part in layer if isinstance(part, Linear))

    def hidden(
        self, tokens: "Tensor", positions: "Tensor", attend: Callable[..., "Tensor"]
    ) -> "Tensor":
        """Return the hidden states (tokens, size) before the head, of tokens in any arrangement.

        Args:
            tokens, positions: Ids (tokens,) and their places in their sequences.
            attend: Called per layer with its index, queries (tokens, key heads, queries of one,
                head size), keys and values (tokens, key heads, head size); it knows which token
                sees which, and returns (tokens, heads * head size).
        """
        import torch
        from torch.nn.functional import embedding

        from hybridlib.engine.gradients import gated, rms_norm

        operations.count_read(len(tokens), self.body_size)
        x = embedding(tokens, self.embedding)
        cos, sin = (
            t[0, :, None, None, : self.head_dim // 2] for t in self.rotary(x, positions[None])
        )
        turn = torch.complex(cos.float(), sin.float())
        for i, w in enumerate(self.layers):
            qkv = w.qkv(rms_norm(x, self.eps)).view(len(x), self.kv_heads, -1, self.head_dim)
            qk, v = qkv[:, :, :-1], qkv[:, :, -1]
            if w.norm_heads is not None:
                qk = rms_norm(qk, self.eps) * w.norm_heads
            qk = torch.view_as_real(_as_complex(qk) * turn).flatten(-2).type_as(x)
            x = x + w.out(attend(i, qk[:, :, :-1], qk[:, :, -1], v))
            x = x + w.down(gated(w.gate_up(rms_norm(x, self.eps))))
        return rms_norm(x, self.eps) * self.norm

    def logits(self, hidden: "Tensor") -> "Tensor":
        """Return the scores (rows, vocabulary) of the token after each hidden state."""
        operations.count_scored(len(hidden), self.head.numel())
        return hidden @ self.head.T


def _interleaved(heads: "Tensor") -> "Tensor":
    """Return the numbers of each head (..., head size) with the second half between the first."""
    return heads.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def _as_complex(heads: "Tensor") -> "Tensor":
    """Return neighbours of the last axis as complex numbers."""
    import torch

    return torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)))


class _Sequences(NamedTuple):
    """Runs of consecutive tokens that attend together: to all of `prefix`, then causally."""

    rows: list[range]
    prefix: range


def _alike(rows: list[range], prefix: range, most: int) -> list[_Sequences]:
    """Return rows in parts of like length, which need little padding, with `most` in each."""
    ordered = sorted(rows, key=len)
    return [_Sequences(ordered[i : i + most], prefix) for i in range(0, len(rows), most)]


class _Block(NamedTuple):
    """The shape of one attention call: sequences padded to the longest of them."""

    rows: int
    queries: int  # of a row
    allowed: Any  # (queries, keys), which key each of them sees; there are as many or more keys


class PrefixBatch:
    """Prompts with their completions as one row of distinct tokens, and who attends to whom.

    A prompt, the shared prefix, stands once before its completions; each of them sees the prompt
    and itself. The last token of a completion predicts nothing and is left out.

    Args:
        prompts: Token ids of each prompt, not empty.
        completions: For each prompt its completions, each a list of token ids.

    Attributes:
        tokens, positions: (distinct tokens,) ids, and places in their sequences.
        targets: (completion tokens,) ids of all completions, one after the other.
        sources: (completion tokens,) which token's hidden state predicts each target.
    """

    def __init__(
        self,
        prompts: Sequence[list[int]],
        completions: Sequence[Sequence[list[int]]],
        device: Any = None,
    ):
        import torch

        tokens: list[int] = []
        positions: list[int] = []
        sources: list[int] = []
        targets: list[int] = []
        shared: list[_Sequences] = []  # completions behind the prefix that they share
        alone: list[range] = []  # sequences that see nothing but themselves
        for prompt, answers in zip(prompts, completions, strict=True):
            start, last = len(tokens), len(tokens) + len(prompt) - 1
            tokens += prompt
            positions += range(len(prompt))
            rows = []
            for answer in answers:
                row = range(len(tokens), len(tokens) + max(0, len(answer) - 1))
                if row:
                    rows.append(row)
                sources += [last, *row][: len(answer)]
                targets += answer
                tokens += answer[:-1]
                positions += range(len(prompt), len(prompt) + len(row))
            if len(answers) == 1:  # prompt and completion are one sequence
                alone.append(range(start, len(tokens)))
            else:
                alone.append(range(start, last + 1))
                shared += _alike(rows, alone[-1], 4)
        groups = _alike(alone, range(0), 8)

        def tensor(numbers: list[int]) -> "Tensor":
            return torch.tensor(numbers, dtype=torch.long, device=device)

        self.tokens, self.positions = tensor(tokens), tensor(positions)
        self.sources, self.targets = tensor(sources), tensor(targets)
        self._lay_out([*shared, *groups], tensor)

    def _lay_out(self, groups: list[_Sequences], tensor: Callable[[list[int]], "Tensor"]) -> None:
        """Set which tokens each attention call reads, and where its results belong."""
        import torch

        queries: list[int] = []
        keys: list[int] = []
        places = [0] * len(self.tokens)
        self._blocks: list[_Block] = []
        for rows, prefix in groups:
            longest = max(map(len, rows))
            for row in rows:
                for place, token in enumerate(row, len(queries)):
                    places[token] = place
                # Padding repeats a token behind the end of the row, where no result is read.
                padded = [*row, *[row[0]] * (longest - len(row))]
                queries += padded
                keys += [*prefix, *padded]
            allowed = torch.ones(longest, len(prefix) + longest, dtype=torch.bool)
            allowed = allowed.tril(len(prefix)).to(self.tokens.device)
            self._blocks.append(_Block(len(rows), longest, allowed))
        self._queries, self._keys, self._places = tensor(queries), tensor(keys), tensor(places)

    def attend(self, layer: int, q: "Tensor", k: "Tensor", v: "Tensor") -> "Tensor":
        """Return the attention of every token to its prompt and to its sequence up to itself.

        Args:
            layer: Unused; the same arrangement serves all layers.
            q, k, v: See `Decoder.hidden`.
        """
        import torch

        query_sizes = [block.rows * block.queries for block in self._blocks]
        key_sizes = [block.rows * block.allowed.shape[1] for block in self._blocks]
        # One gather for all blocks: the gradient of each is as large as what it was cut from.
        queries = q.index_select(0, self._queries).split(query_sizes)
        keys = k.index_select(0, self._keys).split(key_sizes)
        values = v.index_select(0, self._keys).split(key_sizes)
        attended = []
        for block, *parts in zip(self._blocks, queries, keys, values, strict=True):
            rows = (part.unflatten(0, (block.rows, -1)) for part in parts)
            attended.append(_attention(*rows, block.allowed).flatten(0, 1))
        return torch.cat(attended).index_select(0, self._places)


def _attention(q: "Tensor", k: "Tensor", v: "Tensor", allowed: "Tensor") -> "Tensor":
    """Return `ShortAttention` of these, by PyTorch's kernel where all shares would fill memory."""
    from torch.nn.functional import scaled_dot_product_attention

    if q.device.type == "cpu" and allowed.numel() <= SHORT:
        from hybridlib.engine.gradients import ShortAttention

        return ShortAttention.apply(q, k, v, allowed)
    causal = allowed.shape[0] == allowed.shape[1]
    attended = scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q.flatten(2, 3), k, v)),
        attn_mask=None if causal else allowed,
        is_causal=causal,
        enable_gqa=True,
    )
    return attended.transpose(1, 2).flatten(2)


def log_probs(decoder: Decoder, batch: PrefixBatch, temperature: float = 1.0) -> "Tensor":
    """Return log-probabilities (completion tokens, vocabulary) where each of them stands."""
    hidden = decoder.hidden(batch.tokens, batch.positions, batch.attend)
    hidden = hidden.index_select(0, batch.sources)
    return (decoder.logits(hidden).float() / temperature).log_softmax(-1)


class Scores(NamedTuple):
    """What a pass tells about each completion token; both are (completion tokens,)."""

    label_log_probs: "Tensor"
    entropy: "Tensor"  # of the distribution where it stands, in nats


def score_completions(
    decoder: Decoder, batch: PrefixBatch, temperature: float = 1.0, entropy_gradient: bool = False
) -> Scores:
    """Score the completion tokens of a batch.

    Args:
        entropy_gradient: Whether entropies have gradients, too.
    """
    import torch

    if entropy_gradient or decoder.head.requires_grad:
        scores = log_probs(decoder, batch, temperature)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = -(scores.exp() * scores).sum(-1)
        return Scores(scores.gather(1, batch.targets[:, None])[:, 0], entropy)
    from hybridlib.engine.gradients import LabelLogProbs

    hidden = decoder.hidden(batch.tokens, batch.positions, batch.attend)
    hidden = hidden.index_select(0, batch.sources)
    operations.count_scored(len(hidden), decoder.head.numel())
    return Scores(*LabelLogProbs.apply(hidden, decoder.head, batch.targets, temperature))
