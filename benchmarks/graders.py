"""python -m benchmarks.graders --data FOLDER: what are the graders worth, and what do they cost?

Golds against themselves and against what `perturbations` makes of them, hand-made pairs, labelled
solutions of ProcessBench, and rates beside math-verify and TRL's reward on groups as GRPO has them.
HYBRIDLIB_HUB says where GSM8K and MATH are, as for training; FOLDER holds processbench/. Writes
benchmarks/graders.json and the book's page on the graders.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import graders_page, perturbations
from benchmarks.contenders import GRADERS, accepts
from benchmarks.golds import gold_rows, labelled_rows
from benchmarks.grader_rates import rates
from benchmarks.validity import SUBSETS
from hybridlib import ROOT, StudyError, data, files, grading, results

FORMULA = re.compile(r"\$\$?([^$]{1,200}?)\$|\\\[([\s\S]{1,250}?)\\\]")
TO_DO = re.compile(  # what a formula leaves to be done
    r"\d\s*[-+*]|[a-z)}]\s*[-+*]|\\(?:cdot|times|div|sqrt|log|ln|sin|cos|tan|cot|sec|csc|arc|d?binom"
    r"|lfloor|lceil|left)|\^|!"
)
MATH_VERIFY_TRIES = 100  # spoilt answers of a kind that math-verify is tried on, which takes long


def measure(folder: Path) -> dict[str, Any]:
    """Return everything that the page says; rates last, when all is imported and warm."""
    solutions = folder / "processbench"
    record = {
        "provenance": results.provenance(),
        "agreement": agreement(solutions),
        "gold": [gold_verdicts(name) for name in SUBSETS],
        "spoilt": spoilt_verdicts(),
        "copies": [copies("math"), copies("tiny_math", limit=400)],
        "kinds": kind_verdicts(),
        "pairs": pair_verdicts(),
        "rates": rates(solutions),
    }
    return json.loads(json.dumps(record), parse_float=lambda number: round(float(number), 4))


def gold_verdicts(name: str) -> dict[str, Any]:
    """Return how many of the gold solutions of GSM8K or MATH the grader calls right."""
    rows = gold_rows(name)
    texts = [row["completion"][-1]["content"] for row in rows]
    columns = ([row[name] for row in rows] for name in ("answer", "kind", "asked"))
    verdicts = grading.grade_many(texts, *columns)
    n_right = sum(verdict.correct for verdict in verdicts)
    return {"subset": name, "n": len(rows), "right": n_right}


def agreement(folder: Path) -> list[dict[str, Any]]:
    """Return how often the verdicts on model solutions agree with ProcessBench's `final_answer`.

    Raises StudyError where the folder has no solutions.
    """
    return [_agreement(name, labelled_rows(folder, name)) for name in SUBSETS]


def _agreement(name: str, rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    texts = ["\n".join(solution["steps"]) for solution, _ in rows]
    answers, kinds, asked = ([row[name] for _, row in rows] for name in ("answer", "kind", "asked"))
    labels = [solution["final_answer_correct"] for solution, _ in rows]
    strict = grading.grade_many(texts, answers, kinds, asked)
    lenient = grading.grade_leniently(texts, answers, kinds, strict, asked)
    disagreements = []
    for (solution, row), label, verdict in zip(rows, labels, lenient, strict=True):
        if verdict.correct != label:
            disagreements.append(
                {
                    "id": solution["id"],
                    "label": label,
                    "gold": row["answer"],
                    "read": verdict.extracted,
                }
            )
    return {
        "subset": name,
        "n": len(rows),
        "strict": _n_equal(strict, labels),
        "lenient": _n_equal(lenient, labels),
        "reasons": dict(Counter(verdict.reason for verdict in strict)),
        "disagreements": disagreements,
    }


def _n_equal(verdicts: list[grading.Verdict], labels: list[bool]) -> int:
    return sum(verdict.correct == label for verdict, label in zip(verdicts, labels, strict=True))


def spoilt_verdicts() -> list[dict[str, Any]]:
    """Return how many spoilt golds pass as right, of each way to spoil one that applies.

    Every distinct gold of MATH, with each form that is asked for it, is tried on our grader, the
    first of them in a random order on math-verify.
    """
    asked: dict[str, set[str]] = {}
    for row in gold_rows("math"):
        asked.setdefault(row["answer"], set()).add(row["asked"])
    golds = sorted(asked)
    random.Random(0).shuffle(golds)
    spoilt = [(gold, perturbations.spoilt(gold)) for gold in golds]
    records = []
    for way, function in perturbations.WAYS.items():
        pairs = [(gold, texts[way]) for gold, texts in spoilt if way in texts]
        tried = [(*pair, form) for pair in pairs for form in sorted(asked[pair[0]])]
        few = pairs[:MATH_VERIFY_TRIES]
        record: dict[str, Any] = {"way": way, "example": function.__doc__}
        for name, some in (("ours", tried), ("math-verify", few)):
            record[f"{name} tried"] = len(some)
            record[name] = sum(accepts(GRADERS[name], *given) for given in some)
        records.append(record)
    return records


def copies(name: str, limit: int = 0) -> dict[str, Any]:
    """Return for how many training rows a formula of the question passes as the answer.

    A formula with something to do in it, boxed, that is not written as the gold is.
    """
    rows = data.load(name, "train", limit=limit)
    pairs = []
    for row in rows:
        formulas = {
            "".join(formula).strip().rstrip(".,?")
            for formula in FORMULA.findall(row["prompt"][-1]["content"])
        }
        pairs += [
            (row["id"], row["answer"], formula, row["asked"])
            for formula in sorted(formulas)
            if formula != row["answer"] and TO_DO.search(formula)
        ]
    passed = [pair for pair in pairs if accepts(GRADERS["ours"], *pair[1:])]
    paid = {row_id: {"gold": gold, "answer": formula} for row_id, gold, formula, _ in passed}
    record = {"set": name, "rows": len(rows), "formulas": len(pairs), "paid": list(paid.values())}
    return record


def kind_verdicts() -> list[dict[str, Any]]:
    """Return how the pairs of tests/kinds.py are judged, by kind of answer.

    `refused` holds the right ones that are refused, as [gold, answer].
    """
    from tests import kinds
    from tests.kinds import ASKED_RIGHT, ASKED_WRONG, RIGHT, WRONG

    records = []
    tables = [(kind, RIGHT[kind], WRONG[kind]) for kind in RIGHT]
    tables += [(kind, _pairs(ASKED_RIGHT[kind]), _pairs(ASKED_WRONG[kind])) for kind in ASKED_RIGHT]
    tables += [
        ("all kinds, written last", kinds.UNSEEN_RIGHT, kinds.UNSEEN_WRONG),
        ("the last ten kinds, written last", _pairs(kinds.LAST_RIGHT), _pairs(kinds.LAST_WRONG)),
    ]
    for kind, right, wrong in tables:
        refused = [pair for pair in right if not accepts(GRADERS["ours"], *pair)]
        records.append(
            {
                "kind": kind,
                "right": len(right),
                "accepted": len(right) - len(refused),
                "wrong": len(wrong),
                "let_through": sum(accepts(GRADERS["ours"], *pair) for pair in wrong),
                "refused": [pair[:2] for pair in refused],
            }
        )
    return records


def _pairs(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return (gold, answer, what is asked) for (question, gold, answer)."""
    return [(gold, answer, grading.form_asked(question)) for question, gold, answer in rows]


def pair_verdicts() -> list[dict[str, Any]]:
    """Return how each grader does on the pairs of tests/pairs.py, in both directions."""
    from tests.pairs import EQUAL, UNEQUAL

    records = []
    for name, grader in GRADERS.items():
        equal = [accepts(grader, *pair) for pair in _both_directions(EQUAL)]
        unequal = [accepts(grader, *pair) for pair in _both_directions(UNEQUAL)]
        records.append(
            {
                "grader": name,
                "equal": len(equal),
                "accepted": sum(equal),
                "unequal": len(unequal),
                "let_through": sum(unequal),
            }
        )
    return records


def _both_directions(pairs_by_kind: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    pairs = [pair for pairs in pairs_by_kind.values() for pair in pairs]
    return [direction for pair in pairs for direction in (pair, pair[::-1])]


def main() -> int:
    """Measure, or only read the record, and write the page; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graders", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="holds processbench/")
    parser.add_argument("--page", action="store_true", help="write the page from the record alone")
    options = parser.parse_args()
    if not options.page and not options.data:
        parser.error("name a folder with --data, or --page for the page alone")
    try:
        record = graders_page.stored() if options.page else measure(options.data)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    files.write(graders_page.RECORD, json.dumps(record, indent=1) + "\n")
    files.write(graders_page.PAGE, graders_page.text(record))
    paths = (graders_page.RECORD, graders_page.PAGE)
    print(f"written: {', '.join(str(path.relative_to(ROOT)) for path in paths)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
