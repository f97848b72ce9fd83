"""What does an assert ask of a program, and does the answer hold?

Calls of the program's own functions become slots and go to the sandbox; the expected values never
leave this side. EvalPlus feeds tests as values for the same reason, and compares in the program's
process, where a lying `__eq__` can be heard.
"""

import ast
import builtins
import functools
import json
import sys
from dataclasses import dataclass

from hybridlib import StudyError
from hybridlib.sandbox import wire

SHORT = 10_000  # characters of an answer that the judge compares itself, see `read`


@dataclass(frozen=True)
class Check:
    """The comparison of one assert: over `_i_0`, `_i_1`, ..., the values of its calls.

    `literal` holds the expected value where the assert is `call == literal`, else nothing.
    """

    source: str
    literal: tuple = ()


@dataclass(frozen=True)
class Plan:
    """The tests of one program, taken apart.

    `steps` are for the program: a string to execute, or a list of calls to evaluate. `checks` are
    for the judge, one per list of calls; `imports` is what they may use besides the built-ins.
    """

    steps: list[str | list[str]]
    checks: list[Check]
    imports: str


@functools.lru_cache(maxsize=4096)
def plan(text: str) -> Plan:
    """Setup code and asserts, taken apart; StudyError where they cannot be judged."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise StudyError(f"the tests {text[:60]!r} are no Python ({error}); fix the row") from None
    imports = [s for s in body if isinstance(s, ast.Import | ast.ImportFrom)]
    known = set(dir(builtins)) | {a.asname or a.name for s in imports for a in s.names}
    steps, checks = [], []
    for statement in body:
        if not isinstance(statement, ast.Assert):
            steps.append(ast.unparse(statement))
            continue
        source = ast.unparse(statement)
        slots = _Slots(known, f"_{len(checks)}_")
        test = slots.visit(statement.test)
        if not slots.calls:  # a program may take a built-in's name: `assert sum(10, 15) == 6`
            slots.known = set()
            test = slots.visit(test)
        if not slots.calls or slots.nested:
            raise StudyError(f"{source[:80]!r} cannot be judged; write `assert call(...) == value`")
        steps.append(slots.calls)
        checks.append(Check(f"bool({ast.unparse(test)})", _literal(test)))
    if not checks:
        raise StudyError(f"the tests {text[:60]!r} have no assert; fix the row")
    # Some tests count on the program for an import: `assert size(x) == sys.getsizeof(x)`.
    modules = {n.id for n in ast.walk(ast.Module(body, [])) if isinstance(n, ast.Name)}
    modules = sorted(modules & (sys.stdlib_module_names - known))
    lines = [*map(ast.unparse, imports), *(f"import {name}" for name in modules)]
    return Plan(steps, checks, "\n".join(lines))


class _Slots(ast.NodeTransformer):
    """Replaces the outermost calls of names that the judge does not know by slots."""

    def __init__(self, known: set[str], prefix: str):
        self.known, self.prefix, self.calls, self.nested = known, prefix, [], False

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not isinstance(node.func, ast.Name) or node.func.id in self.known:
            return self.generic_visit(node)
        self.calls.append(ast.unparse(node))
        return ast.Name(f"{self.prefix}{len(self.calls) - 1}", ast.Load())

    def visit_scope(self, node: ast.AST) -> ast.AST:
        before = len(self.calls)
        node = self.generic_visit(node)
        self.nested |= len(self.calls) > before  # the call may need the scope's variables
        return node

    visit_Lambda = visit_ListComp = visit_SetComp = visit_scope
    visit_DictComp = visit_GeneratorExp = visit_scope


def _literal(test: ast.expr) -> tuple:
    """The literal of `slot == literal`, which needs no second process to compare."""
    match test:
        case ast.Compare(left=ast.Name(), ops=[ast.Eq()], comparators=[value]):
            try:
                return (ast.literal_eval(value),)
            except (ValueError, TypeError):
                return ()
    return ()


def read(lines: list[str], plan: Plan) -> tuple[list[bool | list], str]:
    """What the program's answers say: a truth for each answered assert, and its error or "".

    Stands in for a truth: the answer itself, where `check` must find it out. The lines come from
    hostile hands. A long answer may be made to collide in a set a million times, so it is not even
    decoded here. Nothing is read behind the first assert that does not hold.
    """
    truths: list[bool | list] = []
    sizes = [len(step) for step in plan.steps if isinstance(step, list)]
    for line, size, check in zip(lines, sizes, plan.checks, strict=False):
        try:
            answer = json.loads(line)
            if isinstance(answer, str):
                return truths, "".join(c if c.isprintable() else " " for c in answer[:300])
            if not isinstance(answer, list) or len(answer) != size:
                raise ValueError
            if len(line) > SHORT:
                truths.append(answer)
                continue
            decoded = [wire.decode(value) for value in answer]
            truths.append(bool(decoded[0] == check.literal[0]) if check.literal else answer)
        except wire.UNREADABLE:
            return truths, "an answer that cannot be read"
        if truths[-1] is False:
            break
    return truths, ""


def check(truths: list[bool | list], plan: Plan) -> dict | None:
    """The job that finds out the truths that `read` left open; None where there are none.

    These checks are code of the data set over a program's values. They run in a zygote of their
    own: that of the programs never sees an expected value.
    """
    held = [i for i, truth in enumerate(truths) if isinstance(truth, list)]
    bind = {f"_{i}_{n}": value for i in held for n, value in enumerate(truths[i])}
    steps = [[plan.checks[i].source] for i in held]
    return {"program": plan.imports, "bind": bind, "steps": steps} if held else None
