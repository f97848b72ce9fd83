"""What does the policy answer? One sampler, shared by GRPO and evaluation.

Each prompt is prefilled once and its cache shared by its samples, finished sequences leave the
batch, and the cache is allocated once instead of being copied at every token. The distribution is
that of `model.generate`: temperature only, no truncation of the vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Any]) -> list[list[int]]:
    """Token ids of chat prompts, ready for the assistant's turn."""
    texts = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


@contextmanager
def folded(model: Any) -> Iterator[None]:
    """Sample from one matrix a layer instead of three: adapters folded in, for a while.

    The weights are put back bit by bit, not by subtracting. A quantised base is left as it is.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    weights = [m.get_base_layer().weight for m in layers]
    if not layers or not all(w.is_floating_point() for w in weights):
        yield
        return
    with torch.no_grad():
        kept = [w.detach().clone() for w in weights]
        for layer in layers:
            layer.merge()
        try:
            yield
        finally:
            for layer, weight, copy in zip(layers, weights, kept, strict=True):
                weight.copy_(copy)
                layer.merged_adapters.clear()


def _growing_cache(layers: int, room: int) -> Any:
    """A cache whose layers are allocated for `room` tokens once, and then filled in place."""
    import torch
    from transformers.cache_utils import Cache, DynamicLayer

    class Room(DynamicLayer):
        length = 0

        def update(self, key: "torch.Tensor", value: "torch.Tensor", *args: Any, **kwargs: Any):
            start, self.length = self.length, self.length + key.shape[-2]
            if not self.is_initialized or self.keys.shape[-2] < self.length:
                shape = (*key.shape[:2], max(room, self.length), key.shape[-1])
                old = (self.keys, self.values) if self.is_initialized else ()
                self.keys, self.values = torch.zeros(shape).to(key), torch.zeros(shape).to(value)
                for new, kept in zip((self.keys, self.values), old, strict=False):
                    new[:, :, :start] = kept[:, :, :start]
                self.is_initialized = True
            self.keys[:, :, start : self.length] = key
            self.values[:, :, start : self.length] = value
            return self.keys[:, :, : self.length], self.values[:, :, : self.length]

        def get_seq_length(self) -> int:
            return self.length

    return Cache(layers=[Room() for _ in range(layers)])


def sample_ids(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    n: int,
    max_tokens: int,
    eos: int,
    temperature: float = 1.0,
    generator: "torch.Generator | None" = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """n completions of each prompt as token ids, and the log-probability of each token.

    Args:
        prompts: token ids, any lengths; they are padded on the left.
        temperature: 0 is greedy.
        generator: the only source of randomness, on the model's device.
    Returns:
        Two lists of len(prompts) * n lists, the samples of one prompt side by side. A completion
        ends with `eos` unless it was cut at `max_tokens`. Log-probabilities are at `temperature`
        (at 1 for greedy).
    """
    import torch

    device, width = model.device, max(map(len, prompts))
    ids = torch.full((len(prompts), width), eos)
    mask = torch.zeros(len(prompts), width + max_tokens, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    cache = _growing_cache(model.config.get_text_config().num_hidden_layers, width + max_tokens)
    position = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        out = model(
            input_ids=ids, attention_mask=mask[:, :width], position_ids=position,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        cache.batch_repeat_interleave(n)
        logits, mask = out.logits[:, -1].repeat_interleave(n, 0), mask.repeat_interleave(n, 0)
        position = position[:, -1:].repeat_interleave(n, 0)
        alive = torch.arange(len(prompts) * n, device=device)
        tokens = torch.full((len(alive), max_tokens), eos, device=device)
        logps = torch.zeros(len(alive), max_tokens, device=device)
        lengths = torch.full((len(alive),), max_tokens, device=device)
        for t in range(max_tokens):
            logp = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
            if temperature == 0:
                token = logp.argmax(-1)
            else:
                # The Gumbel-max trick, by exponentials: one pass, no sort, any row count.
                noise = torch.empty_like(logp).exponential_(generator=generator)
                token = (logp.exp() / noise).argmax(-1)
            tokens[alive, t] = token
            logps[alive, t] = logp.gather(1, token[:, None])[:, 0]
            going = token != eos
            lengths[alive[~going]] = t + 1
            if t + 1 == max_tokens or not going.any():
                break
            if not going.all():
                keep = going.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                alive, mask, position, token = alive[keep], mask[keep], position[keep], token[keep]
            position = position + 1
            logits = model(
                input_ids=token[:, None], attention_mask=mask[:, : width + t + 1],
                position_ids=position, past_key_values=cache, use_cache=True,
            ).logits[:, -1]  # fmt: skip
    rows = zip(tokens.tolist(), logps.tolist(), lengths.tolist(), strict=True)
    pairs = [(token[:k], logp[:k]) for token, logp, k in rows]
    return [token for token, _ in pairs], [logp for _, logp in pairs]


def sample(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Any],
    n: int,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 256,
) -> list[list[str]]:
    """n answers in words for each chat prompt; rows are batched by prompt length."""
    import torch

    encoded = encode(tokenizer, prompts)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    generator = torch.Generator(model.device).manual_seed(seed)
    answers: list[list[str]] = [[] for _ in encoded]
    step = max(1, batch // n)
    for start in range(0, len(order), step):
        rows = order[start : start + step]
        ids, _ = sample_ids(
            model,
            [encoded[i] for i in rows],
            n,
            max_tokens,
            tokenizer.eos_token_id,
            temperature,
            generator,
        )
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        for k, i in enumerate(rows):
            answers[i] = texts[k * n : (k + 1) * n]
    return answers
