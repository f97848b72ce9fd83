r"""What does an answer in LaTeX say? Its tokens become an expression for `equality` to compare.

An expression is a nested tuple, which compares and matches at no cost:

    ("number", Fraction)                    ("symbol", name)
    ("sum", [(sign, term), ...])            sign: 1, -1, "±" or "∓"
    ("product", [(factor, exponent), ...])  exponent: 1, or -1 for what is divided by
    ("power", base, exponent)               ("root", degree, radicand)
    ("call", function, *arguments)          factorial, binom, abs, floor and ceil, too
    ("degree", expression)                  ("percent", expression)
    ("list", parts)                         ("union", parts)
    ("seq", opening, closing, parts)        a point or an interval
    ("matrix", rows)                        ("relation", sides, operators)

A recursive-descent grammar of its own reads what answers are made of, in time linear in the text;
it evaluates nothing, so it cannot hang.
"""

from fractions import Fraction

from hybridlib.grading.notation import FUNCTIONS

Expression = tuple  # of one of the forms above

MAX_DEPTH = 30  # brackets within brackets

GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega "
    "ell ldots dots cdots triangle angle emptyset pi infty hbar".split()
)
STYLES = set("mathbf mathit mathsf boldsymbol mathcal mathbb mathfrak vec hat bar tilde".split())
STYLES |= {"overline", "overrightarrow"}
PLAIN_STYLES = {"mathbf", "mathit", "mathsf", "mathfrak", "boldsymbol"}  # that change no meaning
MATRICES = {"matrix", "pmatrix", "bmatrix", "Bmatrix", "array", "smallmatrix"}
KNOWN_COMMANDS = {
    f"\\{name}" for name in FUNCTIONS | GREEK | STYLES | {"frac", "sqrt", "binom", "begin"}
}
RELATIONS = {
    "=": "=", "<": "<", ">": ">", "\\lt": "<", "\\gt": ">", "\\le": "<=", "\\leq": "<=",
    "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\ne": "!=",
    "\\neq": "!=", "\\in": "in", ":": ":", "\\approx": "≈", "\\equiv": "=",
}  # fmt: skip
SIGNS = {"+": 1, "-": -1, "\\pm": "±", "\\mp": "∓"}
OPPOSITE_SIGNS = {1: -1, -1: 1, "±": "∓", "∓": "±"}
TIMES = {"*": 1, "\\cdot": 1, "\\times": 1, "/": -1, "\\div": -1}
POSTFIXES = {"!": "factorial", "\\degree": "degree", "%": "percent"}
CLOSING = {
    "(": ")", "[": "]", "\\{": "\\}", "\\langle": "\\rangle", "\\lfloor": "\\rfloor",
    "\\lceil": "\\rceil", "|": "|", "\\|": "\\|", "\\lvert": "\\rvert",
}  # fmt: skip
BARS = {"|", "\\|"}
BRACKET_FUNCTIONS = {
    "|": "abs",
    "\\|": "abs",
    "\\lvert": "abs",
    "\\lfloor": "floor",
    "\\lceil": "ceil",
}
CONSTANTS = {"pi", "e", "i", "infty"}  # symbols that are no letters with any value
SQUARE_ROOT = ("number", Fraction(2))
INVERSE = ("sum", [(-1, ("number", Fraction(1)))])  # the exponent of \sin^{-1}
INFINITY = ("symbol", "infty")
REAL_LINE = ("seq", "(", ")", [("sum", [(-1, INFINITY)]), ("sum", [(1, INFINITY)])])


class Unreadable(Exception):
    """The grammar does not know this form; another layer may."""


class TooLarge(Exception):
    """The expression is none that an answer should be: too deep, or a number too large."""


def parse(tokens: list[str]) -> Expression:
    """Return the expression that the tokens of `notation` are.

    Raises Unreadable for a form that the grammar does not know, TooLarge for one too deep.
    """
    parser = _Parser(tokens)
    parts = parser.parse_list()
    if parser.current:
        raise Unreadable(f"{parser.current} is left over")
    return _list_unless_one(parts)


class _Parser:
    """A position in the tokens; each method reads one level of the grammar and moves it on."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.bar = ""  # in |x|, where the next bar closes and none opens

    @property
    def current(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        """Return the current token and move on; raise Unreadable where another is wanted."""
        token = self.current
        if not token or (wanted and token != wanted):
            raise Unreadable(f"{token or 'the end'} where {wanted or 'more'} was expected")
        self.position += 1
        return token

    # ------------------------------------------------------------ from lists down to factors

    def parse_list(self) -> list[Expression]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge("too many brackets within brackets")
        parts = [self.parse_relation()]
        while self.current in (",", ";"):
            self.take()
            parts.append(self.parse_relation())
        self.depth -= 1
        return parts

    def parse_relation(self) -> Expression:
        sides, operators = [self.parse_union()], []
        while self.current in RELATIONS:
            operators.append(RELATIONS[self.take()])
            sides.append(self.parse_union())
        return ("relation", sides, operators) if operators else sides[0]

    def parse_union(self) -> Expression:
        parts = [self.parse_sum()]
        while self.current == "\\cup":
            self.take()
            parts.append(self.parse_sum())
        return ("union", parts) if len(parts) > 1 else parts[0]

    def parse_sum(self) -> Expression:
        terms = []
        while not terms or self.current in SIGNS:
            sign = SIGNS[self.take()] if self.current in SIGNS else 1
            while self.current in ("+", "-"):
                sign = OPPOSITE_SIGNS[sign] if self.take() == "-" else sign
            terms.append((sign, self.parse_product()))
        if len(terms) == 1 and terms[0][0] == 1:
            return terms[0][1]
        return ("sum", terms)

    def parse_product(self, of_argument: bool = False) -> Expression:
        """Read factors; of a function's argument, `2\\pi x`, only those that stand side by side."""
        factors = [(self.parse_power(), 1)]
        while True:
            after_whole_number = (
                self.tokens[self.position - 1].isdecimal() and factors[-1][0][0] == "number"
            )
            if self.current in TIMES and not of_argument:
                factors.append(self.parse_signed_factor())
            elif after_whole_number and self.current[:1].isdecimal():
                raise Unreadable("a number after a number")
            elif self.starts_factor() and not (of_argument and self.current[1:] in FUNCTIONS):
                if after_whole_number and self.current == "\\frac":
                    self.append_fraction(factors)
                else:
                    factors.append((self.parse_power(), 1))
            elif len(factors) == 1:
                return factors[0][0]
            else:
                return ("product", factors)

    def parse_signed_factor(self) -> tuple[Expression, int]:
        """Read a sign of multiplication or division, signs, and the factor after them."""
        exponent, sign = TIMES[self.take()], 1
        while self.current in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        factor = self.parse_power()
        return (factor if sign == 1 else ("sum", [(-1, factor)])), exponent

    def append_fraction(self, factors: list[tuple[Expression, int]]) -> None:
        """Read a fraction after a whole number: one mixed number, if it is a proper fraction."""
        fraction = self.parse_atom()
        if is_proper_fraction(fraction):
            whole, exponent = factors[-1]
            (above, _), (below, _) = fraction[1]
            mixed = ("number", whole[1] + above[1] / below[1])
            factors[-1] = (self.parse_postfixes(mixed), exponent)
        else:
            factors.append((self.parse_power(fraction), 1))

    def starts_factor(self) -> bool:
        """Say whether the current token begins something that can be multiplied."""
        token = self.current
        if token in BARS:
            return token != self.bar
        return (
            token[:1].isalnum()
            or token[:1] == "."
            or token in KNOWN_COMMANDS
            or token in CLOSING
            or token == "{"
        )

    def parse_power(self, base: Expression | None = None) -> Expression:
        base = self.parse_postfixes(base or self.parse_atom())
        if self.current == "^":
            self.take()
            base = self.parse_postfixes(("power", base, self.parse_exponent()))
        return base

    def parse_exponent(self) -> Expression:
        exponent = self.parse_argument()
        if self.current == "^":
            self.take()
            exponent = ("power", exponent, self.parse_exponent())
        return exponent

    def parse_postfixes(self, expression: Expression) -> Expression:
        while self.current in POSTFIXES:
            name = POSTFIXES[self.take()]
            expression = ("call", name, expression) if name == "factorial" else (name, expression)
        return expression

    def parse_argument(self, one_digit: bool = False) -> Expression:
        """Read what `^`, `\\frac` or `\\sqrt` takes: a group or one token, of \\frac one digit."""
        token = self.current
        if token in ("+", "-"):
            self.take()
            return ("sum", [(SIGNS[token], self.parse_argument(one_digit))])
        if one_digit and token[:1].isdecimal() and len(token) > 1:
            self.tokens[self.position] = token[1:]
            return ("number", Fraction(token[0]))
        return self.parse_atom()

    # ------------------------------------------------------------ atoms

    def parse_atom(self) -> Expression:
        token = self.take()
        if token[0].isdecimal() or (token[0] == "." and len(token) > 1):
            return self.parse_number(token)
        if token == "{":
            parts = self.parse_list()
            self.take("}")
            return _list_unless_one(parts)
        if token in CLOSING:
            return self.parse_bracket(token)
        if token[0] == "\\":
            return self.parse_command(token)
        if token.replace(" ", "").isalpha():
            return self.parse_symbol(token.lower() if len(token) > 2 else token)
        raise Unreadable(f"{token} is not known")

    def parse_command(self, token: str) -> Expression:
        name = token[1:]
        if name == "frac":
            above, below = self.parse_argument(True), self.parse_argument(True)
            return ("product", [(above, 1), (below, -1)])
        if name == "binom":
            return ("call", "binom", self.parse_argument(True), self.parse_argument(True))
        if name == "sqrt":
            return self.parse_root()
        if name in FUNCTIONS:
            return self.parse_function(name)
        if name == "begin":
            return self.parse_matrix()
        if name in STYLES:
            return self.parse_styled(name)
        if name in GREEK:
            return self.parse_symbol(name)
        raise Unreadable(f"{token} is not known")

    def parse_root(self) -> Expression:
        degree = SQUARE_ROOT
        if self.current == "[":
            self.take()
            degree = self.parse_sum()
            self.take("]")
        return ("root", degree, self.parse_argument())

    def parse_styled(self, style: str) -> Expression:
        inside = self.take_raw()
        if (style, inside) == ("mathbb", "R"):
            return REAL_LINE
        return self.parse_symbol(inside if style in PLAIN_STYLES else f"{style}({inside})")

    def parse_symbol(self, name: str) -> Expression:
        """Read the index and the primes after a name."""
        name = name.removeprefix("\\")
        while self.current in ("_", "'"):
            name += "'" if self.take() == "'" else f"_{self.take_raw()}"
        return ("symbol", name)

    def take_raw(self) -> str:
        """Return the text of one token, or of a group that has no groups in it."""
        token = self.take()
        if token != "{":
            return token
        rest = self.tokens[self.position :]
        end = self.position + (rest.index("}") if "}" in rest else 0)
        inside = "".join(self.tokens[self.position : end])
        self.position = end
        self.take("}")
        return inside

    def parse_number(self, token: str) -> Expression:
        if self.current == "_":
            self.take()
            return ("symbol", f"{token}_{self.take_raw()}")  # digits in a base are their own thing
        value = Fraction(token.rstrip("."))
        if self.current == "\\overline" and "." in token:
            self.take()
            repeated = self.take_raw()
            if not repeated.isdecimal():
                raise Unreadable("a line over no digits")
            places = len(token.partition(".")[2])
            value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**places)
        return ("number", value)

    def parse_bracket(self, opening: str) -> Expression:
        if opening == "\\{" and self.current == "\\}":
            self.take()
            return ("symbol", "emptyset")
        outside, self.bar = self.bar, opening if opening in BARS else ""
        parts = self.parse_list()
        self.bar = outside
        closing = self.take()
        matches = closing == CLOSING[opening]
        if not matches and not {opening, closing} <= set("([)]"):
            raise Unreadable(f"{opening} closed by {closing}")
        if opening == "\\{":
            return ("list", parts)
        if opening in ("(", "[", "\\langle") and (len(parts) > 1 or not matches):
            if len(parts) < 2 or closing in "([":
                raise Unreadable("half of an interval")
            if opening == "\\langle":
                return ("seq", "(", ")", parts)
            return ("seq", opening, closing, parts)
        if len(parts) > 1:
            raise Unreadable("a list between bars")
        function = BRACKET_FUNCTIONS.get(opening)
        return ("call", function, parts[0]) if function else parts[0]

    def parse_function(self, name: str) -> Expression:
        exponent, base = None, ()
        while self.current in ("^", "_"):
            if self.take() == "^":
                exponent = self.parse_argument()
            else:
                base = (self.parse_argument(),)
        if base and name != "log":
            raise Unreadable(f"{name} to a base")
        if exponent == INVERSE:
            if name not in ("sin", "cos", "tan"):
                raise Unreadable(f"the inverse of {name}")
            name, exponent = f"arc{name}", None
        if self.current in ("(", "{", "["):
            argument = self.parse_postfixes(self.parse_atom())
        else:
            argument = self.parse_product(of_argument=True)
        call = ("call", name, argument, *base)
        return ("power", call, exponent) if exponent else call

    def parse_matrix(self) -> Expression:
        environment = self.take_raw()
        if environment == "array":
            self.take_raw()  # its columns
        if environment not in MATRICES:
            raise Unreadable(f"{environment} is no matrix")
        rows: list[list[Expression]] = [[]]
        while True:
            rows[-1].append(self.parse_sum())
            token = self.take()
            if token == "\\\\" and self.current != "\\end":
                rows.append([])
            elif token in ("\\\\", "\\end"):
                if token == "\\\\":
                    self.take("\\end")
                if self.take_raw() != environment:
                    raise Unreadable("a matrix that ends as another")
                return ("matrix", rows)
            elif token != "&":
                raise Unreadable(f"{token} in a matrix")


def _list_unless_one(parts: list[Expression]) -> Expression:
    return parts[0] if len(parts) == 1 else ("list", parts)


def is_proper_fraction(expression: Expression) -> bool:
    """Say whether this fraction can follow a whole number, as 3/4 can and 4/3 cannot."""
    if expression[0] != "product" or len(expression[1]) != 2:
        return False
    (above, _), (below, _) = expression[1]
    if not all(part[0] == "number" and part[1].denominator == 1 for part in (above, below)):
        return False
    return above[1] < below[1]
