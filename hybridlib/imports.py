"""Which module imports which? Read from the source, without running any of it.

Modules go by their dotted names below the package: `stats`, `grading.grader`. `grading` is the face
of that wing, its `__init__.py`; `__init__` is the face of the package itself.
"""

import ast
import functools
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

PACKAGE_INIT = "__init__"
Graph = dict[str, set[str]]  # module -> the modules that it imports


def modules(package: Path) -> dict[str, Path]:
    """Return every module of a package folder by its dotted name.

    >>> modules(Path(__file__).parent)["grading"].parts[-2:]
    ('grading', '__init__.py')
    """
    paths = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[-1] == PACKAGE_INIT:
            parts = parts[:-1]
        paths[".".join(parts) or PACKAGE_INIT] = path
    return paths


def imports(
    tree: ast.AST, known: Collection[str], package: str = "hybridlib", annotations: bool = False
) -> set[str]:
    """Return the modules of a package that some code names in its import statements.

    Imports inside functions count, and those in a string that is itself Python code, which is meant
    for another interpreter. The faces that Python runs on the way to a module (`grading` for
    `grading.grader`) do not count: see `closure`. Relative imports are not read; the style check
    forbids them.

    Args:
        tree: the parsed code.
        known: the names of the package's modules. They tell apart what can look alike in
            `from hybridlib.grading import ...`: the module `grader` and the function `grade`.
        package: the name that the package is imported by.
        annotations: whether imports under `if TYPE_CHECKING` count.
    """
    names = set()
    for statement in _statements(tree, package, annotations):
        if isinstance(statement, ast.Import):
            targets = [alias.name for alias in statement.names]
        else:
            targets = [f"{statement.module}.{alias.name}" for alias in statement.names]
        for target in targets:
            top, *inner = target.split(".")
            if top == package:
                names.add(_longest(inner, known))
    return names


def graph(paths: dict[str, Path], package: str = "hybridlib", annotations: bool = False) -> Graph:
    """Return what each module imports directly, itself apart. `paths` comes from `modules`.

    A file that has not changed is read once per process.
    """
    known = frozenset(paths)
    return {
        name: _file_imports(name, path, path.stat().st_mtime_ns, known, package, annotations)
        for name, path in paths.items()
    }


def closure(start: Iterable[str], arrows: Graph) -> set[str]:
    """Return the modules that run when those of `start` are imported, `start` among them.

    That is what they import, directly or not, and the faces of all wings on the way.
    """
    reached: set[str] = set()
    pending = list(start)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += [*faces(name), *arrows[name]]
    return reached


def faces(name: str) -> list[str]:
    """Return the faces that Python runs before it imports a module, the outermost first.

    >>> faces("grading.grader")
    ['__init__', 'grading']
    """
    parts = name.split(".")
    return [PACKAGE_INIT, *(".".join(parts[:depth]) for depth in range(1, len(parts)))]


@functools.lru_cache(maxsize=4096)
def _file_imports(
    name: str, path: Path, modified: int, known: frozenset[str], package: str, annotations: bool
) -> set[str]:
    """Return the imports of a file; `modified`, its time stamp, makes an edited file a new key."""
    text = path.read_text("utf-8")
    found = imports(ast.parse(text), known, package, annotations)
    if "iter_modules(__path__)" in text:  # a face that imports whatever lies in its folder
        found |= {module for module in known if module.rpartition(".")[0] == name}
    return found - {name}


def _statements(
    tree: ast.AST, package: str, annotations: bool
) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the absolute import statements of some code, at any depth."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level):
            yield node
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if f"import {package}" in node.value or f"from {package}" in node.value:
                yield from _statements(_parsed(node.value), package, annotations)
        elif isinstance(node, ast.If) and not annotations and _is_type_checking(node.test):
            for statement in node.orelse:
                yield from _statements(ast.Module([statement], []), package, annotations)
        else:
            yield from _statements(node, package, annotations)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _parsed(text: str) -> ast.Module:
    """Parse a string that may be code; prose, a docstring say, gives an empty module."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def _longest(parts: list[str], known: Collection[str]) -> str:
    """Return the longest beginning of a dotted path that is a module; else the package's face."""
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in known:
            return name
    return PACKAGE_INIT
