"""How can a program run a thousand times a day and reach nothing? One bare process that forks.

`judge` starts `serve` in a bare interpreter: no site packages, no environment but a fixed hash
seed. It isolates itself once and then forks a child for each program. It holds the standard library
and four small modules, and never a program, an answer or a value that a test expects: a child gets
its job from the judge, through a pipe of its own, once it has been forked and closed in. So there
is nothing of another program in its memory, before or after, nor in the frames above it.

Messages from the judge, on the socket that is standard input: {"start": number, "cpu", "wall"}, a
child that may use that many seconds; {"end": number}, a child that is no longer needed.
Messages to the judge: first the list of the protections in force; {"started": number} with two
descriptors, to read the child's answers and to write its job; {"late": number}, before it is ended.

A job is eight bytes that say how many follow, then JSON: {"program", "variables", "steps"}, where a
step is a string of code to execute or a list of calls to evaluate, and `variables` exist before the
program runs. A child's first line is the sandbox's own: empty, or why it could not be closed in.
Each other line is the JSON list of the values of one list of calls, or the JSON string of the error
that ended the program.
"""

import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
import types
from dataclasses import dataclass
from typing import NoReturn

from hybridlib.sandbox import wire
from hybridlib.sandbox.isolation import ANSWER_DESCRIPTOR, USERS, Isolation, parent_descriptor

MESSAGE_BYTES = 1 << 12  # more than any message has
CHECK_SECONDS = 0.02  # between two looks at the clock of a child, at least
IDLE_SHARE = 0.01  # of a core: a child that uses less waits for something else than a core
PRELOADED = """abc array base64 bisect calendar cmath collections contextlib copy dataclasses
datetime decimal enum fractions functools hashlib heapq itertools math numbers operator pprint queue
random re secrets statistics string struct textwrap threading time timeit traceback typing
unicodedata uuid zlib""".split()
"""What programs commonly import: loaded once here instead of in every child."""


@dataclass(frozen=True)
class Assignment:
    """What a new child knows: where its job comes from, where its answers go, its limits."""

    isolation: Isolation
    user_index: int
    job_pipe: int
    answer_pipe: int
    cpu_seconds: int

    def run(self) -> NoReturn:
        """Close this process, a new child, in; evaluate the job that then arrives; end it."""
        leave = os._exit  # the program may put something else in its place
        try:
            try:
                self.isolation.confine(
                    self.user_index, self.cpu_seconds, self.job_pipe, self.answer_pipe
                )
                os.write(ANSWER_DESCRIPTOR, b"\n")
            except OSError as error:
                os.write(ANSWER_DESCRIPTOR, f"{error}\n".encode())
            else:
                _evaluate(_read_job(), ANSWER_DESCRIPTOR)
        finally:
            leave(0)


def _read_job() -> dict:
    """Return the job from standard input, which is empty from then on."""
    length = int.from_bytes(_read_exactly(8), "big")
    job = json.loads(_read_exactly(length))
    os.dup2(1, 0)
    return job


def _read_exactly(count: int) -> bytes:
    text = b""
    while len(text) < count:
        chunk = os.read(0, count - len(text))
        if not chunk:
            raise EOFError("the judge has gone")
        text += chunk
    return text


def _evaluate(job: dict, output: int) -> None:
    """Run the program, then its steps, in this child; write a line per list of calls to `output`.

    Stops at the first error, whose text is the last line.
    """
    module = types.ModuleType("program")
    sys.modules["program"] = module  # dataclasses and pickle look their module up
    namespace = module.__dict__
    write = os.write  # the program may put something else in its place
    random.seed(0)  # the same program gets the same verdict every time
    try:
        namespace.update({name: wire.decode(value) for name, value in job["variables"].items()})
        exec(compile(job["program"], "<program>", "exec"), namespace)
        for step in job["steps"]:
            if isinstance(step, str):
                exec(step, namespace)
                continue
            line = json.dumps([wire.encode(eval(call, namespace)) for call in step]).encode()
            for start in range(0, len(line) + 1, 4096):  # bytes that a pipe takes in one write
                write(output, (line + b"\n")[start : start + 4096])
    except BaseException as error:  # SystemExit and KeyboardInterrupt end a program as well
        text = f"{type(error).__name__}: {error}"[:300]
        write(output, json.dumps(text).encode() + b"\n")


class _Child:
    """A child that has been started, as the zygote sees it: a process and its clock.

    Time in which it computes and time in which it waits for something else than a core are limited
    each; time in which other processes have the cores counts against `wall_seconds` alone.
    """

    def __init__(self, process: int, user_index: int, order: dict):
        self.process, self.user_index = process, user_index
        self.limit, self.wall_seconds = order["cpu"], order["wall"]
        self.started = self.checked = time.monotonic()
        self.cpu_seconds = self.idle_seconds = 0.0
        self.next_check = self.started + min(self.limit, self.wall_seconds)

    def is_late(self, now: float) -> bool:
        """Return whether a limit has been reached; sets the time of the next check."""
        if now < self.next_check:
            return False
        # clock_getcpuclockid(3): the number of the clock that counts another process's time
        cpu_seconds = time.clock_gettime(~self.process << 3 | 2)
        elapsed = now - self.checked
        if cpu_seconds - self.cpu_seconds < IDLE_SHARE * elapsed:
            self.idle_seconds += elapsed
        self.cpu_seconds, self.checked = cpu_seconds, now
        left = min(
            self.limit - self.cpu_seconds,
            self.limit - self.idle_seconds,
            self.wall_seconds - (now - self.started),
        )
        self.next_check = now + max(left, CHECK_SECONDS)
        return left <= 0

    def end(self) -> None:
        """Kill what is left of the child."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


class _Server:
    """The loop of the zygote: starts children, watches their clocks, ends them."""

    def __init__(self, isolation: Isolation, judge_process: int):
        self.isolation, self.judge_process = isolation, judge_process
        self.judge = socket.socket(fileno=os.dup(0))  # closes its own descriptor in the children
        self.watched = [self.judge, *([judge_process] if judge_process >= 0 else [])]
        self.children: dict[int, _Child] = {}
        self.next_user = 0

    def run(self) -> Assignment | None:
        """Serve until the judge is gone: None; in each new child, return its assignment at once.

        The children that are still running when the judge is gone end with this process.
        """
        while True:
            ready = select.select(self.watched, [], [], self._seconds_to_next_check())[0]
            if self.judge_process in ready:
                return None
            if ready:
                message = self.judge.recv(MESSAGE_BYTES)
                if not message:
                    return None
                order = json.loads(message)
                if "start" in order:
                    if assignment := self._start(order):
                        return assignment
                elif order["end"] in self.children:  # else it was late just now
                    self.children.pop(order["end"]).end()
            self._end_those_that_are_late()

    def _seconds_to_next_check(self) -> float | None:
        now = time.monotonic()
        waits = (max(0.0, child.next_check - now) for child in self.children.values())
        return min(waits, default=None)

    def _start(self, order: dict) -> Assignment | None:
        """Fork; return the assignment in the child, None here.

        The pipes are made here, so that nobody but the child can hold its ends of them.
        """
        job_pipe, job_end = os.pipe()
        answer_end, answer_pipe = os.pipe()
        user_index = self._free_user()
        process = self.isolation.fork()
        if not process:
            seconds = int(order["cpu"]) + 2  # a last resort: `_Child` counts more finely
            return Assignment(self.isolation, user_index, job_pipe, answer_pipe, seconds)
        self.children[order["start"]] = _Child(process, user_index, order)
        message = json.dumps({"started": order["start"]}).encode()
        socket.send_fds(self.judge, [message], [answer_end, job_end])
        for descriptor in (job_pipe, job_end, answer_end, answer_pipe):
            os.close(descriptor)
        return None

    def _free_user(self) -> int:
        """Return the index of the next user that no child is, in turn.

        Not the one that was set free last: a program could tell from it who has ended.
        """
        taken = {child.user_index for child in self.children.values()}
        while self.next_user in taken:
            self.next_user = (self.next_user + 1) % USERS
        user_index, self.next_user = self.next_user, (self.next_user + 1) % USERS
        return user_index

    def _end_those_that_are_late(self) -> None:
        now = time.monotonic()
        for number in [n for n, child in self.children.items() if child.is_late(now)]:
            # The judge must know before it sees the end of the answers.
            self.judge.send(json.dumps({"late": number}).encode())
            self.children.pop(number).end()


def serve(weak: bool) -> Assignment | None:
    """Isolate this process and fork a child per order until the judge is gone.

    Returns None then. In each child it returns what the child is to `run`, so that the frames of
    this loop are not above those of the program. Exits with one line on standard error where the
    kernel refuses the isolation.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    judge_process = parent_descriptor()
    try:
        isolation = Isolation(weak)
    except OSError as error:
        sys.exit(str(error))
    gc.freeze()
    server = _Server(isolation, judge_process)
    server.judge.send(json.dumps(isolation.protections).encode())
    return server.run()
