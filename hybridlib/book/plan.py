"""Which chapters has the book, and which of them have to run again, and why?"""

import ast
import graphlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hybridlib
from hybridlib import StudyError
from hybridlib.book import cache
from hybridlib.files import results_folder
from hybridlib.grids import GRIDS
from hybridlib.profiles import Profile
from hybridlib.runs import Run


@dataclass(frozen=True)
class Chapter:
    """One notebook, as its file states it."""

    name: str  # of the file, without its ending: 04_scale
    path: Path
    after: tuple[str, ...]  # chapters that have to run before it
    grids: tuple[str, ...]  # grids of runs whose results it shows
    parameters: dict[str, Any]  # name -> default
    code: tuple[str, ...]  # its code cells, but for that of the parameters
    full: bool = False  # only for profiles with the large grids
    reads: tuple[str, ...] = ()  # other profiles whose stored results it shows, too


@dataclass
class Step:
    """One chapter in one build: its cache key, whether it has to run, and how that went.

    `kernels.run` fills in the outcome.
    """

    chapter: Chapter
    parameters: dict[str, Any]
    parts: cache.KeyParts
    reason: str  # why it has to run; "" if the stored outputs are good
    record: dict[str, Any] | None  # of the last good execution
    status: str  # cached, stale, ran, "reran, identical", failed or skipped
    seconds: float = 0.0
    error: str = ""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = cache.key(self.parts)

    @property
    def has_outputs(self) -> bool:
        """Whether there are outputs that belong to today's key."""
        return self.status in ("cached", "ran", "reran, identical")


def catalogue() -> dict[str, Chapter]:
    """Return all chapters by name, in reading order: notebooks/NN_name.ipynb.

    Raises StudyError for a notebook that cannot be read and for an unknown chapter in its `after`.
    """
    chapters: dict[str, Chapter] = {}
    for path in sorted((hybridlib.ROOT / "notebooks").glob("[0-9]*.ipynb")):
        try:
            chapters[path.stem] = _read(path)
        except (ValueError, KeyError, SyntaxError) as error:
            raise StudyError(f"notebooks/{path.name} cannot be read: {error!r}") from error
    for chapter in chapters.values():
        check_names("upstream chapter", chapter.after, chapters)
    return chapters


def steps(
    chapters: dict[str, Chapter],
    profile: Profile,
    force: Iterable[str] = (),
    parameters: dict[str, dict[str, Any]] | None = None,
) -> list[Step]:
    """Plan a build: one step per chapter, upstream first, with the reason where it has to run.

    Args:
        force: names of chapters that run in any case.
        parameters: {chapter: {parameter: value}}, over the notebooks' defaults.
    Raises:
        StudyError: chapters that depend on each other.
    """
    planned: dict[str, Step] = {}
    for chapter in _upstream_first(chapters):
        values = chapter.parameters | (parameters or {}).get(chapter.name, {})
        if "profile" in values:
            values["profile"] = profile.name
        upstream = {name: planned[name].key for name in chapter.after}
        parts = cache.key_parts(chapter.code, values, _result_files(chapter, profile), upstream)
        record = cache.read_record(profile, chapter.name)
        reason = _reason(chapter, profile, parts, record)
        if chapter.name in force:
            reason = "forced"
        status = "stale" if reason else "cached"
        planned[chapter.name] = Step(chapter, values, parts, reason, record, status)
    return list(planned.values())


def with_upstream(chapters: dict[str, Chapter], names: Iterable[str]) -> set[str]:
    """Return the named chapters (all, if none is named) and everything upstream of them."""
    needed: set[str] = set()
    pending = list(names) or list(chapters)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += chapters[name].after
    return needed


def runs_shown(chapters: Iterable[Chapter], profile: Profile) -> list[Run]:
    """Return the runs of the chapters' grids, each once."""
    grids = [GRIDS[grid](profile) for chapter in chapters for grid in chapter.grids]
    return list({run.id: run for grid in grids for run in grid}.values())


def check_names(kind: str, names: Iterable[str], valid: Iterable[str]) -> None:
    """Raise StudyError, with the valid names, if one of the names is none of them."""
    for name in names:
        if name not in valid:
            raise StudyError(f"unknown {kind} {name!r}; valid: {', '.join(valid)}")


def _read(path: Path) -> Chapter:
    notebook = json.loads(path.read_text())
    links = notebook["metadata"].get("hybridlib", {})
    parameters: dict[str, Any] = {}
    code = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", ()):
            parameters = _literals(source)
        else:
            code.append(source)
    return Chapter(
        name=path.stem,
        path=path,
        after=tuple(links.get("after", ())),
        grids=tuple(links.get("grids", ())),
        parameters=parameters,
        code=tuple(code),
        full=bool(links.get("full")),
        reads=tuple(links.get("reads", ())),
    )


def _literals(source: str) -> dict[str, Any]:
    """Return the assignments of a parameters cell, `name = literal`, by name."""
    values = {}
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        values[target.id] = ast.literal_eval(node.value)
    return values


def _upstream_first(chapters: dict[str, Chapter]) -> list[Chapter]:
    graph = {name: chapter.after for name, chapter in chapters.items()}
    try:
        return [chapters[name] for name in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        raise StudyError(f"chapters depend on each other: {' -> '.join(error.args[1])}") from error


def _result_files(chapter: Chapter, profile: Profile) -> dict[str, Path]:
    """Return the records that a chapter shows, by run id (by profile/run id for other profiles)."""
    folder = results_folder(profile.name)
    records = {run.id: folder / f"{run.id}.json" for run in runs_shown([chapter], profile)}
    for other in chapter.reads:
        paths = results_folder(other).glob("*.json")
        records |= {f"{other}/{path.stem}": path for path in paths}
    return records


def _reason(
    chapter: Chapter, profile: Profile, parts: cache.KeyParts, record: dict[str, Any] | None
) -> str:
    """Say why the stored outputs of a chapter are not good; "" if they are."""
    if record is None:
        return "never ran"
    if differences := cache.differences(record["parts"], parts):
        return differences
    notebook = cache.executed_folder(profile) / f"{chapter.name}.ipynb"
    return (
        "" if cache.outputs_digest(notebook) == record["outputs"] else "executed notebook is gone"
    )
