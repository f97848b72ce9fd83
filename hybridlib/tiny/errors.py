"""Where does a wrong solution leave the right one? Kinds of first errors, by the gold chain."""

import itertools
import re
from typing import NamedTuple

from hybridlib.tiny.families import Programs

ERRORS = ("wrong operand", "wrong arithmetic", "lost step", "wrong form")
"""Kinds of first errors.

In programs another operation is a wrong operand, too. A lost step is missing, out of order or one
too many. A form is wrong where a line is no step, or where the last line does not follow.
"""


class Step(NamedTuple):
    """One line of a solution."""

    computes: str  # "8+3"
    result: str = ""  # programs state none


STATEMENTS = "|".join(
    re.escape(operation.code).replace(re.escape("{k}"), r"\d+")
    for operation in Programs.OPERATIONS.values()
)
STEP_LINES = {
    "number": re.compile(r"<<([^=]+)=([^=]+)>>\2"),
    "expression": re.compile(r"([^=]+)=([^=]+)"),
    "program": re.compile(rf"    (?:xs|n) = ({STATEMENTS})()"),
}
FIRST_LINES = {"program": re.compile(r"def f\((?:xs|n)\):")}
LAST_LINES = {
    "number": re.compile(r"#### .*"),
    "expression": re.compile(r"\\boxed\{.*\}"),
    "program": re.compile("    return (?:xs|n)"),
}


def first_error(gold: str, given: str, kind: str) -> str:
    r"""Return which of ERRORS a wrong solution of a generated question makes first.

    >>> first_error("<<2+3=5>>5\n<<5*4=20>>20\n#### 20", "<<2+3=6>>6\n#### 6", "number")
    'wrong arithmetic'

    Args:
        gold: the reference solution.
        given: a solution that is graded wrong.
        kind: number, expression or program, as in the rows of `data.load`.
    """
    right, found = _steps(gold, kind), _steps(given, kind)
    for place, (wanted, step) in enumerate(itertools.zip_longest(right, found)):
        if wanted is None or (step is None and place == len(found)):
            return "lost step"
        if step is None:
            return "wrong form"
        if step.computes != wanted.computes:
            return "lost step" if _skips(step, right[place:]) else "wrong operand"
        if step.result != wanted.result:
            return "wrong arithmetic"
    return "wrong form"


def _steps(text: str, kind: str) -> list[Step | None]:
    """Return the steps of a solution, None for each line that is none and should be one."""
    lines = text.split("\n")
    if kind in FIRST_LINES and FIRST_LINES[kind].fullmatch(lines[0]):
        lines = lines[1:]
    if lines and LAST_LINES[kind].fullmatch(lines[-1]):
        lines = lines[:-1]
    matches = [STEP_LINES[kind].fullmatch(line) for line in lines]
    return [Step(*match.groups()) if match else None for match in matches]


def _skips(step: Step, ahead: list[Step | None]) -> bool:
    """Return whether a step carries out an operation that is due later."""
    for before, later in itertools.pairwise(ahead):
        if later.computes.startswith(before.result):
            if step.computes.endswith(later.computes.removeprefix(before.result)):
                return True
        elif step.computes.startswith(later.computes.removesuffix(before.result)):
            return True
    return False
