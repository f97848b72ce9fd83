"""Where in a text does the answer stand, and has the text the form that was asked for?

A number stands after the only `####` (GSM8K, Cobbe et al. 2021), an expression in the last
`\\boxed{}` (MATH, Hendrycks et al. 2021), a program in a code fence or on its own. Every pattern is
bounded, so that megabytes of text are read in linear time.
"""

import ast
import re
import textwrap
import unicodedata
from collections.abc import Iterator
from decimal import Decimal

from hybridlib.grading import notation

LENIENT_TAIL = 2_000  # characters at the end of a text in which `find_elsewhere` looks
LONGEST_LINE = 1_000  # characters after the mark of a number
LONGEST_PROGRAM = 20_000  # characters that `well_formed` parses

LONGEST_TEXT = 100_000  # characters at the end of a text in which a box is looked for
MOST_BOXES = 8  # that may hold one answer together

NUMBER = r"[-+]?\$?(?:\d{1,3}(?:,\d{3}){1,13}|\d{1,40})(?:\.\d{1,40})?|[-+]?\.\d{1,40}"
NUMBER_AFTER_MARK = re.compile(rf"[ \t]*({NUMBER})\.?[ \t]*(?:\n|\Z)")
MARKED_LINE = re.compile(rf"#### ({NUMBER})")
ANY_NUMBER = re.compile(  # none of the digits in a word such as B12C
    rf"(?<![\w)])(?:{NUMBER})(?![\dA-Z])|(?<![^\W_])\$?\d{{1,40}}(?:\.\d{{1,40}})?(?![\dA-Z])"
)
STATED_ANSWER = re.compile(  # after "answer is", in bold type, in a formula
    r"answer(?![^\n]*answer)(?: is)?[ *:=]*([^\s:=*][^\n]*?)(?=\.?\*{0,2}\s*(?:\n|\Z)|\. )"
    r"|\*\*([^*\n]{1,300})\*\*|\$([^$]{1,300})\$|\\\(([^\n]{1,300}?)\\\)|\\\[([\s\S]{1,300}?)\\\]",
    re.IGNORECASE,
)
ONE_FENCE = re.compile(r"```(\w*)[ \t]*\n([^`~]*)```[ \t]*(?:\n[^`~]*)?\Z")  # of a text's end
TURNED_ROUND = re.compile(  # right before a number that is not stated
    r"(?:\b(?:not|no|never|than|at least|at most|about|around|almost|nearly|roughly|approximately|"
    r"over|under|up to|close to|between|half of|twice|minus)(?: equal to)?|n't|[<>≤≥≠]|"
    r"\\(?:[lg](?:eq?|t)|neq?)(?![a-z]))[\s*$\\(\[]*\Z",
    re.IGNORECASE,
)
LONGEST_BEFORE = 40  # characters before a number that may turn it round
FENCE_SIGN = re.compile("`{3,}|~{3,}")
FENCE = re.compile(r"[ \t]*(?:>[ \t]?)?(`{3,}|~{3,})([^\n`]*)")
LATE_FENCE = re.compile(r"(```)(\w*)[ \t]*")  # behind text, or behind code
PYTHON = {"python", "python3", "py", "py3", "ipython", "pycon", "python2", "code", ""}
CODE_MARKS = re.compile(r"^[ \t]*\[/?(?:BEGIN|DONE|END|PYTHON|CODE)\][ \t]*$", re.MULTILINE)
DEFINITION = re.compile(r"^[ \t]*(?:async def|def|class)\b|=[ \t]*lambda\b", re.MULTILINE)
SPECIAL = re.compile(r"[{\\]")  # in a box: another brace or a command
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
    """Return the number that starts this text and ends its line, where need be in ASCII."""
    match = NUMBER_AFTER_MARK.match(text)
    if match:
        return match[1]
    line = text[: LONGEST_LINE + 1].partition("\n")[0]
    if len(line) > LONGEST_LINE:
        return None
    match = NUMBER_AFTER_MARK.match(_plain_number(line))
    return match[1] if match else None


def _plain_number(line: str) -> str:
    """Return a line with its number in ASCII, without bold type and the signs of currencies."""
    line = notation.plain(line).strip()
    for left, right in (("**", "**"), ("$", "$"), ("\\(", "\\)"), ("`", "`")):
        if len(line) > 2 * len(left) and line.startswith(left) and line.rstrip(".").endswith(right):
            line = line.rstrip(".")[len(left) : -len(right)].strip()
    line = re.sub(r"^([-+]?)\s*(?:[€£¥₹]|\\\$)\s*(?=[\d.])", r"\1", line)
    line = re.sub(r"(?<=\d)\s*[€£¥₹]\.?$", "", line)
    if re.fullmatch(r"[-+]?\$?\d{1,3}(?: \d{3}){1,13}(?:\.\d{1,40})?\.?", line):
        line = line.replace(" ", "")
    return "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in line)


def last_boxed(text: str) -> str | None:
    """Return what the last `\\boxed{}` holds that closes and is not empty, None without one.

    >>> last_boxed(r"so $\\boxed{\\frac{1}{2}}$.")
    '\\\\frac{1}{2}'
    """
    text = text[-LONGEST_TEXT:]
    if text.count("box") == 1:  # nearly always
        start = text.find("\\boxed{")
        inside, brace, _ = text[start + 7 :].partition("}")
        plain = start >= 0 and text[start - 1 : start] != "\\" and not SPECIAL.search(inside)
        if plain and brace and inside.strip():
            return inside.strip()
    content, content_start = None, -1
    for box_start, inside in _boxes(text):
        if box_start > content_start:
            content, content_start = inside, box_start
    return content


def boxes_on_last_line(text: str) -> list[str]:
    """Return what the boxes of the last line with a box hold, at most MOST_BOXES."""
    lines = [line for line in text[-LONGEST_TEXT:].split("\n") if "boxed" in line]
    return _few_boxes(lines[-1]) if lines else []


def all_boxes(text: str) -> list[str]:
    """Return what all boxes of a text hold, [] where they are more than MOST_BOXES."""
    return _few_boxes(text[-LONGEST_TEXT:])


def _few_boxes(text: str) -> list[str]:
    boxes: list[str] = []
    for _, inside in _boxes(text):
        boxes.append(inside)
        if len(boxes) > MOST_BOXES:
            return []
    return boxes


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    """Yield where each box starts that closes and is not empty, and what it holds.

    Of boxes in one another the inner one comes first.
    """
    open_braces: list[tuple[int, int]] = []  # where the box starts (-1: a plain brace), and inside
    for match in BOX_OR_BRACE.finditer(text):
        is_box = match[1] is not None
        if match[2]:
            yield match.start(), match[2]
        elif is_box or match[0] == "{":
            open_braces.append((match.start() if is_box else -1, match.end()))
        elif match[0] == "}" and open_braces:
            box_start, inside_start = open_braces.pop()
            inside = text[inside_start : match.start()].strip() if box_start >= 0 else ""
            if inside:
                yield box_start, inside


def extract_program(text: str) -> str | None:
    """Return the code of the last fence that defines something, or the whole text without fences.

    Fences may be indented, be `~~~`, and name any language; where one names Python, or none does,
    those of other languages do not count. None where no code defines a function, a class or a named
    lambda.
    """
    if "\r" in text or text[:1] == "\ufeff":
        text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    if ("`" in text and "```" in text) or ("~" in text and "~~~" in text):
        start = text.find("```")
        starts_line = start == 0 or text[start - 1] == "\n"
        fence = ONE_FENCE.match(text, start) if starts_line else None
        if fence and (fence[1] or not start):  # nearly all texts with a fence
            return _dedented(fence[2]).strip("\n") if DEFINITION.search(fence[2]) else None
        blocks = reversed(_fenced(text))
        code = next((block for block in blocks if DEFINITION.search(block)), None)
        return code and _dedented(code).strip("\n")
    code = text.strip("\n")
    if code.lstrip()[:1] == "[" or code.rstrip()[-1:] == "]":
        code = CODE_MARKS.sub("", code).strip("\n")
    return code if DEFINITION.search(code) else None


def _dedented(code: str) -> str:
    return textwrap.dedent(code) if code.lstrip("\n")[:1] in (" ", "\t") else code


def _fences(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield where each fence starts, with the line end before it, and ends; its sign and its word.

    A fence has a line of its own, or ends a line of other text or code.
    """
    line_end = -1
    for mark in FENCE_SIGN.finditer(text):
        if mark.start() < line_end:
            continue  # the first sign of a line decides whether it is a fence
        line_start = text.rfind("\n", 0, mark.start()) + 1
        line_end = text.find("\n", mark.end())
        line_end = len(text) if line_end < 0 else line_end
        fence = FENCE.fullmatch(text, line_start, line_end)
        if fence:
            yield max(line_start - 1, 0), line_end, fence[1], fence[2].strip()
        elif text.count("```", line_start, line_end) == 1:
            fence = LATE_FENCE.fullmatch(text, mark.start(), line_end)
            if fence:
                yield mark.start(), line_end, fence[1], fence[2]


def _fenced(text: str) -> list[str]:
    """Return the code of the fences, those in Python or in no language if there are any.

    A fence closes with a bare one of its own sign that is no shorter. What opens and never closes
    goes on to the end; a bare fence after code that none has opened closes that code.
    """
    blocks: list[tuple[str, str]] = []  # language, code
    opening, language, code_start = "", "", 0
    for start, end, sign, word in _fences(text):
        if opening:
            if word or sign[0] != opening[0] or len(sign) < len(opening):
                continue  # a line of the code
            blocks.append((language, text[code_start:start]))
            opening = ""
        elif not blocks and not word and DEFINITION.search(text, 0, start):
            blocks.append(("", text[:start]))
        else:
            opening, language = sign, word.lower().strip("{}. ").partition(" ")[0]
        code_start = end + 1
    if opening:
        blocks.append((language, text[code_start:]))
    return [code for name, code in blocks if name in PYTHON] or [code for _, code in blocks]


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
    text = text.replace("\r\n", "\n")
    fences = _fenced(text)
    if fences:
        return _dedented(fences[0])
    definition = DEFINITION.search(text)
    return text[definition.start() :].split("\n```")[0] if definition else ""


def _stated_answer(tail: str, kind: str) -> str:
    """Return the last answer that is stated outside a box: a formula, else a number."""
    pattern = STATED_ANSWER if kind == "expression" and STATED_ANSWER.search(tail) else ANY_NUMBER
    *_, last = [None, *pattern.finditer(tail)]
    if last is None:
        return ""
    before = tail[max(0, last.start() - LONGEST_BEFORE) : last.start()]
    if TURNED_ROUND.search(before):
        return ""
    return "".join(last.groups("")).rpartition("=")[2] if pattern is STATED_ANSWER else last[0]


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
