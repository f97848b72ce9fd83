"""What has to be measured in a process of its own? Its memory, and runs from the start."""

import tempfile
import time
from dataclasses import replace

from benchmarks.settings import RUN_STEPS, THREADS
from hybridlib.methods import train
from hybridlib.profiles import PROFILES, Profile
from hybridlib.study import Run


def small(threads: int) -> Profile:
    """Return a profile with a short evaluation, so that a dozen runs can be repeated."""
    tiny = PROFILES["tiny"]
    return replace(tiny, name="benchmark", n_eval=12, threads=threads)


def run(number: int) -> Run:
    """Return the short run of this number; SFT and GRPO take turns."""
    return Run(("sft", "grpo")[number % 2], steps=RUN_STEPS, seed=number // 2)


def peak(ours: bool) -> float:
    """Take three GRPO steps of 128 samples and return the peak memory of this process in GB."""
    from benchmarks import steps

    steps.quiet(THREADS)
    with tempfile.TemporaryDirectory() as out:
        profile = replace(PROFILES["tiny"], threads=THREADS)
        steps.grpo(profile, ours, out, 3, per_device_train_batch_size=128).train()
    return train.peak_memory_gib()


def one(number: int) -> float:
    """Do a run as a plain script does it and return its seconds.

    It imports, trains with stock TRL and evaluates by `generate`.
    """
    start = time.perf_counter()
    from benchmarks import steps
    from hybridlib import data

    steps.quiet(THREADS)
    settings, profile = run(number), small(THREADS)
    build = {"sft": steps.sft, "grpo": steps.grpo}[settings.method]
    with tempfile.TemporaryDirectory() as out:
        trainer = build(profile, False, out, settings.steps)
        trainer.train()
    model = trainer.model.eval()
    for name in profile.datasets:
        for split in profile.splits:
            count = profile.n_eval if split == "test" else -(-profile.n_eval // 4)
            rows = data.load(name, split, count)["prompt"]
            for n in (1, profile.n_samples):
                steps.generate(
                    model,
                    trainer.processing_class,
                    rows,
                    n,
                    profile.max_completion_tokens,
                    profile.n_batch,
                )
    return time.perf_counter() - start


def pool(count: int) -> float:
    """Do as many runs by the study's workers and return their seconds.

    They are graded, too, which the plain script leaves out.
    """
    start = time.perf_counter()
    from concurrent.futures import wait

    from hybridlib import study
    from hybridlib.pool import Pool

    with Pool(small(1), study.execute) as workers:
        finished, _ = wait([workers.submit(run(number), save=False) for number in range(count)])
        for future in finished:
            future.result()
    return time.perf_counter() - start
