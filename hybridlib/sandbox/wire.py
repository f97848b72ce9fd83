"""How does an answer leave a program that may lie? As JSON of plain values.

Each value is labelled with its exact type: a subclass could define equality as it likes, and a
pickle could bring code; neither can be written here.
Only the standard library is imported: the zygote loads this module as well as the judge.
"""

import collections
import re
import types
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

COLLECTIONS = {kind.__name__: kind for kind in (list, tuple, set, frozenset, collections.deque)}
MAPPINGS = {kind.__name__: kind for kind in (dict, collections.Counter, collections.OrderedDict)}
ITERABLES = {type(iter(kind())) for kind in (list, tuple, str, dict, set)} | {
    map, filter, zip, enumerate, reversed, types.GeneratorType, type(iter(range(0))),
    type(reversed([])), type({}.keys()), type({}.values()), type({}.items()),
}  # fmt: skip
"""Types that hold no items themselves: encoding walks them, decoding gives a list iterator."""


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
    if kind in ITERABLES or COLLECTIONS.get(name) is kind:
        items = [encode(item, depth + 1, nodes_left) for item in value]
        return ["iter" if kind in ITERABLES else name, *items]
    if kind is collections.defaultdict or MAPPINGS.get(name) is kind:
        pairs = [[encode(part, depth + 1, nodes_left) for part in pair] for pair in value.items()]
        return ["dict" if kind is collections.defaultdict else name, *pairs]
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
    """Return the value that `encode` wrote; raise one of DECODING_ERRORS for any other data."""
    if not isinstance(data, list):
        return data
    name, *items = data
    if name in MAPPINGS:
        return MAPPINGS[name]({decode(key): decode(value) for key, value in items})
    if name == "bytes":
        return str(items[0]).encode("latin-1")
    if name == "int":
        return int(items[0], 16)
    if name == "match":
        return object()  # like a match: true, and equal to nothing
    constructors = {
        "complex": lambda parts: complex(*parts),
        "range": lambda bounds: range(*bounds),
        "iter": iter,
    }
    return (constructors.get(name) or COLLECTIONS[name])([decode(item) for item in items])
