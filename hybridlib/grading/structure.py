r"""Which expressions say the same in another form? Lists, relations, intervals, unions in one form.

Expressions are the nested tuples of `latex`; everything here looks at their form and computes
nothing.
"""

import re
from collections.abc import Sequence, Set
from typing import Any

from hybridlib.grading.latex import CONSTANTS, INFINITY, INVERSE, Expression

VECTOR = re.compile(r"[zwuv](?:\Z|['_])|(?:vec|overrightarrow)\(")


def unwrap(expression: Expression) -> Expression:
    """Return the expression without brackets round one element, `\\pm` as a list of two."""
    outer = expression[1] if expression[0] == "list" else [expression]
    parts = [signed for part in outer for signed in _both_signs(part)]
    if len(parts) > 1:
        return ("list", parts)
    return parts[0] if parts[0] is expression else unwrap(parts[0])


def carried_out(expression: Expression) -> Expression:
    """Return the matrix that a sum or a product with matrices is, also within lists and relations.

    Where the sizes do not fit, the expression stays as it is.
    """
    match expression:
        case ("list", parts):
            return ("list", [carried_out(part) for part in parts])
        case ("relation", sides, operators):
            return ("relation", [carried_out(side) for side in sides], operators)
        case ("sum", terms):
            return _sum_of_matrices([(sign, carried_out(term)) for sign, term in terms])
        case ("product", factors):
            return _product_of_matrices([(carried_out(part), power) for part, power in factors])
    return expression


def _sum_of_matrices(terms: list[tuple[Any, Expression]]) -> Expression:
    shapes = {_shape(term) for _, term in terms}
    if len(shapes) > 1 or None in shapes:
        return ("sum", terms)
    matrices = [term[1] for _, term in terms]
    together = [zip(*rows, strict=True) for rows in zip(*matrices, strict=True)]
    signs = [sign for sign, _ in terms]
    return (
        "matrix",
        [[("sum", list(zip(signs, entries, strict=True))) for entries in row] for row in together],
    )


def _product_of_matrices(factors: list[tuple[Expression, int]]) -> Expression:
    numbers = [pair for pair in factors if pair[0][0] != "matrix"]
    matrices = [rows for (kind, rows, *_), power in factors if kind == "matrix" and power == 1]
    if not matrices or len(numbers) + len(matrices) < len(factors):
        return ("product", factors)
    product = matrices[0]
    for rows in matrices[1:]:
        if {len(row) for row in product} != {len(rows)}:
            return ("product", factors)
        columns = list(zip(*rows, strict=True))
        product = [[_dot(row, column) for column in columns] for row in product]
    return ("matrix", [[("product", [*numbers, (entry, 1)]) for entry in row] for row in product])


def _dot(row: Sequence[Expression], column: Sequence[Expression]) -> Expression:
    pairs = zip(row, column, strict=True)
    return ("sum", [(1, ("product", [(one, 1), (other, 1)])) for one, other in pairs])


def _shape(expression: Expression) -> tuple[int, ...] | None:
    return tuple(map(len, expression[1])) if expression[0] == "matrix" else None


def as_ratio(expression: Expression) -> Expression | None:
    """Return `3:2` as the fraction that it is, None for what is no ratio of two parts."""
    if expression[0] != "relation" or expression[2] != [":"]:
        return None
    return ("product", [(expression[1][0], 1), (expression[1][1], -1)])


def is_fraction(expression: Expression) -> bool:
    """Say whether an expression is written as one part divided by another."""
    return expression[0] == "product" and [power for _, power in expression[1]] == [1, -1]


def _both_signs(expression: Expression) -> list[Expression]:
    if not contains(expression, {"±", "∓"}):
        return [expression]
    return [_with_sign(expression, sign) for sign in (1, -1)]


def _with_sign(expression: Any, sign: int) -> Any:
    """Return the expression, or a part of it, with `sign` for ± and its opposite for ∓."""
    if isinstance(expression, tuple | list):
        return type(expression)(_with_sign(part, sign) for part in expression)
    if isinstance(expression, str):
        return {"±": sign, "∓": -sign}.get(expression, expression)
    return expression


def contains(expression: Any, words: Set[str]) -> bool:
    """Say whether one of these words stands anywhere in an expression or a list of them."""
    parts = [expression]
    while parts:  # a loop, as most of the time of a verdict would go into the calls
        part = parts.pop()
        kind = part.__class__
        if kind is str:
            if part in words:
                return True
        elif kind is tuple or kind is list:
            parts.extend(part)
    return False


def has_letters(expression: Any) -> bool:
    """Say whether an expression, or one in a list of them, has a symbol that is no constant."""
    if isinstance(expression, tuple) and expression[:1] == ("symbol",):
        return expression[1] not in CONSTANTS
    return isinstance(expression, tuple | list) and any(map(has_letters, expression))


def is_name(expression: Expression) -> bool:
    """Say whether a value can be given to this expression, as to `x`, `f(x)` or `(x, y)`."""
    match expression:
        case ("product", factors):
            return all(exponent == 1 and is_name(factor) for factor, exponent in factors)
        case ("power", base, exponent):  # f^{-1}(x)
            return is_name(base) and exponent == INVERSE
        case ("seq", _, _, parts):
            return all(map(is_name, parts))
        case ("symbol", name):
            return name not in CONSTANTS and not name[0].isdigit()
    return False


def is_quantity(expression: Expression) -> bool:
    """Say whether this names a quantity, as `x`, `|AB|`, `f(3)` and `\\sin A` do."""
    match expression:
        case ("call", "abs", ("symbol", name)):
            return len(name) == 2 and name.isupper()
        case ("call", "sin" | "cos" | "tan" | "cot" | "sec" | "csc", argument):
            return is_name(argument)
        case ("product", [(("symbol", name), 1), *others]) if name not in CONSTANTS:
            return all(power == 1 and (_is_number(part) or is_name(part)) for part, power in others)
    return is_name(expression)


def is_combination(expression: Expression) -> bool:
    """Say whether this combines unknowns, as `x + y` and `|z|` do, but solves for none of them."""
    match expression:
        case ("call", "abs", ("sum", terms)):
            return all(_is_vector(term) for _, term in terms)
        case ("call", "abs", inside):
            return _is_vector(inside)
        case ("sum", [_, _, *_] as terms):
            parts = [_without_power(term) for sign, term in terms if sign in (1, -1)]
            return len(parts) == len(terms) and all(map(is_name, parts)) and len(_names(parts)) > 1
    return False


def combines(expression: Expression) -> bool:
    """Say whether this is an equation that tells what a combination of unknowns is worth."""
    return expression[0] == "relation" and any(map(is_combination, expression[1]))


def _is_vector(expression: Expression) -> bool:
    """Say whether a name is one of complex numbers or vectors, whose size does not tell them."""
    return expression[0] == "symbol" and bool(VECTOR.match(expression[1]))


def _without_power(term: Expression) -> Expression:
    is_power = term[0] == "power" and _is_number(term[2])
    return term[1] if is_power else term


def _names(expression: Any) -> set[str]:
    """Return the names of all symbols in an expression or a list of them."""
    if isinstance(expression, tuple) and expression[:1] == ("symbol",):
        return {expression[1]}
    if not isinstance(expression, tuple | list):
        return set()
    return {name for part in expression for name in _names(part)}


def _is_number(expression: Expression) -> bool:
    """Say whether this is a number with or without a sign."""
    if expression[0] == "sum" and len(expression[1]) == 1:
        return _is_number(expression[1][0][1])
    return expression[0] == "number"


def without_names(
    ones: list[Expression], others: list[Expression]
) -> tuple[list[Expression], list[Expression]]:
    """Return two lists, `x = 1, x = 2` without its name if the other has no relations."""
    if _any_relation(ones) == _any_relation(others):
        return ones, others
    return _right_sides(ones), _right_sides(others)


def _any_relation(parts: list[Expression]) -> bool:
    return any(part[0] == "relation" for part in parts)


def _right_sides(parts: list[Expression]) -> list[Expression]:
    """Return the values of the equations in a list, if all give them to the same name."""
    names = [
        part[1][0]
        for part in parts
        if part[0] == "relation" and part[2] == ["="] and is_name(part[1][0])
    ]
    if any(name != names[0] for name in names):
        return parts
    return [part[1][1] if part[0] == "relation" and part[1][0] in names else part for part in parts]


def ascending(relation: Expression) -> Expression:
    """Return the relation written with < and <= instead of > and >=."""
    kind, sides, operators = relation
    if not set(operators) <= {">", ">="}:
        return relation
    return kind, sides[::-1], [sign.replace(">", "<") for sign in operators[::-1]]


def as_interval(relation: Expression) -> Expression | None:
    """Return `1 < x \\le 2` as the interval (1, 2], None where the relation bounds no name.

    `x \\ne 2` is a union of two.
    """
    _, sides, operators = ascending(relation)
    if operators == ["!="] and is_name(sides[0]) and not has_letters(sides[1]):
        below, above = ("sum", [(-1, INFINITY)]), INFINITY
        return (
            "union",
            [("seq", "(", ")", [below, sides[1]]), ("seq", "(", ")", [sides[1], above])],
        )
    if not set(operators) <= {"<", "<="} or len(sides) > 3:
        return None
    places = [place for place, side in enumerate(sides) if has_letters(side)]
    if len(places) != 1 or not is_name(sides[places[0]]):
        return None
    place = places[0]
    if len(sides) == 3 and place != 1:
        return None
    lower, opening = ("sum", [(-1, INFINITY)]), "("
    upper, closing = INFINITY, ")"
    if place > 0:
        lower, opening = sides[0], "(" if operators[0] == "<" else "["
    if place < len(sides) - 1:
        upper, closing = sides[-1], ")" if operators[-1] == "<" else "]"
    return ("seq", opening, closing, [lower, upper])


def as_union(expression: Expression) -> Expression:
    """Return `x < 1 or x > 2` as a union of intervals, other lists and unions as they are."""
    intervals = [as_interval(part) if part[0] == "relation" else None for part in expression[1]]
    return ("union", intervals) if all(intervals) else expression
