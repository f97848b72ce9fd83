"""Are two expressions equal? The layers that decide it, the cheap ones first.

Equal strings, then `equality` on what the grammar reads, then equal tokens. What is left over goes
to math-verify (`symbolic`), unless it could hang sympy.
"""

import re
from functools import lru_cache

from hybridlib.grading import (
    equality,
    evaluated,
    forms,
    frames,
    latex,
    notation,
    question,
    structure,
)

LONGEST = 300  # characters of an expression that is read at all

SETS = re.compile(r"\\(?:setminus|cap|mid|backslash)(?![a-zA-Z])")  # sympy knows them, we do not
TO_CARRY_OUT = re.compile(  # operations that an answer may not leave to be done
    r"\\(?:[pb]?mod|gcd|lcm|max|min|det|operatorname|int|lim|sum|prod)(?![a-zA-Z])"
    r"|\\begin\s*\{(?:vmatrix|cases)"
)
NESTED = re.compile(r"(?:[({\[][^({\[)}\]]*){13}|(?:\\sqrt\s*){6}")  # open brackets in a row
ENDLESS = re.compile(  # sympy may never come back: factorials, sums, large or stacked powers
    r"!(?!=)|\\(?:sum|prod|int|lim)(?![a-zA-Z])|\^\s*\{?-?\d{4}|[)}]\s*\^\s*\{?\d{3}"
    r"|\^\s*(?:\w|\{[^{}]*\})\s*\^|\^\s*\{[^{}]*\^|\*\*|\\d?binom.*\d{4}|\d{60}"
)


@lru_cache(maxsize=65_536)  # samples of one prompt repeat their answers
def compare_expressions(gold: str, given: str, asked: str = "") -> str | tuple[str, str]:
    """Return the reason of the verdict, or the pair (gold, given) that only sympy can decide.

    `asked` holds what the question asks for, in the words of `question.form_asked`.
    Reasons are `pass`, `wrong`, `refused` and `error`. Never raises.
    """
    reason = _compare_as_asked(gold, given, asked)
    if reason == "wrong":
        answer = frames.answer_in_sentence(given)
        if answer:
            return _compare_as_asked(gold, answer, asked)
    return reason


def _compare_as_asked(gold: str, given: str, asked: str) -> str | tuple[str, str]:
    reason = _compare(gold, given)
    if not asked or gold == given:
        return reason
    if reason == "pass":
        return "pass" if _is_as_asked(gold, given, asked) else "wrong"
    if reason == "wrong" and _is_rounded(gold, given, asked):
        return "pass"
    return reason


def _is_as_asked(gold: str, given: str, asked: str) -> bool:
    """Say whether an answer that equals the gold has the form that was asked for."""
    if not question.is_in_form(gold, given, asked):
        return False
    words = asked.split()
    if not {"simplified", "unknowns"} & set(words) or forms.form_of(gold):
        return True
    answers = equality.parse_answer(gold), equality.parse_answer(given)
    if not all(answers):
        return True
    gold_form, given_form = (answer.readings[0] for answer in answers)
    if "unknowns" in words and structure.combines(given_form) and not structure.combines(gold_form):
        return False
    return "simplified" not in words or evaluated.is_simplified(given_form, gold_form)


def _is_rounded(gold: str, given: str, asked: str) -> bool:
    """Say whether an answer is the number that the gold is, rounded as asked."""
    if "places" not in asked and "digits" not in asked:
        return False
    try:
        answers = [equality.parse_answer(text) for text in (gold, given)]
        return all(answers) and equality.equal_rounded(*answers, asked)
    except (latex.TooLarge, latex.Unreadable, *equality.UNDEFINED):
        return False


def _compare(gold: str, given: str) -> str | tuple[str, str]:
    if gold == given:
        return "pass"
    gold_answer = None
    if len(gold) > LONGEST:
        return "wrong"
    try:
        by_form = forms.compare(gold, given)
        if by_form is not None:
            return "pass" if by_form else "wrong"
        gold_answer = equality.parse_answer(gold)
        given_answer = equality.parse_answer(given) if gold_answer else None
        if gold_answer and given_answer:
            if equality.equal(gold_answer, given_answer):
                return "pass"
            number = gold_answer.unit and notation.without_letter_of_unit(given, gold_answer.unit)
            return _compare(gold, number) if number else "wrong"
    except latex.TooLarge:
        return "refused"
    except latex.Unreadable:
        gold_answer = None
    except Exception:  # a fault of ours must not end a training run; evaluation counts it
        return "error"
    if notation.normalise(gold) == notation.normalise(given):
        return "pass"
    if not gold_answer:
        return "refused"  # math-verify would compare a part of the gold that it can read
    if not SETS.search(given) or TO_CARRY_OUT.search(given):
        return "wrong"  # malformed, or not worked out
    if _could_hang(gold) or _could_hang(given):
        return "refused"
    return gold, given


def is_readable(gold: str) -> bool:
    """Say whether a gold can be compared with other answers than itself."""
    gold = " ".join(gold.split())
    if len(gold) > LONGEST:
        return False
    try:
        return bool(forms.form_of(gold) or equality.parse_answer(gold))
    except latex.TooLarge:
        return False


@lru_cache(maxsize=65_536)
def is_list(gold: str) -> bool:
    """Say whether a gold has several answers, which may stand in a box each."""
    try:
        answer = equality.parse_answer(gold) if len(gold) <= LONGEST else None
    except latex.TooLarge:
        return False
    return answer is not None and any(reading[0] == "list" for reading in answer.readings)


def _could_hang(expression: str) -> bool:
    return bool(NESTED.search(expression) or ENDLESS.search(expression))
