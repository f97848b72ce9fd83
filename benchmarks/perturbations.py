r"""Wrong answers that look right: one decorated function per way to spoil a gold answer.

Each takes the LaTeX of an answer and gives another that is not equal to it, or None where it does
not apply or would not be sure to change the value, as 0 with another sign.
"""

import re

from hybridlib.registry import Registry

WAYS = Registry("perturbation")
WHOLE = r"(?<![\d.,])\d+(?![\d.,]|\{,)"
FRACTION = re.compile(r"\\[dtc]?frac\{(\d+)\}\{(\d+)\}")
NAMES = re.compile(r"\\(?:[a-zA-Z]+|.)|[a-zA-Z]{2,}")  # commands and words, which are no variables


@WAYS.register
def sign(gold: str) -> str | None:
    """-5 for 5."""
    if re.match(r"-[\d\\]", gold):
        return gold[1:]
    if re.match(r"0\b(?!\.)|\\text|\\mbox|\\begin|\\pm", gold) or not re.match(r"[\d\\]", gold):
        return None
    return None if re.search(r"[=<>]|\\[lg]e|\\in(?![a-z])|\\approx", gold) else f"-{gold}"


@WAYS.register
def first_number(gold: str) -> str | None:
    """The first number raised by one."""
    found = re.search(r"\d+", gold)
    if not found or re.match(r"\d*\s*(?:,\\!|\{,\})", gold[found.start() :]):
        return None
    return gold[: found.start()] + str(int(found[0]) + 1) + gold[found.end() :]


@WAYS.register
def last_digit(gold: str) -> str | None:
    """Off by one in the last digit: 15555 for 15554."""
    found = re.search(r"(\d)(?=\D*\Z)", gold)
    if not found or re.search(r"(?<![\d.])[01]\s*\^|\\text|\\mbox", gold):
        return None
    return gold[: found.start()] + str((int(found[1]) + 1) % 10) + gold[found.end() :]


@WAYS.register
def first_digit(gold: str) -> str | None:
    """Off by one in the first digit."""
    found = re.search(r"[1-8]", gold)
    return found and gold[: found.start()] + str(int(found[0]) + 1) + gold[found.end() :]


@WAYS.register
def tenfold(gold: str) -> str | None:
    """50 for 5."""
    return f"{gold}0" if re.fullmatch(r"-?[1-9]\d*", gold) else None


@WAYS.register
def neighbouring_fraction(gold: str) -> str | None:
    """6/7 for 5/6."""
    found = FRACTION.search(gold)
    if not found or found[1] == found[2]:
        return None
    near = f"\\frac{{{int(found[1]) + 1}}}{{{int(found[2]) + 1}}}"
    return gold[: found.start()] + near + gold[found.end() :]


@WAYS.register
def upside_down(gold: str) -> str | None:
    """6/5 for 5/6."""
    found = FRACTION.search(gold)
    if not found or int(found[1]) in (0, int(found[2])):
        return None
    return gold[: found.start()] + f"\\frac{{{found[2]}}}{{{found[1]}}}" + gold[found.end() :]


@WAYS.register
def swapped(gold: str) -> str | None:
    """(2,1) for (1,2)."""
    plain = re.sub(r"\\(?:left|right)(?![a-z])|,?\\!", "", gold)
    found = re.fullmatch(r"\(([^(),]+),([^(),]+)((?:,[^(),]+)?)\)", plain)
    if not found or found[1].strip() == found[2].strip():
        return None
    return f"({found[2]},{found[1]}{found[3]})"


@WAYS.register
def bracket(gold: str) -> str | None:
    """[1,2) for (1,2), at an end that is finite."""
    opening, closing = re.match(r"(?:\\left\s*)?([(\[])(?!\s*-\s*\\inf)", gold), gold[-1:]
    if "," not in gold:
        return None
    if opening:
        other = {"(": "[", "[": "("}[opening[1]]
        return gold[: opening.start(1)] + other + gold[opening.end(1) :]
    if closing in ")]" and "\\infty" not in gold.rpartition(",")[2]:
        return gold[:-1] + {")": "]", "]": ")"}[closing]
    return None


@WAYS.register
def operator(gold: str) -> str | None:
    """5x-3 for 5x+3."""
    found = re.search(r"(?<=[\w})])\s*([-+])\s*(?=[1-9a-zA-Z\\(])", gold)
    if not found or re.match(r"\\(?:begin|text|inf)", gold[found.end() :]):
        return None
    other = {"+": "-", "-": "+"}[found[1]]
    return gold[: found.start(1)] + other + gold[found.end(1) :]


@WAYS.register
def variable(gold: str) -> str | None:
    """5w-3 for 5x-3."""
    letters = set(re.findall(r"[a-df-hj-zA-Z]", NAMES.sub("", re.sub(r"\\text\{.*?\}", "", gold))))
    if not letters or "\\text" in gold or "\\begin" in gold or "_" in gold:
        return None
    old, new = min(letters), next(letter for letter in "wvkqz" if letter not in gold)
    changed = re.sub(rf"\\[a-zA-Z]+|{old}", lambda m: new if m[0] == old else m[0], gold)
    return changed


@WAYS.register
def no_root(gold: str) -> str | None:
    """8 for the root of 8."""
    found = re.search(r"\\sqrt\{(\d+)\}", gold)
    if not found or int(found[1]) < 2:
        return None
    return f"{gold[: found.start()]}({found[1]}){gold[found.end() :]}"


@WAYS.register
def rounded(gold: str) -> str | None:
    """2.828427125 for the root of 8."""
    found = re.fullmatch(r"(\d*)\\sqrt\{?(\d+)\}?", gold)
    if not found or float(found[2]) ** 0.5 % 1 == 0:
        return None
    return f"{int(found[1] or 1) * int(found[2]) ** 0.5:.9f}"


@WAYS.register
def decimal(gold: str) -> str | None:
    """0.83333333 for 5/6."""
    found = FRACTION.fullmatch(gold)
    if not found or 10**8 * int(found[1]) % int(found[2]) == 0:
        return None
    return f"{int(found[1]) / int(found[2]):.8f}"


@WAYS.register
def no_pi(gold: str) -> str | None:
    """Two for two pi."""
    found = re.search(r"(?<=[\d}])\s*\\pi(?![a-z])", gold)
    return gold[: found.start()] + gold[found.end() :] if found else None


@WAYS.register
def no_i(gold: str) -> str | None:
    """3 for 3i."""
    found = re.search(r"(?<=[\d}])\s*i(?![a-z{])", gold)
    return gold[: found.start()] + gold[found.end() :] if found else None


@WAYS.register
def power(gold: str) -> str | None:
    """Another exponent."""
    found = re.search(r"(?<=[a-zA-Z)])\^(?:(\d)|\{(\d)\})", gold)
    if not found or "\\text" in gold or "mbox" in gold:
        return None
    return gold[: found.start()] + f"^{{{int(found[1] or found[2]) + 1}}}" + gold[found.end() :]


@WAYS.register
def unit_power(gold: str) -> str | None:
    """5 cm for 5 square cm."""
    found = re.search(r"(\\(?:text|mbox)\s*\{[^{}]*\})\^\{?\d\}?\Z", gold)
    if found:
        return gold[: found.end(1)]
    short = re.sub(r"(?<=\{)\s*(?:square|sq\.?|cubic)\s", " ", gold)
    return short if short != gold else None


@WAYS.register
def other_unit(gold: str) -> str | None:
    """Furlongs for feet."""
    found = re.search(
        r"(?<=[\d})])\s*\\(?:text|mbox)\s*\{[^{}()]*[a-z]{2}[^{}()]*\}(?:\^\S+)?\.?\Z", gold
    )
    return gold[: found.start()] + "\\text{ furlongs}" if found else None


@WAYS.register
def percentage(gold: str) -> str | None:
    """0.12 % for 12 %."""
    found = re.fullmatch(r"([1-9]\d*)\s*\\%", gold)
    return f"{int(found[1]) / 100}\\%" if found else None


@WAYS.register
def hundredth(gold: str) -> str | None:
    """0.12 for 12, which was asked in per cent or not."""
    return f"{int(gold) / 100}" if re.fullmatch(r"[1-9]\d{0,9}", gold) else None


@WAYS.register
def other_base(gold: str) -> str | None:
    """52 in base 9 for 52 in base 8."""
    found = re.search(r"\d_\{?(\d+)\}?\Z", gold)
    return gold[: found.start(1) - (gold[found.start(1) - 1] == "{")] + (
        f"{{{int(found[1]) + 1}}}") if found else None  # fmt: skip


@WAYS.register
def no_base(gold: str) -> str | None:
    """52 for 52 in base 8."""
    found = re.fullmatch(r"(\d+)_\{?\d+\}?", gold)
    return found and found[1]


@WAYS.register
def one_less(gold: str) -> str | None:
    """3, 5 for 3, 5, 7."""
    if re.search(r"[()\[\]{}]|,\\!|\d,\d{3}(?!\d)", gold) or "," not in gold:
        return None
    return gold.replace("\\,", "").rpartition(",")[0]


@WAYS.register
def one_more(gold: str) -> str | None:
    """5, 7777 for 5."""
    return f"{gold}, 7777" if re.search(r"\d\Z", gold) else None


@WAYS.register
def strictness(gold: str) -> str | None:
    """x < 5 for x <= 5."""
    loose = re.sub(r"\\(?:le|ge)q?(?![a-z])", lambda m: "<" if "l" in m[0] else ">", gold, count=1)
    return loose if loose != gold else None


@WAYS.register
def other_word(gold: str) -> str | None:
    """odd for even."""
    found = re.fullmatch(r"\\(?:text|mbox)\{\(?([a-zA-Z]+)\)?\}", gold)
    if not found or len(found[1]) == 1:
        return "\\text{" + chr(ord(found[1]) + 1) + "}" if found else None
    return f"\\text{{{found[1]}ish}}"


@WAYS.register
def union(gold: str) -> str | None:
    """One interval of two."""
    return gold.rpartition("\\cup")[0] or None


@WAYS.register
def entries(gold: str) -> str | None:
    """A matrix with its first two entries swapped."""
    found = re.search(r"(\\begin\{.matrix\})\s*([^&\\]+)(&|\\\\)\s*([^&\\]+?)\s*(?=&|\\)", gold)
    if not found or found[2].strip() == found[4].strip():
        return None
    return f"{gold[: found.end(1)]}{found[4]}{found[3]}{found[2]}{gold[found.end() :]}"


def spoilt(gold: str) -> dict[str, str]:
    """Every perturbation that applies to this answer, by name."""
    made = {name: WAYS[name](gold) for name in WAYS}
    return {name: text for name, text in made.items() if text and text != gold}
