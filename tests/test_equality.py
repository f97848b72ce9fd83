"""Equal in another notation, different by a hair, and no text that the reader fails on."""

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import grading
from hybridlib.grading import comparison, equality, latex, numeric
from tests.pairs import EQUAL, OTHER_FORM, TO_DO, UNEQUAL


def flat(pairs):
    return [pytest.param(*pair, id=f"{name} {pair}") for name in pairs for pair in pairs[name]]


def reason_for(gold, given):
    return grading.grade(f"so \\boxed{{{given}}}.", gold, "expression").reason


@pytest.mark.parametrize(("one", "other"), flat(EQUAL))
def test_equal_in_another_notation(one, other):
    assert reason_for(one, other) == reason_for(other, one) == "pass"


@pytest.mark.parametrize(("one", "other"), flat(UNEQUAL))
def test_a_near_miss_is_not_equal(one, other):
    assert reason_for(one, other) != "pass" != reason_for(other, one)
    assert reason_for(one, one) == "pass"


@pytest.mark.parametrize(("to_do", "worked_out"), TO_DO)
def test_only_what_is_worked_out_is_an_answer(to_do, worked_out):
    assert reason_for(to_do, worked_out) == reason_for(to_do, to_do) == "pass"
    assert reason_for(worked_out, to_do) == "wrong"


@pytest.mark.parametrize(("one", "other"), OTHER_FORM)
def test_factors_are_no_answer_for_a_sum_nor_a_sum_for_factors(one, other):
    assert reason_for(one, other) == reason_for(other, one) == "wrong"
    one, other = (equality.parse_answer(text).readings[0] for text in (one, other))
    assert equality._Comparison(1).equal(one, other)  # for the value alone, they are equal


def test_there_are_enough_pairs_of_every_kind():
    assert min(sum(map(len, pairs.values())) for pairs in (EQUAL, UNEQUAL)) >= 150
    assert not {pair for v in EQUAL.values() for pair in v} & {
        pair for v in UNEQUAL.values() for pair in v
    }


NUMBERS = st.integers(-40, 40).map(str) | st.sampled_from(["0.5", "x", "y", r"\pi", r"\sqrt{2}"])
PAIR = "({0}{1}{2})"
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda part: (
        st.builds(PAIR.format, part, st.sampled_from("+-*"), part)
        | st.builds(r"\frac{{{}}}{{{}}}".format, part, part)
        | st.builds(r"{{{}}}^{{{}}}".format, part, st.integers(0, 3))
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.integers(1, 99))
def test_an_expression_equals_itself_rewritten_and_not_its_neighbour(text, step):
    expression = equality.parse_answer(text).readings[0]
    points = range(equality.MAX_POINTS)
    defined = any(_value(expression, point) is not None for point in points)
    rewritten = f"0 + ({text}) \\cdot 1"
    assert reason_for(rewritten, text) == ("pass" if defined else "wrong")
    neighbours = (
        reason_for(text, f"({text}) + {step}"),
        reason_for(f"({text}) + \\frac{{1}}{{{step}}}", text),
    )
    assert neighbours[0] == neighbours[1] != "pass"


def _value(expression, point):
    try:
        return numeric.Evaluator(numeric.WORKING, point, 1).evaluate(expression)
    except equality.UNDEFINED:
        return None


TOKENS = r"""\frac \sqrt { } { } ( ) [ ] \{ \} | , ; = < \le \pm \mp + - * / ^ _ ! % \circ \text{
cm} \text{and} \infty \pi e i x y 1 2 3 10 0.5 . : \sin \log \ln ^{-1} \sec \cup \in \begin{pmatrix}
& \end{pmatrix} \\ \overline{3} 0. \mathbb{R} \binom \lfloor \rfloor \approx \ne \vec ' \$ 1,000
abc Yes ② ٣ ⁴ \left \right \pmod{5} \boxed{""".split()


@given(st.lists(st.sampled_from(TOKENS), max_size=14), st.sampled_from(["5", r"\{1,x\}", "x>2"]))
def test_any_tokens_are_judged_without_error_whatever_the_spacing(tokens, gold):
    texts = ["".join(tokens), "".join(f"{token} " for token in tokens)]
    reasons = [comparison.compare_expressions(gold, " ".join(text.split())) for text in texts]
    assert "error" not in reasons and "pass" not in (reasons if gold == r"\{1,x\}" else [])
    comparison.compare_expressions(" ".join(texts[1].split()) or "1", gold)


GAPS = [" ", "  ", "\n", r"\,", r"\;", r"\quad ", "~", r"\ "]


@given(st.sampled_from(sum(EQUAL.values(), [])), st.randoms(), st.text(max_size=9))
def test_spacing_and_surrounding_text_change_nothing(pair, draw, around):
    gold, given = pair
    gap, around = draw.choice(GAPS), around.replace("\\", "").replace("{", "").replace("}", "")
    spaced = gap + re.sub(r"(?<![<>!])[=+]", lambda sign: f"{gap}{sign[0]}{gap}", given) + gap
    text = f"{around}\n$\\boxed{{{spaced}}}$ {around}"
    assert grading.grade(text, gold, "expression").reason == "pass"


def test_letters_next_to_each_other_differ_in_sign_somewhere():
    for one, other in zip("abcdexyz", "bcdefyza", strict=True):
        signs = [
            (numeric.letter_value(one, point) > 0, numeric.letter_value(other, point) > 0)
            for point in range(6)
        ]
        assert (True, True) in signs and (False, False) in signs
        assert (True, False) in signs or (False, True) in signs


def test_numbers_out_of_proportion_are_refused_at_once():
    hostile = [
        "9^{9^{9^9}}",
        "((9!)!)!",
        r"\binom{99999}{5000}",
        "((x+1)^{99}+1)^{99}",
        "1e999999999",
        r"\sqrt[3]{10^{90000}}",
        "(1+i)^{99999}",
        "e^{e^{e^{e^{e^e}}}}",
        "x!+(2999x)!",
        r"\sinh(\cosh(\sinh(19000)))",
        r"\log_{x}{x^{x^{x}}}",
        "(" * 40 + "1" + ")" * 40,
    ]
    began = time.perf_counter()
    assert {reason_for("x+y", text) for text in hostile} <= {"refused", "wrong"}
    assert reason_for("x+y", hostile[0]) == reason_for("x+y", hostile[-1]) == "refused"
    assert time.perf_counter() - began < 2 * len(hostile)
    with pytest.raises(latex.TooLarge):
        equality.equal(equality.parse_answer("5"), equality.parse_answer("9^{99999}"))


def test_a_long_answer_is_judged_in_time_by_its_length():
    rng = random.Random(0)
    alphabet = TOKENS + ["9", "x^{2}", "+", "1"]
    for _ in range(200):
        text = "".join(rng.choice(alphabet) for _ in range(300))[: comparison.LONGEST]
        began = time.perf_counter()
        comparison.compare_expressions(r"x^2+\sqrt{y}", text)
        assert time.perf_counter() - began < 2
