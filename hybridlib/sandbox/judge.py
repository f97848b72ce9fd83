"""Does this program pass its tests, and can it do harm while it runs?

Three processes share the work. The *judge* (this process) takes each assert apart (`asserts`):
calls of the program's own functions go out, everything else, the expected values above all, stays
here. A *zygote* (`zygote` in a bare interpreter behind `walls`) forks one *child* per program,
which evaluates the calls and answers with plain values (`wire`). The judge then runs the comparison
itself, so a lying `__eq__`, an exit code, a printed word or a patched module has nothing to lie to.
What a child cannot be kept from: answering by heart the inputs that its prompt has shown.
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

PROGRAM_CHARS = 50_000
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
AT_ONCE = min(8 * CORES, 128)  # endless loops wait for their end side by side
RENEW = 4000  # programs that a zygote judges before a fresh one takes its place
SETTING, WEAK = "HYBRIDLIB_SANDBOX", "weak-no-namespaces"
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hybridlib.sandbox import zygote; "
    "del sys.path[0]; zygote.serve(sys.argv[2] == 'weak')"
)


@dataclass(frozen=True)
class Outcome:
    """What happened to one program: `pass`, `wrong`, `error`, `timeout` or `no program`.

    `detail` says in words why it is not a pass; `seconds` is the wall time of its child.
    """

    reason: str
    detail: str = ""
    seconds: float = 0.0


def judge(programs: list[str], tests: list[str], timeout: float = 2.0) -> list[Outcome]:
    """Which of these programs pass the asserts written for them?

    `tests[i]` is setup code and asserts, one statement after another, for `programs[i]`. The reason
    is that of the first assert that does not hold, where the program is stopped. `timeout` is wall
    seconds per program, all its asserts together: an endless loop costs it once.
    Raises StudyError when the sandbox cannot work or an assert cannot be judged.
    """
    plans = [asserts.plan(text) for text in tests]
    outcomes: list[Outcome | None] = [_refused(program) for program in programs]
    live = [i for i, outcome in enumerate(outcomes) if outcome is None]
    plans = [plans[i] for i in live]
    jobs = [
        {"program": programs[i], "bind": {}, "steps": plan.steps}
        for i, plan in zip(live, plans, strict=True)
    ]
    replies = _replies("program", jobs, timeout, plans)
    late = [n for n, reply in enumerate(replies) if reply["state"] == "timeout"]
    if 0 < len(late) <= CORES < len(jobs):  # slow, or only crowded? once more with a core each
        few = [[part[n] for n in late] for part in (jobs, plans)]
        for n, reply in zip(late, _replies("program", few[0], timeout, few[1]), strict=True):
            replies[n] = reply
    answers = [asserts.read(r["lines"], plan) for r, plan in zip(replies, plans, strict=True)]
    _compare(answers, plans, timeout)
    for i, reply, plan, (truths, error) in zip(live, replies, plans, answers, strict=True):
        if False in truths:
            reason, detail = "wrong", f"assert {truths.index(False) + 1} does not hold"
        elif len(truths) == len(plan.checks):
            reason, detail = "pass", ""
        elif reply["state"] == "timeout" and not error:
            reason, detail = "timeout", f"more than {timeout} s"
        else:
            reason, detail = "error", error or "the program ended before its tests"
        outcomes[i] = Outcome(reason, detail, reply["seconds"])
    return outcomes


def isolation() -> list[str]:
    """What is kept away from the programs: network, processes, files, system calls?"""
    return _zygote("program").walls


def _refused(program: str) -> Outcome | None:
    if not program.strip():
        return Outcome("no program", "no code")
    if len(program) > PROGRAM_CHARS:
        return Outcome("error", f"more than {PROGRAM_CHARS} characters")
    return None


def _compare(answers: list[tuple], plans: list[asserts.Plan], timeout: float) -> None:
    """Puts the truths in place that reading the answers has left open."""
    checks = [asserts.check(truths, p) for (truths, _), p in zip(answers, plans, strict=True)]
    places = [n for n, job in enumerate(checks) if job]
    replies = _replies("assert", [checks[n] for n in places], timeout)
    for n, reply in zip(places, replies, strict=True):
        truths, lines = answers[n][0], iter(reply["lines"])
        truths[:] = [t if isinstance(t, bool) else next(lines, "") == "[true]" for t in truths]


def _replies(
    name: str, jobs: list[dict], timeout: float, plans: list[asserts.Plan] | None = None
) -> list[dict]:
    """The reply to each job; a job with a plan is stopped once one of its asserts fails."""
    replies = []
    for start in range(0, len(jobs), RENEW):

        def wrong(number: int, lines: list[str], start: int = start) -> bool:
            return plans is not None and False in asserts.read(lines, plans[start + number])[0]

        replies += _zygote(name).run(jobs[start : start + RENEW], timeout, wrong)
    return replies


class _Zygote:
    """A running zygote: jobs in, replies out, AT_ONCE of them under way."""

    def __init__(self, weak: bool):
        self.owner, self.weak, self.lock, self.served = os.getpid(), weak, threading.Lock(), 0
        self.process = subprocess.Popen(
            # A fixed hash seed, so that a program that walks a set gets the same verdict each time.
            [sys.executable, "-s", "-S", "-P", "-B", "-c", START,
             Path(__file__).parents[2], "weak" if weak else "full"],
            env={"PYTHONHASHSEED": "0"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)
        greeting = self.process.stdout.readline()
        if not greeting:
            raise StudyError(
                f"the sandbox cannot start ({self.close()}); allow this user "
                f"namespaces and seccomp, or accept with {SETTING}={WEAK} that programs can see "
                "this machine's files and processes"
            )
        self.walls = json.loads(greeting)
        # `colorsys` is not loaded yet: can a program read the standard library?
        good = {"program": "import colorsys", "bind": {}, "steps": [["1 + 1"]]}
        lines = [reply["lines"] for reply in self.run([good, {**good, "program": "1 / 0"}], 10.0)]
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
        wrong: Callable[[int, list[str]], bool] = lambda number, lines: False,
    ) -> list[dict]:
        """The reply to each job; any interruption ends the zygote, so no reply is ever mixed up.

        A job whose answers so far are `wrong` is ended, unless it ends first.
        """
        replies: list[dict] = [{}] * len(jobs)
        waiting = iter(range(len(jobs)))
        orders: queue.SimpleQueue[dict | int | None] = queue.SimpleQueue()

        def send() -> None:  # beside the reader: both pipes may be full
            with contextlib.suppress(OSError, ValueError):
                for order in iter(orders.get, None):
                    self.process.stdin.write(json.dumps(order).encode() + b"\n")
                    self.process.stdin.flush()

        def next_job() -> None:
            for number in waiting:
                return orders.put({"number": number, "timeout": timeout, **jobs[number]})

        with self.lock:
            self.served += len(jobs)
            (sender := threading.Thread(target=send, daemon=True)).start()
            try:
                for _ in range(AT_ONCE):
                    next_job()
                missing = len(jobs)
                while missing:
                    reply = json.loads(self.process.stdout.readline())
                    if reply["state"] == "running":
                        if wrong(reply["number"], reply["lines"]):
                            orders.put(reply["number"])
                        continue
                    if reply["state"] == "refused":
                        raise StudyError(f"a program could not be closed in: {reply['lines'][0]}")
                    replies[reply["number"]] = reply
                    missing -= 1
                    next_job()
            except BaseException as error:
                word = self.close()
                if isinstance(error, OSError | ValueError):
                    raise StudyError(f"the sandbox has stopped ({word}); start again") from None
                raise
            finally:
                orders.put(None)
            sender.join()
        return replies

    def close(self) -> str:
        """Ends the process with all it has started; its last word. Only for the owning process."""
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
    """This process's zygote of that name; a new one at first, after a fork, and when it is old."""
    mode = os.environ.get(SETTING, "")
    if mode not in ("", WEAK):
        raise StudyError(f"{SETTING}={mode} is unknown; leave it unset or say {WEAK}")
    with _LOCK:
        held = _ZYGOTES.get(name)
        if held and (held.owner, held.weak) == (os.getpid(), mode == WEAK):
            if held.process.poll() is None and held.served < RENEW:
                return held
            held.close()
        _ZYGOTES[name] = held = _Zygote(mode == WEAK)
        return held
