"""What is a tree of `latex` worth? A Fraction where it is rational, else a number of many digits.

Letters have random values, the same for the same letter and point. Every size is bounded before it
is computed: no answer can keep the processor busy.
"""

import operator
import random
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, isqrt
from typing import Any

import mpmath

from hybridlib.grading.latex import TooLarge, Unreadable

BITS = 50_000  # of a numerator or denominator
MAGNITUDE = 20_000  # of other numbers, as a power of two
CONSTANTS = {"pi", "e", "i", "infty"}
NAMES_IN_MPMATH = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
ANGLES = {"sin", "cos", "tan", "cot", "sec", "csc"}
NEAR, FAR = mpmath.MPContext(), mpmath.MPContext()
NEAR.dps, FAR.dps = 60, 150


@lru_cache(maxsize=4096)
def letter(name: str, point: int) -> Fraction:
    """Positive at point 0, negative at 1; then two letters next to each other differ in sign."""
    draw = random.Random(f"{name} {point}")
    size = Fraction(draw.randrange(2, 90), draw.choice((7, 11, 13)))
    negative = (point == 1) if point < 2 else sum(name.encode()) >> (point - 2) & 1
    return -size if negative else size


def floating(context: Any, value: Any) -> Any:
    if isinstance(value, Fraction):
        return context.mpf(value.numerator) / value.denominator
    return value


def real(value: Any) -> bool:
    if isinstance(value, Fraction):
        return True
    return not abs(NEAR.im(value)) > abs(value) * NEAR.mpf(10) ** -40


def close(context: Any, one: Any, other: Any) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    one, other = floating(context, one), floating(context, other)
    if one == other or context.isinf(one) or context.isinf(other):
        return bool(one == other)
    return abs(one - other) <= max(abs(one), abs(other)) * context.mpf(10) ** -45


class Values:
    """The value of trees at one point, a Fraction where it is rational."""

    def __init__(self, context: Any, point: int, percent: int):
        self.context, self.point, self.percent = context, point, percent

    def of(self, tree: tuple, angle: bool = False) -> Any:
        match tree:
            case ("number", value):
                return value
            case ("symbol", name):
                return self.symbol(name)
            case ("sum", terms):
                total: Any = Fraction(0)
                for sign, term in terms:
                    value = self.of(term, angle)
                    total = self.joined(operator.add, total, value if sign == 1 else -value)
                return total
            case ("product", factors):
                total = Fraction(1)
                for factor, way in factors:
                    join = operator.mul if way == 1 else operator.truediv
                    total = self.joined(join, total, self.of(factor, angle))
                return total
            case ("power", base, exponent):
                return self.power(self.of(base, angle), self.of(exponent))
            case ("root", degree, inside):
                n = self.of(degree)
                return self.power(self.of(inside), self.joined(operator.truediv, Fraction(1), n))
            case ("degree", inside):
                value = self.of(inside)
                pi = self.context.pi / 180
                return self.joined(operator.mul, value, pi) if angle else value
            case ("percent", inside):
                return self.of(inside) / self.percent
            case ("call", name, inside, *more):
                value = self.of(inside, name in ANGLES)
                return self.checked(self.call(name, value, *map(self.of, more)))
        raise Unreadable(f"a {tree[0]} has no value")

    def symbol(self, name: str) -> Any:
        if name in CONSTANTS:
            context = self.context
            return {"pi": +context.pi, "e": +context.e, "i": context.mpc(0, 1),
                    "infty": context.inf}[name]  # fmt: skip
        return letter(name, self.point)

    def joined(self, join: Any, one: Any, other: Any) -> Any:
        if not (isinstance(one, Fraction) and isinstance(other, Fraction)):
            one, other = floating(self.context, one), floating(self.context, other)
        return self.checked(join(one, other))

    def checked(self, value: Any) -> Any:
        if isinstance(value, Fraction):
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
                raise TooLarge("a fraction of too many digits")
        elif self.context.isnan(value):
            raise ValueError("not a number")
        elif value and not self.context.isinf(value):
            if abs(self.context.mag(value)) > MAGNITUDE:
                raise TooLarge("a number of too many digits")
        return value

    def power(self, base: Any, exponent: Any) -> Any:
        whole = isinstance(exponent, Fraction) and exponent.denominator == 1
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            size = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(exponent) * size > BITS and abs(base) not in (0, 1):
                raise TooLarge("a power of too many digits")
            if whole:
                return base ** int(exponent)
            if base < 0 and exponent.denominator % 2:  # the real root, as of -8
                sign = -1 if exponent.numerator % 2 else 1
                return self.joined(operator.mul, Fraction(sign), self.power(-base, exponent))
            if base >= 0 and exponent == Fraction(1, 2):
                roots = isqrt(base.numerator), isqrt(base.denominator)
                if Fraction(*roots) ** 2 == base:
                    return Fraction(*roots)
        base, exponent = floating(self.context, base), floating(self.context, exponent)
        if abs(exponent) > MAGNITUDE or (base and abs(
            exponent * max(1, abs(self.context.mag(base)))) > MAGNITUDE):  # fmt: skip
            raise TooLarge("a power of too many digits")
        return self.checked(self.context.power(base, exponent))

    def call(self, name: str, value: Any, *more: Any) -> Any:
        if name == "abs":
            return abs(value)
        if name in ("floor", "ceil"):
            if isinstance(value, Fraction):
                return Fraction(value.__floor__() if name == "floor" else value.__ceil__())
            return getattr(self.context, name)(value)
        if name in ("factorial", "binom"):
            numbers = [value, *more]
            if any(not real(n) or abs(n) > 3000 for n in numbers):
                raise TooLarge("a factorial of too many digits")
            if all(isinstance(n, Fraction) and n.denominator == 1 and n >= 0 for n in numbers):
                return Fraction((factorial if name == "factorial" else comb)(*map(int, numbers)))
            name = name.replace("binom", "binomial")
        if name == "log" and not more:
            more = (Fraction(10),)
        values = [floating(self.context, n) for n in (value, *more)]
        return getattr(self.context, NAMES_IN_MPMATH.get(name, name))(*values)
