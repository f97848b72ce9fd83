"""How do SFT and RL share one training? Both losses in one adapter, in every step or by turns.

The RL half is the study's GRPO, the SFT half its SFT trainer, asked for nothing but its loss: a run
may vary rewards, target and objective as it may in either alone. Reported wins of such methods over
SFT and then RL rest in part on SFT baselines that lost micro-batches (arXiv:2604.23747), so every
method comes with its control: `chord` minimises any objective, `interleave` ignores what is solved.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hybridlib import StudyError
from hybridlib.data.audit import audit
from hybridlib.engine import trainers
from hybridlib.methods.registry import METHODS, Job, Trained
from hybridlib.methods.train import (
    demonstrations,
    fit,
    grpo_facts,
    grpo_trainer,
    load_model,
    trl_config,
)
from hybridlib.objectives import OBJECTIVES
from hybridlib.targets import TARGETS

MU_START, MU_END = 0.9, 0.05  # CHORD-mu's weight of the SFT loss in the first and last step
MU_CONSTANT = 0.1  # CHORD-phi's weight of the SFT loss in every step
DEMONSTRATIONS_PER_SAMPLE = 1 / 4  # CHORD: 64 demonstrations to 256 samples in a step
STATE_FILE = "imitation.json"  # in a checkpoint

Wrap = Callable[[type, Any], type]  # (GRPO trainer class, SFT trainer) -> GRPO trainer class
FACTS = dict(trainer="grpo", needs=("rows", "solutions"), backends=("hf",))


@METHODS.register(words="CHORD-mu", **FACTS)
def chord_mu(job: Job) -> Trained:
    """CHORD-mu: (1 - mu) GRPO + mu SFT, mu falling by a cosine (arXiv:2508.11408)."""

    def decayed(progress: float) -> float:
        return MU_END + (MU_START - MU_END) * (1 + math.cos(math.pi * progress)) / 2

    return train_together(job, partial(blended, weight=decayed))


@METHODS.register(words="CHORD", **FACTS)
def chord(job: Job) -> Trained:
    """(1 - mu) GRPO + mu SFT with constant mu; CHORD-phi where the objective is chord_phi.

    With the objective nll it is the control of CHORD-phi: the same mixture, every token of the
    demonstrations weighted alike.
    """
    return train_together(job, partial(blended, weight=lambda _: MU_CONSTANT))


@METHODS.register(words="ReLIFT", **FACTS)
def relift(job: Job) -> Trained:
    """GRPO, and SFT steps on the prompts that it never solved: ReLIFT (arXiv:2506.07527)."""
    return _train_by_turns(job, at_random=False)


@METHODS.register(words="GRPO with interleaved SFT", **FACTS)
def interleave(job: Job) -> Trained:
    """ReLIFT's control: as many SFT rows as ReLIFT would take, drawn at random from each batch."""
    return _train_by_turns(job, at_random=True)


def _train_by_turns(job: Job, at_random: bool) -> Trained:
    run = job.run
    if "correct" not in run.rewards:
        raise StudyError(f"{run.method} asks what was solved: pay correct, at weight 0 if need be")
    positions = {row_id: position for position, row_id in enumerate(job.rows["id"])}
    column = run.rewards.index("correct")
    return train_together(
        job, partial(by_turns, positions=positions, column=column, at_random=at_random)
    )


def with_sft_loss(trainer: type, imitator: Any) -> type:
    """Return a GRPO trainer class with `_imitate`, which computes the SFT loss of given rows.

    Counts the imitated rows, steps and tokens in `imitated`, and adds the tokens to the run's own
    count. `imitated` also holds the rows that wait to be imitated; checkpoints save and restore it.

    Args:
        trainer: trl.GRPOTrainer, or a subclass.
        imitator: a trl.SFTTrainer, or of a subclass, of the same model.
    """

    class Imitating(trainer):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.imitated: dict[str, Any] = {"rows": 0, "steps": 0, "tokens": 0, "waiting": []}

        def _batches(self, parts: list[list[int]]) -> list[tuple[dict[str, Any], int, int]]:
            """Collate a step's rows into micro-batches; rows are positions in the imitator's set.

            Returns a tuple per micro-batch that is not empty: the batch, the number of its labels,
            and the number of labels in the whole step.
            """
            rows = [[imitator.train_dataset[row] for row in part] for part in parts if part]
            batches = [imitator.data_collator(part) for part in rows]
            labels = [int((batch["labels"] != -100).sum()) for batch in batches]
            return [(batch, n, sum(labels)) for batch, n in zip(batches, labels, strict=True)]

        def _imitate(
            self, model: Any, batch: dict[str, Any], batch_labels: int, step_labels: int
        ) -> Any:
            """Return the sum of a micro-batch's losses per label, divided by the step's labels."""
            tokens = int(batch["attention_mask"].sum())
            self.imitated["rows"] += len(batch["labels"])
            self.imitated["tokens"] += tokens
            self.state.num_input_tokens_seen += tokens
            batch = imitator._prepare_inputs(batch)
            loss = imitator.compute_loss(model, batch, num_items_in_batch=step_labels)
            self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
            self._metrics["train"]["sft_loss"].append(loss.item() * step_labels / batch_labels)
            return loss

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            super()._save_optimizer_and_scheduler(output_dir)
            (Path(output_dir) / STATE_FILE).write_text(json.dumps(self.imitated))

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint:
                self.imitated = json.loads((Path(checkpoint) / STATE_FILE).read_text())

    return Imitating


def blended(trainer: type, imitator: Any, weight: Callable[[float], float]) -> type:
    """Return a GRPO trainer class that minimises (1 - mu) GRPO + mu SFT in every step.

    The rows to imitate are drawn from (seed, optimizer step), so that a run that goes on from a
    checkpoint draws what it would have drawn.

    Args:
        trainer, imitator: see `with_sft_loss`.
        weight: progress of the run, 0 in the first step and 1 in the last -> mu.
    """

    class Blended(with_sft_loss(trainer, imitator)):  # type: ignore[misc]
        _drawn_for, _batches_left = -1, iter(())

        def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
            loss = super().compute_loss(model, inputs, *rest, **more)
            if self._drawn_for != self.state.global_step:  # its first micro-batch
                self._drawn_for = self.state.global_step
                parts = self.current_gradient_accumulation_steps
                rows = self._draw_rows()
                self._batches_left = iter(self._batches([rows[i::parts] for i in range(parts)]))
                self.imitated["steps"] += 1
            mu = weight(self._drawn_for / max(1, self.state.max_steps - 1))
            self._metrics["train"]["mu"].append(mu)
            batch = next(self._batches_left, None)  # none where micro-batches outnumber the rows
            return (1 - mu) * loss + (mu * self._imitate(model, *batch) if batch else 0)

        def _draw_rows(self) -> list[int]:
            args, total = self.args, len(imitator.train_dataset)
            samples = args.per_device_train_batch_size * args.gradient_accumulation_steps
            size = min(total, max(1, int(DEMONSTRATIONS_PER_SAMPLE * samples)))
            return random.Random(f"{args.seed}/{self._drawn_for}").sample(range(total), size)

    return Blended


def by_turns(
    trainer: type, imitator: Any, positions: dict[str, int], column: int, at_random: bool
) -> type:
    """Return a GRPO trainer class that also takes SFT steps, on prompts of its batches.

    A prompt was never solved where none of its samples earned the reward `correct`. Neither the
    total reward nor its spread would show it: a wrong answer may be rewarded for its form. When as
    many rows wait as a batch has prompts (128 of 128 in the paper), one SFT step is taken on them,
    with the optimizer and the learning rate of the GRPO step before it.

    Args:
        trainer, imitator: see `with_sft_loss`.
        positions: id of a row -> its position among the rows of the imitator.
        column: index of `correct` among the rewards.
        at_random: as many rows as were never solved, but drawn from the whole batch by
            (seed, step): the control.
    """
    from transformers import TrainerCallback

    class AfterOptimizerStep(TrainerCallback):
        def __init__(self, action: Callable[[], None]):
            self.action = action

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            self.action()

    class ByTurns(with_sft_loss(trainer, imitator)):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.add_callback(AfterOptimizerStep(self._take_sft_steps))
            self.sft_batch_size = self.args.generation_batch_size // self.num_generations

        def _calculate_rewards(self, inputs: list[dict[str, Any]], *batch: Any) -> Any:
            rewards = super()._calculate_rewards(inputs, *batch)  # (samples, rewards)
            groups = (rewards[:, column] > 0).unflatten(0, (-1, self.num_generations))
            prompts = [positions[row["id"]] for row in inputs[:: self.num_generations]]
            solved = groups.any(1).tolist()
            waiting = [
                prompt for prompt, was_solved in zip(prompts, solved, strict=True) if not was_solved
            ]
            if at_random:
                generator = random.Random(f"{self.args.seed}/{self.state.global_step}")
                waiting = generator.sample(prompts, len(waiting))
            self.imitated["waiting"] += waiting
            return rewards

        def _take_sft_steps(self) -> None:
            waiting = self.imitated["waiting"]
            while len(waiting) >= self.sft_batch_size:
                [batch_and_counts] = self._batches([waiting[: self.sft_batch_size]])
                del waiting[: self.sft_batch_size]
                self.optimizer.zero_grad()  # the GRPO step has been taken, its gradients remain
                with self.compute_loss_context_manager():
                    loss = self._imitate(self.model_wrapped, *batch_and_counts)
                self.accelerator.backward(loss)
                if self.args.max_grad_norm > 0:
                    self._clip_grad_norm(self.model_wrapped)
                self.optimizer.step()
                self.imitated["steps"] += 1

    return ByTurns


def train_together(job: Job, wrap: Wrap) -> Trained:
    """Train by GRPO and SFT in one trainer, and report what was imitated.

    Args:
        wrap: (GRPO trainer class, SFT trainer of the same model) -> GRPO trainer class that
            minimises both losses; see `blended` and `by_turns`.

    Returns:
        As `train.grpo`; the curve also has `sft_loss` and `mu`, the facts `imitated`: rows, steps,
        tokens, waiting (rows not yet taken) and mu (first and last), where it has one.

    Raises:
        StudyError: rows or targets that `audit` refuses.
    """
    run = job.run
    demonstrations = TARGETS[run.target](job.rows, job.profile, run.seed)
    for rows in (job.rows, demonstrations):
        audit(rows)
    model, tokenizer = load_model(job)
    imitator = _imitator(job, demonstrations, model, tokenizer)
    trainer = grpo_trainer(job, model, tokenizer, partial(wrap, imitator=imitator))
    trained, logged = fit(trainer, job), trainer.state.log_history
    imitated = trainer.imitated | {"waiting": len(trainer.imitated["waiting"])}
    if mus := [entry["mu"] for entry in logged if "mu" in entry]:
        imitated["mu"] = [round(mu, 4) for mu in (mus[0], mus[-1])]
    return trained._replace(
        curve=_with_imitation(trained.curve, logged),
        facts=grpo_facts(trainer, run) | {"imitated": imitated},
    )


def _imitator(job: Job, rows: Any, model: Any, tokenizer: Any) -> Any:
    """Return the study's SFT trainer of these rows, which is asked for losses and never trains."""
    from trl import SFTConfig, SFTTrainer

    plain = replace(job.run, method="sft", options=())  # the run's options are GRPO's
    return trainers.sft(SFTTrainer, OBJECTIVES[job.run.objective])(
        model=model,
        args=trl_config(
            SFTConfig, plain, job.profile, job.out, max_length=None, completion_only_loss=True
        ),
        train_dataset=demonstrations(rows, model, tokenizer),
        processing_class=tokenizer,
    )


def _with_imitation(
    curve: Sequence[dict[str, float]], logged: Sequence[dict[str, Any]]
) -> list[dict[str, float]]:
    """Return the curve with SFT's loss and weight: means over the logged steps of each point."""
    points, previous_step = [], 0
    for point in curve:
        window = [entry for entry in logged if previous_step < entry["step"] <= point["step"]]
        previous_step = point["step"]
        means = {}
        for name in ("sft_loss", "mu"):
            if values := [entry[name] for entry in window if name in entry]:
                means[name] = round(sum(values) / len(values), 4)
        points.append(point | means)
    return points
