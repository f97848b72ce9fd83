r"""How is an answer written? One notation out of many: spacing, units, words, letters.

Everything is a substitution or a scan that is linear in the text; `latex` gives it structure.
"""

import re

FUNCTIONS = set("sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan ln log exp".split())
COMMANDS = {name: f"\\{name}" for name in [*FUNCTIONS, "sqrt", "pi"]}  # by the bare word
COMMANDS |= {"and": ",", "or": ",", "infinity": "\\infty", "inf": "\\infty"}
WHOLE_WORDS = set("yes no not odd one two six ten all red may".split())  # not letters side by side
CONNECTIVES = {"and", "or", "is", "if", "for", "when", "where", "mod", "base", "to", "with"}

UNIT_SPELLINGS = """
cm centimeter centimetre
mm millimeter millimetre
km kilometer kilometre
m meter metre
ft foot feet
inch inches in
yd yard
mi mile
kg kilogram
g gram gm
mg milligram
lb pound
oz ounce
hour hr h
minute min
second sec s
mph
km/h kmh kph
am
pm
dollar usd
cent
degree deg
unit
ml milliliter
l liter litre
day
week
month
year
percent
"""
UNITS = {  # spelling -> unit
    spelling: line.split()[0]
    for line in UNIT_SPELLINGS.strip().splitlines()
    for spelling in line.split()
}
POWER_PREFIXES = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
POWER_SUFFIXES = {"squared": "2", "cubed": "3"}

TEXT_COMMAND = r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|operatorname)\s*"
TEXT_GROUP = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}")
TEXT_UNIT = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}\s*(?:\^\s*\{?\s*(\d)\s*\}?)?\s*\Z")
BARE_UNIT = re.compile(r"(?<![\\a-zA-Z])([a-zA-Z][a-zA-Z./ ]*)(?:\^\s*\{?(\d)\}?)?\s*\Z")
MODULUS = re.compile(r"\\pmod\s*\{?\s*(\w+)\s*\}?\s*\Z")
THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
TOKEN = re.compile(r"\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\[\s\S]|[a-zA-Z]+|\S")

REWRITE_RULES = [  # (pattern, replacement), in this order
    # sizes of type and brackets, invisible boxes, the space after a line of a matrix
    (r"\\(?:dis|text|script)[a-z]*style(?![a-zA-Z])|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])",
     ""),
    (r"\\(?:phantom|hspace|vspace)(?![a-zA-Z])(?:\s*\{[^{}]*\})?|(?<=\\\\)\[[^\]]*\]", ""),
    # what groups the digits of a number
    (r"(?<=\d)(?:(?:\\text)?\{,\}|,?\s*\\!\s*|\\[,;: ]|,\\,)(?=\d{3}(?!\d))", ""),
    (r"(?<=\d{3}),\\!\s?(?=\d{3})", ""),
    # words before the answer, frames, the letters of an ordinal number
    (r"\A\s*\\text\s*\{[^{}]*(?:\b(?:is|are)|:|=)\s*\}(?=\s*\S)", ""),
    (r"\\(?:boxed|fbox|underline)(?![a-zA-Z])", ""),
    (r"(?<=\d)\^\s*\{\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}", ""),
    # commas, spaces, dollars round a formula
    (r"\{,\}", ","), (r"\\[!,;:]|(?<!\\)\\(?=\s|\Z)|\\q?quad(?![a-zA-Z])|~", " "),
    (r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\A\s*\\approx", " "),
    # several commands for the same thing
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"), (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|°", r"\\degree "),
    (r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset "), (r"\\[lr]?vert(?![a-zA-Z])", "|"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"), (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    # ASCII for LaTeX, mixed numbers, digits in groups, floats
    (r"<=", r"\\le "), (r">=", r"\\ge "), (r"\s!=", r" \\ne "), (r"\*\*", "^"),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "), (r"\{\}", ""),
    (r"(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
    (r"(?<![\d.])(\d{1,3}) (?=\d{3}(?!\d))", r"\1"),
    (r"(?<=\d)[eE](?=[-+]?\d)", r"\\times 10^"),
    # punctuation at the ends
    (r"[.,;:\s]+\Z|\A[,;:\s]+", ""),
]  # fmt: skip
REWRITES = [(re.compile(pattern), replacement) for pattern, replacement in REWRITE_RULES]
UNICODE_SIGNS = str.maketrans({
    "−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "π": "\\pi ", "√": "\\sqrt ", "∞": "\\infty ",
    "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "±": "\\pm ", "²": "^2", "³": "^3",
    "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "θ": "\\theta ", "∈": "\\in ",
})  # fmt: skip


def normalise(text: str) -> tuple[list[list[str]], str]:
    """Return the tokens of each reading of an answer, and its unit ("" where it has none).

    There are two readings where a comma may group digits, as in 100,200: a number or a list.
    """
    unit = "dollar" if "\\$" in text else ""
    text = _rewrite(text)
    modulus = MODULUS.search(text)
    if modulus:
        text, unit = text[: modulus.start()], f"mod {modulus[1]}"
    text, text_unit = _cut_unit(text, TEXT_UNIT)
    text = TEXT_GROUP.sub(r" \1 ", text)
    text, bare_unit = _cut_unit(text, BARE_UNIT)
    unit = bare_unit or text_unit or unit or _unit_of_sign(text)
    if not THOUSANDS.search(text) or re.search(r"[(\[{]", text):
        return [_tokenise(text)], unit
    joined = THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return [_tokenise(joined), _tokenise(text)], unit


def _rewrite(text: str) -> str:
    text = text.translate(UNICODE_SIGNS).replace("\\$", " ").replace("\\%", "%")
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _cut_unit(text: str, pattern: re.Pattern) -> tuple[str, str]:
    """Return the text without the unit at its end, and the unit, "" where there is none."""
    match = pattern.search(text)
    unit = match and _name_unit(text[: match.start()], match, pattern is TEXT_UNIT)
    return (text[: match.start()], unit) if match and unit else (text, "")


def _name_unit(before: str, match: re.Match, in_text_command: bool) -> str:
    """Return the name of the unit that these words are, with its power; "" where they are none."""
    words = match[1].lower().replace(".", "").split()
    before = before.rstrip()
    if not words or CONNECTIVES & set(words) or not re.search(r"[\w)}\]%|]\Z", before):
        return ""
    power = POWER_PREFIXES.get(words[0], match[2] or "")
    if len(words) > 1 and words[-1] in POWER_SUFFIXES:
        power = POWER_SUFFIXES[words.pop()]
    name = " ".join(words[1:] if words[0] in POWER_PREFIXES else words)
    singular = name.removesuffix("s")
    known = UNITS.get(name) or UNITS.get(singular)
    if in_text_command:
        if not known and len(name) < 2:
            return ""  # a letter, as in 3\mathrm{i}
    else:
        too_short = len(words[0]) < (2 if known else 4)  # 5m may be five times m
        if too_short or words[0] in COMMANDS or not re.search(r"[\d)}%]\Z", before):
            return ""
    return (known or singular) + power


def _unit_of_sign(text: str) -> str:
    if "%" in text:
        return "percent"
    return "degree" if "\\degree" in text else ""


def _tokenise(text: str) -> list[str]:
    """Split a text into tokens; a run of up to three lower-case letters is letters side by side."""
    tokens: list[str] = []
    for token in TOKEN.findall(text):
        lower = token.lower()
        if lower in COMMANDS:
            token = COMMANDS[lower]
            lower = token.lower()
        if token == "," and tokens[-1:] == [","]:
            continue  # ", and"
        if lower in WHOLE_WORDS:
            tokens.append(lower)
        elif token.isalpha() and len(token) <= 3 and not token.isupper():
            tokens.extend(token)
        else:
            tokens.append(token)
    return tokens
