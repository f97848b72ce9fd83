"""Can these rows be trained on? Their own solutions are right, and a program that is none fails.

A verifier that refuses a gold solution, or pays for nothing, would be learnt without a word.
"""

import ast
from typing import TYPE_CHECKING

from hybridlib import StudyError, grading

if TYPE_CHECKING:
    from datasets import Dataset

NAMED = 5  # rows that an error lists
_PASSED: set[tuple[str, str, str]] = set()  # what this process has seen to be sound


def audit(rows: "Dataset") -> None:
    """Grades each row's completion, and for programs one that always returns "?", in one batch.

    Rows that have passed before, in this process, are not graded again.

    Raises:
        StudyError: a completion is not right, or the wrong program passes; names the first rows.
    """
    every = zip(rows["completion"], rows["answer"], rows["kind"], rows["id"], strict=True)
    seen = {(talk[-1]["content"], answer, kind): name for talk, answer, kind, name in every}
    new = [row for row in seen if row not in _PASSED]
    programs = [row for row in new if row[2] == "program"]
    texts = [gold for gold, _, _ in new] + [_wrong(gold) for gold, _, _ in programs]
    verdicts = _graded(texts, new + programs)
    late = [i for i, v in enumerate(verdicts[: len(new)]) if v.reason == "timeout"]
    again = _graded([texts[i] for i in late], [new[i] for i in late])  # the machine may be busy
    for i, verdict in zip(late, again, strict=True):
        verdicts[i] = verdict
    faults = {
        seen[row]: f"its own solution gives '{v.reason}' {v.error}".strip()
        for row, v in zip(new, verdicts, strict=False) if not v.correct
    }  # fmt: skip
    faults |= {
        seen[row]: "a program that always returns '?' passes"
        for row, v in zip(programs, verdicts[len(new) :], strict=True) if v.correct
    }  # fmt: skip
    if faults:
        named = "; ".join(f"{name}: {why}" for name, why in [*faults.items()][:NAMED])
        raise StudyError(
            f"{len(faults)} of {len(rows)} training rows cannot be graded ({named}); correct their "
            "completion, answer or tests, or leave them out"
        )
    _PASSED.update(new)


def _graded(texts: list[str], rows: list[tuple[str, str, str]]) -> list[grading.Verdict]:
    return grading.grade_many(texts, [row[1] for row in rows], [row[2] for row in rows])


def _wrong(gold: str) -> str:
    """A program that defines the names that this one defines."""
    tree = ast.parse(grading.program(gold) or "")
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return "\n".join(f"def {name}(*_, **__):\n    return '?'" for name in defined)
