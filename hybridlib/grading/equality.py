"""Are two answers equal? Trees of `latex` compared, exactly where they are rational.

Lists and unions are compared without order, points, intervals and matrices place by place,
equations up to a factor. Scalars are evaluated: rational ones as fractions, others to 60 digits,
those with letters at random points (Schwartz 1980, Zippel 1979). There is no tolerance but that of
the 60 digits, and a difference near 0 is computed again to 150.
"""

import operator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from threading import Lock
from typing import Any

from hybridlib.grading import latex, notation
from hybridlib.grading.latex import Unreadable
from hybridlib.grading.numeric import CONSTANTS, FAR, NEAR, Values, close, floating, real

POINTS, ENOUGH = 12, 6  # letters are evaluated at so many points at most, and real ones
UNDEFINED = (ZeroDivisionError, ValueError, OverflowError)
LOCK = Lock()  # mpmath's contexts change while they compute


@dataclass(frozen=True)
class Answer:
    """`trees` are the readings of one text, as in 100,200, a number or a list; `unit` may be ""."""

    trees: tuple
    unit: str


@lru_cache(maxsize=65_536)
def read(text: str) -> Answer | None:
    """The readings of an answer, None where the grammar does not know it. Raises TooLarge."""
    readings, unit = notation.normal(text)
    trees = []
    for tokens in readings:
        with suppress(Unreadable):
            trees.append(latex.tree(tokens))
    return Answer(tuple(trees), unit) if trees else None


def equal(gold: Answer, given: Answer) -> bool:
    """Do both say the same? A unit may be left out, but it may not be another.

    Raises Unreadable where a tree has no value that this module knows, TooLarge for numbers out of
    all proportion.
    """
    if gold.unit and given.unit and gold.unit != given.unit:
        return False
    with LOCK:
        for one in gold.trees:
            for other in given.trees:
                # The sign may be left out, or be worth a hundredth: 50\% is answered by 50 and 1/2.
                ways = (1, 100) if _has("percent", [one, other]) else (1,)
                if any(_Pair(way).same(one, other) for way in ways):
                    return True
    return False


class _Pair:
    """Two trees under one reading of the percent sign."""

    def __init__(self, percent: int):
        self.percent = percent

    def same(self, one: tuple, other: tuple) -> bool:
        one, other = _plain(one), _plain(other)
        kinds = one[0], other[0]
        if kinds[0] == kinds[1] == "relation":
            return self.relations(one, other)
        if "relation" in kinds:
            return self.answered(*((one, other) if kinds[0] == "relation" else (other, one)))
        if kinds in (("list", "union"), ("union", "list")):
            one, other = _union(one), _union(other)
        if one[0] != other[0]:
            return not {one[0], other[0]} & {"list", "seq", "union", "matrix"} and (
                self.scalars(one, other)
            )
        match one[0]:
            case "list":
                return self.bijection(*_unnamed(one[1], other[1]))
            case "union":
                return self.bijection(one[1], other[1])
            case "seq":
                return one[1:3] == other[1:3] and self.each(one[3], other[3])
            case "matrix":
                return len(one[1]) == len(other[1]) and all(map(self.each, one[1], other[1]))
        return self.scalars(one, other)

    def each(self, ones: Sequence[tuple], others: Sequence[tuple]) -> bool:
        return len(ones) == len(others) and all(map(self.same, ones, others))

    def bijection(self, ones: Sequence[tuple], others: Sequence[tuple]) -> bool:
        if len(ones) != len(others):
            return False
        left = list(others)
        for one in ones:
            place = next((i for i, other in enumerate(left) if self.same(one, other)), None)
            if place is None:
                return False
            del left[place]
        return True

    def answered(self, relation: tuple, other: tuple) -> bool:
        """Is `x = 5`, `2 + 3 = 5` or `x > 5` said by 5 or an interval?"""
        _, sides, operators = relation
        if other[0] in ("seq", "union"):
            interval = _interval(relation)
            if interval:
                return self.same(interval, other)
        if operators[0] == "≈" and not _name(sides[0]):
            return self.same(sides[0], other)  # the value counts, not its decimal
        if operators == ["in"] and _name(sides[0]):
            return self.same(sides[1], other)
        if not set(operators) <= {"=", "≈"}:
            return False
        sides = [side for side in sides if not _name(side)] or sides[1:]
        return all(self.same(side, other) for side in sides)

    def relations(self, one: tuple, other: tuple) -> bool:
        (_, left, signs), (_, right, others) = _rising(one), _rising(other)
        if (signs == ["in"]) != (others == ["in"]):
            inside, relation = (one, other) if signs == ["in"] else (other, one)
            return self.answered(inside, _interval(relation) or relation)
        if signs != others:
            return False
        symmetric = set(signs) <= {"=", "!="}
        if self.each(left, right) or (symmetric and self.each(left, right[::-1])):
            return True
        if len(left) != 2 or signs[0] not in ("=", "!=", "<", "<="):
            return symmetric and self.bijection(left, right)
        # 2x = 4y says x = 2y: the differences of the sides are in one ratio wherever one looks
        ratios = []
        differences = [("sum", [(1, sides[0]), (-1, sides[1])]) for sides in (left, right)]
        if _has(("seq", "list", "union", "matrix"), differences) or not _letters(differences):
            return False
        for point in range(POINTS):
            values = Values(NEAR, point, self.percent)
            try:
                a, b = map(values.of, differences)
                ratios.append(values.joined(operator.truediv, a, b))
            except UNDEFINED:
                continue
            if not a or not close(NEAR, ratios[0], ratios[-1]):
                return False
            if len(ratios) == ENOUGH:
                break
        positive = symmetric or all(real(r) and NEAR.re(floating(NEAR, r)) > 0 for r in ratios)
        return len(ratios) > 1 and positive

    def scalars(self, one: tuple, other: tuple) -> bool:
        if one == other:
            return True
        letters = _letters([one, other])
        complex_only: list[bool] = []
        found = 0
        for point in range(POINTS if letters else 1):
            try:
                near = [Values(NEAR, point, self.percent).of(tree) for tree in (one, other)]
                same = close(NEAR, *near) or self.closer(one, other, point, near)
            except UNDEFINED:
                if not letters:
                    return False
                continue
            kinds = [real(value) for value in near]
            if letters and kinds == [False, False]:
                complex_only.append(same)  # beyond the domain, as \sqrt{x} below 0
                continue
            found += 1
            if not same or found == ENOUGH:
                return same
        return bool(found) or (bool(complex_only) and all(complex_only))

    def closer(self, one: tuple, other: tuple, point: int, near: list[Any]) -> bool:
        """Does a small difference vanish with more digits?"""
        if all(isinstance(value, Fraction) for value in near):
            return False
        gap = abs(floating(NEAR, near[0]) - floating(NEAR, near[1]))
        if not gap < NEAR.mpf(10) ** -40:
            return False
        far = [floating(FAR, Values(FAR, point, self.percent).of(tree)) for tree in (one, other)]
        return abs(far[0] - far[1]) < FAR.mpf(gap) * FAR.mpf(10) ** -60


# ---------------------------------------------------------------- structure


def _plain(tree: tuple) -> tuple:
    """Without brackets round one element, and `\\pm`, which stands for two."""
    parts = [part for one in (tree[1] if tree[0] == "list" else [tree]) for part in _both(one)]
    return ("list", parts) if len(parts) > 1 else parts[0] if parts[0] is tree else _plain(parts[0])


def _both(tree: tuple) -> list[tuple]:
    if not _has(("±", "∓"), [tree]):
        return [tree]
    return [_signed(tree, sign) for sign in (1, -1)]


def _signed(tree: Any, sign: int) -> Any:
    if isinstance(tree, tuple | list):
        return type(tree)(_signed(part, sign) for part in tree)
    return {"±": sign, "∓": -sign}.get(tree, tree) if isinstance(tree, str) else tree


def _has(kinds: str | tuple[str, ...], tree: Any) -> bool:
    if isinstance(tree, tuple | list):
        return any(_has(kinds, part) for part in tree)
    return isinstance(tree, str) and (tree in kinds if isinstance(kinds, tuple) else tree == kinds)


def _letters(tree: Any) -> bool:
    if isinstance(tree, tuple) and tree[:1] == ("symbol",):
        return tree[1] not in CONSTANTS
    return isinstance(tree, tuple | list) and any(map(_letters, tree))


def _name(tree: tuple) -> bool:
    """Is it what a value is given to, `x`, `f(x)` or `(x, y)`?"""
    if tree[0] == "product":
        return all(way == 1 and _name(part) for part, way in tree[1])
    if tree[0] == "power":  # f^{-1}(x)
        return _name(tree[1]) and tree[2] == ("sum", [(-1, ("number", Fraction(1)))])
    if tree[0] == "seq":
        return all(map(_name, tree[3]))
    return tree[0] == "symbol" and tree[1] not in CONSTANTS and not tree[1][0].isdigit()


def _unnamed(ones: list[tuple], others: list[tuple]) -> tuple[list[tuple], list[tuple]]:
    """Two lists, `x = 1, x = 2` without its name where the other has none."""
    return (ones, others) if _given(ones) == _given(others) else (_values(ones), _values(others))


def _given(parts: list[tuple]) -> bool:
    return any(part[0] == "relation" for part in parts)


def _values(parts: list[tuple]) -> list[tuple]:
    names = [p[1][0] for p in parts if p[0] == "relation" and p[2] == ["="] and _name(p[1][0])]
    if any(name != names[0] for name in names):
        return parts
    return [p[1][1] if p[0] == "relation" and p[1][0] in names else p for p in parts]


def _rising(relation: tuple) -> tuple:
    """The same with < for >."""
    kind, sides, operators = relation
    if set(operators) <= {">", ">="}:
        return kind, sides[::-1], [sign.replace(">", "<") for sign in operators[::-1]]
    return relation


def _interval(relation: tuple) -> tuple | None:
    """`1 < x \\le 2` as (1, 2]."""
    _, sides, operators = _rising(relation)
    if not set(operators) <= {"<", "<="} or len(sides) > 3:
        return None
    places = [i for i, side in enumerate(sides) if _letters(side)]
    if len(places) != 1 or not _name(sides[places[0]]) or (len(sides) == 3 and places[0] != 1):
        return None
    infinity = ("symbol", "infty")
    lower, upper = (("sum", [(-1, infinity)]), "<"), (infinity, "<")
    if places[0]:
        lower = sides[0], operators[0]
    if places[0] < len(sides) - 1:
        upper = sides[-1], operators[-1]
    return ("seq", "(" if lower[1] == "<" else "[", ")" if upper[1] == "<" else "]",
            [lower[0], upper[0]])  # fmt: skip


def _union(tree: tuple) -> tuple:
    """`x < 1 or x > 2` as a union of intervals."""
    intervals = [_interval(part) if part[0] == "relation" else None for part in tree[1]]
    return ("union", intervals) if all(intervals) else tree
