"""Are two expressions equal in the end? math-verify in processes that can be killed.

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

from pebble import ProcessPool

SECONDS, MEMORY = 2.0, 2 << 30  # per pair; bytes of address space per worker, libraries included
WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


_KNOWN: dict[tuple[str, str], tuple[str, str, float]] = {}


def compare(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str, float]]:
    """(reason, error, seconds) of each (gold, given), whatever sympy does with it.

    Reasons are `pass`, `wrong`, `timeout` and `error`. As many at once as there are cores, each
    different pair once in a process: the samples of a prompt repeat answers. Works in any thread.
    """
    if len(_KNOWN) > 65_536:
        _KNOWN.clear()
    new = list(dict.fromkeys(pair for pair in pairs if pair not in _KNOWN))
    _KNOWN.update(zip(new, _judged(new) if new else [], strict=True))
    return [_KNOWN[pair] for pair in pairs]


def _judged(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str, float]]:
    pool = _pool(os.getpid())
    waiting = [pool.schedule(_same, args=pair, timeout=SECONDS) for pair in pairs]
    found = []
    for future in waiting:
        error = future.exception()
        if error is None:
            same, seconds = future.result()
            found.append(("pass" if same else "wrong", "", seconds))
        elif isinstance(error, TimeoutError):
            found.append(("timeout", f"math-verify took more than {SECONDS:g} s", SECONDS))
        else:  # sympy raises anything on a malformed answer; a worker without memory just ends
            found.append(("error", f"{type(error).__name__}: {error}"[:200], 0.0))
    return found


class _Process(ForkServerProcess):
    """A worker that does not run the caller's script again, as multiprocessing would have it."""

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
def _pool(process: int) -> ProcessPool:
    """The workers of this process; a fork of it gets its own."""
    context = _Context()
    context.set_forkserver_preload(["math_verify", __name__])
    pool = ProcessPool(WORKERS, max_tasks=5_000, initializer=_limit, context=context)
    # Where this process is itself a worker, no atexit runs, and its end waits for its children.
    util.Finalize(pool, _end, args=[pool], exitpriority=10)
    return pool


def _end(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()


def _limit() -> None:
    """A new worker: less memory, and none of math-verify's alarms, which do not stop sympy."""
    import logging
    import resource

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we keep the time
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _same("x", "y")  # its first parse is slow, and should not count against the first pair


def _same(gold: str, given: str) -> tuple[bool, float]:
    """Both sides boxed: bare equations parse to 0 and would all be equal to one another."""
    from math_verify import parse, verify

    began = time.perf_counter()
    sides = [parse(f"\\boxed{{{side}}}", parsing_timeout=None) for side in (gold, given)]
    same = bool(verify(*sides, timeout_seconds=None, raise_on_error=True))
    return same, time.perf_counter() - began
