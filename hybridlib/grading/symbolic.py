"""Are two expressions equal to sympy? math-verify (Kydlicek 2025) in processes that can be killed.

sympy can run for ever, take all memory, or hold the interpreter's lock against any alarm; only
another process can stop that. Workers are forked from a server that has imported math-verify, so
that a killed one is replaced within milliseconds; Pebble keeps the time and does the killing.
"""

import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from multiprocessing import util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from threading import Lock
from types import ModuleType

from pebble import ProcessFuture, ProcessPool

SECONDS = 2.0  # per pair
MEMORY = 2 << 30  # bytes of address space per worker, libraries included
WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
CACHE_SIZE = 65_536  # pairs

Pair = tuple[str, str]  # gold, given
Outcome = tuple[str, str, float]  # reason, error, seconds

CACHE: dict[Pair, Outcome] = {}


def compare(pairs: Sequence[Pair]) -> list[Outcome]:
    """Return (reason, error, seconds) of each (gold, given), whatever sympy does with it.

    Reasons are `pass`, `wrong`, `timeout` and `error`. Pairs are compared in worker processes, as
    many at once as there are cores, and each different pair once in the life of this process, since
    the samples of a prompt repeat answers. Works in any thread.
    """
    if len(CACHE) > CACHE_SIZE:
        CACHE.clear()
    new = list(dict.fromkeys(pair for pair in pairs if pair not in CACHE))
    if new:
        CACHE.update(zip(new, _compare_in_workers(new), strict=True))
    return [CACHE[pair] for pair in pairs]


def _compare_in_workers(pairs: Sequence[Pair]) -> list[Outcome]:
    pool = _worker_pool(os.getpid())
    futures = [pool.schedule(_verify, args=pair, timeout=SECONDS) for pair in pairs]
    return [_outcome(future) for future in futures]


def _outcome(future: ProcessFuture) -> Outcome:
    """Wait for the future and return its outcome."""
    error = future.exception()
    if error is None:
        is_equal, seconds = future.result()
        return "pass" if is_equal else "wrong", "", seconds
    if isinstance(error, TimeoutError):
        return "timeout", f"math-verify took more than {SECONDS:g} s", SECONDS
    # sympy raises anything on a malformed answer; a worker without memory just ends
    return "error", f"{type(error).__name__}: {error}"[:200], 0.0


class _Process(ForkServerProcess):
    """A worker that does not run the caller's script again, as multiprocessing would make it."""

    lock = Lock()

    def start(self) -> None:
        with self.lock:
            main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class _Context(ForkServerContext):
    Process = _Process


@cache
def _worker_pool(process_id: int) -> ProcessPool:
    """Return the workers of this process, started at the first call; a fork of it gets its own."""
    context = _Context()
    context.set_forkserver_preload(["math_verify", __name__])
    pool = ProcessPool(WORKERS, max_tasks=5_000, initializer=_prepare_worker, context=context)
    # Where this process is itself a worker, no atexit runs, and its end waits for its children.
    util.Finalize(pool, _stop, args=[pool], exitpriority=10)
    return pool


def _stop(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()


def _prepare_worker() -> None:
    """Limit the memory of this new worker and make its first, slow parse before it counts."""
    import logging
    import resource

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we keep the time
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _verify("x", "y")


def _verify(gold: str, given: str) -> tuple[bool, float]:
    """Say whether two expressions are equal to math-verify, and how many seconds that took.

    Both sides are boxed: bare equations parse to 0 and would all be equal to one another.
    math-verify's own alarms are off, as they do not stop sympy.
    """
    from math_verify import parse, verify

    start = time.perf_counter()
    sides = [parse(f"\\boxed{{{side}}}", parsing_timeout=None) for side in (gold, given)]
    is_equal = bool(verify(*sides, timeout_seconds=None, raise_on_error=True))
    return is_equal, time.perf_counter() - start
