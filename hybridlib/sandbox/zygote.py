"""How can a program run a thousand times a day and reach nothing? One bare process that forks.

`sandbox` starts `serve` in a bare interpreter (no site packages, no environment but a fixed hash
seed). It raises its `walls` once and then forks a child for each job that arrives on its standard
input. It holds the standard library and four small modules, and never a value that a test expects.

A line in: a job {"number", "program", "bind", "steps", "timeout"}, where a step is code to run or a
list of calls; or the bare number of a job that is to end, as one of its answers is known to be
wrong.
A line out: {"number", "state", "lines", "seconds"}; each of `lines` is the JSON list of one step's
values, or the JSON string of the error that ended the program. The state is `running` (what there
is after a while), `ended`, `timeout`, or `refused`: the child could not be closed in.
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

from hybridlib.sandbox import wire
from hybridlib.sandbox.isolation import USERS, Walls

ANSWER_BYTES = 1 << 18
LOOK = 0.1  # seconds between two looks at the answers of a child that goes on running
# What programs commonly import: loaded once here instead of in every child.
LIBRARY = """abc array base64 bisect calendar cmath collections contextlib copy dataclasses datetime
decimal enum fractions functools hashlib heapq itertools math numbers operator pprint queue random
re secrets statistics string struct textwrap threading time timeit traceback typing unicodedata
uuid zlib""".split()


def _evaluate(job: dict, out: int) -> None:
    """Runs the program, then each step; writes a line per evaluated step, stops at an error."""
    module = types.ModuleType("program")
    sys.modules["program"] = module  # dataclasses and pickle look their module up
    space = module.__dict__
    write = os.write
    random.seed(0)  # the same program gets the same verdict every time
    try:
        space.update({name: wire.decode(value) for name, value in job["bind"].items()})
        exec(compile(job["program"], "<program>", "exec"), space)
        for step in job["steps"]:
            if isinstance(step, str):
                exec(step, space)
                continue
            line = json.dumps([wire.encode(eval(call, space)) for call in step]).encode()
            for start in range(0, len(line) + 1, 4096):
                write(out, (line + b"\n")[start : start + 4096])
    except BaseException as error:  # SystemExit and KeyboardInterrupt end a program as well
        write(out, json.dumps(f"{type(error).__name__}: {error}"[:300]).encode() + b"\n")


class _Running:
    """A child that has been started: its process and its answer so far."""

    def __init__(self, job: dict, slot: int, walls: Walls):
        self.started = time.monotonic()
        self.deadline, self.look = self.started + job["timeout"], self.started + LOOK
        self.number, self.slot, self.answer, self.told = job["number"], slot, bytearray(), 1
        self.pipe, out = os.pipe()
        self.process = walls.fork()
        if self.process:
            os.close(out)
            return
        leave = os._exit  # the program may put something else in its place
        try:
            try:
                walls.confine(slot, int(job["timeout"]) + 2, out)
                os.write(3, b"\n")  # what comes behind this line is the program's word, not ours
            except OSError as error:
                os.write(3, f"{error}\n".encode())
            else:
                _evaluate(job, 3)
        finally:
            leave(0)

    def wake(self, now: float) -> float:
        """When is the next look at it due?"""
        return self.look if self.look > now else self.deadline

    def news(self, now: float) -> bool:
        """Are there answers that the judge should see before the child ends?"""
        if now < self.look or (lines := self.answer.count(b"\n")) <= self.told:
            return False
        self.told, self.look = lines, now + LOOK  # never more often: a child may write by the byte
        return True

    def reply(self, state: str) -> bytes:
        first, *lines = self.answer.decode("ascii", "replace").split("\n")[:-1] or ["no word"]
        if first and state == "ended":
            state, lines = "refused", [first]
        seconds = round(time.monotonic() - self.started, 4)
        reply = {"number": self.number, "state": state, "lines": lines, "seconds": seconds}
        return json.dumps(reply).encode() + b"\n"

    def finish(self, state: str) -> bytes:
        """Kills all that is left of it and returns the last reply."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.pipe)
        return self.reply(state)


def serve(weak: bool) -> None:
    """Forks a child per job until standard input ends; replies in the order of completion."""
    for name in LIBRARY:
        importlib.import_module(name)
    try:
        walls = Walls(weak)
    except OSError as error:
        sys.exit(str(error))
    gc.freeze()
    _send(json.dumps(walls.names).encode() + b"\n")
    running: dict[int, _Running] = {}
    slots, pending = list(range(USERS)), b""

    def finish(child: _Running, state: str) -> None:
        del running[child.pipe]
        slots.append(child.slot)
        _send(child.finish(state))

    while True:
        now = time.monotonic()
        wait = min((max(0.0, c.wake(now) - now) for c in running.values()), default=None)
        # Orders come last: they may end a child whose answer is ready as well.
        for pipe in select.select([*running, 0], [], [], wait)[0]:
            chunk = os.read(pipe, 1 << 16)
            if pipe:
                child = running[pipe]
                child.answer += chunk
                if not chunk or len(child.answer) > ANSWER_BYTES:
                    finish(child, "ended")
                continue
            if not chunk:
                return  # and the running children go with their namespace
            *lines, pending = (pending + chunk).split(b"\n")
            for job in map(json.loads, lines):
                if isinstance(job, dict):
                    child = _Running(job, slots.pop(0), walls)
                    running[child.pipe] = child
                for child in [c for c in running.values() if c.number == job]:
                    finish(child, "ended")
        now = time.monotonic()
        for child in [*running.values()]:
            if child.deadline <= now:
                finish(child, "timeout")
            elif child.news(now):
                _send(child.reply("running"))


def _send(line: bytes) -> None:
    while line:
        line = line[os.write(1, line) :]
