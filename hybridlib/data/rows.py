"""Which rows does a data set give? Every source in one form: prompt, completion, answer, level.

A data set is one decorated function that returns raw rows; three converters, shared by the tiny and
the real sets, turn a raw row into a row. Any other folder, jsonl or parquet file or hub id loads
as a data set of one's own, with `columns` naming its columns.
"""

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, grading
from hybridlib.data import sources
from hybridlib.registry import Registry
from hybridlib.tiny import tasks

if TYPE_CHECKING:
    from datasets import Dataset

DATASETS = Registry("dataset")
SPLITS = ("train", "valid", "test", "longer", "wording", "prompt")
TINY_ROWS = 1000  # of a generated split, which has no end of its own, where no limit is given
TEMPLATES = {  # ways to ask one question; the first is the study's
    "plain": "{}",
    "label": "Question: {}",
    "polite": "Please answer this: {}",
    "steps": "{} Show your work.",
    "exam": "Exam. Solve: {} End.",
}
Raw = tuple[list[tuple[int, dict[str, Any]]], Callable[[dict[str, Any]], dict[str, Any]]]


def chat(question: str) -> list[dict[str, str]]:
    """How is a model asked? The one prompt of the study, for training and for every evaluation."""
    return [{"role": "user", "content": question}]


def wrapped(prompt: list[dict[str, str]], template: str) -> list[dict[str, str]]:
    """The same prompt, its question put as one of TEMPLATES puts it."""
    return [*prompt[:-1], chat(TEMPLATES[template].format(prompt[-1]["content"]))[0]]


def asked(rows: "Dataset", template: str) -> "Dataset":
    """The same rows, every question put as one of TEMPLATES puts it; "" leaves them."""
    if template and template not in TEMPLATES:
        raise StudyError(f"unknown template {template!r}; valid: {', '.join(TEMPLATES)}")
    if not template:
        return rows
    return rows.map(
        lambda r: {"prompt": wrapped(r["prompt"], template)}, load_from_cache_file=False
    )


def load(name: str, split: str, limit: int = 0, columns: dict[str, str] | None = None) -> "Dataset":
    """Which rows does this split of a data set have?

    Args:
        name: one of DATASETS, or a folder, a file or a hub id of your own.
        split: train, valid or test; the tiny sets have longer and wording too, mbpp has prompt.
        limit: at most so many rows, 0 for all. The choice depends on the content of the rows only,
            and a larger limit contains a smaller one.
        columns: for a set of your own, the names of its columns for `question` and `answer`,
            and where it has them for `completion` and `level`.

    Returns a Dataset with id, family, kind (number, expression, program), level, topic, prompt,
    completion and answer. Raises StudyError for whatever in the source cannot be used.
    """
    from datasets import Dataset

    if split not in SPLITS:
        raise StudyError(f"unknown split {split!r}; valid: {', '.join(SPLITS)}")
    if name in DATASETS:
        raw, convert = DATASETS[name](split, limit)
    elif columns or "/" in name or Path(name).exists():
        raw, convert = _own(name, split, columns or {})
    else:
        raise StudyError(
            f"unknown dataset {name!r}; valid: {', '.join(sorted(DATASETS))}, or a folder, "
            "a .jsonl file or a hub id with its columns"
        )
    if 0 < limit < len(raw):
        chosen = sorted(raw, key=lambda numbered: sources.digest("limit", numbered[1]))[:limit]
        raw = sorted(chosen, key=lambda numbered: numbered[0])
    own = Path(name).stem if Path(name).is_file() else Path(name).name
    rows = []
    for index, source in raw:
        try:
            row = convert(source)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise StudyError(f"row {index} of {name}/{split} cannot be used: {error}") from None
        question, completion = row.pop("question"), row.pop("completion")
        rows.append(
            {"id": f"{own}/{split}/{index}", "family": own, "topic": "", **row,
             "prompt": chat(question),
             "completion": [{"role": "assistant", "content": completion}]}
        )  # fmt: skip
    if not rows:
        raise StudyError(f"{name}/{split} has no rows; choose another split or another source")
    return Dataset.from_list(rows)


# ---------------------------------------------------------------- raw row -> row


def _number_row(raw: dict[str, Any]) -> dict[str, Any]:
    """GSM8K's form: `<<a+b=c>>` marks its steps, `#### n` the answer (Cobbe et al. 2021)."""
    answer = raw["answer"].rpartition("####")[2].strip().replace(",", "")
    if "####" not in raw["answer"] or grading.number(answer) is None:
        raise ValueError("the answer has no '#### number'")
    return {
        "family": "gsm8k", "kind": "number", "level": raw["answer"].count("<<"),
        "question": raw["question"], "completion": raw["answer"], "answer": answer,
    }  # fmt: skip


def _expression_row(raw: dict[str, Any]) -> dict[str, Any]:
    """MATH's form: the answer is in the last box of the solution (Hendrycks et al. 2021)."""
    # Two training solutions end in an empty box; both count primes where there are none.
    solution = raw["solution"].replace("\\boxed{}", "\\boxed{0}")
    answer = grading.boxed(solution)
    if answer is None:
        raise ValueError("the solution has no \\boxed{answer}")
    return {
        "family": "math", "kind": "expression", "level": _level(raw["level"]),
        "topic": raw.get("type") or raw.get("subject") or "",
        "question": raw["problem"], "completion": solution, "answer": answer,
    }  # fmt: skip


def _program_row(raw: dict[str, Any]) -> dict[str, Any]:
    """MBPP's form: a text, code and asserts; the full and the sanitized set differ in names."""
    setup = [raw.get("test_setup_code") or "", *(raw.get("test_imports") or [])]
    lines = [line.replace("\r\n", "\n").strip() for line in [*setup, *raw["test_list"]]]
    code = raw["code"].replace("\r\n", "\n")
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    steps = sum(not isinstance(node, ast.FunctionDef | ast.Return) for node in nodes)
    if not raw["test_list"]:
        raise ValueError("there are no asserts")
    return {
        "family": "mbpp", "kind": "program", "level": max(1, steps),
        "question": f"{raw.get('text') or raw['prompt']}\n{raw['test_list'][0].strip()}",
        "completion": code, "answer": "\n".join(filter(None, lines)),
    }  # fmt: skip


def _own_row(raw: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """A row of a set of one's own: the kind follows from the answer."""
    given = raw[columns["answer"]]
    if given is None or not str(given).strip():
        raise ValueError(f"the column {columns['answer']!r} is empty")
    text = str(given).strip()
    answer = grading.boxed(text) or text.rpartition("####")[2].strip()
    kind = "expression" if grading.number(answer) is None else "number"
    if kind == "number":
        answer = answer.replace(",", "").replace("$", "")
    marked = f"#### {answer}" if kind == "number" else f"\\boxed{{{answer}}}"
    completion = raw[columns["completion"]] if "completion" in columns else text
    if not grading.grade(str(completion), answer, kind).correct:
        # The answer must stand where the grader looks, or SFT would teach wrong answers.
        completion = f"{completion}\n{marked}" if "completion" in columns else marked
    return {
        "kind": kind, "level": _level(raw[columns["level"]]) if "level" in columns else 0,
        "question": str(raw[columns["question"]]), "completion": completion, "answer": answer,
    }  # fmt: skip


def _level(level: Any) -> int:
    digits = "".join(filter(str.isdigit, str(level)))
    return int(digits) if digits else 0  # MATH has two rows of "Level ?"


# ---------------------------------------------------------------- the sets


@DATASETS.register
def tiny_gsm8k(split: str, limit: int) -> Raw:
    """Generated word problems in the form of GSM8K."""
    return _tiny("tiny_gsm8k", split, limit), _number_row


@DATASETS.register
def tiny_math(split: str, limit: int) -> Raw:
    """Generated expressions in the form of MATH."""
    return _tiny("tiny_math", split, limit), _expression_row


@DATASETS.register
def tiny_mbpp(split: str, limit: int) -> Raw:
    """Generated programs over lists and numbers in the form of MBPP."""
    return _tiny("tiny_mbpp", split, limit), _program_row


@DATASETS.register
def gsm8k(split: str, limit: int) -> Raw:
    """GSM8K, grade school mathematics: 7,473 rows for training, 1,319 for testing."""
    return _real("openai/gsm8k", ["main"], split, ["question", "answer"]), _number_row


@DATASETS.register
def math(split: str, limit: int) -> Raw:
    """MATH, seven subjects of competition mathematics: 7,500 and 5,000 rows."""
    subjects = "algebra counting_and_probability geometry intermediate_algebra number_theory"
    configs = f"{subjects} prealgebra precalculus".split()
    columns = ["problem", "level", "type", "solution"]
    return _real("EleutherAI/hendrycks_math", configs, split, columns), _expression_row


@DATASETS.register
def math500(split: str, limit: int) -> Raw:
    """MATH-500, the part of MATH's test split that Lightman et al. (2023) kept for testing."""
    columns = ["problem", "level", "subject", "solution"]
    return _real("HuggingFaceH4/MATH-500", [None], split, columns), _expression_row


@DATASETS.register
def mbpp(split: str, limit: int) -> Raw:
    """MBPP, basic Python problems (Austin et al. 2021): 974 rows, ten of them in `prompt`."""
    columns = ["text", "code", "test_list", "test_setup_code"]
    return _real("google-research-datasets/mbpp", ["full"], split, columns), _program_row


@DATASETS.register
def mbpp_sanitized(split: str, limit: int) -> Raw:
    """The 427 problems of MBPP that its authors checked by hand."""
    columns = ["prompt", "code", "test_list", "test_imports"]
    return _real("google-research-datasets/mbpp", ["sanitized"], split, columns), _program_row


def _tiny(name: str, split: str, limit: int) -> list[tuple[int, dict[str, Any]]]:
    if split not in tasks.SPLITS:
        raise StudyError(f"{name} has no split {split!r}; valid: {', '.join(SPLITS[:-1])}")
    return list(enumerate(tasks.raw(name, split, limit or TINY_ROWS)))


def _real(
    place: str, configs: list[str | None], split: str, columns: list[str]
) -> list[tuple[int, dict[str, Any]]]:
    """The numbered rows of a hub set, its configs one after another, with a cut for `valid`."""
    folder = os.environ.get("HYBRIDLIB_HUB")
    if folder and not (Path(folder) / place).is_dir():
        raise StudyError(f"HYBRIDLIB_HUB={folder} has no folder {place}; unset it to ask the hub")
    where = str(Path(folder) / place) if folder else place
    tables = [sources.read(where, config) for config in configs]
    return sources.part(tables, place, split, columns, cut=("valid",))


def _own(name: str, split: str, columns: dict[str, str]) -> Raw:
    if not {"question", "answer"} <= set(columns) <= {"question", "answer", "completion", "level"}:
        raise StudyError(
            f"columns of {name} need 'question' and 'answer' (and may have 'completion' and "
            f"'level'); given: {', '.join(columns) or 'none'}"
        )
    if split not in SPLITS[:3]:
        raise StudyError(f"{name} has no split {split!r}; valid: train, valid, test")
    wanted = [columns["question"], *columns.values()]
    raw = sources.part([sources.read(name)], name, split, wanted, cut=("valid", "test"))
    return raw, lambda row: _own_row(row, columns)
