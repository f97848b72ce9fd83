"""How do TRL's trainers skip padding and repeated prompts? Each with its one forward pass replaced.

Everything else, losses, metrics, accumulation, checkpoints, is TRL's own. Where `decoder` cannot
stand in for the model (see `decoder.unsupported`), or a model is wrapped for several devices, TRL's
pass is taken.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from hybridlib.engine import decoder
from hybridlib.objectives import OBJECTIVES, Tokens


def _stands_in(trainer: Any, model: Any) -> bool:
    why = decoder.unsupported(model, training=True)
    for reason, holds in (
        ("a model on several devices", trainer.accelerator.unwrap_model(model) is not model),
        ("mixed precision", trainer.accelerator.mixed_precision != "no"),
        ("noise on the embeddings", bool(trainer.args.neftune_noise_alpha)),
    ):
        why = reason if holds else why
    if why:
        _notice(why)
    return not why


@cache  # once a process
def _notice(why: str) -> None:
    print(f"training by TRL's forward pass, which pads: {why}", flush=True)


def grpo(trainer: type) -> type:
    """A GRPO trainer that reads each prompt once for all its samples, and only what can teach.

    A group whose samples all earned the same has no gradient. Such rows are left out of the pass
    where nothing else teaches (a KL term, an entropy bonus) and the batch is used once. The logged
    entropy is then estimated from sampling for all rows alike, as the mean of -log p of the sampled
    tokens; taking it from the rows that were left would favour uncertain prompts.

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
            weights = decoder.Decoder(model)
            logps = attention_mask.new_zeros(len(input_ids), logits_to_keep).float()
            entropies, rows = logps, torch.arange(len(input_ids), device=logps.device)
            if self._skips():  # all ratios are one, entropies of all rows are estimated alike
                logps = self._batch["sampling_per_token_logps"]
                entropies, rows = -logps, self._batch["advantages"].nonzero()[:, 0]
                rows = rows if len(rows) else rows.new_zeros(1)
            for part in rows.split(batch_size or len(rows)):
                tree, order, kept = self._tree(
                    input_ids, attention_mask.bool(), logits_to_keep, part
                )
                found = decoder.logps(weights, tree, self.temperature, self._entropy_bonus_enabled)
                blank = found[0].new_zeros(kept.shape)
                logps = logps.index_copy(0, order, blank.masked_scatter(kept, found[0]))
                if not self._skips():
                    new = blank.masked_scatter(kept, found[1])
                    entropies = entropies.index_copy(0, order, new)
            return logps, entropies if compute_entropy else None, None

        def _skips(self) -> bool:
            """Are rows without advantage left out? Only where nothing but advantages teaches."""
            batch = self._batch or {}
            return not (
                "sampling_per_token_logps" not in batch
                or "old_per_token_logps" in batch  # the policy has moved since it sampled
                or batch["advantages"].ndim > 1
                or self.beta
                or self._entropy_bonus_enabled
                or self.top_entropy_quantile < 1
                or self.loss_type == "vespo"
            )

        def _tree(self, ids: Any, real: Any, keep: int, rows: Any) -> tuple[decoder.Tree, Any, Any]:
            """These rows by prompt, their order there, and which of their columns are answers."""
            split = ids.shape[1] - keep
            groups: dict[tuple[int, ...], list[int]] = {}
            for row in rows.tolist():
                prompt = tuple(ids[row, :split][real[row, :split]].tolist())
                groups.setdefault(prompt, []).append(row)
            answers = [
                [ids[row, split:][real[row, split:]].tolist() for row in group]
                for group in groups.values()
            ]
            order = torch.tensor([row for group in groups.values() for row in group])
            order = order.to(ids.device)
            tree = decoder.Tree([list(prompt) for prompt in groups], answers, ids.device)
            return tree, order, real[order, split:]

    return Lean


def sft(trainer: type, objective: Callable = OBJECTIVES["nll"]) -> type:
    """An SFT trainer with a loss of `objectives`, whose pass has no padding.

    Where `decoder` cannot stand in, likelihood is left to TRL and other losses take the padded
    scores of the model.

    Args:
        trainer: trl.SFTTrainer.
    """
    import torch
    from transformers.modeling_outputs import CausalLMOutputWithPast

    class Lean(trainer):  # type: ignore[misc, valid-type]
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
        ) -> Any:
            rows = self._rows(inputs)
            if rows and _stands_in(self, model):
                tree = decoder.Tree(*rows, inputs["labels"].device)
                labels = tree.targets

                def every() -> Any:
                    return decoder.every(decoder.Decoder(model), tree)

            elif objective is OBJECTIVES["nll"]:
                return super().compute_loss(model, inputs, *args, **kwargs)
            else:
                taught = inputs["labels"][:, 1:] != -100
                labels = inputs["labels"][:, 1:][taught]
                seen = {k: inputs[k] for k in ("input_ids", "attention_mask") if k in inputs}

                def every() -> Any:
                    return model(**seen).logits[:, :-1][taught].float().log_softmax(-1)

            def base() -> Any:
                adapted = self.accelerator.unwrap_model(model)
                with torch.no_grad(), adapted.disable_adapter():
                    return every()

            def packed(num_items_in_batch: Any = None, **options: Any) -> Any:
                found = every()
                logps = found.gather(1, labels[:, None])[:, 0]
                items = len(logps) if num_items_in_batch is None else num_items_in_batch
                losses = objective(Tokens(logps, found, labels, base))
                told = CausalLMOutputWithPast(loss=losses.sum() / items)
                with torch.no_grad():
                    told.num_valid_tokens = logps.new_tensor(len(logps))
                    told.entropy_sum = -(found.exp() * found).sum()
                    told.num_correct_tokens = (found.argmax(-1) == labels).sum()
                return told

            packed.config = model.config
            return super().compute_loss(packed, inputs, *args, **kwargs)

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
