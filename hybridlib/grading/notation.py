r"""How is an answer written? One notation out of many: spacing, units, words, letters.

Everything is a substitution or a scan that is linear in the text; `latex` gives it structure.
"""

import re

FUNCTIONS = set("sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan ln log exp".split())
COMMANDS = {name: f"\\{name}" for name in [*FUNCTIONS, "sqrt", "pi"]}  # by the bare word
COMMANDS |= {"and": ",", "or": ",", "infinity": "\\infty", "inf": "\\infty"}
WHOLE_WORDS = set("yes no not odd one two six ten all red may".split())  # not letters side by side
CONNECTIVES = {"and", "or", "is", "if", "for", "when", "where", "mod", "base", "to", "with"}

CONNECTIVES_OF_LISTS = {"and", "or"}

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
kph kmh
am
pm
dollar usd
euro eur
sterling gbp
yen jpy
rupee inr
cent
degree deg
unit
ml milliliter
l liter litre
day
week
month
year
percent pct percentage per_cent percentage_point
radian rad
"""
UNITS = {  # spelling -> unit
    spelling.replace("_", " "): line.split()[0]
    for line in UNIT_SPELLINGS.strip().splitlines()
    for spelling in line.split()
}
MONEY = {"dollar", "euro", "sterling", "yen", "rupee"}
SPEEDS = {"mph": "mi/hour", "kph": "km/hour"}
CURRENCIES = {"¢": "cent", "\\$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee"}
POWER_PREFIXES = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
POWER_SUFFIXES = {"squared": "2", "cubed": "3"}

NO_UNITS = CONNECTIVES | set(
    "not no never than least most between about around almost nearly roughly approximately maybe "
    "perhaps plus minus factorial dozen hundred wrong incorrect over under above below within "
    "negative twice double half past circa non".split()
)
TURNED_ROUND = re.compile(  # a statement with these words in it does not state its last number
    r"\b(?:not|no|never|cannot|n't|less|more|fewer|greater|least|most|over|under|than|between|"
    r"either|neither|or|about|around|almost|nearly|roughly|approximately|if|nicht|kein\w*|oder|pas|"
    r"ou|nunca|o|non|не|или)\b|n't\b|不|没|没有|[<>≤≥≠]"
    r"|\b(?:(?:half|third|quarter|part) of|twice|double|plus|minus|negative|up to|close to|below|"
    r"above|within|maybe|perhaps|circa|ca\.?|all but|past)[\s:=]*\Z",
    re.IGNORECASE,
)
SMALL = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
SMALL += " sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMERALS = {word: number for number, word in enumerate(SMALL.split(), 1)}
NUMERALS |= {word: 10 * number for number, word in enumerate(TENS.split(), 2)}
IN_WORDS = re.compile(  # a number in words before one more word
    rf"\A((?:\\text\w*\s*\{{\s*)?)(?:({'|'.join(NUMERALS)})[\s-]+)?"
    rf"({'|'.join(NUMERALS)}|hundred)\s+(?=([a-z]+))",
    re.IGNORECASE,
)

WORD = "\ue000"  # before a word of a \\text, which is no product of its letters
SHORT_WORD = re.compile(r"(?<![\\a-zA-Z])(?=[a-zA-Z]{2,3}(?![a-zA-Z]))")
TEXT_COMMAND = r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|operatorname)\s*"
ONE_UNIT = r"\\(?:mathrm|text)\s*\{\s*(\w+)\s*\}"
TEXT_GROUP = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}")
TEXT_UNIT = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}\s*(?:\^\s*\{?\s*(\d)\s*\}?)?\s*\Z")
BARE_UNIT = re.compile(
    rf"(?<![\\a-zA-Z])([{WORD}a-zA-Z][{WORD}a-zA-Z./ ]*)(?:\^\s*\{{?(\d)\}}?)?\s*\Z"
)
LETTER_OF_UNIT = re.compile(r"(.*[\d)}])(?:\s|\\[ ,;:]|~)*([a-zA-Z])(?:\^\{?(\d)\}?)?[\s.]*")
MODULUS = re.compile(r"\\pmod\s*\{?\s*(\w+)\s*\}?\s*\Z")
DOUBLED = re.compile(r"(?<!\\)\\\\[a-zA-Z%${}]")
SINGLE = re.compile(r"(?<!\\)\\[a-zA-Z]")
DECIMAL_COMMA = re.compile(
    r"[\s$]*(?:\\[$])?([-+]?\d{1,40}),(\d{1,40})(?:\s?(?:\\?%|[€£¥₹]))?[\s$.]*"
)
THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?![\d,])")
TOKEN = re.compile(rf"{WORD}[a-zA-Z]+" r"|\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\[\s\S]|[a-zA-Z]+|\S")


def _unless_turned_round(match: re.Match) -> str:
    """Return nothing in place of words before an answer, but for words that turn it round."""
    return match[0] if TURNED_ROUND.search(match[1]) else ""


def _turned_inward(match: re.Match) -> str:
    """Return (2, 3] for ]2, 3]."""
    opening, ends, closing = match.groups()
    if (opening, closing) == ("[", "]"):
        return match[0]
    return f"{'(' if opening == ']' else '['}{ends}{')' if closing == '[' else ']'}"


def _in_digits(match: re.Match) -> str:
    """Return 1500000 for 1.5 million."""
    zeros = {"t": 3, "m": 6, "b": 9}[match[3][0]]
    digits, _, decimals = match[1].partition(".")
    whole = digits + decimals[:zeros].ljust(zeros, "0")
    return whole + (f".{decimals[zeros:]}" if decimals[zeros:] else "") + (match[2] or " ")


def _overlined(match: re.Match) -> str:
    """Return a decimal with combining lines over its period as LaTeX writes it."""
    period = match[2].replace("\u0305", "")
    return f".{match[1]}\\overline{{{period}}}"


def _without_groups(match: re.Match) -> str:
    """Return 1234.5 for 1.234,5 and 1234 for 1'234."""
    return match[0].replace(".", "").replace("'", "").replace(",", ".")


def _joined(match: re.Match) -> str:
    """Return what groups digits in threes: nothing, but a point in 0{,}125."""
    before = match.string[: match.start()]
    leading_0 = match[0] == "{,}" and before[-1:] == "0" and not before[-2:-1].isdigit()
    return "." if leading_0 else ""


REWRITE_RULES = [  # (signs one of which it needs, pattern, replacement), in this order
    # sizes of type and brackets, invisible boxes, the space after a line of a matrix
    ("\\", r"\\(?:dis|text|script)[a-z]*style(?![a-zA-Z])"
     r"|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])", ""),
    ("\\", r"\\(?:phantom|hspace|vspace)(?![a-zA-Z])(?:\s*\{[^{}]*\})?|(?<=\\\\)\[[^\]]*\]", ""),
    # numbers with a word for their zeros, intervals with brackets turned outward
    (("illion", "thousand"), r"(?<![\d.,])(\d{1,12}(?:\.\d{1,12})?)(?:\\[ ,;])?\s*(\\text\s*\{)?\s*"
     r"(thousand|million|billion)s?\b", _in_digits),
    ("[]", r"([\[\]])((?!\s*(?:,|;|\\cup))[^\[\](),;]{1,80}[,;]\s*[^\[\](),;\s][^\[\](),;]{0,80})"
     r"([\[\]])", _turned_inward),
    # units divided by units
    (("mathrm", "text"), rf"{ONE_UNIT}\s*/\s*{ONE_UNIT}", r"\\text{\1/\2}"),
    (("mathrm", "text"), rf"\\[dt]?frac\s*\{{\s*{ONE_UNIT}\s*\}}\s*\{{\s*{ONE_UNIT}\s*\}}\s*\Z",
     r"\\text{\1/\2}"),
    # sets by their condition; bold numbers; periods of decimals
    ("\\", r"\A\s*\\\{\s*([a-zA-Z])(?:\s*\\in\s*\\mathbb\s*\{?\s*R\s*\}?)?\s*(?:\\mid|\\vert|\||:)"
     r"(?=[^{}]*\1)([^{}]*)\\\}\s*\Z", r"\2"),
    ("\\", r"\\(?:mathbf|boldsymbol|mathsf|mathit|bm|pmb|textbf)\s*\{\s*(-?[\d.,]+)\s*\}", r"\1"),
    ("\\", r"\A\s*\\(?:mathbf|boldsymbol|bm|pmb)\s*\{((?:[^{}]|\{[^{}]*\}){2,})\}\s*\Z", r"\1"),
    ("(", r"(?<=\d)\.(\d{0,20})\((\d{1,20})\)(?!\d)", r".\1\\overline{\2}"),
    ("\u0305", r"(?<=\d)\.(\d{0,20}?)((?:\d\u0305){1,20})", _overlined),
    ("\\", r"\\(?:bar|dot)\s*\{\s*(\d{1,20})\s*\}", r"\\overline{\1}"),
    # numbers of other countries, where no other reading is left
    (".", r"(?<![\d.,])\d{1,3}(?:\.\d{3}){1,9},\d{1,20}(?![\d.,])", _without_groups),
    (".", r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,9}(?![\d.,])", _without_groups),
    ("'", r"(?<![\d.,'])\d{1,3}(?:'\d{3}){1,9}(?!['\d])", _without_groups),
    # what groups the digits of a number
    ("\\{,", r"(?<=\d)(?:(?:\\text)?\{,\}|,?\s*\\!\s*|\\[,;: ]|,\\,)(?=\d{3}(?!\d))", _joined),
    ("\\", r"(?<=\d{3}),\\!\s?(?=\d{3})", ""),
    # words before the answer, frames, the letters of an ordinal number, ratios in words
    ("\\", r"\A\s*\\text\s*\{([^{}]*(?:\b(?:is|are)|:|=)\s*)\}(?=\s*\S)", _unless_turned_round),
    ("\\", r"\\(?:boxed|fbox|underline)(?![a-zA-Z])", ""), ("\\", r"\\Pr(?![a-zA-Z])", "P"),
    ("\\", r"(?<=\d)\^\s*\{\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}", ""),
    ("o", r"\A\s*(\d{1,9})\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(\d{1,9})\s*\Z", r"\1:\2"),
    # commas, spaces, dollars round a formula
    ("{", r"(?<=\d)\{,\}(?=\d{1,2}(?!\d)|\d{4})", "."), ("{", r"\{,\}", ","),
    ("\\~", r"\\[!,;:]|(?<!\\)\\(?=\s|\Z)|\\q?quad(?![a-zA-Z])|~", " "),
    ("\\$", r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\A\s*\\approx", " "),
    # several commands for the same thing
    ("\\", r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"), ("\\", r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
    ("\\°", r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|°", r"\\degree "),
    ("\\", r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset "),
    ("\\", r"\\[lr]?vert(?![a-zA-Z])", "|"),
    ("\\", r"\\lbrace(?![a-zA-Z])", r"\\{"), ("\\", r"\\rbrace(?![a-zA-Z])", r"\\}"),
    # ASCII for LaTeX, mixed numbers, digits in groups, floats
    ("<", r"<=", r"\\le "), (">", r">=", r"\\ge "), ("!", r"\s!=", r" \\ne "), ("*", r"\*\*", "^"),
    ("U", r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "), ("{", r"\{\}", ""),
    ("/", r"(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
    (" ", r"(?<![\d.])(\d{1,3}) (?=\d{3}(?!\d))", r"\1"),
    ("eE", r"(?<=\d)[eE](?=[-+]?\d)", r"\\times 10^"),
    # punctuation at the ends
    (".,;:= \t\n", r"[.,;:\s]+\Z|\A[,;:=\s]+", ""),
]  # fmt: skip
NOTHING_TO_REWRITE = re.compile(r"(?!=)[0-9a-df-zA-DF-TV-Z+\-^()=/]*")
REWRITES = [(signs, re.compile(pattern), new) for signs, pattern, new in REWRITE_RULES]
SPACES = (
    "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad" + WORD
UNICODE_SIGNS = str.maketrans({
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full width
    **dict.fromkeys(SPACES, " "), **dict.fromkeys(INVISIBLE, ""), **dict.fromkeys("−–—‐‑‒﹣", "-"),
    "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "∕": "/", "∶": ":", "。": ".",
    "、": ",", "π": "\\pi ", "√": "\\sqrt ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ",
    "≠": "\\ne ", "∪": "\\cup ", "±": "\\pm ", "²": "^2", "³": "^3", "⁴": "^4", "⁵": "^5",
    "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅓": "\\frac{1}{3}",
    "⅔": "\\frac{2}{3}", "θ": "\\theta ", "∈": "\\in ", "∅": "\\emptyset ", "≈": "\\approx ",
    "“": '"', "”": '"', "‘": "'", "’": "'", "￥": "¥", "￡": "£",
})  # fmt: skip


def normalise(text: str) -> tuple[list[list[str]], str]:
    """Return the tokens of each reading of an answer, and its unit ("" where it has none).

    There are two readings where a comma may group digits, as in 100,200: a number or a list.
    """
    text = plain(text)
    if text[:1].isalpha() or text[:5] == "\\text":
        text = IN_WORDS.sub(_from_words, text)
    text = text.replace("US$", "$").replace("US\\$", "\\$") if "US" in text else text
    unit = next((name for sign, name in CURRENCIES.items() if sign in text), "")
    if not unit and text.count("$") == 1:  # none of a pair round a formula
        unit = "dollar"
    text = _rewrite(text)
    modulus = MODULUS.search(text)
    if modulus:
        text, unit = text[: modulus.start()], f"mod {modulus[1]}"
    text, text_unit = _cut_unit(text, TEXT_UNIT)
    text = TEXT_GROUP.sub(_words_of_group, text)
    text, bare_unit = _cut_unit(text, BARE_UNIT)
    unit = bare_unit or text_unit or unit or _unit_of_sign(text)
    if unit == "percent" and "%" not in text:
        text += "%"
    if not THOUSANDS.search(text) or re.search(r"[(\[{]", text):
        return [_tokenise(text)], unit
    joined = THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return [_tokenise(joined), _tokenise(text)], unit


def _from_words(match: re.Match) -> str:
    """Return "25 " for "twenty-five " where a unit comes next: bare words are no number."""
    before, tens, last, next_word = match.groups()
    number = NUMERALS.get(last.lower(), 100)
    tens_number = NUMERALS.get((tens or "").lower(), 0)
    if number == 100:
        number *= tens_number or 1
    elif tens and not (tens_number >= 20 and number < 10):
        return match[0]
    else:
        number += tens_number
    next_word = next_word.lower()
    known = next_word in UNITS or next_word.removesuffix("s") in UNITS
    return f"{before}{number} " if known and len(next_word) > 1 else match[0]


def without_letter_of_unit(text: str, unit: str) -> str | None:
    """Return 4 for "4 h" where the unit is an hour, None where the text does not end like that.

    A letter alone may be a factor; only a gold tells that it is a unit.
    """
    match = LETTER_OF_UNIT.fullmatch(plain(text))
    if match and f"{UNITS.get(match[2].lower(), '')}{match[3] or ''}" == unit:
        return match[1]
    return None


def plain(text: str) -> str:
    """Return the text in ASCII signs, with single backslashes where JSON has doubled them all."""
    if not text.isascii():
        text = text.translate(UNICODE_SIGNS)
    if DOUBLED.search(text) and not SINGLE.search(text):
        text = text.replace("\\\\", "\\")
    return text


def with_decimal_point(text: str) -> str:
    """Return 3,14 with a point in place of its comma, "" for anything else.

    Three digits after the comma are thousands, but for a 0 before it, and a space makes a list.
    """
    match = DECIMAL_COMMA.fullmatch(plain(text)) if "," in text or not text.isascii() else None
    if match and (len(match[2]) != 3 or match[1].lstrip("+-") == "0"):
        return f"{match[1]}.{match[2]}"
    return ""


def _words_of_group(match: re.Match) -> str:
    return " " + SHORT_WORD.sub(WORD, match[1]) + " "


def _rewrite(text: str) -> str:
    if NOTHING_TO_REWRITE.fullmatch(text):
        return text
    for sign in CURRENCIES:
        text = text.replace(sign, " ")
    text = text.replace("\\%", "%")
    for signs, pattern, replacement in REWRITES:
        for sign in signs:
            if sign in text:
                text = pattern.sub(replacement, text)
                break
    return text


def _cut_unit(text: str, pattern: re.Pattern) -> tuple[str, str]:
    """Return the text without the unit at its end, and the unit, "" where there is none."""
    match = pattern.search(text)
    unit = match and _name_unit(text[: match.start()], match, pattern is TEXT_UNIT)
    return (text[: match.start()], unit) if match and unit else (text, "")


def _name_unit(before: str, match: re.Match, in_text_command: bool) -> str:
    """Return the name of the unit that these words are, with its power; "" where they are none."""
    words = match[1].lower().replace(".", "").replace(WORD, "").split()
    before = before.rstrip()
    if not words or not words[0][0].isalpha() or NO_UNITS & set(words):
        return ""
    if not re.search(r"[\w)}\]%|]\Z", before):
        return ""
    if words[0] in POWER_SUFFIXES:
        return ""
    power = POWER_PREFIXES.get(words[0], match[2] or "")
    if len(words) > 1 and words[-1] in POWER_SUFFIXES:
        power = POWER_SUFFIXES[words.pop()]
    name = " ".join(words[1:] if words[0] in POWER_PREFIXES else words)
    singular = name.removesuffix("s")
    known = UNITS.get(name) or UNITS.get(singular) or _quotient_of_units(name)
    known = SPEEDS.get(known, known) or _money(words[-1])
    if in_text_command:
        if not known and len(name) < 2:
            return ""  # a letter, as in 3\mathrm{i}
    else:
        too_short = len(words[0]) < (2 if known else 4) and " per " not in name  # 5m may be 5 * m
        if too_short or words[0] in COMMANDS or not re.search(r"[\d)}%]\Z", before):
            return ""
    return (known or singular) + power


def _money(word: str) -> str:
    """Return the currency that "US dollars" and "pounds sterling" end in, "" for other words."""
    word = word.removesuffix("s")
    return word if word in MONEY else ""


def _quotient_of_units(name: str) -> str:
    """Return mi/hour for "miles per hour" and for "mi/h", "" where a part is no known unit."""
    parts = [part.strip() for part in re.split(r"/| per ", name)]
    known = [UNITS.get(part) or UNITS.get(part.removesuffix("s"), "") for part in parts]
    return "/".join(known) if len(parts) == 2 and all(known) else ""


def _unit_of_sign(text: str) -> str:
    if "%" in text:
        return "percent"
    return "degree" if "\\degree" in text else ""


def _tokenise(text: str) -> list[str]:
    """Split a text into tokens; a run of up to three lower-case letters is letters side by side."""
    tokens: list[str] = []
    for token in TOKEN.findall(text):
        in_text_command, token = token[0] == WORD, token.removeprefix(WORD)
        lower = token.lower()
        if lower in COMMANDS:
            token = COMMANDS[lower]
            lower = token.lower()
        if token == "," and tokens[-1:] == [","]:
            continue  # ", and"
        if (
            lower in WHOLE_WORDS
            or (in_text_command and token.isalpha())
            or (token.isalpha() and len(token) > 3)
        ):
            _append_word(tokens, lower)
        elif token.isalpha() and len(token) <= 3 and not token.isupper():
            tokens.extend(token)
        else:
            tokens.append(token)
    return tokens


def _append_word(tokens: list[str], word: str) -> None:
    """Append a word to the tokens; words in a row are one, as their order counts."""
    if tokens and len(tokens[-1]) > 1 and tokens[-1].replace(" ", "").isalpha():
        tokens[-1] += f" {word}"
    else:
        tokens.append(word)
