"""Where in a text does the answer stand, and has the text the form that was asked for?

A number stands after the only `####` (GSM8K, Cobbe et al. 2021), an expression in the last
`\\boxed{}` (MATH, Hendrycks et al. 2021), a program in a code fence or on its own. Every pattern is
bounded, so that megabytes of text are read in linear time.
"""

import ast
import re
from decimal import Decimal

LENIENT_TAIL = 2_000  # characters at the end of a text in which `find_elsewhere` looks
LONGEST_PROGRAM = 20_000  # characters that `well_formed` parses

NUMBER = r"[-+]?\$?(?:\d{1,3}(?:,\d{3}){1,13}|\d{1,40})(?:\.\d{1,40})?|[-+]?\.\d{1,40}"
NUMBER_AFTER_MARK = re.compile(rf"[ \t]*({NUMBER})\.?[ \t]*(?:\n|\Z)")
MARKED_LINE = re.compile(rf"#### ({NUMBER})")
ANY_NUMBER = re.compile(rf"(?<![\w)]){NUMBER}|\$?\d{{1,40}}(?:\.\d{{1,40}})?")
STATED_ANSWER = re.compile(  # after "answer is", in bold type, in a formula
    r"answer(?![^\n]*answer)(?: is)?[ *:=]*([^\s:=*][^\n]*?)(?=\.?\*{0,2}\s*(?:\n|\Z)|\. )"
    r"|\*\*([^*\n]{1,300})\*\*|\$([^$]{1,300})\$|\\\(([^\n]{1,300}?)\\\)|\\\[([\s\S]{1,300}?)\\\]",
    re.IGNORECASE,
)
CODE_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
DEFINITION = re.compile(r"^[ \t]*(?:async def|def|class)\b|=[ \t]*lambda\b", re.MULTILINE)
BOX_OR_BRACE = re.compile(  # group 1: a box with a brace; group 2: what a box without one holds
    r"\\?\\(?:boxed|fbox)\s*(?:(\{)|([^\s{}$]+))|\\.|[{}]", re.DOTALL
)


def parse_number(text: str) -> Decimal | None:
    """Return the exact number that the whole text is, None where it is none.

    A dollar sign and thousands commas are allowed.
    """
    if not re.fullmatch(NUMBER, text.strip()):
        return None
    return Decimal(text.strip().replace(",", "").replace("$", ""))


def number_after_mark(text: str) -> str | None:
    """Return the number that starts this text and ends its line, as it is written."""
    match = NUMBER_AFTER_MARK.match(text)
    return match[1] if match else None


def last_boxed(text: str) -> str | None:
    """Return what the last `\\boxed{}` holds that closes and is not empty, None without one.

    >>> last_boxed(r"so $\\boxed{\\frac{1}{2}}$.")
    '\\\\frac{1}{2}'
    """
    content, content_start = None, -1
    open_braces: list[tuple[int, int]] = []  # where the box starts (-1: a plain brace), and inside
    for match in BOX_OR_BRACE.finditer(text):
        is_box = match[1] is not None
        if match[2] and match.start() > content_start:
            content, content_start = match[2], match.start()
        elif is_box or match[0] == "{":
            open_braces.append((match.start() if is_box else -1, match.end()))
        elif match[0] == "}" and open_braces:
            box_start, inside_start = open_braces.pop()
            if box_start > content_start:
                inside = text[inside_start : match.start()].strip()
                if inside:
                    content, content_start = inside, box_start
    return content


def extract_program(text: str) -> str | None:
    """Return the code of the last fence, or the whole text where there is none.

    None where that code defines no function, class or named lambda.
    """
    fences = CODE_FENCE.findall(text)
    code = fences[-1] if fences else text
    return code.strip("\n") if DEFINITION.search(code) else None


def find_elsewhere(text: str, kind: str, extracted: str | None) -> tuple[str, str] | None:
    """Return an answer that does not stand where it should, and the kind to grade it as.

    The answer comes in the form that its kind asks for; None where there is none other than
    `extracted`, which the strict grader has seen.
    """
    if kind == "program":
        code = _first_program(text)
        return (code, kind) if code.strip("\n") not in ("", extracted) else None
    answer = last_boxed(text) or _stated_answer(text[-LENIENT_TAIL:], kind)
    if not answer or answer == extracted:
        return None
    return f"\\boxed{{{answer}}}", "expression"


def _first_program(text: str) -> str:
    """Return the code of the first fence, else all from the first definition to a fence's end."""
    fences = CODE_FENCE.findall(text)
    if fences:
        return fences[0]
    definition = DEFINITION.search(text)
    return text[definition.start() :].split("\n```")[0] if definition else ""


def _stated_answer(tail: str, kind: str) -> str:
    """Return the last answer that is stated outside a box: a formula, else a number."""
    stated = STATED_ANSWER.findall(tail) if kind == "expression" else []
    if stated:
        return "".join(stated[-1]).rpartition("=")[2]
    numbers = ANY_NUMBER.findall(tail)
    return numbers[-1] if numbers else ""


def well_formed(text: str, kind: str) -> bool:
    """Say whether a text has the form that its kind asks for, right or wrong.

    number: one `####`, on the last line, with a number and nothing else. expression: one box, that
    closes, on the last line. program: nothing but code that parses and defines something, bare or
    in one fence.
    """
    lines = text.strip().split("\n")
    if kind == "number":
        return text.count("####") == 1 and bool(MARKED_LINE.fullmatch(lines[-1].strip()))
    if kind == "expression":
        return text.count("\\boxed") == 1 and bool(last_boxed(lines[-1]))
    fences = text.count("```")
    if fences not in (0, 2) or (fences and lines[0][:3] != lines[-1][:3]):
        return False
    code = extract_program(text)
    return code is not None and len(code) < LONGEST_PROGRAM and _parses(code)


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
