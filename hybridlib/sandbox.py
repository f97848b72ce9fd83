"""Does this program pass its tests, and can it do harm while it runs?

Three processes share the work. The *judge* (this process) takes each assert apart: calls of the
program's own functions become slots, everything else, the expected values above all, stays here.
A *zygote* (`zygote.py` in a bare interpreter with no environment, no network and a root folder
without files) forks one *child* per program, which evaluates the calls and answers with plain
values. The judge then runs the comparison itself, so a lying `__eq__`, an exit code, a printed word
or a patched module has nothing to lie to. What a child cannot be kept from: answering by heart the
inputs that its prompt has shown.
"""

import ast
import atexit
import builtins
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass

from hybridlib import StudyError, seccomp, zygote

PROGRAM_CHARS = 50_000
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
AT_ONCE = 8 * CORES  # endless loops wait for their end side by side, the rest needs milliseconds


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
    is that of the first assert that does not hold. `timeout` is wall seconds per program, all its
    asserts together. Raises StudyError when the sandbox cannot work or an assert cannot be judged.
    """
    plans = [_plan(text) for text in tests]
    outcomes: list[Outcome | None] = [_refused(program) for program in programs]
    live = [i for i, outcome in enumerate(outcomes) if outcome is None]
    jobs = [{"program": programs[i], "bind": {}, "steps": plans[i].steps} for i in live]
    replies = _zygote("program").run(jobs, timeout)
    late = [i for i, reply in enumerate(replies) if reply["timeout"]]
    if 0 < len(late) <= CORES < len(jobs):  # slow, or only crowded? once more with a core each
        again = _zygote("program").run([jobs[i] for i in late], timeout)
        for i, reply in zip(late, again, strict=True):
            replies[i] = reply
    answers = [_read(reply["lines"], plans[i]) for i, reply in zip(live, replies, strict=True)]
    held = _held([plans[i] for i in live], [values for values, _ in answers], timeout)
    for i, reply, (_, error), truths in zip(live, replies, answers, held, strict=True):
        if False in truths:
            reason, detail = "wrong", f"assert {truths.index(False) + 1} does not hold"
        elif len(truths) == len(plans[i].checks):
            reason, detail = "pass", ""
        elif reply["timeout"] and not error:
            reason, detail = "timeout", f"more than {timeout} s"
        else:
            reason, detail = "error", error or "the program ended before its tests"
        outcomes[i] = Outcome(reason, detail, reply["seconds"])
    return outcomes


def isolation() -> list[str]:
    """What does this machine's kernel keep away from the programs: network, files, processes?"""
    return _zygote("program").walls


def _refused(program: str) -> Outcome | None:
    if not program.strip():
        return Outcome("no program", "no code")
    if len(program) > PROGRAM_CHARS:
        return Outcome("error", f"more than {PROGRAM_CHARS} characters")
    return None


# ---------------------------------------------------------------- the judge: asserts apart


@dataclass(frozen=True)
class _Plan:
    steps: list  # for the child: a string to execute, or a list of calls to evaluate
    checks: list  # for the judge: (expected value,) for `call == literal`, else a source string
    imports: str  # what the checks may use besides the built-ins


@functools.lru_cache(maxsize=4096)
def _plan(text: str) -> _Plan:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        raise StudyError(f"the tests {text[:60]!r} are no Python ({error}); fix the row") from None
    imports = [s for s in body if isinstance(s, ast.Import | ast.ImportFrom)]
    known = set(dir(builtins)) | {a.asname or a.name for s in imports for a in s.names}
    steps, checks = [], []
    for statement in body:
        if not isinstance(statement, ast.Assert):
            steps.append(ast.unparse(statement))
            continue
        source = ast.unparse(statement)
        slots = _Slots(known)
        test = slots.visit(statement.test)
        if not slots.calls:  # a program may take a built-in's name: `assert sum(10, 15) == 6`
            slots.known = set()
            test = slots.visit(test)
        if not slots.calls or slots.nested:
            raise StudyError(f"{source[:80]!r} cannot be judged; write `assert call(...) == value`")
        steps.append(slots.calls)
        checks.append(_expected(test) or f"bool({ast.unparse(test)})")
    if not checks:
        raise StudyError(f"the tests {text[:60]!r} have no assert; fix the row")
    # Some tests count on the program for an import: `assert size(x) == sys.getsizeof(x)`.
    modules = {n.id for n in ast.walk(ast.Module(body, [])) if isinstance(n, ast.Name)}
    modules = sorted(modules & (sys.stdlib_module_names - known))
    lines = [*map(ast.unparse, imports), *(f"import {name}" for name in modules)]
    return _Plan(steps, checks, "\n".join(lines))


class _Slots(ast.NodeTransformer):
    """Replaces the outermost calls of names that the judge does not know by `_0`, `_1`, ..."""

    def __init__(self, known: set[str]):
        self.known, self.calls, self.nested = known, [], False

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not isinstance(node.func, ast.Name) or node.func.id in self.known:
            return self.generic_visit(node)
        self.calls.append(ast.unparse(node))
        return ast.Name(f"_{len(self.calls) - 1}", ast.Load())

    def visit_scope(self, node: ast.AST) -> ast.AST:
        before = len(self.calls)
        node = self.generic_visit(node)
        self.nested |= len(self.calls) > before  # the call may need the scope's variables
        return node

    visit_Lambda = visit_ListComp = visit_SetComp = visit_scope
    visit_DictComp = visit_GeneratorExp = visit_scope


def _expected(test: ast.expr) -> tuple | None:
    """The literal of `_0 == literal`, which needs no second process to compare."""
    match test:
        case ast.Compare(left=ast.Name(id="_0"), ops=[ast.Eq()], comparators=[value]):
            try:
                return (ast.literal_eval(value),)
            except (ValueError, TypeError):
                return None
    return None


def _held(plans: list[_Plan], answers: list[list], timeout: float) -> list[list[bool]]:
    """Per program, whether each answered assert holds.

    Asserts other than `call == literal` are code of the data set and run in a zygote of their own:
    the programs' zygote never sees an expected value.
    """
    held: list[list] = []
    jobs, places = [], []
    for plan, answer in zip(plans, answers, strict=True):
        held.append([])
        for check, values in zip(plan.checks, answer, strict=False):
            if isinstance(check, tuple):
                held[-1].append(bool(zygote.decode(values[0]) == check[0]))
                continue
            bind = {f"_{n}": value for n, value in enumerate(values)}
            jobs.append({"program": plan.imports, "bind": bind, "steps": [[check]]})
            places.append((held[-1], len(held[-1])))
            held[-1].append(False)
    replies = _zygote("assert").run(jobs, timeout) if jobs else []
    for (truths, k), reply in zip(places, replies, strict=True):
        truths[k] = reply["lines"] == ["[true]"]
    return held


def _read(lines: list[str], plan: _Plan) -> tuple[list[list], str]:
    """(the encoded values of each answered step, the error that ended the program or "").

    The lines come from hostile hands: each value is decoded once here to see that it can be.
    """
    answers, sizes = [], [len(step) for step in plan.steps if isinstance(step, list)]
    try:
        for line, size in zip(map(json.loads, lines), sizes, strict=False):
            if isinstance(line, str):
                return answers, line[:300]
            if len(list(map(zygote.decode, line))) != size:
                raise ValueError
            answers.append(line)
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
        return answers, "an answer that cannot be read"
    return answers, ""


class _Zygote:
    """A running `zygote.py`: jobs in, replies out, AT_ONCE of them under way."""

    def __init__(self):
        self.owner, self.lock = os.getpid(), threading.Lock()
        self.folder = tempfile.mkdtemp(prefix="hybridlib-sandbox-")
        os.chmod(self.folder, 0o711)
        self.process = subprocess.Popen(
            # A fixed hash seed, so that a program that walks a set gets the same verdict each time.
            [sys.executable, "-s", "-S", "-P", "-B", zygote.__file__, self.folder,
             seccomp.program().hex()],
            env={"PYTHONHASHSEED": "0"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        greeting = self.process.stdout.readline()
        if not greeting:
            error = self.process.stderr.read().decode(errors="replace").strip().split("\n")[-1]
            self.close()
            raise StudyError(f"the sandbox cannot start: {error or 'no reason'}; it needs Linux")
        self.walls = json.loads(greeting)
        good = {"program": "", "bind": {}, "steps": [["1 + 1"]]}
        lines = [reply["lines"] for reply in self.run([good, {**good, "program": "1 / 0"}], 10.0)]
        if lines[0] != ["[2]"] or lines[1] == ["[2]"]:
            self.close()
            raise StudyError(f"the sandbox misjudges its own two programs: {lines}; do not use it")

    def run(self, jobs: list[dict], timeout: float) -> list[dict]:
        """The reply to each job; any interruption ends the zygote, so no reply is ever mixed up."""
        replies: list[dict] = [{}] * len(jobs)
        room = threading.Semaphore(AT_ONCE)

        def feed() -> None:  # beside the reader: both pipes may be full
            with contextlib.suppress(OSError, ValueError):
                for number, job in enumerate(jobs):
                    room.acquire()
                    line = json.dumps({"number": number, "timeout": timeout, **job})
                    self.process.stdin.write(line.encode() + b"\n")
                    self.process.stdin.flush()

        with self.lock:
            (feeder := threading.Thread(target=feed, daemon=True)).start()
            try:
                for _ in jobs:
                    reply = json.loads(self.process.stdout.readline())
                    replies[reply["number"]] = reply
                    room.release()
            except BaseException as error:
                self.close()
                room.release(len(jobs))
                if isinstance(error, OSError | ValueError):
                    raise StudyError("the sandbox has stopped; start again") from None
                raise
            feeder.join()
        return replies

    def close(self) -> None:
        """Ends the process and removes its folder, unless another process started them."""
        if self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
            shutil.rmtree(self.folder, ignore_errors=True)


_ZYGOTES: dict[str, _Zygote] = {}


def _zygote(name: str) -> _Zygote:
    """This process's zygote of that name, started at the first call and after a fork."""
    held = _ZYGOTES.get(name)
    if held is None or held.owner != os.getpid() or held.process.returncode is not None:
        held = _ZYGOTES[name] = _Zygote()
        atexit.register(held.close)
    return held
