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
from hybridlib.profiles import Profile

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, DOCUMENTS = 4, 60
ELEMENTS = 1 << 25  # log-probabilities in memory at once


def measure(model: Any, tokenizer: Any, profile: Profile, seed: int = 0) -> dict[str, Any]:
    """What changed, in nats and shares.

    Returns:
        family -> kl (KL(model || base) per answer: the sum over its tokens), entropy (per token),
        tokens (per answer), distinct (share of the SAMPLES answers to a row that are different);
        and, for a base of ours, corpus_loss: nats per token of what the base was pretrained on.
    """
    found: dict[str, Any] = {}
    for name in profile.datasets:
        rows = data.load(name, "test", -(-(profile.n_eval or 100) // 4), profile.columns)
        found[rows[0]["family"]] = _answers(model, tokenizer, profile, rows, seed)
    if all(name.startswith("tiny_") for name in profile.datasets):
        found["corpus_loss"] = round(corpus_loss(model, tokenizer), 5)
    return found


def corpus_loss(model: Any, tokenizer: Any) -> float:
    """Nats per token of documents that the tiny base might have been pretrained on."""
    import torch

    from hybridlib import pretrain

    pairs = pretrain.documents(pretrain.Recipe(), -2, DOCUMENTS, 4)
    prompts = rollout.encode(tokenizer, [prompt for prompt, _ in pairs])
    texts = tokenizer([text for _, text in pairs], add_special_tokens=False)["input_ids"]
    answers = [[[*text, tokenizer.eos_token_id]] for text in texts]
    with torch.no_grad():
        parts = [_log_probs(model, *part) for part in _parts(model, prompts, answers)]
        labels = [log_probs.gather(1, ids[:, None]) for log_probs, ids in parts]
        return -float(torch.cat(labels).mean())


def _answers(
    model: Any, tokenizer: Any, profile: Profile, rows: Any, seed: int
) -> dict[str, float]:
    import torch

    prompts = rollout.encode(tokenizer, rows["prompt"])
    draw = torch.Generator(model.device).manual_seed(seed)
    limit, eos = profile.max_completion_tokens, tokenizer.eos_token_id
    ids, _ = rollout.sample_ids(model, prompts, SAMPLES, limit, eos, generator=draw)
    groups = [ids[i : i + SAMPLES] for i in range(0, len(ids), SAMPLES)]
    off = getattr(model, "disable_adapter", nullcontext)
    total = {"kl": 0.0, "entropy": 0.0}
    with torch.no_grad():
        for part in _parts(model, prompts, groups):
            now = _log_probs(model, *part)[0]
            with off():
                before = _log_probs(model, *part)[0]
            total["kl"] += float((now.exp() * (now - before)).sum())
            total["entropy"] -= float((now.exp() * now).sum())
    tokens = sum(map(len, ids))
    distinct = [len(set(map(tuple, group))) for group in groups]
    return {
        "kl": round(total["kl"] / len(ids), 5), "entropy": round(total["entropy"] / tokens, 5),
        "tokens": round(tokens / len(ids), 2),
        "distinct": round(sum(distinct) / len(ids), 5),
    }  # fmt: skip


def _parts(model: Any, prompts: list, answers: list) -> Iterator[tuple[list, list]]:
    """As many prompts with their answers at a time as fit into ELEMENTS."""
    tokens = sum(len(answer) for group in answers for answer in group) / len(prompts)
    width = model.get_input_embeddings().weight.shape[0]
    step = max(1, int(ELEMENTS / (tokens * width)))
    for i in range(0, len(prompts), step):
        yield prompts[i : i + step], answers[i : i + step]


def _log_probs(
    model: Any, prompts: list[list[int]], answers: list[list[list[int]]]
) -> "tuple[Tensor, Tensor]":
    """Log-probabilities (answer tokens, vocabulary), and the tokens themselves."""
    import torch

    if not decoder.unsupported(model):
        batch = decoder.PrefixBatch(prompts, answers, model.device)
        return decoder.log_probs(decoder.Decoder(model), batch), batch.targets
    scores = [
        model(input_ids=torch.tensor([prompt + answer], device=model.device))
        .logits[0, -len(answer) - 1 : -1].float().log_softmax(-1)
        for prompt, group in zip(prompts, answers, strict=True) for answer in group
    ]  # fmt: skip
    labels = [token for group in answers for answer in group for token in answer]
    return torch.cat(scores), torch.tensor(labels, device=model.device)
