"""What the linter cannot ask for: what docstrings say, how parameters are called, free layout."""

import ast
import re
import tokenize
from pathlib import Path

import pytest

import hybridlib
from hybridlib.imports import modules

PACKAGE = Path(hybridlib.__file__).parent
MODULES = modules(PACKAGE)
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}
QUESTION = re.compile(
    r"(What|Which|Who|Whose|Where|When|Why|How|Is|Are|Was|Do|Does|Did|Has|Have|Can|Could|Will)\b"
    r".*\?$"
)
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


@pytest.mark.parametrize("name", TREES)
def test_a_question_is_asked_by_modules_alone(name):
    asking = [
        node.name
        for node in ast.walk(TREES[name])
        if isinstance(node, FUNCTIONS | ast.ClassDef)
        and QUESTION.match((ast.get_docstring(node) or "").partition("\n")[0])
    ]
    assert asking == []


@pytest.mark.parametrize("name", TREES)
def test_public_functions_and_classes_have_a_docstring(name):
    silent = [
        node.name
        for node in TREES[name].body
        if isinstance(node, FUNCTIONS | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize("name", TREES)
def test_public_functions_name_their_parameters_by_words(name):
    terse = [
        f"{node.name}({parameter.arg})"
        for node in TREES[name].body
        if isinstance(node, FUNCTIONS) and not node.name.startswith("_")
        for parameter in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if len(parameter.arg) == 1
    ]
    assert terse == []


@pytest.mark.parametrize("name", TREES)
def test_layout_by_hand_is_for_tables_of_constants(name):
    constants = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Module | ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr):
                    constants |= set(range(statement.lineno, statement.end_lineno + 1))
    with tokenize.open(MODULES[name]) as file:
        skips = [
            token.start[0]
            for token in tokenize.generate_tokens(file.readline)
            if token.type == tokenize.COMMENT and "fmt: skip" in token.string
        ]
    assert [line for line in skips if line not in constants] == []
