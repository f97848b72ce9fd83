"""How does one model learn from another? On-policy distillation: it samples, a teacher corrects.

Imitation trains on the teacher's answers, so the student never sees how to go on after its own
mistakes. Here the teacher scores the student's own samples, and scores every token, whereas a
reward scores an answer as a whole.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hybridlib import models
from hybridlib.data.audit import audit
from hybridlib.engine import decoder, trainers
from hybridlib.methods.registry import METHODS, Job, Trained
from hybridlib.methods.train import fit, grpo_facts, grpo_trainer, load_model

if TYPE_CHECKING:
    from torch import Tensor


@METHODS.register(
    trainer="grpo", needs=("rows", "teacher"), words="on-policy distillation", backends=("hf",)
)
def distil(job: Job) -> Trained:
    """Minimise KL(student || teacher) at each token that the student samples.

    This is GKD with lambda = beta = 1 (Agarwal et al. 2024, arXiv:2306.13649); MiniLLM
    (arXiv:2306.08543) minimises the same divergence of whole answers. The samples, their batches
    and the logged rewards are those of the study's GRPO; options of its own loss (loss_type,
    epsilon, beta) have no effect. The curve's `loss` is the divergence, in nats per token.

    The student starts from the run's start, or from a fresh adapter; the teacher is an adapter of
    the same base, in as many bits.

    Raises:
        StudyError: rows that `audit` refuses, options that TRL does not have, or a reward that
            cannot be computed for these rows.
    """
    audit(job.rows)
    model, tokenizer = load_model(job)
    teacher, _ = models.load(job.profile, start=job.teacher, nf4=job.nf4, trainable=False)
    trainer = grpo_trainer(job, model, tokenizer, partial(distilling, teacher=teacher.eval()))
    trained = fit(trainer, job)
    return trained._replace(facts=grpo_facts(trainer, job.run))


def distilling(trainer: type, teacher: Any) -> type:
    """Return a GRPO trainer class that minimises the divergence from a teacher.

    The loss is the mean divergence over the completion tokens of a generated batch: each
    micro-batch contributes its sum, divided by the number of tokens in all of them. No gradient
    goes through the sampling. Unlike in GRPO, prompts whose samples all earned the same reward
    contribute, too.

    Args:
        trainer: trl.GRPOTrainer, or a subclass.
        teacher: A model with the student's vocabulary, which stays as it is.
    """
    import torch

    class Distilling(trainer):  # type: ignore[misc, valid-type]
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> "Tensor":
            log_probs_of = scoring_function(self, model, teacher, inputs)
            log_probs = log_probs_of(model)
            with torch.no_grad(), self.accelerator.autocast():
                teacher_log_probs = log_probs_of(teacher)
            # TRL counts the tokens of all that is sampled at once, over all processes.
            sampled = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
            share = self.current_gradient_accumulation_steps / self.args.steps_per_generation
            return reverse_kl(log_probs, teacher_log_probs).sum() / (sampled * share)

    return Distilling


def scoring_function(
    trainer: Any, model: Any, teacher: Any, inputs: dict[str, Any]
) -> "Callable[[Any], Tensor]":
    """Return the function model -> log-probabilities that scores both models on one batch.

    The log-probabilities are those of the next token at every completion token of the batch,
    padding left out: (completion tokens, vocabulary), at the temperature of the sampling. Both
    models run on the study's decoder, or both on transformers; if only one did, the difference in
    rounding would count as divergence.

    Args:
        trainer: A GRPO trainer.
        model, teacher: The models that will be scored; only `model` needs gradients.
        inputs: The batch as the trainer's `_compute_loss` receives it.
    """
    import torch

    ids, mask = (
        torch.cat([inputs[f"prompt_{part}"], inputs[f"completion_{part}"]], dim=1)
        for part in ("ids", "mask")
    )
    completion_mask = inputs["completion_mask"].bool()
    width = completion_mask.shape[1]
    if trainers.can_replace_pass(trainer, model) and not decoder.unsupported(teacher):
        batch, _, _ = trainers.prefix_batch(ids, mask.bool(), width, torch.arange(len(ids)))
        return lambda either: decoder.log_probs(decoder.Decoder(either), batch, trainer.temperature)

    def padded(either: Any) -> "Tensor":
        output = either(
            input_ids=ids, attention_mask=mask, logits_to_keep=width + 1, use_cache=False
        )
        logits = output.logits[:, :-1][completion_mask].float()
        return (logits / trainer.temperature).log_softmax(-1)

    return padded


def reverse_kl(log_probs: "Tensor", teacher_log_probs: "Tensor") -> "Tensor":
    """Return KL(student || teacher) at each token in nats, (tokens,), over the whole vocabulary.

    Args:
        log_probs, teacher_log_probs: (tokens, vocabulary); the gradient goes through the first.
    """
    probs, teacher_probs = log_probs.exp(), teacher_log_probs.exp()
    # The last two terms sum to 0; with them the gradient of equal distributions is exactly 0,
    # where the rounding of sum(p) - 1 would be as long a step of Adam's as any other.
    terms = probs * (log_probs - teacher_log_probs) - probs + teacher_probs
    return terms.sum(-1)
