"""How do the notebooks become a book? Only what changed runs again; the pages are then rendered."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hybridlib
from hybridlib import locks
from hybridlib.book import cache, plan
from hybridlib.book.plan import Chapter, Step
from hybridlib.profiles import Profile


def build(
    profile: Profile,
    only: Iterable[str] = (),
    force: Iterable[str] | None = None,
    dry_run: bool = False,
    jobs: int = 2,
    parameters: dict[str, dict[str, Any]] | None = None,
) -> Path:
    """Build the book of a profile: train missing runs, execute stale chapters, render the pages.

    Writes the runs' records under data/results, the executed notebooks and the pages under _build,
    and prints progress and a table of the chapters. A dry run only prints what would run, and why.

    Args:
        only: chapters to execute, with what they depend on; none named: all.
        force: chapters to execute although their outputs are good (the runs that they show stay);
            none named: all chapters, and all their runs are trained again.
        jobs: chapters at once.
        parameters: {chapter: {parameter: value}}, over the notebooks' defaults.
    Returns:
        The book's first page; of a dry run, the folder of the executed notebooks.
    Raises:
        StudyError: unknown names; pages that do not render.
        SystemExit: a chapter failed (code 1); the others have run, and the book is rendered.
    """
    parameters = parameters or {}
    chapters = {
        name: chapter
        for name, chapter in plan.catalogue().items()
        if profile.full or not chapter.full
    }
    only = tuple(only)
    everything = force is not None and not tuple(force)
    force = tuple(chapters) if everything else tuple(force or ())
    _check_names(chapters, only, force, parameters)
    wanted = plan.with_upstream(chapters, only)
    _execute_missing_runs([chapters[name] for name in sorted(wanted)], profile, everything, dry_run)
    if dry_run:
        steps = plan.steps(chapters, profile, force, parameters)
        _print_table([step for step in steps if step.chapter.name in wanted])
        return cache.executed_folder(profile)
    from hybridlib.book import kernels, pages

    # Of two builds at once the second finds the chapters that the first has executed.
    with locks.held(hybridlib.ROOT / "_build" / "lock", wait=True):
        steps = plan.steps(chapters, profile, force, parameters)
        wanted_steps = [step for step in steps if step.chapter.name in wanted]
        kernels.run(wanted_steps, profile, jobs)
        first_page = pages.render(profile, steps)
    _print_table(wanted_steps)
    if failed := [step for step in steps if step.error]:
        raise SystemExit("\n".join(f"{s.chapter.name} failed: {s.error}" for s in failed))
    print(first_page)
    return first_page


def _check_names(
    chapters: dict[str, Chapter],
    only: Iterable[str],
    force: Iterable[str],
    parameters: dict[str, dict[str, Any]],
) -> None:
    """Raise StudyError for names that no chapter or parameter has."""
    for names in (only, force, parameters):
        plan.check_names("chapter", names, chapters)
    for name, values in parameters.items():
        plan.check_names(f"parameter of {name}", values, chapters[name].parameters)


def _execute_missing_runs(
    chapters: list[Chapter], profile: Profile, force: bool, dry_run: bool
) -> None:
    """Execute the runs that the chapters show and that are missing; a dry run prints them."""
    runs = plan.runs_shown(chapters, profile)
    if not runs:
        return
    from hybridlib import study

    if dry_run:
        for run, reason in study.plan(runs, profile, force).items():
            print(f"run {run.id}: {reason}")
    else:
        study.execute_all(runs, profile, force=force)


def _print_table(steps: list[Step]) -> None:
    rows = [("chapter", "status", "seconds", "reason")]
    for step in steps:
        seconds = f"{step.seconds:.0f}" if step.seconds else ""
        rows.append((step.chapter.name, step.status, seconds, step.reason))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
