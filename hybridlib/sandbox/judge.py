"""Does this program pass its tests, and can it do harm while it runs?

Three kinds of processes share the work. The *judge* (this process) splits each assert (`asserts`):
calls of the program's own functions go out, everything else, the expected values above all, stays
here. A *zygote* (`zygote` in a bare interpreter behind `isolation`) forks one *child* per program,
which evaluates the calls and answers with plain values (`wire`). The judge then runs the comparison
itself, so a lying `__eq__`, an exit code, a printed word or a patched module cannot pass a test.
What a child cannot be kept from: knowing by heart the answers to inputs that its prompt has shown.
"""

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hybridlib import StudyError
from hybridlib.sandbox import asserts

MAX_PROGRAM_CHARS = 50_000
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
MAX_RUNNING = min(8 * CORES, 128)  # children at once: endless loops wait for their end together
ZYGOTE_JOBS = 4000  # that a zygote serves before a fresh one takes its place
MODE_VARIABLE, WEAK_MODE = "HYBRIDLIB_SANDBOX", "weak-no-namespaces"
BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hybridlib.sandbox import zygote; "
    "del sys.path[0]; zygote.serve(sys.argv[2] == 'weak')"
)
"""What the zygote's interpreter executes: imports it from this package and forgets the path."""

PLAN_SECONDS = 10.0  # for tests to run without a program
MAX_PLANS = 4096
_PLANNED: dict[str, asserts.ParsedTests] = {}  # by text: tests that are scripts

IsWrong = Callable[[int, list[str]], bool]
"""(index of a job, its answers so far) -> whether one of its asserts already fails."""


@dataclass(frozen=True)
class Outcome:
    """What happened to one program: `pass`, `wrong`, `error`, `timeout` or `no program`.

    `detail` says in words why it is not a pass; `seconds` is the wall time of its child.
    """

    reason: str
    detail: str = ""
    seconds: float = 0.0


def judge(programs: list[str], tests: list[str], timeout: float = 2.0) -> list[Outcome]:
    """Run programs and return, for each, whether the asserts written for it hold.

    Args:
        tests: for each program, setup code and asserts, one statement after another.
        timeout: wall seconds per program, all its asserts together: an endless loop costs it once.

    The outcome is that of the first assert that does not hold; the program is stopped there.
    Starts processes, which live on for the next call. Raises StudyError when the sandbox cannot
    work or an assert cannot be judged.
    """
    parsed = _plan(tests)
    outcomes: list[Outcome | None] = [_reject(program) for program in programs]
    accepted = [i for i, outcome in enumerate(outcomes) if outcome is None]
    parsed = [parsed[i] for i in accepted]
    jobs = [
        {"program": programs[i], "variables": part.variables, "steps": part.steps}
        for i, part in zip(accepted, parsed, strict=True)
    ]
    replies = _run_programs(jobs, parsed, timeout)
    answers = [
        asserts.read_answers(reply["lines"], part)
        for reply, part in zip(replies, parsed, strict=True)
    ]
    _compare_rest(answers, parsed, timeout)
    for i, reply, part, (results, error) in zip(accepted, replies, parsed, answers, strict=True):
        outcomes[i] = _outcome(reply, len(part.comparisons), results, error, timeout)
    return outcomes


def refusals(tests: list[str]) -> list[str]:
    """Return, for each of some tests, why `judge` cannot use them, "" for those that it can use."""
    reasons = []
    for text in tests:
        try:
            _plan([text])
        except StudyError as error:
            reasons.append(str(error))
        else:
            reasons.append("")
    return reasons


def protections() -> list[str]:
    """Return what the programs are kept from; starts the zygote if none is running.

    `isolation.PROTECTIONS` by default, fewer in the weak mode.
    """
    return _zygote("program").protections


def _reject(program: str) -> Outcome | None:
    """Return the outcome of a program that is not worth running, None for any other."""
    if not program.strip():
        return Outcome("no program", "no code")
    if len(program) > MAX_PROGRAM_CHARS:
        return Outcome("error", f"more than {MAX_PROGRAM_CHARS} characters")
    return None


def _plan(tests: list[str]) -> list[asserts.ParsedTests]:
    """Return tests as parsed, with the plans of those that are scripts; starts a zygote for these.

    Raises StudyError where one cannot be judged. Plans are kept for the next call.
    """
    parsed = {text: asserts.parse(text) for text in tests}
    unplanned = [text for text in parsed if parsed[text].script and text not in _PLANNED]
    jobs = [asserts.plan_job(parsed[text]) for text in unplanned]
    replies = _replies("assert", jobs, PLAN_SECONDS)
    for text, reply in zip(unplanned, replies, strict=True):
        _PLANNED[text] = asserts.with_plan(parsed[text], reply["lines"])
    planned = [_PLANNED.get(text, parsed[text]) for text in tests]
    if len(_PLANNED) > MAX_PLANS:
        _PLANNED.clear()
    return planned


def _run_programs(
    jobs: list[dict], parsed: list[asserts.ParsedTests], timeout: float
) -> list[dict]:
    """Return the reply to each job; a few that were late in a crowd run once more, alone."""
    replies = _replies("program", jobs, timeout, parsed)
    late = [i for i, reply in enumerate(replies) if reply["state"] == "timeout"]
    if 0 < len(late) <= CORES < len(jobs):  # slow, or only crowded? once more with a core each
        late_jobs, late_parsed = [jobs[i] for i in late], [parsed[i] for i in late]
        second = _replies("program", late_jobs, timeout, late_parsed)
        for i, reply in zip(late, second, strict=True):
            replies[i] = reply
    return replies


def _compare_rest(
    answers: list[tuple[list[bool | list], str]],
    parsed: list[asserts.ParsedTests],
    timeout: float,
) -> None:
    """Decide the asserts that reading the answers has left open; writes into `answers`."""
    jobs = [
        asserts.comparison_job(results, part)
        for (results, _), part in zip(answers, parsed, strict=True)
    ]
    open_programs = [i for i, job in enumerate(jobs) if job]
    replies = _replies("assert", [jobs[i] for i in open_programs], timeout)
    for i, reply in zip(open_programs, replies, strict=True):
        results = answers[i][0]
        results[:] = asserts.decided(results, parsed[i], reply["lines"])


def _outcome(
    reply: dict, asserts_count: int, results: list[bool], error: str, timeout: float
) -> Outcome:
    """Return what the results of a program's asserts, its error and its end amount to."""
    if False in results:
        reason, detail = "wrong", f"assert {results.index(False) + 1} does not hold"
    elif len(results) == asserts_count:
        reason, detail = "pass", ""
    elif reply["state"] == "timeout" and not error:
        reason, detail = "timeout", f"more than {timeout} s"
    else:
        reason, detail = "error", error or "the program ended before its tests"
    return Outcome(reason, detail, reply["seconds"])


def _replies(
    name: str,
    jobs: list[dict],
    timeout: float,
    parsed: list[asserts.ParsedTests] | None = None,
) -> list[dict]:
    """Return the reply of the zygote of that name to each job.

    Args:
        parsed: the tests of each job, which is then stopped once one of its asserts fails.
    """
    replies = []
    for start in range(0, len(jobs), ZYGOTE_JOBS):

        def is_wrong(number: int, lines: list[str], start: int = start) -> bool:
            if parsed is None:
                return False
            return False in asserts.read_answers(lines, parsed[start + number])[0]

        replies += _zygote(name).run(jobs[start : start + ZYGOTE_JOBS], timeout, is_wrong)
    return replies


class _Zygote:
    """A running zygote, which answers jobs, MAX_RUNNING of them at a time.

    Starting one starts its process and judges two programs of our own; StudyError if that fails.
    """

    def __init__(self, weak: bool):
        self.owner, self.weak = os.getpid(), weak
        self.lock, self.jobs_served = threading.Lock(), 0
        self.process = self._start()
        atexit.register(self.close)
        self.protections = self._read_protections()
        self._test()

    def _start(self) -> subprocess.Popen:
        package_parent = Path(__file__).parents[2]
        mode = "weak" if self.weak else "full"
        return subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-B", "-c", BOOTSTRAP, package_parent, mode],
            # A fixed hash seed, so that a program that walks a set gets the same verdict each time.
            env={"PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _read_protections(self) -> list[str]:
        greeting = self.process.stdout.readline()
        if not greeting:
            raise StudyError(
                f"the sandbox cannot start ({self.close()}); allow this user "
                f"namespaces and seccomp, or accept with {MODE_VARIABLE}={WEAK_MODE} that programs "
                "can see this machine's files and processes"
            )
        return json.loads(greeting)

    def _test(self) -> None:
        """Judge a right and a failing program; StudyError if either comes out otherwise."""
        # `colorsys` is not loaded yet: can a program read the standard library?
        right = {"program": "import colorsys", "variables": {}, "steps": [["1 + 1"]]}
        failing = {**right, "program": "1 / 0"}
        lines = [reply["lines"] for reply in self.run([right, failing], 10.0)]
        if lines[0] != ["[2]"] or lines[1] == ["[2]"]:
            self.close()
            raise StudyError(
                f"the sandbox misjudges its own two programs: {lines}; do they reach the standard "
                f"library of {sys.executable}?"
            )

    def run(
        self,
        jobs: list[dict],
        timeout: float,
        is_wrong: IsWrong = lambda number, lines: False,
    ) -> list[dict]:
        """Return the reply to each job; any interruption ends the zygote, so none is mixed up.

        A job whose answers so far are wrong is ended, unless it ends first. Raises StudyError where
        a program cannot be closed in or the zygote stops.
        """
        orders: queue.SimpleQueue[dict | int | None] = queue.SimpleQueue()
        # Beside the reader, as both pipes may be full.
        sender = threading.Thread(target=self._send, args=(orders,), daemon=True)
        with self.lock:
            self.jobs_served += len(jobs)
            sender.start()
            try:
                replies = self._exchange(jobs, timeout, is_wrong, orders)
            except BaseException as error:
                last_words = self.close()
                if isinstance(error, OSError | ValueError):
                    raise StudyError(
                        f"the sandbox has stopped ({last_words}); start again"
                    ) from None
                raise
            finally:
                orders.put(None)
            sender.join()
        return replies

    def _send(self, orders: queue.SimpleQueue) -> None:
        """Write orders to the zygote until a None comes or it stops."""
        with contextlib.suppress(OSError, ValueError):
            for order in iter(orders.get, None):
                self.process.stdin.write(json.dumps(order).encode() + b"\n")
                self.process.stdin.flush()

    def _exchange(
        self, jobs: list[dict], timeout: float, is_wrong: IsWrong, orders: queue.SimpleQueue
    ) -> list[dict]:
        """Hand jobs to the sender, MAX_RUNNING at first and one for each reply; return the replies.

        A line that is no JSON, as at the zygote's end, raises ValueError.
        """
        replies: list[dict] = [{}] * len(jobs)
        waiting = iter(range(len(jobs)))

        def order_next() -> None:
            number = next(waiting, None)
            if number is not None:
                orders.put({"number": number, "timeout": timeout, **jobs[number]})

        for _ in range(MAX_RUNNING):
            order_next()
        missing = len(jobs)
        while missing:
            reply = json.loads(self.process.stdout.readline())
            if reply["state"] == "running":
                if is_wrong(reply["number"], reply["lines"]):
                    orders.put(reply["number"])
                continue
            if reply["state"] == "refused":
                raise StudyError(f"a program could not be closed in: {reply['lines'][0]}")
            replies[reply["number"]] = reply
            missing -= 1
            order_next()
        return replies

    def close(self) -> str:
        """End the process with all it has started; return the last line of its standard error.

        Does nothing in a fork of the process that started it.
        """
        atexit.unregister(self.close)
        if self.owner != os.getpid():
            return ""
        self.process.terminate()  # it takes its own child along before it goes
        try:
            error = self.process.communicate(timeout=5)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            error = self.process.communicate()[1]
        return error.decode(errors="replace").strip().split("\n")[-1] or "without a word"


_ZYGOTES: dict[str, _Zygote] = {}
_LOCK = threading.Lock()


def _zygote(name: str) -> _Zygote:
    """Return this process's zygote of that name.

    Starts a new one at first, after a fork, after a change of mode, and when the old one has
    stopped or served ZYGOTE_JOBS. Raises StudyError for an unknown mode.
    """
    mode = os.environ.get(MODE_VARIABLE, "")
    if mode not in ("", WEAK_MODE):
        raise StudyError(f"{MODE_VARIABLE}={mode} is unknown; leave it unset or say {WEAK_MODE}")
    weak = mode == WEAK_MODE
    with _LOCK:
        zygote = _ZYGOTES.get(name)
        if zygote and (zygote.owner, zygote.weak) == (os.getpid(), weak):
            if zygote.process.poll() is None and zygote.jobs_served < ZYGOTE_JOBS:
                return zygote
            zygote.close()
        _ZYGOTES[name] = zygote = _Zygote(weak)
        return zygote
