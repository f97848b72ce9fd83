"""What names are there? Registries that decorated functions add themselves to."""

from collections.abc import Callable
from typing import Any

from hybridlib import StudyError


class Registry(dict[str, Any]):
    """Functions of one kind by name; an unknown name fails with the list of the valid ones.

    >>> rules = Registry("rule")
    >>> @rules.register
    ... def random(rows): ...
    >>> rules["rnadom"]
    Traceback (most recent call last):
    hybridlib.StudyError: unknown rule 'rnadom'; valid: random
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def register(self, entry: Callable) -> Callable:
        self[entry.__name__] = entry
        return entry

    def __missing__(self, name: str) -> Any:
        raise StudyError(f"unknown {self.kind} {name!r}; valid: {', '.join(sorted(self))}")
