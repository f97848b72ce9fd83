"""What does the policy answer? One sampler, shared by GRPO and evaluation.

Each prompt is read once and shared by its samples, finished sequences leave the batch (once they
are a fifth of it), adapters are folded into the weights, and the cache is allocated once instead of
being copied at every token.
The distribution is that of `model.generate`: temperature only, no truncation of the vocabulary.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from hybridlib.engine.decoder import Decoder, Tree, unsupported

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Any]) -> list[list[int]]:
    """Token ids of chat prompts, ready for the assistant's turn."""
    texts = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


class Cache:
    """Keys and values of sequences that grow by one token at a time, in one block of memory.

    Args:
        prompts: length of each; they end at the same column.
        n: sequences a prompt.
        room: columns for new tokens.
    """

    def __init__(self, decoder: Decoder, prompts: list[int], n: int, room: int, like: Any):
        import torch

        self.prompts, self.n, self.width = prompts, n, max(prompts)
        shape = (len(prompts) * n, decoder.kv_heads, self.width + room, decoder.head_dim)
        self.keys = [like.new_empty(shape) for _ in decoder.layers]
        self.values = [like.new_empty(shape) for _ in decoder.layers]
        # A row sees its prompt, which ends at column `width`, and what follows.
        start = self.width - torch.tensor(prompts, device=like.device)
        seen = torch.arange(self.width + room, device=like.device) >= start[:, None]
        self.mask = like.new_zeros(seen.shape).masked_fill(~seen, float("-inf"))
        self.mask = self.mask.repeat_interleave(n, 0)[:, None, None]
        self.end = self.width

    def read(self, tree: Tree) -> Any:
        """Attention over the prompts, which keeps their keys and values for all samples."""

        def attend(layer: int, q: Any, k: Any, v: Any) -> Any:
            for kept, new in ((self.keys[layer], k), (self.values[layer], v)):
                for row, part in enumerate(new.split(self.prompts)):
                    block = kept[row * self.n : (row + 1) * self.n, :, : self.width]
                    block[:, :, : -len(part)] = 0
                    block[:, :, -len(part) :] = part.transpose(0, 1)
            return tree.attend(layer, q, k, v)

        return attend

    def grow(self, layer: int, q: Any, k: Any, v: Any) -> Any:
        """Attention of one new token a row; heads that share a key are queries of one batch."""
        from torch.nn.functional import scaled_dot_product_attention as attention

        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.end], values[:, :, self.end] = k, v
        end = self.end + 1
        seen = attention(
            q.unflatten(1, (k.shape[1], -1)), keys[:, :, :end], values[:, :, :end],
            attn_mask=self.mask[..., :end],
        )  # fmt: skip
        return seen.flatten(1, 2)

    def keep(self, rows: "torch.Tensor") -> None:
        """Go on with these rows alone."""
        self.keys = [t[rows] for t in self.keys]
        self.values = [t[rows] for t in self.values]
        self.mask = self.mask[rows]


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
        prompts: token ids, any lengths.
        temperature: 0 is greedy.
        generator: the only source of randomness, on the model's device.
    Returns:
        Two lists of len(prompts) * n lists, the samples of one prompt side by side. A completion
        ends with `eos` unless it was cut at `max_tokens`. Log-probabilities are at `temperature`
        (at 1 for greedy).
    """
    import torch

    if why := unsupported(model):
        _notice(why)
        return _generate(model, prompts, n, max_tokens, eos, temperature, generator)
    with torch.inference_mode():
        decoder, tree = Decoder(model), Tree(prompts, [[] for _ in prompts], model.device)
        cache = Cache(decoder, [len(p) for p in prompts], n, max_tokens, decoder.embedding)
        hidden = decoder.hidden(tree.tokens, tree.positions, cache.read(tree))
        position = torch.tensor(cache.prompts, device=model.device)
        logits = decoder.logits(hidden[position.cumsum(0) - 1]).repeat_interleave(n, 0)
        position = position.repeat_interleave(n)
        total = len(position)
        alive = torch.arange(total, device=model.device)
        tokens = torch.full((total, max_tokens), eos, device=model.device)
        logps = torch.zeros(total, max_tokens, device=model.device)
        going = torch.ones(total, dtype=torch.bool, device=model.device)
        for t in range(max_tokens):
            token, logp = _draw(logits.float(), temperature, generator)
            token = token.where(going, eos)
            tokens[alive, t], logps[alive, t] = token, logp
            going = token != eos
            left = int(going.sum())
            if not left or t + 1 == max_tokens:
                break
            if left < 0.8 * len(going):  # copying the cache costs as much as some idle rows
                rows = going.nonzero()[:, 0]
                cache.keep(rows)
                alive, position, token, going = (
                    alive[rows],
                    position[rows],
                    token[rows],
                    going[rows],
                )
            hidden = decoder.hidden(token, position, cache.grow)
            logits = decoder.logits(hidden)
            position, cache.end = position + 1, cache.end + 1
    return _cut(tokens, logps, eos)


def _draw(
    logits: "torch.Tensor", temperature: float, generator: Any
) -> "tuple[torch.Tensor, torch.Tensor]":
    """One token a row and its log-probability: where a uniform number falls among the sums."""
    import torch

    logp = torch.log_softmax(logits / (temperature or 1.0), -1)
    if temperature == 0:
        token = logp.argmax(-1)
    else:
        sums = logp.exp().cumsum(-1, dtype=torch.float64)
        share = torch.rand(
            len(logp), 1, dtype=torch.float64, device=logp.device, generator=generator
        )
        # The first token whose sum exceeds the share: one of probability zero never does.
        token = (sums <= share * sums[:, -1:]).sum(-1).clamp(max=logp.shape[-1] - 1)
    return token, logp.gather(1, token[:, None])[:, 0]


def _cut(
    tokens: "torch.Tensor", logps: "torch.Tensor", eos: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Rows up to their first `eos`, as lists."""
    ended = tokens == eos
    lengths = ended.int().argmax(1) + 1
    lengths[~ended.any(1)] = tokens.shape[1]
    rows = list(zip(tokens.tolist(), logps.tolist(), lengths.tolist(), strict=True))
    return [token[:k] for token, _, k in rows], [logp[:k] for _, logp, k in rows]


@cache  # once a process
def _notice(why: str) -> None:
    print(f"sampling by model.generate, which is slower: {why}", flush=True)


def _generate(
    model: Any,
    prompts: Sequence[list[int]],
    n: int,
    max_tokens: int,
    eos: int,
    temperature: float,
    generator: Any,
) -> tuple[list[list[int]], list[list[float]]]:
    """The same samples and log-probabilities from transformers, for any decoder."""
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    class Record(LogitsProcessor):
        """Keeps each chosen token's log-probability; holding all scores would fill the memory."""

        last, chosen = None, ()

        def __call__(self, ids: Any, scores: Any) -> Any:
            scores = scores.float() / (temperature or 1.0)
            self.add(ids[:, -1:])
            self.last = torch.log_softmax(scores, -1)
            return scores

        def add(self, ids: Any) -> None:
            if self.last is not None:
                self.chosen = (*self.chosen, self.last.gather(1, ids))

    width = max(map(len, prompts))
    padded = [[eos] * (width - len(p)) + list(p) for p in prompts]
    seen = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    ids, mask = (
        torch.tensor(x, device=model.device).repeat_interleave(n, 0) for x in (padded, seen)
    )
    record = Record()
    cuda = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.no_grad():
        torch.manual_seed(int(torch.randint(2**31, (), device=model.device, generator=generator)))
        found = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens,
            do_sample=temperature > 0, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0,
            typical_p=1.0, repetition_penalty=1.0, no_repeat_ngram_size=0,
            eos_token_id=eos, pad_token_id=eos, logits_processor=LogitsProcessorList([record]),
        )  # fmt: skip
    record.add(found[:, -1:])
    return _cut(found[:, width:], torch.cat(record.chosen, 1), eos)


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
    """n answers in words for each chat prompt; rows are batched by prompt length.

    Args:
        batch: sequences that are sampled at once.
    """
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
