r"""How is an answer written? One notation out of many: marks of spacing, units, words, letters.

Everything is a substitution or a scan that is linear in the text; `latex` gives it structure.
"""

import re

FUNCTIONS = {
    *"sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan".split(), "ln", "log", "exp",
}  # fmt: skip
GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega "
    "ell ldots dots cdots triangle angle emptyset pi infty hbar".split()
)
STYLES = set("mathbf mathit mathsf boldsymbol mathcal mathbb mathfrak vec hat bar tilde".split())
STYLES |= {"overline", "overrightarrow"}
OPERATORS = {
    "=": "=", "<": "<", ">": ">", "\\lt": "<", "\\gt": ">", "\\le": "<=", "\\leq": "<=",
    "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\ne": "!=",
    "\\neq": "!=", "\\in": "in", ":": ":", "\\approx": "≈", "\\equiv": "=",
}  # fmt: skip
SIGNS = {"+": 1, "-": -1, "\\pm": "±", "\\mp": "∓"}
TIMES = {"*": 1, "\\cdot": 1, "\\times": 1, "/": -1, "\\div": -1}
OPEN = {"(": ")", "[": "]", "\\{": "\\}", "\\langle": "\\rangle", "\\lfloor": "\\rfloor",
        "\\lceil": "\\rceil", "|": "|", "\\lvert": "\\rvert"}  # fmt: skip
NAMES = {name: f"\\{name}" for name in [*FUNCTIONS, "sqrt", "pi"]}
NAMES |= {"and": ",", "or": ",", "infinity": "\\infty", "inf": "\\infty"}
UNITS = {
    word: line.split()[0]
    for line in """cm centimeter centimetre\nmm millimeter millimetre\nkm kilometer kilometre
m meter metre\nft foot feet\ninch inches in\nyd yard\nmi mile\nkg kilogram\ng gram gm\nmg milligram
lb pound\noz ounce\nhour hr h\nminute min\nsecond sec s\nmph\nkm/h kmh kph\nam\npm\ndollar usd
cent\ndegree deg\nunit\nml milliliter\nl liter litre\nday\nweek\nmonth\nyear\npercent""".split("\n")
    for word in line.split()
}
WORDS = set("yes no not odd one two six ten all red may".split())
CONNECT = {"and", "or", "is", "if", "for", "when", "where", "mod", "base", "to", "with"}
TEXT = r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|operatorname)\s*"
MARKED = re.compile(TEXT + r"\{([^{}]*)\}\s*(?:\^\s*\{?\s*(\d)\s*\}?)?\s*\Z")
UNWRAPPED = re.compile(TEXT + r"\{([^{}]*)\}")
BARE = re.compile(r"(?<![\\a-zA-Z])([a-zA-Z][a-zA-Z./ ]*)(?:\^\s*\{?(\d)\}?)?\s*\Z")
MODULUS = re.compile(r"\\pmod\s*\{?\s*(\w+)\s*\}?\s*\Z")
CLEAN = [
    (re.compile(pattern), by)
    for pattern, by in [
        (r"\\(?:dis|text|script)[a-z]*style(?![a-zA-Z])|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])",
         ""),
        (r"\\(?:phantom|hspace|vspace)(?![a-zA-Z])(?:\s*\{[^{}]*\})?|(?<=\\\\)\[[^\]]*\]", ""),
        (r"(?<=\d)(?:(?:\\text)?\{,\}|,?\s*\\!\s*|\\[,;: ]|,\\,)(?=\d{3}(?!\d))", ""),
        (r"(?<=\d{3}),\\!\s?(?=\d{3})", ""),
        (r"\A\s*\\text\s*\{[^{}]*(?:\b(?:is|are)|:|=)\s*\}(?=\s*\S)", ""),
        (r"\\(?:boxed|fbox|underline)(?![a-zA-Z])", ""),
        (r"(?<=\d)\^\s*\{\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}", ""),
        (r"\{,\}", ","), (r"\\[!,;:]|(?<!\\)\\(?=\s|\Z)|\\q?quad(?![a-zA-Z])|~", " "),
        (r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\A\s*\\approx", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"), (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|°", r"\\degree "),
        (r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset "), (r"\\[lr]?vert(?![a-zA-Z])", "|"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"), (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"<=", r"\\le "), (r">=", r"\\ge "), (r"\s!=", r" \\ne "), (r"\*\*", "^"),
        (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "), (r"\{\}", ""),
        (r"(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
        (r"(?<![\d.])(\d{1,3}) (?=\d{3}(?!\d))", r"\1"),
        (r"(?<=\d)[eE](?=[-+]?\d)", r"\\times 10^"),
        (r"[.,;:\s]+\Z|\A[,;:\s]+", ""),
    ]
]  # fmt: skip
LETTERS = str.maketrans({
    "−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "π": "\\pi ", "√": "\\sqrt ", "∞": "\\infty ",
    "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "±": "\\pm ", "²": "^2", "³": "^3",
    "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "θ": "\\theta ", "∈": "\\in ",
})  # fmt: skip
THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
TOKEN = re.compile(r"\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\[\s\S]|[a-zA-Z]+|\S")


def normal(text: str) -> tuple[list[list[str]], str]:
    """The tokens of each reading of an answer, as 100,200 is a number or a list, and its unit."""
    unit = "dollar" if "\\$" in text else ""
    text = text.translate(LETTERS).replace("\\$", " ").replace("\\%", "%")
    for pattern, by in CLEAN:
        text = pattern.sub(by, text)
    if found := MODULUS.search(text):
        text, unit = text[: found.start()], f"mod {found[1]}"
    for pattern in (MARKED, BARE):
        if pattern is BARE:
            text = UNWRAPPED.sub(r" \1 ", text)
        found = pattern.search(text)
        if found and (measured := _unit(text[: found.start()], found, pattern is MARKED)):
            text, unit = text[: found.start()], measured
    unit = unit or ("percent" if "%" in text else "degree" if "\\degree" in text else "")
    if not THOUSANDS.search(text) or re.search(r"[(\[{]", text):
        return [_tokens(text)], unit
    joined = THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    return [_tokens(joined), _tokens(text)], unit


def _unit(before: str, found: re.Match, marked: bool) -> str:
    """The unit that these words at the end of an answer are, "" where they are none."""
    words = found[1].lower().replace(".", "").split()
    before = before.rstrip()
    if not words or CONNECT & set(words) or not re.search(r"[\w)}\]%|]\Z", before):
        return ""
    power = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}.get(words[0], found[2] or "")
    if len(words) > 1 and words[-1] in ("squared", "cubed"):
        power = {"squared": "2", "cubed": "3"}[words.pop()]
    name = " ".join(words[1:] if words[0] in ("square", "sq", "cubic", "cu") else words)
    known = UNITS.get(name) or UNITS.get(name.removesuffix("s"))
    if marked and not known and len(name) < 2:
        return ""  # a letter, as in 3\mathrm{i}
    if not marked:  # 5m may be five times m
        short = len(words[0]) < (2 if known else 4)
        if short or words[0] in NAMES or not re.search(r"[\d)}%]\Z", before):
            return ""
    return (known or name.removesuffix("s")) + power


def _tokens(text: str) -> list[str]:
    """Short lower-case runs are letters side by side, longer ones and capitals are one name."""
    tokens: list[str] = []
    for token in TOKEN.findall(text):
        if token.lower() in NAMES:
            token = NAMES[token.lower()]
        if token == "," and tokens[-1:] == [","]:
            continue  # ", and"
        split = token.isalpha() and len(token) <= 3 and token.lower() not in WORDS
        split = split and not token.isupper()
        tokens += token if split else [token.lower() if token.lower() in WORDS else token]
    return tokens
