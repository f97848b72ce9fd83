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

IGNORED = -100  # the label of a token that is not imitated, as in transformers


def can_replace_pass(trainer: Any, model: Any) -> bool:
    """Return whether the decoder can replace the model in this trainer; print once why not.

    Args:
        model: The one that is trained, as the trainer hands it to its loss.
    """
    why = decoder.unsupported(model, training=True)
    for reason, applies in (
        ("a model on several devices", trainer.accelerator.unwrap_model(model) is not model),
        ("mixed precision", trainer.accelerator.mixed_precision != "no"),
        ("noise on the embeddings", bool(trainer.args.neftune_noise_alpha)),
    ):
        why = reason if applies else why
    if why:
        _notice(why)
    return not why


@cache  # once per process and reason
def _notice(why: str) -> None:
    print(f"training by TRL's forward pass, which pads: {why}", flush=True)


def grpo(trainer: type) -> type:
    """Return a GRPO trainer whose forward pass reads each prompt once for all its samples.

    A group whose samples all earned the same has no gradient. Its rows are left out of the pass
    where nothing but the advantage teaches (no KL term, no entropy bonus) and the batch is used
    once. The logged entropy is then estimated from sampling for all rows alike, as the mean of
    -log p of the sampled tokens; computed from the rows that are read it would be that of the
    uncertain prompts.

    Args:
        trainer: trl.GRPOTrainer.
    """
    import torch

    class PrefixGRPOTrainer(trainer):  # type: ignore[misc, valid-type]
        _batch: dict[str, Any] | None = None  # the inputs of the loss that is being computed

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            self._batch = inputs
            try:
                return super()._compute_loss(model, inputs)
            finally:
                self._batch = None

        def _full_logits_logps(
            self,
            model: Any,
            input_ids: Any,
            attention_mask: Any,
            logits_to_keep: int,
            batch_size: Any = None,
            compute_entropy: bool = False,
            compute_aux_loss: bool = False,
            **images: Any,
        ) -> tuple[Any, Any, None]:
            """Return log-probabilities and entropies (rows, logits_to_keep) of the completions.

            Overrides TRL's method, whose third result, an auxiliary loss, is never asked for here.
            """
            beyond_decoder = compute_aux_loss or any(v is not None for v in images.values())
            if beyond_decoder or not can_replace_pass(self, model):
                return super()._full_logits_logps(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size,
                    compute_entropy,
                    compute_aux_loss,
                    **images,
                )
            weights = decoder.Decoder(model)
            log_probs = attention_mask.new_zeros(len(input_ids), logits_to_keep).float()
            entropies, rows = log_probs, torch.arange(len(input_ids), device=log_probs.device)
            if self._only_advantages_teach():  # all ratios are 1, entropies are estimated
                log_probs = self._batch["sampling_per_token_logps"]
                entropies, rows = -log_probs, self._batch["advantages"].nonzero()[:, 0]
                rows = rows if len(rows) else rows.new_zeros(1)
            for part in rows.split(batch_size or len(rows)):
                batch, order, completion_mask = prefix_batch(
                    input_ids, attention_mask.bool(), logits_to_keep, part
                )
                scores = decoder.score_completions(
                    weights, batch, self.temperature, self._entropy_bonus_enabled
                )
                blank = scores.label_log_probs.new_zeros(completion_mask.shape)
                padded = blank.masked_scatter(completion_mask, scores.label_log_probs)
                log_probs = log_probs.index_copy(0, order, padded)
                if not self._only_advantages_teach():
                    padded = blank.masked_scatter(completion_mask, scores.entropy)
                    entropies = entropies.index_copy(0, order, padded)
            return log_probs, entropies if compute_entropy else None, None

        def _only_advantages_teach(self) -> bool:
            """Return whether a row without advantage can be left out of the loss's pass."""
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

    return PrefixGRPOTrainer


def prefix_batch(
    ids: Any, attention_mask: Any, logits_to_keep: int, rows: Any
) -> tuple[decoder.PrefixBatch, Any, Any]:
    """Return these rows grouped by prompt.

    Args:
        ids, attention_mask: (rows, columns), the last `logits_to_keep` of which hold the
            completions.
        rows: Places of the rows to take.
    Returns:
        The batch; the places of its completions among all rows, in its order; and where in
        their columns they have tokens, (completions, logits_to_keep).
    """
    import torch

    split = ids.shape[1] - logits_to_keep
    groups: dict[tuple[int, ...], list[int]] = {}
    for row in rows.tolist():
        prompt = tuple(ids[row, :split][attention_mask[row, :split]].tolist())
        groups.setdefault(prompt, []).append(row)
    completions = [
        [ids[row, split:][attention_mask[row, split:]].tolist() for row in group]
        for group in groups.values()
    ]
    prompts = [list(prompt) for prompt in groups]
    order = torch.tensor([row for group in groups.values() for row in group])
    order = order.to(ids.device)
    batch = decoder.PrefixBatch(prompts, completions, ids.device)
    return batch, order, attention_mask[order, split:]


def sft(trainer: type, objective: Callable = OBJECTIVES["nll"]) -> type:
    """Return an SFT trainer that minimises a loss of `objectives`, by a pass without padding.

    Where `decoder` cannot stand in, likelihood is left to TRL and other losses take the padded
    scores of the model.

    Args:
        trainer: trl.SFTTrainer.
    """
    import torch
    from transformers.modeling_outputs import CausalLMOutputWithPast

    class PrefixSFTTrainer(trainer):  # type: ignore[misc, valid-type]
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
        ) -> Any:
            rows = self._prompts_and_completions(inputs)
            if rows and can_replace_pass(self, model):
                batch = decoder.PrefixBatch(*rows, inputs["labels"].device)
                labels = batch.targets

                def log_probs() -> Any:
                    return decoder.log_probs(decoder.Decoder(model), batch)

            elif objective is OBJECTIVES["nll"]:
                return super().compute_loss(model, inputs, *args, **kwargs)
            else:
                label_mask = inputs["labels"][:, 1:] != IGNORED
                labels = inputs["labels"][:, 1:][label_mask]
                passed = {k: inputs[k] for k in ("input_ids", "attention_mask") if k in inputs}

                def log_probs() -> Any:
                    return model(**passed).logits[:, :-1][label_mask].float().log_softmax(-1)

            packed = self._packed_model(model, labels, log_probs)
            return super().compute_loss(packed, inputs, *args, **kwargs)

        def _packed_model(self, model: Any, labels: Any, log_probs: Callable[[], Any]) -> Callable:
            """Return what TRL calls in place of the model: the objective, its loss and metrics.

            Args:
                labels: (n,) ids of the imitated tokens.
                log_probs: Runs the pass; (n, vocabulary), where they stand.
            """

            def base_log_probs() -> Any:
                adapted = self.accelerator.unwrap_model(model)
                with torch.no_grad(), adapted.disable_adapter():
                    return log_probs()

            def packed(num_items_in_batch: Any = None, **options: Any) -> Any:
                scores = log_probs()
                label_log_probs = scores.gather(1, labels[:, None])[:, 0]
                count = len(labels)
                items = count if num_items_in_batch is None else num_items_in_batch
                losses = objective(Tokens(label_log_probs, scores, labels, base_log_probs))
                output = CausalLMOutputWithPast(loss=losses.sum() / items)
                with torch.no_grad():
                    output.num_valid_tokens = label_log_probs.new_tensor(count)
                    output.entropy_sum = -(scores.exp() * scores).sum()
                    output.num_correct_tokens = (scores.argmax(-1) == labels).sum()
                return output

            packed.config = model.config
            return packed

        def _prompts_and_completions(
            self, inputs: dict[str, Any]
        ) -> tuple[list[list[int]], list[list[list[int]]]] | None:
            """Return the prompts of a batch and, for each, a list of its one completion.

            None where a row is not just a prompt without labels and a completion with them.
            """
            if self.args.loss_type != "chunked_nll" or "attention_mask" not in inputs:
                return None
            prompts, completions = [], []
            columns = (inputs[k].tolist() for k in ("input_ids", "attention_mask", "labels"))
            for ids, mask, labels in zip(*columns, strict=True):
                used = [i for i, attended in enumerate(mask) if attended]
                labelled = [i for i in used if labels[i] != IGNORED]
                only_completion = bool(labelled) and labelled == used[-len(labelled) :]
                if not only_completion or len(labelled) == len(used):
                    return None
                prompts.append([ids[i] for i in used[: -len(labelled)]])
                completions.append([[ids[i] for i in labelled]])
            return prompts, completions

    return PrefixSFTTrainer
