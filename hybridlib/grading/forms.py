r"""Is the gold a text, a date, a time or a choice? Then it is compared as such, not as mathematics.

`\text{dog}` is no product of three letters, 2024-01-10 no difference and 4:30 no quotient. The form
of the gold decides; where it has none of these, the reader of expressions takes over.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from hybridlib.grading import notation

Value = tuple  # what two answers of one form have to agree in

GROUP = re.compile(notation.TEXT_COMMAND + r"\{([^{}]*)\}")
NO_WORDS = re.compile(
    r"\\(?:(?:left|right|displaystyle|textstyle|q?quad)(?![a-zA-Z])|[,;:! ]|(?=\s|\Z))"
    r"|[$~{}\"`*]|\\\(|\\\)"
)
STYLED = re.compile(rf"(?:{notation.TEXT_COMMAND}|\\(?:mathbf|boldsymbol)\s*)" + r"\{([^{}]*)\}")
ARTICLES = {"a", "an", "the"}
LETTERS = re.compile(r"[^\W\d_]")
TEXT = re.compile(r"[^\W\d_]+(?:(?:[ '.]|-(?=[^\W\d_]))+[^\W\d_]+)*")
PERHAPS = re.compile(  # quick to see: words, letters in brackets, digits with a sign between
    r"(?<![\\a-zA-Z])[^\W\d_]{2}|\\(?:text|math|mbox|oper)|\(\s*[A-J]\s*\)|\d\s*[^\w\s+*^(){},=|]\s*\d"
    r"|\\!:|\d\s*[ap]\b"
)
DATE = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?:[T ]00:00(?::00)?)?")
RANGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(?:-|\bto\b|\bbis\b)\s*(\d{1,9}(?:\.\d{1,9})?)")
TIME = re.compile(
    r"(\d{1,2})(?:[:.](\d{2}))?(?::(\d{2}))?\s*(?:(a|p)\.?\s?m\.?|(o'clock|uhr|h))?", re.IGNORECASE
)
CHOICE = re.compile(
    r"(?:option|choice|answer)?\s*(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])\s*(.*)", re.I
)
ANOTHER_CHOICE = re.compile(r"(?<![\w])[A-J]\s*[.:)]|\([A-J]\)")
NO_WORDING = re.compile(r"(?<!\s)\w|[-+*/^=<>,&|]|(?:and|or|not)\b")  # right behind a letter
CHOICE_COMMAND = re.compile(notation.TEXT_COMMAND + r"\{\s*\(?\s*[A-J]\s*\)?\s*[.:]?\s*\}")
LETTER = re.compile(r"(?:option|choice|answer)?\s*([A-J])", re.IGNORECASE)
MATHEMATICAL = {word for word in notation.COMMANDS if word not in ("and", "or")}


def compare(gold: str, given: str) -> bool | None:
    """Say whether two answers agree as the gold's form asks; None where it has no such form."""
    form = form_of(gold) if PERHAPS.search(gold) else None
    return _agrees(*form, given) if form else None


@lru_cache(maxsize=65_536)
def form_of(gold: str) -> tuple[Callable[[str], Value | None], Value] | None:
    """Return the form of a gold and what it says, None where it is mathematics."""
    for read in (_choice, _date, _time, _range, _text):
        value = read(gold)
        if value is not None:
            return read, value
    return None


def _agrees(read: Callable[[str], Value | None], value: Value, given: str) -> bool:
    if read is _choice:
        letter = _letter(given)
        return letter is not None and letter == value[0]
    other = _words(given) if read is _text else read(given)
    if other is None:
        return False
    if read is _time:
        return _same_time(value, other)
    return value == other


@lru_cache(maxsize=65_536)
def as_text(answer: str) -> str:
    """Return the words of an answer without commands, frames and signs round them, lower-case."""
    text = notation.plain(answer).replace("\\\\", " ")
    text = STYLED.sub(r" \1 ", text).replace("\\!", "")
    return " ".join(NO_WORDS.sub(" ", text).split()).strip(" .,;:!?")


def _bare(answer: str) -> str:
    text = as_text(answer)
    return text[1:-1].strip() if re.fullmatch(r"\([^()]*\)", text) else text


def _choice(answer: str) -> Value | None:
    """Return the letter of an answer that is a letter in brackets or in text, with words or not."""
    text = as_text(answer)
    if CHOICE_COMMAND.fullmatch(answer.strip(" $.,")):
        match = LETTER.fullmatch(text.strip("() .:"))
        return (match[1].upper(),) if match and match[1].isupper() else None
    match = re.fullmatch(r"\(\s*([A-J])\s*\)(?:\s+(\S.*))?", text)
    return (
        (match[1],)
        if match and not re.search(r"[-+*/^=,<>(]|\band\b|\bor\b", match[2] or "")
        else None
    )


def _letter(answer: str) -> str | None:
    """Return the letter that an answer chooses: `B`, `(B) 5`, `B. five`, `option B`."""
    text = as_text(answer)
    match = LETTER.fullmatch(text) or CHOICE.fullmatch(text)
    if match is None:
        return None
    place = next(place for place, group in enumerate(match.groups(), 1) if group)
    if match.re is CHOICE:
        if ANOTHER_CHOICE.search(match[3]) or NO_WORDING.match(text, match.start(3)):
            return None
    return match[place].upper()


def _date(answer: str) -> Value | None:
    """Return the parts of a date, in the order of their sizes where the year is first."""
    match = DATE.fullmatch(as_text(answer))
    if not match:
        return None
    parts = [int(match[group]) for group in (1, 3, 4)]
    if len(match[1]) == 4 and parts[1] <= 12 and parts[2] <= 31:
        return ("year first", *parts)
    if len(match[4]) not in (2, 4) or max(parts[:2]) > 31 or match[2] == "." and len(match[4]) < 4:
        return None
    return (match[2], *parts)


def _time(answer: str) -> Value | None:
    """Return hours, minutes, seconds and a or p of a time of day, None for other answers."""
    match = TIME.fullmatch(as_text(answer))
    if not match or not (match[2] or match[4]):
        return None
    if "." in match[0].split("m")[0][:3] and not match[4]:
        return None  # a decimal
    hours, minutes = int(match[1]), int(match[2] or 0)
    if hours > 24 or minutes > 59:
        return None
    return hours, minutes, int(match[3] or 0), (match[4] or "").lower()


def _same_time(one: Value, other: Value) -> bool:
    """Say whether two times agree; a.m. or p.m. may be left out, or be told by the hours."""
    if one[1:3] != other[1:3]:
        return False
    halves = {_half(one), _half(other)} - {""}
    if len(halves) > 1:
        return False
    if not halves:
        return one[0] == other[0]
    return one[0] % 12 == other[0] % 12


def _half(time: Value) -> str:
    hours, _, _, half = time
    return half or ("p" if 12 < hours < 24 else "")


def _range(answer: str) -> Value | None:
    """Return the ends of a range such as 3-5, which is no difference."""
    match = RANGE.fullmatch(as_text(answer))
    if not match:
        return None
    return tuple(float(match[group]) for group in (1, 2))


def _text(answer: str) -> Value | None:
    """Return the words of an answer that is nothing but words; None for letters and formulas."""
    text = _bare(answer)
    if not TEXT.fullmatch(text):
        return None
    words = _words(answer) or ()
    if any(word in MATHEMATICAL for word in words) and not _in_text_commands(answer):
        return None
    if notation.CONNECTIVES_OF_LISTS & set(words):
        return None
    if max(map(len, words)) < 2 or not (_in_text_commands(answer) or _is_word(text)):
        return None
    return words


def _words(answer: str) -> Value | None:
    """Return the words of an answer that is nothing but words, or letters that may be a product."""
    text = _bare(answer)
    if not TEXT.fullmatch(text):
        return None
    words = tuple(word for word in re.split(r"[ .-]+", text.lower()) if word)
    return words[1:] if len(words) > 1 and words[0] in ARTICLES else words


def _in_text_commands(answer: str) -> bool:
    """Say whether all letters of an answer stand in text commands."""
    return bool(GROUP.search(answer)) and not LETTERS.search(GROUP.sub("", answer))


def _is_word(text: str) -> bool:
    """Say whether bare letters are words: one of four letters, or one that has a vowel in it.

    `xyz` may be a product; `ten` would be an odd one, and so would `iii`.
    """
    words = text.split()
    return any(len(word) > 3 for word in words) or (
        len(words) == 1 and len(text) > 1 and bool(re.search(r"[aeiou]", text)) and text.islower()
    )
