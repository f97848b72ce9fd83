"""How far has a model moved from its base, and what has it given up on the way?

Measured on the model's own answers to test questions, because that is the distance that predicts
forgetting (RL's Razor, arXiv:2509.04259), and exactly per token over the whole vocabulary: no
sampling noise but that of the answers.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hybridlib import data
from hybridlib.engine import decoder, rollout
from hybridlib.engine.ends import end_tokens
from hybridlib.profiles import Profile

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

SAMPLES = 4  # answers per test question
DOCUMENTS = (4,) * 5  # of levels 1 to 5 of each family, as pretraining reads them
ELEMENTS = 1 << 25  # log-probabilities in memory at once


def measure(model: Any, tokenizer: Any, profile: Profile, seed: int = 0) -> dict[str, Any]:
    """Return how far the model, an adapter on its base, has moved, in nats and shares.

    Returns:
        family -> kl (KL(model || base) per answer: the sum over its tokens), entropy (per token),
        tokens (per answer), distinct (share of the SAMPLES answers to a row that are different);
        and, for a base of ours, corpus_loss: nats per token of what the base was pretrained on.
    """
    distances: dict[str, Any] = {}
    for name in profile.datasets:
        family, found = of_dataset(model, tokenizer, profile, name, seed)
        distances[family] = found
    if all(name.startswith("tiny_") for name in profile.datasets):
        distances["corpus_loss"] = round(corpus_loss(model, tokenizer), 5)
    return distances


def of_dataset(
    model: Any, tokenizer: Any, profile: Profile, name: str, seed: int = 0
) -> tuple[str, dict[str, float]]:
    """Return the family of one of the profile's data sets, and what `measure` says of it."""
    rows = data.load(name, "test", -(-(profile.n_eval or 100) // 4), profile.columns, profile.ask)
    return rows[0]["family"], _on_answers(model, tokenizer, profile, rows, seed)


def corpus_loss(model: Any, tokenizer: Any) -> float:
    """Return the nats per token of documents that the tiny base might have been pretrained on."""
    import torch

    from hybridlib import pretrain

    pairs = pretrain.corpus_documents(pretrain.Corpus(DOCUMENTS, DOCUMENTS, DOCUMENTS), seed=-1)
    prompts = rollout.encode(tokenizer, [prompt for prompt, _ in pairs])
    texts = tokenizer([text for _, text in pairs], add_special_tokens=False)["input_ids"]
    end = end_tokens(model, tokenizer)[0]
    answers = [[[*text, end]] for text in texts]
    with torch.no_grad():
        log_probs = [
            vocabulary.gather(1, tokens[:, None])
            for batch in _batches(model, prompts, answers)
            for vocabulary, tokens in [_log_probs(model, *batch)]
        ]
        return -float(torch.cat(log_probs).mean())


def _on_answers(
    model: Any, tokenizer: Any, profile: Profile, rows: "Dataset", seed: int
) -> dict[str, float]:
    """Return KL, entropy, length and variety of the model's own answers to some rows."""
    import torch

    prompts = rollout.encode(tokenizer, rows["prompt"])
    generator = torch.Generator(model.device).manual_seed(seed)
    limit, ends = profile.max_completion_tokens, end_tokens(model, tokenizer)
    answers, _ = rollout.sample_ids(model, prompts, SAMPLES, limit, ends, generator=generator)
    groups = [answers[i : i + SAMPLES] for i in range(0, len(answers), SAMPLES)]
    without_adapter = getattr(model, "disable_adapter", nullcontext)
    kl = entropy = 0.0
    with torch.no_grad():
        for batch in _batches(model, prompts, groups):
            adapted = _log_probs(model, *batch)[0]
            with without_adapter():
                base = _log_probs(model, *batch)[0]
            kl += float((adapted.exp() * (adapted - base)).sum())
            entropy -= float((adapted.exp() * adapted).sum())
    n_tokens = sum(map(len, answers))
    distinct = sum(len(set(map(tuple, group))) for group in groups)
    return {
        "kl": round(kl / len(answers), 5),
        "entropy": round(entropy / n_tokens, 5),
        "tokens": round(n_tokens / len(answers), 2),
        "distinct": round(distinct / len(answers), 5),
    }


def _batches(
    model: Any, prompts: list[list[int]], answers: list[list[list[int]]]
) -> Iterator[tuple[list, list]]:
    """Yield as many prompts with their answers at a time as fit into ELEMENTS."""
    n_tokens = sum(len(answer) for group in answers for answer in group) / len(prompts)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    size = max(1, int(ELEMENTS / (n_tokens * vocabulary)))
    for i in range(0, len(prompts), size):
        yield prompts[i : i + size], answers[i : i + size]


def _log_probs(
    model: Any, prompts: list[list[int]], answers: list[list[list[int]]]
) -> "tuple[Tensor, Tensor]":
    """Return log-probabilities (answer tokens, vocabulary), and the tokens themselves."""
    import torch

    if not decoder.unsupported(model):
        batch = decoder.PrefixBatch(prompts, answers, model.device)
        return decoder.log_probs(decoder.Decoder(model), batch), batch.targets
    log_probs, tokens = [], []
    for prompt, group in zip(prompts, answers, strict=True):
        for answer in group:
            ids = torch.tensor([prompt + answer], device=model.device)
            logits = model(input_ids=ids).logits[0, -len(answer) - 1 : -1]
            log_probs.append(logits.float().log_softmax(-1))
            tokens += answer
    return torch.cat(log_probs), torch.tensor(tokens, device=model.device)
