"""How do the notebooks become chapters? Papermill over their graph; only what changed reruns."""

import ast
import graphlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridlib
from hybridlib import StudyError, results
from hybridlib.book import cache
from hybridlib.book.cache import executed, read_record

if TYPE_CHECKING:
    from hybridlib.profiles import Profile


@dataclass(frozen=True)
class Chapter:
    """One notebook: what it needs, its parameters, its code cells; `full`: for large grids only.

    `reads`: other profiles whose stored results it shows, beside those of the one it runs for.
    """

    name: str
    path: Path
    after: tuple[str, ...]
    grids: tuple[str, ...]
    parameters: dict[str, Any]
    code: tuple[str, ...]
    full: bool = False
    reads: tuple[str, ...] = ()


@dataclass
class Step:
    """One chapter of a build: its key, and why it has to run (nothing: the cache is good)."""

    chapter: Chapter
    parts: dict[str, dict[str, Any]]
    key: str
    reason: str
    record: dict[str, Any] | None
    status: str = "cached"
    seconds: float = 0.0
    error: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Are there outputs that belong to today's key?"""
        return self.status in ("cached", "ran", "reran, identical")


def catalogue() -> dict[str, Chapter]:
    """Which chapters are there? By name, in reading order, from notebooks/NN_name.ipynb."""
    found: dict[str, Chapter] = {}
    for path in sorted((hybridlib.ROOT / "notebooks").glob("[0-9]*.ipynb")):
        try:
            notebook = json.loads(path.read_text())
            links = notebook["metadata"].get("hybridlib", {})
            parameters, code = {}, []
            for cell in (c for c in notebook["cells"] if c["cell_type"] == "code"):
                source = "".join(cell["source"])
                if "parameters" in cell["metadata"].get("tags", ()):
                    parameters = _literals(source)
                else:
                    code.append(source)
            found[path.stem] = Chapter(
                path.stem,
                path,
                tuple(links.get("after", ())),
                tuple(links.get("grids", ())),
                parameters,
                tuple(code),
                bool(links.get("full")),
                tuple(links.get("reads", ())),
            )
        except (ValueError, KeyError, SyntaxError) as error:
            raise StudyError(f"notebooks/{path.name} cannot be read: {error!r}") from error
    for chapter in found.values():
        _known("upstream chapter", chapter.after, found)
    return found


def build(
    profile: "Profile",
    only: Iterable[str] = (),
    force: Iterable[str] | None = None,
    dry_run: bool = False,
    jobs: int = 2,
    parameters: dict[str, dict[str, Any]] | None = None,
) -> Path:
    """How do the results become the book? Train what is missing, run stale chapters, render.

    only: chapters to run (with what they depend on); force: chapters to run although their key is
    known (their results stand); if empty, all chapters and all their runs;
    parameters: {chapter: {parameter: value}}.
    Returns the rendered first page (`dry_run`: the folder of executed notebooks). Raises StudyError
    for unknown names, SystemExit (code 1) when a chapter failed; the others have run by then.
    """
    chapters, parameters = catalogue(), parameters or {}
    chapters = {name: c for name, c in chapters.items() if profile.full or not c.full}
    anew = force is not None and not tuple(force)
    only, force = tuple(only), tuple(chapters) if anew else tuple(force or ())
    for names in (only, force, parameters):
        _known("chapter", names, chapters)
    for name, values in parameters.items():
        _known(f"parameter of {name}", values, chapters[name].parameters)
    wanted = sorted(_needed(chapters, only))
    runs = _runs((chapters[name] for name in wanted), profile)
    if runs:
        from hybridlib import study

        if dry_run:
            for run, why in study.plan(runs, profile, anew).items():
                print(f"run {run.id}: {why}")
        else:
            study.execute_all(runs, profile, force=anew)
    steps = plan(chapters, profile, force, parameters)
    asked = [step for step in steps if step.chapter.name in wanted]
    if dry_run:
        _table(asked)
        return executed(profile)
    from hybridlib.book import kernels, pages

    kernels.run(asked, profile, jobs)
    page = pages.render(profile, steps)
    _table(asked)
    if failed := [step for step in steps if step.error]:
        raise SystemExit("\n".join(f"{s.chapter.name} failed: {s.error}" for s in failed))
    print(page)
    return page


def plan(
    chapters: dict[str, Chapter],
    profile: "Profile",
    force: Iterable[str] = (),
    parameters: dict[str, dict[str, Any]] | None = None,
) -> list[Step]:
    """What has to run, and why? One step per chapter, upstream first."""
    steps: dict[str, Step] = {}
    for chapter in _order(chapters):
        values = chapter.parameters | (parameters or {}).get(chapter.name, {})
        if "profile" in values:
            values["profile"] = profile.name
        shown = {
            run.id: results.folder(profile.name) / f"{run.id}.json"
            for run in _runs([chapter], profile)
        }
        for other in chapter.reads:
            shown |= {f"{other}/{p.stem}": p for p in results.folder(other).glob("*.json")}
        parts = cache.parts(
            chapter.code, values, shown, {name: steps[name].key for name in chapter.after}
        )
        record = read_record(profile, chapter.name)
        reason = "forced" if chapter.name in force else cache.why(record and record["parts"], parts)
        notebook = executed(profile) / f"{chapter.name}.ipynb"
        if not reason and cache.outputs_sha(notebook) != record["outputs"]:
            reason = "executed notebook is gone"
        steps[chapter.name] = Step(
            chapter,
            parts,
            cache.key(parts),
            reason,
            record,
            parameters=values,
            status="stale" if reason else "cached",
        )
    return list(steps.values())


def _needed(chapters: dict[str, Chapter], only: Iterable[str]) -> set[str]:
    """The wanted chapters (all, if none is named) and everything upstream of them."""
    needed, todo = set(), list(only or chapters)
    while todo:
        if (name := todo.pop()) not in needed:
            needed.add(name)
            todo += chapters[name].after
    return needed


def _order(chapters: dict[str, Chapter]) -> list[Chapter]:
    """Upstream first."""
    graph = {name: chapter.after for name, chapter in chapters.items()}
    try:
        return [chapters[name] for name in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        raise StudyError(f"chapters depend on each other: {' -> '.join(error.args[1])}") from error


def _runs(chapters: Iterable[Chapter], profile: "Profile") -> list[Any]:
    """The runs that some chapters show, each once. Chapters without grids need no study."""
    grids = [grid for chapter in chapters for grid in chapter.grids]
    if not grids:
        return []
    from hybridlib import study

    return list({run.id: run for grid in grids for run in study.GRIDS[grid](profile)}.values())


def _literals(source: str) -> dict[str, Any]:
    """name = literal, one per line of the parameters cell."""
    found = {}
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        found[target.id] = ast.literal_eval(node.value)
    return found


def _known(kind: str, names: Iterable[str], valid: Iterable[str]) -> None:
    for name in names:
        if name not in valid:
            raise StudyError(f"unknown {kind} {name!r}; valid: {', '.join(valid)}")


def _table(steps: list[Step]) -> None:
    rows = [
        ("chapter", "status", "seconds", "reason"),
        *(
            (s.chapter.name, s.status, f"{s.seconds:.0f}" if s.seconds else "", s.reason)
            for s in steps
        ),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
