"""How can a program run a thousand times a day and reach nothing? One bare process that forks.

`judge` starts `serve` in a bare interpreter: no site packages, no environment but a fixed hash
seed. It isolates itself once and then forks a child for each job that arrives on its standard
input. It holds the standard library and four small modules, and never a value that a test expects.

Lines in: a job {"number", "program", "variables", "steps", "timeout"}, where a step is a string of
code to execute or a list of calls to evaluate, and `variables` exist before the program runs; or
the bare number of a job that is to end at once, as one of its answers is known to be wrong.

Lines out: {"number", "state", "lines", "seconds"}; each of `lines` is the JSON list of the values
of one list of calls, or the JSON string of the error that ended the program. The state is `running`
(what has been answered so far), `ended`, `timeout`, or `refused`: the child could not be closed in.
"""

import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import time
import types
from typing import NoReturn

from hybridlib.sandbox import wire
from hybridlib.sandbox.isolation import ANSWER_DESCRIPTOR, USERS, Isolation

MAX_ANSWER_BYTES = 1 << 18  # of all answers of a child; it is ended when it writes more
REPORT_SECONDS = 0.1  # between two reports on a child that goes on running
PRELOADED = """abc array base64 bisect calendar cmath collections contextlib copy dataclasses
datetime decimal enum fractions functools hashlib heapq itertools math numbers operator pprint queue
random re secrets statistics string struct textwrap threading time timeit traceback typing
unicodedata uuid zlib""".split()
"""What programs commonly import: loaded once here instead of in every child."""


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


def _run_child(job: dict, user_index: int, isolation: Isolation, answer_pipe: int) -> NoReturn:
    """Close this new child in, evaluate its job and end it.

    The first line that it writes is the sandbox's own: empty, or why it could not be closed in.
    """
    leave = os._exit  # the program may put something else in its place
    try:
        try:
            isolation.confine(user_index, int(job["timeout"]) + 2, answer_pipe)
            os.write(ANSWER_DESCRIPTOR, b"\n")
        except OSError as error:
            os.write(ANSWER_DESCRIPTOR, f"{error}\n".encode())
        else:
            _evaluate(job, ANSWER_DESCRIPTOR)
    finally:
        leave(0)


class _Child:
    """A child that has been started, as the zygote sees it: its process and its answers so far."""

    def __init__(self, job: dict, user_index: int, isolation: Isolation):
        """Fork; the new process does not return from here."""
        self.started = time.monotonic()
        self.deadline = self.started + job["timeout"]
        self.next_report = self.started + REPORT_SECONDS
        self.number, self.user_index = job["number"], user_index
        self.answer, self.reported_lines = bytearray(), 1  # the first line is no answer
        self.pipe, answer_pipe = os.pipe()
        self.process = isolation.fork()
        if not self.process:
            _run_child(job, user_index, isolation, answer_pipe)
        os.close(answer_pipe)

    def next_event(self, now: float) -> float:
        """Return the time of the next report that may be due, or else of the deadline."""
        return self.next_report if self.next_report > now else self.deadline

    def has_report(self, now: float) -> bool:
        """Return whether the judge should see new answers now, before the child ends.

        Counts them as reported, and the next report is REPORT_SECONDS away: a child may write by
        the byte.
        """
        if now < self.next_report:
            return False
        lines = self.answer.count(b"\n")
        if lines <= self.reported_lines:
            return False
        self.reported_lines, self.next_report = lines, now + REPORT_SECONDS
        return True

    def reply(self, state: str) -> bytes:
        """Return the line for the judge: all complete answers so far, and the state."""
        complete = self.answer.decode("ascii", "replace").split("\n")[:-1]
        first, *lines = complete or ["no word"]
        if first and state == "ended":
            state, lines = "refused", [first]
        seconds = round(time.monotonic() - self.started, 4)
        reply = {"number": self.number, "state": state, "lines": lines, "seconds": seconds}
        return json.dumps(reply).encode() + b"\n"

    def end(self, state: str) -> bytes:
        """Kill what is left of the child and return its last reply."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.pipe)
        return self.reply(state)


class _Server:
    """The loop of the zygote: reads jobs, watches the children, writes replies."""

    def __init__(self, isolation: Isolation):
        self.isolation = isolation
        self.children: dict[int, _Child] = {}  # by the pipe of their answers
        self.free_users = list(range(USERS))
        self.partial_line = b""

    def run(self) -> None:
        """Serve until standard input ends; the children still running end with this process."""
        while self._read(self._seconds_to_next_event()):
            self._check_times()

    def _seconds_to_next_event(self) -> float | None:
        now = time.monotonic()
        waits = (max(0.0, child.next_event(now) - now) for child in self.children.values())
        return min(waits, default=None)

    def _read(self, seconds: float | None) -> bool:
        """Wait for answers and orders and act on them; False once standard input has ended."""
        # Orders come last: they may end a child whose answer is ready as well.
        for pipe in select.select([*self.children, 0], [], [], seconds)[0]:
            chunk = os.read(pipe, 1 << 16)
            if pipe:
                self._take_answer(self.children[pipe], chunk)
            elif chunk:
                *lines, self.partial_line = (self.partial_line + chunk).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            else:
                return False
        return True

    def _take_answer(self, child: _Child, chunk: bytes) -> None:
        child.answer += chunk
        if not chunk or len(child.answer) > MAX_ANSWER_BYTES:
            self._end(child, "ended")

    def _obey(self, order: dict | int) -> None:
        """Start a job, or end the one of that number if it is still running."""
        if isinstance(order, dict):
            child = _Child(order, self.free_users.pop(0), self.isolation)
            self.children[child.pipe] = child
            return
        for child in [*self.children.values()]:
            if child.number == order:
                self._end(child, "ended")

    def _check_times(self) -> None:
        """End the children that are late; report on those that have new answers."""
        now = time.monotonic()
        for child in [*self.children.values()]:
            if child.deadline <= now:
                self._end(child, "timeout")
            elif child.has_report(now):
                _send(child.reply("running"))

    def _end(self, child: _Child, state: str) -> None:
        del self.children[child.pipe]
        self.free_users.append(child.user_index)
        _send(child.end(state))


def serve(weak: bool) -> None:
    """Isolate this process and fork a child per job until standard input ends.

    Writes a first line, the JSON list of the protections in force, then replies in the order of
    completion. Exits with one line on standard error where the kernel refuses the isolation.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    try:
        isolation = Isolation(weak)
    except OSError as error:
        sys.exit(str(error))
    gc.freeze()
    _send(json.dumps(isolation.protections).encode() + b"\n")
    _Server(isolation).run()


def _send(line: bytes) -> None:
    """Write a line to standard output, the judge's pipe, in as many pieces as it takes."""
    while line:
        line = line[os.write(1, line) :]
