"""What does an assert ask of a program, and does the answer hold?

Each assert is split in two. The calls of the program's own functions go to the sandbox, which
evaluates them; the comparison with the expected value stays with the judge. EvalPlus feeds tests as
values for the same reason, but compares in the program's process, where a lying `__eq__` counts.
Tests that hold more than imports and asserts are read by `script`.
"""

import ast
import builtins
import functools
import json
from dataclasses import dataclass, field, replace

from hybridlib import StudyError
from hybridlib.sandbox import script, wire
from hybridlib.sandbox.script import Script

MAX_COMPARED_CHARS = 10_000  # of an answer that the judge compares itself, see `read_answers`


@dataclass(frozen=True)
class Comparison:
    """What an assert claims about the values of its calls.

    `expression` is Python code over the variables `_i_0`, `_i_1`, ..., the values of the calls of
    assert i. `expected` holds the one expected value where the assert is `call == literal`; it is
    empty for all other asserts.
    """

    expression: str
    expected: tuple = ()


@dataclass(frozen=True)
class ParsedTests:
    """The tests of one program, split into what it evaluates and what the judge compares.

    `steps` go to the program, in order: a string is setup code to execute, a list holds the calls
    of one assert, to be evaluated. `comparisons` stay with the judge, one for each such list.
    `imports` is code that the comparisons may need; `variables`, encoded, are the program's.
    Where there is a `script`, `with_plan` adds the steps, and its replay does the comparing.
    """

    steps: list[str | list[str]]
    comparisons: list[Comparison]
    imports: str
    variables: dict = field(default_factory=dict)
    script: Script | None = None


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> ParsedTests:
    """Split setup code and asserts; raise StudyError where they cannot be judged."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise StudyError(f"the tests {text[:60]!r} are no Python ({error}); fix the row") from None
    if script.is_script(body):
        return ParsedTests([], [], "", script=script.read(body))
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    known_names = imported | set(dir(builtins))
    steps, comparisons = [], []
    for statement in body:
        if isinstance(statement, ast.Assert):
            calls, comparison = _split(statement, known_names, f"_{len(comparisons)}_")
            steps.append(calls)
            comparisons.append(comparison)
        else:
            steps.append(ast.unparse(statement))
    if not comparisons:
        raise StudyError(f"the tests {text[:60]!r} have no assert; fix the row")
    compared = [ast.parse(comparison.expression) for comparison in comparisons]
    defined = imported | script.bound_names([*body, *compared])
    defined |= {f"_{i}_{n}" for i, calls in enumerate(_calls(steps)) for n in range(len(calls))}
    if undefined := script.undefined(compared, defined):
        raise StudyError(
            f"the tests {text[:60]!r} compare with {', '.join(undefined[:5])}, which they do not "
            "define; fix the row"
        )
    missing = script.module_imports(compared, known_names)
    return ParsedTests(steps, comparisons, "\n".join([*map(ast.unparse, imports), *missing]))


def plan_job(tests: ParsedTests) -> dict:
    """Return the job that plans tests which are a script.

    Its code is the data set's, so it goes to the zygote of the comparisons.
    """
    return {"program": tests.script.plan, "variables": {}, "steps": [[script.PLAN_RESULT]]}


def with_plan(tests: ParsedTests, lines: list[str]) -> ParsedTests:
    """Return tests with the steps that the answer to their `plan_job` says.

    Raises StudyError where the tests themselves end in an error or take too long.
    """
    answer = json.loads(lines[0]) if lines else "they take too long"
    if not isinstance(answer, list):
        raise StudyError(f"the tests cannot be executed without a program ({answer}); fix the row")
    steps, variables = tests.script.steps(answer[0])
    comparisons = [Comparison("") for _ in _calls(steps)]
    if not comparisons:
        raise StudyError("the tests come to no assert; fix the row")
    return replace(tests, steps=steps, variables=variables, comparisons=comparisons)


def _calls(steps: list[str | list[str]]) -> list[list[str]]:
    return [step for step in steps if isinstance(step, list)]


def _split(
    statement: ast.Assert, known_names: set[str], prefix: str
) -> tuple[list[str], Comparison]:
    """Return the calls of an assert and the comparison; the statement itself loses its calls."""
    source = ast.unparse(statement)
    extractor = _CallExtractor(known_names, prefix)
    test = extractor.visit(statement.test)
    if not extractor.calls:  # a program may take a built-in's name: `assert sum(10, 15) == 6`
        extractor.known_names = set()
        test = extractor.visit(test)
    if not extractor.calls or extractor.in_inner_scope:
        raise StudyError(f"{source[:80]!r} cannot be judged; write `assert call(...) == value`")
    return extractor.calls, Comparison(f"bool({ast.unparse(test)})", _expected(test))


class _CallExtractor(ast.NodeTransformer):
    """Moves the outermost calls of unknown names into `calls`; variables take their places."""

    def __init__(self, known_names: set[str], prefix: str):
        self.known_names, self.prefix = known_names, prefix
        self.calls: list[str] = []
        self.in_inner_scope = False  # such a call may need variables of its lambda or loop

    def visit_Call(self, node: ast.Call) -> ast.AST:
        function = node.func
        while isinstance(function, ast.Call):  # `make(1)(4)`
            function = function.func
        if not isinstance(function, ast.Name) or function.id in self.known_names:
            return self.generic_visit(node)
        self.calls.append(ast.unparse(node))
        return ast.Name(f"{self.prefix}{len(self.calls) - 1}", ast.Load())

    def visit_scope(self, node: ast.AST) -> ast.AST:
        calls_before = len(self.calls)
        node = self.generic_visit(node)
        self.in_inner_scope |= len(self.calls) > calls_before
        return node

    visit_Lambda = visit_ListComp = visit_SetComp = visit_scope
    visit_DictComp = visit_GeneratorExp = visit_scope


def _expected(test: ast.expr) -> tuple:
    """Return (literal,) for the test `variable == literal`, () for any other."""
    match test:
        case ast.Compare(left=ast.Name(), ops=[ast.Eq()], comparators=[value]):
            try:
                return (ast.literal_eval(value),)
            except (ValueError, TypeError):
                return ()
    return ()


def read_answers(lines: list[str], tests: ParsedTests) -> tuple[list[bool | list], str]:
    """Compare the answers of a program with what its asserts expect.

    Args:
        lines: what the child has written, one line per assert so far. It may be forged.

    Returns:
        For each answered assert True or False, or the answer itself, encoded, where only
        `comparison_job` can tell; and the error that ended the program, "" if none is known.
        Nothing is read after the first assert that does not hold.

    An answer longer than MAX_COMPARED_CHARS is not even decoded here: a set of values that were
    made to collide takes quadratic time to build, which would hold the judge up.
    """
    results: list[bool | list] = []
    call_counts = map(len, _calls(tests.steps))
    for line, call_count, comparison in zip(lines, call_counts, tests.comparisons, strict=False):
        try:
            answer = json.loads(line)
            if isinstance(answer, str):
                return results, "".join(c if c.isprintable() else " " for c in answer[:300])
            if not isinstance(answer, list) or len(answer) != call_count:
                raise ValueError
            results.append(_compare(line, answer, comparison))
        except wire.DECODING_ERRORS:
            return results, "an answer that cannot be read"
        if results[-1] is False:
            break
    return results, ""


def _compare(line: str, answer: list, comparison: Comparison) -> bool | list:
    """Return whether the answer is the expected value, or the answer where that stays open."""
    if len(line) > MAX_COMPARED_CHARS or not comparison.expression:
        return answer
    values = [wire.decode(value) for value in answer]  # raises where it cannot be read
    if comparison.expected:
        return bool(values[0] == comparison.expected[0])
    return answer


def comparison_job(results: list[bool | list], tests: ParsedTests) -> dict | None:
    """Return the job that decides what `read_answers` left open; None where nothing is open.

    Its code is the data set's and runs over a program's values, so it goes to a zygote of its own:
    that of the programs never sees an expected value.
    """
    if tests.script:
        answers = ["list", *(["list", *values] for values in results)]
        program = tests.script.replay
        return {"program": program, "variables": {"_answers": answers}, "steps": [["_results"]]}
    undecided = [i for i, result in enumerate(results) if isinstance(result, list)]
    if not undecided:
        return None
    variables = {f"_{i}_{n}": value for i in undecided for n, value in enumerate(results[i])}
    steps = [[tests.comparisons[i].expression] for i in undecided]
    return {"program": tests.imports, "variables": variables, "steps": steps}


def decided(results: list[bool | list], tests: ParsedTests, lines: list[str]) -> list[bool]:
    """Return results with what the answers to their `comparison_job` decide.

    A comparison that fails in any way counts as one that does not hold.
    """
    if not tests.script:
        answers = iter(lines)
        return [r if isinstance(r, bool) else next(answers, "") == "[true]" for r in results]
    replayed = json.loads(lines[0]) if lines else []
    truths = replayed[0][1:] if isinstance(replayed, list) and replayed else []
    return [*truths, *[False] * (len(results) - len(truths))]
