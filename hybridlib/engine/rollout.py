"""What does the policy answer? One sampler, shared by GRPO and evaluation.

Each prompt is read once and its keys are kept once for all its samples, finished sequences leave
the batch (once they are a twentieth of it), adapters are folded into the weights, and the cache is
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


FULL = 0.95  # of a batch is still being sampled, or its other rows are dropped


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

        self.heads, layers = decoder.kv_heads, range(len(decoder.layers))
        self.scale = decoder.head_dim**-0.5
        self.lengths = torch.tensor(prompt_lengths, device=like.device)
        count, width = len(prompt_lengths), max(prompt_lengths)

        def block(rows: int, *sizes: int) -> list[Any]:
            return [like.new_empty(rows, self.heads, *sizes) for _ in layers]

        # Keys lie across: each query goes along them.
        self.prompt_keys = block(count, decoder.head_dim, width)
        self.prompt_values = block(count, width, decoder.head_dim)
        self.keys = block(count * n_samples, decoder.head_dim, room)
        self.values = block(count * n_samples, room, decoder.head_dim)
        self.end = 0
        self.prompts = torch.arange(count, device=like.device).repeat_interleave(n_samples)
        self._arrange()

    def _arrange(self) -> None:
        """Set where each row's queries stand among those to its prompt."""
        import torch

        prompts, count, device = self.prompts, len(self.lengths), self.prompts.device
        counts = prompts.bincount(minlength=count)
        most, order = int(counts.max()), prompts.argsort(stable=True)
        sample = torch.empty_like(prompts)
        sample[order] = torch.arange(len(prompts), device=device)
        sample -= (counts.cumsum(0) - counts)[prompts]
        head = torch.arange(self.heads, device=device)
        self.places = ((prompts[:, None] * self.heads + head) * most + sample[:, None]).flatten()
        # Prompts with fewer rows ask for row 0 in vain.
        self.askers = self.places.new_zeros(count * self.heads * most)
        self.askers[self.places] = torch.arange(len(self.places), device=device)
        self.width = int(self.lengths.max())
        hidden = torch.arange(self.width, device=device) >= self.lengths[:, None]
        mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, float("-inf"))
        self.mask = mask.repeat_interleave(self.heads, 0)[:, None].to(self.keys[0].dtype)

    def prefill(self, batch: PrefixBatch) -> Any:
        """Return an attention over the prompts that stores their keys and values.

        Args:
            batch: The prompts, without completions.
        """
        import torch

        prompt = torch.arange(len(self.lengths), device=self.lengths.device)
        prompt = prompt.repeat_interleave(self.lengths)

        def attend(layer: int, q: Any, k: Any, v: Any) -> Any:
            self.prompt_keys[layer].zero_()[prompt, :, :, batch.positions] = k
            self.prompt_values[layer].zero_()[prompt, :, batch.positions] = v
            return batch.attend(layer, q, k, v)

        return attend

    def grow(self, layer: int, q: Any, k: Any, v: Any) -> Any:
        """Store one new token per row behind the others and return its attention."""
        import torch

        rows, prompts, end = len(q), len(self.lengths), self.end + 1
        keys, values = self.keys[layer][:rows], self.values[layer][:rows]
        keys[..., self.end], values[:, :, self.end] = k, v
        keys, values = keys[..., :end].flatten(0, 1), values[:, :, :end].flatten(0, 1)
        prompt_keys = self.prompt_keys[layer][:prompts, ..., : self.width].flatten(0, 1)
        prompt_values = self.prompt_values[layer][:prompts, :, : self.width].flatten(0, 1)

        def asked(part: Any) -> Any:
            return part.index_select(0, self.askers).view(len(self.mask), -1, part.shape[-1])

        def answered(part: Any) -> Any:
            return part.view(-1, q.shape[2], part.shape[-1]).index_select(0, self.places)

        queries = (q * self.scale).flatten(0, 1)
        to_prompt = answered(torch.baddbmm(self.mask, asked(queries), prompt_keys))
        shares = torch.cat([to_prompt, torch.bmm(queries, keys)], -1).softmax(-1)
        of_prompt, of_answer = shares.split([self.width, end], -1)
        attended = answered(torch.bmm(asked(of_prompt), prompt_values))
        return attended.baddbmm_(of_answer, values).view(rows, -1)

    def select(self, order: "torch.Tensor") -> None:
        """Keep these rows in this order, and the prompts that have one left.

        Args:
            order: As `_closing_up` returns it.
        """
        import torch

        prompts = self.prompts[order]
        remaining = _closing_up(prompts.bincount(minlength=len(self.lengths)) > 0)
        new_place = torch.empty_like(self.lengths)
        new_place[remaining] = torch.arange(len(remaining), device=order.device)
        self.prompts, self.lengths = new_place[prompts], self.lengths[remaining]
        self._arrange()
        for layers, places in (
            (self.keys + self.values, order),
            (self.prompt_keys + self.prompt_values, remaining),
        ):
            moved = (places != torch.arange(len(places), device=places.device)).nonzero()[:, 0]
            for stored in layers if len(moved) else ():
                stored.index_copy_(0, moved, stored.index_select(0, places[moved]))


def _closing_up(going: "torch.Tensor") -> "torch.Tensor":
    """Return the old places of the rows that are going, in an order that moves the fewest.

    The last of them fill the places of those that are not.
    """
    import torch

    places = going.nonzero()[:, 0]
    order = torch.arange(len(places), device=going.device)
    gaps = ~going[: len(places)]
    order[gaps] = places[len(places) - int(gaps.sum()) :]
    return order


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
                order = _closing_up(going)
                cache.select(order)
                rows, position = rows[order], position[order]
                token, going = token[order], going[order]
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
    probs = logits.softmax(-1)
    if temperature:
        sums = probs.cumsum(-1, dtype=torch.float64)
        total = sums[:, -1:]
        uniform = torch.rand(
            total.shape, dtype=total.dtype, device=total.device, generator=generator
        )
        # The first token whose sum exceeds the number: one of probability zero never does.
        token = torch.searchsorted(sums, uniform * total, right=True).clamp_(max=sums.shape[-1] - 1)
    else:
        token = logits.max(-1, keepdim=True).indices
    return token[:, 0], probs.gather(1, token)[:, 0].log()


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
