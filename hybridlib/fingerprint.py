"""Which code decides a run's numbers? The definitions that it can reach, and no others.

Results are kept in git and outlive edits. A new reward, a reworded docstring or another grid must
not make a hundred finished runs stale; a changed loss must. So the package is read as a graph of
its top-level definitions, and a run's fingerprint covers those that can be reached from
`study.execute`, entering a registry only by the entries that the run names. What only stores or
presents a number does not count. `verify` reruns records, should a path ever be missed, and
`restamp` renews the fingerprints after a change that moved code and no number.
"""

import ast
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import hybridlib
from hybridlib.imports import modules
from hybridlib.profiles import Profile
from hybridlib.runs import Run

PACKAGE = Path(__file__).parent
ROOTS = (("study", "execute"),)
WEIGHTS = "model.safetensors"  # of a base that is shipped with the project
NOT_HASHED = {
    "__init__",
    "crossed",
    "data.audit",
    "files",
    "fingerprint",
    "grids",
    "imports",
    "locks",
    "pool",
    "processes",
    "profiles",
    "proportions",
    "registry",
    "results",
    "reward_shares",
    "runs",
    "stats",
    "tracking",
}
"""Modules that only check, store or present, left out of fingerprints.

`runs` and `profiles` are among them, because `results` compares runs and settings field by field.
"""

Place = tuple[str, str]  # module, top-level name; the name "" is all that runs at import
Entry = tuple[str, str]  # kind of registry, name of the entry


class Definition(NamedTuple):
    """One top-level definition, or all statements of a module that define nothing."""

    code: str  # without comments, docstrings, imports
    leads_to: tuple[Place, ...]  # what it mentions
    entries: tuple[Place, ...] = ()  # of a registry: the definitions that registered with it
    entry: Entry | None = None  # what it registered as


def digests_of(run: Run, profile: Profile) -> dict[str, str]:
    """Return which code and weights decide this run: file -> first 12 digits of a sha256."""
    named = {kind: frozenset(names) for kind, names in run.entries().items()}
    datasets = frozenset(profile.datasets)
    digests = code(named | {"dataset": datasets, "tiny task": datasets})
    weights = hybridlib.ROOT / profile.model / WEIGHTS
    if weights.exists():
        digests[WEIGHTS] = _file_digest(weights, weights.stat().st_mtime_ns)
    return digests


def code(named: Mapping[str, frozenset[str]], package: Path = PACKAGE) -> dict[str, str]:
    """Return the digest of the code that decides a run, for each file of the package that has any.

    The keys are paths relative to the package, such as "engine/decoder.py".
    Comments, docstrings and layout do not count.

    Args:
        named: kind of a registry -> the entries that the run names: methods, rewards, data sets.
    """
    files = tuple((path, path.stat().st_mtime_ns) for path in sorted(package.rglob("*.py")))
    registered = _registered(package, files)
    pairs = {(kind, name) for kind, names in named.items() for name in names}
    return dict(_digests(package, files, registered & pairs))


@functools.lru_cache(maxsize=4)
def _registered(package: Path, files: tuple[tuple[Path, int], ...]) -> frozenset[Entry]:
    """Return all entries of all registries."""
    definitions = _definitions(package, files).values()
    return frozenset(definition.entry for definition in definitions if definition.entry)


@functools.lru_cache(maxsize=256)
def _digests(
    package: Path, files: tuple[tuple[Path, int], ...], entries: frozenset[Entry]
) -> dict[str, str]:
    """Return file -> digest for these entries; cached, as many runs reach the same code."""
    definitions = _definitions(package, files)
    reached: set[Place] = set()
    todo = list(ROOTS)
    while todo:
        place = todo.pop()
        if place in reached or place not in definitions:
            continue
        reached.add(place)
        definition = definitions[place]
        todo += [(place[0], ""), *definition.leads_to]
        todo += [other for other in definition.entries if definitions[other].entry in entries]
    paths = modules(package)
    parts: dict[str, list[str]] = {}
    for module, name in sorted(reached):
        file = paths[module].relative_to(package).as_posix()
        parts.setdefault(file, []).append(definitions[module, name].code)
    return {file: _short("\n".join(codes).encode()) for file, codes in parts.items()}


@functools.lru_cache(maxsize=4)
def _definitions(package: Path, files: tuple[tuple[Path, int], ...]) -> dict[Place, Definition]:
    """Return the graph of the package's definitions."""
    trees = {
        module: ast.parse(path.read_text("utf-8"))
        for module, path in modules(package).items()
        if module not in NOT_HASHED
    }
    reader = _Reader(trees)
    graph: dict[Place, Definition] = {}
    entries: dict[Place, list[Place]] = {}
    for module, tree in trees.items():
        for node in tree.body:
            leads_to = tuple(reader.mentions(node, module))
            registration = reader.registration(node, module)
            for name in _defines(node) or [""]:
                before = graph.get((module, name), Definition("", ()))
                entry = registration and (reader.kinds[registration[0]], registration[1])
                graph[module, name] = Definition(
                    before.code + _code(node), before.leads_to + leads_to, entry=entry
                )
                if registration:
                    entries.setdefault(registration[0], []).append((module, name))
    for registry, places in entries.items():
        graph[registry] = graph[registry]._replace(entries=tuple(places))
    return graph


class _Reader:
    """What the names in each module stand for, through imports and re-exports of packages."""

    def __init__(self, trees: dict[str, ast.Module]):
        self.defined = {
            module: {name for node in tree.body for name in _defines(node)}
            for module, tree in trees.items()
        }
        self.imports = {module: self._imported(tree) for module, tree in trees.items()}
        self.kinds: dict[Place, str] = {}  # registry -> what it calls its entries
        for module, tree in trees.items():
            for node in tree.body:
                if kind := _registry_kind(node):
                    self.kinds[module, _defines(node)[0]] = kind

    def _imported(self, tree: ast.Module) -> dict[str, Place]:
        """Return local name -> what of this package it stands for; (module, "") is a module."""
        names: dict[str, Place] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridlib"):
                parent = node.module.partition(".")[2]
                for alias in node.names:
                    module = f"{parent}.{alias.name}" if parent else alias.name
                    place = (module, "") if module in self.defined else (parent, alias.name)
                    names[alias.asname or alias.name] = place
        return names

    def resolve(self, place: Place) -> Place:
        """Follow re-exports in `__init__.py` files to the module that defines a name."""
        module, name = place
        while name and name not in self.defined.get(module, ()):
            if name not in self.imports.get(module, ()):
                break
            module, name = self.imports[module][name]
        return module, name

    def registration(self, node: ast.stmt, module: str) -> tuple[Place, str] | None:
        """Return the registry and the name of `@X.register` or `@X.register(name="...")`."""
        for decorator in getattr(node, "decorator_list", []):
            call = decorator if isinstance(decorator, ast.Call) else None
            match call.func if call else decorator:
                case ast.Attribute(value=ast.Name(id=registry), attr="register"):
                    given = [k.value for k in call.keywords if k.arg == "name"] if call else []
                    name = ast.literal_eval(given[0]) if given else node.name
                    home = self.imports[module].get(registry, (module, registry))
                    return self.resolve(home), name
        return None

    def mentions(self, node: ast.stmt, module: str) -> Iterator[Place]:
        """Yield the definitions that this code uses; all of a module that it uses as a whole."""
        names = self.imports[module]
        parts = list(ast.walk(node))
        arguments = {part.arg for part in parts if isinstance(part, ast.arg)}
        inside = set()
        for part in parts:
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                home, name = names.get(part.value.id, ("", "?"))
                target = self.resolve((home, part.attr))
                if not name and target[1] in self.defined.get(target[0], ()):
                    inside.add(id(part.value))
                    yield target
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                # Code for another interpreter: the sandbox's zygote.
                for parent, name in re.findall(
                    r"from hybridlib\.?([\w.]*) import (\w+)", part.value
                ):
                    yield from self._whole(f"{parent}.{name}".removeprefix("."))
            if not isinstance(part, ast.Name) or id(part) in inside or part.id in arguments:
                continue
            if part.id in names:
                home, name = self.resolve(names[part.id])
                yield from [(home, name)] if name else self._whole(home)
            elif part.id in self.defined[module]:
                yield module, part.id

    def _whole(self, module: str) -> list[Place]:
        return [(module, name) for name in sorted(self.defined.get(module, ()))]


def _defines(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _registry_kind(node: ast.stmt) -> str:
    """Return "reward" for `REWARDS = Registry("reward", ...)`, and "" for anything else."""
    match node:
        case ast.Assign(
            value=ast.Call(func=ast.Name(id="Registry"), args=[ast.Constant(value=str(kind)), *_])
        ):
            return kind
    return ""


def _code(node: ast.stmt) -> str:
    """Return the source without comments, docstrings, imports and calls of `tracking`.

    Strips them from the node, but for comments and imports.
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        return ""
    tree = ast.Module([node], [])
    blocks: list[ast.AST] = [tree]
    while blocks:
        block = blocks.pop()
        if isinstance(getattr(block, "body", None), list):
            kept = [part for part in block.body if not (_is_docstring(part) or _watches(part))]
            block.body = kept or [ast.Pass()]
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(block, part, None)
            blocks += inner if isinstance(inner, list) else []
    return ast.unparse(tree)


def _watches(node: ast.stmt) -> bool:
    """Return whether a statement is a call of `tracking`, which only looks on."""
    match node:
        case ast.Expr(ast.Call(func=ast.Attribute(value=ast.Name(id="tracking")))):
            return True
    return False


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@functools.lru_cache(maxsize=16)
def _file_digest(path: Path, modified: int) -> str:
    """Return the digest of a file; `modified` is there so that an edit misses the cache."""
    return _short(path.read_bytes())


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
