"""Is an answer right? The one grader of the rewards and of the metrics.

`grader` judges numbers, expressions and programs with what `extraction` takes from a text;
expressions are normalised (`notation`), parsed (`latex`), brought to one form (`structure`),
evaluated (`numeric`) and compared (`equality`, `comparison`), those beyond the grammar by sympy
(`symbolic`), and `arithmetic` checks the equations of a solution. Import the names below from
here; of the modules only `arithmetic` and `symbolic` (its time limit and its cache) may be imported
from outside. The reader of expressions is our own code and no library because math-verify, the
usual choice, takes 29 times as long even with a cache and lets 441 of 2,447 spoilt answers pass
(book/graders.md).
"""

from hybridlib.grading.extraction import extract_program, last_boxed, parse_number, well_formed
from hybridlib.grading.grader import KINDS, Verdict, grade, grade_leniently, grade_many

__all__ = [
    "KINDS",
    "Verdict",
    "extract_program",
    "grade",
    "grade_leniently",
    "grade_many",
    "last_boxed",
    "parse_number",
    "well_formed",
]
