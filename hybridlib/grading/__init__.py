"""Is an answer right? The one grader of the rewards and of the metrics.

`grader` judges numbers, expressions and programs with what `extraction` takes from a text. Answers
that are words, dates, times or choices are compared as such (`forms`, and `frames` round them);
expressions are normalised (`notation`), parsed (`latex`), brought to one form (`structure`), given
a value (`numeric`), compared (`equality`, `comparison`) and accepted only where they are worked out
(`evaluated`), in the form that the question asks for (`question`); sets beyond the grammar go to
sympy (`symbolic`). `arithmetic` checks the equations of a solution. Import the names below from
here; of the modules only `arithmetic` and `symbolic` (its time limit and its cache) may be imported
from outside. The reader of expressions is our own code and no library because math-verify, the
usual choice, takes many times as long even with a cache and lets spoilt answers pass, 441 of 2,447
when it was tried (book/graders.md).
"""

from hybridlib.grading.comparison import is_readable
from hybridlib.grading.extraction import extract_program, last_boxed, parse_number, well_formed
from hybridlib.grading.grader import KINDS, Verdict, grade, grade_leniently, grade_many
from hybridlib.grading.question import form_asked

__all__ = [
    "KINDS",
    "Verdict",
    "extract_program",
    "form_asked",
    "grade",
    "grade_leniently",
    "grade_many",
    "is_readable",
    "last_boxed",
    "parse_number",
    "well_formed",
]
