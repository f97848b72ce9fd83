"""What can the outputs of a chapter depend on, and what of it has changed?

The key of a chapter is a hash over these parts. Prose and tags are not among them: `pages.stage`
puts today's prose around the cached outputs.
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridlib

if TYPE_CHECKING:
    from hybridlib.profiles import Profile

PACKAGE = Path(__file__).parents[1]


def parts(
    code: Iterable[str],
    parameters: dict[str, Any],
    results: dict[str, Path],
    upstream: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """What goes into the key of a chapter? {part: {name: value or hash}}, as JSON reads it back.

    results: {run id: file} of the runs that the chapter shows; upstream: {chapter: key}.
    """
    found = {
        "parameters": parameters,
        "code": {f"cell {i}": sha(text.encode()) for i, text in enumerate(code, 1)},
        "modules": {name: file_sha(PACKAGE / f"{name}.py") for name in imported(code)},
        "data": _data_hashes(),
        "results": {name: file_sha(path) for name, path in results.items()},
        "upstream": upstream,
    }
    return json.loads(json.dumps(found))


def executed(profile: "Profile") -> Path:
    """Where do the executed notebooks of a profile lie?"""
    return hybridlib.ROOT / "_build" / "executed" / profile.name


def read_record(profile: "Profile", name: str) -> dict[str, Any] | None:
    """What is known about the last good execution of a chapter? None if there was none."""
    try:
        return json.loads((executed(profile) / f"{name}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def key(found: dict[str, dict[str, Any]]) -> str:
    """The one hash over all parts."""
    return sha(json.dumps(found, sort_keys=True).encode())


def why(old: dict[str, dict[str, Any]] | None, new: dict[str, dict[str, Any]]) -> str:
    """What differs between two sets of key parts? At most three differences; "" if none.

    >>> why({"modules": {"train": "a"}, "upstream": {"01": "x"}},
    ...     {"modules": {"train": "b"}, "upstream": {"01": "y"}})
    'module train changed, upstream 01 reran'
    """
    if old is None:
        return "never ran"
    found = []
    for part, now in new.items():
        before, word = old.get(part, {}), part.removesuffix("s")
        for name in sorted({*before, *now}):
            if name not in now:
                found.append(f"{word} {name} is gone")
            elif now[name] is None and before.get(name, "") is not None:
                found.append(f"{word} {name} is missing")
            elif name not in before:
                found.append(f"{word} {name} is new")
            elif before[name] != now[name]:
                found.append(f"{word} {name} {'reran' if part == 'upstream' else 'changed'}")
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def imported(code: Iterable[str]) -> list[str]:
    """Which modules of this package does some code import, directly or not? Sorted."""
    todo, seen = list(code), {"__init__"}
    while todo:
        lines = [x for x in todo.pop().splitlines() if not x.startswith(("%", "!"))]
        for name in _imports(ast.parse("\n".join(lines))):
            if name not in seen and (PACKAGE / f"{name}.py").exists():
                seen.add(name)
                todo.append((PACKAGE / f"{name}.py").read_text())
    return sorted(seen)


def outputs_sha(path: Path) -> str:
    """Do two executions show the same? Hash of what a notebook's cells put out, without times."""
    if not path.exists():
        return ""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    shown = [
        [
            {k: v for k, v in out.items() if k not in ("metadata", "execution_count")}
            for out in cell["outputs"]
        ]
        for cell in cells
    ]
    return sha(json.dumps([x for x in shown if x], sort_keys=True).encode())


def sha(content: bytes) -> str:
    """16 hex digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def _imports(tree: ast.AST) -> Iterable[str]:
    """Names of this package's modules that a piece of code imports, annotations apart."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("hybridlib."))
        elif isinstance(node, ast.ImportFrom) and node.module == "hybridlib":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridlib."):
            yield node.module.split(".")[1]
        yield from _imports(node)


def _data_hashes() -> dict[str, str]:
    """Shipped data (the base) and the pinned packages; results are hashed run by run."""
    data = hybridlib.ROOT / "data"
    files = [
        p
        for p in data.rglob("*")
        if p.is_file() and p.suffix != ".md" and p.relative_to(data).parts[0] != "results"
    ]
    return {
        str(p.relative_to(hybridlib.ROOT)): file_sha(p)
        for p in sorted([*files, hybridlib.ROOT / "requirements.txt"])
    }


def file_sha(path: Path) -> str | None:
    """Hash of a file's bytes; None if there is no such file."""
    return sha(path.read_bytes()) if path.exists() else None
