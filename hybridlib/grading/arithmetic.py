r"""Which arithmetic stands in a text, and does it hold? Steps, equations and the final answer.

Only what is surely read is judged: a false alarm would blame a right step. So sides with letters,
roots or mixed numbers are left out, and so is what stands beside a word like "remainder". The one
reader of arithmetic, for the metrics and for the rewards.
"""

import ast
import operator
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from hybridlib.grading import grader

MARK = re.compile(r"<<([^<>=\n]{1,80})=([^<>=\n]{1,40})>>")  # calculator marks (Cobbe et al. 2021)
LONGEST, BITS = 200, 2048  # of one side, in characters; of a power, in binary digits

ANSWER_LINE = re.compile(r"^[ \t]*####.*$", re.MULTILINE)
CUTS = [re.compile(cut) for cut in (r"\n\s*\n", r"\n", r"(?<=[.!?])\s+(?=[A-Z\\$(])")]
PLAIN = [(re.compile(pattern), plain) for pattern, plain in (
    (r"<<[^<>]*>>", ""), (r"(?m)^[ \t]*[-*•][ \t]+", ""),  # the dash of a list is no minus
    (r"\\[()\[\];:\\]|\\(?:q?quad|implies|[rR]ightarrow|therefore)(?![a-zA-Z])", " ; "),
    (r"\\[!,\s]|\\(?:left|right|boxed|mathbf)(?![a-zA-Z])|\\?\$|\\(?=%)", ""),
    (r"(?<!\d)\*\*|\*\*(?!\d)", ""),  # bold
    (r"\\&|#", "@"), (r"&\s*(?==)|(?<==)\s*&", ""), (r"&", " ; "),
    (r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}(?:\^\{?\d\}?)?", r" \1 "),
    (r"(?<=[\d%}])\s+of\s+(?=[\d\\(]*\d)", "*"),
    (r"\{,\}", ","), (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\\(?:times|cdot)(?![a-zA-Z])|[×·⋅]|(?<=\d)\s*x\s+(?=[\d.])", "*"),
    (r"\\div(?![a-zA-Z])|÷", "/"), (r"[−–]", "-"), (r"²", "^2"), (r"³", "^3"),
    (r"(?<=\d)\s*\\[dt]?frac", "@"),  # a mixed number or a product: cannot tell
    (r"\\[dt]?frac\s*(\d)\s*(\d)", r"(\1/\2)"),
    *[(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))")] * 2,
    (r"\\[a-zA-Z]+|\.{3}|…", "@"), (r"[{\[]", "("), (r"[}\]]", ")"), (r"\.(?![\d@])|\n", " ; "),
)]  # fmt: skip
RUN = re.compile(r"[\d.+*/^()%=\s-]+")
GLUED = re.compile(r"[^\W\d]|[@!'\\½⅓⅔¼¾°]")  # what makes a number beside it another number
BEFORE = re.compile(  # a factor that is not in the run
    r"(?:@|(?<![a-zA-Z])[a-zA-Z]|(?:half|third|quarter|percent|[%;])s?\s+of)\s*\Z"
)
AFTER = re.compile(  # the same, or a rest of a division
    r"\s*(?:@|[a-zA-Z]\b|of\b|:\s*\d)|[\s;(]*(?:mod\b|remainder|quotient)"
    r"|(?:\s*[a-zA-Z]{1,20}\b){1,3}\s*[-+*/^]"
)
BINARY = re.compile(r"[\d)%]\s*[-+*/^]")
NUMBER = re.compile(r"-?\d*\.?(\d*)\s*%?")
TERMS = r"(?:[\d.+*/^ -]|(?<![a-zA-Z])[a-z](?![a-zA-Z])){1,80}"
SIMPLIFIED = re.compile(rf"^{TERMS}(?:={TERMS})+$", re.MULTILINE)  # a line of its own
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
             ast.Div: operator.truediv, ast.Pow: operator.pow}  # fmt: skip


@dataclass(frozen=True)
class Equation:
    """One equation: is it a calculator mark, does it hold, what is the value of its right side?"""

    marked: bool
    holds: bool
    value: Fraction


def split(text: str) -> list[str]:
    """The steps of a solution: its paragraphs, else its lines, else its sentences.

    The line `#### answer` of GSM8K is no step.

    >>> split("3 + 4 = 7.\\n2 * 7 = 14.\\n#### 14")
    ['3 + 4 = 7.', '2 * 7 = 14.']
    """
    text = ANSWER_LINE.sub("", text).strip()
    cut = next((cut for cut in CUTS if cut.search(text)), None)
    return [step for step in map(str.strip, cut.split(text) if cut else [text]) if step]


@lru_cache(maxsize=65_536)
def find(text: str) -> tuple[Equation, ...]:
    r"""Which equations does this text show? Marks `<<a+b=c>>` first, then what stands in the text.

    A chain `a = b = c` counts pair by pair, a pair where a side has an operator. Sides are equal to
    half of the last digit shown, as in `10 / 3 = 3.33`; a percentage may be a share or a number.

    >>> [(e.holds, int(e.value)) for e in find(r"So \(2 \times 3 = 6\), and 6 + 1 = 8 eggs.")]
    [(True, 6), (False, 8)]
    """
    found = [_equation(True, *sides) for sides in MARK.findall(text)]
    text = _plain(text)
    for run in RUN.finditer(text):
        sides = _sides(run[0].split("="), text[: run.start()][-20:], text[run.end() :][:99])
        found += [_equation(False, *pair) for pair in zip(sides, sides[1:], strict=False)
                  if BINARY.search(" = ".join(pair))]  # fmt: skip
    return tuple(equation for equation in found if equation)


def identities(text: str) -> list[bool]:
    """Which simplifications hold? Lines that are nothing but equal polynomials with letters.

    Apart from `find`, as `2x + 3 = x + 5` can be a false step or an equation to be solved: only
    who asked for a simplification can tell.

    >>> identities("4x+4-x=3x+4\\n3x+4+1=3x+6")
    [True, False]
    """
    lines = ["".join(line.split(" ")).split("=") for line in SIMPLIFIED.findall(text)]
    chains = [[grader.polynomial(side) for side in sides] for sides in lines]
    return [a == b for chain in chains for a, b in zip(chain, chain[1:], strict=False)
            if a and b and {*a} - {""} and {*b} - {""}]  # fmt: skip


def answer(text: str) -> Fraction | None:
    """The number in the last box or after `####`; None where there is no such number."""
    given = grader.boxed(text) or (text.rpartition("####")[2] if "####" in text else "")
    return _value(_plain(given).strip(" ;"))


def _plain(text: str) -> str:
    for pattern, plain in PLAIN:
        text = pattern.sub(plain, text)
    return text


def _sides(sides: list[str], before: str, after: str) -> list[str]:
    """The sides of a chain; the outer ones are emptied where what stands beside them is a part."""
    first, last, sign = sides[0], sides[-1], before.rstrip()[-1:]
    if (GLUED.match(before[-1:]) and first[:1].strip()) or BEFORE.search(before):
        sides[0] = ""
    if first.strip()[:1] in "+-*/^)" and sign not in ",:;<>≈~":  # `x - 3 = 4`
        sides[0] = ""
    if last.strip()[-1:] == "(":  # `= 8 (eggs)`
        sides[-1] = last.strip()[:-1] if re.match(r"[a-zA-Z]{2}", after) and " (" in last else ""
    elif (GLUED.match(after) and not last[-1:].isspace()) or AFTER.match(after):
        sides[-1] = ""
    if sides[0].count("(") > sides[0].count(")"):  # `(2 + 3 = 5)`
        sides[0] = sides[0].replace("(", "", 1) if sides[0].strip()[0] == "(" else ""
        sides[-1] = sides[-1].strip().removesuffix(")")
    return sides


def _equation(marked: bool, left: str, right: str) -> Equation | None:
    holds, value = [], None
    for percent in ("", "/100"):
        a, b = (_value(side, percent) for side in (left, right))
        if a is None or b is None:
            return None
        slack = _slack(left, right) / (100 if percent and "%" in right else 1)
        holds.append(abs(a - b) <= slack)
        value = b if value is None else value
    return Equation(marked, any(holds), value)


def _slack(left: str, right: str) -> Fraction:
    """Half of the last digit of the side that is a number; of the finest decimal where none is."""
    plain = [found for side in (right, left) if (found := NUMBER.fullmatch(side.strip(" ()")))]
    if plain:
        return Fraction(1, 2 * 10 ** len(plain[0][1]))
    decimals = [len(digits) for digits in re.findall(r"\.(\d+)", right)]
    return Fraction(1, 2 * 10 ** max(decimals)) if decimals else Fraction(0)


def _value(text: str, percent: str = "") -> Fraction | None:
    """The exact value of plain arithmetic, None for everything else."""
    if len(text) > LONGEST:
        return None
    text = re.sub(r"(\d+(?:\.\d+)?)\s*%", rf"(\1{percent})", text.replace("^", "**").strip())
    text = re.sub(r"(?<=[\d)])\(", "*(", re.sub(r"(?<![\d.])0+(?=\d)", "", text))
    try:
        return _compute(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, KeyError, RecursionError, MemoryError):
        return None


def _compute(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_compute(operand)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _compute(left), _compute(right)
            size = max(a.numerator.bit_length(), a.denominator.bit_length())
            if isinstance(op, ast.Pow) and (b.denominator > 1 or size * abs(b) > BITS):
                raise ValueError("a root, or too large")
            return OPERATORS[type(op)](a, b)
    raise ValueError("not plain arithmetic")
