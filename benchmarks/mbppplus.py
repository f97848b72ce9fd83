"""MBPP+ as tests for the sandbox: its inputs, and what EvalPlus calls right.

Inputs are kept as JSON; which lists in them are tuples is told by task number, as in EvalPlus's
`evalplus/data/mbpp.py`. What counts as the same follows its `evalplus/eval/__init__.py`: equal,
floats within rtol 1e-7 and atol 1e-6, and the tasks of `_special_oracle.py` by their own rule.
"""

import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlib import StudyError

IMPORTS = "import math\nfrom collections import Counter, OrderedDict, defaultdict, deque"
LONG, SLOW = 8000, 0.5  # characters, seconds
TUPLES = [  # task numbers; the argument this is about, or -1 for all; depths where lists are tuples
    ("2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809", -1,
     {1}),
    ("63 64 70 75 94 120 237 272 299 400 409 413 417 438 444 473 614 753 780", -1, {2}),
    ("259 278 401 445", -1, {1, 2}),
    ("250 307 405 446 617 720 763 808", 0, {1}),
    ("106 750", 1, {1}),
    ("580 615 791", -1, set(range(1, 99))),
]  # fmt: skip
AS_SETS = {2, 7, 111, 140, 232, 249, 579, 769}
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
ALSO = {  # a second right answer, as the statements of these tasks can be read in two ways
    295: lambda number: 0,
    558: lambda a, b: sum(abs(int(x) - int(y)) for x, y in zip(*padded(a, b), strict=True)),
    581: lambda base, height: round(base**2 + 2 * base * math.hypot(base / 2, height)),
}


@dataclass(frozen=True)
class Task:
    """One task: its number, its reference solution, and tests by kind, `base` and `plus`.

    `left_out` counts inputs whose answer is longer than LONG or takes the reference over SLOW.
    """

    number: int
    solution: str
    tests: dict[str, str]
    left_out: int


def read(folder: Path, name: str) -> list[dict]:
    """The rows of a JSON-lines file in this folder."""
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StudyError(f"{folder} has no {name} ({error.strerror}); name its folder") from None
    return [json.loads(line) for line in lines]


def tasks(folder: Path) -> list[Task]:
    """All tasks; expected values come from the reference solutions, which are run here."""
    return [task(row) for row in read(folder, "MbppPlus.jsonl")]


def task(row: dict) -> Task:
    number, entry = int(row["task_id"].split("/")[1]), row["entry_point"]
    space: dict[str, Any] = {}
    exec(row["canonical_solution"], space)
    tests, left_out = {}, 0
    for kind in ("base", "plus"):
        lines = [IMPORTS]
        for inputs in (restored(number, given) for given in row[f"{kind}_input"]):
            began = time.perf_counter()
            expected = space[entry](*copy.deepcopy(inputs))
            long = isinstance(expected, list | str) and len(expected) > LONG
            if long or time.perf_counter() - began > SLOW or len(literal(expected)) > LONG:
                left_out += 1
                continue
            call = f"{entry}({', '.join(map(literal, inputs))})"
            rule = same(number, entry, call, expected)
            if number in ALSO:
                rule = f"{call} in ({literal(expected)}, {literal(ALSO[number](*inputs))})"
            lines.append(f"assert {rule}")
        if len(lines) > 1:  # one task has no further inputs
            tests[kind] = "\n".join(lines)
    return Task(number, row["canonical_solution"], tests, left_out)


def restored(number: int, given: list) -> list:
    """The arguments of one call, as they were before JSON."""
    if number == 124:
        return [float(given[0]), complex(given[1])]
    if number == 252:
        return [complex(given[0])]
    if number == 115:
        return [[set(item) if isinstance(item, list) and item else {} for item in given[0]]]
    if number == 722:
        return [{key: tuple(value) for key, value in given[0].items()}, *given[1:]]
    for numbers, place, depths in TUPLES:
        if str(number) in numbers.split():
            return [
                tupled(value, depths) if place in (i, -1) else value
                for i, value in enumerate(given)
            ]
    return given


def tupled(value: Any, depths: set[int], depth: int = 1) -> Any:
    """The value, its lists at these depths being tuples; 1 is the value itself."""
    if not isinstance(value, list) or depth > max(depths):
        return value
    return (tuple if depth in depths else list)(tupled(v, depths, depth + 1) for v in value)


def literal(value: Any) -> str:
    """Python text for a value, also where `repr` is none: infinities and empty sets are not."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    parts = [literal(v) for v in value] if type(value) in (list, tuple, set) else []
    if type(value) is list:
        return f"[{', '.join(parts)}]"
    if type(value) is tuple:
        return f"({', '.join(parts)}{',' * (len(parts) == 1)})"
    if type(value) is dict:
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    if type(value) is set and parts:
        return f"{{{', '.join(parts)}}}"
    return repr(value)


def padded(a: int, b: int) -> tuple[str, str]:
    """The digits of both, with leading zeros to the same length."""
    width = max(len(str(a)), len(str(b)))
    return str(a).zfill(width), str(b).zfill(width)


def same(number: int, entry: str, call: str, expected: Any) -> str:
    """What must hold of this call, as an expression."""
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
        far = "lambda out, want: len(out) != len(want) or any(map(lambda a, b: not math.isclose(" \
              "a, b, rel_tol=1e-7, abs_tol=1e-6), out, want))"  # fmt: skip
        return f"not ({far})({call}, {literal(expected)})"
    return f"{call} == {literal(expected)}"
