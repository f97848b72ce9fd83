"""What a chapter may look like: a thin notebook over the library, without outputs."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
chapter = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def lines(cell):
    return [x for x in source(cell).splitlines() if x.strip() and not x.lstrip().startswith("#")]


def tags(cell):
    return set(cell["metadata"].get("tags", ()))


def test_there_are_chapters():
    assert NOTEBOOKS


@chapter
def test_nothing_executed_is_kept(path):
    for cell in cells(path):
        assert not cell["outputs"] and cell["execution_count"] is None
        assert not {"execution", "papermill"} & {*cell["metadata"]}


@chapter
def test_one_short_parameters_cell_of_literals_stands_first(path):
    marked = [cell for cell in cells(path) if "parameters" in tags(cell)]
    assert marked == cells(path)[:1]
    body = ast.parse(source(marked[0])).body
    assert 1 <= len(body) <= 5
    for node in body:
        assert isinstance(node, ast.Assign | ast.AnnAssign)
        ast.literal_eval(node.value)


@chapter
def test_what_it_computes_lives_in_the_library(path):
    for cell in cells(path):
        assert not any(x.lstrip().startswith(("!", "%")) for x in lines(cell)), source(cell)
        for node in ast.walk(ast.parse(source(cell))):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef), source(cell)


@chapter
def test_size(path):
    count = len(cells(path)) + len(cells(path, "markdown"))
    assert 16 <= count <= 24
    assert sum(len(lines(cell)) for cell in cells(path)) <= 120
    for cell in cells(path):
        assert len(lines(cell)) <= 12, source(cell)


@chapter
def test_title_stands_first_and_alone_at_its_level(path):
    first, *rest = cells(path, "markdown")
    assert source(first).startswith("# ")
    assert not [x for cell in rest for x in source(cell).splitlines() if x.startswith("# ")]


@chapter
def test_it_reruns_and_diffs_cleanly(path):
    notebook = json.loads(path.read_text())
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len({*ids}) == len(ids)
    assert notebook["metadata"]["kernelspec"] == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert {*notebook["metadata"]} <= {"kernelspec", "language_info", "hybridlib"}
    assert {*notebook["metadata"]["hybridlib"]} <= {"after", "grids", "full", "reads"}


@chapter
def test_grids_exist(path):
    from hybridlib.study import GRIDS

    for grid in json.loads(path.read_text())["metadata"]["hybridlib"].get("grids", ()):
        assert grid in GRIDS


@chapter
def test_every_figure_has_a_caption_and_says_what_it_shows(path):
    for cell in cells(path):
        if cell["id"].endswith("-figure"):
            shown = cell["metadata"]["mystnb"]
            assert len(shown["image"]["alt"]) > 20, cell["id"]
            assert shown["figure"]["caption"].endswith("."), cell["id"]
            assert shown["figure"]["name"] == f"fig-{cell['id']}"
