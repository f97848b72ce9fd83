"""How does an answer leave a program that may lie? As JSON of plain values.

Each value is labelled with its exact type: a subclass could define equality as it likes, and a
pickle could bring code; neither can be written here.
Only the standard library is imported: the zygote loads this module as well as the judge.
"""

import collections
import dataclasses
import datetime
import decimal
import fractions
import operator
import re
import types
from collections.abc import Iterable
from typing import Any

MAX_NODES, MAX_DEPTH = 50_000, 60  # of one encoded value
MAX_DECIMAL_BITS = 10_000  # longer integers are hexadecimal: decimal digits take quadratic time
DECODING_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)
"""What `json.loads` and `decode` raise for text that `encode` did not write."""

COLLECTIONS = {kind.__name__: kind for kind in (list, tuple, set, frozenset)}
MAPPINGS = {kind.__name__: kind for kind in (dict, collections.Counter, collections.OrderedDict)}
FACTORIES = {kind.__name__: kind for kind in (int, float, str, bool, list, tuple, set, dict)}
"""What a defaultdict may make its values with and keep on its way."""
ITERABLES = {type(iter(kind())) for kind in (list, tuple, str, dict, set)} | {
    map, filter, zip, enumerate, reversed, types.GeneratorType, type(iter(range(0))),
    type(reversed([])), type({}.keys()), type({}.values()), type({}.items()),
}  # fmt: skip
"""Types that hold no items themselves: encoding walks them, decoding gives a list iterator."""
PARTS = {
    complex: lambda value: (value.real, value.imag),
    range: lambda value: (value.start, value.stop, value.step),
    collections.deque: lambda value: (value.maxlen, *value),
    fractions.Fraction: lambda value: (value.numerator, value.denominator),
    decimal.Decimal: lambda value: (str(value),),
    datetime.date: lambda value: (value.year, value.month, value.day),
    datetime.time: lambda value: (*_clock(value), value.tzinfo),
    datetime.datetime: lambda value: (
        value.year, value.month, value.day, *_clock(value), value.tzinfo
    ),
    datetime.timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    datetime.timezone: lambda value: (value.utcoffset(None), value.tzname(None)),
}  # fmt: skip
"""By type, the parts of a value that has a constructor in BUILDERS."""
BUILDERS = {
    "complex": complex,
    "range": range,
    "deque": lambda maxlen, *items: collections.deque(items, maxlen),
    # Of integers alone: a text with an exponent takes the reader's memory.
    "Fraction": lambda *parts: fractions.Fraction(*map(operator.index, parts)),
    "Decimal": decimal.Decimal,
    "date": datetime.date,
    "time": lambda *parts: _with_fold(datetime.time, parts),
    "datetime": lambda *parts: _with_fold(datetime.datetime, parts),
    "timedelta": datetime.timedelta,
    "timezone": datetime.timezone,
    "namedtuple": lambda kind, names, *items: NamedTuple(kind, names, items),
    "dataclass": lambda kind, *fields: Record(kind, fields),
    "iter": lambda *items: iter(items),
}
"""By label, what makes a value of its decoded parts."""


class NamedTuple(tuple):
    """A tuple with names, as it comes out of a program: compares as any tuple."""

    def __new__(cls, kind: str, names: Iterable[str], items: Iterable):
        value = super().__new__(cls, items)
        value._kind, value._fields = str(kind), tuple(names)
        if len(value._fields) != len(value):
            raise ValueError("a named tuple without its names")
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(name)
        return self[self._fields.index(name)]

    def __repr__(self) -> str:
        return _shown(self._kind, zip(self._fields, self, strict=True))

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))


class Record:
    """An instance of a dataclass, as it comes out of a program.

    Equal to another of the same class name and fields, and to an instance of such a dataclass that
    the tests define.
    """

    def __init__(self, kind: str, fields: Iterable[list]):
        """Take the class's name and a list [name, value, is compared] for each field."""
        self._kind = str(kind)
        self._values = {str(name): value for name, value, _ in fields}
        self._compared = tuple((str(name), value) for name, value, compared in fields if compared)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        return self._values[name]

    def __eq__(self, other: Any) -> bool:
        if type(other) is not Record:
            other = _record(other)
        if other is None:
            return NotImplemented
        return (self._kind, self._compared) == (other._kind, other._compared)

    def __hash__(self) -> int:  # that of a frozen dataclass
        return hash(tuple(value for _, value in self._compared))

    def __repr__(self) -> str:
        return _shown(self._kind, self._values.items())


def _shown(kind: str, pairs: Iterable[tuple[str, Any]]) -> str:
    return f"{kind}({', '.join(f'{name}={value!r}' for name, value in pairs)})"


def _clock(value: datetime.time | datetime.datetime) -> tuple[int, ...]:
    return value.hour, value.minute, value.second, value.microsecond, value.fold


def _with_fold(kind: type, parts: tuple) -> datetime.time | datetime.datetime:
    *numbers, fold, zone = parts
    return kind(*numbers, zone, fold=fold)


def _record(value: Any) -> Record | None:
    """Return an instance of a dataclass with the equality of its fields; None for all else."""
    kind = type(value)
    parameters = vars(kind).get("__dataclass_params__")
    equality = getattr(vars(kind).get("__eq__"), "__code__", None)
    # Generated code has no file; an equality that the class writes itself is not that of fields.
    if parameters is None or not parameters.eq or equality.co_filename != "<string>":
        return None
    fields = dataclasses.fields(kind)
    return Record(kind.__name__, [[f.name, getattr(value, f.name), f.compare] for f in fields])


def _names(kind: type) -> tuple[str, ...] | None:
    """Return the names of a type that `namedtuple` or `NamedTuple` made, None for any other."""
    names = vars(kind).get("_fields")
    is_named = kind.__bases__ == (tuple,) and type(names) is tuple and "__eq__" not in vars(kind)
    return names if is_named and all(type(name) is str for name in names) else None


def encode(value: Any, depth: int = 0, nodes_left: list[int] | None = None) -> Any:
    """Return a plain value as data for `json.dumps`; iterators are consumed.

    Args:
        depth: how deep the value lies in the one that is encoded.
        nodes_left: one number, counted down by all calls for that value.

    Raises ValueError for a value of another type and for one past MAX_NODES or MAX_DEPTH.

    >>> encode((1, {"a"}))
    ['tuple', 1, ['set', 'a']]
    """
    nodes_left = nodes_left or [MAX_NODES]
    nodes_left[0] -= 1
    kind = type(value)
    name = kind.__name__
    if depth > MAX_DEPTH or nodes_left[0] <= 0:
        raise ValueError("the value is too large")
    if kind is int and value.bit_length() > MAX_DECIMAL_BITS:
        return ["int", hex(value)]
    if value is None or kind in (bool, int, float, str):
        return value

    def parts(values: Iterable) -> list:
        return [encode(part, depth + 1, nodes_left) for part in values]

    if kind in ITERABLES:
        return ["iter", *parts(value)]
    if COLLECTIONS.get(name) is kind:
        return [name, *parts(value)]
    if MAPPINGS.get(name) is kind:
        return [name, *map(parts, value.items())]
    if kind is collections.defaultdict:
        factory = getattr(value.default_factory, "__name__", "")
        is_known = FACTORIES.get(factory) is value.default_factory
        return ["defaultdict", factory if is_known else "", *map(parts, value.items())]
    if kind in PARTS:
        return [name, *parts(PARTS[kind](value))]
    if kind in (bytes, bytearray):
        return [name, value.decode("latin-1")]
    if kind is re.Match:
        return ["match"]
    if names := _names(kind):
        return ["namedtuple", name, ["list", *names], *parts(tuple.__iter__(value))]
    if record := _record(value):
        compared = {field for field, _ in record._compared}
        fields = [(field, part, field in compared) for field, part in record._values.items()]
        return ["dataclass", name, *parts(fields)]
    raise ValueError(f"the value is of type {name}, which is not plain")


def decode(data: Any) -> Any:
    """Return the value that `encode` wrote; raise one of DECODING_ERRORS for any other data."""
    if not isinstance(data, list):
        return data
    name, *items = data
    if name in MAPPINGS:
        return MAPPINGS[name](_pairs(items))
    if name == "defaultdict":
        return collections.defaultdict(FACTORIES.get(items[0]), _pairs(items[1:]))
    if name in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[name](str(items[0]).encode("latin-1"))
    if name == "int":
        return int(items[0], 16)
    if name == "match":
        return object()  # like a match: true, and equal to nothing
    values = [decode(item) for item in items]
    return BUILDERS[name](*values) if name in BUILDERS else COLLECTIONS[name](values)


def _pairs(items: list) -> dict:
    return {decode(key): decode(value) for key, value in items}
