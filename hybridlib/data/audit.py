"""Can these rows be trained on? The grader must accept their solutions, and no empty program.

A grader that rejects a row's own solution punishes right answers, and asserts that any program
passes reward nothing in particular. Training would learn from either without an error.
"""

import ast
from typing import TYPE_CHECKING, NamedTuple

from hybridlib import StudyError, grading

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_NAMED = 5  # how many bad rows the error lists


class _Task(NamedTuple):
    """What decides whether a row is sound, its id apart."""

    solution: str
    answer: str
    kind: str


_PASSED: set[_Task] = set()  # found sound by this process


def audit(rows: "Dataset") -> None:
    """Check that the grader accepts each row's solution and rejects programs that do nothing.

    Grades every completion in one batch and, for programs, also a placeholder with the same names
    that always returns "?"; both run in the sandbox. Rows that this process has found sound are not
    graded again.

    Raises:
        StudyError: a solution is rejected or a placeholder accepted; names the first rows.
        SyntaxError: the solution of a program is not Python.
    """
    ids = _ids_by_task(rows)
    unchecked = [task for task in ids if task not in _PASSED]
    programs = [task for task in unchecked if task.kind == "program"]
    solutions = [task.solution for task in unchecked]
    placeholders = [_placeholder(task.solution) for task in programs]
    verdicts = _grade([*solutions, *placeholders], [*unchecked, *programs])
    solution_verdicts = _regrade_timeouts(verdicts[: len(unchecked)], unchecked)
    placeholder_verdicts = verdicts[len(unchecked) :]

    faults = {}
    for task, verdict in zip(unchecked, solution_verdicts, strict=True):
        if not verdict.correct:
            faults[ids[task]] = f"its own solution gives '{verdict.reason}' {verdict.error}".strip()
    for task, verdict in zip(programs, placeholder_verdicts, strict=True):
        if verdict.correct:
            faults[ids[task]] = "a program that always returns '?' passes"
    if faults:
        named = "; ".join(f"{name}: {why}" for name, why in list(faults.items())[:ROWS_NAMED])
        raise StudyError(
            f"{len(faults)} of {len(rows)} training rows cannot be graded ({named}); correct their "
            "completion, answer or tests, or leave them out"
        )
    _PASSED.update(unchecked)


def _ids_by_task(rows: "Dataset") -> dict[_Task, str]:
    """Return the distinct tasks of some rows, each with the id of the last row that has it."""
    ids = {}
    for name, turns, answer, kind in zip(
        rows["id"], rows["completion"], rows["answer"], rows["kind"], strict=True
    ):
        ids[_Task(turns[-1]["content"], answer, kind)] = name
    return ids


def _grade(texts: list[str], tasks: list[_Task]) -> list[grading.Verdict]:
    answers, kinds = [task.answer for task in tasks], [task.kind for task in tasks]
    return grading.grade_many(texts, answers, kinds)


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
