"""python -m benchmarks.speed [--before COMMIT]: a GRPO step against its floor, before and after.

The engine as it was at a commit and as it is here take steps in turns, each in a process of its
own, at the sizes of the small study and of the large one; benchmarks/speed.json keeps them.
Seconds are those of one core's work (CPU time of a process with one thread), so that a shared
machine blurs them less; the sandbox of the rewards works in another process and is not in them.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import page
from benchmarks.engine import counted_passes, machine_limits, shortest_step
from hybridlib import ROOT, StudyError, files, results
from hybridlib.profiles import PROFILES

BEFORE = "9ed9fba"  # the last commit whose gradients took the folded matrix
SAMPLES = (48, 256)  # of a step: 6 prompts with 8 each, and 32
BASE = Path(__file__).parents[1] / "data" / "bases" / "small"  # today's, for both engines
PARTS = ("step", "sampling", "rewards", "forward", "backward")


def step(samples: int, count: int) -> dict[str, Any]:
    """Take steps and one to warm up; return the seconds of each and the floor, on one thread."""
    import torch

    from benchmarks import steps

    steps.quiet(1)
    torch.set_num_threads(1)
    profile = replace(PROFILES["tiny"], model=str(BASE), threads=1)
    limits = machine_limits(2, time.process_time)
    with tempfile.TemporaryDirectory() as out, counted_passes() as passes:
        options = dict(per_device_train_batch_size=samples, num_generations=8)
        trainer = steps.grpo(profile, True, out, count + 1, **options)
        seconds = steps.seconds(trainer, time.process_time)
    return {"seconds": seconds, "floor": shortest_step(trainer, passes, samples, *limits)}


def answer() -> None:
    """Do `step` for each line of standard input, two numbers; print what it returns as JSON."""
    for line in sys.stdin:
        print(json.dumps(step(*map(int, line.split()))), flush=True)


class _Engine:
    """A process that takes steps with the package that lies in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        # The working folder comes first on the path: its package, and the benchmarks of this one.
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks import speed; speed.answer()"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self, samples: int, count: int) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        print(samples, count, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith('{"seconds"'):  # libraries print, too
                return json.loads(line)
        raise StudyError(f"the engine in {self.folder} failed; its message stands above")


def in_turns(before: str, count: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each size and engine.

    Raises:
        StudyError: A process failed, or there is no such commit.
    """
    rows = []
    with tempfile.TemporaryDirectory() as old:
        _check_out(before, Path(old))
        engines = {"before": _Engine(Path(old)), "after": _Engine(ROOT)}
        try:
            for samples in SAMPLES:
                taken: dict[str, list[dict]] = {name: [] for name in engines}
                for _ in range(rounds):
                    for name, engine in engines.items():
                        taken[name].append(engine.step(samples, count))
                rows += _rows(samples, taken)
        finally:
            for engine in engines.values():
                engine.process.kill()
    return rows


def _check_out(commit: str, folder: Path) -> None:
    """Write the package as it was at a commit into a folder."""
    command = ["git", "archive", commit, "hybridlib"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode:
        raise StudyError(f"no commit {commit} in {ROOT}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _rows(samples: int, taken: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """Return a row for each engine, against one floor: of the most that the machine did for it."""
    floors = [turn["floor"] for turns in taken.values() for turn in turns]
    peak, bandwidth = (max(f[key] for f in floors) for key in ("peak_flops", "bandwidth"))
    operations, read = (median(f[key] for f in floors) for key in ("operations", "bytes"))
    rows = []
    for name, turns in taken.items():
        rows.append(_row(name, samples, turns, operations / peak + read / bandwidth))
        print(_line(rows[-1]), flush=True)
    return rows


def _row(name: str, samples: int, taken: list[dict], floor: float) -> dict[str, Any]:
    seconds = {part: [s for t in taken for s in t["seconds"][part]] for part in PARTS}
    medians = {part: median(values) for part, values in seconds.items()}
    return {
        "engine": name,
        "samples": samples,
        "n": len(seconds["step"]),
        "median": medians,
        "range": {part: [min(values), max(values)] for part, values in seconds.items()},
        "floor": floor,
        "times": medians["step"] / floor,
        "fewest_times": min(seconds["step"]) / floor,  # a busy machine slows most steps, not all
        "counted": [t["floor"] for t in taken],
    }


def _line(row: dict[str, Any]) -> str:
    parts = "  ".join(f"{part} {row['median'][part]:.3f}" for part in PARTS)
    return (
        f"{row['samples']:4} samples, {row['engine']:6}  {parts}  floor {row['floor']:.3f}  "
        f"{row['times']:.2f} times the floor, at best {row['fewest_times']:.2f}  n = {row['n']}"
    )


def main() -> int:
    read = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    read.add_argument("--before", default=BEFORE, help=f"commit to compare with ({BEFORE})")
    read.add_argument("--steps", type=int, default=3, help="timed steps a process (3)")
    read.add_argument("--rounds", type=int, default=3, help="processes of each engine (3)")
    asked = read.parse_args()
    try:
        rows = in_turns(asked.before, asked.steps, asked.rounds)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    record = {"before": asked.before, "rows": rows, "provenance": results.provenance(threads=1)}
    files.write(page.SPEED, json.dumps(record, indent=1))
    page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
