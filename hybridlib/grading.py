"""Is this text right, and is it well formed? One grader for the reward and for the metric.

A number stands after the only `####`, an expression in the last `\\boxed{}`, a program in a code
fence or on its own. Expressions pass through layers, cheapest first: equal strings after
normalisation (Hendrycks et al. 2021), exact numbers and polynomials, math-verify (Kydlicek 2025).
No layer has a relative tolerance, and what could hang sympy is refused before it gets there.
"""

import ast
import re
import time
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from hybridlib import StudyError, sandbox, symbolic

KINDS = ("number", "expression", "program")
LONGEST = 300  # characters of an expression

NUMBER = r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{1,40})?|[-+]?\.\d{1,40}"
MARKED = re.compile(rf"[ \t]*({NUMBER})\.?[ \t]*(?:\n|\Z)")
MARKED_LAST = re.compile(rf"#### ({NUMBER})")
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
DEFINES = re.compile(r"^[ \t]*(?:async def|def|class)\b|=[ \t]*lambda\b", re.MULTILINE)

SPACING = re.compile(r"\\(?:[!,;:]|q?quad(?![a-zA-Z]))|~|(?<!\\)\\(?= )")
CLUTTER = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\^\{?\\circ\}?|\\?[$%]|\\mbox\{[^{}]*\}|\.\Z")
UNIT = re.compile(r"(?<=[\w})])\s*\\(?:text|mathrm)\{\s*[^{}]*\}(?:\^\{?\d\}?)?\Z")
TEXT = re.compile(r"\\(?:text|textbf|mathrm|operatorname)\{([^{}]*)\}")
ASSIGNED = re.compile(r"\\?[a-zA-Z]{1,6}=(?=[^=])")
THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
COEFFICIENT = r"\d+(?:\.\d+)?(?:/\d+)?|\.\d+|\\frac\{-?\d+\}\{-?\d+\}"
BASED = re.compile(r"(\d)_\{?(\d+)\}?")
NESTED = re.compile(r"(?:[({\[][^({\[)}\]]*){13}|(?:\\sqrt\s*){6}")  # open brackets in a row
TERM = re.compile(rf"([+-]?)({COEFFICIENT})?\*?([a-zA-Z](?:\^(?:\d{{1,3}}|\{{\d{{1,3}}\}}))?)?")
BOX = re.compile(r"\\boxed\s*(?:\{|([^\s{}$]+))")
SHORT = re.compile(r"\\[dt]?(frac|sqrt)(?![a-zA-Z])(\[[^\]]*\])?")
SLOW = re.compile(  # what sympy may never come back from: factorials, sums, large or stacked powers
    r"!(?!=)|\\(?:sum|prod|int|lim)(?![a-zA-Z])|\^\s*\{?-?\d{4}|[)}]\s*\^\s*\{?\d{3}"
    r"|\^\s*(?:\w|\{[^{}]*\})\s*\^|\^\s*\{[^{}]*\^|\*\*|\\d?binom.*\d{4}|\d{60}"
)


@dataclass(frozen=True)
class Verdict:
    """What the grader says about one text.

    `reason` is `pass`, `wrong`, `no answer`, `several answers`, `refused`, `timeout`, `error` or
    `no program`; a grader that failed (`timeout`, `error`) is not the same as a wrong answer.
    `extracted` is what was compared, `seconds` the time it took, `error` says what went wrong.
    """

    correct: bool
    reason: str
    extracted: str | None = None
    seconds: float = 0.0
    error: str = ""


def grade(text: str, answer: str, kind: str) -> Verdict:
    """Is this text a right answer to a row with that answer? Never raises for any text.

    >>> grade("<<12+7=19>>19\\n#### 19", "19", "number").correct
    True
    """
    return grade_many([text], [answer], [kind])[0]


def grade_many(texts: list[str], answers: list[str], kinds: list[str]) -> list[Verdict]:
    """Which of these texts are right? Programs go to the sandbox together, in one batch.

    Raises StudyError for a kind that is not in KINDS and for tests that cannot be judged.
    """
    verdicts: list[Verdict] = []
    programs, pairs = [], []
    for text, answer, kind in zip(texts, answers, kinds, strict=True):
        start = time.perf_counter()
        if kind == "program":
            code = program(text)
            if code:
                programs.append((len(verdicts), code, answer))
            verdict = Verdict(False, "no program", code)
        elif kind == "number":
            verdict = _number(text, answer, start)
        elif kind == "expression":
            verdict, pair = _expression(text, answer, start)
            if pair:
                pairs.append((len(verdicts), pair))
        else:
            raise StudyError(f"unknown kind {kind!r}; valid: {', '.join(KINDS)}")
        verdicts.append(verdict)
    settled = symbolic.compare([pair for _, pair in pairs]) if pairs else []
    for (place, _), (reason, error, seconds) in zip(pairs, settled, strict=True):
        given = verdicts[place].extracted
        verdicts[place] = Verdict(reason == "pass", reason, given, seconds, error)
    outcomes = sandbox.judge([p[1] for p in programs], [p[2] for p in programs]) if programs else []
    for (place, code, _), out in zip(programs, outcomes, strict=True):
        passed = out.reason == "pass"
        verdicts[place] = Verdict(passed, out.reason, code, out.seconds, out.detail)
    return verdicts


def well_formed(text: str, kind: str) -> bool:
    """Has this text the form that its kind asks for, right or wrong?

    number: one `####`, on the last line, with a number and nothing else. expression: one box, that
    closes, on the last line. program: nothing but code that parses and defines something, bare or
    in one fence.
    """
    lines = text.strip().split("\n")
    if kind == "number":
        return text.count("####") == 1 and bool(MARKED_LAST.fullmatch(lines[-1].strip()))
    if kind == "expression":
        return text.count("\\boxed") == 1 and bool(boxed(lines[-1]))
    if text.count("```") not in (0, 2) or (lines[0][:3] != lines[-1][:3] and "```" in text):
        return False
    code = program(text)
    try:
        return code is not None and len(code) < 20_000 and bool(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def number(text: str) -> Decimal | None:
    """The exact number that the whole of this text is, `$` and thousands commas allowed."""
    if not re.fullmatch(NUMBER, text.strip()):
        return None
    return Decimal(text.strip().replace(",", "").replace("$", ""))


def _number(text: str, answer: str, start: float) -> Verdict:
    parts = text.split("####")
    if len(parts) != 2:
        return Verdict(False, "no answer" if len(parts) == 1 else "several answers")
    found = MARKED.match(parts[1])
    if not found:
        return Verdict(False, "no answer")
    right = number(found[1]) == number(answer)
    return Verdict(right, "pass" if right else "wrong", found[1], time.perf_counter() - start)


def program(text: str) -> str | None:
    """The code in this text: the last fence, or all of it where there is none; None without any."""
    fences = FENCE.findall(text)
    code = fences[-1] if fences else text
    return code.strip("\n") if DEFINES.search(code) else None


def boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{}` that closes and is not empty; None without one.

    >>> boxed(r"so $\\boxed{\\frac{1}{2}}$.")
    '\\\\frac{1}{2}'
    """
    for found in reversed(list(BOX.finditer(text))):
        inside = found[1] or _group(text, found.end() - 1)[1:-1]
        if inside.strip():
            return inside.strip()
    return None


def _group(text: str, start: int) -> str:
    """The balanced group that opens at `start`, braces included; "" where it does not close."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] in "{}" and (place == 0 or text[place - 1] != "\\"):
            depth += 1 if text[place] == "{" else -1
            if not depth:
                return text[start : place + 1]
    return ""


def _expression(text: str, answer: str, start: float) -> tuple[Verdict, tuple[str, str] | None]:
    """The verdict of the cheap layers, and the pair for math-verify where they cannot tell."""
    extracted = boxed(text)
    if not extracted:
        return Verdict(False, "no answer"), None
    found = _compare(answer, extracted)
    if isinstance(found, str):
        return Verdict(found == "pass", found, extracted, time.perf_counter() - start), None
    return Verdict(False, "error", extracted), found


@lru_cache(maxsize=65_536)
def _compare(gold: str, given: str) -> str | tuple[str, str]:
    """The reason, or the pair that is left for math-verify; cached as samples repeat answers."""
    if gold == given:
        return "pass"
    if len(given) > LONGEST or NESTED.search(given):
        return "refused"  # too long or too deep
    left, right = _plain(gold), _plain(given)
    if ("=" in left) != ("=" in right):  # `x=5` where 5 is asked
        left, right = ASSIGNED.sub("", left, count=1), ASSIGNED.sub("", right, count=1)
    if left == right:
        return "pass"
    if not left or not right:
        return "wrong"
    if BASED.search(left) and BASED.search(right):
        return "wrong"  # digits in a base: math-verify would drop the base
    exact = polynomial(left), polynomial(right)
    if None not in exact:
        return "pass" if exact[0] == exact[1] else "wrong"
    if (left[:2] == "\\{") != (right[:2] == "\\{") and {left[0], right[0]} & set("(["):
        return "wrong"  # a point or an interval is no set
    if SLOW.search(left) or SLOW.search(right):
        return "refused"  # a power, factorial or sum that could take for ever
    return _repaired(gold), _repaired(given)


def _plain(text: str) -> str:
    """The string normalisation of the MATH authors, plus thousands marks and `\\text{}`."""
    text = UNIT.sub("", SPACING.sub("", _repaired(text)).strip())
    text = CLUTTER.sub("", text).strip()
    text = TEXT.sub(r"\1", BASED.sub(r"\1_\2", text)).replace("\\cdot", "*").replace("\\times", "*")
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return "".join(text.split())


def _repaired(text: str) -> str:
    r"""The same with every argument in braces: `\frac56`, `\dfrac{270}7`, `\sqrt3`.

    Solutions of MATH write the short form, so refusing it would punish what SFT has taught.
    """
    found = SHORT.search(text)
    if not found:
        return text
    command, rest = _command(text, found)
    return text[: found.start()] + command + _repaired(rest)


def _command(text: str, found: re.Match) -> tuple[str, str]:
    """The fraction or root found in this text with its arguments in braces, and what follows."""
    command, rest = f"\\{found[1]}{found[2] or ''}", text[found.end() :]
    for _ in range(2 if found[1] == "frac" else 1):
        rest = rest.lstrip()
        inner = SHORT.match(rest)
        if rest.startswith("{"):
            group = _group(rest, 0) or rest
            argument, rest = _repaired(group[1:-1]), rest[len(group) :]
        elif inner:
            argument, rest = _command(rest, inner)
        else:
            argument = re.match(r"\\[a-zA-Z]+|.?", rest)[0]
            rest = rest[len(argument) :]
        command += f"{{{argument}}}"
    return command, rest


def polynomial(text: str) -> dict[str, Fraction] | None:
    """Exact coefficients by power of a sum of terms like `-3`, `\\frac{5}{2}x^2`; None else."""
    terms: dict[str, Fraction] = {}
    place = 0
    while place < len(text):
        found = TERM.match(text, place)
        if not (found[2] or found[3]) or (place and not found[1]):
            return None
        sign = -1 if found[1] == "-" else 1
        above, below = [*map(Fraction, re.findall(r"-?[\d.]+", found[2] or "1")), Fraction(1)][:2]
        if not below:
            return None
        power = (found[3] or "").replace("{", "").replace("}", "").removesuffix("^1")
        power = "" if power.endswith("^0") else power
        terms[power] = terms.get(power, Fraction(0)) + sign * above / below
        place = found.end()
    return {power: size for power, size in terms.items() if size} if text else None
