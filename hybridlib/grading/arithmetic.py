r"""Which arithmetic stands in a text, and does it hold? Steps, equations and the final number.

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

from hybridlib.grading.extraction import last_boxed

CALCULATOR_MARK = re.compile(r"<<([^<>=\n]{1,80})=([^<>=\n]{1,40})>>")  # Cobbe et al. 2021
LONGEST_TEXT = 20_000  # characters that are read of a text
LONGEST_SIDE = 200
MAX_POWER_BITS = 2_048

ANSWER_LINE = re.compile(r"^[ \t]*####.*$", re.MULTILINE)
STEP_ENDS = [  # of paragraphs, of lines, of sentences
    re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"(?<=[.!?])\s+(?=[A-Z\\$(])")
]
REWRITE_RULES = [  # (signs one of which it needs, pattern, replacement), in this order
    # @ is what cannot be read, ; an end
    ("<", r"<<[^<>]*>>", ""),
    # the dash of a list is no minus, its number or letter no factor
    ("\n", r"\n[ \t]*(?:[-–—*•‣▪]|(?:\d{1,2}|\(?[a-z])\)(?=[ \t]+[\d$(\\]))[ \t]+", "\n"),
    # what ends an equation, what is no part of one, bold type
    ("\\", r"\\[()\[\];:\\]|\\(?:q?quad|implies|[rR]ightarrow|therefore)(?![a-zA-Z])", " ; "),
    ("\\$", r"\\[!,\s]|\\(?:left|right|boxed|mathbf)(?![a-zA-Z])|\\?\$|\\(?=%)", ""),
    ("*", r"(?<!\d)\*\*|\*\*(?!\d)", ""),  # bold
    # what cannot be read becomes @; columns; units as words; 3% of 40
    ("&#", r"\\&|#", "@"), ("&", r"&\s*(?==)|(?<==)\s*&", ""), ("&", r"&", " ; "),
    ("\\", r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}(?:\^\{?\d\}?)?", r" \1 "),
    ("f", r"(?<=[\d%}])\s+of\s+(?=[\d\\(]*\d)", "*"),
    # thousands, signs of operations, powers
    ("{", r"\{,\}", ","), (",", r"(?<=\d),(?=\d{3}(?!\d))", ""),
    ("\\×·⋅x", r"\\(?:times|cdot)(?![a-zA-Z])|[×·⋅]|(?<=\d)\s*x\s+(?=[\d.])", "*"),
    ("\\÷", r"\\div(?![a-zA-Z])|÷", "/"), ("−–", r"[−–]", "-"),
    ("²", r"²", "^2"), ("³", r"³", "^3"),
    # fractions, the inner ones first
    ("\\", r"(?<=\d)\s*\\[dt]?frac", "@"),  # a mixed number or a product: cannot tell
    ("\\", r"\\[dt]?frac\s*(\d)\s*(\d)", r"(\1/\2)"),
    *[("\\", r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))")] * 2,
    # other commands, brackets, ends of sentences
    ("\\.…", r"\\[a-zA-Z]+|\.{3}|…", "@"), ("{[", r"[{\[]", "("), ("}]", r"[}\]]", ")"),
    (".\n", r"\.(?![\d@])|\n", " ; "),
]  # fmt: skip
REWRITES = [(signs, re.compile(pattern), new) for signs, pattern, new in REWRITE_RULES]
ARITHMETIC_RUN = re.compile(r"[\d.+*/^()%=\s-]+")
GLUED = re.compile(r"[^\W\d]|[@!'\\½⅓⅔¼¾°]")  # what makes a number beside it another number
FACTOR_BEFORE = re.compile(  # a factor that is not in the run
    r"(?:@|(?<![a-zA-Z])[a-zA-Z]|(?:half|third|quarter|percent|[%;])s?\s+of)\s*\Z"
)
FACTOR_AFTER = re.compile(  # the same, or a rest of a division
    r"\s*(?:@|[a-zA-Z]\b|of\b|:\s*\d)|[\s;(]*(?:mod\b|remainder|quotient)"
    r"|(?:\s*[a-zA-Z]{1,20}\b){1,3}\s*[-+*/^]"
)
ROUNDED = re.compile(r"round|approx|about|nearly|nearest|roughly|almost", re.IGNORECASE)
ROUNDED_DOWN = re.compile(r"round(?:ed|ing|s)? (?:it )?down|truncat|\bfloor", re.IGNORECASE)
ROUNDED_UP = re.compile(r"round(?:ed|ing|s)? (?:it )?up|\bceiling", re.IGNORECASE)
LINE_WITH_DASH = re.compile(r"^[ \t]*-", re.MULTILINE)
LINE_START = re.compile(r"(?:\A|;)\s*\Z")
BINARY_OPERATOR = re.compile(r"[\d)%]\s*[-+*/^]")
WHOLE_NUMBER = re.compile(r" ?[0-9]{1,40} ?")
NUMBER = re.compile(r"-?\d*\.?(\d*)\s*%?")
POLYNOMIALS = r"(?:[\d.+*/^ -]|(?<![a-zA-Z])[a-z](?![a-zA-Z])){1,80}"
SIMPLIFICATION = re.compile(rf"^{POLYNOMIALS}(?:={POLYNOMIALS})+$", re.MULTILINE)
COEFFICIENT = r"\d+(?:\.\d+)?(?:/\d+)?|\.\d+|\\frac\{-?\d+\}\{-?\d+\}"
TERM = re.compile(rf"([+-]?)({COEFFICIENT})?\*?([a-zA-Z](?:\^(?:\d{{1,3}}|\{{\d{{1,3}}\}}))?)?")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Equation:
    """One equation: whether it is a calculator mark and holds, and the value of its right side."""

    marked: bool
    holds: bool
    value: Fraction


def split_steps(text: str) -> list[str]:
    """Return the steps of a solution: its paragraphs, else its lines, else its sentences.

    The line `#### answer` of GSM8K is no step.

    >>> split_steps("3 + 4 = 7.\\n2 * 7 = 14.\\n#### 14")
    ['3 + 4 = 7.', '2 * 7 = 14.']
    """
    text = ANSWER_LINE.sub("", text).strip()
    parts = [text]
    for step_end in STEP_ENDS:
        if step_end.search(text):
            parts = step_end.split(text)
            break
    return [part.strip() for part in parts if part.strip()]


@lru_cache(maxsize=65_536)
def find_equations(text: str) -> tuple[Equation, ...]:
    r"""Return the equations of a text: marks `<<a+b=c>>` first, then what stands in the text.

    A chain `a = b = c` counts pair by pair, a pair where a side has an operator. Sides are equal to
    half of the last decimal shown, as in `10 / 3 = 3.33`, or cut off after the decimals shown, as
    in `2 / 3 = 0.66`; a whole number is exact, as `10 / 3 = 3` is false, unless the text says that
    it rounds. A percentage may be a share or a number. Of a text only LONGEST_TEXT characters are
    read.

    >>> equations = find_equations(r"So \(2 \times 3 = 6\), and 6 + 1 = 8 eggs.")
    >>> [(equation.holds, int(equation.value)) for equation in equations]
    [(True, 6), (False, 8)]
    """
    text = text[:LONGEST_TEXT]
    equations = [_check(True, left, right) for left, right in CALCULATOR_MARK.findall(text)]
    plain = _rewrite(text)
    for run in ARITHMETIC_RUN.finditer(plain):
        if "=" not in run[0]:
            continue
        start, end = run.span()
        before, after = plain[max(start - 20, 0) : start], plain[end : end + 99]
        sides = _complete_sides(run[0].split("="), before, after)
        for left, right in zip(sides, sides[1:], strict=False):
            if BINARY_OPERATOR.search(f"{left} = {right}"):
                remark = before + after[:40]
                equation = _check(False, left, right, remark)
                if equation and not equation.holds and _is_item(left, before, text):
                    equation = _check(False, left.lstrip()[1:], right, remark)
                equations.append(equation)
    return tuple(equation for equation in equations if equation)


def _is_item(side: str, before: str, text: str) -> bool:
    """Say whether a side starts with the dash of a list, glued to it: `-48 / 2 = 24`."""
    starts = side.lstrip().startswith("-") and LINE_START.search(before)
    return bool(starts) and len(LINE_WITH_DASH.findall(text)) > 1


def check_simplifications(text: str) -> list[bool]:
    """Say of each simplification, a line of polynomials with letters, whether both sides are equal.

    Apart from `find_equations`, as `2x + 3 = x + 5` can be a false step or an equation to be
    solved: only who asked for a simplification can tell.

    >>> check_simplifications("4x+4-x=3x+4\\n3x+4+1=3x+6")
    [True, False]
    """
    verdicts = []
    for line in SIMPLIFICATION.findall(text):
        sides = [parse_polynomial(side) for side in line.replace(" ", "").split("=")]
        for left, right in zip(sides, sides[1:], strict=False):
            if _has_letters(left) and _has_letters(right):
                verdicts.append(left == right)
    return verdicts


def _has_letters(polynomial: dict[str, Fraction] | None) -> bool:
    return bool(polynomial) and any(polynomial)


def parse_polynomial(text: str) -> dict[str, Fraction] | None:
    """Return the exact coefficients of a polynomial by power, as {"x^2": 5/2, "": -3}.

    It is a sum of terms like `-3` and `\\frac{5}{2}x^2`, written without spaces; None for any other
    text. Powers whose coefficient is 0 are left out.
    """
    if not text:
        return None
    coefficients: dict[str, Fraction] = {}
    position = 0
    while position < len(text):
        term = TERM.match(text, position)
        sign, coefficient, power = term.groups()
        if not (coefficient or power) or (position > 0 and not sign):
            return None
        size = _parse_coefficient(coefficient or "1")
        if size is None:
            return None
        power = (power or "").replace("{", "").replace("}", "").removesuffix("^1")
        if power.endswith("^0"):
            power = ""
        size = -size if sign == "-" else size
        coefficients[power] = coefficients.get(power, Fraction(0)) + size
        position = term.end()
    return {power: size for power, size in coefficients.items() if size}


def _parse_coefficient(text: str) -> Fraction | None:
    """Return the value of `3`, `3/4` or `\\frac{3}{4}`, None for a division by 0."""
    numbers = [Fraction(number) for number in re.findall(r"-?[\d.]+", text)]
    numerator, denominator = numbers if len(numbers) == 2 else (numbers[0], Fraction(1))
    return numerator / denominator if denominator else None


def final_number(text: str) -> Fraction | None:
    """Return the number in the last box or after `####`, None where there is no such number."""
    answer = last_boxed(text) or (text.rpartition("####")[2] if "####" in text else "")
    return _evaluate(_rewrite(answer).strip(" ;"))


def _rewrite(text: str) -> str:
    text = f"\n{text}"  # all lines start alike
    for signs, pattern, replacement in REWRITES:
        for sign in signs:
            if sign in text:
                text = pattern.sub(replacement, text)
                break
    return text.removeprefix("\n").removeprefix(" ; ")


def _complete_sides(sides: list[str], before: str, after: str) -> list[str]:
    """Return the sides of a chain, the outer ones emptied where the text beside them is a part."""
    first, last = sides[0], sides[-1]
    sign_before = before.rstrip()[-1:]
    if (GLUED.match(before[-1:]) and first[:1].strip()) or FACTOR_BEFORE.search(before):
        sides[0] = ""
    if first.strip()[:1] in "+-*/^)" and sign_before not in ",:;<>≈~":  # `x - 3 = 4`
        sides[0] = ""
    if last.strip()[-1:] == "(":  # `= 8 (eggs)`
        is_remark = re.match(r"[a-zA-Z]{2}", after) and " (" in last
        sides[-1] = last.strip()[:-1] if is_remark else ""
    elif (GLUED.match(after) and not last[-1:].isspace()) or FACTOR_AFTER.match(after):
        sides[-1] = ""
    if sides[0].count("(") > sides[0].count(")"):  # `(2 + 3 = 5)`
        sides[0] = sides[0].replace("(", "", 1) if sides[0].strip()[0] == "(" else ""
        sides[-1] = sides[-1].strip().removesuffix(")")
    return sides


def _check(marked: bool, left: str, right: str, remark: str = "") -> Equation | None:
    """Return the equation of two sides, None where one of them cannot be read.

    The remark is the text round it, which may say that the right side is rounded up or down.
    """
    holds, value = False, None
    for percent in ("", "/100") if "%" in left or "%" in right else ("",):
        left_value, right_value = _evaluate(left, percent), _evaluate(right, percent)
        if left_value is None or right_value is None:
            return None
        tolerance = _tolerance(left, right, remark)
        if percent and "%" in right:
            tolerance /= 100
        holds = holds or abs(left_value - right_value) <= tolerance
        holds = holds or _is_cut_off(left_value, right_value, right, remark)
        value = right_value if value is None else value
    return Equation(marked, holds, value)


def _is_cut_off(exact: Fraction, shown: Fraction, text: str, remark: str) -> bool:
    """Say whether a number is cut off after its decimals, or rounded as the remark says."""
    number = NUMBER.fullmatch(text.strip(" ()"))
    if not number:
        return False
    if ROUNDED_UP.search(remark):
        return 0 <= shown - exact < 1
    if not number[1] and not ROUNDED_DOWN.search(remark):
        return False
    left_out = exact - shown if exact >= 0 else shown - exact
    return 0 <= left_out < Fraction(1, 10 ** len(number[1]))


def _tolerance(left: str, right: str, remark: str = "") -> Fraction:
    """Return half of the last digit shown by a side that is a number, else by a decimal.

    A whole number is exact, unless the remark says that it is rounded.
    """
    for side in (right, left):
        number = NUMBER.fullmatch(side.strip(" ()"))
        if number and not number[1] and not ROUNDED.search(remark):
            return Fraction(0)
        if number:
            return Fraction(1, 2 * 10 ** len(number[1]))
    decimals = [len(digits) for digits in re.findall(r"\.(\d+)", right)]
    return Fraction(1, 2 * 10 ** max(decimals)) if decimals else Fraction(0)


@lru_cache(maxsize=65_536)  # the sides of a chain come twice, those of a group of samples again
def _evaluate(text: str, percent: str = "") -> Fraction | None:
    """Return the exact value of plain arithmetic, None for everything else.

    `percent` is what a percent sign becomes: nothing, or `/100`.
    """
    if len(text) > LONGEST_SIDE:
        return None
    if WHOLE_NUMBER.fullmatch(text):
        return Fraction(int(text))
    text = re.sub(r"(\d+(?:\.\d+)?)\s*%", rf"(\1{percent})", text.replace("^", "**").strip())
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", text)
    text = re.sub(r"(?<=[\d)])\(", "*(", text)
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
        case ast.BinOp(left=left, op=operation, right=right):
            one, other = _compute(left), _compute(right)
            bits = max(one.numerator.bit_length(), one.denominator.bit_length())
            if isinstance(operation, ast.Pow):
                if other.denominator > 1 or bits * abs(other) > MAX_POWER_BITS:
                    raise ValueError("a root, or too large")
            return OPERATORS[type(operation)](one, other)
    raise ValueError("not plain arithmetic")
