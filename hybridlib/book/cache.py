"""What can the outputs of a chapter depend on, and what of it has changed?

The key of a chapter is a hash over these parts. Prose and tags are not among them: `pages.stage`
puts today's prose around the cached outputs.
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hybridlib
from hybridlib import imports
from hybridlib.profiles import Profile

PACKAGE = Path(__file__).parents[1]
KeyParts = dict[str, dict[str, Any]]
"""Part of a key, such as "modules" -> name -> its value or hash."""


def key_parts(
    code: Iterable[str],
    parameters: dict[str, Any],
    result_files: dict[str, Path],
    upstream: dict[str, str],
) -> KeyParts:
    """Return what goes into the key of a chapter, as JSON would read it back.

    Args:
        code: the chapter's code cells.
        parameters: the values that it runs with.
        result_files: run id -> record, of the runs that it shows.
        upstream: chapter -> key, of those that it comes after.
    """
    paths = imports.modules(PACKAGE)
    parts = {
        "parameters": parameters,
        "code": {f"cell {i}": digest(text.encode()) for i, text in enumerate(code, 1)},
        "modules": {name: file_digest(paths[name]) for name in imported(code)},
        "data": _data_digests(),
        "results": {name: file_digest(path) for name, path in result_files.items()},
        "upstream": upstream,
    }
    return json.loads(json.dumps(parts))  # as a stored record has them, so that they compare equal


def key(parts: KeyParts) -> str:
    """Return the one hash over all parts."""
    return digest(json.dumps(parts, sort_keys=True).encode())


def differences(old: KeyParts, new: KeyParts) -> str:
    """Say what differs between two sets of key parts: at most three differences; "" if none.

    >>> differences({"modules": {"stats": "a"}, "upstream": {"01": "x"}},
    ...             {"modules": {"stats": "b"}, "upstream": {"01": "y"}})
    'module stats changed, upstream 01 reran'
    """
    lines = []
    for part, now in new.items():
        before = old.get(part, {})
        for name in sorted({*before, *now}):
            if change := _change(part, name, before, now):
                lines.append(f"{part.removesuffix('s')} {name} {change}")
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return ", ".join(lines[:3]) + more


def imported(code: Iterable[str]) -> list[str]:
    """Return the modules of this package that some code cells import, directly or not; sorted.

    Imports for annotations only do not count.
    """
    import_graph = imports.graph(imports.modules(PACKAGE))
    direct: set[str] = set()
    for cell in code:
        python = [line for line in cell.splitlines() if not line.startswith(("%", "!"))]
        direct |= imports.imports(ast.parse("\n".join(python)), import_graph)
    return sorted(imports.closure(direct, import_graph))


def executed_folder(profile: Profile) -> Path:
    """Return where the executed notebooks of a profile lie, each beside its record."""
    return hybridlib.ROOT / "_build" / "executed" / profile.name


def read_record(profile: Profile, chapter: str) -> dict[str, Any] | None:
    """Return the record of a chapter's last good execution; None if there was none."""
    try:
        return json.loads((executed_folder(profile) / f"{chapter}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def outputs_digest(notebook: Path) -> str:
    """Return a hash of what a notebook's cells put out, without times; "" if there is no notebook.

    Two executions that show the same have the same hash.
    """
    if not notebook.exists():
        return ""
    shown = []
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code" and cell["outputs"]:
            shown.append([_without_times(output) for output in cell["outputs"]])
    return digest(json.dumps(shown, sort_keys=True).encode())


def digest(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def file_digest(path: Path) -> str | None:
    """Return the hash of a file's bytes; None if there is no such file."""
    return digest(path.read_bytes()) if path.exists() else None


def _change(part: str, name: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what became of one entry of a part; "" if it is the same."""
    if name not in now:
        return "is gone"
    if now[name] is None and before.get(name, "") is not None:
        return "is missing"
    if name not in before:
        return "is new"
    if before[name] == now[name]:
        return ""
    return "reran" if part == "upstream" else "changed"


def _without_times(output: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in output.items() if k not in ("metadata", "execution_count")}


def _data_digests() -> dict[str, str | None]:
    """Hash the shipped data (the base) and the pinned packages; results are hashed run by run."""
    data = hybridlib.ROOT / "data"
    files = [
        path
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.suffix != ".md" and path.relative_to(data).parts[0] != "results"
    ]
    files.append(hybridlib.ROOT / "requirements.txt")
    return {str(path.relative_to(hybridlib.ROOT)): file_digest(path) for path in files}
