"""How does an answer leave a program that may lie? As JSON of plain values, told by exact type.

A subclass could bring its own idea of equality, a pickle its own code; neither can be written here.
Standard library only: the sandbox's zygote loads this file as well as the judge.
"""

import collections
import re
import types
from typing import Any

NODES, DEPTH = 50_000, 60
LONG = 10_000  # bits of an integer that is told in hexadecimal: decimal digits take square time
UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What `json.loads` and `decode` raise for text that `encode` did not write."""

GROUPS = {kind.__name__: kind for kind in (list, tuple, set, frozenset, collections.deque)}
MAPS = {kind.__name__: kind for kind in (dict, collections.Counter, collections.OrderedDict)}
LAZY = {type(iter(kind())) for kind in (list, tuple, str, dict, set)} | {
    map, filter, zip, enumerate, reversed, types.GeneratorType, type(iter(range(0))),
    type(reversed([])), type({}.keys()), type({}.values()), type({}.items()),
}  # fmt: skip


def encode(value: Any, depth: int = 0, budget: list[int] | None = None) -> Any:
    """JSON for a plain value; iterators are walked.

    Raises ValueError for any other type and for values past the limits on nodes and depth.

    >>> encode((1, {"a"}))
    ['tuple', 1, ['set', 'a']]
    """
    budget = budget or [NODES]
    budget[0] -= 1
    kind = type(value)
    name = kind.__name__
    if depth > DEPTH or budget[0] <= 0:
        raise ValueError("the value is too large")
    if kind is int and value.bit_length() > LONG:
        return ["int", hex(value)]
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in LAZY or GROUPS.get(name) is kind:
        items = [encode(item, depth + 1, budget) for item in value]
        return ["iter" if kind in LAZY else name, *items]
    if kind is collections.defaultdict or MAPS.get(name) is kind:
        items = [[encode(part, depth + 1, budget) for part in pair] for pair in value.items()]
        return ["dict" if kind is collections.defaultdict else name, *items]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is range:
        return ["range", value.start, value.stop, value.step]
    if kind is bytes:
        return ["bytes", value.decode("latin-1")]
    if kind is re.Match:
        return ["match"]
    raise ValueError(f"the value is of type {name}, which is not plain")


def decode(data: Any) -> Any:
    """The value that `encode` wrote; one of UNREADABLE for anything else."""
    if not isinstance(data, list):
        return data
    name, *items = data
    if name in MAPS:
        return MAPS[name]({decode(key): decode(value) for key, value in items})
    if name == "bytes":
        return str(items[0]).encode("latin-1")
    if name == "int":
        return int(items[0], 16)
    if name == "match":
        return object()  # as a match: true, and equal to nothing
    makers = {"complex": lambda v: complex(*v), "range": lambda v: range(*v), "iter": iter}
    return (makers.get(name) or GROUPS[name])([decode(item) for item in items])
