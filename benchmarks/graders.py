"""python -m benchmarks.graders --data FOLDER: what are the graders worth, and what do they cost?

Golds against themselves and against what `perturbations` makes of them, hand-made pairs, labelled
solutions of ProcessBench, and rates beside math-verify and TRL's reward on groups as GRPO has them.
HYBRIDLIB_HUB says where GSM8K and MATH are, as for training; FOLDER holds processbench/. Writes
benchmarks/graders.json and the book's page on the graders.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks import perturbations
from benchmarks.validity import SUBSETS
from hybridlib import ROOT, StudyError, data, grading, results
from hybridlib.grading import comparison, equality, symbolic

RECORD, SANDBOX = ROOT / "benchmarks" / "graders.json", ROOT / "benchmarks" / "sandbox.json"
TEMPLATE, PAGE = ROOT / "benchmarks" / "graders.md", ROOT / "book" / "graders.md"
PROMPTS, SAMPLES = 16, 8  # of a step of GRPO
THEIRS = 100  # spoilt answers of a kind that math-verify is tried on, which takes long
SPLITS = ("train", "valid", "test")
Grader = Callable[[str, str], bool]  # (gold, text in which the answer is boxed)


def stored() -> dict[str, Any]:
    """What has been measured."""
    return json.loads(RECORD.read_text())


def measure(folder: Path) -> dict[str, Any]:
    """Everything that the page says; rates last, when all is imported and warm."""
    labelled = folder / "processbench"
    found = {
        "provenance": results.provenance(), "agreement": agreement(labelled),
        "gold": [*map(gold, SUBSETS)], "spoilt": spoilt(), "pairs": pairs(),
        "rates": rates(labelled),
    }  # fmt: skip
    return json.loads(json.dumps(found), parse_float=lambda number: round(float(number), 4))


# ---------------------------------------------------------------- the graders compared


def ours(gold: str, text: str) -> bool:
    """The study's grader."""
    return grading.grade(text, gold, "expression").correct


def math_verify(gold: str, text: str) -> bool:
    """math-verify in this process, both sides boxed, which is its best form."""
    from math_verify import parse, verify

    return bool(verify(*(parse(side) for side in (f"\\boxed{{{gold}}}", text))))


def trl_reward(gold: str, text: str) -> bool:
    """TRL's accuracy_reward, the gold as a formula."""
    from trl.rewards import accuracy_reward

    return accuracy_reward([[{"role": "assistant", "content": text}]], [f"${gold}$"])[0] == 1.0


GRADERS: dict[str, Grader] = {
    "ours": ours,
    "math-verify": math_verify,
    "TRL's accuracy_reward": trl_reward,
}


def safely(grader: Grader, gold: str, answer: str) -> bool:
    """The verdict on an answer in a box; a grader that raises has refused it."""
    try:
        return grader(gold, f"The answer is $\\boxed{{{answer}}}$.")
    except Exception:
        return False


# ---------------------------------------------------------------- agreement


def rows(name: str) -> list[dict[str, Any]]:
    """All rows of GSM8K or MATH."""
    return [row for split in SPLITS for row in data.load(name, split)]


def gold(name: str) -> dict[str, Any]:
    """How many gold solutions does each variant of the grader call right?"""
    every = rows(name)
    texts = [row["completion"][-1]["content"] for row in every]
    verdicts = grading.grade_many(texts, *([r[key] for r in every] for key in ("answer", "kind")))
    return {"subset": name, "n": len(every), "right": sum(v.correct for v in verdicts)}


def agreement(folder: Path) -> list[dict[str, Any]]:
    """How often do the verdicts on model solutions agree with ProcessBench's `final_answer`?"""
    found = []
    for subset in SUBSETS:
        files = sorted(folder.glob(f"{subset}*.jsonl"))
        if not files:
            raise StudyError(f"no {subset}*.jsonl in {folder}; --data names the folder above it")
        known = {_question(row["prompt"][-1]["content"]): row for row in rows(subset)}
        labelled = [json.loads(line) for line in files[0].read_text().splitlines()]
        labelled = [(r, known[q]) for r in labelled if (q := _question(r["problem"])) in known]
        texts = ["\n".join(row["steps"]) for row, _ in labelled]
        columns = [[right[key] for _, right in labelled] for key in ("answer", "kind")]
        strict = grading.grade_many(texts, *columns)
        lenient = grading.grade_leniently(texts, *columns, strict)
        labels = [row["final_answer_correct"] for row, _ in labelled]
        found.append({
            "subset": subset, "n": len(labelled),
            **{name: sum(v.correct == label for v, label in zip(told, labels, strict=True))
               for name, told in (("strict", strict), ("lenient", lenient))},
            "reasons": dict(Counter(v.reason for v in strict)),
            "disagreements": [
                {"id": row["id"], "label": label, "gold": right["answer"], "read": v.extracted}
                for (row, right), label, v in zip(labelled, labels, lenient, strict=True)
                if v.correct != label
            ],
        })  # fmt: skip
    return found


def _question(text: str) -> str:
    return " ".join(text.split())


def spoilt() -> list[dict[str, Any]]:
    """Of every distinct gold of MATH, spoilt in every way that applies: how many pass as right?"""
    golds = sorted({row["answer"] for row in rows("math")})
    random.Random(0).shuffle(golds)
    made = [(way, gold, wrong) for gold in golds
            for way, wrong in perturbations.spoilt(gold).items()]  # fmt: skip
    found = []
    for way, function in perturbations.WAYS.items():
        tried = [pair for name, *pair in made if name == way]
        row = {"way": way, "example": function.__doc__}
        for name, some in (("ours", tried), ("math-verify", tried[:THEIRS])):
            row |= {f"{name} tried": len(some),
                    name: sum(safely(GRADERS[name], *pair) for pair in some)}  # fmt: skip
        found.append(row)
    return found


def pairs() -> list[dict[str, Any]]:
    """How does each grader do on the pairs of tests/pairs.py, in both directions?"""
    from tests.pairs import EQUAL, UNEQUAL

    found = []
    for name, grader in GRADERS.items():
        counts = [
            [safely(grader, *way) for part in made.values() for pair in part
             for way in (pair, pair[::-1])]
            for made in (EQUAL, UNEQUAL)
        ]  # fmt: skip
        found.append({"grader": name, "equal": len(counts[0]), "accepted": sum(counts[0]),
                      "unequal": len(counts[1]), "let_through": sum(counts[1])})  # fmt: skip
    return found


# ---------------------------------------------------------------- rates


def steps(folder: Path) -> list[list[tuple[str, str, bool]]]:
    """(gold, answer, right) of the samples of one step of GRPO after another.

    The prompts are the MATH problems of ProcessBench. Of eight samples none to all are right, each
    number as likely as another; a right one is the gold or the right answer of the model there; a
    wrong one is the wrong answer of the model there or one of two ways to spoil the gold. Answers
    repeat within a group, as they do in training.
    """
    draw = random.Random(0)
    known = {_question(row["prompt"][-1]["content"]): row["answer"] for row in rows("math")}
    groups = []
    for line in min(folder.glob("math*.jsonl")).read_text().splitlines():
        row = json.loads(line)
        answer, written = known.get(_question(row["problem"])), grading.last_boxed(row["steps"][-1])
        wrong = list(perturbations.spoilt(answer).values()) if answer else []
        if len(wrong) < 2 or not written:
            continue
        right, wrong = [answer], draw.sample(wrong, 2)
        (right if row["final_answer_correct"] else wrong).append(written)
        correct = draw.randint(0, SAMPLES)
        group = [(answer, draw.choice(right), True) for _ in range(correct)]
        group += [(answer, draw.choice(wrong), False) for _ in range(SAMPLES - correct)]
        groups.append(draw.sample(group, SAMPLES))
    return [
        [sample for group in groups[start : start + PROMPTS] for sample in group]
        for start in range(0, len(groups) - PROMPTS + 1, PROMPTS)
    ]


def forget() -> None:
    """Empty every cache of the grader."""
    for cached in (equality.parse_answer, comparison.compare_expressions):
        cached.cache_clear()
    symbolic.CACHE.clear()


def rates(folder: Path) -> dict[str, Any]:
    """Verdicts per second and faults of each grader, taking turns at each step."""
    from trl.rewards import accuracy_reward

    batches = steps(folder)
    remembered = lru_cache(None)(lambda gold, text: safely(math_verify, gold, text))

    def alone(grader: Grader) -> Callable[[list, list], list[bool]]:
        return lambda golds, answers: [safely(grader, *p) for p in zip(golds, answers, strict=True)]

    def together(golds: list[str], answers: list[str]) -> list[bool]:
        texts = [f"The answer is $\\boxed{{{answer}}}$." for answer in answers]
        kinds = ["expression"] * len(texts)
        return [verdict.correct for verdict in grading.grade_many(texts, golds, kinds)]

    def in_one(golds: list[str], answers: list[str]) -> list[bool]:
        texts = [[{"content": f"The answer is $\\boxed{{{answer}}}$."}] for answer in answers]
        return [r == 1.0 for r in accuracy_reward(texts, [f"${gold}$" for gold in golds])]

    contenders = {
        "ours": together,
        "math-verify": alone(math_verify),
        "math-verify with a cache of pairs": lambda golds, answers: [
            remembered(*pair) for pair in zip(golds, answers, strict=True)
        ],
        "TRL's accuracy_reward": in_one,
    }
    for contender in contenders.values():  # imports, workers, the first parse
        contender(["x", "2"], ["y^2", "\\gcd(4,6)"])
    forget()
    remembered.cache_clear()
    spent, told = {name: [] for name in contenders}, {name: [] for name in contenders}
    for batch in batches:
        golds, answers = [gold for gold, _, _ in batch], [answer for _, answer, _ in batch]
        for name, contender in contenders.items():
            began = time.perf_counter()
            told[name] += contender(golds, answers)
            spent[name].append(time.perf_counter() - began)
    samples = [sample for batch in batches for sample in batch]
    truth = [right for _, _, right in samples]
    return {
        "steps": len(batches), "samples": len(samples),
        "distinct": len({sample[:2] for sample in samples}), "layers": layers(samples),
        "rows": [
            {"grader": name, "per_second": len(samples) / sum(spent[name]),
             "slowest_step": max(spent[name]),
             "missed": sum(r and not t for r, t in zip(truth, told[name], strict=True)),
             "let_through": sum(t and not r for r, t in zip(truth, told[name], strict=True))}
            for name in contenders
        ],
        "disagreements": differing(samples, told["ours"], told["math-verify"]),
        "faults": differing(samples, told["ours"], truth),
        "gsm8k": numbers(),
    }  # fmt: skip


def differing(
    samples: list[tuple[str, str, bool]], ones: list[bool], others: list[bool]
) -> list[dict[str, Any]]:
    """The samples on which two lists of verdicts differ."""
    kinds = Counter(sample for sample, one, other in zip(samples, ones, others, strict=True)
                    if one != other)  # fmt: skip
    return [dict(zip(("gold", "answer", "right", "n"), (*kind, n), strict=True))
            for kind, n in kinds.items()]  # fmt: skip


def layers(samples: list[tuple[str, str, bool]]) -> dict[str, int]:
    """Which layer settles the samples, if repeats come from the cache?"""
    forget()
    seen, count = set(), Counter[str]()
    for gold, answer, _ in samples:
        if (gold, answer) in seen:
            count["cache"] += 1
        elif gold == answer:
            count["equal strings"] += 1
        else:
            settled = comparison.compare_expressions(gold, answer)
            layer = "grammar and values" if isinstance(settled, str) else "math-verify"
            count["refused" if settled == "refused" else layer] += 1
        seen.add((gold, answer))
    return dict(count)


def numbers() -> list[dict[str, Any]]:
    """GSM8K's gold solutions, each beside its own answer: verdicts per second and right ones."""
    every = rows("gsm8k")
    texts = [row["completion"][-1]["content"] for row in every]
    answers = [row["answer"] for row in every]
    kinds = ["number"] * len(every)
    found = []
    for name, count in (("ours", len(every)), ("math-verify", 2_000)):
        began = time.perf_counter()
        if name == "ours":
            told = [verdict.correct for verdict in grading.grade_many(texts, answers, kinds)]
        else:
            told = [math_verify(*p) for p in zip(answers[:count], texts[:count], strict=True)]
        spent = time.perf_counter() - began
        found.append({"grader": name, "n": count, "per_second": count / spent, "right": sum(told)})
    return found


# ---------------------------------------------------------------- the page


def text(found: dict[str, Any]) -> str:
    """The page in Markdown; every number comes from the record."""
    made, speed = found["provenance"], found["rates"]
    sums = {key: f"{sum(row[key] for row in found['spoilt']):,}"
            for key in ("ours", "ours tried", "math-verify", "math-verify tried")}  # fmt: skip
    rate = {row["grader"]: row["per_second"] for row in speed["rows"]}
    samples = {"gold": "gold", "answer": "answer", "made to be": "right", "samples": "n"}
    parts = {
        "gold": table(found["gold"], {"set": "subset", "gold solutions": "n", "right": "right"}),
        "agreement": table(found["agreement"], {
            "solutions of": "subset", "n": "n", "strict agrees": "strict",
            "lenient agrees": "lenient"}),
        "disagreements": table(
            [row for part in found["agreement"] for row in part["disagreements"]],
            {"solution": "id", "label": "label", "gold": "gold", "read": "read"}),
        "spoilt": table(found["spoilt"], {
            "way": "way", "for instance": "example", "tried": "ours tried", "let through": "ours",
            "math-verify tried": "math-verify tried", "let through by it": "math-verify"}),
        "tried": sums["ours tried"], "through": sums["ours"],
        "theirs": f"{sums['math-verify']} of {sums['math-verify tried']}",
        "pairs": table(found["pairs"], {
            "grader": "grader", "equal": "equal", "of these accepted": "accepted",
            "not equal": "unequal", "of these let through": "let_through"}),
        "rates": table(speed["rows"], {
            "grader": "grader", "verdicts per second": "per_second",
            "slowest step, s": "slowest_step", "right ones missed": "missed",
            "wrong ones let through": "let_through"}),
        "layers": table([speed["layers"]], {name: name for name in speed["layers"]}),
        "different": table(speed["disagreements"], samples),
        "faults": table(speed["faults"], samples),
        "numbers": table(speed["gsm8k"], {
            "grader": "grader", "solutions": "n", "right": "right",
            "verdicts per second": "per_second"}),
        "times": f"{rate['ours'] / rate['math-verify']:.0f}",
        "cached": f"{rate['ours'] / rate['math-verify with a cache of pairs']:.0f}",
        "steps": str(speed["steps"]), "samples": f"{speed['samples']:,}",
        "distinct": f"{speed['distinct']:,}", "prompts": str(PROMPTS), "each": str(SAMPLES),
        "machine": made["device"], "sandbox": sandbox(),
    }  # fmt: skip
    page = TEMPLATE.read_text()
    for name, part in parts.items():  # not str.format: LaTeX is full of braces
        page = page.replace(f"{{{name}}}", part)
    return page


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """Rows as a Markdown table, by heading and key."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(row[key]) for key in columns.values())} |" for row in rows]
    return "\n".join(lines) if rows else "None."


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "right", False: "wrong", None: "nothing"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    known = SUBSETS.get(value, value.replace("\n", " ").replace("|", "\\|"))
    return f"`{known}`" if set("\\_^{") & set(known) else known


def sandbox() -> str:
    """The part on programs, once it has been measured."""
    if not SANDBOX.exists():
        return "Not measured yet."
    from benchmarks import sandbox as programs

    return programs.tables(json.loads(SANDBOX.read_text()))


def main() -> int:
    read = argparse.ArgumentParser(prog="python -m benchmarks.graders", description=__doc__)
    read.add_argument("--data", type=Path, metavar="FOLDER", help="holds processbench/")
    read.add_argument("--page", action="store_true", help="write the page from the record alone")
    asked = read.parse_args()
    if not asked.page and not asked.data:
        read.error("name a folder with --data, or --page for the page alone")
    try:
        found = stored() if asked.page else measure(asked.data)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    results.write(RECORD, json.dumps(found, indent=1) + "\n")
    results.write(PAGE, text(found))
    print(f"written: {RECORD.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
