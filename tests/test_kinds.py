"""Answers by kind: accepted where they are right, refused where they are near, or only a copy."""

import decimal
import functools
import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import graders
from hybridlib import data, grading
from hybridlib.grading import arithmetic, extraction
from tests.kinds import (
    ASKED_RIGHT,
    ASKED_WRONG,
    LAST_RIGHT,
    LAST_WRONG,
    RIGHT,
    UNSEEN_RIGHT,
    UNSEEN_WRONG,
    WRONG,
)

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
TESTS = "assert f(2) == 4"
CODE = "def f(x):\n    return x*x"
OTHER_CODE = "def f(x):\n    return x+9"


def is_right(gold, answer, question=""):
    text = answer if "\\boxed{" in answer else f"\\boxed{{{answer}}}"
    return grading.grade(text, gold, "expression", grading.form_asked(question)).correct


STILL_REFUSED = [("0.001", "10^{-3}")]  # right, but the grader does not tell; the page says so


@pytest.mark.parametrize("kind", RIGHT)
def test_right_answers_of_each_kind_are_accepted(kind):
    refused = [pair for pair in RIGHT[kind] if not is_right(*pair)]
    assert set(refused) == {pair for pair in STILL_REFUSED if pair in RIGHT[kind]}


@pytest.mark.parametrize("kind", WRONG)
def test_near_ones_and_copies_are_refused(kind):
    assert [pair for pair in WRONG[kind] if is_right(*pair)] == []
    assert len(RIGHT[kind]) + len(WRONG[kind]) >= 20
    for gold, _ in WRONG[kind]:
        assert is_right(gold, gold)


@pytest.mark.parametrize("kind", ASKED_RIGHT)
def test_answers_in_the_form_that_the_question_asks_for(kind):
    right, wrong = ASKED_RIGHT[kind], ASKED_WRONG[kind]
    assert len(right) + len(wrong) >= 20
    assert [row for row in right if not is_right(*row[1:], row[0])] == []
    assert [row for row in wrong if is_right(*row[1:], row[0])] == []


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("How many apples has Tom?", ""), ("To the nearest tenth of a mile?", "places:1"),
        ("Round 2.47 to the nearest tenth and 3.6 to the nearest integer. Add them.", ""),
        ("Do not round to the nearest cent.", ""), ("Where is the nearest town?", ""),
        ("What digit is in the 100th decimal place?", ""), ("Simplify it.", "simplified"),
        ("As a common fraction?", "simplified fraction"), ("As a decimal or as a fraction?", ""),
        ("To the nearest tenth of a percent?", "places:1 percent"),
        ("How many degrees?", "degrees"), ("If $x + y = 7$, what is $x$?", "unknowns"),
        ("Each number is rounded to the nearest integer. How likely is it?", ""),
        ("Give 3 significant digits, in radians.", "radians digits:3"),
    ],
)  # fmt: skip
def test_the_form_is_read_from_the_words_of_the_question(question, asked):
    assert grading.form_asked(question) == asked


@given(st.fractions(-99, 99, max_denominator=97), st.integers(0, 4))
def test_a_decimal_counts_where_it_is_rounded_as_asked_and_no_other_does(exact, places):
    question = f"Give it to {places} decimal places." if places else "To the nearest integer?"
    size = decimal.Decimal(abs(exact.numerator)) / exact.denominator
    step = decimal.Decimal(1).scaleb(-places)
    rounded = size.quantize(step, decimal.ROUND_HALF_UP).copy_sign(exact.numerator)
    gold = f"{exact.numerator}/{exact.denominator}"
    assert is_right(gold, f"{rounded:f}", question)
    assert not is_right(gold, f"{rounded + step:f}", question)
    assert is_right(gold, f"{rounded:f}") == (exact == Fraction(rounded))


def test_an_equation_of_the_question_is_no_answer():
    for gold, equation in (("7", "x + y = 7"), ("3", "|z| = 3"), ("5", "x^2 + px + q = 5")):
        assert is_right(gold, equation, "What is it worth?")
        assert not is_right(gold, equation, f"Given ${equation}$, what is $x$?")


def test_numbers_behind_the_mark_are_rounded_as_asked():
    asked = grading.form_asked("Round to the nearest tenth.")
    assert grading.grade("#### 3.3", "3.3333", "number", asked).correct
    assert not grading.grade("#### 3.33", "3.3333", "number", asked).correct
    assert not grading.grade("#### 3.3", "3.3333", "number").correct


def test_pairs_that_were_written_last():
    through = [pair for pair in UNSEEN_WRONG if is_right(*pair)]
    assert through == [("18", r"\boxed{17} or \boxed{18}"), ("0.08", r"0.08\%")]  # conventions
    assert sum(is_right(*pair) for pair in UNSEEN_RIGHT) >= len(UNSEEN_RIGHT) - 1
    assert [row for row in LAST_RIGHT if not is_right(*row[1:], row[0])] == []
    assert [row for row in LAST_WRONG if is_right(*row[1:], row[0])] == []


def test_a_gold_that_cannot_be_read_is_compared_as_it_stands_or_not_at_all():
    for gold, answer in WRONG["golds that cannot be read"]:
        verdict = grading.grade(f"\\boxed{{{answer}}}", gold, "expression")
        assert verdict.reason in ("refused", "wrong")
    verdict = grading.grade(r"\boxed{x<sup>3</sup>}", "x<sup>2</sup>", "expression")
    assert verdict.reason == "refused"
    assert not grading.is_readable("x<sup>2</sup>") and grading.is_readable("x^2")


FRAMES = {  # frame -> whether it keeps the answer of a gold in it
    "The answer is {}": True, r"\text{{The answer is }} {}": True, r"\displaystyle {}": True,
    "{}.": True, r"{} \quad": True, r"\mathbf{{{}}}": True, "= {}": True,
    "The answer is not {}": False, "less than {}": False, "{} or 9999": False, "({})^{{17}}": False,
    "{} + 1": False, "1/({})+3": False, "2({})-({})+1": False, r"\text{{not }}{}": False,
}  # fmt: skip


@functools.cache
def golds_of_math():
    return {row["answer"] for row in data.load("math", "train", limit=300)} - {"0", "1", "-1"}


@pytest.mark.slow
@pytest.mark.parametrize(("frame", "keeps"), FRAMES.items())
def test_frames_round_the_golds_of_math(hub, frame, keeps):
    golds = golds_of_math()
    n_right = sum(is_right(gold, frame.format(gold, gold)) for gold in golds)
    assert n_right >= 0.9 * len(golds) if keeps else n_right == 0


FORMULAS = st.recursive(
    st.integers(1, 40).map(str),
    lambda parts: st.builds("({} {} {})".format, parts, st.sampled_from("+-*"), parts),
    max_leaves=5,
)


@given(FORMULAS)
def test_arithmetic_is_no_answer_but_its_value_is(formula):
    value = str(eval(formula))
    assert is_right(value, value)
    if not formula.isdecimal():
        assert not is_right(value, formula.replace("*", "\\cdot "))
        assert not is_right(value, formula.removeprefix("(").removesuffix(")"))
        assert is_right(value, f"{formula} = {value}")


@given(st.text(alphabet="0123456789xa{}\\ $.\nboxedf", max_size=60), st.integers(0, 99))
def test_the_quick_way_to_the_last_box_finds_the_same(text, number):
    for whole in (text, f"{text}\\boxed{{{number}}}", f"{text} \\boxed{{ {text} }} {text}"):
        boxes = list(extraction._boxes(whole))
        last = max(boxes, default=(0, None), key=lambda box: box[0])[1]
        assert grading.last_boxed(whole) == last


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases beside the repository")
def test_the_shared_pairs_are_judged_as_they_should():
    pairs = [
        (path.parent.name, json.loads(line))
        for path in CASES.glob("*/pairs.jsonl")
        for line in path.read_text().splitlines()
    ]
    wrong = [pair for _, pair in pairs if is_right(pair["gold"], pair["given"]) != pair["want"]]
    assert len(pairs) >= 20 and wrong == []


@pytest.mark.parametrize("name", ["tiny_math", pytest.param("math", marks=pytest.mark.slow)])
def test_a_formula_of_the_question_is_no_answer(request, name):
    if name == "math":
        request.getfixturevalue("hub")
    record = graders.copies(name, limit=400 if name == "tiny_math" else 0)
    assert record["formulas"] >= 400 and record["rows"] >= 400
    paid = {(row["gold"], row["answer"]) for row in record["paid"]}
    # Equal numbers in another form, which only the question could tell from an answer.
    simplified = {gold for gold, answer in paid if "sqrt" in answer}
    assert len(simplified) <= 7 and all("sqrt" in gold for gold in simplified)
    stated = {gold for gold, answer in paid if "sqrt" not in answer}  # the value stands there
    assert len(stated) <= (9 if name == "math" else 0)


@pytest.mark.parametrize(
    "text",
    [
        CODE.replace("\n", "\r\n"), f"\ufeff{CODE}", f"```python3\n{CODE}\n```",
        f"```Python\n{CODE}\n```", f"```py\r\n{CODE}\r\n```\r\n", f"~~~python\n{CODE}\n~~~",
        f"````python\n{CODE}\n````", f"```bash\npip install x\n```\n```python\n{CODE}\n```",
        f"```python\n{CODE}\n```\nOutput:\n```\n4\n```", f"{CODE}\n```", f"{CODE}\n```\nDone.",
        f"```python\n{CODE}\n```\n```cpp\nclass A {{}};\n```", f"Here: ```python\n{CODE}\n```",
        "1. So:\n   ```python\n   def f(x):\n       return x*x\n   ```", f"```python\n{CODE}```",
        f"[BEGIN]\n{CODE}\n[DONE]", f"```{{.python}}\n{CODE}\n```", f"```python\n{CODE}",
        f"```python\n{OTHER_CODE}\n```\nNo:\n```python\n{CODE}\n```", f"~~~\n{CODE}\n~~~",
        f'```python title="f.py"\n{CODE}\n```', f"```python\n{CODE}\n```\n```\nprint(f(2))\n```",
    ],
)  # fmt: skip
def test_code_is_found_in_its_fence(text):
    assert grading.grade(text, TESTS, "program").correct


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{CODE}\n```\n```python\n{OTHER_CODE}\n```", "```python\nprint(4)\n```",
        f"```\n{OTHER_CODE}\n```", "```text\nno code\n```", "",
    ],
)  # fmt: skip
def test_other_code_is_not(text):
    assert not grading.grade(text, TESTS, "program").correct


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases beside the repository")
def test_the_shared_fences_pass():
    for path in sorted(CASES.glob("I2-fence-pairs/*.txt")):
        assert grading.grade(path.read_text(), TESTS, "program").correct, path.name


@pytest.mark.parametrize(
    "written",
    [
        "1234", "1,234", "$1,234.00", "**1234**", "１２３４", "1\u202f234", "1 234", "€1,234",
        "1234 €", "1234\r", "\ufeff1234", "`1234`", "$1234$", "\\$1234", "£1234.0", "+1234",
    ],
)  # fmt: skip
def test_typography_behind_the_mark(written):
    assert grading.grade(f"so\n#### {written}\r\n", "1234", "number").correct


@pytest.mark.parametrize("written", ["−58", "–58", "-58", "－58", "−５８", "- 58"])
def test_signs_behind_the_mark(written):
    assert grading.grade(f"#### {written}", "-58", "number").correct == (written != "- 58")


@pytest.mark.parametrize(
    "text",
    [
        "1234", "### 1234", "＃＃＃＃ 1234", "#### 1234 1235", "#### 1.234", "#### 1234 apples",
        "#### about 1234", "#### \n1234", "#### 1234x", "#### " + "1234" + " " * 1_000 + "5",
    ],
)  # fmt: skip
def test_the_mark_stays_strict(text):
    assert not grading.grade(text, "1234", "number").correct


@pytest.mark.parametrize(
    "text",
    ["AZYUK2A", "B12", "x2", "H2O", "A2", "key2B", "(AZ2)", "2A", "U2", "see R2D2"],
)
@pytest.mark.parametrize("kind", ["number", "expression"])
def test_lenient_takes_no_number_out_of_a_word(text, kind):
    verdict = grading.grade(text, "2", kind)
    assert not grading.grade_leniently([text], ["2"], [kind], [verdict])[0].correct


@pytest.mark.parametrize(
    "text",
    [
        "so it is less than 5", "about 5", "There are no 5.", "The answer is not $5$",
        "not **5**", "the answer is roughly 5.", "$x < 5$", "It isn't 5", "at least \\(5\\)",
        "more than $5", "half of 5", "It is up to 5", "$x \\ge 5$", "not equal to 5",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["number", "expression"])
def test_lenient_takes_no_number_after_words_that_turn_it_round(text, kind):
    verdict = grading.grade(text, "5", kind)
    assert not grading.grade_leniently([text], ["5"], [kind], [verdict])[0].correct


@pytest.mark.parametrize(
    "part",
    [
        "1",
        "1+1=",
        "1+1=2 ",
        "- ",
        "\n ",
        "1%",
        "&",
        "x ",
        "\\frac{1}{2}",
        "\\boxed{1}",
        "−",
        "```\n",
    ],
)
@pytest.mark.parametrize("kind", ["number", "expression"])
def test_long_texts_and_long_golds_are_bounded_before_they_are_read(part, kind):
    text = part * (720_000 // len(part))
    began = time.process_time()
    verdict = grading.grade(text, "5", kind)
    grading.grade_leniently([text], ["5"], [kind], [verdict])
    grading.grade("\\boxed{5} #### 5", text, "expression")
    arithmetic.find_equations(text)
    assert time.process_time() - began < 2.5


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("– 5 + 3 = 8", [True]), ("— 5 + 3 = 8", [True]), ("• 5 + 3 = 8", [True]),
        ("1) 5 + 3 = 8", [True]), ("a) 5 + 3 = 8", [True]), ("- 5 + 3 = 9", [False]),
        ("-48 / 2 = 24\n-24 + 1 = 25", [True, True]), ("-48 / 2 = 24", [False]),
        ("200 / 3 = 66.66", [True]), ("2/3 = 0.66", [True]), ("2/3 = 0.666", [True]),
        ("2/3 = 0.65", [False]), ("2/3 = 0.68", [False]), ("11/3 = 3", [False]),
        ("11/3 = 3 (rounded down)", [True]), ("rounding up, 10/3 = 4", [True]),
        ("x = 24 + 48 = 72", [True]), ("total = 24 + 48 = 73", [False]),
        ("A + B = 24 + 48 = 72", [True]), ("n = 200/40 = 6", [False]),
        ("x + y = 24 + 48 = 73", [False]), ("200/33.33 = 6", [False]), ("200/33.33 = 6.0", [True]),
        ("200/33.33 = 6, rounded", [True]), ("7/2 = 4", [False]), ("about 7/2 = 4", [True]),
        ("(2) (3 + 4) = 14", []), ("(a) 3 + 4 = 8", [False]), ("2) 3 + 4 = 7", [True]),
    ],
)  # fmt: skip
def test_steps_in_lists_and_cut_off(text, holds):
    assert [equation.holds for equation in arithmetic.find_equations(text)] == holds
