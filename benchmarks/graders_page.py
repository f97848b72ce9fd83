"""The book's page on the graders, written from the record alone."""

import json
from typing import Any

from benchmarks.grader_rates import PROMPTS, SAMPLES
from benchmarks.perturbations import EQUAL_IN_VALUE
from benchmarks.validity import SUBSETS
from hybridlib import ROOT, markdown

RECORD = ROOT / "benchmarks" / "graders.json"
SANDBOX_RECORD = ROOT / "benchmarks" / "sandbox.json"
PAGE = ROOT / "book" / "graders.md"

# Columns of the tables: heading -> key of the record.
GOLD = {"set": "subset", "gold solutions": "n", "right": "right"}
AGREEMENT = {
    "solutions of": "subset",
    "n": "n",
    "strict agrees": "strict",
    "lenient agrees": "lenient",
}
DISAGREEMENTS = {"solution": "id", "label": "label", "gold": "gold", "read": "read"}
SPOILT = {
    "way": "way",
    "for instance": "example",
    "tried": "ours tried",
    "let through": "ours",
    "math-verify tried": "math-verify tried",
    "let through by it": "math-verify",
}
COPIES = {"rows of": "set", "rows": "rows", "formulas tried": "formulas", "rows that pay": "paid"}
PAID = {"gold": "gold", "formula of the question": "answer"}
KINDS = {
    "kind": "kind",
    "right pairs": "right",
    "accepted": "accepted",
    "wrong pairs": "wrong",
    "let through": "let_through",
}
REFUSED = {"kind": "kind", "gold": "gold", "right answer": "answer"}
PAIRS = {
    "grader": "grader",
    "equal": "equal",
    "of these accepted": "accepted",
    "not equal": "unequal",
    "of these let through": "let_through",
}
RATES = {
    "grader": "grader",
    "verdicts per second": "per_second",
    "slowest step, s": "slowest_step",
    "right ones missed": "missed",
    "wrong ones let through": "let_through",
}
NUMBERS = {
    "grader": "grader",
    "solutions": "n",
    "right": "right",
    "verdicts per second": "per_second",
}
DIFFERENCES = {"gold": "gold", "answer": "answer", "made to be": "right", "samples": "n"}


def stored() -> dict[str, Any]:
    """Return the record of what has been measured."""
    return json.loads(RECORD.read_text())


def text(record: dict[str, Any]) -> str:
    """Return the page in Markdown; every number comes from the record."""
    rates, spoilt = record["rates"], record["spoilt"]
    by_value = [row for row in spoilt if row["way"] not in EQUAL_IN_VALUE]
    per_second = {row["grader"]: row["per_second"] for row in rates["rows"]}
    disagreements = [row for part in record["agreement"] for row in part["disagreements"]]
    cached = per_second["math-verify with a cache of pairs"]
    return markdown.render(
        "benchmarks",
        "graders.md.j2",
        machine=record["provenance"]["device"],
        commit=record["provenance"]["commit"][:7],
        gold=table(record["gold"], GOLD),
        agreement=table(record["agreement"], AGREEMENT),
        disagreements=table(disagreements, DISAGREEMENTS),
        spoilt=table(spoilt, SPOILT),
        tried=_total(spoilt, "ours tried"),
        through=_total(spoilt, "ours"),
        theirs=f"{_total(by_value, 'math-verify')} of {_total(by_value, 'math-verify tried')}",
        copies=table([row | {"paid": len(row["paid"])} for row in record["copies"]], COPIES),
        paid=table([paid for row in record["copies"] for paid in row["paid"]], PAID),
        kinds=table(record["kinds"], KINDS),
        refused=table(_refused(record["kinds"]), REFUSED),
        pairs=table(record["pairs"], PAIRS),
        rates=table(rates["rows"], RATES),
        layers=table([rates["layers"]], {name: name for name in rates["layers"]}),
        different=table(rates["disagreements"], DIFFERENCES),
        faults=table(rates["faults"], DIFFERENCES),
        numbers=table(rates["gsm8k"], NUMBERS),
        times=f"{per_second['ours'] / per_second['math-verify']:.0f}",
        cached=f"{per_second['ours'] / cached:.0f}",
        steps=rates["steps"],
        samples=f"{rates['samples']:,}",
        distinct=f"{rates['distinct']:,}",
        prompts=PROMPTS,
        each=SAMPLES,
        sandbox=_sandbox_tables(),
    )


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """Return rows as a Markdown table; `columns` maps headings to keys."""
    import pandas as pd

    if not rows:
        return "None."
    cells = [{heading: _cell(row[key]) for heading, key in columns.items()} for row in rows]
    return markdown.table(pd.DataFrame(cells))


def _cell(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "right" if value else "wrong"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    words = SUBSETS.get(value) or markdown.cell(value.replace("\n", " "))
    return f"`{words}`" if set("\\_^{") & set(words) else words


def _refused(kinds: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {"kind": row["kind"], "gold": gold, "answer": answer}
        for row in kinds
        for gold, answer in row["refused"]
    ]


def _total(rows: list[dict[str, Any]], key: str) -> str:
    return f"{sum(row[key] for row in rows):,}"


def _sandbox_tables() -> str:
    """Return the part on programs, once it has been measured."""
    if not SANDBOX_RECORD.exists():
        return "Not measured yet."
    from benchmarks import sandbox

    return sandbox.tables(json.loads(SANDBOX_RECORD.read_text()))
