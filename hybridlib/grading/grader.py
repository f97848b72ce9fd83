"""Is this text right, and is it well formed? One grader for the reward and for the metric.

A number stands after the only `####`, an expression in the last `\\boxed{}`, a program in a code
fence or on its own. Expressions are compared by their structure and exact values (`equality`); what
its grammar cannot read goes to math-verify (Kydlicek 2025), unless it could hang sympy.
`lenient` is a second opinion on the wrong ones: was only the form missed?
"""

import ast
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from hybridlib import StudyError
from hybridlib.grading import equality, latex, notation, symbolic
from hybridlib.sandbox import judge

KINDS = ("number", "expression", "program")
LONGEST = 300  # characters of an expression
TAIL = 2_000  # characters at the end of a text in which `lenient` looks for an answer

NUMBER = r"[-+]?\$?(?:\d{1,3}(?:,\d{3}){1,13}|\d{1,40})(?:\.\d{1,40})?|[-+]?\.\d{1,40}"
MARKED = re.compile(rf"[ \t]*({NUMBER})\.?[ \t]*(?:\n|\Z)")
MARKED_LAST = re.compile(rf"#### ({NUMBER})")
ANY_NUMBER = re.compile(rf"(?<![\w)]){NUMBER}|\$?\d{{1,40}}(?:\.\d{{1,40}})?")
STATED = re.compile(  # after "answer is", in bold type, in a formula
    r"answer(?![^\n]*answer)(?: is)?[ *:=]*([^\s:=*][^\n]*?)(?=\.?\*{0,2}\s*(?:\n|\Z)|\. )"
    r"|\*\*([^*\n]{1,300})\*\*|\$([^$]{1,300})\$|\\\(([^\n]{1,300}?)\\\)|\\\[([\s\S]{1,300}?)\\\]",
    re.IGNORECASE,
)
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
DEFINES = re.compile(r"^[ \t]*(?:async def|def|class)\b|=[ \t]*lambda\b", re.MULTILINE)
BOXES = re.compile(r"\\?\\(?:boxed|fbox)\s*(?:(\{)|([^\s{}$]+))|\\.|[{}]", re.DOTALL)

COEFFICIENT = r"\d+(?:\.\d+)?(?:/\d+)?|\.\d+|\\frac\{-?\d+\}\{-?\d+\}"
TERM = re.compile(rf"([+-]?)({COEFFICIENT})?\*?([a-zA-Z](?:\^(?:\d{{1,3}}|\{{\d{{1,3}}\}}))?)?")
FOREIGN = re.compile(  # what sympy may know and `latex` does not
    r"\\(?:[pb]?mod|gcd|lcm|max|min|det|setminus|cap|mid|operatorname|begin|int|lim|sum|prod)"
    r"(?![a-zA-Z])"
)
NESTED = re.compile(r"(?:[({\[][^({\[)}\]]*){13}|(?:\\sqrt\s*){6}")  # open brackets in a row
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
    outcomes = judge.judge([p[1] for p in programs], [p[2] for p in programs]) if programs else []
    for (place, code, _), out in zip(programs, outcomes, strict=True):
        passed = out.reason == "pass"
        verdicts[place] = Verdict(passed, out.reason, code, out.seconds, out.detail)
    return verdicts


def lenient(
    texts: Sequence[str], answers: Sequence[str], kinds: Sequence[str], verdicts: Sequence[Verdict]
) -> list[Verdict]:
    """The same verdicts, but a wrong text is right where the answer only stands elsewhere.

    A number: in a box, else the last in the text. An expression: after "answer is", in bold type or
    in the last formula. A program: in the first fence, else from its first definition on. Never a
    reward, as it would pay for a tail of guesses: what it adds is the price of the form.
    """
    told = list(verdicts)
    again = {
        place: found
        for place, verdict in enumerate(verdicts)
        if not verdict.correct
        and (found := _elsewhere(texts[place], kinds[place], verdict.extracted))
    }
    found_texts = [text for text, _ in again.values()]
    seconds = grade_many(found_texts, [answers[p] for p in again], [k for _, k in again.values()])
    for place, verdict in zip(again, seconds, strict=True):
        told[place] = verdict if verdict.correct else told[place]
    return told


def _elsewhere(text: str, kind: str, extracted: str | None) -> tuple[str, str] | None:
    """An answer that the strict reader did not see, in the form it wants, and the kind of it."""
    if kind == "program":
        code, start = FENCE.findall(text)[:1], DEFINES.search(text)
        found = code[0] if code else text[start.start() :].split("\n```")[0] if start else ""
        return (found, kind) if found.strip("\n") not in ("", extracted) else None
    found, tail = boxed(text), text[-TAIL:]
    if not found and kind == "expression" and (stated := STATED.findall(tail)):
        found = "".join(stated[-1]).rpartition("=")[2]
    elif not found:
        found = (ANY_NUMBER.findall(tail) or [""])[-1]
    return (f"\\boxed{{{found}}}", "expression") if found and found != extracted else None


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
    best, last, opened = None, -1, []
    for found in BOXES.finditer(text):
        if found[2] and found.start() > last:
            best, last = found[2], found.start()
        elif found[1] or found[0] == "{":
            opened.append((found.start() if found[1] else -1, found.end()))
        elif found[0] == "}" and opened:
            start, inside = opened.pop()
            if start > last and text[inside : found.start()].strip():
                best, last = text[inside : found.start()].strip(), start
    return best


def _expression(text: str, answer: str, start: float) -> tuple[Verdict, tuple[str, str] | None]:
    """The verdict of the cheap layers, and the pair for math-verify where they cannot tell."""
    extracted = boxed(text)
    if not extracted:
        return Verdict(False, "no answer"), None
    answer, extracted = " ".join(answer.split()), " ".join(extracted.split())
    if len(extracted) > LONGEST and answer != extracted:
        return Verdict(False, "refused", extracted[:LONGEST]), None  # kept out of the cache
    found = _compare(answer, extracted)
    if isinstance(found, str):
        return Verdict(found == "pass", found, extracted, time.perf_counter() - start), None
    return Verdict(False, "error", extracted), found


@lru_cache(maxsize=65_536)
def _compare(gold: str, given: str) -> str | tuple[str, str]:
    """The reason, or the pair that is left for math-verify; cached as samples repeat answers."""
    if gold == given:
        return "pass"
    readable = None
    try:
        readable = equality.read(gold)
        if readable and (other := equality.read(given)):
            return "pass" if equality.equal(readable, other) else "wrong"
    except latex.TooLarge:
        return "refused"
    except latex.Unreadable:
        readable = None
    except Exception:  # a fault of ours must not end a training; it is counted
        return "error"
    if notation.normal(gold) == notation.normal(given):
        return "pass"  # the same but for spacing
    if readable and not FOREIGN.search(given):
        return "wrong"  # malformed: math-verify would pick a part that it can read
    if any(slow.search(side) for slow in (NESTED, SLOW) for side in (gold, given)):
        return "refused"
    return gold, given


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
