"""Is an answer right? The one grader of rewards and metrics, and what it reads answers with.

`grader` judges; `notation` and `latex` read an expression, `numeric` and `equality` compare two,
`symbolic` asks sympy what they do not know, and `arithmetic` reads the equations in a text. Import
the names below from here; of the other modules only `arithmetic` is for others. The reader is ours
because math-verify takes 29 times as long and lets spoilt answers pass.
"""

from hybridlib.grading.grader import (
    KINDS,
    Verdict,
    boxed,
    grade,
    grade_many,
    lenient,
    number,
    polynomial,
    program,
    well_formed,
)

__all__ = [
    "KINDS",
    "Verdict",
    "boxed",
    "grade",
    "grade_many",
    "lenient",
    "number",
    "polynomial",
    "program",
    "well_formed",
]
