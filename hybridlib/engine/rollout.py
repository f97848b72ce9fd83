"""What does the policy answer? One sampler, shared by GRPO and evaluation.

Each prompt is read once and its keys are kept once for all its samples, finished sequences leave
the batch (once they are a tenth of it), adapters are folded into the weights, and the cache is
allocated once instead of being copied at every token.
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


FULL = 0.9  # of a batch is still being sampled, or its other rows are dropped
"""Copying what remains costs as much as some idle rows."""


class Cache:
    """Keys and values of sequences that grow by one token at a time; a prompt's are kept once.

    A new token sees its prompt by one product with the queries of all samples of that prompt, and
    its own answer, which is as long as every other, by a second: no mask over the answers, and no
    copy of a prompt for each of its samples.

    Args:
        prompt_lengths: In tokens.
        n_samples: Sequences per prompt.
        room: New tokens of a sequence, at most.
        like: A tensor of the device and type that keys and values have.

    Attributes:
        end: How many tokens the answers have; the caller moves it on.
    """

    def __init__(
        self, decoder: Decoder, prompt_lengths: list[int], n_samples: int, room: int, like: Any
    ):
        import torch

        self.heads, self.head_dim, layers = decoder.kv_heads, decoder.head_dim, len(decoder.layers)
        self.lengths = torch.tensor(prompt_lengths, device=like.device)
        rows = self.heads * n_samples * len(prompt_lengths)
        # (rows and key heads, tokens, head size); those of prompts are filled by `prefill`.
        self.prompt_keys, self.prompt_values = ([like.new_empty(0)] * layers for _ in range(2))
        self.keys, self.values = (
            [like.new_empty(rows, room, self.head_dim) for _ in range(layers)] for _ in range(2)
        )
        self.end = 0
        self._arrange(
            torch.arange(len(prompt_lengths)).repeat_interleave(n_samples).to(like.device)
        )

    def _arrange(self, prompts: "torch.Tensor") -> None:
        """Set where each row's queries stand among those to its prompt.

        Args:
            prompts: Which prompt each row has; the rows of a prompt side by side.
        """
        import torch

        self.prompts = prompts
        counts = prompts.bincount()
        first, most = counts.cumsum(0) - counts, int(counts.max())
        head = torch.arange(self.heads, device=prompts.device)
        sample = torch.arange(len(prompts), device=prompts.device) - first[prompts]
        places = (prompts[:, None] * self.heads + head) * most + sample[:, None]
        self.places = places.flatten()
        # Prompts with fewer rows ask for row 0 in vain.
        self.askers = places.new_zeros(len(counts) * self.heads * most)
        self.askers[self.places] = torch.arange(len(self.places), device=prompts.device)
        self.width = int(self.lengths.max())
        hidden = torch.arange(self.width, device=prompts.device) >= self.lengths[:, None]
        mask = torch.zeros(hidden.shape, device=prompts.device).masked_fill_(hidden, float("-inf"))
        self.mask = mask.repeat_interleave(self.heads, 0)[:, None].to(self.keys[0].dtype)

    def prefill(self, batch: PrefixBatch) -> Any:
        """Return an attention over the prompts that stores their keys and values.

        Args:
            batch: The prompts, without completions.
        """
        import torch

        prompt = torch.arange(len(self.lengths), device=self.lengths.device)
        prompt = prompt.repeat_interleave(self.lengths)
        places = prompt * self.width + batch.positions

        def padded(new: Any) -> Any:
            rows = new.new_zeros(len(self.lengths) * self.width, *new.shape[1:])
            rows[places] = new
            return rows.unflatten(0, (-1, self.width)).transpose(1, 2).flatten(0, 1)

        def attend(layer: int, q: Any, k: Any, v: Any) -> Any:
            self.prompt_keys[layer], self.prompt_values[layer] = padded(k), padded(v)
            return batch.attend(layer, q, k, v)

        return attend

    def grow(self, layer: int, q: Any, k: Any, v: Any) -> Any:
        """Store one new token per row behind the others and return its attention."""
        import torch

        keys, values = self.keys[layer][:, : self.end + 1], self.values[layer][:, : self.end + 1]
        keys[:, self.end], values[:, self.end] = k.flatten(0, 1), v.flatten(0, 1)
        prompt_keys, prompt_values = self.prompt_keys[layer], self.prompt_values[layer]
        queries = q.flatten(0, 1) * self.head_dim**-0.5
        asked = queries.index_select(0, self.askers).view(len(self.mask), -1, self.head_dim)
        to_prompt = torch.baddbmm(self.mask, asked, prompt_keys.transpose(1, 2))
        to_prompt = to_prompt.view(-1, q.shape[2], self.width).index_select(0, self.places)
        to_answer = torch.bmm(queries, keys.transpose(1, 2))
        shares = torch.cat([to_prompt, to_answer], -1).softmax(-1)
        of_prompt, of_answer = shares.split([self.width, self.end + 1], -1)
        of_prompt = of_prompt.index_select(0, self.askers).view(len(self.mask), -1, self.width)
        attended = torch.bmm(of_prompt, prompt_values)
        attended = attended.view(-1, q.shape[2], self.head_dim).index_select(0, self.places)
        return attended.baddbmm_(of_answer, values).view(len(q), -1)

    def select(self, rows: "torch.Tensor") -> None:
        """Drop all rows but these, and the prompts that have none left."""
        remaining, prompts = self.prompts[rows].unique(return_inverse=True)
        fewer = len(remaining) < len(self.lengths)
        self.lengths = self.lengths[remaining]
        self._arrange(prompts)
        for block in (self.keys, self.values):
            for layer, stored in enumerate(block):
                selected = self._selected(stored[:, : self.end], rows)
                block[layer] = stored.new_empty(len(selected), *stored.shape[1:])
                block[layer][:, : self.end] = selected
        if fewer:
            for block in (self.prompt_keys, self.prompt_values):
                block[:] = [self._selected(t[:, : self.width], remaining) for t in block]

    def _selected(self, stored: Any, rows: "torch.Tensor") -> Any:
        return stored.unflatten(0, (-1, self.heads)).index_select(0, rows).flatten(0, 1)


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
        position = cache.lengths
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
            if left < FULL * len(going):
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

    if temperature not in (0, 1):
        logits = logits / temperature
    highest, likeliest = logits.max(-1, keepdim=True)
    relative = logits - highest
    sums = relative.exp().cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    token = likeliest
    if temperature:
        uniform = torch.rand(
            total.shape, dtype=total.dtype, device=total.device, generator=generator
        )
        # The first token whose sum exceeds the number: one of probability zero never does.
        token = torch.searchsorted(sums, uniform * total, right=True).clamp_(max=sums.shape[-1] - 1)
    return token[:, 0], (relative.gather(1, token) - total.log().type_as(relative))[:, 0]


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
