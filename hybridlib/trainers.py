"""How do TRL's trainers skip padding and repeated prompts? Each with its one forward pass replaced.

Everything else, losses, metrics, accumulation, checkpoints, is TRL's own. Where `decoder` cannot
stand in for the model (see `decoder.unsupported`), or a model is wrapped for several devices, TRL's
pass is taken.
"""

from functools import cache
from typing import Any

from hybridlib import decoder


def _stands_in(trainer: Any, model: Any) -> bool:
    wrapped = trainer.accelerator.unwrap_model(model) is not model
    why = "a model on several devices" if wrapped else decoder.unsupported(model, training=True)
    if why:
        _notice(why)
    return not why


@cache  # once a process
def _notice(why: str) -> None:
    print(f"training by TRL's forward pass, which pads: {why}", flush=True)


def grpo(trainer: type) -> type:
    """A GRPO trainer that reads each prompt once for all its samples, and only what can teach.

    A group whose samples all earned the same has no gradient. Such rows are left out of the pass;
    their log-probabilities and entropy estimate (-log p of the sampled token, unbiased) are those
    of sampling.

    Args:
        trainer: trl.GRPOTrainer.
    """
    import torch

    class Lean(trainer):  # type: ignore[misc, valid-type]
        _batch: dict[str, Any] | None = None

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            self._batch = inputs
            try:
                return super()._compute_loss(model, inputs)
            finally:
                self._batch = None

        def _full_logits_logps(
            self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int,
            batch_size: Any = None, compute_entropy: bool = False, compute_aux_loss: bool = False,
            **images: Any,
        ) -> tuple[Any, Any, None]:  # fmt: skip
            own = compute_aux_loss or any(v is not None for v in images.values())
            if own or not _stands_in(self, model):
                return super()._full_logits_logps(
                    model, input_ids, attention_mask, logits_to_keep, batch_size,
                    compute_entropy, compute_aux_loss, **images,
                )  # fmt: skip
            split = input_ids.shape[1] - logits_to_keep
            real = attention_mask.bool()
            groups: dict[tuple[int, ...], list[int]] = {}
            rows = self._rows_that_teach(len(input_ids))
            for row in rows:
                prompt = tuple(input_ids[row, :split][real[row, :split]].tolist())
                groups.setdefault(prompt, []).append(row)
            order = torch.tensor([r for g in groups.values() for r in g], device=input_ids.device)
            kept = real[:, split:][order]
            tree = decoder.Tree(
                [list(prompt) for prompt in groups],
                [
                    [input_ids[r, split:][real[r, split:]].tolist() for r in group]
                    for group in groups.values()
                ],
                input_ids.device,
            )
            found = decoder.logps(
                decoder.Decoder(model), tree, self.temperature, self._entropy_bonus_enabled
            )
            sampled = attention_mask.new_zeros(len(input_ids), logits_to_keep).float()
            if len(rows) < len(input_ids):
                sampled = self._batch["sampling_per_token_logps"]
            given = (self._batch or {}).get("old_per_token_logps", sampled), -sampled
            logps, entropies = (
                rest.index_copy(0, order, sampled.new_zeros(kept.shape).masked_scatter(kept, x))
                for rest, x in zip(given, found, strict=False)
            )
            return logps, entropies if compute_entropy else None, None

        def _rows_that_teach(self, count: int) -> list[int]:
            """Rows with an advantage, where only these have a gradient and sampling was ours."""
            batch = self._batch or {}
            needed = self.beta or self._entropy_bonus_enabled or self.top_entropy_quantile < 1
            if needed or "sampling_per_token_logps" not in batch or batch["advantages"].ndim > 1:
                return list(range(count))
            return batch["advantages"].nonzero()[:, 0].tolist() or [0]

    return Lean


def sft(trainer: type) -> type:
    """An SFT trainer whose pass has no padding, and computes scores of completion tokens alone.

    Args:
        trainer: trl.SFTTrainer.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    class Lean(trainer):  # type: ignore[misc, valid-type]
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
        ) -> Any:
            rows, called = self._rows(inputs), model
            if rows and _stands_in(self, model):
                tree = decoder.Tree(*rows, inputs["labels"].device)

                def packed(num_items_in_batch: Any = None, **options: Any) -> Any:
                    logps, entropies, hits = decoder.logps(decoder.Decoder(model), tree)
                    items = len(logps) if num_items_in_batch is None else num_items_in_batch
                    found = CausalLMOutputWithPast(loss=-logps.sum() / items)
                    found.num_valid_tokens = logps.new_tensor(len(logps))
                    found.entropy_sum, found.num_correct_tokens = entropies.sum(), hits.sum()
                    return found

                packed.config, called = model.config, packed
            return super().compute_loss(called, inputs, *args, **kwargs)

        def _rows(self, inputs: dict[str, Any]) -> tuple[list, list] | None:
            """Prompts and completions of a batch; None where a row is not just these two."""
            if self.args.loss_type != "chunked_nll" or "attention_mask" not in inputs:
                return None
            prompts, completions = [], []
            for ids, mask, labels in zip(
                *(inputs[k].tolist() for k in ("input_ids", "attention_mask", "labels")),
                strict=True,
            ):
                used = [i for i, m in enumerate(mask) if m]
                taught = [i for i in used if labels[i] != -100]
                if not taught or taught != used[-len(taught) :] or len(taught) == len(used):
                    return None
                prompts.append([ids[i] for i in used[: -len(taught)]])
                completions.append([[ids[i] for i in taught]])
            return prompts, completions

    return Lean
