r"""Is an answer worked out, or is it the question's formula again? The gold's form says how far.

`2 \cdot 9 - 5` is equal to 13 and answers nothing. Each expression has a set of operations that
are left to carry out, and an answer may leave only those that its gold leaves, too: 13 leaves
none, `2\sqrt{3}` a root, `x + 3` a letter. Fractions, decimals, `3.5 \times 10^4` and `50\%` are
numbers. Everything here looks at forms, of nested tuples as in `latex`; the values are compared
elsewhere.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import gcd, isqrt, prod

from hybridlib.grading import structure
from hybridlib.grading.latex import CONSTANTS, Expression
from hybridlib.grading.notation import FUNCTIONS

Factor = tuple[Expression, int]  # and its exponent, 1 or -1
LOGARITHMS = {"log", "ln"}
SHORTEST_POWER_OF_TEN = 4  # 10^4 is a way to write a number, 10^2 a power to compute
SQUARES = [prime**2 for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)]
LARGEST_DEGREE = 99  # of a root that is looked into
TEN = ("number", Fraction(10))
ROOTS = {"root", "sum", "pi"}
WORKED_OUT = {  # operation that a gold leaves -> what is left when it is carried out
    "call angle": ROOTS, "power": ROOTS, "power of i": ROOTS | {"i"}, "quotient by a sum": ROOTS,
    "rational root": {"i", "call abs"}, "call binom": {"factors"}, "power in a root": {"call abs"},
}  # fmt: skip


def is_evaluated(given: Expression, gold: Expression) -> bool:
    """Say whether an answer that equals the gold leaves no operation that the gold does not.

    An equation counts by its value: one of its sides has to be worked out. Where the gold gives a
    letter its value, so does the answer: `3x - 2 = 10` does not say that `x = 4`.
    """
    if _is_solved(gold) and given[0] == "relation" and not _is_solved(given):
        return False
    allowed = _left_to_do(gold)
    if gold[0] == "relation" and gold[2] == [":"]:
        allowed.add("quotient")  # 2/1 for 2:1
    for operation, results in WORKED_OUT.items():
        if operation in allowed:
            allowed |= results
    for form in _forms(given, gold):
        left = _left_to_do(form)
        if left <= allowed and not (_is_factored(gold) and _is_polynomial(form)):
            return True
    return False


def is_simplified(given: Expression, gold: Expression) -> bool:
    """Say whether an answer that equals the gold is simplified as far as the gold is.

    No common factor is left in a fraction or a ratio, no square in a root, no root in a divisor.
    """
    allowed = _to_simplify(gold)
    return any(_to_simplify(form) <= allowed for form in _forms(given, gold))


def _to_simplify(expression: Expression) -> set[str]:
    """Return what could be simplified in an expression and all its parts."""
    found = set()
    match expression:
        case ("product", _):
            factors = [
                (factor, power)
                for part, exponent in expression[1]
                for factor, power in _flat_quotient(part, exponent)
            ]
            above = [_content(factor) for factor, power in factors if power == 1]
            below = [_content(factor) for factor, power in factors if power == -1]
            if gcd(prod(above), prod(below)) > 1:
                found.add("common factor")
            if any(power == -1 and structure.contains([f], {"root"}) for f, power in factors):
                found.add("root in a divisor")
        case ("relation", [one, other], [":"]):
            if gcd(_content(one), _content(other)) > 1:
                found.add("common factor")
        case ("root", ("number", degree), ("number", radicand)):
            whole = radicand.denominator == 1 and 1 < degree < LARGEST_DEGREE
            if whole and _has_power(int(radicand), int(degree)):
                found.add("square in a root")
        case ("root", _, radicand) if structure.is_fraction(radicand):
            found.add("fraction in a root")
    inside = expression[1] if expression[0] == "product" else []
    for part in [factor for factor, _ in inside] or _parts(expression):
        found |= _to_simplify(part)
    return found


def _flat_quotient(expression: Expression, exponent: int) -> list[Factor]:
    """Return the factors of a product of products and quotients."""
    expression = _unsigned(expression)
    if expression[0] != "product":
        return [(expression, exponent)]
    parts = [_flat_quotient(factor, exponent * power) for factor, power in expression[1]]
    return [factor for part in parts for factor in part]


def _content(expression: Expression) -> int:
    """Return the largest whole number that an expression is a multiple of, as it is written."""
    match expression:
        case ("number", value):
            return abs(int(value)) if value.denominator == 1 and value else 1
        case ("sum", terms):
            return gcd(*(_content(term) for _, term in terms))
        case ("product", _):
            flat = _flat_quotient(expression, 1)
            if any(power == -1 for _, power in flat):
                return 1
            return prod(_content(factor) for factor, _ in flat)
    return 1


def _has_power(number: int, degree: int) -> bool:
    """Say whether a square (a cube, ...) of a small prime divides a number."""
    return number > 0 and any(number % isqrt(square) ** degree == 0 for square in SQUARES)


def decimal_value(expression: Expression) -> Fraction | None:
    """Return the value of a number that is written in digits, with its signs; None for others."""
    return None if structure.contains([expression], {"product"}) else _value(expression)


def _forms(given: Expression, gold: Expression) -> Iterator[Expression]:
    """Yield what may count as the answer: of `2 + 3 = 5`, unless the gold is one, each side."""
    yield given
    if given[0] == "relation" and gold[0] != "relation" and set(given[2]) <= {"=", "≈"}:
        yield from (side for side in given[1] if not structure.is_quantity(side))


def _is_solved(expression: Expression) -> bool:
    """Say whether a relation bounds a name, or gives it its value, without other letters."""
    if expression[0] != "relation":
        return False
    names = [side for side in expression[1] if structure.is_name(side)]
    others = [side for side in expression[1] if not structure.is_name(side)]
    return len(names) == 1 and not structure.has_letters(others)


def _left_to_do(expression: Expression) -> set[str]:
    """Return the names of the operations that are left in an expression and all its parts."""
    operations = set(_operations(expression))
    for part in _parts(expression):
        operations |= _left_to_do(part)
    return operations


def _parts(expression: Expression) -> list[Expression]:
    match expression:
        case ("sum", terms):
            return [term for _, term in terms]
        case ("product", factors) if not _is_number(expression):
            return [factor for factor, _ in factors]
        case ("power", base, exponent) if not _is_number(expression):
            return [exponent] if _is_root(expression) and _is_number(exponent) else [base, exponent]
        case ("root", degree, radicand):
            return [radicand] if _is_number(degree) else [degree, radicand]
        case ("call", _, *arguments):
            return [argument for argument in arguments if argument]
        case ("degree" | "percent", inside):
            return [inside]
        case ("list" | "union", parts) | ("seq", _, _, parts):
            return list(parts)
        case ("relation", sides, _) if _is_solved(expression):
            return [side for side in sides if not structure.is_name(side)]
        case ("relation", sides, _):
            return list(sides)
        case ("matrix", rows):
            return [entry for row in rows for entry in row]
    return []


def _operations(expression: Expression) -> Iterator[str]:
    """Yield the operations that the outermost node of an expression leaves to carry out."""
    if _is_number(expression):
        return
    match expression:
        case ("number", _):
            return
        case ("symbol", name) if name != "infty":
            yield name if name in CONSTANTS else "letter"
        case ("sum", terms):
            yield from _operations_of_sum(terms)
        case ("product", _):
            yield from _operations_of_product(_flat(expression))
            if _is_factored(expression):
                yield "factors"
        case ("power", base, exponent):
            yield from _operations_of_power(expression, base, exponent)
        case ("root", _, radicand):
            yield "root"
            if _has_rational_root(expression, radicand):
                yield "rational root"
            if radicand[0] == "power":
                yield "power in a root"
            if structure.contains(radicand, {"root"}):
                yield "root in a root"
        case ("call", "exp", _):
            yield "e"
        case ("call", name, *_):
            yield f"call {_family(name)}"


def _operations_of_sum(terms: list[tuple[int, Expression]]) -> Iterator[str]:
    if len(terms) < 2:
        return
    if sum(structure.contains(term, {"matrix"}) for _, term in terms) > 1:
        yield "sum of matrices"
    if not all(structure.has_letters(term) for _, term in terms):
        n_constant = sum(not structure.has_letters(term) for _, term in terms)
        if n_constant > 1:
            yield "sum"
    if sum(structure.contains([term], {"call"}) for _, term in terms) > 1:
        yield "sum of calls"
    kinds = [_kind_of_term(term) for _, term in terms]
    if len(set(kinds)) < len(kinds):
        yield "like terms"
    if any(_multiplies_out(term) for _, term in terms):
        yield "brackets in a sum"


def _kind_of_term(term: Expression) -> tuple:
    """Return what a term is a multiple of, the same for like terms as `3x` and `-x`."""
    term = _unsigned(term)
    factors = [factor for factor in _flat(term) if not _is_number(factor[0])]
    return tuple(sorted((repr(_square_free(factor)), exponent) for factor, exponent in factors))


def _square_free(factor: Expression) -> Expression:
    """Return the root of a whole number as that of its square-free part: \\sqrt{8} as \\sqrt{2}."""
    match factor:
        case ("root", ("number", degree), ("number", radicand)) if degree == 2:
            if radicand.denominator == 1 and radicand < 10**9:
                number = int(radicand)
                for square in SQUARES:
                    while number and number % square == 0:
                        number //= square
                return ("root", factor[1], ("number", Fraction(number)))
    return factor


def _multiplies_out(term: Expression) -> bool:
    """Say whether a term has a bracket to multiply or to divide, as in `3(x + 1) + 2`."""
    factors = _flat(_unsigned(term))
    sums = [factor for factor, exponent in factors if exponent == 1 and _is_sum(factor)]
    powers = [factor for factor, _ in factors if factor[0] == "power" and _is_sum(factor[1])]
    divided = any(exponent == -1 and not _is_number(factor) for factor, exponent in factors)
    whole = [power for power in powers if _is_number(power[2])]
    return bool((sums and not divided) or whole)


def _operations_of_product(factors: list[Factor]) -> Iterator[str]:
    numbers = [factor for factor in factors if _is_number(factor[0])]
    above = [factor for factor, exponent in numbers if exponent == 1]
    below = [factor for factor, exponent in numbers if exponent == -1]
    if len(above) > 1 or len(below) > 1:
        yield "product"
    elif above and below and _divides(below[0], above[0]):
        yield "quotient"
    others = [(factor, exponent) for factor, exponent in factors if not _is_number(factor)]
    if sum(structure.contains(factor, {"matrix"}) for factor, _ in others) > 1:
        yield "product of matrices"
    names = [(_base(factor), exponent) for factor, exponent in others]
    letters = [repr(name) for name, _ in names if structure.is_name(name)]
    if len(set(letters)) < len(letters):
        yield "product of letters"
    constant = [factor for factor in others if not structure.has_letters(factor[0])]
    if sum(exponent == 1 and factor[0] == "root" for factor, exponent in others) > 1:
        yield "product of roots"
    if sum(exponent == 1 and _is_sum(_base(factor)) for factor, exponent in constant) > 1:
        yield "product of sums"
    for factor, exponent in factors:
        if exponent == -1 and structure.contains([factor], {"i"}):
            yield "quotient by i"
        if exponent == -1 and _is_sum(_base(factor)):
            if structure.has_letters(factor):
                yield "quotient by a sum of letters"
            else:
                yield "quotient by a sum"


def _is_factored(expression: Expression) -> bool:
    """Say whether this is a product or a power of brackets with letters, as `2(x + 1)^3`."""
    factors = _flat(expression)
    if any(exponent == -1 and structure.has_letters(factor) for factor, exponent in factors):
        return False
    brackets = [factor for factor, exponent in factors if exponent == 1 and _is_bracket(factor)]
    n_above = sum(exponent == 1 for _, exponent in factors)
    return bool(brackets) and (n_above > 1 or brackets[0][0] == "power")


def _is_bracket(factor: Expression) -> bool:
    """Say whether a factor is a sum with letters, or such a sum to a whole power."""
    if factor[0] == "power" and not (_is_number(factor[2]) and not _is_root(factor)):
        return False
    return _is_sum(_base(factor)) and structure.has_letters(_base(factor))


def _is_polynomial(expression: Expression) -> bool:
    """Say whether this is a sum of terms without brackets, as `x^2 + 3x`."""
    return _is_sum(expression) and not any(_multiplies_out(term) for _, term in expression[1])


def _operations_of_power(
    expression: Expression, base: Expression, exponent: Expression
) -> Iterator[str]:
    if _is_root(expression):
        yield "root"
        if _has_rational_root(expression, base):
            yield "rational root"
    elif _is_number(exponent) and not structure.has_letters(base):
        yield "e" if base == ("symbol", "e") else "power"
    elif _is_number(exponent) and base[0] in ("product", "power"):
        yield "power of a product"
    elif _is_factored(expression):
        yield "factors"
    if not structure.has_letters(exponent) and structure.contains([exponent], {"i"}):
        yield "power of i"


def _is_root(expression: Expression) -> bool:
    """Say whether a power is a root: its exponent is a fraction."""
    value = _value(expression[2])
    return value is not None and value.denominator > 1


def _has_rational_root(expression: Expression, radicand: Expression) -> bool:
    """Say whether the root of a number is a number, as of 16 and of 8^(2/3)."""
    value = _value(radicand)
    if expression[0] == "root":
        degree = _value(expression[1])
    else:
        exponent = _value(expression[2])
        degree = exponent and Fraction(exponent.denominator)
    if value is None or degree is None or degree.denominator > 1 or not 1 < degree < LARGEST_DEGREE:
        return False
    return all(
        _is_perfect_power(abs(part), int(degree)) for part in (value.numerator, value.denominator)
    )


def _is_perfect_power(number: int, degree: int) -> bool:
    if degree == 2:
        return isqrt(number) ** 2 == number
    if number.bit_length() > 900:
        return False
    near = round(number ** (1 / degree))
    return any((near + step) ** degree == number for step in (-1, 0, 1) if near + step >= 0)


def _family(function: str) -> str:
    """Return the functions that one answer may use for another: logarithms, those of angles."""
    if function in LOGARITHMS:
        return "log"
    return "angle" if function in FUNCTIONS and function != "exp" else function


def _divides(below: Expression, above: Expression) -> bool:
    """Say whether a quotient of two numbers is a whole number, or has a part that is none."""
    one, other = _value(above), _value(below)
    if one is None or not other:
        return True
    return one.denominator > 1 or other.denominator > 1 or one % other == 0


def _is_number(expression: Expression) -> bool:
    """Say whether an expression is a number as it is written: no operation is left to do."""
    expression = _unsigned(expression)
    match expression:
        case ("number", _):
            return True
        case ("degree" | "percent", inside):
            return _is_number(inside)
        case ("power", base, exponent):
            value = _value(exponent)
            return base == TEN and value is not None and abs(value) >= SHORTEST_POWER_OF_TEN
        case ("product", [(one, 1), (other, exponent)]):
            if _unsigned(one)[0] != "number":
                return False
            if exponent == -1:
                return _unsigned(other)[0] == "number" and not _divides(other, one)
            match other:
                case ("power", base, power) if base == TEN and _value(power) is not None:
                    return 1 <= abs(_value(one) or 0) < 10
    return False


def _value(expression: Expression) -> Fraction | None:
    """Return the value of a number or a quotient of two, None for any other expression."""
    match expression:
        case ("number", value):
            return value
        case ("sum", [(sign, term)]) if sign in (1, -1):
            value = _value(term)
            return None if value is None else sign * value
        case ("product", [(one, 1), (other, -1)]):
            above, below = _value(one), _value(other)
            return above / below if above is not None and below else None
        case ("degree" | "percent", inside):
            return _value(inside)
    return None


def _unsigned(expression: Expression) -> Expression:
    while expression[0] == "sum" and len(expression[1]) == 1:
        expression = expression[1][0][1]
    return expression


def _flat(expression: Expression, exponent: int = 1) -> list[Factor]:
    """Return the factors of a product of products, of any other expression itself."""
    expression = _unsigned(expression)
    if expression[0] != "product" or (_is_number(expression) and not _is_quotient(expression)):
        return [(expression, exponent)]
    return [flat for factor, power in expression[1] for flat in _flat(factor, exponent * power)]


def _is_quotient(expression: Expression) -> bool:
    return [exponent for _, exponent in expression[1]] == [1, -1]


def _is_sum(expression: Expression) -> bool:
    return expression[0] == "sum" and len(expression[1]) > 1


def _base(factor: Expression) -> Expression:
    return factor[1] if factor[0] == "power" else factor
