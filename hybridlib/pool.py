"""Who executes the runs, and when will it be done? Worker processes, their order, progress.

A worker imports the heavy libraries once and takes run after run. Unsloth changes TRL for its whole
process, so it has a worker of its own. What a worker does with a run it is told: `Pool` receives
the function.
"""

import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from graphlib import TopologicalSorter
from typing import Any

from hybridlib import StudyError, files
from hybridlib.profiles import Profile
from hybridlib.runs import Run


class Pool:
    """Worker processes for the runs of one profile; a context that ends them.

    Args:
        execute: `fn(run, profile, **options) -> record`, importable by a fresh process.
        workers: processes at once; 0 = one per GPU, or as many as the cores carry.
    """

    def __init__(self, profile: Profile, execute: Callable[..., Any], workers: int = 0):
        self.profile, self.execute, self.gpus = profile, execute, count_gpus()
        cores = max(1, (os.cpu_count() or 1) // profile.threads)
        self.workers = workers or self.gpus or cores
        self.executors: dict[str, ProcessPoolExecutor] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: Any) -> None:
        for executor in self.executors.values():
            if any(error):  # do not wait for runs that nobody waits for
                for process in list((executor._processes or {}).values()):
                    process.terminate()
            executor.shutdown(cancel_futures=True)

    def submit(self, run: Run, **options: Any) -> Future:
        """Execute a run in a worker of its backend; `options` go to the function."""
        from multiprocessing import get_context

        if run.backend not in self.executors:
            count = 1 if run.backend == "unsloth" else self.workers
            context = get_context("spawn")
            tickets = context.Queue()
            for ticket in range(count):
                tickets.put(ticket)
            self.executors[run.backend] = ProcessPoolExecutor(
                count, context, _warm_up, (run.backend, self.profile, tickets, self.gpus)
            )
        return self.executors[run.backend].submit(self.execute, run, self.profile, **options)

    def work(self, todo: Collection[Run], save: bool = True) -> dict[str, Any]:
        """Execute these runs, printing progress and the time left; return id -> record.

        Runs wait for the runs that they start from. One that fails does not stop the others.

        Args:
            save: replace the stored records; else only adapters are made.
        Raises:
            StudyError: some failed; each is named with its reason.
        """
        runs = {run.id: run for run in todo}
        graph = {name: [n for n in run.prerequisites if n in runs] for name, run in runs.items()}
        order = TopologicalSorter(graph)
        order.prepare()
        ready: list[str] = []
        failed: dict[str, str] = {}
        records: dict[str, Any] = {}
        left = dict(runs)
        running: dict[Future, tuple[Run, float]] = {}
        clock = Clock(len(runs), self.workers)
        logs = files.runs_folder(self.profile.name).relative_to(files.ROOT)
        print(f"{len(runs)} runs, {self.workers} at a time; logs in {logs}", flush=True)
        while order.is_active():
            ready += order.get_ready()
            while ready and len(running) < self.workers:
                run = runs[ready.pop(0)]
                if lost := [name for name in run.prerequisites if name in failed]:
                    failed[run.id] = f"needs {lost[0]}"
                    left.pop(run.id)
                    order.done(run.id)
                    ready += order.get_ready()
                else:
                    running[self.submit(run, save=save, force=True)] = run, time.time()
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run, began = running.pop(future)
                left.pop(run.id)
                order.done(run.id)
                if error := future.exception():
                    failed[run.id] = _one_line(error)
                    print(f"FAILED {run.id}: {failed[run.id]}", flush=True)
                else:
                    records[run.id] = future.result()
                if isinstance(error, BrokenProcessPool):
                    self.executors.pop(run.backend).shutdown()
                print(clock.progress(run, time.time() - began, list(left.values())), flush=True)
        if failed:
            lines = "; ".join(f"{name}: {why}" for name, why in failed.items())
            raise StudyError(f"{len(failed)} of {len(runs)} runs failed: {lines}")
        return records


class Clock:
    """Estimates the time left from the mean seconds of each method, over the workers."""

    def __init__(self, total: int, workers: int):
        self.total, self.workers, self.began = total, workers, time.time()
        self.seconds: dict[str, list[float]] = {}

    def progress(self, run: Run, seconds: float, left: list[Run]) -> str:
        """Return one line: how many are done, what this run took, time so far and time left."""
        self.seconds.setdefault(run.method, []).append(seconds)
        means = {method: sum(spent) / len(spent) for method, spent in self.seconds.items()}
        typical = sum(means.values()) / len(means)
        rest = sum(means.get(other.method, typical) for other in left) / self.workers
        return (
            f"[{self.total - len(left):3}/{self.total}] {seconds:4.0f} s  {run.id}  "
            f"({_minutes(time.time() - self.began)} so far, about {_minutes(rest)} left)"
        )


def count_gpus() -> int:
    """Return how many GPUs torch can use."""
    import torch

    return torch.cuda.device_count()


def _warm_up(backend: str, profile: Profile, tickets: Any, gpus: int) -> None:
    """Set up a worker: its GPU, its log, its threads, and the imports that take ten seconds."""
    ticket = tickets.get()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(ticket % gpus)
    os.environ.setdefault("OMP_NUM_THREADS", str(profile.threads))
    log = files.runs_folder(profile.name) / f"worker-{backend}-{ticket}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    stream = log.open("a", buffering=1)
    for descriptor in (1, 2):
        os.dup2(stream.fileno(), descriptor)
    from hybridlib import models

    models.import_backend(backend)
    import torch

    torch.set_num_threads(profile.threads)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1][:300]}"
