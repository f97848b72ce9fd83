"""python -m benchmarks.validity --processbench FOLDER: how much can each metric mean?

Compares the metrics with the step labels of ProcessBench, counts their alarms on the solutions of
GSM8K and MATH, which are right (HYBRIDLIB_HUB says where those are, as for training), and writes
benchmarks/validity.json and the book's page on the metrics.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hybridlib import ROOT, StudyError, data, files, markdown, metrics, proportions

RECORD = ROOT / "benchmarks" / "validity.json"
TEMPLATE = ROOT / "benchmarks" / "templates" / "metrics.md.j2"
PAGE = ROOT / "book" / "metrics.md"
SUBSETS = {"gsm8k": "GSM8K", "math": "MATH"}


def stored() -> dict[str, list[dict]]:
    """Return the record of what has been measured."""
    return json.loads(RECORD.read_text())


def measure(folder: Path) -> dict[str, list[dict]]:
    """Return everything that the page says, to four digits."""
    record = {"labelled": metrics.validity(labelled(folder)), "gold": [*map(gold, SUBSETS)]}
    return json.loads(json.dumps(record), parse_float=lambda number: round(float(number), 4))


def labelled(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ProcessBench in a folder, those of GSM8K with GSM8K's own solution.

    Raises StudyError where a file is missing or a line cannot be read.
    """
    for subset in SUBSETS:
        if not [*folder.glob(f"{subset}*.jsonl")]:
            raise StudyError(f"{folder} has no {subset}*.jsonl; name the folder of ProcessBench")
    test = data.load("gsm8k", "test")
    solutions = {
        " ".join(prompt[-1]["content"].split()): completion[-1]["content"]
        for prompt, completion in zip(test["prompt"], test["completion"], strict=True)
    }
    rows = []
    for subset in SUBSETS:
        file = min(folder.glob(f"{subset}*.jsonl"))
        for number, line in enumerate(file.read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                row["gold"] = solutions.get(" ".join(row["problem"].split()), "")
            except (ValueError, KeyError, TypeError) as error:
                raise StudyError(f"{file.name}, line {number}: {error}") from None
            rows.append({**row, "subset": subset})
    return rows


def gold(name: str) -> dict[str, Any]:
    """Return what the metrics say of the solutions of a data set, which are all right."""
    texts = [completion[-1]["content"] for completion in data.load(name, "train")["completion"]]
    record: dict[str, Any] = {"subset": name, "n": len(texts)}
    for metric in ("arithmetic_validity", "mark_validity"):
        scores = [score for score in metrics.METRICS[metric](texts) if score is not None]
        flags = [score < 1 for score in scores]
        record[metric] = {
            "scored": len(scores),
            "alarms": sum(flags),
            "share": proportions.share(flags),
        }
    coverage = [score for score in metrics.arithmetic_coverage(texts) if score is not None]
    return record | {"coverage": sum(coverage) / len(coverage)}


def text(record: dict[str, list[dict]]) -> str:
    """Return the page in Markdown; every number comes from the record."""
    rows, right = record["labelled"], record["gold"]
    firsts = [row for row in rows if row["metric"] == "first_error"]
    tables = {
        name: table([row for row in rows if row["metric"] == name])
        for name in ["final_answer", *metrics.METRICS]
    }
    tables |= {
        "first_error": errors(firsts),
        "arithmetic_gold": alarms(right, "arithmetic_validity"),
        "mark_gold": alarms(right, "mark_validity"),
    }
    coverages = [f"{SUBSETS[row['subset']]} {row['coverage']:.2f}" for row in right]
    sizes = [f"{row['n']} solutions of {SUBSETS[row['subset']]}" for row in firsts]
    return markdown.render(
        "benchmarks",
        TEMPLATE.name,
        coverage_gold=", ".join(coverages),
        sizes=" and ".join(sizes),
        **tables,
    )


def table(rows: list[dict]) -> str:
    """Return how well a metric tells its targets, as a Markdown table."""
    import pandas as pd

    if not rows:
        return "No solution of ProcessBench has what this metric reads."
    cells = [
        {
            "set": SUBSETS[row["subset"]],
            "tells": row["target"],
            "scored": f"{row['scored']} of {row['n']}",
            "flagged": row["flagged"],
            "base rate": f"{row['positives'] / row['n']:.2f}",
            "precision": rounded(row["precision"]),
            "recall": rounded(row["recall"]),
            "AUC": rounded(row["auc"]),
            "chance?": _beside_chance(row["auc"]),
        }
        for row in rows
    ]
    return markdown.table(pd.DataFrame(cells))


def _beside_chance(auc: list[float] | None) -> str:
    _, low, high = auc or [0.5, 0.5, 0.5]
    if low > 0.5:
        return "above"
    return "below" if high < 0.5 else "not told apart"


def errors(rows: list[dict]) -> str:
    """Return ProcessBench's score of the first-error predictor, as a Markdown table."""
    import pandas as pd

    cells = [
        {
            "set": SUBSETS[row["subset"]],
            "wrong solutions": f"{row['positives']} of {row['n']}",
            "first wrong step found": rounded(row["found"]),
            "right ones passed": rounded(row["passed"]),
            "F1": rounded(row["f1"]),
        }
        for row in rows
    ]
    return markdown.table(pd.DataFrame(cells))


def alarms(rows: list[dict], metric: str) -> str:
    """Return the alarms on right solutions, as a Markdown table."""
    import pandas as pd

    cells = [
        {
            "solutions of": SUBSETS[row["subset"]],
            "with an equation it reads": f"{row[metric]['scored']:,} of {row['n']:,}",
            "alarms": row[metric]["alarms"],
            "share": rounded(row[metric]["share"], 4),
        }
        for row in rows
        if row[metric]["scored"]
    ]
    return markdown.table(pd.DataFrame(cells))


def rounded(interval: list[float] | None, digits: int = 2) -> str:
    """Return an interval as text, as in 0.50 [0.41, 0.60]."""
    if interval is None:
        return "none"
    value, low, high = (f"{number:.{digits}f}" for number in interval)
    return f"{value} [{low}, {high}]"


def main() -> int:
    """Write the record and the page; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity", description=__doc__)
    parser.add_argument(
        "--processbench",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="gsm8k*.jsonl and math*.jsonl, one solution a line",
    )
    arguments = parser.parse_args()
    try:
        record = measure(arguments.processbench)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    files.write(RECORD, json.dumps(record, indent=1) + "\n")
    files.write(PAGE, text(record))
    print(f"written: {RECORD.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
