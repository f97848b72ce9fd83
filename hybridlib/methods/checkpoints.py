"""How does accuracy grow with compute? A training stops at a few steps and answers held-out rows.

So that one run can be read at any budget: at equal prompts, tokens or operations as another, or
where its validation curve is flat.
"""

import json
import math
import time
from dataclasses import asdict
from typing import Any

from hybridlib import drift, evaluate, files
from hybridlib.engine import operations
from hybridlib.methods.registry import Job

SPLITS = ("valid", "test")
"""What is answered: a plateau or a rate is chosen on the first, arms are compared on the second."""
STATE_FILE = "checkpoints.json"  # in the run's folder: step that was saved -> points and meter


def steps_of(shares: tuple[float, ...], max_steps: int) -> list[int]:
    """Return the steps after which accuracy is read, ascending, each once, at least step 1.

    >>> steps_of((0.01, 0.5, 1.0), 40)
    [1, 20, 40]
    """
    return sorted({max(1, math.ceil(share * max_steps)) for share in shares})


class Checkpoints:
    """Reads accuracy at the profile's `checkpoints`, and what the training had cost by then.

    Attributes:
        points: dicts of step, sequences (that the loss has seen), prompts (their distinct
            questions, visits counted), tokens (read, in sampling and in training), operations
            (see `engine.operations`), and greedy: {"family/split": a digit per row, 1 = right};
            trained on one family, also kl, the distance from the base there (see `drift`).
        seconds: of training until each point, evaluation left out.
        parameters: how many are trained.
    """

    def __init__(self, job: Job, trainer: Any, meter: operations.Meter):
        self.job, self.trainer, self.meter = job, trainer, meter
        self.points: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self.parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        self._steps: list[int] = []
        self._began = 0.0  # when a training without breaks and evaluations would have begun
        self._file = job.out / STATE_FILE
        trainer.add_callback(_calling(self))

    def begin(self, step: int, max_steps: int) -> None:
        """Begin to measure, or go on from what was known at the step that was saved."""
        self._steps = steps_of(self.job.profile.checkpoints, max_steps)
        self._began = time.perf_counter()
        if step:
            known = json.loads(self._file.read_text())[str(step)]
            self.points, self.seconds = known["points"], known["seconds"]
            vars(self.meter).update(known["meter"])
            self._began -= known["elapsed"]

    def end_step(self, step: int, saving: bool) -> None:
        """Read accuracy where it is due; note everything where the trainer is going to save."""
        elapsed = time.perf_counter() - self._began
        if step in self._steps:
            self.seconds.append(round(elapsed, 2))
            self.points.append(self._point(step))
            self._began = time.perf_counter() - elapsed
        if saving:
            saved = json.loads(self._file.read_text()) if self._file.exists() else {}
            saved[str(step)] = {
                "points": self.points,
                "seconds": self.seconds,
                "meter": asdict(self.meter),
                "elapsed": elapsed,
            }
            files.write(self._file, json.dumps(saved))

    def _point(self, step: int) -> dict[str, Any]:
        args, model = self.trainer.args, self.trainer.model
        sequences = step * args.train_batch_size * args.gradient_accumulation_steps
        sequences *= args.world_size
        training = model.training
        distance = {}
        with operations.uncounted():
            profile, tokenizer = self.job.profile, self.trainer.processing_class
            greedy = evaluate.greedy(model, tokenizer, profile, SPLITS, profile.n_checkpoint)
            if profile.drift and len(self.job.run.on) == 1:
                name = self.job.run.on[0]
                distance["kl"] = drift.of_dataset(model, tokenizer, profile, name)[1]["kl"]
        model.train(training)
        return {
            "step": step,
            "sequences": sequences,
            "prompts": sequences // getattr(args, "num_generations", 1),
            "tokens": self.meter.read,
            "operations": self.meter.operations(self.parameters),
            "greedy": greedy,
            **distance,
        }


def _calling(checkpoints: Checkpoints) -> Any:
    """Return the trainer's callback that tells these checkpoints of its steps."""
    from transformers import TrainerCallback

    class Calling(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoints.begin(state.global_step, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoints.end_step(state.global_step, control.should_save)

    return Calling()
