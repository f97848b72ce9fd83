"""How can a program run a thousand times a day and reach nothing? One bare process that forks.

`judge` starts `serve` in a bare interpreter: no site packages, no environment but a fixed hash
seed. It isolates itself once and then forks a child for each program. It holds the standard library
and four small modules, and never a program, an answer or a value that a test expects: a child gets
its job from the judge, through a pipe of its own, once it has been forked and closed in. So there
is nothing of another program in its memory, before or after, nor in the frames above it.

Messages from the judge, on the socket that is standard input: {"end": numbers, "start": numbers,
"cpu", "wall"}: children that are no longer needed, and new ones that may use that many seconds.
Messages to the judge: first the list of the protections in force; `started NUMBER` with two
descriptors, to read the child's answers and to write its job; `late NUMBER`, before it is ended.

A job is eight bytes that say how many follow, then JSON: {"program", "variables", "steps"}, where a
step is a string of code to execute or a list of calls to evaluate, and `variables` exist before the
program runs. A child's first line is the sandbox's own: empty, or why it could not be closed in.
Each other line is the JSON list of the values of one list of calls, or the JSON string of the error
that ended the program.
"""

import gc
import importlib
import json
import math
import os
import select
import signal
import socket
import struct
import sys
import time
import types
from collections import deque
from dataclasses import dataclass
from typing import NoReturn

from hybridlib.sandbox import wire
from hybridlib.sandbox.isolation import ANSWER_DESCRIPTOR, USERS, Isolation, parent_descriptor

MESSAGE_BYTES = 1 << 12  # more than any message has
CHECK_SECONDS = 0.02  # between two looks at the clock of a child, at least
MAX_ENDING = 16  # children that have been killed and are still being taken apart
IDLE_SHARE = 0.01  # of a core: a child that uses less waits for something else than a core
PRELOADED = """abc array base64 bisect calendar cmath collections contextlib copy dataclasses
datetime decimal enum fractions functools hashlib heapq itertools math numbers operator pprint queue
random re secrets statistics string struct textwrap threading time timeit traceback typing
unicodedata uuid zlib""".split()
"""What programs commonly import: loaded once here instead of in every child."""

WARM_UP = "def f(x):\n    return [x, (x, 'a'), {x: 1.5}]"


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
    job = json.loads(_read_exactly(length).decode())
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
    sys.modules["random"].seed(0)  # the same program gets the same verdict every time
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

    def kill(self) -> None:
        """Kill what is left of the child; `has_ended` tells when it is gone."""
        os.kill(self.process, signal.SIGKILL)

    def has_ended(self, wait: bool) -> bool:
        """Return whether nothing is left of the child, waiting for that if told to."""
        return os.waitpid(self.process, 0 if wait else os.WNOHANG)[0] != 0


class _Server:
    """The loop of the zygote: starts children, watches their clocks, ends them."""

    def __init__(self, isolation: Isolation, judge_process: int):
        self.isolation, self.judge_process = isolation, judge_process
        self.judge = socket.socket(fileno=os.dup(0))
        self.watched = select.poll()
        self.watched.register(self.judge, select.POLLIN)
        if judge_process >= 0:
            self.watched.register(judge_process, select.POLLIN)
        self.children: dict[int, _Child] = {}
        self.ending: deque[_Child] = deque()
        self.next_check = math.inf
        self.taken_users: set[int] = set()
        self.next_user = 0

    def run(self) -> Assignment | None:
        """Serve until the judge is gone: None; in each new child, return its assignment at once.

        The children that are still running when the judge is gone end with this process.
        """
        while True:
            ready = self.watched.poll(self._milliseconds_to_next_check())
            if any(descriptor == self.judge_process for descriptor, _ in ready):
                return None
            if ready:
                message = self.judge.recv(MESSAGE_BYTES)
                if not message:
                    return None
                order = json.loads(message.decode())
                for number in order["end"]:
                    self._end(number)
                for number in order["start"]:
                    if assignment := self._start(number, order):
                        return assignment
            self._end_those_that_are_late()
            while self.ending and self.ending[0].has_ended(len(self.ending) > MAX_ENDING):
                self.taken_users.remove(self.ending.popleft().user_index)

    def _milliseconds_to_next_check(self) -> float | None:
        if not self.children:
            return 1e3 * CHECK_SECONDS if self.ending else None
        return max(0.0, 1e3 * (self.next_check - time.monotonic()))

    def _start(self, number: int, order: dict) -> Assignment | None:
        """Fork; return the assignment in the child, None here.

        The pipes are made here, so that nobody but the child can hold its ends of them.
        """
        job_pipe, job_end = os.pipe()
        answer_end, answer_pipe = os.pipe()
        user_index = self._free_user()
        process = self.isolation.fork()
        if not process:
            self.judge.close()  # left to itself, it would compose a warning first
            seconds = int(order["cpu"]) + 2  # a last resort: `_Child` counts more finely
            return Assignment(self.isolation, user_index, job_pipe, answer_pipe, seconds)
        self.children[number] = child = _Child(process, user_index, order)
        self.next_check = min(self.next_check, child.next_check)
        ends = struct.pack("ii", answer_end, job_end)
        self.judge.sendmsg([b"started %d" % number], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)])
        for descriptor in (job_pipe, job_end, answer_end, answer_pipe):
            os.close(descriptor)
        return None

    def _free_user(self) -> int:
        """Return the index of the next user that no child is, in turn.

        Not the one that was set free last: a program could tell from it who has ended.
        """
        while self.next_user in self.taken_users:
            self.next_user = (self.next_user + 1) % USERS
        user_index, self.next_user = self.next_user, (self.next_user + 1) % USERS
        self.taken_users.add(user_index)
        return user_index

    def _end_those_that_are_late(self) -> None:
        now = time.monotonic()
        if now < self.next_check:
            return
        for number in [n for n, child in self.children.items() if child.is_late(now)]:
            # The judge must know before it sees the end of the answers.
            self.judge.send(b"late %d" % number)
            self._end(number)
        waits = (child.next_check for child in self.children.values())
        self.next_check = min(waits, default=math.inf)

    def _end(self, number: int) -> None:
        """Kill a child, if it was not late just now.

        The kernel then takes its namespaces apart, which is long waiting and little work.
        """
        if child := self.children.pop(number, None):
            child.kill()
            self.ending.append(child)


def _warm_up() -> None:
    """Evaluate a small job of our own, so that no child has to fill the interpreter's caches.

    They lie in pages that a child shares with the zygote until it writes to them.
    """
    job = {"program": WARM_UP, "variables": {"_0": ["tuple", 1]}, "steps": ["a = 1", ["f(a)"] * 9]}
    null_device = os.open(os.devnull, os.O_WRONLY)
    for _ in range(9):
        _evaluate(json.loads(json.dumps(job)), null_device)
    os.close(null_device)
    del sys.modules["program"]


def serve(weak: bool) -> Assignment | None:
    """Isolate this process and fork a child per order until the judge is gone.

    Returns None then. In each child it returns what the child is to `run`, so that the frames of
    this loop are not above those of the program. Exits with one line on standard error where the
    kernel refuses the isolation.
    """
    # What `random` and `threading` would do in each child takes it a sixth of its time, and is for
    # nothing: `_evaluate` seeds, and there is one thread only.
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    for name in PRELOADED:
        importlib.import_module(name)
    os.register_at_fork = register
    judge_process = parent_descriptor()
    try:
        isolation = Isolation(weak)
    except OSError as error:
        sys.exit(str(error))
    _warm_up()
    gc.collect()
    gc.freeze()
    server = _Server(isolation, judge_process)
    server.judge.send(json.dumps(isolation.protections).encode())
    return server.run()
