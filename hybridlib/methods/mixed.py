"""How do SFT and RL share one training? Both losses in one adapter, in every step or by turns.

The RL half is the study's GRPO, the SFT half its SFT trainer, asked for nothing but its loss: a run
may vary rewards, target and objective as it may in either alone. Reported wins of such methods over
SFT and then RL rest in part on SFT baselines that lost micro-batches (arXiv:2604.23747), so every
method comes with its control: `chord` minimises any objective, `interleave` ignores what is solved.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, reward_shares, rewards
from hybridlib.data.audit import audit
from hybridlib.engine import trainers
from hybridlib.methods import train
from hybridlib.methods.train import METHODS, Trained
from hybridlib.objectives import OBJECTIVES
from hybridlib.profiles import Profile
from hybridlib.targets import TARGETS

if TYPE_CHECKING:
    from datasets import Dataset

    from hybridlib.study import Run

FIRST, LAST = 0.9, 0.05  # CHORD-mu's weight of the SFT loss, in the first and in the last step
CONSTANT = 0.1  # CHORD-phi's
EXPERTS = 1 / 4  # rows imitated in a step for each of its samples: 64 to 256 in the paper
KEPT = "imitation.json"  # in a checkpoint


@METHODS.register(rows=True)
def chord_mu(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None = None
) -> Trained:
    """CHORD-mu: (1 - mu) GRPO + mu SFT, mu from FIRST to LAST by a cosine (arXiv:2508.11408)."""

    def decayed(done: float) -> float:
        return LAST + (FIRST - LAST) * (1 + math.cos(math.pi * done)) / 2

    return _together(run, profile, rows, out, start, partial(blended, weight=decayed))


@METHODS.register(rows=True)
def chord(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None = None
) -> Trained:
    """The same sum with mu = CONSTANT. CHORD-phi where the run's objective is chord_phi.

    With nll it is that method's control: the mixture without the weights on its tokens.
    """
    return _together(run, profile, rows, out, start, partial(blended, weight=lambda _: CONSTANT))


@METHODS.register(rows=True)
def relift(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None = None
) -> Trained:
    """GRPO, and SFT steps on the prompts that it never solved: ReLIFT (arXiv:2506.07527)."""
    return _by_turns(run, profile, rows, out, start, at_random=False)


@METHODS.register(rows=True)
def interleave(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None = None
) -> Trained:
    """ReLIFT's control: as many prompts as were never solved, but any of their batch."""
    return _by_turns(run, profile, rows, out, start, at_random=True)


def _by_turns(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None, at_random: bool
) -> Trained:
    if "correct" not in run.rewards:
        raise StudyError(f"{run.method} asks what was solved: pay correct, at weight 0 if need be")
    column, places = run.rewards.index("correct"), {name: i for i, name in enumerate(rows["id"])}
    mixed = partial(by_turns, places=places, column=column, at_random=at_random)
    return _together(run, profile, rows, out, start, mixed)


def imitating(trainer: type, imitator: Any) -> type:
    """A GRPO trainer that can ask for the SFT loss of rows, and counts what it imitates.

    These tokens count among the run's. A checkpoint keeps the counts and the rows that wait.

    Args:
        trainer: trl.GRPOTrainer, or a subclass.
        imitator: a trl.SFTTrainer, or of a subclass, of the same model.
    """

    class Imitating(trainer):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.kept: dict[str, Any] = {"rows": 0, "steps": 0, "tokens": 0, "waiting": []}

        def _batches(self, parts: list[list[int]]) -> list[tuple[dict[str, Any], int, int]]:
            """Micro-batches of a step, the tokens that each teaches, and that all of them teach."""
            rows = [[imitator.train_dataset[row] for row in part] for part in parts if part]
            found = [imitator.data_collator(part) for part in rows]
            taught = [int((batch["labels"] != -100).sum()) for batch in found]
            return [(batch, n, sum(taught)) for batch, n in zip(found, taught, strict=True)]

        def _imitate(self, model: Any, batch: dict[str, Any], taught: int, items: int) -> Any:
            """The sum of a micro-batch's losses per token, divided by the tokens of its step."""
            tokens = int(batch["attention_mask"].sum())
            self.kept["rows"] += len(batch["labels"])
            self.kept["tokens"] += tokens
            self.state.num_input_tokens_seen += tokens
            batch = imitator._prepare_inputs(batch)
            loss = imitator.compute_loss(model, batch, num_items_in_batch=items)
            self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
            self._metrics["train"]["sft_loss"].append(loss.item() * items / taught)
            return loss

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            super()._save_optimizer_and_scheduler(output_dir)
            (Path(output_dir) / KEPT).write_text(json.dumps(self.kept))

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint:
                self.kept = json.loads((Path(checkpoint) / KEPT).read_text())

    return Imitating


def blended(trainer: type, imitator: Any, weight: Callable[[float], float]) -> type:
    """A GRPO trainer that minimises (1 - mu) GRPO + mu SFT in every step.

    The rows to imitate are drawn from (seed, optimizer step), so that a run that goes on from a
    checkpoint draws what it would have drawn.

    Args:
        trainer, imitator: see `imitating`.
        weight: mu, of the part of the run that is done, 0 in the first step and 1 in the last.
    """

    class Blended(imitating(trainer, imitator)):  # type: ignore[misc]
        _at, _parts = -1, iter(())

        def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
            loss = super().compute_loss(model, inputs, *rest, **more)
            if self._at != self.state.global_step:  # its first micro-batch
                self._at, k = self.state.global_step, self.current_gradient_accumulation_steps
                drawn = self._drawn()
                self._parts = iter(self._batches([drawn[i::k] for i in range(k)]))
                self.kept["steps"] += 1
            mu = weight(self._at / max(1, self.state.max_steps - 1))
            self._metrics["train"]["mu"].append(mu)
            part = next(self._parts, None)  # none where micro-batches outnumber the rows
            return (1 - mu) * loss + (mu * self._imitate(model, *part) if part else 0)

        def _drawn(self) -> list[int]:
            args, total = self.args, len(imitator.train_dataset)
            samples = args.per_device_train_batch_size * args.gradient_accumulation_steps
            size = min(total, max(1, int(EXPERTS * samples)))
            return random.Random(f"{args.seed}/{self._at}").sample(range(total), size)

    return Blended


def by_turns(
    trainer: type, imitator: Any, places: dict[str, int], column: int, at_random: bool
) -> type:
    """A GRPO trainer that also takes SFT steps, on prompts of its batches.

    A prompt was never solved where none of its samples earned the reward `correct`. Neither the
    total reward nor its spread would tell: an answer may be wrong and paid for its form. As soon as
    as many wait as a batch has prompts (the paper: 128 of 128), one step is taken on just these
    rows, with the optimizer and the learning rate of the GRPO step before it.

    Args:
        trainer, imitator: see `imitating`.
        places: id of a row -> its place among the rows of the imitator.
        column: of `correct` among the rewards.
        at_random: rows of the same batch wait, drawn from (seed, step), as many as never solved.
    """
    from transformers import TrainerCallback

    class Turn(TrainerCallback):
        def __init__(self, take: Callable[[], None]):
            self.take = take

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            self.take()

    class ByTurns(imitating(trainer, imitator)):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.add_callback(Turn(self._take))
            self.size = self.args.generation_batch_size // self.num_generations

        def _calculate_rewards(self, inputs: list[dict[str, Any]], *batch: Any) -> Any:
            paid = super()._calculate_rewards(inputs, *batch)  # (samples, rewards)
            right = (paid[:, column] > 0).unflatten(0, (-1, self.num_generations)).any(1)
            asked = [places[row["id"]] for row in inputs[:: self.num_generations]]
            never = [row for row, solved in zip(asked, right.tolist(), strict=True) if not solved]
            if at_random:
                draw = random.Random(f"{self.args.seed}/{self.state.global_step}")
                never = draw.sample(asked, len(never))
            self.kept["waiting"] += never
            return paid

        def _take(self) -> None:
            waiting = self.kept["waiting"]
            while len(waiting) >= self.size:
                [rows] = self._batches([waiting[: self.size]])
                del waiting[: self.size]
                self.optimizer.zero_grad()  # of the step that has just been taken
                with self.compute_loss_context_manager():
                    loss = self._imitate(self.model_wrapped, *rows)
                self.accelerator.backward(loss)
                if self.args.max_grad_norm > 0:
                    self._clip_grad_norm(self.model_wrapped)
                self.optimizer.step()
                self.kept["steps"] += 1

    return ByTurns


def _together(
    run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path | None,
    mixed: Callable[[type, Any], type],
) -> Trained:  # fmt: skip
    """Train by GRPO as `train.grpo` does, in a trainer that `mixed` makes of it and of SFT's."""
    if run.backend != "hf":
        raise StudyError(f"{run.method} needs the backend hf")
    experts = TARGETS[run.target](rows, profile, run.seed)
    for known in (rows, experts):
        audit(known)
    model, tokenizer = train._begin(run, profile, start)
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    sft = replace(run, method="sft", options=())  # the options are GRPO's
    told = dict(max_length=None, completion_only_loss=True)
    imitator = trainers.sft(SFTTrainer, OBJECTIVES[run.objective])(
        model=model,
        args=train._config(SFTConfig, sft, profile, out, **told),
        train_dataset=experts.select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
    )
    grpo = replace(run, method="grpo", target="solution", objective="nll")
    args = train._config(GRPOConfig, grpo, profile, out)
    own_sampler = not args.use_vllm
    kind = mixed(trainers.grpo(GRPOTrainer) if own_sampler else GRPOTrainer, imitator)
    gold = [completion[-1]["content"] for completion in rows["completion"]]
    trainer = (reward_shares.watched(kind) if len(run.rewards) > 1 else kind)(
        model=model,
        args=args,
        reward_funcs=rewards.bound(run.rewards, model, tokenizer, args.max_completion_length),
        train_dataset=rows.remove_columns(["completion"]).add_column("gold", gold),
        processing_class=tokenizer,
        rollout_func=train.sampler(run.seed) if own_sampler else None,
    )
    trained, logged = train._train(trainer, out), trainer.state.log_history
    weights = dict(zip(run.rewards, run.reward_weights or [1.0] * len(run.rewards), strict=True))
    batches = -(-trainer.state.global_step * args.gradient_accumulation_steps
                // (args.steps_per_generation * args.num_iterations))  # fmt: skip
    facts = reward_shares.facts(logged, weights, batches * args.generation_batch_size)
    imitated = trainer.kept | {"waiting": len(trainer.kept["waiting"])}
    if mus := [entry["mu"] for entry in logged if "mu" in entry]:
        imitated["mu"] = [round(mu, 4) for mu in (mus[0], mus[-1])]
    curve = _curve(trained.curve, logged)
    return trained._replace(curve=curve, facts=facts | {"imitated": imitated})


def _curve(curve: list[dict[str, float]], logged: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The same curve with SFT's loss and weight: means over the logged steps of each point."""
    found, before = [], 0
    for point in curve:
        part = [entry for entry in logged if before < entry["step"] <= point["step"]]
        known = {key: [e[key] for e in part if key in e] for key in ("sft_loss", "mu")}
        found.append(point | {key: round(sum(v) / len(v), 4) for key, v in known.items() if v})
        before = point["step"]
    return found
