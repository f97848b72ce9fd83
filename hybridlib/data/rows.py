"""Which rows does a data set give? Every source in one form: prompt, completion, answer, level.

A data set is one decorated function that returns numbered raw rows and the converter that turns a
raw row into a row. Three converters (GSM8K's form, MATH's, MBPP's) are shared by the tiny and the
published sets. Any other folder, data file or hub id loads as a custom data set, with `columns`
saying which of its columns holds what.
"""

import ast
import datetime
import os
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, grading
from hybridlib.data import sources
from hybridlib.data.sources import NumberedRows
from hybridlib.data.textfiles import RawRow
from hybridlib.profiles import Form
from hybridlib.registry import Registry
from hybridlib.tiny import tasks

if TYPE_CHECKING:
    from datasets import Dataset

DATASETS = Registry("dataset", optional=("generated",))
SPLITS = ("train", "valid", "test", "longer", "wording", "prompt")
CUSTOM_SPLITS = ("train", "valid", "test")
TINY_ROWS = 1000  # of a generated split, which has no end of its own, where no limit is given
EXAMPLE_ROWS = 4  # training rows looked at per worked example: a set may mix kinds
EXACT_FLOAT = 2.0**53  # from here on a float may lack digits that its file was made from
TEMPLATES = {  # ways to ask one question; the first is the study's
    "plain": "{}",
    "label": "Question: {}",
    "polite": "Please answer this: {}",
    "steps": "{} Show your work.",
    "exam": "Exam. Solve: {} End.",
}

Converter = Callable[[RawRow], dict[str, Any]]
"""Turns a raw row into kind, level, question, completion and answer, and if known family and topic.

Raises one of CONVERSION_ERRORS for a row that it cannot turn into these.
"""
Source = tuple[NumberedRows, Converter]
CONVERSION_ERRORS = (LookupError, ValueError, TypeError, AttributeError, SyntaxError)


def chat_prompt(question: str) -> list[dict[str, str]]:
    """Return the prompt that asks a question, where a profile gives its kind no form."""
    return [{"role": "user", "content": question}]


def apply_template(prompt: list[dict[str, str]], template: str) -> list[dict[str, str]]:
    """Return the prompt with its last turn, the question, worded by one of TEMPLATES."""
    question = TEMPLATES[template].format(prompt[-1]["content"])
    return [*prompt[:-1], *chat_prompt(question)]


def with_template(rows: "Dataset", template: str) -> "Dataset":
    """Return the rows with every question worded by one of TEMPLATES; "" changes nothing.

    Raises:
        StudyError: there is no such template.
    """
    if template and template not in TEMPLATES:
        raise StudyError(f"unknown template {template!r}; valid: {', '.join(TEMPLATES)}")
    if not template:
        return rows
    return rows.map(
        lambda row: {"prompt": apply_template(row["prompt"], template)},
        load_from_cache_file=False,
    )


def load(
    name: str,
    split: str,
    limit: int = 0,
    columns: dict[str, str] | None = None,
    forms: Sequence[Form] = (),
) -> "Dataset":
    """Load the rows of one split of a data set.

    Args:
        name: one of DATASETS, or a folder, a data file or a hub id of your own.
        split: train, valid or test; the tiny sets have longer and wording too, mbpp has prompt.
        limit: at most so many rows, 0 for all; see `limited`.
        columns: of a custom data set, the names of its columns for `question` and `answer`,
            and where it has them for `completion` and `level`.
        forms: how kinds of rows are asked; others by the question alone.

    Returns:
        A Dataset with id, family, topic, kind (number, expression, program), level, answer, asked
        (the form of the answer, as `grading.form_asked` has it), prompt and completion.

    Raises:
        StudyError: an unknown name or split, missing columns, a source that cannot be read, or a
            row that cannot be converted.
    """
    from datasets import Dataset

    if split not in SPLITS:
        raise StudyError(f"unknown split {split!r}; valid: {', '.join(SPLITS)}")
    if name in DATASETS:
        raw_rows, convert = DATASETS[name](split, limit)
    else:
        if not columns:
            check_known(name)
        raw_rows, convert = custom_source(name, split, columns or {})
    rows = []
    for index, raw in limited(raw_rows, limit):
        try:
            rows.append(convert_row(name, split, index, raw, convert))
        except ValueError as error:
            raise StudyError(f"row {index} of {name}/{split} cannot be used: {error}") from None
    if not rows:
        raise StudyError(f"{name}/{split} has no rows; choose another split or another source")
    if most := max((form.examples for form in forms), default=0):
        # One more than needed: a training row is no example of itself.
        examples = load(name, "train", EXAMPLE_ROWS * (most + 1), columns).to_list()
    else:
        examples = []
    return Dataset.from_list([asked(row, forms, examples) for row in rows])


def asked(
    row: dict[str, Any], forms: Sequence[Form], examples: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return the row with its prompt in the form of its kind; one without a form stays as it is.

    Args:
        examples: rows to take worked examples from, the first ones of its kind; never the row
            itself, nor one with the same question.

    Raises:
        StudyError: there are fewer examples than the form wants.
    """
    form = next((form for form in forms if form.kind == row["kind"]), None)
    if form is None:
        return row
    others = [e for e in examples if e["kind"] == row["kind"] and e["prompt"] != row["prompt"]]
    if len(others) < form.examples:
        raise StudyError(
            f"{row['family']} has {len(others)} training rows to show as examples of its kind, "
            f"and the profile asks for {form.examples}; ask for fewer"
        )
    turns = [{"role": "system", "content": form.system}] if form.system else []
    for example in others[: form.examples]:
        turns += [*_with_line(example["prompt"], form.line), *example["completion"]]
    return row | {"prompt": turns + _with_line(row["prompt"], form.line)}


def _with_line(prompt: list[dict[str, str]], line: str) -> list[dict[str, str]]:
    question = prompt[-1]["content"]
    return [*prompt[:-1], *chat_prompt(f"{question}\n{line}" if line else question)]


def check_known(name: str) -> None:
    """Check that a name can be a data set; read it where it is a file or a folder.

    Raises:
        StudyError: it is neither one of DATASETS nor a folder, a file or a hub id, and lists the
            first; or its files cannot be read.
    """
    if not (name in DATASETS or "/" in name or Path(name).exists()):
        raise StudyError(
            f"unknown dataset {name!r}; valid: {', '.join(sorted(DATASETS))}, or a folder, "
            "a data file or a hub id with --columns"
        )
    if name not in DATASETS and Path(name).exists():
        sources.read(name)


def is_generated(name: str) -> bool:
    """Return whether a data set is generated, so that all its rows are at hand and sound."""
    return name in DATASETS and getattr(DATASETS[name], "generated", False)


def limited(raw_rows: NumberedRows, limit: int) -> NumberedRows:
    """Return at most `limit` of the rows, in their order; 0 returns all.

    The choice depends on the content of the rows alone, by hash, and a larger limit contains the
    rows of a smaller one.
    """
    if not 0 < limit < len(raw_rows):
        return raw_rows
    chosen = sorted(raw_rows, key=lambda numbered: sources.content_number("limit", numbered[1]))[
        :limit
    ]
    return sorted(chosen, key=lambda numbered: numbered[0])


def convert_row(
    name: str, split: str, index: int, raw: RawRow, convert: Converter
) -> dict[str, Any]:
    """Return the row that a converter makes of a raw row.

    Args:
        name, split, index: the data set, its split and the row's number in it; they give the id,
            and the name is the family where the converter names none.

    Raises:
        ValueError: the row cannot be converted; the message says why.
    """
    try:
        converted = convert({column: value for column, value in raw.items() if value is not None})
    except KeyError as error:
        raise ValueError(f"the column {error} is empty") from None
    except CONVERSION_ERRORS as error:
        raise ValueError(str(error)) from None
    question, completion, answer = (
        _unix_lines(converted.pop(part)) for part in ("question", "completion", "answer")
    )
    return {
        "id": row_id(name, split, index),
        "family": _short_name(name),
        "topic": "",
        **converted,
        "answer": answer,
        "asked": "" if converted["kind"] == "program" else grading.form_asked(question),
        "prompt": chat_prompt(question),
        "completion": [{"role": "assistant", "content": completion}],
    }


def row_id(name: str, split: str, index: int) -> str:
    """Return the id of a row: "gsm8k/train/7". A path counts by its last part, without suffix."""
    return f"{_short_name(name)}/{split}/{index}"


def _short_name(name: str) -> str:
    return Path(name).stem if Path(name).is_file() else Path(name).name


# ---------------------------------------------------------------- converters


def text_of(raw: RawRow, column: str) -> str:
    """Return the text of a row's column, as the file has it, or as its declared type is written.

    Raises:
        KeyError: the row lacks the column.
        ValueError: it is empty, or holds what has no text of its own, such as a list or a time.
    """
    match raw[column]:
        case str(text):
            text.encode()  # half a surrogate pair is a ValueError here, and no character anywhere
        case bool(truth):
            text = "true" if truth else "false"
        case int() | Decimal() as number:
            text = str(number)
        case float(number) if abs(number) < EXACT_FLOAT:
            text = repr(number)
        case datetime.date() as day if not isinstance(day, datetime.datetime):
            text = day.isoformat()
        case float(number):
            raise ValueError(f"the column {column!r} holds {number}; write its digits as text")
        case other:
            kind = type(other).__name__
            raise ValueError(f"the column {column!r} holds no text but a {kind}; write it as text")
    if not text.strip():
        raise ValueError(f"the column {column!r} is empty")
    return text


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def gsm8k_row(raw: RawRow) -> dict[str, Any]:
    """Convert GSM8K's form: `<<a+b=c>>` marks a step, `#### n` the answer (Cobbe et al. 2021)."""
    solution = text_of(raw, "answer")
    answer = solution.rpartition("####")[2].strip().replace(",", "")
    if "####" not in solution or grading.parse_number(answer) is None:
        raise ValueError("the answer has no '#### number'")
    return {
        "family": "gsm8k",
        "kind": "number",
        "level": solution.count("<<"),
        "question": text_of(raw, "question"),
        "completion": solution,
        "answer": answer,
    }


def math_row(raw: RawRow) -> dict[str, Any]:
    """Convert MATH's form: the last box of the solution is the answer (Hendrycks et al. 2021)."""
    # Two training solutions end in an empty box; both count primes where there are none.
    solution = text_of(raw, "solution").replace("\\boxed{}", "\\boxed{0}")
    answer = grading.last_boxed(solution)
    if answer is None:
        raise ValueError("the solution has no \\boxed{answer}")
    return {
        "family": "math",
        "kind": "expression",
        "level": level_number(raw.get("level", 0)),
        "topic": raw.get("type") or raw.get("subject") or "",
        "question": text_of(raw, "problem"),
        "completion": solution,
        "answer": answer,
    }


def mbpp_row(raw: RawRow) -> dict[str, Any]:
    """Convert MBPP's form: a text, code and asserts (Austin et al. 2021).

    The full and the sanitized set differ in the names of their columns. The first assert is part of
    the question, since it names the function. The level is the number of statements that are
    neither a definition nor a return.
    """
    if not isinstance(raw["test_list"], list) or not raw["test_list"]:
        raise ValueError("there are no asserts: test_list is no list, or has none")
    setup = [raw.get("test_setup_code") or "", *(raw.get("test_imports") or [])]
    lines = [_unix_lines(line).strip() for line in [*setup, *raw["test_list"]]]
    code = _unix_lines(text_of(raw, "code"))
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    steps = sum(not isinstance(node, ast.FunctionDef | ast.Return) for node in nodes)
    question = text_of(raw, "text" if raw.get("text") else "prompt")
    return {
        "family": "mbpp",
        "kind": "program",
        "level": max(1, steps),
        "question": f"{question}\n{raw['test_list'][0].strip()}",
        "completion": code,
        "answer": "\n".join(line for line in lines if line),
    }


def _custom_row(raw: RawRow, columns: dict[str, str]) -> dict[str, Any]:
    """Convert a row of a custom data set: the kind follows from the answer.

    An answer that reads as a number is graded as one, any other as an expression. Where the
    completion does not state the answer in the form that the grader reads, it is appended, or SFT
    would teach answers that count as wrong.
    """
    text = text_of(raw, columns["answer"]).strip()
    answer = grading.last_boxed(text) or text.rpartition("####")[2].strip()
    kind = "expression" if grading.parse_number(answer) is None else "number"
    if kind == "number":
        answer = answer.replace(",", "").replace("$", "")
    marked_answer = f"#### {answer}" if kind == "number" else f"\\boxed{{{answer}}}"
    completion = text_of(raw, columns["completion"]) if "completion" in columns else text
    if not grading.grade(completion, answer, kind).correct:
        completion = f"{completion}\n{marked_answer}" if "completion" in columns else marked_answer
    return {
        "kind": kind,
        "level": level_number(raw.get(columns.get("level", ""), 0)),
        "question": text_of(raw, columns["question"]),
        "completion": completion,
        "answer": answer,
    }


def level_number(level: Any) -> int:
    """Return the first number in a level: 3 for "Level 3" and 3.0, 0 for MATH's "Level ?"."""
    digits = re.search(r"\d+", str(level))
    return int(digits[0]) if digits else 0


# ---------------------------------------------------------------- data sets


@DATASETS.register(generated=True)
def tiny_gsm8k(split: str, limit: int) -> Source:
    """Generated word problems in the form of GSM8K."""
    return _generated_rows("tiny_gsm8k", split, limit), gsm8k_row


@DATASETS.register(generated=True)
def tiny_math(split: str, limit: int) -> Source:
    """Generated expressions in the form of MATH."""
    return _generated_rows("tiny_math", split, limit), math_row


@DATASETS.register(generated=True)
def tiny_mbpp(split: str, limit: int) -> Source:
    """Generated programs over lists and numbers in the form of MBPP."""
    return _generated_rows("tiny_mbpp", split, limit), mbpp_row


@DATASETS.register
def gsm8k(split: str, limit: int) -> Source:
    """GSM8K, grade school mathematics: 7,473 rows for training, 1,319 for testing."""
    return _hub_rows("openai/gsm8k", ["main"], split, ["question", "answer"]), gsm8k_row


@DATASETS.register
def math(split: str, limit: int) -> Source:
    """MATH, seven subjects of competition mathematics: 7,500 and 5,000 rows."""
    subjects = [
        "algebra",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "number_theory",
        "prealgebra",
        "precalculus",
    ]
    columns = ["problem", "level", "type", "solution"]
    return _hub_rows("EleutherAI/hendrycks_math", subjects, split, columns), math_row


@DATASETS.register
def math500(split: str, limit: int) -> Source:
    """MATH-500, the part of MATH's test split that Lightman et al. (2023) kept for testing."""
    columns = ["problem", "level", "subject", "solution"]
    return _hub_rows("HuggingFaceH4/MATH-500", [None], split, columns), math_row


@DATASETS.register
def mbpp(split: str, limit: int) -> Source:
    """MBPP, basic Python problems (Austin et al. 2021): 974 rows, ten of them in `prompt`."""
    columns = ["text", "code", "test_list", "test_setup_code"]
    return _hub_rows("google-research-datasets/mbpp", ["full"], split, columns), mbpp_row


@DATASETS.register
def mbpp_sanitized(split: str, limit: int) -> Source:
    """The 427 problems of MBPP that its authors checked by hand."""
    columns = ["prompt", "code", "test_list", "test_imports"]
    return _hub_rows("google-research-datasets/mbpp", ["sanitized"], split, columns), mbpp_row


def _generated_rows(name: str, split: str, limit: int) -> NumberedRows:
    if split not in tasks.SPLITS:
        raise StudyError(f"{name} has no split {split!r}; valid: {', '.join(SPLITS[:-1])}")
    return list(enumerate(tasks.raw_rows(name, split, limit or TINY_ROWS)))


def _hub_rows(
    hub_id: str, configs: list[str | None], split: str, columns: list[str]
) -> NumberedRows:
    """Return the rows of a hub set, its configs one after another, part of train as `valid`.

    Read from the folder HYBRIDLIB_HUB if that is set, else from the hub.
    """
    folder = os.environ.get("HYBRIDLIB_HUB")
    if folder and not (Path(folder) / hub_id).is_dir():
        raise StudyError(f"HYBRIDLIB_HUB={folder} has no folder {hub_id}; unset it to ask the hub")
    location = str(Path(folder) / hub_id) if folder else hub_id
    tables = [sources.read(location, config) for config in configs]
    return sources.split_rows(tables, hub_id, split, columns, carved=("valid",))


def custom_source(name: str, split: str, columns: dict[str, str]) -> Source:
    """Return the rows of a custom data set and their converter; see `load` for the arguments.

    Raises:
        StudyError: `columns` lacks the question or the answer or has a key that means nothing, or
            the split or one of the columns does not exist.
    """
    convert = custom_converter(name, columns)
    if split not in CUSTOM_SPLITS:
        raise StudyError(f"{name} has no split {split!r}; valid: {', '.join(CUSTOM_SPLITS)}")
    wanted = [columns["question"], *columns.values()]
    tables = [sources.read(name)]
    return sources.split_rows(tables, name, split, wanted, carved=("valid", "test")), convert


def custom_converter(name: str, columns: dict[str, str]) -> Converter:
    """Return the converter of a custom data set whose columns are named like this.

    Raises:
        StudyError: `columns` lacks the question or the answer or has a key that means nothing.
    """
    if not {"question", "answer"} <= set(columns) <= {"question", "answer", "completion", "level"}:
        raise StudyError(
            f"columns of {name} need 'question' and 'answer' (and may have 'completion' and "
            f"'level'); given: {', '.join(columns) or 'none'}; "
            "name them by --columns question=Q,answer=A"
        )
    return lambda raw: _custom_row(raw, columns)
