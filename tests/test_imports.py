"""Imports run downward only: a newcomer can read the package from the bottom to the top."""

import ast
import graphlib
from pathlib import Path

import pytest

import hybridlib
from hybridlib.imports import closure, graph, imports, modules

PACKAGE = Path(hybridlib.__file__).parent
BENCHMARKS = PACKAGE.parent / "benchmarks"

ORDER = """
    __init__ registry imports markdown hub files weights locks processes profiles runs
    sandbox.seccomp sandbox.wire sandbox.isolation sandbox.zygote sandbox.script sandbox.asserts
    sandbox.judge
    sandbox
    tiny.families tiny.tasks tiny.errors tiny
    proportions objectives partition adapters
    grading.question grading.notation grading.latex grading.numeric grading.structure
    grading.evaluated grading.equality grading.forms grading.frames grading.comparison
    grading.symbolic grading.extraction grading.grader grading.arithmetic grading
    fingerprint crossed stats results
    data.textfiles data.sources data.rows data.audit data.intake data.describe data
    engine.ends engine.operations engine.gradients engine.decoder engine.rollout engine.critics
    engine.trainers engine
    models
    merging.geometry merging.operators merging.merge merging.interference merging
    metrics rewards reward_shares difficulty targets tracking pretrain ladder drift evaluate
    methods.registry methods.checkpoints methods.train methods.mixed methods.composed
    methods.distillation methods
    labels figures measures
    grids pool preflight study chapter verify restamp estimate pilot export
    trials.stages trials.decisions trials.planning trials.scores trials.worlds trials
    claims.registry claims.contrasts claims.forgetting claims.rules claims.verdicts claims.power
    claims.page claims.answer
    claims
    advise.choice advise.report advise
    book.cache book.plan book.kernels book.pages book.build book
    doctor
    __main__
""".split()
"""All modules, bottom to top; each imports only from those before it. A wing's face comes last."""

BENCHMARK_ORDER = """
    __init__ perturbations validity mbppplus evalplus_rate sandbox
    contenders golds grader_rates graders_page graders
    settings steps alone engine page intervals speed __main__
""".split()


def arrows(folder):
    return graph(modules(folder), folder.name, annotations=True)


@pytest.mark.parametrize("folder, order", [(PACKAGE, ORDER), (BENCHMARKS, BENCHMARK_ORDER)])
def test_every_module_has_its_place_and_imports_only_from_below(folder, order):
    found = arrows(folder)
    assert [name for name in found if name not in order] == []  # give it a place in ORDER
    height = {name: place for place, name in enumerate(order)}
    upward = {
        (name, target)
        for name, targets in found.items()
        for target in targets
        if height[target] > height[name]
    }
    assert upward == set()


@pytest.mark.parametrize("folder", [PACKAGE, BENCHMARKS])
def test_no_modules_import_each_other_in_a_circle(folder):
    order = graphlib.TopologicalSorter(arrows(folder))
    order.prepare()  # raises CycleError, which names the circle


def test_the_package_does_not_import_the_benchmarks():
    known = modules(BENCHMARKS)
    for path in modules(PACKAGE).values():
        assert not imports(ast.parse(path.read_text()), known, "benchmarks", annotations=True)


KNOWN_MODULES = {"__init__", "stats", "grading", "grading.grader", "grading.latex"}


@pytest.mark.parametrize(
    "code, names",
    [
        ("import json, os.path", set()),
        ("from hybridlib import StudyError", {"__init__"}),
        ("import hybridlib", {"__init__"}),
        ("from hybridlib import StudyError, stats", {"__init__", "stats"}),
        ("import hybridlib.grading.grader as g", {"grading.grader"}),
        ("from hybridlib.grading import grader, grade", {"grading.grader", "grading"}),
        ("from hybridlib.grading.latex import read", {"grading.latex"}),
        ("def f():\n    from hybridlib import stats", {"stats"}),
        ("from hybridlibrary import stats", set()),
        ("if TYPE_CHECKING:\n  import hybridlib.stats\nelse:\n  import hybridlib", {"__init__"}),
        ("run('import sys; from hybridlib import stats')", {"stats"}),
        ("'Prose: from hybridlib import stats'", set()),
    ],
)
def test_import_statements_are_read_as_python_reads_them(code, names):
    assert imports(ast.parse(code), KNOWN_MODULES) == names


def test_imports_for_annotations_count_when_asked_for():
    code = ast.parse("if typing.TYPE_CHECKING:\n    from hybridlib import stats")
    assert imports(code, KNOWN_MODULES, annotations=True) == {"stats"}


def test_a_face_that_walks_its_folder_imports_what_is_in_it(tmp_path):
    (tmp_path / "wing").mkdir()
    (tmp_path / "wing" / "__init__.py").write_text("for module in iter_modules(__path__): ...")
    (tmp_path / "wing" / "part.py").write_text("")
    assert graph(modules(tmp_path)) == {"wing": {"wing.part"}, "wing.part": set()}


def test_a_closure_holds_the_faces_on_the_way_and_what_they_import():
    tree = {
        "__init__": set(),
        "grading": {"grading.grader"},
        "grading.grader": {"stats"},
        "grading.latex": set(),
        "stats": set(),
        "study": set(),
    }
    whole = {"grading.latex", "grading", "grading.grader", "stats", "__init__"}
    assert closure(["grading.latex"], tree) == whole
