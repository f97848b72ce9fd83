"""Who executes the runs, and when will it be done? Worker processes, their order, progress.

A worker imports the heavy libraries once and takes run after run. Unsloth changes TRL for its whole
process, so it has a worker of its own.
"""

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from hybridlib import ROOT, StudyError
from hybridlib.profiles import Profile
from hybridlib.study import Run, execute


class Pool:
    """Workers for the runs of one profile; a context that ends them."""

    def __init__(self, profile: Profile, workers: int = 0):
        self.profile, self.gpus = profile, gpus()
        cores = max(1, (os.cpu_count() or 1) // profile.threads)
        self.workers = workers or self.gpus or cores
        self.pools: dict[str, ProcessPoolExecutor] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: Any) -> None:
        for pool in self.pools.values():
            if any(error):  # do not wait for runs that nobody waits for
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(cancel_futures=True)

    def submit(self, run: Run, save: bool = True) -> Future:
        """Execute a run in a worker of its backend; replaces a stored record (`plan` decided)."""
        from multiprocessing import get_context

        if run.backend not in self.pools:
            count = 1 if run.backend == "unsloth" else self.workers
            context = get_context("spawn")
            tickets = context.Queue()
            for ticket in range(count):
                tickets.put(ticket)
            self.pools[run.backend] = ProcessPoolExecutor(
                count, context, _warm, (run.backend, self.profile, tickets, self.gpus)
            )
        return self.pools[run.backend].submit(execute, run, self.profile, save, True)

    def work(self, todo: dict[Run, str]) -> None:
        """Run everything in `todo`, telling progress and time left.

        Runs wait for the runs they start from. One that fails does not stop the others.

        Raises:
            StudyError: some failed; each is named with its reason.
        """
        waiting, finished, failed = list(todo), set(), {}
        ids = {run.id for run in todo}
        running: dict[Future, tuple[Run, float]] = {}
        clock = Clock(len(todo), self.workers)
        logs = (ROOT / "runs" / self.profile.name).relative_to(ROOT)
        print(f"{len(todo)} runs, {self.workers} at a time; logs in {logs}", flush=True)
        while waiting or running:
            for run in list(waiting):
                lost = [need for need in run.needs if need in failed]
                if lost:
                    failed[run.id] = f"needs {lost[0]}"
                    waiting.remove(run)
                elif len(running) < self.workers and not ids.intersection(run.needs) - finished:
                    running[self.submit(run)] = run, time.time()
                    waiting.remove(run)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                run, start = running.pop(future)
                if error := future.exception():
                    failed[run.id] = _one_line(error)
                    print(f"FAILED {run.id}: {failed[run.id]}", flush=True)
                else:
                    finished.add(run.id)
                if isinstance(error, BrokenProcessPool):
                    self.pools.pop(run.backend).shutdown()
                left = [*waiting, *(r for r, _ in running.values())]
                print(clock.tell(run, time.time() - start, left), flush=True)
        if failed:
            lines = "; ".join(f"{name}: {why}" for name, why in failed.items())
            raise StudyError(f"{len(failed)} of {len(todo)} runs failed: {lines}")


class Clock:
    """How long will it take still? Mean seconds by method, over the workers."""

    def __init__(self, total: int, workers: int):
        self.total, self.workers, self.began = total, workers, time.time()
        self.seconds: dict[str, list[float]] = {}

    def tell(self, run: Run, took: float, left: list[Run]) -> str:
        """One line: how many are done, what this run took, time so far and time left."""
        self.seconds.setdefault(run.method, []).append(took)
        mean = {method: sum(s) / len(s) for method, s in self.seconds.items()}
        typical = sum(mean.values()) / len(mean)
        rest = sum(mean.get(r.method, typical) for r in left) / self.workers
        return (
            f"[{self.total - len(left):3}/{self.total}] {took:4.0f} s  {run.id}  "
            f"({_minutes(time.time() - self.began)} so far, about {_minutes(rest)} left)"
        )


def gpus() -> int:
    """How many GPUs there are."""
    import torch

    return torch.cuda.device_count()


def _warm(backend: str, profile: Profile, tickets: Any, count: int) -> None:
    """Set up a worker: its GPU, its log, its threads, and the imports that take ten seconds."""
    ticket = tickets.get()
    if count:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(ticket % count)
    os.environ.setdefault("OMP_NUM_THREADS", str(profile.threads))
    log = ROOT / "runs" / profile.name / f"worker-{backend}-{ticket}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    stream = log.open("a", buffering=1)
    for descriptor in (1, 2):
        os.dup2(stream.fileno(), descriptor)
    from hybridlib import models

    models.use(backend)
    import torch

    torch.set_num_threads(profile.threads)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[-1][:300]}"
