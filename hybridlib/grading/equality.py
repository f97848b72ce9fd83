"""Are two answers equal? Expressions of `latex` compared, exactly where they are rational.

Lists and unions are compared without order, points, intervals and matrices place by place,
equations up to a factor. Scalars are evaluated: rational ones as fractions, others to 60 digits,
those with letters at random points (Schwartz 1980, Zippel 1979). There is no tolerance but that of
the 60 digits, and a difference near 0 is computed again to 150.
"""

import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from threading import Lock
from typing import Any

from hybridlib.grading import evaluated, latex, notation, question, structure
from hybridlib.grading.latex import Expression, Unreadable
from hybridlib.grading.numeric import (
    PRECISE,
    WORKING,
    Evaluator,
    as_fraction,
    is_close,
    is_real,
    to_float,
)

MAX_POINTS = 12  # at which letters are evaluated at most
ENOUGH_POINTS = 6  # after so many points with a real value the answer is taken for settled
SMALL_DIFFERENCE = 40  # decimal places; a smaller one is computed again with more digits
VANISHED = 60  # decimal places that such a difference has to lose with more digits
UNDEFINED = (ZeroDivisionError, ValueError, OverflowError)
LOCK = Lock()  # mpmath's contexts change while they compute
COMPOUND = {"list", "seq", "union", "matrix"}


@dataclass(frozen=True)
class Answer:
    """What a text says: its readings, as 100,200 is a number or a list, and its unit or "".

    `decimal` is what the text says if its comma is a decimal one, which only a gold can tell;
    `percent` and `matrix` say whether a percent sign or a matrix stands in it.
    """

    readings: tuple[Expression, ...]
    unit: str
    decimal: Expression | None = None
    percent: bool = False
    matrix: bool = False


@lru_cache(maxsize=65_536)
def parse_answer(text: str) -> Answer | None:
    """Return the answer that a text is, None where the grammar does not know it.

    Raises TooLarge for brackets that are nested too deep.
    """
    token_lists, unit = notation.normalise(text)
    readings = []
    for tokens in token_lists:
        with suppress(Unreadable):
            readings.append(latex.parse(tokens))
    decimal = notation.with_decimal_point(text)
    if not readings:
        return None
    percent = structure.contains(readings, {"percent"})
    matrix = "\\begin" in token_lists[0]
    return Answer(tuple(readings), unit, _number(decimal), percent, matrix)


def _number(text: str) -> Expression | None:
    return ("number", Fraction(text)) if text else None


def equal(gold: Answer, given: Answer) -> bool:
    """Say whether two answers are equal; a unit may be left out, but it may not be another.

    Raises Unreadable where an expression has no value that `numeric` knows, TooLarge for numbers
    out of all proportion. Safe in threads.
    """
    # The sign may be left out, or be worth a hundredth: 50\% is answered by 50 and 1/2.
    percents = (1, 100) if gold.percent or given.percent else (1,)
    if given.percent and not gold.percent and latex.is_proper_fraction(gold.readings[0]):
        percents = (100,)
    one_angle = _is_angle_in_degrees(gold, given)
    in_cents = _in_cents(gold, given)
    if gold.unit != given.unit and not one_angle and not in_cents:
        if (gold.unit and given.unit) or _is_multiple_of_pi_in_degrees(gold, given):
            return False
    gold_readings, given_readings = gold.readings, given.readings
    if one_angle and gold.unit == "degree":
        gold_readings = tuple(map(_in_radians, gold_readings))
    elif one_angle:
        given_readings = tuple(map(_in_radians, given_readings))
    gold_forms = gold_readings
    if in_cents and gold.unit == "cent":
        gold_readings = tuple(map(_in_dollars, gold_readings))
    elif in_cents:
        given_readings = tuple(map(_in_dollars, given_readings))
    if gold.matrix or given.matrix:
        gold_readings = tuple(map(structure.carried_out, gold_readings))
        given_readings = tuple(map(structure.carried_out, given_readings))
    candidates = list(zip(given_readings, given.readings, strict=True))
    if in_cents and not gold.unit:
        candidates += list(zip(given.readings, given.readings, strict=True))  # 0.75 cents for 0.75
    if given.decimal and gold.readings[0][0] != "list":
        candidates.append((given.decimal, given.decimal))
    with LOCK:
        for one, gold_form in zip(gold_readings, gold_forms, strict=True):
            for other, as_written in candidates:
                if any(
                    _Comparison(percent).equal(one, other) for percent in percents
                ) and evaluated.is_evaluated(as_written, gold_form):
                    return True
    return False


def equal_rounded(gold: Answer, given: Answer, asked: str) -> bool:
    """Say whether an answer is the number that the gold is, rounded as the question asks.

    Raises as `equal` does.
    """
    if gold.unit and given.unit and gold.unit != given.unit and given.unit != "percent":
        return False
    number, exact = _right_side(given.readings[0]), _right_side(gold.readings[0])
    if structure.has_letters([number, exact]) or structure.contains([exact], COMPOUND):
        return False
    if "percent" in asked.split() and given.unit == "percent" and gold.unit != "percent":
        exact = ("product", [(exact, 1), (("number", Fraction(100)), 1)])
    elif given.unit == "percent" != gold.unit:
        return False
    with LOCK:
        value = Evaluator(WORKING, 0, 1).evaluate(exact)
        if not is_real(value):
            return False
        written = evaluated.decimal_value(number)
        return written is not None and question.is_rounded(as_fraction(value), written, asked)


def _right_side(expression: Expression) -> Expression:
    """Return 3.3 of `x = 3.3`, other expressions as they are."""
    match expression:
        case ("relation", [name, value], ["=" | "≈"]) if structure.is_name(name):
            return value
    return expression


def _in_cents(gold: Answer, given: Answer) -> bool:
    """Say whether one answer is in cents and the other in dollars, or a decimal without a unit."""
    if {gold.unit, given.unit} == {"cent", "dollar"}:
        return True
    value = evaluated.decimal_value(gold.readings[0])
    in_decimals = value is not None and value.denominator > 1
    return (gold.unit, given.unit) == ("", "cent") and in_decimals


def _in_dollars(expression: Expression) -> Expression:
    return ("product", [(expression, 1), (("number", Fraction(100)), -1)])


def _is_angle_in_degrees(gold: Answer, given: Answer) -> bool:
    """Say whether one answer is in degrees, the other by its unit or its pi in radians."""
    for degrees, radians in ((gold, given), (given, gold)):
        if degrees.unit == "degree" and not structure.contains(degrees.readings, {"pi", "list"}):
            with_pi = structure.contains(radians.readings, {"pi"}) and radians.unit == ""
            if radians.unit == "radian" or with_pi:
                return not structure.contains(radians.readings, {"list", "relation", "call"})
    return False


def _is_multiple_of_pi_in_degrees(gold: Answer, given: Answer) -> bool:
    """Say whether one answer has a pi in degrees, and the other has a pi and no unit."""
    return (
        {gold.unit, given.unit} == {"degree", ""}
        and structure.contains(gold.readings, {"pi"})
        and structure.contains(given.readings, {"pi"})
    )


def _in_radians(expression: Expression) -> Expression:
    half_turn = ("number", Fraction(180))
    return ("product", [(expression, 1), (("symbol", "pi"), 1), (half_turn, -1)])


class _Comparison:
    """Compares expressions under one reading of the percent sign, as 1 or as 1/100."""

    def __init__(self, percent: int):
        self.percent = percent

    def equal(self, one: Expression, other: Expression) -> bool:
        one, other = structure.unwrap(one), structure.unwrap(other)
        if one[0] == other[0] == "relation":
            return self.equal_relations(one, other)
        if one[0] == "relation":
            return self.states(one, other) or self.equal_ratio(one, other)
        if other[0] == "relation":
            is_stated = self.states(other, one, structure.is_combination)
            return is_stated or self.equal_ratio(other, one)
        if {one[0], other[0]} == {"list", "union"}:
            one, other = structure.as_union(one), structure.as_union(other)
        if one[0] != other[0]:
            return not {one[0], other[0]} & COMPOUND and self.equal_scalars(one, other)
        match one[0]:
            case "list":
                return self.equal_unordered(*structure.without_names(one[1], other[1]))
            case "union":
                return self.equal_unordered(one[1], other[1])
            case "seq":
                return one[1:3] == other[1:3] and self.equal_in_order(one[3], other[3])
            case "matrix":
                same_height = len(one[1]) == len(other[1])
                return same_height and all(map(self.equal_in_order, one[1], other[1]))
        return self.equal_scalars(one, other)

    def equal_in_order(self, ones: Sequence[Expression], others: Sequence[Expression]) -> bool:
        return len(ones) == len(others) and all(map(self.equal, ones, others))

    def equal_unordered(self, ones: Sequence[Expression], others: Sequence[Expression]) -> bool:
        if len(ones) != len(others):
            return False
        unmatched = list(others)
        for one in ones:
            for place, other in enumerate(unmatched):
                if self.equal(one, other):
                    del unmatched[place]
                    break
            else:
                return False
        return True

    def states(
        self,
        relation: Expression,
        answer: Expression,
        names: Callable[[Expression], bool] = structure.is_name,
    ) -> bool:
        """Say whether `x = 5`, `2 + 3 = 5` or `x > 5` is answered by 5 or an interval.

        Sides that are `names`, or quantities, are what the others give a value to.
        """
        _, sides, operators = relation
        if answer[0] in ("seq", "union"):
            interval = structure.as_interval(relation)
            if interval:
                return self.equal(interval, answer)
        if operators[0] == "≈" and not structure.is_name(sides[0]):
            return self.equal(sides[0], answer)  # the value counts, not its decimal
        if operators == ["in"] and structure.is_name(sides[0]):
            return self.equal(sides[1], answer)
        if not set(operators) <= {"=", "≈"}:
            return False
        named = [side for side in sides if structure.is_quantity(side) or names(side)]
        values = [side for side in sides if side not in named] or sides[1:]
        return all(self.equal(value, answer) for value in values)

    def equal_ratio(self, relation: Expression, answer: Expression) -> bool:
        """Say whether `3:2` is answered by a fraction."""
        ratio = structure.as_ratio(relation)
        return bool(ratio) and structure.is_fraction(answer) and self.equal(ratio, answer)

    # ------------------------------------------------------------ relations

    def equal_relations(self, one: Expression, other: Expression) -> bool:
        _, left, operators = structure.ascending(one)
        _, right, other_operators = structure.ascending(other)
        if (operators == ["in"]) != (other_operators == ["in"]):
            membership, inequality = (one, other) if operators == ["in"] else (other, one)
            return self.states(membership, structure.as_interval(inequality) or inequality)
        if operators != other_operators:
            return False
        if operators == [":"]:
            return self.equal(structure.as_ratio(one), structure.as_ratio(other))
        symmetric = set(operators) <= {"=", "!="}
        if self.equal_in_order(left, right):
            return True
        if symmetric and self.equal_in_order(left, right[::-1]):
            return True
        if len(left) != 2 or operators[0] not in ("=", "!=", "<", "<="):
            return symmetric and self.equal_unordered(left, right)
        return self.equal_up_to_factor(left, right, any_sign=symmetric)

    def equal_up_to_factor(
        self, left: list[Expression], right: list[Expression], any_sign: bool
    ) -> bool:
        """Say whether 2x = 4y says x = 2y, given the two sides of both.

        Then the differences of the sides are in one ratio at all points; of an inequality that
        ratio has to be positive.
        """
        differences = [("sum", [(1, sides[0]), (-1, sides[1])]) for sides in (left, right)]
        if structure.contains(differences, COMPOUND) or not structure.has_letters(differences):
            return False
        ratios: list[Any] = []
        for point in range(MAX_POINTS):
            evaluator = Evaluator(WORKING, point, self.percent)
            try:
                above, below = map(evaluator.evaluate, differences)
                ratios.append(evaluator.apply(operator.truediv, above, below))
            except UNDEFINED:
                continue
            if not above or not is_close(ratios[0], ratios[-1]):
                return False
            if len(ratios) == ENOUGH_POINTS:
                break
        return len(ratios) > 1 and (any_sign or all(map(_is_positive, ratios)))

    # ------------------------------------------------------------ scalars

    def equal_scalars(self, one: Expression, other: Expression) -> bool:
        if one == other:
            return True
        if not structure.has_letters([one, other]):
            try:
                return self.equal_at(one, other, point=0)[0]
            except UNDEFINED:
                return False
        n_real = 0
        complex_verdicts: list[bool] = []  # beyond the domain, as \sqrt{x} below 0
        for point in range(MAX_POINTS):
            try:
                is_equal, any_real = self.equal_at(one, other, point)
            except UNDEFINED:
                continue
            if not any_real:
                complex_verdicts.append(is_equal)
                continue
            n_real += 1
            if not is_equal or n_real == ENOUGH_POINTS:
                return is_equal
        return n_real > 0 or (bool(complex_verdicts) and all(complex_verdicts))

    def equal_at(self, one: Expression, other: Expression, point: int) -> tuple[bool, bool]:
        """Say whether two scalars are equal at a point, and whether either is real there."""
        evaluator = Evaluator(WORKING, point, self.percent)
        values = [evaluator.evaluate(one), evaluator.evaluate(other)]
        is_equal = is_close(*values) or self.difference_vanishes(one, other, point, values)
        return is_equal, any(map(is_real, values))

    def difference_vanishes(
        self, one: Expression, other: Expression, point: int, values: list[Any]
    ) -> bool:
        """Say whether the small difference of two inexact values vanishes with more digits."""
        if all(isinstance(value, Fraction) for value in values):
            return False
        difference = abs(to_float(WORKING, values[0]) - to_float(WORKING, values[1]))
        if not difference < WORKING.mpf(10) ** -SMALL_DIFFERENCE:
            return False
        evaluator = Evaluator(PRECISE, point, self.percent)
        precise = [to_float(PRECISE, evaluator.evaluate(side)) for side in (one, other)]
        limit = PRECISE.mpf(difference) * PRECISE.mpf(10) ** -VANISHED
        return abs(precise[0] - precise[1]) < limit


def _is_positive(ratio: Any) -> bool:
    return is_real(ratio) and WORKING.re(to_float(WORKING, ratio)) > 0
