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

    def __init__(self, kind: str, *facts: str):
        super().__init__()
        self.kind, self.facts = kind, facts

    def register(self, entry: Callable | None = None, **facts: Any) -> Callable:
        """Adds the decorated function; facts in brackets, `register(low=0)`, become its attributes.

        Raises StudyError where one of the facts that this registry asks for is not stated.
        """
        if entry is None:
            return lambda entry: self.register(entry, **facts)
        if missing := [fact for fact in self.facts if fact not in facts]:
            stated = ", ".join(f"{fact}=..." for fact in missing)
            raise StudyError(f"{self.kind} {entry.__name__!r} has to state register({stated})")
        for fact, value in facts.items():
            setattr(entry, fact, value)
        self[entry.__name__] = entry
        return entry

    def __missing__(self, name: str) -> Any:
        raise StudyError(f"unknown {self.kind} {name!r}; valid: {', '.join(sorted(self))}")
