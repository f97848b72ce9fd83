r"""In which form does a question ask for its answer? Its own words say so; the grader heeds them.

"to the nearest tenth" makes 3.3 an answer where the gold is 10/3, "simplify" makes \sqrt{245} none
where it is 7\sqrt{5}. What is asked for travels with a row as words: `places:1`, `digits:3`,
`percent`, `simplified`, `fraction`, `decimal`, `mixed`, `degrees`, `radians`; `unknowns` says that
the question itself has an equation like x + y = 7, which is no answer then. "In terms of" needs no
word, since an expression in other letters is not equal.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

MAYBE = re.compile(
    r"=|nearest|decimal|significant|simpl|rationali|lowest|reduced|fraction|mixed|degree|radian",
    re.IGNORECASE,
)
UNKNOWNS = re.compile(r"(?:[a-zA-Z}]\s*[-+]\s*[a-zA-Z\\]|\||\\[lr]?[vV]ert)[^$=<>\n]{0,60}=")
NUMERALS = dict(zip("one two three four five six seven eight".split(), range(1, 9), strict=True))
NUMERAL = rf"(\d|{'|'.join(NUMERALS)})"
NEAREST = {
    "thousandth": 3, "hundredth": 2, "tenth": 1, "cent": 2, "penny": 2, "whole number": 0,
    "integer": 0, "unit": 0, "percent": 0, "dollar": 0, "degree": 0, "inch": 0, "foot": 0,
    "mile": 0, "meter": 0, "centimeter": 0, "minute": 0, "hour": 0, "second": 0, "year": 0,
    "ten": -1, "hundred": -2, "thousand": -3,
}  # fmt: skip
TO_NEAREST = re.compile(rf"\bnearest ({'|'.join(NEAREST)})s?\b( of a percent)?", re.IGNORECASE)
PLACES = re.compile(rf"\b{NUMERAL} decimal places?\b", re.IGNORECASE)
DIGITS = re.compile(rf"\b{NUMERAL} significant (?:figure|digit)s?\b", re.IGNORECASE)
NOT_ROUNDED = re.compile(  # not at all, or something else than the answer
    r"(?:\b(?:not|never|without|is|are|was|were|be|each|when|if|after|by)|n't) round", re.IGNORECASE
)
FORMS = {
    "simplified": r"\bsimplif(?:y|ied)\b|\brationali[sz]e\b|\bsimplest\b|\blowest terms\b"
    r"|\b(?:reduced|common) fraction\b",
    "fraction": r"\bas an? (?:\w+ )?fraction\b",
    "decimal": r"\bas an? (?:\w+ )?decimal\b",
    "mixed": r"\bas an? (?:\w+ )?mixed (?:number|fraction)\b",
    "degrees": r"\bin degrees\b|\bhow many degrees\b|\bdegree measure\b",
    "radians": r"\bin radians\b|\bhow many radians\b|\bradian measure\b",
}
PATTERNS = {word: re.compile(pattern, re.IGNORECASE) for word, pattern in FORMS.items()}
ALTERNATIVES = (
    {"fraction", "decimal", "mixed"},
    {"degrees", "radians"},
)  # two of these: any will do

HAS_FRACTION = re.compile(r"frac|\d\s*[/⁄]|[½¼¾⅓⅔]|\\over(?![a-z])")
HAS_MIXED = re.compile(r"\d\s*\\[dtc]?frac|\d\s+\d+\s*/|\d\s*[½¼¾⅓⅔]")
HAS_DECIMAL = re.compile(r"\.\s*\\?\w|\d[.,]\d")
IN_RADIANS = re.compile(r"\\pi(?![a-z])|π|\brad", re.IGNORECASE)
IN_DEGREES = re.compile(r"\\circ(?![a-z])|°|\bdeg", re.IGNORECASE)


def form_asked(question: str) -> str:
    """Return the words for the form that a question asks for, "" where it asks for none.

    >>> form_asked("What is its length, to the nearest tenth of a meter?")
    'places:1'
    """
    if not MAYBE.search(question):
        return ""
    words = ["unknowns"] if UNKNOWNS.search(question) else []
    words += [word for word, pattern in PATTERNS.items() if pattern.search(question)]
    for alternatives in ALTERNATIVES:
        if len(alternatives.intersection(words)) > 1:
            words = [word for word in words if word not in alternatives]
    roundings = set() if NOT_ROUNDED.search(question) else set(_roundings(question))
    if len(roundings) == 1:  # of two nobody knows which is meant for the answer
        words += roundings.pop().split()
    return " ".join(words)


def _roundings(question: str) -> Iterator[str]:
    for unit, of_a_percent in TO_NEAREST.findall(question):
        in_percent = of_a_percent or unit.lower() == "percent"
        yield f"places:{NEAREST[unit.lower()]}" + (" percent" if in_percent else "")
    for pattern, word in ((PLACES, "places"), (DIGITS, "digits")):
        for numeral in pattern.findall(question):
            yield f"{word}:{NUMERALS.get(numeral.lower()) or int(numeral)}"


def is_rounded(exact: Fraction, given: Fraction, asked: str) -> bool:
    """Say whether a number is an exact one, rounded as asked; halves go away from zero."""
    for word in asked.split():
        name, _, count = word.partition(":")
        if name == "places":
            step = Fraction(10) ** -int(count)
        elif name == "digits" and exact:
            step = Fraction(10) ** (_magnitude(exact) + 1 - int(count))
        else:
            continue
        rounded = step * int(abs(exact) / step + Fraction(1, 2))
        return given == (rounded if exact > 0 else -rounded)
    return False


def _magnitude(number: Fraction) -> int:
    """Return n of 10^n <= |number| < 10^(n + 1)."""
    size = len(str(abs(number.numerator))) - len(str(number.denominator))
    return size if abs(number) >= Fraction(10) ** size else size - 1


def is_in_form(gold: str, given: str, asked: str) -> bool:
    """Say whether an answer that equals the gold is written as asked, as far as the gold is."""
    words = asked.split()
    if "mixed" in words and HAS_MIXED.search(gold):
        return bool(HAS_MIXED.search(given))
    if "fraction" in words and HAS_FRACTION.search(gold):
        return bool(HAS_FRACTION.search(given)) and (
            bool(HAS_MIXED.search(gold)) or not HAS_MIXED.search(given)
        )
    if "decimal" in words and HAS_DECIMAL.search(gold):
        return not HAS_FRACTION.search(given)
    if "degrees" in words and not IN_RADIANS.search(gold):
        return not IN_RADIANS.search(given)
    if "radians" in words and not IN_DEGREES.search(gold):
        return not IN_DEGREES.search(given)
    return True
