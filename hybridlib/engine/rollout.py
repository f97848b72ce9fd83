"""What does the policy answer? One sampler, shared by GRPO and evaluation.

Each prompt is read once and shared by its samples, finished sequences leave the batch (once they
are a fifth of it), adapters are folded into the weights, and the cache is allocated once instead of
being copied at every token.
The distribution is that of `model.generate`: temperature only, no truncation of the vocabulary.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from hybridlib.engine.decoder import Decoder, PrefixBatch, unsupported
from hybridlib.engine.ends import end_tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Any]) -> list[list[int]]:
    """Return the token ids of chat prompts, ready for the assistant's turn."""
    texts = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


class Cache:
    """Keys and values of sequences that grow by one token at a time, in one block of memory.

    Args:
        prompt_lengths: In tokens; all prompts end at the same column.
        n_samples: Sequences per prompt.
        room: Columns for new tokens.
        like: A tensor of the device and type that keys and values have.

    Attributes:
        end: The column of the next token; the caller moves it on.
    """

    def __init__(
        self, decoder: Decoder, prompt_lengths: list[int], n_samples: int, room: int, like: Any
    ):
        import torch

        self.prompt_lengths, self.n_samples, self.width = (
            prompt_lengths,
            n_samples,
            max(prompt_lengths),
        )
        shape = (
            len(prompt_lengths) * n_samples,
            decoder.kv_heads,
            self.width + room,
            decoder.head_dim,
        )
        self.keys = [like.new_empty(shape) for _ in decoder.layers]
        self.values = [like.new_empty(shape) for _ in decoder.layers]
        # A row sees its prompt, which ends at column `width`, and what follows.
        start = self.width - torch.tensor(prompt_lengths, device=like.device)
        visible = torch.arange(self.width + room, device=like.device) >= start[:, None]
        self.mask = like.new_zeros(visible.shape).masked_fill(~visible, float("-inf"))
        self.mask = self.mask.repeat_interleave(n_samples, 0)[:, None, None]
        self.end = self.width

    def prefill(self, batch: PrefixBatch) -> Any:
        """Return an attention over the prompts that stores their keys and values for all samples.

        Args:
            batch: The prompts, without completions.
        """

        def attend(layer: int, q: Any, k: Any, v: Any) -> Any:
            for stored, new in ((self.keys[layer], k), (self.values[layer], v)):
                for row, part in enumerate(new.split(self.prompt_lengths)):
                    block = stored[
                        row * self.n_samples : (row + 1) * self.n_samples, :, : self.width
                    ]
                    block[:, :, : -len(part)] = 0
                    block[:, :, -len(part) :] = part.transpose(0, 1)
            return batch.attend(layer, q, k, v)

        return attend

    def grow(self, layer: int, q: Any, k: Any, v: Any) -> Any:
        """Store one new token per row at column `end` and return its attention."""
        from torch.nn.functional import scaled_dot_product_attention

        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.end], values[:, :, self.end] = k, v
        end = self.end + 1
        # Heads that share a key are queries of one batch.
        attended = scaled_dot_product_attention(
            q.unflatten(1, (k.shape[1], -1)),
            keys[:, :, :end],
            values[:, :, :end],
            attn_mask=self.mask[..., :end],
        )
        return attended.flatten(1, 2)

    def select(self, rows: "torch.Tensor") -> None:
        """Drop all rows but these."""
        self.keys = [t[rows] for t in self.keys]
        self.values = [t[rows] for t in self.values]
        self.mask = self.mask[rows]


def sample_ids(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    n_samples: int,
    max_tokens: int,
    ends: Sequence[int],
    temperature: float = 1.0,
    generator: "torch.Generator | None" = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """Sample completions of each prompt as token ids, with the log-probability of each token.

    Where the decoder cannot stand in for the model, samples by `model.generate`, and prints why,
    once per process and reason.

    Args:
        prompts: Token ids, any lengths.
        ends: Tokens that end a completion; see `ends.end_tokens`.
        temperature: 0 is greedy.
        generator: The only source of randomness, on the model's device.
    Returns:
        Two lists of len(prompts) * n_samples lists, the samples of one prompt side by side. A
        completion ends with one of `ends` unless it was cut at `max_tokens`. Log-probabilities are
        at `temperature` (at 1 for greedy).
    """
    import torch

    if why := unsupported(model):
        _notice(why)
        return _generate(model, prompts, n_samples, max_tokens, ends, temperature, generator)
    with torch.inference_mode():
        decoder = Decoder(model)
        batch = PrefixBatch(prompts, [[] for _ in prompts], model.device)
        cache = Cache(decoder, [len(p) for p in prompts], n_samples, max_tokens, decoder.embedding)
        hidden = decoder.hidden(batch.tokens, batch.positions, cache.prefill(batch))
        position = torch.tensor(cache.prompt_lengths, device=model.device)
        logits = decoder.logits(hidden[position.cumsum(0) - 1]).repeat_interleave(n_samples, 0)
        position = position.repeat_interleave(n_samples)
        total = len(position)
        end_ids = torch.tensor(ends, device=model.device)
        tokens = torch.full((total, max_tokens), ends[0], device=model.device)
        log_probs = torch.zeros(total, max_tokens, device=model.device)
        rows = torch.arange(total, device=model.device)  # that are still in the batch
        going = torch.ones(total, dtype=torch.bool, device=model.device)
        for t in range(max_tokens):
            token, log_prob = _draw(logits.float(), temperature, generator)
            token = token.where(going, ends[0])
            tokens[rows, t], log_probs[rows, t] = token, log_prob
            going = torch.isin(token, end_ids, invert=True)
            left = int(going.sum())
            if not left or t + 1 == max_tokens:
                break
            if left < 0.8 * len(going):  # copying the cache costs as much as some idle rows
                remaining = going.nonzero()[:, 0]
                cache.select(remaining)
                rows, position = rows[remaining], position[remaining]
                token, going = token[remaining], going[remaining]
            hidden = decoder.hidden(token, position, cache.grow)
            logits = decoder.logits(hidden)
            position, cache.end = position + 1, cache.end + 1
    return _cut(tokens, log_probs, ends)


def _draw(
    logits: "torch.Tensor", temperature: float, generator: Any
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return one token a row and its log-probability, both (rows,).

    The token is where a uniform number falls among the cumulated probabilities.
    """
    import torch

    log_probs = torch.log_softmax(logits / (temperature or 1.0), -1)
    if temperature == 0:
        token = log_probs.argmax(-1)
    else:
        sums = log_probs.exp().cumsum(-1, dtype=torch.float64)
        uniform = torch.rand(
            len(log_probs), 1, dtype=torch.float64, device=log_probs.device, generator=generator
        )
        # The first token whose sum exceeds the number: one of probability zero never does.
        token = (sums <= uniform * sums[:, -1:]).sum(-1).clamp(max=log_probs.shape[-1] - 1)
    return token, log_probs.gather(1, token[:, None])[:, 0]


def _cut(
    tokens: "torch.Tensor", log_probs: "torch.Tensor", ends: Sequence[int]
) -> tuple[list[list[int]], list[list[float]]]:
    """Return the rows up to the first of their end tokens, as lists."""
    import torch

    ended = torch.isin(tokens, torch.tensor(ends, device=tokens.device))
    lengths = ended.int().argmax(1) + 1
    lengths[~ended.any(1)] = tokens.shape[1]
    cut_tokens = [row[:k] for row, k in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    cut_log_probs = [row[:k] for row, k in zip(log_probs.tolist(), lengths.tolist(), strict=True)]
    return cut_tokens, cut_log_probs


@cache  # once per process and reason
def _notice(why: str) -> None:
    print(f"sampling by model.generate, which is slower: {why}", flush=True)


def _generate(
    model: Any,
    prompts: Sequence[list[int]],
    n_samples: int,
    max_tokens: int,
    ends: Sequence[int],
    temperature: float,
    generator: Any,
) -> tuple[list[list[int]], list[list[float]]]:
    """Sample as `sample_ids` does, by transformers, for any decoder."""
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    class Recorder(LogitsProcessor):
        """Keeps each chosen token's log-probability; holding all scores would fill the memory."""

        def __init__(self) -> None:
            self.last: Any = None  # log-probabilities (rows, vocabulary) of the token to come
            self.chosen: list[Any] = []

        def __call__(self, ids: Any, scores: Any) -> Any:
            scores = scores.float() / (temperature or 1.0)
            self.add(ids[:, -1:])
            self.last = torch.log_softmax(scores, -1)
            return scores

        def add(self, ids: Any) -> None:
            if self.last is not None:
                self.chosen.append(self.last.gather(1, ids))

    width = max(map(len, prompts))
    padded = [[ends[0]] * (width - len(p)) + list(p) for p in prompts]
    mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    input_ids = torch.tensor(padded, device=model.device).repeat_interleave(n_samples, 0)
    attention_mask = torch.tensor(mask, device=model.device).repeat_interleave(n_samples, 0)
    recorder = Recorder()
    cuda = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.no_grad():
        torch.manual_seed(int(torch.randint(2**31, (), device=model.device, generator=generator)))
        ids = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            max_new_tokens=max_tokens,
            do_sample=temperature > 0,
            temperature=1.0,  # the recorder has divided by the temperature
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            typical_p=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            eos_token_id=list(ends),
            pad_token_id=ends[0],
            logits_processor=LogitsProcessorList([recorder]),
        )
    recorder.add(ids[:, -1:])
    return _cut(ids[:, width:], torch.cat(recorder.chosen, 1), ends)


def sample(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Any],
    n_samples: int,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 256,
) -> list[list[str]]:
    """Sample answers as text for each chat prompt; rows are batched by prompt length.

    Args:
        batch: Sequences that are sampled at once.
    """
    import torch

    encoded, ends = encode(tokenizer, prompts), end_tokens(model, tokenizer)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    generator = torch.Generator(model.device).manual_seed(seed)
    answers: list[list[str]] = [[] for _ in encoded]
    step = max(1, batch // n_samples)
    for start in range(0, len(order), step):
        rows = order[start : start + step]
        ids, _ = sample_ids(
            model,
            [encoded[i] for i in rows],
            n_samples,
            max_tokens,
            ends,
            temperature,
            generator,
        )
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        for k, i in enumerate(rows):
            answers[i] = texts[k * n_samples : (k + 1) * n_samples]
    return answers
