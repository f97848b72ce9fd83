r"""Wrong answers that look right: one decorated function per way to spoil a gold answer.

Each takes the LaTeX of an answer and gives another that is not equal to it, or None where it does
not apply or would not be sure to change the value, as 0 with another sign.
"""

import re

from hybridlib.registry import Registry

WAYS = Registry("perturbation")
FRACTION = re.compile(r"\\[dtc]?frac\{(\d+)\}\{(\d+)\}")
COMMAND_OR_WORD = re.compile(r"\\(?:[a-zA-Z]+|.)|[a-zA-Z]{2,}")  # these hold no variables


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
    match = re.search(r"\d+", gold)
    if not match or re.match(r"\d*\s*(?:,\\!|\{,\})", gold[match.start() :]):
        return None
    return gold[: match.start()] + str(int(match[0]) + 1) + gold[match.end() :]


@WAYS.register
def last_digit(gold: str) -> str | None:
    """Off by one in the last digit: 15555 for 15554."""
    match = re.search(r"(\d)(?=\D*\Z)", gold)
    if not match or re.search(r"(?<![\d.])[01]\s*\^|\\text|\\mbox", gold):
        return None
    return gold[: match.start()] + str((int(match[1]) + 1) % 10) + gold[match.end() :]


@WAYS.register
def first_digit(gold: str) -> str | None:
    """Off by one in the first digit."""
    match = re.search(r"[1-8]", gold)
    if not match:
        return None
    return gold[: match.start()] + str(int(match[0]) + 1) + gold[match.end() :]


@WAYS.register
def tenfold(gold: str) -> str | None:
    """50 for 5."""
    return f"{gold}0" if re.fullmatch(r"-?[1-9]\d*", gold) else None


@WAYS.register
def neighbouring_fraction(gold: str) -> str | None:
    """6/7 for 5/6."""
    match = FRACTION.search(gold)
    if not match or match[1] == match[2]:
        return None
    near = f"\\frac{{{int(match[1]) + 1}}}{{{int(match[2]) + 1}}}"
    return gold[: match.start()] + near + gold[match.end() :]


@WAYS.register
def upside_down(gold: str) -> str | None:
    """6/5 for 5/6."""
    match = FRACTION.search(gold)
    if not match or int(match[1]) in (0, int(match[2])):
        return None
    return gold[: match.start()] + f"\\frac{{{match[2]}}}{{{match[1]}}}" + gold[match.end() :]


@WAYS.register
def swapped(gold: str) -> str | None:
    """(2,1) for (1,2)."""
    plain = re.sub(r"\\(?:left|right)(?![a-z])|,?\\!", "", gold)
    match = re.fullmatch(r"\(([^(),]+),([^(),]+)((?:,[^(),]+)?)\)", plain)
    if not match or match[1].strip() == match[2].strip():
        return None
    return f"({match[2]},{match[1]}{match[3]})"


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


@WAYS.register(name="operator")
def other_operator(gold: str) -> str | None:
    """5x-3 for 5x+3."""
    match = re.search(r"(?<=[\w})])\s*([-+])\s*(?=[1-9a-zA-Z\\(])", gold)
    if not match or re.match(r"\\(?:begin|text|inf)", gold[match.end() :]):
        return None
    other = {"+": "-", "-": "+"}[match[1]]
    return gold[: match.start(1)] + other + gold[match.end(1) :]


@WAYS.register
def variable(gold: str) -> str | None:
    """5w-3 for 5x-3."""
    formula = COMMAND_OR_WORD.sub("", re.sub(r"\\text\{.*?\}", "", gold))
    letters = set(re.findall(r"[a-df-hj-zA-Z]", formula))
    if not letters or "\\text" in gold or "\\begin" in gold or "_" in gold:
        return None
    old, new = min(letters), next(letter for letter in "wvkqz" if letter not in gold)
    return re.sub(rf"\\[a-zA-Z]+|{old}", lambda m: new if m[0] == old else m[0], gold)


@WAYS.register
def no_root(gold: str) -> str | None:
    """8 for the root of 8."""
    match = re.search(r"\\sqrt\{(\d+)\}", gold)
    if not match or int(match[1]) < 2:
        return None
    return f"{gold[: match.start()]}({match[1]}){gold[match.end() :]}"


@WAYS.register
def rounded(gold: str) -> str | None:
    """2.828427125 for the root of 8."""
    match = re.fullmatch(r"(\d*)\\sqrt\{?(\d+)\}?", gold)
    if not match or float(match[2]) ** 0.5 % 1 == 0:
        return None
    return f"{int(match[1] or 1) * int(match[2]) ** 0.5:.9f}"


@WAYS.register(name="decimal")
def as_decimal(gold: str) -> str | None:
    """0.83333333 for 5/6."""
    match = FRACTION.fullmatch(gold)
    if not match or 10**8 * int(match[1]) % int(match[2]) == 0:
        return None
    return f"{int(match[1]) / int(match[2]):.8f}"


@WAYS.register
def no_pi(gold: str) -> str | None:
    """Two for two pi."""
    match = re.search(r"(?<=[\d}])\s*\\pi(?![a-z])", gold)
    return gold[: match.start()] + gold[match.end() :] if match else None


@WAYS.register
def no_i(gold: str) -> str | None:
    """3 for 3i."""
    match = re.search(r"(?<=[\d}])\s*i(?![a-z{])", gold)
    return gold[: match.start()] + gold[match.end() :] if match else None


@WAYS.register
def power(gold: str) -> str | None:
    """Another exponent."""
    match = re.search(r"(?<=[a-zA-Z)])\^(?:(\d)|\{(\d)\})", gold)
    if not match or "\\text" in gold or "mbox" in gold:
        return None
    return gold[: match.start()] + f"^{{{int(match[1] or match[2]) + 1}}}" + gold[match.end() :]


@WAYS.register
def unit_power(gold: str) -> str | None:
    """5 cm for 5 square cm."""
    match = re.search(r"(\\(?:text|mbox)\s*\{[^{}]*\})\^\{?\d\}?\Z", gold)
    if match:
        return gold[: match.end(1)]
    short = re.sub(r"(?<=\{)\s*(?:square|sq\.?|cubic)\s", " ", gold)
    return short if short != gold else None


@WAYS.register
def other_unit(gold: str) -> str | None:
    """Furlongs for feet."""
    match = re.search(
        r"(?<=[\d})])\s*\\(?:text|mbox)\s*\{[^{}()]*[a-z]{2}[^{}()]*\}(?:\^\S+)?\.?\Z", gold
    )
    return gold[: match.start()] + "\\text{ furlongs}" if match else None


@WAYS.register
def percentage(gold: str) -> str | None:
    """0.12 % for 12 %."""
    match = re.fullmatch(r"([1-9]\d*)\s*\\%", gold)
    return f"{int(match[1]) / 100}\\%" if match else None


@WAYS.register
def hundredth(gold: str) -> str | None:
    """0.12 for 12, which was asked in per cent or not."""
    return f"{int(gold) / 100}" if re.fullmatch(r"[1-9]\d{0,9}", gold) else None


@WAYS.register
def other_base(gold: str) -> str | None:
    """52 in base 9 for 52 in base 8."""
    match = re.search(r"\d_\{?(\d+)\}?\Z", gold)
    if not match:
        return None
    number = gold[: match.start(1)].removesuffix("{")
    return f"{number}{{{int(match[1]) + 1}}}"


@WAYS.register
def no_base(gold: str) -> str | None:
    """52 for 52 in base 8."""
    match = re.fullmatch(r"(\d+)_\{?\d+\}?", gold)
    return match[1] if match else None


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
    match = re.fullmatch(r"\\(?:text|mbox)\{\(?([a-zA-Z]+)\)?\}", gold)
    if not match:
        return None
    word = match[1]
    other = chr(ord(word) + 1) if len(word) == 1 else f"{word}ish"
    return f"\\text{{{other}}}"


@WAYS.register
def union(gold: str) -> str | None:
    """One interval of two."""
    return gold.rpartition("\\cup")[0] or None


@WAYS.register
def entries(gold: str) -> str | None:
    """A matrix with its first two entries swapped."""
    match = re.search(r"(\\begin\{.matrix\})\s*([^&\\]+)(&|\\\\)\s*([^&\\]+?)\s*(?=&|\\)", gold)
    if not match or match[2].strip() == match[4].strip():
        return None
    return f"{gold[: match.end(1)]}{match[4]}{match[3]}{match[2]}{gold[match.end() :]}"


@WAYS.register
def unevaluated(gold: str) -> str | None:
    """9-5 for 4, 11/6-1 for 5/6."""
    if re.fullmatch(r"[1-9]\d{0,8}", gold):
        return f"{int(gold) + 5}-5"
    match = FRACTION.fullmatch(gold)
    return f"\\frac{{{int(match[1]) + int(match[2])}}}{{{match[2]}}}-1" if match else None


@WAYS.register
def unsolved(gold: str) -> str | None:
    """2x-1=7 for 4."""
    return f"2x-1={2 * int(gold) - 1}" if re.fullmatch(r"-?[1-9]\d{0,8}", gold) else None


@WAYS.register
def uncollected(gold: str) -> str | None:
    """5x+2+1 for 5x+3."""
    match = re.fullmatch(r"(.*[a-z](?:\^\{?\d\}?)?\s*\+\s*)([2-9]|[1-9]\d+)", gold)
    if not match or re.search(r"[=<>,\\(\[]", match[1]):
        return None
    return f"{match[1]}{int(match[2]) - 1}+1"


EQUAL_IN_VALUE = ("unevaluated", "unsolved", "uncollected")
"""Ways whose results are wrong only by the rule that an answer is worked out."""


def spoilt(gold: str) -> dict[str, str]:
    """Return what every perturbation that applies makes of an answer, by its name."""
    texts = {name: perturb(gold) for name, perturb in WAYS.items()}
    return {name: text for name, text in texts.items() if text and text != gold}
