"""How do executed notebooks become a book that needs no network? Stage, render, check, swap in."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridlib
from hybridlib import StudyError, results
from hybridlib.book import cache
from hybridlib.claims import verdicts
from hybridlib.grids import GRIDS, batch
from hybridlib.profiles import PROFILES

if TYPE_CHECKING:
    from hybridlib.book.build import Step
    from hybridlib.profiles import Profile

HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell", "show-input"}
MATHJAX = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts")
"""What pages ask of MathJax; the other 20 MB are variants for other inputs and outputs."""


def render(profile: "Profile", steps: "list[Step]") -> Path:
    """Where is the book's first page? Renders anew only if a page or a setting has changed.

    Strict (a warning is an error) once every chapter is there. Raises StudyError if Jupyter Book
    fails or a page would load something from the network; the last good book stays then.
    """
    build, config = hybridlib.ROOT / "_build", hybridlib.ROOT / "_config.yml"
    html, seal = build / "html", build / "html.key"
    source = stage(profile, steps)
    files = [
        *sorted(p for p in source.rglob("*") if p.is_file()),
        config,
        Path(__file__),
        hybridlib.ROOT / "requirements.txt",
    ]
    key = cache.sha("".join(f"{p} {cache.file_sha(p)}" for p in files).encode())
    if (html / "index.html").exists() and seal.exists() and seal.read_text() == key:
        return html / "index.html"
    strict = ["-W", "-n"] if all(step.good for step in steps) else []
    draft, log = build / "render", build / "jupyter-book.log"
    shutil.rmtree(draft, ignore_errors=True)
    with log.open("w") as out:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("jupyter-book"),
                "build",
                source,
                "--config",
                config,
                "--path-output",
                draft,
                "--keep-going",
                *strict,
            ],
            cwd=hybridlib.ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        lines = log.read_text().splitlines()
        causes = [x for x in lines if re.search("WARNING|ERROR|Error", x)] or lines
        print("\n".join(causes[-15:]), file=sys.stderr)
        raise StudyError("the book did not render; the whole log is _build/jupyter-book.log")
    fresh = draft / "_build" / "html"
    _prune(fresh / "_static" / "mathjax")
    if found := external(fresh):
        raise StudyError(f"the book would load from the network: {', '.join(found[:3])}")
    seal.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    fresh.rename(html)
    shutil.rmtree(draft)
    seal.write_text(key)
    return html / "index.html"


def stage(profile: "Profile", steps: "list[Step]") -> Path:
    """Which files does Jupyter Book read? A mirror of book/ and notebooks/, outputs in place."""
    here = hybridlib.ROOT / "_build" / "stage"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(hybridlib.ROOT / "book", here / "book")
    (here / "book" / "_toc.yml").rename(here / "_toc.yml")
    (here / "notebooks").mkdir()
    records = results.read(profile.name)
    (here / "book" / "runs.md").write_text(runs_page(profile, records))
    found = verdicts.ledger(profile)
    page = verdicts.page(profile, found, verdicts.history(profile))
    (here / "book" / "claims.md").write_text(page)
    intro = here / "book" / "intro.md"
    intro.write_text(intro.read_text().replace("% what was found\n", verdicts.summary(found)))
    for step in steps:
        source = json.loads(step.chapter.path.read_text())
        if step.good:
            ran = json.loads((cache.executed(profile) / step.chapter.path.name).read_text())
            graft(source, ran)
            source["cells"].insert(1, _markdown("banner", _banner(profile)))
            source["cells"].append(_markdown("footer", _footer(profile, step, records)))
        else:
            title = "".join(source["cells"][0]["source"]).splitlines()[0]
            note = f"{title}\n\n```{{warning}}\nThis chapter is not in this build: {step.reason}.\n"
            source["cells"] = [_markdown("note", f"{note}{step.error}\n```\n")]
        (here / "notebooks" / step.chapter.path.name).write_text(json.dumps(source, indent=1))
    return here


def graft(source: dict[str, Any], ran: dict[str, Any]) -> None:
    """Put the outputs of an executed notebook into today's source, and fold its code away.

    The key of a chapter says that the code cells are the same ones, so their order is enough.
    """

    def code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
        own = {"parameters", "injected-parameters"}
        cells = (c for c in notebook["cells"] if c["cell_type"] == "code")
        return [c for c in cells if not own & {*c["metadata"].get("tags", ())}]

    for cell, done in zip(code(source), code(ran), strict=True):
        cell["outputs"], cell["execution_count"] = done["outputs"], done["execution_count"]
        tags = cell["metadata"].setdefault("tags", [])
        if not HIDDEN & {*tags}:
            tags.append("hide-input")
    for cell in source["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            cell["metadata"]["tags"].append("hide-cell")


def external(html: Path) -> list[str]:
    """What would a reader's browser load from elsewhere? Plain links are fine; empty is good."""
    tag = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed|object|link)\b[^>]*?"
        r"(?:src|href|data)=[\"'](?:https?:)?//[^\"']*",
        re.I,
    )
    style = re.compile(r"(?:@import\s+|url\()\s*[\"']?(?:https?:)?//[^\"')]*", re.I)
    found = []
    for page in sorted([*html.rglob("*.html"), *html.rglob("*.css")]):
        text = page.read_text(errors="replace")
        hits = style.findall(text) + (tag.findall(text) if page.suffix == ".html" else [])
        found += [f"{page.relative_to(html)}: {hit[:120]}" for hit in hits]
    return found


def runs_page(profile: "Profile", records: list[dict[str, Any]]) -> str:
    """Which runs stand behind the book, what did each reach, and what did all of them cost?"""
    lines = [
        "# All runs",
        "",
        f"Every finished run of profile `{profile.name}`, "
        f"as stored under `data/results/{profile.name}/`.",
        "",
    ]
    if not records:
        return "\n".join([*lines, "No run of this profile is stored yet.", ""])
    scores = {
        r["id"]: {
            s["family"]: s for s in r["scores"] if (s["split"], s["metric"]) == ("test", "sampled")
        }
        for r in records
    }
    families = sorted({family for found in scores.values() for family in found})
    kinds = ("train_seconds", "eval_seconds", "tokens")
    costs = [[float(r["cost"].get(kind) or 0) for kind in kinds] for r in records]
    lines += [
        "Accuracy is the mean over sampled answers, test split, with its 95 % interval.",
        "The foot of each chapter names the machine that took these seconds.",
        "",
        _row("run", *families, "training, s", "evaluation, s"),
        _row("---", *["---:"] * (len(families) + 2)),
    ]
    for record, (train, test, _) in zip(records, costs, strict=True):
        found = scores[record["id"]]
        lines.append(
            _row(
                f"`{record['id']}`",
                *(_interval(found.get(f)) for f in families),
                f"{train:.0f}",
                f"{test:.0f}",
            )
        )
    train, test, tokens = (sum(column) for column in zip(*costs, strict=True))
    lines += [
        "",
        f"Together: {len(records)} runs, {train / 60:.0f} minutes of training, "
        f"{test / 60:.0f} minutes of evaluation, {tokens:,.0f} tokens.",
        "",
        *_grid_costs(profile, records),
    ]
    return "\n".join(lines)


def _grid_costs(profile: "Profile", records: list[dict[str, Any]]) -> list[str]:
    """What does each grid cost alone? Runs that grids share count in each of them."""
    spent = {
        r["id"]: (float(r["cost"]["train_seconds"]), float(r["cost"]["eval_seconds"]))
        for r in records
    }
    lines = [
        "## What each grid costs",
        "",
        "Minutes of one worker; as many workers as the machine has cores share them. Grids share "
        f"runs, so the lines add up to more than the whole, which "
        f"`python -m hybridlib sweep everything --profile {profile.name}` computes.",
        "",
        _row("grid", "runs", "training, min", "evaluation, min", "asks"),
        _row("---", "---:", "---:", "---:", "---"),
    ]
    for name, grid in GRIDS.items():
        done = [spent[run.id] for run in grid(profile) if run.id in spent]
        if name != "sweep" and len(done) > 1:
            minutes = (f"{sum(column) / 60:.0f}" for column in zip(*done, strict=True))
            asks = " ".join((grid.__doc__ or "").split())
            lines.append(_row(f"`{name}`", str(len(done)), *minutes, asks))
    return [*lines, ""]


def _interval(score: dict[str, Any] | None) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" if score else ""


def _banner(profile: "Profile") -> str:
    what = f"the model `{profile.model}`"
    if profile.model == PROFILES["tiny"].model:
        config = json.loads((hybridlib.ROOT / profile.model / "config.json").read_text())
        what = (
            f"a Qwen2 of {config['num_hidden_layers']} layers and width {config['hidden_size']} "
            "that this project pretrained on generated text, some of it with slips. Its questions "
            "are generated, too, and easier than those of the sets whose formats and names they "
            "borrow"
        )
    sft, grpo, name = profile.sft, profile.grpo, profile.name
    again = "" if name == "tiny" else (
        " The exercises' commands mean the profile `tiny`; they are about this page's runs with "
        f"`--profile {name}`, or `make book PROFILE={name}`.")  # fmt: skip
    return (
        "```{admonition} What the numbers are about\n:class: note\n"
        f"Profile `{profile.name}`: {what}. Unless an arm is named after it, SFT takes "
        f"{sft['max_steps']} steps of {batch(profile, 'sft')} rows at a learning rate of "
        f"{sft['learning_rate']:g}, GRPO {grpo['max_steps']} steps of {batch(profile, 'grpo')} "
        f"answers, {grpo['num_generations']} to a question, at {grpo['learning_rate']:g}. "
        "The numbers on this page are measurements of this model and of no other; "
        f"[](../book/reproduce.md) says how to put another one in its place.{again}\n```\n"
    )


def _footer(profile: "Profile", step: "Step", records: list[dict[str, Any]]) -> str:
    record, made = step.record, step.record["provenance"]
    shown = [r["provenance"] for r in records if r["id"] in step.parts["results"]]
    devices = sorted({p["device"] for p in shown})
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
    table = [f"* - {name}\n  - {value}" for name, value in rows.items() if value]
    return "\n".join(
        ["````{dropdown} How this page was made", "```{list-table}", *table, "```", "````", ""]
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def _prune(mathjax: Path) -> None:
    for path in [p for p in mathjax.rglob("*") if p.is_file()]:
        if not path.relative_to(mathjax).as_posix().startswith(MATHJAX):
            path.unlink()
