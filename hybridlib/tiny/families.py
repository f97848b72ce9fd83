"""Which kinds of question does the embedded study ask? One class for each family.

A family is three functions: `draw` a chain of operations (the level is its length), `ask` it in
words, `solve` it step by step; and `row`, which puts both in the columns of the real set. Where two
chains can ask the same, `twin` is the other one.
"""

import random
from collections.abc import Callable
from typing import Any

from hybridlib.registry import Registry

Chain = list[Any]
Slip = Callable[[Any], Any]  # may replace a step's result (or, in code, the step) by a wrong one
FAMILIES = Registry("tiny task")

UP_TO_20 = range(1, 21)
NAMES = ["Tom", "Ann", "Ben", "Eva", "Sam", "Mia"]
THINGS = ["apples", "coins", "cards", "books", "stamps", "shells"]


def same(value: Any) -> Any:
    """The slip that never slips: reference solutions."""
    return value


@FAMILIES.register
class tiny_gsm8k:
    """A count that is added to, taken from and multiplied (after Cobbe et al. 2021)."""

    # How each wording says each operation; the last is kept for the split "wording".
    SAY = [dict(zip("=+-*?", said, strict=True)) for said in (
        ("{n} has {k} {t}.", "{n} buys {k} more.", "{n} gives away {k}.",
         "Then {n} has {k} times as many.", "How many {t} does {n} have now?"),
        ("There are {k} {t} in a box.", "{n} adds {k} more.", "{n} takes away {k}.",
         "Then there are {k} times as many.", "How many {t} are in the box now?"),
        ("{n} starts with {k} {t}.", "{m} gives {n} {k} more.", "{n} loses {k}.",
         "The number of {t} grows {k} times.", "How many {t} does {n} have in the end?"),
        ("In a box {n} has {k} {t}.", "Then {k} more.", "Then {n} takes away {k}.",
         "{k} times as many now.", "How many are there in the end?"),
    )]  # fmt: skip

    @staticmethod
    def draw(level: int, rng: random.Random) -> Chain:
        value = rng.randint(2, 50)
        chain = [("=", value)]
        while len(chain) <= level:
            op = rng.choice("++--*")
            k = rng.randint(2, 4) if op == "*" else rng.randint(2, 30)
            result = {"+": value + k, "-": value - k, "*": value * k}[op]
            if 0 <= result < 100:
                value = result
                chain.append((op, k))
        return chain

    @staticmethod
    def ask(chain: Chain, say: dict[str, str], rng: random.Random) -> str:
        (n, m), t = rng.sample(NAMES, 2), rng.choice(THINGS)
        return " ".join(say[op].format(n=n, m=m, t=t, k=k) for op, k in [*chain, ("?", 0)])

    @staticmethod
    def solve(chain: Chain, slip: Slip = same, steps: bool = True) -> str:
        value, lines = chain[0][1], []
        for op, k in chain[1:]:
            result = slip({"+": value + k, "-": value - k, "*": value * k}[op])
            lines.append(f"<<{value}{op}{k}={result}>>{result}")
            value = result
        return "\n".join([*lines * steps, f"#### {value}"])

    @staticmethod
    def row(chain: Chain, question: str, answer: str, rng: random.Random) -> dict[str, Any]:
        return {"question": question, "answer": answer}


def _poly(a: int, b: int) -> str:
    """a x + b the way a textbook writes it.

    >>> _poly(1, -3), _poly(-2, 0), _poly(0, 4)
    ('x-3', '-2x', '4')
    """
    x = {0: "", 1: "x", -1: "-x"}.get(a, f"{a}x")
    return x + (f"{b:+d}" if x else str(b)) * (b != 0 or not x)


@FAMILIES.register
class tiny_math:
    """Nested integer expressions and like terms, answers in a box (after Hendrycks et al. 2021)."""

    SAY = [
        {"Prealgebra": "Compute ${e}$.", "Algebra": "Simplify ${e}$."},
        {"Prealgebra": "What is ${e}$?", "Algebra": "Write ${e}$ as simply as you can."},
        {"Prealgebra": "Find the value of ${e}$.", "Algebra": "Find ${e}$ in its simplest form."},
        {"Prealgebra": "Write ${e}$ as a value.", "Algebra": "What is ${e}$ in its simplest form?"},
    ]

    @staticmethod
    def draw(level: int, rng: random.Random) -> Chain:
        if rng.random() < 0.5:
            chain: Chain = ["Algebra", (rng.randint(1, 9), rng.randint(1, 9))]
            a, b = chain[1]
            while len(chain) < level + 2:
                da, db = (rng.choice([-1, 1]) * rng.randint(1, 9), 0)
                if rng.random() < 0.5:
                    da, db = db, da
                if 0 < a + da < 20 and 0 < b + db < 20:
                    a, b = a + da, b + db
                    chain.append((da, db))
            return chain
        value = rng.randint(1, 20)
        chain = ["Prealgebra", value]
        while len(chain) < level + 2:
            op, left = rng.choice("+-*"), rng.random() < 0.5
            k = rng.randint(2, 4) if op == "*" else rng.randint(1, 20)
            x, y = (k, value) if left else (value, k)
            result = {"+": x + y, "-": x - y, "*": x * y}[op]
            if 0 <= result < 100:
                value = result
                chain.append((op, k, left))
        return chain

    @staticmethod
    def twin(chain: Chain) -> Chain:
        """The other chain with the same question: 8+18 is 8, then +18, and 18, then 8+."""
        topic, start, *steps = chain
        if topic == "Algebra":
            return chain
        op, k, left = steps[0]
        return [topic, k, (op, start, not left), *steps[1:]]

    @staticmethod
    def ask(chain: Chain, say: dict[str, str], rng: random.Random) -> str:
        topic, start, *steps = chain
        if topic == "Algebra":
            e = _poly(*start) + "".join(("+" if max(s) > 0 else "") + _poly(*s) for s in steps)
        else:
            e = str(start)
            for i, (op, k, left) in enumerate(steps):
                inner = f"({e})" if i else e
                e = f"{k}{op}{inner}" if left else f"{inner}{op}{k}"
        return say[topic].format(e=e)

    @staticmethod
    def solve(chain: Chain, slip: Slip = same, steps: bool = True) -> str:
        topic, value, *ops = chain
        lines = []
        for op in ops:
            if topic == "Algebra":
                a, b = value[0] + op[0], value[1] + op[1]
                result = (slip(a), b) if op[0] else (a, slip(b))
                term = ("+" if max(op) > 0 else "") + _poly(*op)
                lines.append(f"{_poly(*value)}{term}={_poly(*result)}")
            else:
                x, y = (op[1], value) if op[2] else (value, op[1])
                result = slip({"+": x + y, "-": x - y, "*": x * y}[op[0]])
                lines.append(f"{x}{op[0]}{y}={result}")
            value = result
        answer = _poly(*value) if topic == "Algebra" else str(value)
        return "\n".join([*lines * steps, f"\\boxed{{{answer}}}"])

    @staticmethod
    def row(chain: Chain, question: str, answer: str, rng: random.Random) -> dict[str, Any]:
        level = f"Level {len(chain) - 2}"
        return {"problem": question, "level": level, "type": chain[0], "solution": answer}


@FAMILIES.register
class tiny_mbpp:
    """Functions over lists and numbers, judged by running asserts (after Austin et al. 2021)."""

    OPS = {  # operation -> (its arguments, its code over xs or n, how each wording says it)
        "add": (UP_TO_20, "[x+{k} for x in xs]", "add {k} to each item", "each item plus {k}"),
        "sub": (UP_TO_20, "[x-{k} for x in xs]",
                "subtract {k} from each item", "each item minus {k}"),
        "mul": (range(2, 10), "[x*{k} for x in xs]",
                "multiply each item by {k}", "each item times {k}"),
        "gt": (range(2, 16), "[x for x in xs if x>{k}]",
                "keep items greater than {k}", "only items over {k}"),
        "lt": (range(5, 20), "[x for x in xs if x<{k}]",
                "keep items less than {k}", "only items under {k}"),
        "even": ([0], "[x for x in xs if x%2==0]", "keep the even items", "only even items"),
        "odd": ([0], "[x for x in xs if x%2==1]", "keep the odd items", "only odd items"),
        "end": (UP_TO_20, "xs+[{k}]", "put {k} at the end", "{k} added at the end"),
        "start": (UP_TO_20, "[{k}]+xs", "put {k} at the start", "{k} added at the start"),
        "drop": (range(1, 4), "xs[{k}:]",
                "drop the first {k} items", "without the first {k} items"),
        "take": (range(1, 5), "xs[:{k}]", "take the first {k} items", "only the first {k} items"),
        "rev": ([0], "xs[::-1]", "reverse the list", "the list reversed"),
        "sort": ([0], "sorted(xs)", "sort the list", "the list sorted"),
        "n+": (UP_TO_20, "n+{k}", "add {k}", "plus {k}"),
        "n-": (UP_TO_20, "n-{k}", "subtract {k}", "minus {k}"),
        "n*": (range(2, 10), "n*{k}", "multiply by {k}", "times {k}"),
        "n%": (range(3, 10), "n%{k}", "take the rest modulo {k}", "modulo {k}"),
        "n2": ([0], "n*n", "square it", "times itself"),
        "max": (UP_TO_20, "max(n,{k})", "raise it to at least {k}", "at least {k}"),
    }  # fmt: skip
    SAY = [
        {"xs": "Write a function to {}.", "n": "Write a function of a number to {}.",
         ",": ", then ", "v": 0},
        {"xs": "Write a python function that can {}.",
         "n": "Write a python function of a number that can {}.", ",": " and then ", "v": 0},
        {"xs": "Given a list, return {}.", "n": "Given a number, return {}.", ",": ", ", "v": 1},
        {"xs": "Write a function of a list: {}.",
         "n": "Write a function of a number: {}.", ",": ", then ", "v": 1},
    ]  # fmt: skip

    @classmethod
    def draw(cls, level: int, rng: random.Random) -> Chain:
        over_number = rng.random() < 0.3
        names = [o for o in cls.OPS if (o[0] == "n" or o == "max") == over_number]
        while True:
            chain = [(op, rng.choice(cls.OPS[op][0])) for op in rng.choices(names, k=level)]
            f = cls.function(chain)
            probes = [list(range(s, 20, 3)) for s in (1, 2, 4)] if not over_number else [3, 8, 17]
            if len({str(f(x)) for x in probes} - {"[]"}) > 1:  # the answer depends on the input
                return chain

    @classmethod
    def ask(cls, chain: Chain, say: dict[str, Any], rng: random.Random) -> str:
        said = [cls.OPS[op][2 + say["v"]].format(k=k) for op, k in chain]
        return say[cls.argument(chain)].format(say[","].join(said))

    @classmethod
    def argument(cls, chain: Chain) -> str:
        return "xs" if "xs" in cls.OPS[chain[0][0]][1] else "n"

    @classmethod
    def solve(cls, chain: Chain, slip: Slip = same, steps: bool = True) -> str:
        v = cls.argument(chain)
        lines = [f"    {v} = " + cls.OPS[op][1].format(k=k) for op, k in map(slip, chain)]
        return "\n".join([f"def f({v}):", *lines, f"    return {v}"])

    @classmethod
    def function(cls, chain: Chain) -> Callable:
        scope: dict[str, Any] = {}
        exec(cls.solve(chain), scope)  # our own reference, never a model's text
        return scope["f"]

    @classmethod
    def row(cls, chain: Chain, question: str, answer: str, rng: random.Random) -> dict[str, Any]:
        tests, f = [], cls.function(chain)
        while len(tests) < 3:
            x = [rng.randint(1, 20) for _ in range(rng.randint(5, 7))]
            x = x if cls.argument(chain) == "xs" else x[0]
            tests.append(f"assert f({x}) == {f(x)}")
        return {"text": question, "code": answer, "test_list": tests}
