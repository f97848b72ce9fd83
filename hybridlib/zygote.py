"""How can a program run a thousand times a day and reach nothing? One bare process that forks.

`sandbox` starts this file with a bare interpreter (no site packages, no environment but a fixed
hash seed). It walls itself off once, with the namespaces that the kernel grants, and then forks a
child for each job that arrives on its standard input. It imports the standard library only, and it
never sees the value that a test expects.

Job: {"number", "program", "bind", "steps", "timeout"}; a step is code to run or a list of calls.
Reply: {"number", "lines", "timeout", "seconds"}; a line is the JSON list of one step's values, or
the JSON string of the error that ended the program.
"""

import collections
import ctypes
import gc
import importlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import time
import types
from typing import Any

MEMORY, FILE_BYTES, ANSWER_BYTES, NODES, DEPTH = 512 << 20, 1 << 20, 1 << 18, 50_000, 60
NOBODY = 65534
NEW_PROCESSES, NO_NEW_RIGHTS, DIE_WITH_PARENT, SECCOMP = 0x20000000, 38, 1, 22  # unshare, prctl
# What programs commonly import: loaded once here instead of in every child.
LIBRARY = "bisect collections copy datetime functools heapq itertools math operator string typing"
GROUPS = {kind.__name__: kind for kind in (list, tuple, set, frozenset, collections.deque)}
MAPS = {kind.__name__: kind for kind in (dict, collections.Counter, collections.OrderedDict)}
LAZY = {type(iter(kind())) for kind in (list, tuple, str, dict, set)} | {
    map, filter, zip, enumerate, reversed, types.GeneratorType, type(iter(range(0))),
    type(reversed([])), type({}.keys()), type({}.values()), type({}.items()),
}  # fmt: skip

# ---------------------------------------------------------------- plain values over the pipe


def encode(value: Any, depth: int = 0, budget: list[int] | None = None) -> Any:
    """JSON for a plain value, by exact type: a subclass could bring its own idea of equality.

    Raises ValueError for any other type and for values past the limits on nodes and depth.
    """
    budget = budget or [NODES]
    budget[0] -= 1
    kind = type(value)
    name = kind.__name__
    if depth > DEPTH or budget[0] <= 0:
        raise ValueError("the value is too large")
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in LAZY or GROUPS.get(name) is kind:
        items = [encode(item, depth + 1, budget) for item in value]
        return ["iter" if kind in LAZY else name, *items]
    if kind is collections.defaultdict or MAPS.get(name) is kind:
        items = [[encode(part, depth + 1, budget) for part in pair] for pair in value.items()]
        return ["dict" if kind is collections.defaultdict else name, *items]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is range:
        return ["range", value.start, value.stop, value.step]
    if kind is bytes:
        return ["bytes", value.decode("latin-1")]
    if kind is re.Match:
        return ["match"]
    raise ValueError(f"the value is of type {name}, which is not plain")


def decode(data: Any) -> Any:
    """The value that `encode` wrote; ValueError, TypeError or LookupError for anything else."""
    if not isinstance(data, list):
        return data
    name, *items = data
    if name in MAPS:
        return MAPS[name]({decode(key): decode(value) for key, value in items})
    if name == "bytes":
        return str(items[0]).encode("latin-1")
    if name == "match":
        return object()  # as a match: true, and equal to nothing
    makers = {"complex": lambda v: complex(*v), "range": lambda v: range(*v), "iter": iter}
    return (makers.get(name) or GROUPS[name])([decode(item) for item in items])


# ---------------------------------------------------------------- the child


def _evaluate(job: dict, out: int) -> None:
    """Runs the program, then each step; writes a line per evaluated step, stops at an error."""
    module = types.ModuleType("program")
    sys.modules["program"] = module  # dataclasses and pickle look their module up
    space = module.__dict__
    write = os.write
    try:
        space.update({name: decode(value) for name, value in job["bind"].items()})
        exec(compile(job["program"], "<program>", "exec"), space)
        for step in job["steps"]:
            if isinstance(step, str):
                exec(step, space)
                continue
            line = json.dumps([encode(eval(call, space)) for call in step])
            for start in range(0, len(line) + 1, 4096):
                write(out, (line + "\n")[start : start + 4096].encode())
    except BaseException as error:  # SystemExit and KeyboardInterrupt end a program as well
        write(out, json.dumps(f"{type(error).__name__}: {error}"[:300]).encode() + b"\n")


def _child(job: dict, out: int, null: int, folder: str, libc: ctypes.CDLL) -> None:
    """Gives up every right it can, then evaluates; never returns."""
    try:
        os.setsid()
        os.chdir(folder)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.dup2(out, 3)
        os.closerange(4, 256)
        cpu = int(job["timeout"]) + 2
        for limit, most in (
            (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, FILE_BYTES),
            (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_CORE, 0),
        ):  # fmt: skip
            resource.setrlimit(limit, (most, most))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # binds because the user is not root
        # No capability is left, none can be gained, and the child dies with its zygote.
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
        libc.prctl(NO_NEW_RIGHTS, 1, 0, 0, 0)
        libc.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        random.seed(0)  # the same program gets the same verdict every time
        if FILTER and libc.prctl(SECCOMP, 2, ctypes.byref(FILTER), 0, 0):
            return  # unjudged, which the judge's own two programs notice at the start
        _evaluate(job, 3)
    finally:
        os._exit(0)


# ---------------------------------------------------------------- the zygote


def _wall_off(home: str, libc: ctypes.CDLL) -> tuple[list[str], int]:
    """Leaves the machine's network, processes and files behind, as far as the kernel allows.

    Returns what is walled off (nothing where namespaces are refused) and a descriptor of the
    process namespace, -1 without one. Behind the walls the root folder is a small memory disk that
    holds the standard library, read-only, and nothing else.
    """
    user, group = os.geteuid(), os.getegid()
    mount, ipc, process, network, own = 0x20000, 0x8000000, NEW_PROCESSES, 0x40000000, 0x10000000
    if libc.unshare(mount | ipc | process | network | (own if user else 0)):
        return [], -1
    if user:
        users, groups = f"{NOBODY} {user} 1", f"{NOBODY} {group} 1"
        for name, text in (("setgroups", "deny"), ("uid_map", users), ("gid_map", groups)):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    inner = os.fork()  # the first process of the new process namespace does the work
    if inner:
        os.close(0)
        os.waitpid(inner, 0)
        libc.umount2(home.encode(), 2)
        shutil.rmtree(home, ignore_errors=True)
        os._exit(0)
    libc.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    walls, here = ["network", "processes"], os.open("/proc/self/ns/pid", os.O_RDONLY)
    recursive, private, bind, remount, read_only, plain = 0x4000, 1 << 18, 4096, 32, 1, 2 | 4
    libc.mount(b"none", b"/", None, recursive | private, None)
    if libc.mount(b"tmpfs", home.encode(), b"tmpfs", plain, b"size=64m,nr_inodes=4096,mode=755"):
        return walls, here
    for path in filter(os.path.isdir, sys.path):
        target = home + path
        if not os.path.isdir(target):
            os.makedirs(target)
            kept = os.statvfs(path).f_flag & (2 | 4 | 8 | 1024 | 2048)  # flags that may not go
            if libc.mount(path.encode(), target.encode(), None, bind, None) or libc.mount(
                None, target.encode(), None, bind | remount | read_only | kept, None
            ):
                return walls, here
    os.chroot(home)
    return [*walls, "files"], here


class _Running:
    """A child that has been started: its process, its folder, its answer so far."""

    def __init__(self, job: dict, null: int, here: int, libc: ctypes.CDLL):
        self.started = time.monotonic()
        self.deadline = self.started + job["timeout"]
        self.number, self.answer = job["number"], bytearray()
        self.folder = f"job{self.number}"
        os.mkdir(self.folder, 0o700)
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self.pipe, out = os.pipe()
        if here >= 0:
            libc.unshare(NEW_PROCESSES)  # the next child is the first process of its own namespace
        self.process = os.fork()
        if not self.process:
            _child(job, out, null, self.folder, libc)
        if here >= 0:
            libc.setns(here, NEW_PROCESSES)
        os.close(out)

    def finish(self, timeout: bool) -> bytes:
        """Kills all that is left of it and returns the reply line."""
        for kill in (os.killpg, os.kill):  # the group exists once the child has called setsid
            try:
                kill(self.process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.waitpid(self.process, 0)
        os.close(self.pipe)
        shutil.rmtree(self.folder, ignore_errors=True)
        lines = self.answer.decode("ascii", "replace").split("\n")[:-1]
        reply = {
            "number": self.number, "lines": lines, "timeout": timeout,
            "seconds": round(time.monotonic() - self.started, 4),
        }  # fmt: skip
        return json.dumps(reply).encode() + b"\n"


def serve(home: str) -> None:
    """Forks a child per job until standard input ends; replies in the order of completion."""
    for name in LIBRARY.split():
        importlib.import_module(name)
    libc = ctypes.CDLL(None, use_errno=True)
    null = os.open(os.devnull, os.O_RDWR)
    walls, here = _wall_off(home, libc)
    walls += ["system calls"] * bool(FILTER)
    os.chdir("/" if "files" in walls else home)
    gc.freeze()
    os.write(1, json.dumps(walls).encode() + b"\n")
    running: dict[int, _Running] = {}
    pending = b""
    while True:
        first = min((child.deadline for child in running.values()), default=None)
        wait = None if first is None else max(0.0, first - time.monotonic())
        ready = select.select([0, *running], [], [], wait)[0]
        replies = []
        for pipe in ready:
            chunk = os.read(pipe, 1 << 16)
            if pipe:
                child = running[pipe]
                child.answer += chunk
                if not chunk or len(child.answer) > ANSWER_BYTES:
                    replies.append(running.pop(pipe).finish(timeout=False))
                continue
            if not chunk:
                shutil.rmtree(home, ignore_errors=True)  # there only where nothing is walled off
                return
            *jobs, pending = (pending + chunk).split(b"\n")
            for line in jobs:
                child = _Running(json.loads(line), null, here, libc)
                running[child.pipe] = child
        now = time.monotonic()
        for pipe in [pipe for pipe, child in running.items() if child.deadline <= now]:
            replies.append(running.pop(pipe).finish(timeout=True))
        for reply in replies:
            os.write(1, reply)


class _Filter(ctypes.Structure):
    """struct sock_fprog: a number of instructions, and where they are."""

    _fields_ = [("size", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


FILTER: _Filter | None = None

if __name__ == "__main__":
    if code := bytes.fromhex(sys.argv[2]):  # made by `seccomp`, which is not to be seen from here
        FILTER = _Filter(len(code) // 8, code)
    serve(sys.argv[1])
