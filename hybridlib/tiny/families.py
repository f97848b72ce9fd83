"""Which kinds of question does the embedded study ask? One class for each family.

A family draws a chain of operations, words it as a question and solves it step by step. How many
operations a chain has is its level.
"""

import functools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from hybridlib.registry import Registry

FAMILIES = Registry("tiny task")

Chain = list[Any]
"""A question without its wording: where it starts, then one entry for each operation.

Its `repr` decides the split that it belongs to (see `tasks`), so that a family whose entries change
is another data set.
"""

Slip = Callable[[Any], Any]
"""Returns a step of a solution as it is, or a wrong one in its place.

A step is the result of an operation; in programs, which state no results, the operation itself.
"""


def no_slip(step: Any) -> Any:
    """Return the step as it is: the slip of reference solutions."""
    return step


class Family:
    """A kind of question; what each family has to provide. Families are never instantiated."""

    WORDINGS: list[dict[str, str]]
    """How the parts of a question can be said; the last is kept for the split "wording"."""
    PHRASINGS: dict[str, list[str]] = {}
    """More ways to say each part, for pretraining alone; none says it as the last wording does."""
    OPERATIONS_TOGETHER: list[list[str]]
    """The names that `operations` gives, those in one list that one chain can have."""

    @classmethod
    def draw(cls, level: int, rng: random.Random) -> Chain:
        """Return a random chain of `level` operations."""
        raise NotImplementedError

    @classmethod
    def ask(cls, chain: Chain, wording: Mapping[str, str], rng: random.Random) -> str:
        """Return the question that a chain asks, in one of the WORDINGS."""
        raise NotImplementedError

    @classmethod
    def mixed_wording(cls, rng: random.Random) -> Mapping[str, str]:
        """Return a wording that says each part in a way drawn anew, whenever it is said."""
        ways = {part: [*cls.PHRASINGS.get(part, [])] for part in cls.WORDINGS[0]}
        for wording in cls.WORDINGS[:-1]:
            for part, way in wording.items():
                ways[part].append(way)
        return _Mixed(ways, rng)

    @classmethod
    def operations(cls, chain: Chain) -> list[str]:
        """Return the names of the operations of a chain, without their numbers."""
        raise NotImplementedError

    @classmethod
    def solve(cls, chain: Chain, slip: Slip = no_slip) -> str:
        """Return the solution of a chain.

        Args:
            slip: applied to each step; the steps after it go on from what it returns.
        """
        raise NotImplementedError

    @classmethod
    def row(cls, chain: Chain, question: str, answer: str, rng: random.Random) -> dict[str, Any]:
        """Return question and solution in the columns of the published set."""
        raise NotImplementedError

    @classmethod
    def twin(cls, chain: Chain) -> Chain:
        """Return the other chain that asks the same question, or the chain where there is none."""
        return chain


class _Mixed(Mapping[str, str]):
    """A wording that gives any of several ways to say a part, another one at each look."""

    def __init__(self, ways: dict[str, list[str]], rng: random.Random):
        self.ways, self.rng = ways, rng

    def __getitem__(self, part: str) -> str:
        return self.rng.choice(self.ways[part])

    def __iter__(self) -> Iterator[str]:
        return iter(self.ways)

    def __len__(self) -> int:
        return len(self.ways)


def _apply(operator: str, left: int, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


@FAMILIES.register(name="tiny_gsm8k")
class WordProblems(Family):
    """A count that is added to, taken from and multiplied (after Cobbe et al. 2021).

    A chain is ("=", start), then (operator, number) for each operation.
    """

    NAMES = ["Tom", "Ann", "Ben", "Eva", "Sam", "Mia"]
    THINGS = ["apples", "coins", "cards", "books", "stamps", "shells"]
    WORDINGS = [
        {
            "=": "{name} has {number} {things}.",
            "+": "{name} buys {number} more.",
            "-": "{name} gives away {number}.",
            "*": "Then {name} has {number} times as many.",
            "?": "How many {things} does {name} have now?",
        },
        {
            "=": "There are {number} {things} in a box.",
            "+": "{name} adds {number} more.",
            "-": "{name} takes away {number}.",
            "*": "Then there are {number} times as many.",
            "?": "How many {things} are in the box now?",
        },
        {
            "=": "{name} starts with {number} {things}.",
            "+": "{other} gives {name} {number} more.",
            "-": "{name} loses {number}.",
            "*": "The number of {things} grows {number} times.",
            "?": "How many {things} does {name} have in the end?",
        },
        {
            "=": "In a box {name} has {number} {things}.",
            "+": "Then {number} more.",
            "-": "Then {name} takes away {number}.",
            "*": "{number} times as many now.",
            "?": "How many are there in the end?",
        },
    ]
    PHRASINGS = {
        "=": [
            "{name} owns {number} {things}.",
            "{name} brings {number} {things}.",
            "On the table lie {number} {things}.",
            "At first {name} has {number} {things}.",
            "In a bag there are {number} {things}.",
            "A box holds {number} {things}.",
            "{name} finds {number} {things} in a box.",
            "In the morning there are {number} {things}.",
            "In a room {other} sees {number} {things}.",
            "{number} {things} belong to {name}.",
        ],
        "+": [
            "Then {name} gets {number} more.",
            "Then {number} more come.",
            "{number} more are found.",
            "{number} more {things} arrive.",
            "Now {number} are added.",
            "After that {name} finds {number} more.",
            "Another {number} are put in.",
            "Then come {number} more {things}.",
            "{other} brings {number} more.",
            "And {number} more.",
        ],
        "-": [
            "Then {name} loses {number}.",
            "{number} are lost.",
            "Then {number} are taken away.",
            "{other} takes {number} of them.",
            "After that {name} gives away {number}.",
            "{number} of the {things} are sold.",
            "Then {number} less.",
            "Now {name} sells {number}.",
            "Then {other} takes {number} away.",
            "{name} drops {number}.",
        ],
        "*": [
            "Now there are {number} times as many.",
            "Then {number} times as many.",
            "{name} now has {number} times as many {things}.",
            "The {things} become {number} times as many.",
            "That is made {number} times as much.",
            "{number} times as many are needed.",
            "It grows to {number} times as many.",
            "Then all is taken {number} times.",
        ],
        "?": [
            "How many are there now?",
            "How many are left in the end?",
            "How many {things} are there in the end?",
            "How many does {name} have?",
            "What is the number of {things} now?",
            "In the end, how many {things} are there?",
            "How many {things} are left?",
            "Count the {things}.",
        ],
    }
    OPERATIONS_TOGETHER = [["+", "-", "*"]]

    @classmethod
    def draw(cls, level: int, rng: random.Random) -> Chain:
        value = rng.randint(2, 50)
        chain = [("=", value)]
        while len(chain) <= level:
            operator = rng.choice("++--*")
            number = rng.randint(2, 4) if operator == "*" else rng.randint(2, 30)
            result = _apply(operator, value, number)
            if 0 <= result < 100:
                value = result
                chain.append((operator, number))
        return chain

    @classmethod
    def ask(cls, chain: Chain, wording: Mapping[str, str], rng: random.Random) -> str:
        name, other = rng.sample(cls.NAMES, 2)
        things = rng.choice(cls.THINGS)
        return " ".join(
            wording[operator].format(name=name, other=other, things=things, number=number)
            for operator, number in [*chain, ("?", 0)]
        )

    @classmethod
    def solve(cls, chain: Chain, slip: Slip = no_slip) -> str:
        value = chain[0][1]
        lines = []
        for operator, number in chain[1:]:
            result = slip(_apply(operator, value, number))
            lines.append(f"<<{value}{operator}{number}={result}>>{result}")
            value = result
        return "\n".join([*lines, f"#### {value}"])

    @classmethod
    def operations(cls, chain: Chain) -> list[str]:
        return [operator for operator, _ in chain[1:]]

    @classmethod
    def row(cls, chain: Chain, question: str, answer: str, rng: random.Random) -> dict[str, Any]:
        return {"question": question, "answer": answer}


@FAMILIES.register(name="tiny_math")
class Expressions(Family):
    """Nested integer expressions and like terms, answers in a box (after Hendrycks et al. 2021).

    A chain is the topic, the start, then one entry for each operation. "Prealgebra" starts from a
    number and has (operator, number, whether the number stands on the left); "Algebra" starts from
    a linear polynomial (a, b), a x + b, and has such pairs, one of them 0, which are added.
    """

    WORDINGS = [
        {"Prealgebra": "Compute ${}$.", "Algebra": "Simplify ${}$."},
        {"Prealgebra": "What is ${}$?", "Algebra": "Write ${}$ as simply as you can."},
        {"Prealgebra": "Find the value of ${}$.", "Algebra": "Find ${}$ in its simplest form."},
        {"Prealgebra": "Write ${}$ as a value.", "Algebra": "What is ${}$ in its simplest form?"},
    ]
    PHRASINGS = {
        "Prealgebra": [
            "Calculate ${}$.",
            "Evaluate ${}$.",
            "Work out ${}$.",
            "Give the value of ${}$.",
            "What is the value of ${}$?",
            "What does ${}$ give?",
            "Write the value of ${}$.",
            "Write ${}$ as a number.",
            "Write ${}$ as one number.",
            "Find ${}$.",
            "Simplify ${}$.",
            "State ${}$ as a single number.",
            "How much is ${}$?",
            "${}$ is what?",
        ],
        "Algebra": [
            "Simplify the expression ${}$.",
            "Collect like terms: ${}$.",
            "Combine the terms of ${}$.",
            "What is ${}$, simplified?",
            "What is the simplest form of ${}$?",
            "What is a simpler form of ${}$?",
            "Give ${}$ in its simplest form.",
            "Write ${}$ in a simple form.",
            "Write ${}$ in its shortest form.",
            "Find a simpler form of ${}$.",
            "Make ${}$ as simple as you can.",
            "How can ${}$ be simplified?",
            "What is ${}$?",
            "${}$ is what in simple form?",
        ],
    }
    OPERATIONS_TOGETHER = [["+x", "-x", "+1", "-1"], ["+", "-", "*", "+left", "-left", "*left"]]

    @classmethod
    def draw(cls, level: int, rng: random.Random) -> Chain:
        if rng.random() < 0.5:
            return cls._draw_algebra(level, rng)
        return cls._draw_prealgebra(level, rng)

    @classmethod
    def _draw_algebra(cls, level: int, rng: random.Random) -> Chain:
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        chain: Chain = ["Algebra", (a, b)]
        while len(chain) < level + 2:
            term = (rng.choice([-1, 1]) * rng.randint(1, 9), 0)
            if rng.random() < 0.5:
                term = (0, term[0])
            if 0 < a + term[0] < 20 and 0 < b + term[1] < 20:
                a, b = a + term[0], b + term[1]
                chain.append(term)
        return chain

    @classmethod
    def _draw_prealgebra(cls, level: int, rng: random.Random) -> Chain:
        value = rng.randint(1, 20)
        chain: Chain = ["Prealgebra", value]
        while len(chain) < level + 2:
            operator, on_left = rng.choice("+-*"), rng.random() < 0.5
            number = rng.randint(2, 4) if operator == "*" else rng.randint(1, 20)
            left, right = (number, value) if on_left else (value, number)
            result = _apply(operator, left, right)
            if 0 <= result < 100:
                value = result
                chain.append((operator, number, on_left))
        return chain

    @classmethod
    def twin(cls, chain: Chain) -> Chain:
        """Return the other reading of an expression: 8+18 is 8, then +18, and 18, then 8+."""
        topic, start, *operations = chain
        if topic == "Algebra":
            return chain
        operator, number, on_left = operations[0]
        return [topic, number, (operator, start, not on_left), *operations[1:]]

    @classmethod
    def ask(cls, chain: Chain, wording: Mapping[str, str], rng: random.Random) -> str:
        topic, start, *operations = chain
        if topic == "Algebra":
            expression = _polynomial(start) + "".join(map(_signed_term, operations))
        else:
            expression = str(start)
            for depth, (operator, number, on_left) in enumerate(operations):
                inner = f"({expression})" if depth else expression
                expression = (
                    f"{number}{operator}{inner}" if on_left else f"{inner}{operator}{number}"
                )
        return wording[topic].format(expression)

    @classmethod
    def solve(cls, chain: Chain, slip: Slip = no_slip) -> str:
        topic, value, *operations = chain
        solved_step = _algebra_step if topic == "Algebra" else _prealgebra_step
        lines = []
        for operation in operations:
            value, line = solved_step(value, operation, slip)
            lines.append(line)
        answer = _polynomial(value) if topic == "Algebra" else str(value)
        return "\n".join([*lines, f"\\boxed{{{answer}}}"])

    @classmethod
    def operations(cls, chain: Chain) -> list[str]:
        topic, _, *operations = chain
        if topic == "Algebra":
            return [
                ("+" if max(term) > 0 else "-") + ("x" if term[0] else "1") for term in operations
            ]
        return [operator + "left" * on_left for operator, _, on_left in operations]

    @classmethod
    def row(cls, chain: Chain, question: str, answer: str, rng: random.Random) -> dict[str, Any]:
        level = f"Level {len(chain) - 2}"
        return {"problem": question, "level": level, "type": chain[0], "solution": answer}


Polynomial = tuple[int, int]  # (a, b) for a x + b


def _algebra_step(value: Polynomial, term: Polynomial, slip: Slip) -> tuple[Polynomial, str]:
    """Return the sum of a polynomial and a term, and the line that says so.

    The slip applies to the coefficient that the term changes.
    """
    a, b = value[0] + term[0], value[1] + term[1]
    result = (slip(a), b) if term[0] else (a, slip(b))
    return result, f"{_polynomial(value)}{_signed_term(term)}={_polynomial(result)}"


def _prealgebra_step(value: int, operation: tuple[str, int, bool], slip: Slip) -> tuple[int, str]:
    """Return the result of an operation on a number, and the line that says so."""
    operator, number, on_left = operation
    left, right = (number, value) if on_left else (value, number)
    result = slip(_apply(operator, left, right))
    return result, f"{left}{operator}{right}={result}"


def _polynomial(coefficients: Polynomial) -> str:
    """Return a x + b the way a textbook writes it.

    >>> _polynomial((1, -3)), _polynomial((-2, 0)), _polynomial((0, 4))
    ('x-3', '-2x', '4')
    """
    a, b = coefficients
    linear = {0: "", 1: "x", -1: "-x"}.get(a, f"{a}x")
    if not linear:
        return str(b)
    return f"{linear}{b:+d}" if b else linear


def _signed_term(term: Polynomial) -> str:
    """Return a term, one of whose coefficients is 0, with its sign: "+3x", "-4"."""
    return ("+" if max(term) > 0 else "") + _polynomial(term)


class Operation(NamedTuple):
    """What a program can do to its argument, a list `xs` or a number `n`."""

    numbers: range | list[int]  # that stand for {k}
    code: str
    imperative: str  # "add 3 to each item"
    phrase: str  # "each item plus 3"


UP_TO_20 = range(1, 21)
NO_NUMBER = [0]


@FAMILIES.register(name="tiny_mbpp")
class Programs(Family):
    """Functions over lists and numbers, judged by running asserts (after Austin et al. 2021).

    A chain has (name in OPERATIONS, number) for each operation, all on lists or all on numbers.
    """

    OPERATIONS = {
        "add": Operation(UP_TO_20, "[x+{k} for x in xs]",
                         "add {k} to each item", "each item plus {k}"),
        "sub": Operation(UP_TO_20, "[x-{k} for x in xs]",
                         "subtract {k} from each item", "each item minus {k}"),
        "mul": Operation(range(2, 10), "[x*{k} for x in xs]",
                         "multiply each item by {k}", "each item times {k}"),
        "gt": Operation(range(2, 16), "[x for x in xs if x>{k}]",
                        "keep items greater than {k}", "only items over {k}"),
        "lt": Operation(range(5, 20), "[x for x in xs if x<{k}]",
                        "keep items less than {k}", "only items under {k}"),
        "even": Operation(NO_NUMBER, "[x for x in xs if x%2==0]",
                          "keep the even items", "only even items"),
        "odd": Operation(NO_NUMBER, "[x for x in xs if x%2==1]",
                         "keep the odd items", "only odd items"),
        "end": Operation(UP_TO_20, "xs+[{k}]", "put {k} at the end", "{k} added at the end"),
        "start": Operation(UP_TO_20, "[{k}]+xs", "put {k} at the start", "{k} added at the start"),
        "drop": Operation(range(1, 4), "xs[{k}:]",
                          "drop the first {k} items", "without the first {k} items"),
        "take": Operation(range(1, 5), "xs[:{k}]",
                          "take the first {k} items", "only the first {k} items"),
        "rev": Operation(NO_NUMBER, "xs[::-1]", "reverse the list", "the list reversed"),
        "sort": Operation(NO_NUMBER, "sorted(xs)", "sort the list", "the list sorted"),
        "n+": Operation(UP_TO_20, "n+{k}", "add {k}", "plus {k}"),
        "n-": Operation(UP_TO_20, "n-{k}", "subtract {k}", "minus {k}"),
        "n*": Operation(range(2, 10), "n*{k}", "multiply by {k}", "times {k}"),
        "n%": Operation(range(3, 10), "n%{k}", "take the rest modulo {k}", "modulo {k}"),
        "n2": Operation(NO_NUMBER, "n*n", "square it", "times itself"),
        "max": Operation(UP_TO_20, "max(n,{k})", "raise it to at least {k}", "at least {k}"),
    }  # fmt: skip
    WORDINGS = [
        {
            "xs": "Write a function to {}.",
            "n": "Write a function of a number to {}.",
            "separator": ", then ",
            "form": "imperative",
        },
        {
            "xs": "Write a python function that can {}.",
            "n": "Write a python function of a number that can {}.",
            "separator": " and then ",
            "form": "imperative",
        },
        {
            "xs": "Given a list, return {}.",
            "n": "Given a number, return {}.",
            "separator": ", ",
            "form": "phrase",
        },
        {
            "xs": "Write a function of a list: {}.",
            "n": "Write a function of a number: {}.",
            "separator": ", then ",
            "form": "phrase",
        },
    ]
    HEADERS = {
        "imperative": [
            ("Write a function to {}.", "Write a function of a number to {}."),
            (
                "Write a python function that can {}.",
                "Write a python function of a number that can {}.",
            ),
            ("Write code to {}.", "Write code for a number to {}."),
            ("Write a function of a list to {}.", "Write a function that takes a number to {}."),
            ("Take a list and {}.", "Take a number and {}."),
            ("With a list, {}.", "With a number, {}."),
            ("The function f has to {}.", "The function f of a number has to {}."),
            ("In python, {}.", "In python, with a number, {}."),
            ("Define f for lists: {}.", "Define f for numbers: {}."),
        ],
        "phrase": [
            ("Given a list, return {}.", "Given a number, return {}."),
            ("Write a function that returns {}.", "Write a function of a number that returns {}."),
            ("Return {}.", "For a number, return {}."),
            ("From a list make {}.", "From a number make {}."),
            (
                "Write a function for a list that gives {}.",
                "Write a function for a number that gives {}.",
            ),
            ("Define a function of a list: {}.", "Define a function of a number: {}."),
            ("A list: {}.", "A number: {}."),
            ("Write a program for a list: {}.", "Write a program for a number: {}."),
            ("What is wanted of a list: {}.", "What is wanted of a number: {}."),
        ],
    }
    SEPARATORS = [", then ", " and then ", ", ", "; ", ", and then ", ", after that ", " then "]
    OPERATIONS_TOGETHER = [
        [name for name in OPERATIONS if not name.startswith("n") and name != "max"],
        [name for name in OPERATIONS if name.startswith("n") or name == "max"],
    ]

    @classmethod
    def mixed_wording(cls, rng: random.Random) -> Mapping[str, str]:
        """Return a wording of one form throughout: what heads a phrase cannot head a command."""
        form = rng.choice([*cls.HEADERS])
        headers = cls.HEADERS[form]
        ways = {
            "xs": [of_list for of_list, _ in headers],
            "n": [of_number for _, of_number in headers],
            "separator": cls.SEPARATORS,
            "form": [form],
        }
        return _Mixed(ways, rng)

    @classmethod
    def draw(cls, level: int, rng: random.Random) -> Chain:
        """Return a random chain whose result depends on its argument."""
        over_numbers = rng.random() < 0.3
        names = cls._names("n" if over_numbers else "xs")
        probes = [3, 8, 17] if over_numbers else [list(range(start, 20, 3)) for start in (1, 2, 4)]
        while True:
            chain = [
                (name, rng.choice(cls.OPERATIONS[name].numbers))
                for name in rng.choices(names, k=level)
            ]
            function = cls._function(chain)
            results = {str(function(probe)) for probe in probes} - {"[]"}
            if len(results) > 1:
                return chain

    @classmethod
    def ask(cls, chain: Chain, wording: Mapping[str, str], rng: random.Random) -> str:
        parts = [
            getattr(cls.OPERATIONS[name], wording["form"]).format(k=number)
            for name, number in chain
        ]
        return wording[cls._argument(chain[0])].format(wording["separator"].join(parts))

    @classmethod
    def solve(cls, chain: Chain, slip: Slip = no_slip) -> str:
        argument = cls._argument(chain[0])
        lines = [
            f"    {argument} = " + cls.OPERATIONS[name].code.format(k=number)
            for name, number in map(slip, chain)
        ]
        return "\n".join([f"def f({argument}):", *lines, f"    return {argument}"])

    @classmethod
    def operations(cls, chain: Chain) -> list[str]:
        return [name for name, _ in chain]

    @classmethod
    def row(cls, chain: Chain, question: str, answer: str, rng: random.Random) -> dict[str, Any]:
        """Return the columns of MBPP, with three asserts on random arguments."""
        function = cls._function(chain)
        tests = []
        for _ in range(3):
            numbers = [rng.randint(1, 20) for _ in range(rng.randint(5, 7))]
            argument = numbers if cls._argument(chain[0]) == "xs" else numbers[0]
            tests.append(f"assert f({argument}) == {function(argument)}")
        return {"text": question, "code": answer, "test_list": tests}

    @classmethod
    def _argument(cls, step: tuple[str, int]) -> str:
        """Return what an operation applies to: "xs", a list, or "n", a number."""
        return "xs" if "xs" in cls.OPERATIONS[step[0]].code else "n"

    @classmethod
    def _names(cls, argument: str) -> list[str]:
        """Return the operations that apply to this argument."""
        return [name for name in cls.OPERATIONS if cls._argument((name, 0)) == argument]

    @classmethod
    def _function(cls, chain: Chain) -> Callable:
        """Return what the reference solution of a chain computes."""
        argument = cls._argument(chain[0])
        steps = [_compiled(argument, cls.OPERATIONS[name].code, number) for name, number in chain]
        return lambda value: functools.reduce(lambda result, step: step(result), steps, value)


@functools.cache
def _compiled(argument: str, code: str, number: int) -> Callable:
    return eval(f"lambda {argument}: {code.format(k=number)}")  # of ours, never a model's text
