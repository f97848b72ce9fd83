r"""What does an answer in LaTeX say? Its text as a tree, for `equality` to compare.

Trees are tuples: ("number", Fraction), ("symbol", name), ("sum", [(sign, tree)]), ("product",
[(tree, 1 or -1)]), ("power", base, exponent), ("root", degree, tree), ("call", name, *trees),
("degree", tree), ("percent", tree), ("list", trees), ("seq", opening, closing, trees), ("union",
trees), ("matrix", rows) and ("relation", trees, operators). A grammar of its own reads what answers
are made of, in time linear in the text; it evaluates nothing, so it cannot hang.
"""

from fractions import Fraction

from hybridlib.grading.notation import FUNCTIONS, GREEK, OPEN, OPERATORS, SIGNS, STYLES, TIMES

DEEPEST = 30  # brackets within brackets
KNOWN = {f"\\{name}" for name in FUNCTIONS | GREEK | STYLES | {"frac", "sqrt", "binom", "begin"}}


class Unreadable(Exception):
    """The grammar does not know this form; another layer may."""


class TooLarge(Exception):
    """Nothing that an answer should be: too deep, or a number too large to compute."""


def tree(tokens: list[str]) -> tuple:
    """The tree of these tokens of `notation`. Raises Unreadable and TooLarge."""
    reader = _Reader(tokens)
    items = reader.items()
    if reader.next:
        raise Unreadable(f"{reader.next} is left over")
    return items[0] if len(items) == 1 else ("list", items)


class _Reader:
    def __init__(self, tokens: list[str]):
        self.tokens, self.at, self.deep, self.bars = tokens, 0, 0, 0

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.next
        if not token or (wanted and token != wanted):
            raise Unreadable(f"{token or 'the end'} where {wanted or 'more'} was expected")
        self.at += 1
        return token

    def items(self) -> list[tuple]:
        self.deep += 1
        if self.deep > DEEPEST:
            raise TooLarge("too many brackets within brackets")
        items = [self.relation()]
        while self.next in (",", ";"):
            self.take()
            items.append(self.relation())
        self.deep -= 1
        return items

    def relation(self) -> tuple:
        sides, operators = [self.union()], []
        while self.next in OPERATORS:
            operators.append(OPERATORS[self.take()])
            sides.append(self.union())
        return ("relation", sides, operators) if operators else sides[0]

    def union(self) -> tuple:
        parts = [self.sum()]
        while self.next == "\\cup":
            self.take()
            parts.append(self.sum())
        return ("union", parts) if len(parts) > 1 else parts[0]

    def sum(self) -> tuple:
        terms = []
        while not terms or self.next in SIGNS:
            sign = SIGNS[self.take()] if self.next in SIGNS else 1
            while self.next in ("+", "-"):
                sign = sign if self.take() == "+" else {1: -1, -1: 1, "±": "∓", "∓": "±"}[sign]
            terms.append((sign, self.product()))
        return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else ("sum", terms)

    def product(self, argument: bool = False) -> tuple:
        """Of a function's argument, `2\\pi x`, only what stands side by side."""
        factors = [(self.power(), 1)]
        while True:
            whole = (
                self.at and self.tokens[self.at - 1].isdecimal() and factors[-1][0][0] == "number"
            )
            if self.next in TIMES and not argument:
                way, minus = TIMES[self.take()], 1
                while self.next in ("+", "-"):
                    minus = -minus if self.take() == "-" else minus
                factor = self.power()
                factors.append((factor if minus == 1 else ("sum", [(-1, factor)]), way))
            elif whole and self.next[:1].isdecimal():
                raise Unreadable("a number after a number")
            elif self.starts() and not (argument and self.next[1:] in FUNCTIONS):
                mixed = whole and self.next == "\\frac"
                factor = self.atom() if mixed else self.power()
                if mixed and _proper(factor):
                    number, way = factors[-1]
                    factors[-1] = (self.after(("sum", [(1, number), (1, factor)])), way)
                else:
                    factors.append((self.power(factor) if mixed else factor, 1))
            else:
                return factors[0][0] if len(factors) == 1 else ("product", factors)

    def starts(self) -> bool:
        """Does something begin here that can be multiplied?"""
        token = self.next
        if token == "|":
            return not self.bars
        first = token[:1]
        return first.isalnum() or first == "." or token in KNOWN or token in OPEN or token == "{"

    def power(self, base: tuple | None = None) -> tuple:
        base = self.after(base or self.atom())
        if self.next == "^":
            self.take()
            base = self.after(("power", base, self.exponent()))
        return base

    def exponent(self) -> tuple:
        exponent = self.argument()
        if self.next == "^":
            self.take()
            exponent = ("power", exponent, self.exponent())
        return exponent

    def after(self, tree: tuple) -> tuple:
        while self.next in ("!", "\\degree", "%"):
            name = {"!": "factorial", "\\degree": "degree", "%": "percent"}[self.take()]
            tree = ("call", name, tree) if name == "factorial" else (name, tree)
        return tree

    def argument(self, digit: bool = False) -> tuple:
        """What `^`, `\\frac` or `\\sqrt` takes: a group, one token, of \\frac one digit."""
        token = self.next
        if token in ("+", "-"):
            self.take()
            return ("sum", [(SIGNS[token], self.argument(digit))])
        if digit and token[:1].isdecimal() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return ("number", Fraction(token[0]))
        return self.atom()

    def atom(self) -> tuple:
        token = self.take()
        name = token[1:] if token[0] == "\\" else ""
        if token[0].isdecimal() or (token[0] == "." and len(token) > 1):
            return self.number(token)
        if token == "{":
            items = self.items()
            self.take("}")
            return items[0] if len(items) == 1 else ("list", items)
        if token in OPEN:
            return self.bracket(token)
        if token == "\\frac":
            parts = [self.argument(True), self.argument(True)]
            return ("product", [(parts[0], 1), (parts[1], -1)])
        if token == "\\binom":
            return ("call", "binom", self.argument(True), self.argument(True))
        if token == "\\sqrt":
            degree = ("number", Fraction(2))
            if self.next == "[":
                self.take()
                degree = self.sum()
                self.take("]")
            return ("root", degree, self.argument())
        if name in FUNCTIONS:
            return self.function(name)
        if token == "\\begin":
            return self.matrix()
        if name in STYLES:
            inside = self.raw()
            if (name, inside) == ("mathbb", "R"):
                ends = [("sum", [(sign, ("symbol", "infty"))]) for sign in (-1, 1)]
                return ("seq", "(", ")", ends)
            plain = name.startswith(("math", "bold")) and name not in ("mathbb", "mathcal")
            return self.symbol(inside if plain else f"{name}({inside})")
        if token.isalpha() or name in GREEK:
            return self.symbol(token.lower() if token.isalpha() and len(token) > 2 else token)
        raise Unreadable(f"{token} is not known")

    def symbol(self, name: str) -> tuple:
        name = name.removeprefix("\\")
        while self.next in ("_", "'"):
            name += "'" if self.take() == "'" else f"_{self.raw()}"
        return ("symbol", name)

    def raw(self) -> str:
        """The text of one token or of a group without groups in it."""
        token = self.take()
        if token != "{":
            return token
        end = self.tokens.index("}", self.at) if "}" in self.tokens[self.at :] else self.at
        inside, self.at = "".join(self.tokens[self.at : end]), end
        self.take("}")
        return inside

    def number(self, token: str) -> tuple:
        if self.next == "_":
            self.take()
            return ("symbol", f"{token}_{self.raw()}")  # digits in a base are their own thing
        value = Fraction(token.rstrip("."))
        if self.next == "\\overline" and "." in token:
            again = self.take() and self.raw()
            if not again.isdecimal():
                raise Unreadable("a line over no digits")
            places = len(token.partition(".")[2])
            value += Fraction(int(again), (10 ** len(again) - 1) * 10**places)
        return ("number", value)

    def bracket(self, opening: str) -> tuple:
        if opening == "\\{" and self.next == "\\}":
            self.take()
            return ("symbol", "emptyset")
        bars, self.bars = self.bars, 1 if opening == "|" else 0
        items = self.items()
        self.bars, closing = bars, self.take()
        if closing != OPEN[opening] and not {opening, closing} <= set("([)]"):
            raise Unreadable(f"{opening} closed by {closing}")
        if opening == "\\{":
            return ("list", items)
        if opening in ("(", "[", "\\langle") and (len(items) > 1 or closing != OPEN[opening]):
            if len(items) < 2 or closing in "([":
                raise Unreadable("half of an interval")
            return ("seq", *("()" if opening == "\\langle" else opening + closing), items)
        if len(items) > 1:
            raise Unreadable("a list between bars")
        name = {"|": "abs", "\\lvert": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}.get(opening)
        return ("call", name, items[0]) if name else items[0]

    def function(self, name: str) -> tuple:
        exponent, base = None, ()
        while self.next in ("^", "_"):
            if self.take() == "^":
                exponent = self.argument()
            else:
                base = (self.argument(),)
        if base and name != "log":
            raise Unreadable(f"{name} to a base")
        if exponent == ("sum", [(-1, ("number", Fraction(1)))]):
            if name not in ("sin", "cos", "tan"):
                raise Unreadable(f"the inverse of {name}")
            name, exponent = f"arc{name}", None
        inside = self.after(self.atom()) if self.next in ("(", "{", "[") else (
            self.product(argument=True))  # fmt: skip
        tree = ("call", name, inside, *base)
        return ("power", tree, exponent) if exponent else tree

    def matrix(self) -> tuple:
        kind = self.raw()
        if kind == "array":
            self.raw()
        if kind not in ("matrix", "pmatrix", "bmatrix", "Bmatrix", "array", "smallmatrix"):
            raise Unreadable(f"{kind} is no matrix")
        rows: list[list[tuple]] = [[]]
        while True:
            rows[-1].append(self.sum())
            token = self.take()
            if token == "\\\\" and self.next != "\\end":
                rows.append([])
            elif token in ("\\\\", "\\end"):
                if token == "\\\\":
                    self.take("\\end")
                if self.raw() != kind:
                    raise Unreadable("a matrix that ends as another")
                return ("matrix", rows)
            elif token != "&":
                raise Unreadable(f"{token} in a matrix")


def _proper(tree: tuple) -> bool:
    """Is it a fraction such as can follow a whole number, 3/4 but not 4/3?"""
    parts = [part for part, _ in tree[1]] if tree[0] == "product" else []
    return (len(parts) == 2 and all(p[0] == "number" and p[1].denominator == 1 for p in parts)
            and parts[0][1] < parts[1][1])  # fmt: skip
