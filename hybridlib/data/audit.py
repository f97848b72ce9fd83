"""Can these rows be trained on? The grader must accept their solutions, and no empty program.

A grader that rejects a row's own solution punishes right answers, and asserts that any program
passes reward nothing in particular. Training would learn from either without an error.
"""

import ast
from typing import TYPE_CHECKING, NamedTuple

from hybridlib import StudyError, grading
from hybridlib.sandbox import judge

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_NAMED = 5  # how many bad rows the error lists
LONGEST_SHOWN = 60  # characters of an answer in the error


class _Task(NamedTuple):
    """What decides whether a row is sound, its id apart."""

    solution: str
    answer: str
    kind: str
    asked: str


_PASSED: set[_Task] = set()  # found sound by this process


def audit(rows: "Dataset") -> None:
    """Check that the grader accepts each row's solution and rejects programs that do nothing.

    Refuses tests that the sandbox cannot judge and expressions that the grader cannot read, then
    grades every completion in one batch and, for programs, also a placeholder with the same names
    that always returns "?"; both run in the sandbox. Rows that this process has found sound are not
    graded again.

    Raises:
        StudyError: tests cannot be judged, an answer cannot be read, a solution is rejected or a
            placeholder accepted; names the first such rows by index and id.
        SyntaxError: the solution of a program is not Python.
    """
    names = _names_by_task(rows)
    unchecked = [task for task in names if task not in _PASSED]
    _stop_at(_refused_tests(unchecked, names) | _unreadable_answers(unchecked, names), rows)
    programs = [task for task in unchecked if task.kind == "program"]
    solutions = [task.solution for task in unchecked]
    placeholders = [_placeholder(task.solution) for task in programs]
    verdicts = _grade([*solutions, *placeholders], [*unchecked, *programs])
    solution_verdicts = _regrade_timeouts(verdicts[: len(unchecked)], unchecked)
    placeholder_verdicts = verdicts[len(unchecked) :]

    faults = {}
    for task, verdict in zip(unchecked, solution_verdicts, strict=True):
        if not verdict.correct:
            faults[names[task]] = (
                f"its own solution gives '{verdict.reason}' {verdict.error}".strip()
            )
    for task, verdict in zip(programs, placeholder_verdicts, strict=True):
        if verdict.correct:
            faults[names[task]] = "a program that always returns '?' passes"
    _stop_at(faults, rows)
    _PASSED.update(unchecked)


def _stop_at(faults: dict[str, str], rows: "Dataset") -> None:
    """Raise StudyError if there are faults, by name of the row, and name the first of them."""
    if faults:
        named = "; ".join(f"{name}: {why}" for name, why in list(faults.items())[:ROWS_NAMED])
        raise StudyError(
            f"{len(faults)} of {len(rows)} training rows cannot be graded ({named}); correct their "
            "completion, answer or tests, or leave them out"
        )


def _refused_tests(tasks: list[_Task], names: dict[_Task, str]) -> dict[str, str]:
    """Return, by name of the row, why the sandbox cannot judge the tests of some tasks."""
    programs = [task for task in tasks if task.kind == "program"]
    reasons = judge.refusals([task.answer for task in programs])
    return {names[task]: why for task, why in zip(programs, reasons, strict=True) if why}


def _unreadable_answers(tasks: list[_Task], names: dict[_Task, str]) -> dict[str, str]:
    """Return, by name of the row, which expressions the grader could only compare as strings."""
    return {
        names[task]: f"its answer {task.answer[:LONGEST_SHOWN]!r} cannot be read as mathematics"
        for task in tasks
        if task.kind == "expression" and not grading.is_readable(task.answer)
    }


def _names_by_task(rows: "Dataset") -> dict[_Task, str]:
    """Return the distinct tasks of some rows, with index and id of the last row of each."""
    names = {}
    columns = (rows["id"], rows["completion"], rows["answer"], rows["kind"], rows["asked"])
    for index, (name, turns, *given) in enumerate(zip(*columns, strict=True)):
        names[_Task(turns[-1]["content"], *given)] = f"row {index}, {name}"
    return names


def _grade(texts: list[str], tasks: list[_Task]) -> list[grading.Verdict]:
    columns = zip(*((task.answer, task.kind, task.asked) for task in tasks), strict=True)
    return grading.grade_many(texts, *columns) if tasks else []


def _regrade_timeouts(verdicts: list[grading.Verdict], tasks: list[_Task]) -> list[grading.Verdict]:
    """Return the verdicts on the tasks' solutions after a second try at those that took too long.

    A slow solution may only have met a busy machine.
    """
    late = [place for place, verdict in enumerate(verdicts) if verdict.reason == "timeout"]
    again = _grade([tasks[place].solution for place in late], [tasks[place] for place in late])
    verdicts = list(verdicts)
    for place, verdict in zip(late, again, strict=True):
        verdicts[place] = verdict
    return verdicts


def _placeholder(solution: str) -> str:
    """Return a program with the functions and classes of this one, all of which return "?"."""
    tree = ast.parse(grading.extract_program(solution) or "")
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return "\n".join(f"def {name}(*_, **__):\n    return '?'" for name in defined)
