"""What is a completion paid for? One decorated function per reward, in the form that TRL calls.

`fn(completions, answer, kind, **_) -> list[float]`, one number in [0, 1] per completion. A
completion is a string or a conversation; `answer` and `kind` are columns of the rows. Rewards that
ask whether a completion is right share one grading of the batch. Formats are paid all or nothing:
a part of the credit for a part of the form could be farmed without an answer.
"""

import ast
import hashlib
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from hybridlib import grading
from hybridlib.registry import Registry

REWARDS = Registry("reward")
CHARACTERS = 1000  # at which brevity has fallen to nothing
MARK = re.compile(r"<<([^<>=\n]{1,80})=([^<>=\n]{1,40})>>")
FORMULA = r"(?:[\d.+*/()^ -]|(?<![a-zA-Z])[a-z](?![a-zA-Z])){1,80}"
CHAIN = re.compile(rf"{FORMULA}(?:={FORMULA})+")
OPERATOR = re.compile(r"[\w)] *[-+*/]")


@REWARDS.register
def correct(completions: list[Any], answer: list[str], kind: list[str], **_: Any) -> list[float]:
    """Is it right? 0 or 1: the verifiable reward of DeepSeek-R1 (DeepSeek-AI 2025)."""
    return [float(verdict.correct) for verdict in _verdicts(completions, answer, kind)]


@REWARDS.register
def format(completions: list[Any], kind: list[str], **_: Any) -> list[float]:
    """Has it the form that its kind asks for, right or wrong? 0 or 1 (DeepSeek-AI 2025)."""
    pairs = zip(texts(completions), kind, strict=True)
    return [float(grading.well_formed(text, k)) for text, k in pairs]


@REWARDS.register
def arithmetic(completions: list[Any], **_: Any) -> list[float]:
    """Which share of its visible steps holds? 0 to 1, 0 without a step.

    Steps are the calculator marks `<<lhs=rhs>>` of GSM8K (Cobbe et al. 2021), else the equations
    `a=b` that stand in the text. A valid step need not be a useful one: say arithmetic validity.
    """
    found = [steps(text) for text in texts(completions)]
    return [sum(holds) / len(holds) if holds else 0.0 for holds in found]


@REWARDS.register
def brevity(completions: list[Any], answer: list[str], kind: list[str], **_: Any) -> list[float]:
    """How short is a right answer? 1 at no characters, 0 at CHARACTERS; 0 for a wrong answer.

    Only right answers are paid for being short, as in Arora & Zanette (2025): otherwise the
    shortest guess would be the best completion.
    """
    verdicts = _verdicts(completions, answer, kind)
    return [
        max(0.0, 1 - len(text) / CHARACTERS) if verdict.correct else 0.0
        for text, verdict in zip(texts(completions), verdicts, strict=True)
    ]


@REWARDS.register
def random(completions: list[Any], **_: Any) -> list[float]:
    """What does a reward without information do? 0 or 1 at even odds (Shao et al. 2025).

    The coin is a hash of the text, so that a run can be repeated; equal texts get equal pay.
    """
    coins = [hashlib.sha256(text.encode(errors="replace")) for text in texts(completions)]
    return [float(coin.digest()[0] % 2) for coin in coins]


# ---------------------------------------------------------------- shared by the rewards


def texts(completions: list[Any]) -> list[str]:
    """What did the model write? The last message's content, or the string itself."""
    return [c if isinstance(c, str) else c[-1]["content"] for c in completions]


def steps(text: str) -> list[bool]:
    """Which of the visible steps of this text hold, in their order?

    An equation holds exactly, or to half of the last digit where its right side is a decimal.

    >>> steps("<<12+7=19>>19 then <<19*2=36>>36")
    [True, False]
    """
    found = [_holds(left, right) for left, right in MARK.findall(text)]
    if found:
        return [bool(holds) for holds in found]  # a mark that cannot be read does not hold
    sides = [chain.split("=") for chain in CHAIN.findall(text)]
    found = [_holds(*pair) for side in sides for pair in zip(side, side[1:], strict=False)
             if OPERATOR.search("=".join(pair))]  # fmt: skip
    return [holds for holds in found if holds is not None]


def _holds(left: str, right: str) -> bool | None:
    """None where a side is no arithmetic and no polynomial in the letters of the other side."""
    values = [_value(left), _value(right)]
    if None in values:
        return None
    a, b = values
    if set(a) | set(b) <= {""}:
        decimals = right.strip().partition(".")[2]
        slack = Fraction(1, 2 * 10 ** len(decimals)) if decimals.isdigit() else 0
        return abs(a.get("", 0) - b.get("", 0)) <= slack
    return a == b if set(a) - {""} and set(b) - {""} else None


def _value(text: str) -> dict[str, Fraction] | None:
    polynomial = grading.polynomial("".join(text.split()))
    if polynomial is not None:
        return polynomial
    try:
        return {"": _arithmetic(ast.parse(text.strip(), mode="eval").body)}
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _arithmetic(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_arithmetic(operand)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _arithmetic(left), _arithmetic(right)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError("not plain arithmetic")


def _verdicts(completions: list[Any], answer: list[str], kind: list[str]) -> tuple:
    return _graded(tuple(texts(completions)), tuple(answer), tuple(kind))


@lru_cache(maxsize=4)
def _graded(completions: tuple, answer: tuple, kind: tuple) -> tuple:
    return tuple(grading.grade_many(list(completions), list(answer), list(kind)))
