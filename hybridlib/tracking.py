"""Where is a training watched while it goes on? In TensorBoard, Weights & Biases or Trackio.

A tracker reads what TRL logs and changes no number. What it writes lies beside the profile's runs,
under the run's id, and leaves the machine only where the tracker's own settings say so.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hybridlib import StudyError, files
from hybridlib.markdown import cell
from hybridlib.profiles import Profile
from hybridlib.registry import Registry
from hybridlib.runs import Run

CHOSEN = "HYBRIDLIB_TRACK"
"""The environment variable that names the tracker, for this process and its workers."""
TRACKERS = Registry("tracker")
"""Name of a tracker and of its package -> `fn(run id, profile name, config, step)`, which opens a
run, from an optimizer step on, with methods `log`, `table` and `close`.
"""


@TRACKERS.register(name="tensorboard")
class TensorBoard:
    """A folder of events for each run."""

    def __init__(self, run_id: str, profile_name: str, config: dict[str, Any], step: int):
        from torch.utils.tensorboard import SummaryWriter

        folder = _folder(profile_name, "tensorboard") / run_id
        if not step:  # of an earlier training
            shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)
        self.writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", step)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write one point of each metric."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Write a table in Markdown."""
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join(f"| {' | '.join(map(_in_a_cell, line))} |" for line in lines)
        self.writer.add_text("completions", text, step)

    def close(self) -> None:
        """End the run."""
        self.writer.close()


@TRACKERS.register(name="wandb")
class WeightsAndBiases:
    """Offline unless WANDB_MODE says else; `wandb sync` sends it afterwards."""

    def __init__(self, run_id: str, profile_name: str, config: dict[str, Any], step: int):
        import wandb

        self.wandb = wandb
        self.run = wandb.init(
            project=profile_name,
            name=run_id,
            config=config,
            dir=str(_folder(profile_name, "wandb")),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write one point of each metric."""
        self.run.log(metrics, step=step)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Write a table."""
        shown = self.wandb.Table(columns=[*columns], data=[[*row] for row in rows])
        self.run.log({"completions": shown}, step=step)

    def close(self) -> None:
        """End the run."""
        self.run.finish()


@TRACKERS.register(name="trackio")
class Trackio:
    """A local database; TRACKIO_DIR says where, and TRACKIO_SPACE_ID sends it to a Space."""

    def __init__(self, run_id: str, profile_name: str, config: dict[str, Any], step: int):
        os.environ.setdefault("TRACKIO_DIR", str(_folder(profile_name, "trackio")))
        import trackio

        self.trackio = trackio
        trackio.init(project=profile_name, name=run_id, config=config)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write one point of each metric."""
        self.trackio.log(metrics, step=step)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Write a table."""
        import pandas as pd

        frame = pd.DataFrame([*rows], columns=[*columns])
        self.trackio.log({"completions": self.trackio.Table(dataframe=frame)}, step=step)

    def close(self) -> None:
        """End the run."""
        self.trackio.finish()


def choose(name: str) -> None:
    """Let the trainings of this process and of its workers to come be tracked; "" = as before.

    Raises:
        StudyError: no such tracker, or its package is not installed.
    """
    if not name:
        return
    TRACKERS[name]  # raises with the valid names
    if importlib.util.find_spec(name) is None:
        raise StudyError(f"{name} is not installed; pip install {name}, or leave out --track")
    os.environ[CHOSEN] = name


def attach(trainer: Any, run: Run, profile: Profile) -> None:
    """Add the tracker that was chosen, if any, to a trainer of TRL; the first process alone writes.

    Tracked are the metrics of every logged step, as train/NAME, the resolved run with its setting
    and every option of its trainer, and of GRPO the answers of the step with their rewards.
    """
    if not (name := os.environ.get(CHOSEN)):
        return
    from transformers import TrainerCallback

    resolved = {"run": asdict(run), "setting": asdict(profile), "trainer": trainer.args.to_dict()}
    config = json.loads(json.dumps(resolved, default=str))

    class Tracking(TrainerCallback):
        tracker: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                self.tracker = TRACKERS[name](run.id, profile.name, config, state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not self.tracker:
                return
            numbers = {k: v for k, v in logs.items() if isinstance(v, int | float)}
            metrics = {f"train/{metric}": value for metric, value in numbers.items()}
            self.tracker.log(metrics, state.global_step)
            if "loss" in logs and (answers := completions(trainer)):
                self.tracker.table(*answers, state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.tracker:
                self.tracker.close()
                self.tracker = None

    trainer.add_callback(Tracking())


def completions(trainer: Any) -> tuple[list[str], list[tuple[Any, ...]]] | None:
    """Return columns and rows of what a GRPO trainer sampled last; None of any other trainer.

    A row is a question as the model reads it, an answer, and its reward by each reward function.
    """
    logs = getattr(trainer, "_logs", None)
    if not logs or not logs["completion"]:
        return None
    columns = {"question": logs["prompt"], "answer": logs["completion"], **logs["rewards"]}
    return [*columns], [*zip(*columns.values(), strict=True)]


def _folder(profile_name: str, tracker: str) -> Path:
    folder = files.runs_folder(profile_name) / tracker
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _in_a_cell(value: Any) -> str:
    """Return a value as one line of a Markdown table."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return cell(text).replace("\n", "<br>")
