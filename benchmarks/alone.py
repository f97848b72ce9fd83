"""What has to be measured in a process of its own: its memory, and the start of a run."""

import tempfile
import time
from dataclasses import replace
from typing import Any

from benchmarks.settings import RUN_STEPS, THREADS
from hybridlib.methods import train
from hybridlib.profiles import PROFILES, Profile
from hybridlib.study import Run


def small(threads: int) -> Profile:
    """Runs of a few steps with a short evaluation, so that a dozen of them can be repeated."""
    tiny = PROFILES["tiny"]
    return replace(tiny, name="benchmark", n_eval=12, threads=threads)


def run(number: int) -> Run:
    """SFT and GRPO in turn."""
    return Run(("sft", "grpo")[number % 2], steps=RUN_STEPS, seed=number // 2)


def peak(ours: bool) -> float:
    """Gigabytes of a process after three GRPO steps of 128 samples."""
    from benchmarks import steps

    steps.quiet(THREADS)
    with tempfile.TemporaryDirectory() as out:
        profile = replace(PROFILES["tiny"], threads=THREADS)
        steps.grpo(profile, ours, out, 3, per_device_train_batch_size=128).train()
    return train.peak_gb()


def one(number: int) -> float:
    """A run as a plain script does it: import, train with stock TRL, evaluate by `generate`."""
    began = time.perf_counter()
    from benchmarks import steps
    from hybridlib import data

    steps.quiet(THREADS)
    asked, profile = run(number), small(THREADS)
    build = {"sft": steps.sft, "grpo": steps.grpo}[asked.method]
    with tempfile.TemporaryDirectory() as out:
        trainer = build(profile, False, out, asked.steps)
        trainer.train()
    model = trainer.model.eval()
    for name in profile.datasets:
        for split in profile.splits:
            count = profile.n_eval if split == "test" else -(-profile.n_eval // 4)
            rows = data.load(name, split, count)["prompt"]
            for n in (1, profile.n_samples):
                steps.generate(model, trainer.processing_class, rows, n,
                               profile.max_completion_tokens, profile.n_batch)  # fmt: skip
    return time.perf_counter() - began


def pool(count: int) -> float:
    """The same runs by the study's workers; graded, too, which the plain script leaves out."""
    began = time.perf_counter()
    from concurrent.futures import wait

    from hybridlib import study
    from hybridlib.pool import Pool

    with Pool(small(1), study.execute) as workers:
        done: Any = wait([workers.submit(run(i), save=False) for i in range(count)])
        for future in done.done:
            future.result()
    return time.perf_counter() - began
