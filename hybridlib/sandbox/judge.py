"""Does this program pass its tests, and can it do harm while it runs?

Three kinds of processes share the work. The *judge* (this process) splits each assert (`asserts`):
calls of the program's own functions go out, everything else, the expected values above all, stays
here. A *zygote* (`zygote` in a bare interpreter behind `isolation`) forks one *child* per program,
which gets its job from the judge, evaluates the calls and answers with plain values (`wire`). The
judge then runs the comparison itself, so a lying `__eq__`, an exit code, a printed word or a
patched module cannot pass a test.

Nothing that happens to a program depends on whether its answers are right: each runs all its calls,
and they are compared when all programs of the batch have ended. So a program that guesses learns
nothing, and there is nothing that it could tell another.

What a child cannot be kept from: knowing by heart the answers to inputs that its prompt has shown,
and seeing by the clock how busy the machine is.
"""

import atexit
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from hybridlib import StudyError
from hybridlib.sandbox import asserts

MAX_PROGRAM_CHARS = 50_000
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
MAX_RUNNING = min(8 * CORES, 64)  # children at once, in the first round
WALL_FACTOR = 5  # wall seconds that a program may take alone, for each second of its limit
SILENCE_SECONDS = 60.0  # beyond all limits, in which the zygote must say something
ZYGOTE_JOBS = 4000  # that a zygote serves before a fresh one takes its place
MAX_ANSWER_BYTES = 1 << 18  # of all answers of a child; it is ended when it writes more
PIPE_BYTES = 1 << 16  # that a pipe holds
DRAIN_SECONDS = 0.05  # between two looks at what the pipes hold
MESSAGE_BYTES = 1 << 12  # more than any message of the zygote has
MESSAGE_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
DESCRIPTORS = struct.Struct("ii")
ANCILLARY_BYTES = socket.CMSG_LEN(DESCRIPTORS.size)  # socket.recv_fds ignores its flags
MODE_VARIABLE, WEAK_MODE = "HYBRIDLIB_SANDBOX", "weak-no-namespaces"
BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); from hybridlib.sandbox import zygote; "
    "del sys.path[0]; child = zygote.serve(sys.argv[2] == 'weak'); child and child.run()"
)
"""What the zygote's interpreter executes: imports it from this package and forgets the path."""

PLAN_SECONDS = 10.0  # for tests to run without a program
MAX_PLANS = 4096
_PLANNED: dict[str, asserts.ParsedTests] = {}  # by text: tests that are scripts


@dataclass(frozen=True)
class Reply:
    """What a child has answered in complete lines, which may be forged.

    `finished` unless it was late or ended with neither all answers nor an error; `refusal` says why
    it could not be closed in, "" where it was.
    """

    lines: list[str]
    late: bool
    finished: bool
    refusal: str
    seconds: float


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
        timeout: seconds that a program may compute, all its asserts together, and that it may wait.
            Time in which it waits for a core that others have does not count.

    The outcome is that of the first assert that does not hold. Programs are deterministic (hash
    seed, `random`), so equal ones with equal tests are run once. Starts processes, which live on
    for the next call. Raises StudyError when the sandbox cannot work or an assert cannot be judged.
    """
    pairs = list(zip(programs, tests, strict=True))
    distinct = [*dict.fromkeys(pairs)]
    outcomes = dict(zip(distinct, _judge(distinct, timeout), strict=True))
    return [outcomes[pair] for pair in pairs]


def _judge(pairs: list[tuple[str, str]], timeout: float) -> list[Outcome]:
    """Return the outcome of each program with its tests, as `judge`."""
    programs = [program for program, _ in pairs]
    parsed = _plan([tests for _, tests in pairs])
    outcomes: list[Outcome | None] = [_reject(program) for program in programs]
    accepted = [i for i, outcome in enumerate(outcomes) if outcome is None]
    parsed = [parsed[i] for i in accepted]
    jobs = [
        {"program": programs[i], "variables": part.variables, "steps": part.steps}
        for i, part in zip(accepted, parsed, strict=True)
    ]
    replies = _replies("program", jobs, timeout)
    answers = [
        asserts.read_answers(reply.lines, part) for reply, part in zip(replies, parsed, strict=True)
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
        _PLANNED[text] = asserts.with_plan(parsed[text], reply.lines)
    planned = [_PLANNED.get(text, parsed[text]) for text in tests]
    if len(_PLANNED) > MAX_PLANS:
        _PLANNED.clear()
    return planned


def _replies(name: str, jobs: list[dict], timeout: float) -> list[Reply]:
    """Return the reply to each job from children of the zygote of that name.

    First all run, many at once, for half of `timeout` by the clock on the wall. Those that a crowd
    may have cut short, as they were late or fell silent (where memory runs out, the kernel kills),
    then run again with a core each, for `timeout` seconds of computing, however many they are.
    Raises StudyError where a child could not be closed in.
    """
    if len(jobs) <= CORES:
        return _run_alone(name, jobs, timeout)
    replies = _run(name, jobs, timeout, timeout / 2, MAX_RUNNING)
    again = [i for i, reply in enumerate(replies) if not reply.finished]
    for i, reply in zip(again, _run_alone(name, [jobs[i] for i in again], timeout), strict=True):
        replies[i] = reply
    return replies


def _run_alone(name: str, jobs: list[dict], timeout: float) -> list[Reply]:
    """Return the reply to each job, as many at once as there are cores."""
    replies = _run(name, jobs, timeout, WALL_FACTOR * timeout, CORES)
    for reply in replies:
        if reply.refusal:
            raise StudyError(f"a program could not be closed in: {reply.refusal}")
    return replies


def _run(
    name: str, jobs: list[dict], cpu_seconds: float, wall_seconds: float, at_once: int
) -> list[Reply]:
    """Return the reply to each job, as `_Zygote.run`; no zygote gets more than ZYGOTE_JOBS."""
    replies = []
    for start in range(0, len(jobs), ZYGOTE_JOBS):
        part = jobs[start : start + ZYGOTE_JOBS]
        replies += _zygote(name).run(part, cpu_seconds, wall_seconds, at_once)
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
        results[:] = asserts.decided(results, parsed[i], reply.lines)


def _outcome(
    reply: Reply, asserts_count: int, results: list[bool], error: str, timeout: float
) -> Outcome:
    """Return what the results of a program's asserts, its error and its end amount to."""
    if False in results:
        reason, detail = "wrong", f"assert {results.index(False) + 1} does not hold"
    elif len(results) == asserts_count:
        reason, detail = "pass", ""
    elif reply.late and not error:
        reason, detail = "timeout", f"more than {timeout} s"
    else:
        reason, detail = "error", error or "the program ended before its tests"
    return Outcome(reason, detail, reply.seconds)


class _Job:
    """A job that a child works on, as the judge sees it: what goes in, and what has come out."""

    def __init__(self, job: dict):
        data = json.dumps(job).encode()
        self.answers_due = sum(isinstance(step, list) for step in job["steps"])
        self.unsent = memoryview(len(data).to_bytes(8, "big") + data)
        self.answer = bytearray()
        self.late = False
        self.started = time.monotonic()
        self.job_end = self.answer_end = -1  # the ends of its pipes, once it has started

    def take_pipes(self, answer_end: int, job_end: int) -> None:
        """Take the ends that the zygote has sent."""
        self.answer_end, self.job_end = answer_end, job_end
        os.set_blocking(job_end, False)
        os.set_blocking(answer_end, False)

    def send(self) -> bool:
        """Write what the pipe takes of the job; return whether all is written, or in vain."""
        try:
            self.unsent = self.unsent[os.write(self.job_end, self.unsent) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self.unsent = self.unsent[:0]
        return not self.unsent

    def read(self) -> bool:
        """Read what there is of the answers; return whether that was all, or too much."""
        if self.answer_end < 0:
            return False
        try:
            while chunk := os.read(self.answer_end, PIPE_BYTES):
                self.answer += chunk
                if len(self.answer) > MAX_ANSWER_BYTES:
                    break
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the pipes that are open."""
        for descriptor in (self.job_end, self.answer_end):
            if descriptor >= 0:
                os.close(descriptor)
        self.job_end = self.answer_end = -1

    def reply(self) -> Reply:
        """Return all complete answers."""
        complete = self.answer.decode("ascii", "replace").split("\n")[:-1]
        refusal, *lines = complete or ["" if self.late else "without a word"]
        finished = len(lines) >= self.answers_due or bool(lines) and lines[-1].startswith('"')
        seconds = round(time.monotonic() - self.started, 4)
        return Reply(lines, self.late, finished and not refusal, refusal, seconds)


class _Exchange:
    """The judge's side of the work on some jobs: has children started, feeds and reads them."""

    def __init__(self, zygote: socket.socket, limits: dict[str, float]):
        self.zygote, self.limits = zygote, limits
        self.working: dict[int, _Job] = {}
        self.numbers: dict[int, int] = {}  # descriptor of a pipe -> number of its job
        self.replies: dict[int, Reply] = {}
        self.to_end: list[int] = []
        self.poll = select.epoll()
        self.poll.register(zygote, select.EPOLLIN)

    def run(self, jobs: dict[int, dict], at_once: int) -> list[Reply]:
        """Return the reply to each job, in order; raise OSError where the zygote stops or hangs.

        Args:
            jobs: by numbers that this zygote has not seen.

        Does not wake for each line of an answer: only at the end of a child, and now and then, lest
        a long answer fills its pipe.
        """
        waiting = iter(jobs.items())
        last_event = last_drained = time.monotonic()
        while len(self.replies) < len(jobs):
            self._start_and_end(dict(itertools.islice(waiting, at_once - len(self.working))))
            ready = self.poll.poll(DRAIN_SECONDS)
            now = time.monotonic()
            if ready:
                last_event = now
            elif now - last_event > self.limits["wall"] + SILENCE_SECONDS:
                raise TimeoutError  # each child ends within its limits
            if any(descriptor == self.zygote.fileno() for descriptor, _ in ready):
                self._take_messages()  # first: they say whether what has ended was late
            for descriptor, _ in ready:
                if descriptor in self.numbers:
                    self._serve(descriptor)
            if now - last_drained > DRAIN_SECONDS:
                last_drained = now
                for number in [*self.working]:
                    self._read(number)
        self._start_and_end({})
        return [self.replies[number] for number in jobs]

    def close(self) -> None:
        """Close what is still open."""
        self.poll.close()
        for job in self.working.values():
            job.close()

    def _start_and_end(self, jobs: dict[int, dict]) -> None:
        """Have children started for these jobs, and those ended that are no longer needed."""
        if jobs or self.to_end:
            self.working |= {number: _Job(job) for number, job in jobs.items()}
            self._order({"end": self.to_end, "start": [*jobs]} | self.limits)
            self.to_end = []

    def _order(self, order: dict) -> None:
        self.zygote.send(json.dumps(order).encode())

    def _take_messages(self) -> None:
        """Read all that the zygote has sent; start the jobs whose children are there."""
        while True:
            try:
                text, ancillary, *_ = self.zygote.recvmsg(
                    MESSAGE_BYTES, ANCILLARY_BYTES, MESSAGE_FLAGS
                )
            except BlockingIOError:
                return
            if not text:
                raise ConnectionError("the zygote has gone")
            event, number = text.split()
            if event == b"started":
                if len(ancillary) != 1 or len(ancillary[0][2]) != DESCRIPTORS.size:
                    raise OSError("this process has too many files open")
                self._start(int(number), *DESCRIPTORS.unpack(ancillary[0][2]))
            elif int(number) in self.working:  # else it has ended just now
                self.working[int(number)].late = True

    def _start(self, number: int, answer_end: int, job_end: int) -> None:
        job = self.working[number]
        job.take_pipes(answer_end, job_end)
        self.numbers[answer_end] = number
        self.poll.register(answer_end, 0)  # reports the end alone
        if not job.send():
            self.numbers[job_end] = number
            self.poll.register(job_end, select.EPOLLOUT)

    def _serve(self, descriptor: int) -> None:
        """Go on writing a job, or read what a child has left behind."""
        number = self.numbers[descriptor]
        job = self.working[number]
        if descriptor == job.answer_end:
            self._read(number)
        elif job.send():
            self.poll.unregister(descriptor)
            del self.numbers[descriptor]

    def _read(self, number: int) -> None:
        """Read what there is of a child's answers; end the child if that was all or too much."""
        job = self.working[number]
        if job.read():
            for descriptor in (job.answer_end, job.job_end):
                if self.numbers.pop(descriptor, None) is not None:
                    self.poll.unregister(descriptor)
            job.close()
            self.to_end.append(number)
            self.replies[number] = self.working.pop(number).reply()


class _Zygote:
    """A running zygote, whose children work on jobs.

    Starting one starts its process and judges two programs of our own; StudyError if that fails.
    """

    def __init__(self, weak: bool):
        self.owner, self.weak = os.getpid(), weak
        self.lock, self.jobs_served = threading.Lock(), 0
        self.socket, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end:
            self.process = self._start(its_end)
        atexit.register(self.close)
        self.protections = self._read_protections()
        self._test()

    def _start(self, its_end: socket.socket) -> subprocess.Popen:
        package_parent = Path(__file__).parents[2]
        mode = "weak" if self.weak else "full"
        return subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-B", "-c", BOOTSTRAP, package_parent, mode],
            # A fixed hash seed, so that a program that walks a set gets the same verdict each time;
            # functions of libraries are found at once, not by each child anew.
            env={"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"},
            stdin=its_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _read_protections(self) -> list[str]:
        greeting = self.socket.recv(MESSAGE_BYTES)
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
        replies = self.run([right, failing], 10.0, 100.0, 2)
        lines = [reply.lines for reply in replies]
        if lines[0] != ["[2]"] or lines[1] == ["[2]"]:
            self.close()
            if refusal := replies[0].refusal or replies[1].refusal:
                raise StudyError(f"a program could not be closed in: {refusal}")
            raise StudyError(
                f"the sandbox misjudges its own two programs: {lines}; do they reach the standard "
                f"library of {sys.executable}?"
            )

    def run(
        self, jobs: list[dict], cpu_seconds: float, wall_seconds: float, at_once: int
    ) -> list[Reply]:
        """Return the reply to each job; any interruption ends the zygote, so none is mixed up.

        Args:
            cpu_seconds: that a child may compute, and that it may wait.
            wall_seconds: that a child may take from its start to its end.
            at_once: children that run at the same time.

        Raises StudyError where the zygote stops.
        """
        with self.lock:
            limits = {"cpu": cpu_seconds, "wall": wall_seconds}
            numbered_jobs = dict(enumerate(jobs, self.jobs_served))
            self.jobs_served += len(jobs)
            exchange = _Exchange(self.socket, limits)
            try:
                return exchange.run(numbered_jobs, at_once)
            except BaseException as error:
                last_words = self.close()
                if isinstance(error, OSError | ValueError):
                    raise StudyError(
                        f"the sandbox has stopped ({last_words}); start again"
                    ) from None
                raise
            finally:
                exchange.close()

    def close(self) -> str:
        """End the process with all it has started; return the last line of its standard error.

        Does nothing in a fork of the process that started it.
        """
        atexit.unregister(self.close)
        if self.owner != os.getpid():
            return ""
        self.socket.close()
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
