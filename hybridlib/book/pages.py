"""How do executed notebooks become a book that needs no network? Stage, render, check, swap in."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hybridlib
from hybridlib import StudyError, markdown, processes, results
from hybridlib.book import cache
from hybridlib.book.plan import Step
from hybridlib.claims import answer, verdicts
from hybridlib.claims import page as claims_page
from hybridlib.grids import GRIDS, sequences_per_step
from hybridlib.profiles import PROFILES, Profile

HIDING_TAGS = {"hide-input", "hide-cell", "remove-input", "remove-cell", "show-input"}
MATHJAX = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts")
"""Files of MathJax that the pages load; the other 20 MB are for other inputs and outputs."""


def render(profile: Profile, steps: list[Step]) -> Path:
    """Render the book into _build/html and return its first page.

    Returns at once if no page and no setting has changed since the last rendering. A warning of
    Jupyter Book is an error once every chapter has outputs.

    Raises:
        StudyError: Jupyter Book fails, or a page would load something from the network; the last
            good book stays then.
    """
    build = hybridlib.ROOT / "_build"
    html, key_file, draft = build / "html", build / "html.key", build / "render"
    source = stage(profile, steps)
    key = _pages_key(source)
    if (html / "index.html").exists() and key_file.exists() and key_file.read_text() == key:
        return html / "index.html"
    shutil.rmtree(draft, ignore_errors=True)
    _run_jupyter_book(source, draft, strict=all(step.has_outputs for step in steps))
    fresh = draft / "_build" / "html"
    _prune(fresh / "_static" / "mathjax")
    if loads := external_loads(fresh):
        raise StudyError(f"the book would load from the network: {', '.join(loads[:3])}")
    key_file.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    fresh.rename(html)
    shutil.rmtree(draft)
    key_file.write_text(key)
    return html / "index.html"


def stage(profile: Profile, steps: list[Step]) -> Path:
    """Write what Jupyter Book reads into _build/stage, anew, and return that folder.

    It mirrors book/ and notebooks/: the pages of results are generated, and the notebooks are
    today's with the outputs of the executed ones.
    """
    folder = hybridlib.ROOT / "_build" / "stage"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(hybridlib.ROOT / "book", folder / "book")
    (folder / "book" / "_toc.yml").rename(folder / "_toc.yml")
    (folder / "notebooks").mkdir()
    records = results.read(profile.name)
    (folder / "book" / "runs.md").write_text(runs_page(profile, records))
    ledger = verdicts.ledger(profile)
    past = verdicts.history(PROFILES[verdicts.SIZES[0]])
    (folder / "book" / "claims.md").write_text(claims_page.page(profile, ledger, past))
    intro = folder / "book" / "intro.md"
    found = _answer(profile, folder / "book" / "images") + claims_page.summary(ledger)
    intro.write_text(intro.read_text().replace("% what was found\n", found))
    for step in steps:
        notebook = _staged_notebook(profile, step, records)
        (folder / "notebooks" / step.chapter.path.name).write_text(json.dumps(notebook, indent=1))
    return folder


def _answer(profile: Profile, images: Path) -> str:
    """Return the answer for the first page, its figure drawn; "" where nothing has been run."""
    evidence = answer.evidences(profile)
    if not evidence:
        return ""
    answer.figure(evidence).savefig(images / "answer.png")
    return answer.section(evidence[0])


def graft(source: dict[str, Any], executed: dict[str, Any]) -> None:
    """Put the outputs of an executed notebook into today's source, in place; fold its code away.

    The key of a chapter says that the code cells are the same ones, so their order is enough.
    """
    for cell, run_cell in zip(_output_cells(source), _output_cells(executed), strict=True):
        cell["outputs"] = run_cell["outputs"]
        cell["execution_count"] = run_cell["execution_count"]
        tags = cell["metadata"].setdefault("tags", [])
        if not HIDING_TAGS & {*tags}:
            tags.append("hide-input")
    for cell in source["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            cell["metadata"]["tags"].append("hide-cell")


def external_loads(html: Path) -> list[str]:
    """Return what pages and stylesheets would load from the network, as "file: tag"; [] if nothing.

    Links that a reader has to follow do not count.
    """
    tag = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed|object|link)\b[^>]*?"
        r"(?:src|href|data)=[\"'](?:https?:)?//[^\"']*",
        re.I,
    )
    style = re.compile(r"(?:@import\s+|url\()\s*[\"']?(?:https?:)?//[^\"')]*", re.I)
    loads = []
    for page in sorted([*html.rglob("*.html"), *html.rglob("*.css")]):
        text = page.read_text(errors="replace")
        matches = style.findall(text) + (tag.findall(text) if page.suffix == ".html" else [])
        loads += [f"{page.relative_to(html)}: {match[:120]}" for match in matches]
    return loads


def runs_page(profile: Profile, records: list[dict[str, Any]]) -> str:
    """Return the page of all stored runs: what each reached and cost, and what each grid costs."""
    costs = [record["cost"] for record in records]
    return markdown.render(
        "hybridlib.book",
        "runs.md.j2",
        profile=profile.name,
        runs=len(records),
        scores=_score_table(records) if records else "",
        training=_minutes(costs, "train_seconds"),
        evaluation=_minutes(costs, "eval_seconds"),
        tokens=sum(float(cost.get("tokens") or 0) for cost in costs),
        grids=_grid_table(profile, records) if records else "",
    )


def _score_table(records: list[dict[str, Any]]) -> str:
    """Return a Markdown table with a row per run: accuracy by family, and seconds."""
    import pandas as pd

    scores = [
        {
            score["family"]: score
            for score in record["scores"]
            if (score["split"], score["metric"]) == ("test", "sampled")
        }
        for record in records
    ]
    families = sorted({family for by_family in scores for family in by_family})
    rows = [
        {
            "run": f"`{record['id']}`",
            **{family: _interval(by_family.get(family)) for family in families},
            "training, s": f"{float(record['cost'].get('train_seconds') or 0):.0f}",
            "evaluation, s": f"{float(record['cost'].get('eval_seconds') or 0):.0f}",
        }
        for record, by_family in zip(records, scores, strict=True)
    ]
    table = pd.DataFrame(rows)
    return markdown.table(table, right=table.columns[1:])


def _grid_table(profile: Profile, records: list[dict[str, Any]]) -> str:
    """Return a Markdown table with a row per grid: its finished runs and what they cost alone.

    Runs that grids share count in each of them.
    """
    import pandas as pd

    costs = {record["id"]: record["cost"] for record in records}
    rows = []
    for name, grid in GRIDS.items():
        done = [costs[run.id] for run in grid(profile) if run.id in costs]
        if name != "sweep" and len(done) > 1:
            rows.append(
                {
                    "grid": f"`{name}`",
                    "runs": str(len(done)),
                    "training, min": f"{_minutes(done, 'train_seconds'):.0f}",
                    "evaluation, min": f"{_minutes(done, 'eval_seconds'):.0f}",
                    "asks": " ".join((grid.__doc__ or "").split()),
                }
            )
    columns = ["grid", "runs", "training, min", "evaluation, min", "asks"]
    return markdown.table(pd.DataFrame(rows, columns=columns), right=columns[1:-1])


def _minutes(costs: list[dict[str, Any]], kind: str) -> float:
    return sum(float(cost.get(kind) or 0) for cost in costs) / 60


def _interval(score: dict[str, Any] | None) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" if score else ""


def _staged_notebook(profile: Profile, step: Step, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a chapter with its outputs, a banner and a footer; or its title and what failed."""
    notebook = json.loads(step.chapter.path.read_text())
    if step.has_outputs:
        executed = cache.executed_folder(profile) / step.chapter.path.name
        graft(notebook, json.loads(executed.read_text()))
        notebook["cells"].insert(1, _markdown_cell("banner", _banner(profile)))
        notebook["cells"].append(_markdown_cell("footer", _footer(profile, step, records)))
    else:
        title = "".join(notebook["cells"][0]["source"]).splitlines()[0]
        note = markdown.render("hybridlib.book", "missing.md.j2", title=title, step=step)
        notebook["cells"] = [_markdown_cell("note", note)]
    return notebook


def _output_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the code cells, but for those of the parameters."""
    parameters = {"parameters", "injected-parameters"}
    return [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and not parameters & {*cell["metadata"].get("tags", ())}
    ]


def _banner(profile: Profile) -> str:
    """Return the note above a chapter's numbers: which model they are about, how it was trained."""
    shape = None
    if profile.model == PROFILES["tiny"].model:
        shape = json.loads((hybridlib.ROOT / profile.model / "config.json").read_text())
    return markdown.render(
        "hybridlib.book",
        "banner.md.j2",
        profile=profile,
        shape=shape,
        sft=profile.sft,
        grpo=profile.grpo,
        sft_batch=sequences_per_step(profile, "sft"),
        grpo_batch=sequences_per_step(profile, "grpo"),
    )


def _footer(profile: Profile, step: Step, records: list[dict[str, Any]]) -> str:
    """Return the fold under a chapter: what its outputs were made from, when and on what."""
    record, made = step.record, step.record["provenance"]
    shown = [one["provenance"] for one in records if one["id"] in step.parts["results"]]
    devices = sorted({provenance["device"] for provenance in shown})
    rows = {
        "profile": f"`{profile.name}`",
        "parameters": ", ".join(f"`{k} = {v!r}`" for k, v in record["parameters"].items()),
        "runs read": f"{len(shown)}, on {'; '.join(devices)}" if shown else "none",
        "chapter executed": f"{made['finished_at']}, in {record['seconds']:.0f} s, on "
        f"{made['device']}",
        "commit": made["commit"] + (" and uncommitted changes" if made["dirty"] else ""),
        "versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items()),
        "key": f"`{step.key}`",
        "last rerun": "gave identical outputs" if record["identical"] else "",
    }
    return markdown.render("hybridlib.book", "footer.md.j2", rows=rows.items())


def _markdown_cell(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def _pages_key(source: Path) -> str:
    """Return a hash of all that the rendered pages depend on."""
    files = [
        *sorted(path for path in source.rglob("*") if path.is_file()),
        hybridlib.ROOT / "_config.yml",
        Path(__file__),
        hybridlib.ROOT / "requirements.txt",
    ]
    return cache.digest("".join(f"{path} {cache.file_digest(path)}" for path in files).encode())


def _run_jupyter_book(source: Path, draft: Path, strict: bool) -> None:
    """Render `source` into `draft`; raises StudyError, with the causes on stderr, if that fails."""
    log = hybridlib.ROOT / "_build" / "jupyter-book.log"
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source]
    command += ["--config", hybridlib.ROOT / "_config.yml", "--path-output", draft, "--keep-going"]
    if strict:
        command += ["-W", "-n"]
    with log.open("w") as out:
        command = processes.command_that_ends(command)
        done = subprocess.run(command, cwd=hybridlib.ROOT, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = log.read_text().splitlines()
        causes = [line for line in lines if re.search("WARNING|ERROR|Error", line)] or lines
        print("\n".join(causes[-15:]), file=sys.stderr)
        raise StudyError("the book did not render; the whole log is _build/jupyter-book.log")


def _prune(mathjax: Path) -> None:
    """Delete the files of MathJax that no page loads."""
    for path in [p for p in mathjax.rglob("*") if p.is_file()]:
        if not path.relative_to(mathjax).as_posix().startswith(MATHJAX):
            path.unlink()
