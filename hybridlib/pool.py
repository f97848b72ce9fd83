"""Who executes the runs, and when will it be done? Worker processes, their order, progress.

A worker imports the heavy libraries once and takes run after run. Unsloth changes TRL for its whole
process, so it has a worker of its own. What a worker does with a run it is told: `Pool` receives
the function.
"""

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

from hybridlib import StudyError, files, locks, processes, results
from hybridlib.profiles import Profile
from hybridlib.runs import Run

PAUSE = 1.0  # seconds before a run that another call is at work on is asked for again


class Outcome(NamedTuple):
    """What became of a run that was handed to a worker."""

    record: Any = None  # None: nothing, since another call is at work on it
    holder: str = ""  # who is


class Pool:
    """Worker processes for the runs of one profile; a context that ends them.

    They end with this process, whatever ends it. Several pools may work on one folder: a worker
    holds the lock of its run, and a run that another pool has is left to it.

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

    def submit(self, run: Run, seen: files.Times | None = None, **options: Any) -> Future:
        """Let a worker of its backend execute a run; the future's result is an `Outcome`.

        Args:
            seen: what `files.times` said before it was found that the run has to be executed. If
                another call has made its results since, these are the outcome.
            options: of the function.
        """
        self.drop_broken_workers()
        if run.backend not in self.executors:
            count = 1 if run.backend == "unsloth" else self.workers
            context = multiprocessing.get_context("spawn")
            tickets = context.Queue()
            for ticket in range(count):
                tickets.put(ticket)
            self.executors[run.backend] = ProcessPoolExecutor(
                count, context, _warm_up, (run.backend, self.profile, tickets, self.gpus)
            )
        return self.executors[run.backend].submit(
            _execute_alone, self.execute, run, self.profile, seen, options
        )

    def work(
        self, todo: Collection[Run], save: bool = True, seen: dict[str, files.Times] | None = None
    ) -> dict[str, Any]:
        """Execute these runs, printing progress and the time left; return id -> record.

        Runs wait for the runs that they start from. One that fails does not stop the others; one
        whose worker was killed is tried once more. What another call is at work on comes last.

        Args:
            save: replace the stored records; else only adapters are made.
            seen: `files.recorded_times` before `todo` was made; what another call has made since
                is returned, and its run not executed. None: every run is executed.
        Raises:
            StudyError: some failed; each is named with its reason.
        """
        shift = _Shift(self, todo, save, seen)
        logs = files.runs_folder(self.profile.name).relative_to(files.ROOT)
        print(f"{len(shift.runs)} runs, {self.workers} at a time; logs in {logs}", flush=True)
        while shift.order.is_active():
            shift.go_on()
        if shift.failed:
            lines = "; ".join(f"{name}: {why}" for name, why in shift.failed.items())
            raise StudyError(f"{len(shift.failed)} of {len(shift.runs)} runs failed: {lines}")
        return shift.records

    def drop_broken_workers(self) -> None:
        """Forget the workers that were killed; the next run gets new ones."""
        for backend, executor in list(self.executors.items()):
            if executor._broken:
                self.executors.pop(backend).shutdown()


class _Shift:
    """One call of `Pool.work`: what has been executed so far, what is running, what is left."""

    def __init__(
        self,
        pool: Pool,
        todo: Collection[Run],
        save: bool,
        seen: dict[str, files.Times] | None,
    ):
        self.pool, self.save, self.seen = pool, save, seen
        self.runs = {run.id: run for run in todo}
        self.order = TopologicalSorter(
            {run.id: [name for name in run.prerequisites if name in self.runs] for run in todo}
        )
        self.order.prepare()
        self.ready: list[str] = []
        self.running: dict[Future, tuple[Run, float]] = {}  # and when it began
        self.left = dict(self.runs)
        self.records: dict[str, Any] = {}
        self.failed: dict[str, str] = {}  # id -> why
        self.broken: set[str] = set()  # their worker was killed
        self.elsewhere: dict[str, str] = {}  # another call has them: id -> who
        self.waiting: list[str] = []  # of `elsewhere`, until the next pause is over
        self.clock = Clock(len(self.runs), pool.workers)

    def go_on(self) -> None:
        """Start what can start, wait until something has finished, and take that in."""
        self.ready += self.order.get_ready()
        while self.ready and len(self.running) < self._places():
            self._start(self.runs[self.ready.pop(0)])
        if self.waiting and not self.running:
            time.sleep(PAUSE)
        pause = PAUSE if self.waiting else None
        finished = wait(self.running, pause, FIRST_COMPLETED).done
        self.ready, self.waiting = self.ready + self.waiting, []
        for future in finished:
            self._take(future, *self.running.pop(future))

    def _places(self) -> int:
        """Return how many runs may go on at once.

        What broke a worker is tried again alone, so that it takes no other run with it.
        """
        soon = {self.ready[0], *(run.id for run, _ in self.running.values())}
        return 1 if self.broken & soon else self.pool.workers

    def _start(self, run: Run) -> None:
        if lost := [name for name in run.prerequisites if name in self.failed]:
            self.failed[run.id] = f"needs {lost[0]}"
            self._finish(run)
            self.ready += self.order.get_ready()
            return
        before = self.seen.get(run.id, files.Times()) if self.seen is not None else None
        future = self.pool.submit(run, seen=before, save=self.save, force=True)
        self.running[future] = run, time.time()

    def _take(self, future: Future, run: Run, began: float) -> None:
        """Note what became of a run."""
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self.pool.drop_broken_workers()
            if run.id not in self.broken:
                self.broken.add(run.id)
                self.ready.append(run.id)
                print(f"{run.id}: a worker was killed; once more", flush=True)
                return
        if error:
            self.failed[run.id] = _one_line(error)
            print(f"FAILED {run.id}: {self.failed[run.id]}", flush=True)
        elif future.result().record is None:
            self._leave(run, future.result().holder)
            return
        else:
            self.records[run.id] = future.result().record
        self._finish(run)
        print(self.clock.progress(run, time.time() - began, [*self.left.values()]), flush=True)

    def _leave(self, run: Run, holder: str) -> None:
        """Leave a run to another call for now."""
        self.waiting.append(run.id)
        if self.elsewhere.get(run.id) != holder:
            self.elsewhere[run.id] = holder
            print(f"{run.id}: left to {holder}", flush=True)

    def _finish(self, run: Run) -> None:
        self.left.pop(run.id)
        self.order.done(run.id)


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


def _execute_alone(
    execute: Callable[..., Any],
    run: Run,
    profile: Profile,
    seen: files.Times | None,
    options: dict[str, Any],
) -> Outcome:
    """Execute a run under its lock: a worker's task."""
    with locks.held(files.runs_folder(profile.name) / "locks" / run.id) as holder:
        if holder:
            return Outcome(holder=holder)
        if seen is not None and files.times(run.id, profile.name) != seen:
            record = None if results.stale_reason(run, profile) else results.find(run, profile)
            if record:
                return Outcome(record)
        return Outcome(execute(run, profile, **options))


def _warm_up(backend: str, profile: Profile, tickets: Any, gpus: int) -> None:
    """Set up a worker: its end, its GPU, its log, its threads, the imports that take seconds."""
    processes.end_with_parent(multiprocessing.parent_process().pid)
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
    gc.freeze()  # libraries stay, and every training searches for garbage


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1][:300]}"
