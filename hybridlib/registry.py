"""What names are there? Registries that decorated functions add themselves to."""

from collections.abc import Callable, Collection
from typing import Any

from hybridlib import StudyError

REGISTRIES: dict[str, "Registry"] = {}
"""Kind -> registry, of all that have been imported; fields of a Run name such kinds."""


class Registry(dict[str, Any]):
    """Functions of one kind by name; an unknown name fails with the list of the valid ones.

    Args:
        kind: what an entry is called in messages, such as "partition rule".
        facts: what every entry has to state about itself when it is registered.
        optional: what an entry may state besides.

    >>> rules = Registry("rule")
    >>> @rules.register(name="random")
    ... def at_random(rows): ...
    >>> at_random.__name__
    'random'
    >>> rules["rnadom"]
    Traceback (most recent call last):
    hybridlib.StudyError: unknown rule 'rnadom'; valid: random
    """

    def __init__(self, kind: str, *facts: str, optional: Collection[str] = ()):
        super().__init__()
        self.kind, self.facts, self.optional = kind, facts, tuple(optional)
        REGISTRIES.setdefault(kind, self)  # a second one of a kind, in a test, replaces nothing

    def register(self, entry: Callable | None = None, *, name: str = "", **facts: Any) -> Callable:
        """Add the decorated function or class to this registry and return it.

        Args:
            name: under which it is known on the command line, in run ids and in logs, where that
                is no good name for a function (`random` would hide a module); it becomes the
                function's `__name__`. "" = the function's own.
            facts: statements about the entry; they become its attributes.
        Raises:
            StudyError: a fact is missing or not one of this registry's, or the name is taken.
        """
        if entry is None:
            return lambda entry: self.register(entry, name=name, **facts)
        entry.__name__ = name or entry.__name__
        if missing := [fact for fact in self.facts if fact not in facts]:
            stated = ", ".join(f"{fact}=..." for fact in missing)
            raise StudyError(f"{self.kind} {entry.__name__!r} has to state register({stated})")
        known = (*self.facts, *self.optional)
        if unknown := [fact for fact in facts if fact not in known]:
            valid = ", ".join(known) or "none"
            raise StudyError(
                f"unknown fact {unknown[0]!r} of {self.kind} {entry.__name__!r}; valid: {valid}"
            )
        if self._is_taken(entry):
            raise StudyError(f"the {self.kind} {entry.__name__!r} exists; choose another name")
        for fact, value in facts.items():
            setattr(entry, fact, value)
        self[entry.__name__] = entry
        return entry

    def _is_taken(self, entry: Callable) -> bool:
        """Tell whether another entry has this name; a notebook may define one again."""
        other = self.get(entry.__name__)
        places = [(item.__module__, item.__qualname__) for item in (entry, other) if item]
        return len(set(places)) > 1

    def __missing__(self, name: str) -> Any:
        raise StudyError(f"unknown {self.kind} {name!r}; valid: {', '.join(sorted(self))}")
