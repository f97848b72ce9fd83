"""How do the tasks of MBPP+ become tests for the sandbox? Their inputs, and EvalPlus's rules.

Inputs are stored as JSON; the number of a task says which lists in them are tuples, as in
EvalPlus's `evalplus/data/mbpp.py`. Which answers are right follows its `evalplus/eval/__init__.py`:
equal ones, floats within rtol 1e-7 and atol 1e-6, and for the tasks of `_special_oracle.py` those
of a rule of their own.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlib import StudyError

IMPORTS = "import math\nfrom collections import Counter, OrderedDict, defaultdict, deque"
MAX_CHARS, MAX_SECONDS = 8000, 0.5  # of an expected answer, and of the reference for it
ALL = -1
TUPLES = [  # task numbers; the argument concerned, or ALL; the depths at which lists are tuples
    ("2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809", ALL,
     {1}),
    ("63 64 70 75 94 120 237 272 299 400 409 413 417 438 444 473 614 753 780", ALL, {2}),
    ("259 278 401 445", ALL, {1, 2}),
    ("250 307 405 446 617 720 763 808", 0, {1}),
    ("106 750", 1, {1}),
    ("580 615 791", -1, set(range(1, 99))),
]  # fmt: skip
AS_SETS = {2, 7, 111, 140, 232, 249, 579, 769}
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
SECOND_ANSWERS = {  # of tasks whose statement can be read in two ways
    295: lambda number: 0,
    558: lambda first, second: digit_distance(first, second),
    581: lambda base, height: round(base**2 + 2 * base * math.hypot(base / 2, height)),
}


@dataclass(frozen=True)
class Task:
    """One task: its number, its reference solution, and tests by kind, `base` and `plus`.

    `left_out` counts inputs whose answer is longer than MAX_CHARS or takes the reference over
    MAX_SECONDS.
    """

    number: int
    solution: str
    tests: dict[str, str]
    left_out: int


def read(folder: Path, name: str) -> list[dict]:
    """Return the rows of a JSON-lines file in this folder; StudyError where there is none."""
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StudyError(f"{folder} has no {name} ({error.strerror}); name its folder") from None
    return [json.loads(line) for line in lines]


def tasks(folder: Path) -> list[Task]:
    """Return all tasks. Runs the reference solutions, in this process, for the expected values."""
    return [task(row) for row in read(folder, "MbppPlus.jsonl")]


def task(row: dict) -> Task:
    """Return one task of a row of MbppPlus.jsonl; runs its reference solution."""
    number, entry = int(row["task_id"].split("/")[1]), row["entry_point"]
    namespace: dict[str, Any] = {}
    exec(row["canonical_solution"], namespace)
    tests, left_out = {}, 0
    for kind in ("base", "plus"):
        lines = []
        for stored in row[f"{kind}_input"]:
            rule = _rule(number, entry, namespace[entry], restored(number, stored))
            if rule:
                lines.append(f"assert {rule}")
            else:
                left_out += 1
        if lines:  # one task has no further inputs
            tests[kind] = "\n".join([IMPORTS, *lines])
    return Task(number, row["canonical_solution"], tests, left_out)


def _rule(number: int, entry: str, reference: Callable, inputs: list) -> str:
    """Return the expression that a right answer makes true; "" where it would be long or slow."""
    began = time.perf_counter()
    expected = reference(*copy.deepcopy(inputs))
    is_long = isinstance(expected, list | str) and len(expected) > MAX_CHARS
    is_slow = time.perf_counter() - began > MAX_SECONDS
    if is_long or is_slow or len(literal(expected)) > MAX_CHARS:
        return ""
    call = f"{entry}({', '.join(map(literal, inputs))})"
    if number in SECOND_ANSWERS:
        return f"{call} in ({literal(expected)}, {literal(SECOND_ANSWERS[number](*inputs))})"
    return same(number, entry, call, expected)


def restored(number: int, stored: list) -> list:
    """Return the arguments of one call of a task, as they were before JSON."""
    if number == 124:
        return [float(stored[0]), complex(stored[1])]
    if number == 252:
        return [complex(stored[0])]
    if number == 115:
        return [[set(item) if isinstance(item, list) and item else {} for item in stored[0]]]
    if number == 722:
        return [{key: tuple(value) for key, value in stored[0].items()}, *stored[1:]]
    for numbers, argument, depths in TUPLES:
        if str(number) in numbers.split():
            return [
                tupled(value, depths) if argument in (index, ALL) else value
                for index, value in enumerate(stored)
            ]
    return stored


def tupled(value: Any, depths: set[int], depth: int = 1) -> Any:
    """Return the value with tuples for its lists at these depths; the value itself is at 1."""
    if not isinstance(value, list) or depth > max(depths):
        return value
    kind = tuple if depth in depths else list
    return kind(tupled(item, depths, depth + 1) for item in value)


def literal(value: Any) -> str:
    """Return Python code for a value, also for infinities, of which `repr` gives none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if type(value) is dict:
        pairs = [f"{literal(key)}: {literal(item)}" for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if type(value) not in (list, tuple, set) or value == set():
        return repr(value)
    parts = ", ".join(literal(item) for item in value)
    if type(value) is list:
        return f"[{parts}]"
    if type(value) is set:
        return "{" + parts + "}"
    return f"({parts},)" if len(value) == 1 else f"({parts})"


def digit_distance(first: int, second: int) -> int:
    """Return the sum of the distances between the digits of two numbers, place by place."""
    width = max(len(str(first)), len(str(second)))
    pairs = zip(str(first).zfill(width), str(second).zfill(width), strict=True)
    return sum(abs(int(digit) - int(other)) for digit, other in pairs)


def same(number: int, entry: str, call: str, expected: Any) -> str:
    """Return the expression that compares a call of a task's function with the expected value."""
    if entry == "are_equivalent":  # its reference is wrong, so EvalPlus takes any answer
        return f"(lambda out: True)({call})"
    if number in AS_SETS:
        return f"set({call}) == {literal(set(expected))}"
    if entry in NOT_NONE:
        truth = f"(lambda out: out if isinstance(out, bool) else out is not None)({call})"
        return f"{truth} == {expected if isinstance(expected, bool) else expected is not None}"
    if isinstance(expected, float):
        return f"math.isclose({call}, {literal(expected)}, rel_tol=1e-7, abs_tol=1e-6)"
    if isinstance(expected, list | tuple) and expected and all(type(v) is float for v in expected):
        differ = (
            "lambda out, want: len(out) != len(want) or any(map(lambda a, b: not math.isclose("
            "a, b, rel_tol=1e-7, abs_tol=1e-6), out, want))"
        )
        return f"not ({differ})({call}, {literal(expected)})"
    return f"{call} == {literal(expected)}"
