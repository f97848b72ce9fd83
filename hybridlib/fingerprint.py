"""Which code decides a run's numbers? The definitions that it can reach, and no others.

Results are kept in git and outlive edits. A new reward, a reworded docstring or another grid must
not make a hundred finished runs stale; a changed loss must. So the package is read as a graph of
its top-level definitions, and a run's fingerprint covers those that can be reached from
`study.execute`, entering a registry only by the names that the run uses. What only stores or
presents a number does not count. `verify` reruns records, should a path ever be missed.
"""

import ast
import functools
import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hybridlib import ROOT

PACKAGE = Path(__file__).parent
ROOTS = (("study", "execute"),)
WEIGHTS = "data/tiny_base/model.safetensors"
PRESENTS = {
    "__init__",
    "audit",
    "fingerprint",
    "grids",
    "pay",
    "profiles",
    "registry",
    "results",
    "runs",
    "rates",
    "stats",
}
"""Modules that check, store or present; runs and profiles are compared field by field."""

Place = tuple[str, str]  # module, top-level name; the name "" is all that runs at import


def of(run: Any, profile: Any) -> dict[str, str]:
    """Which code and weights decide this run? File name -> first 12 digits of a sha256."""
    values = [*asdict(run).values(), getattr(profile, "datasets", ())]
    names = [name for value in values for name in (value if isinstance(value, tuple) else [value])]
    found = code({name for name in names if isinstance(name, str)})
    weights = ROOT / WEIGHTS
    if weights.exists():
        found[weights.name] = _digest(weights, weights.stat().st_mtime_ns)
    return found


def code(names: Collection[str], package: Path = PACKAGE) -> dict[str, str]:
    """Module -> digest of the code in it that decides a run.

    Args:
        names: the entries of registries that the run uses: method, rewards, adapter, data sets ...
    Comments, docstrings and layout do not count.
    """
    paths = sorted(package.glob("*.py"), key=str)
    files = tuple((path, path.stat().st_mtime_ns) for path in paths)
    return dict(_reached(files, _entries(files).intersection(names)))


@functools.lru_cache(maxsize=4)
def _entries(files: tuple[tuple[Path, int], ...]) -> frozenset[str]:
    """The names of all entries of all registries."""
    return frozenset(name for (_, name), (_, _, kind) in _graph(files).items() if kind)


@functools.lru_cache(maxsize=256)
def _reached(files: tuple[tuple[Path, int], ...], entries: frozenset[str]) -> dict[str, str]:
    """Module -> digest, for these entries of registries: runs that differ in numbers share it."""
    graph = _graph(files)
    reached: set[Place] = set()
    todo = list(ROOTS)
    while todo:
        place = todo.pop()
        if place in reached or place not in graph:
            continue
        reached.add(place)
        _, edges, registry = graph[place]
        todo += [(place[0], "")]
        # A registry leads to the entries that are used; an entry, to those elsewhere that it builds
        # on (at home their names double as names of arguments).
        todo += [
            edge for edge in edges
            if not graph.get(edge, ("", (), ""))[2] or edge[1] in entries
            or registry and edge[0] != place[0]
        ]  # fmt: skip
    parts: dict[str, list[str]] = {}
    for module, name in sorted(reached):
        parts.setdefault(f"{module}.py", []).append(graph[module, name][0])
    return {name: _short("\n".join(found).encode()) for name, found in parts.items()}


@functools.lru_cache(maxsize=4)
def _graph(files: tuple[tuple[Path, int], ...]) -> dict[Place, tuple[str, tuple[Place, ...], str]]:
    """Place -> its code, where it leads, and the registry that it is an entry of ("" for none)."""
    trees = {path.stem: ast.parse(path.read_text("utf-8")) for path, _ in files}
    trees = {name: tree for name, tree in trees.items() if name not in PRESENTS}
    owns = {name: {d for node in tree.body for d in _defines(node)} for name, tree in trees.items()}
    graph: dict[Place, tuple[str, tuple[Place, ...], str]] = {}
    entries: dict[Place, list[Place]] = {}
    for module, tree in trees.items():
        imported = _imports(tree)
        for node in tree.body:
            registry = _registry(node)
            edges = tuple(_leads(node, module, owns, imported))
            for name in _defines(node) or [""]:
                code, more, _ = graph.get((module, name), ("", (), ""))
                graph[module, name] = (code + _code(node), more + edges, registry)
                if registry:
                    home = imported.get(registry, (module, registry))
                    entries.setdefault(home, []).append((module, name))
    for home, found in entries.items():  # whoever reads a registry reaches its chosen entries
        if home in graph:
            code, edges, kind = graph[home]
            graph[home] = (code, edges + tuple(found), kind)
    return graph


def _defines(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _registry(node: ast.stmt) -> str:
    """The registry that a decorator adds this definition to: X of `@X.register`, maybe called."""
    for decorator in getattr(node, "decorator_list", []):
        match decorator.func if isinstance(decorator, ast.Call) else decorator:
            case ast.Attribute(value=ast.Name(id=name), attr="register"):
                return name
    return ""


def _imports(tree: ast.Module) -> dict[str, Place]:
    """Local name -> what of this package it stands for; (module, "") is a module."""
    found: dict[str, Place] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridlib"):
            inner = node.module.partition(".")[2]
            for alias in node.names:
                place = (inner, alias.name) if inner else (alias.name, "")
                found[alias.asname or alias.name] = place
    return found


def _leads(
    node: ast.stmt, module: str, owns: dict[str, set[str]], imported: dict[str, Place]
) -> Iterator[Place]:
    """What a definition mentions. A module mentioned without one of its names counts whole."""
    inside = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            home, name = imported.get(part.value.id, ("", "?"))
            if not name and part.attr in owns.get(home, ()):
                inside.add(id(part.value))
                yield home, part.attr
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            # Code for another interpreter: the sandbox's zygote.
            for home in re.findall(r"from hybridlib import (\w+)", part.value):
                yield from [(home, one) for one in sorted(owns.get(home, ()))]
        if not isinstance(part, ast.Name) or id(part) in inside:
            continue
        if part.id in imported:
            home, name = imported[part.id]
            yield from (
                [(home, name)] if name else [(home, one) for one in sorted(owns.get(home, ()))]
            )
        elif part.id in owns[module]:
            yield module, part.id


def _code(node: ast.stmt) -> str:
    """The source without comments, docstrings and imports; the node itself loses its docstrings."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return ""
    tree = ast.Module([node], [])
    for part in ast.walk(tree):
        body = getattr(part, "body", None)
        if isinstance(body, list):
            part.body = [
                s for s in body
                if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            ] or [ast.Pass()]  # fmt: skip
    return ast.unparse(tree)


@functools.lru_cache(maxsize=16)
def _digest(path: Path, modified: int) -> str:
    """The hash of a file; `modified` makes an edited file a new question."""
    return _short(path.read_bytes())


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
