"""What is an expression of `latex` worth? A Fraction, or where it is irrational 60 digits and more.

Letters have random values, the same for the same letter and point. Every size is bounded before it
is computed: no answer can keep the processor busy.
"""

import operator
import random
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, isqrt
from typing import Any

import mpmath

from hybridlib.grading.latex import CONSTANTS, Expression, TooLarge, Unreadable

MAX_BITS = 50_000  # of a numerator or denominator
MAX_MAGNITUDE = 20_000  # of other numbers, as a power of two
MAX_FACTORIAL = 3_000
MPMATH_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "binom": "binomial"}
TRIGONOMETRIC = {"sin", "cos", "tan", "cot", "sec", "csc"}

WORKING, PRECISE = mpmath.MPContext(), mpmath.MPContext()
WORKING.dps, PRECISE.dps = 60, 150  # decimal digits
EQUAL_DIGITS = 45  # to which two numbers of 60 digits have to agree
REAL_DIGITS = 40  # below which an imaginary part counts as none


@lru_cache(maxsize=4096)
def letter_value(name: str, point: int) -> Fraction:
    """Return the random value of a letter at a point.

    All letters are positive at point 0 and negative at point 1; at the points after these, two
    letters that follow each other differ in sign somewhere.
    """
    draw = random.Random(f"{name} {point}")
    size = Fraction(draw.randrange(2, 90), draw.choice((7, 11, 13)))
    negative = (point == 1) if point < 2 else sum(name.encode()) >> (point - 2) & 1
    return -size if negative else size


def to_float(context: mpmath.MPContext, value: Any) -> Any:
    """Return a Fraction as a float of this mpmath context, other numbers as they are."""
    if isinstance(value, Fraction):
        return context.mpf(value.numerator) / value.denominator
    return value


def as_fraction(value: Any) -> Fraction:
    """Return the fraction that a real value is, to its last digit."""
    if isinstance(value, Fraction):
        return value
    mantissa, exponent = WORKING.re(value).man_exp
    return Fraction(mantissa) * Fraction(2) ** exponent


def is_real(value: Any) -> bool:
    """Say whether a value has no imaginary part, but for rounding."""
    if isinstance(value, Fraction):
        return True
    return not abs(WORKING.im(value)) > abs(value) * WORKING.mpf(10) ** -REAL_DIGITS


def is_close(one: Any, other: Any) -> bool:
    """Say whether two values are equal: fractions exactly, others to EQUAL_DIGITS digits."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    one, other = to_float(WORKING, one), to_float(WORKING, other)
    if one == other or WORKING.isinf(one) or WORKING.isinf(other):
        return bool(one == other)
    return abs(one - other) <= max(abs(one), abs(other)) * WORKING.mpf(10) ** -EQUAL_DIGITS


class Evaluator:
    """Computes what expressions are worth at one point, to the digits of one mpmath context.

    A percentage is divided by `percent`: 100, or 1 where the sign is only a unit.
    """

    def __init__(self, context: mpmath.MPContext, point: int, percent: int):
        self.context = context
        self.point = point
        self.percent = percent

    def evaluate(self, expression: Expression, in_angle: bool = False) -> Any:
        """Return the value; degrees become radians in the argument of a trigonometric function.

        Raises Unreadable for what has no value, TooLarge for a number out of all proportion, and
        ZeroDivisionError, ValueError or OverflowError where the value is not defined.
        """
        match expression:
            case ("number", value):
                return value
            case ("symbol", name):
                return self._constant(name) if name in CONSTANTS else letter_value(name, self.point)
            case ("sum", terms):
                total: Any = Fraction(0)
                for sign, term in terms:
                    value = self.evaluate(term, in_angle)
                    total = self.apply(operator.add, total, value if sign == 1 else -value)
                return total
            case ("product", factors):
                total = Fraction(1)
                for factor, exponent in factors:
                    operation = operator.mul if exponent == 1 else operator.truediv
                    total = self.apply(operation, total, self.evaluate(factor, in_angle))
                return total
            case ("power", base, exponent):
                return self._power(self.evaluate(base, in_angle), self.evaluate(exponent))
            case ("root", degree, radicand):
                exponent = self.evaluate(degree)
                value = self.evaluate(radicand)
                return self._power(value, self.apply(operator.truediv, Fraction(1), exponent))
            case ("degree", inside):
                value = self.evaluate(inside)
                if not in_angle:
                    return value
                return self.apply(operator.mul, value, self.context.pi / 180)
            case ("percent", inside):
                return self.evaluate(inside) / self.percent
            case ("call", name, argument, *others):
                value = self.evaluate(argument, name in TRIGONOMETRIC)
                others = [self.evaluate(other) for other in others]
                return self._bounded(self._call(name, value, *others))
        raise Unreadable(f"a {expression[0]} has no value")

    def apply(self, operation: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
        """Return the bounded result of an operation, which is exact on two fractions."""
        if not (isinstance(one, Fraction) and isinstance(other, Fraction)):
            one, other = to_float(self.context, one), to_float(self.context, other)
        return self._bounded(operation(one, other))

    def _constant(self, name: str) -> Any:
        match name:
            case "pi":
                return +self.context.pi
            case "e":
                return +self.context.e
            case "i":
                return self.context.mpc(0, 1)
        return self.context.inf

    def _bounded(self, value: Any) -> Any:
        """Return the value; raise TooLarge for too many digits, ValueError for none at all."""
        if isinstance(value, Fraction):
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
                raise TooLarge("a fraction of too many digits")
        elif self.context.isnan(value):
            raise ValueError("not a number")
        elif value and not self.context.isinf(value):
            if abs(self.context.mag(value)) > MAX_MAGNITUDE:
                raise TooLarge("a number of too many digits")
        return value

    def _power(self, base: Any, exponent: Any) -> Any:
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            exact = self._exact_power(base, exponent)
            if exact is not None:
                return exact
        base, exponent = to_float(self.context, base), to_float(self.context, exponent)
        if abs(exponent) > MAX_MAGNITUDE:
            raise TooLarge("a power of too many digits")
        if base and abs(exponent * max(1, abs(self.context.mag(base)))) > MAX_MAGNITUDE:
            raise TooLarge("a power of too many digits")
        return self._bounded(self.context.power(base, exponent))

    def _exact_power(self, base: Fraction, exponent: Fraction) -> Any:
        """Return a power of fractions that is rational or a real root, None for any other."""
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * bits > MAX_BITS and abs(base) not in (0, 1):
            raise TooLarge("a power of too many digits")
        if exponent.denominator == 1:
            return base ** int(exponent)
        if base < 0 and exponent.denominator % 2:  # the real root, as of -8
            sign = -1 if exponent.numerator % 2 else 1
            return self.apply(operator.mul, Fraction(sign), self._power(-base, exponent))
        if base >= 0 and exponent == Fraction(1, 2):
            root = Fraction(isqrt(base.numerator), isqrt(base.denominator))
            if root**2 == base:
                return root
        return None

    def _call(self, name: str, value: Any, *others: Any) -> Any:
        if name == "abs":
            return abs(value)
        if name in ("floor", "ceil"):
            if isinstance(value, Fraction):
                return Fraction(value.__floor__() if name == "floor" else value.__ceil__())
            return getattr(self.context, name)(value)
        arguments = [value, *others]
        if name in ("factorial", "binom"):
            if any(not is_real(n) or abs(n) > MAX_FACTORIAL for n in arguments):
                raise TooLarge("a factorial of too many digits")
            if all(isinstance(n, Fraction) and n.denominator == 1 and n >= 0 for n in arguments):
                function = factorial if name == "factorial" else comb
                return Fraction(function(*map(int, arguments)))
        if name == "log" and not others:
            arguments.append(Fraction(10))
        function = getattr(self.context, MPMATH_NAMES.get(name, name))
        return function(*[to_float(self.context, argument) for argument in arguments])
