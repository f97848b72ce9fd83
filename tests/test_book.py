"""Is the book whole, and can it be read without a network, and without seeing?"""

import html
import json
import re
from pathlib import Path

import pytest
import yaml

from hybridlib.book import pages

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"
GENERATED = {"book/runs.md", "book/claims.md"}
FROM_RECORDS = {  # pages written from a record have their prose in a template
    "graders.md": ROOT / "benchmarks" / "templates" / "graders.md.j2",
    "metrics.md": ROOT / "benchmarks" / "templates" / "metrics.md.j2",
    "engine.md": ROOT / "benchmarks" / "templates" / "engine.md.j2",
    "intervals.md": ROOT / "benchmarks" / "templates" / "intervals.md.j2",
}
HARMLESS = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$|95 %", re.S)  # code, roles, formulas
rendered = pytest.mark.skipif(
    not (HTML / "index.html").exists(), reason="no rendered book; `make book` makes it"
)


def articles():
    for path in sorted([*(HTML / "book").glob("*.html"), *(HTML / "notebooks").glob("*.html")]):
        yield path, re.search(r"<article.*</article>", path.read_text(), re.S).group(0)


def toc():
    """Files that the table of contents names, with globs spelt out."""

    def file(name):
        candidates = (f"{name}.md", f"{name}.ipynb")
        return next(path for path in candidates if path in GENERATED or (ROOT / path).exists())

    def walk(node):
        for key, value in node.items():
            if key in ("root", "file"):
                yield file(value)
            elif key == "glob":
                yield from (p.relative_to(ROOT).as_posix() for p in ROOT.glob(f"{value}.ipynb"))
            elif isinstance(value, list):
                for child in value:
                    yield from walk(child)

    return list(walk(yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())))


@pytest.mark.parametrize(
    "page", sorted([*(ROOT / "book").glob("*.md"), *FROM_RECORDS.values()]), ids=lambda p: p.name
)
def test_what_a_fence_opens_is_closed_on_a_line_of_its_own(page):
    """Or a figure swallows the rest of its page."""
    fences = [line for line in page.read_text().splitlines() if "```" in line]
    assert all(line.startswith("```") for line in fences)
    assert all(line == "```" for line in fences[1::2]) and len(fences) % 2 == 0


def test_every_page_is_in_the_contents_once():
    pages_there = [
        p.relative_to(ROOT).as_posix()
        for folder, kind in (("book", "md"), ("notebooks", "ipynb"))
        for p in (ROOT / folder).glob(f"*.{kind}")
    ]
    assert sorted(toc()) == sorted({*pages_there} | GENERATED)


def test_only_the_runner_executes_and_every_bibliography_exists():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    assert all((ROOT / name).exists() for name in config["bibtex_bibfiles"])


def test_every_citation_has_an_entry_and_every_entry_a_citation():
    entries = set(re.findall(r"@\w+\{(\w+)", (ROOT / "book" / "references.bib").read_text()))
    text = "".join(p.read_text() for p in (ROOT / "book").glob("*.md"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text += "".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"])
    cited = {
        key.strip()
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited == entries


def typed(text):
    """Results in prose: shares, percentages, points, and numbers next to the word accuracy."""
    number = r"(?<![\w.])[+-]?\d+(?:\.\d+)?"
    patterns = (
        r"(?<![\d.])0?\.\d\d",
        rf"{number}\s?%",
        rf"{number}\s+(?:percentage\s+)?points?",
        rf"accurac(?:y|ies):?(?:\s+[a-z]+){{0,2}}\s+{number}",
        rf"{number}\s+accuracy",
    )
    return re.findall("|".join(patterns), HARMLESS.sub("", text), re.I)


def test_prose_types_no_results():
    """Such a number in a page of prose can only have been typed: glue it instead."""
    for path in (ROOT / "book").glob("*.md"):
        assert not typed(FROM_RECORDS.get(path.name, path).read_text()), path.name
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                assert not typed("".join(cell["source"])), (path.name, cell["source"])


@pytest.mark.parametrize(
    "text",
    [
        "SFT reaches 61 %.",
        "It gains 3 points.",
        "a gap of 2.5 percentage points",
        "worth 12%",
        "an accuracy of 7",
        "accuracy rises to 0.5",
        "a share of .25",
        "Accuracy: it is 0.61",
    ],
)
def test_a_number_that_is_typed_in_is_found(text):
    assert typed(f"Some words. {text} And more.")


@pytest.mark.parametrize(
    "text", ["It gains {glue:text}`gap` points.", "two points", "Level 3 is hard.", "`--steps 5 %`"]
)
def test_other_numbers_may_be_typed(text):
    assert not typed(text)


@rendered
def test_pages_load_nothing_from_the_network():
    assert pages.external_loads(HTML) == []


@rendered
def test_links_inside_the_book_lead_somewhere():
    for path, text in articles():
        for target in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', text):
            if not re.match(r"[a-z]+:", target):
                assert (path.parent / html.unescape(target)).exists(), (path.name, target)


@rendered
def test_every_picture_says_what_it_shows():
    for path, text in articles():
        for image in re.findall(r"<img\b[^>]*>", text):
            alt = re.search(r'alt="([^"]*)"', image)
            assert alt and len(alt.group(1)) > 20 and "/_images/" not in alt.group(1), (
                path.name,
                image[:200],
            )


@rendered
def test_no_page_shows_an_error_or_a_warning():
    for path, text in articles():
        seen = re.findall(r"Traceback \(most|output stderr|\w*Warning:|not in this build", text)
        assert not seen, (path.name, seen)
