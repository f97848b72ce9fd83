"""Arithmetic in a text: what is read is read rightly, and what is in doubt is left alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import data
from hybridlib.grading import arithmetic


def holds(text):
    return [equation.holds for equation in arithmetic.find_equations(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7 and 3 + 4 = 8", [True, False]),
        (r"\(1/3 \times 18 = 6\), so \(18 - 6 = 11\).", [True, False]),
        ("$3.5 * 4000 = $14,000.", [True]),
        (r"\frac{15}{2} \cdot \frac{5}{6} = \boxed{\frac{75}{12}}", [True]),
        ("10 / 3 = 3.33", [True]),
        ("10 / 3 = 3.34", [False]),
        ("2.5 * 3 = 8", [False]),  # a whole number is exact,
        ("2.5 * 3 = 8, rounded", [True]),  # unless the text says that it is not
        ("= 2^3 * 7 = 8 * 7 = 57", [True, False]),
        ("14 = 2 * 7", [True]),
        ("25% of $80 = $20, 3/4 * 100 = 75%, 0.25 * 0.5 = 12.5%", [True, True, True]),
        ("(2 + 3 = 6)", [False]),
        ("8 - 3 = 5 (apples)", [True]),
        ("**2 + 2 = 5**", [False]),
        ("- 2 + 2 = 4", [True]),  # a list
        ("= -2 + 5 = 3", [True]),
        ("x = 2 + 3 = 6", [False]),
        ("2 * 40 = 80 cm", [True]),
        ("<<48/2=24>>24 + 1 = 25", [True, True]),
        ("5 − 3 × 1 ÷ 1 = 2", [True]),
    ],
)
def test_equations_are_read(text, expected):
    assert holds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "7 = 7", "x + 3 = 8", "2x + 3 + 4 = 7", "3 + 4 = 2x", "3 + 4 = 5 y", "6 + 4 = 2(x + 1)",
        "19 / 4 = 4 remainder 3", r"19 \div 4 = 4 \quad \text{(quotient)}", "10 + 4 = 2 mod 12",
        "1 1/2 + 1 = 2", r"3\frac{1}{2} + 1 = 5", "25_7 + 3 = 31_7", r"\sqrt{9} + 1 = 2",
        r"2 + 2 = 5\pi", "4! + 1 = 2", "4 + 6 = 5 eggs * 2", r"6 \# 2 = 6 + 4 = @", "f(4) = 3 - 1",
        "2^{1/2} + 1 = 1", "9^9^9^9 + 1 = 1", "1/0 + 1 = 2", "2 + 2\n= 5", "((((1 + 1 = 3",
        "1 + 1 = 3 + x", "0.1.2 + 1 = 1", "half of 3 + 4 = 3",
    ],
)  # fmt: skip
def test_what_is_in_doubt_raises_no_alarm(text):
    assert all(holds(text))


def test_values_are_those_on_the_right():
    equations = arithmetic.find_equations("<<2*7=14>> 14 / 4 = 3.50")
    assert [(e.marked, float(e.value)) for e in equations] == [(True, 14), (False, 3.5)]


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from("+-*"), st.integers(-3, 3))
def test_an_equation_holds_exactly_if_it_does(a, b, sign, off):
    shown = {"+": a + b, "-": a - b, "*": a * b}[sign] + off
    for text in (f"{a} {sign} {b} = {shown}", f"<<{a}{sign}{b}={shown}>>"):
        assert holds(text) == [off == 0]


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(1, 4))
def test_a_quotient_may_be_rounded_to_the_digits_shown(a, b, digits):
    shown, wrong = f"{a / b:.{digits}f}", f"{a / b + 2 * 10**-digits:.{digits}f}"
    assert holds(f"so = {a} / {b} = {shown} in all") == [True]
    assert holds(f"so = {a} / {b} = {wrong} in all") == [False]


SYMBOLS = st.text("0123456789+-*/^=().,%$ \n\\{}<>x#&frac", max_size=60)


@given(st.one_of(st.text(max_size=200), SYMBOLS))
def test_no_text_raises(text):
    arithmetic.final_number(text)
    for step in arithmetic.split_steps(text):
        for equation in arithmetic.find_equations(step):
            assert isinstance(equation.holds, bool)


@pytest.mark.parametrize(
    "part",
    ["1", "(", "1 ", "=", "1+1=", "\\frac{", "<<", "x ", "- ", "\n ", "1%", "\\text{", "of 1 "],
)
def test_long_texts_take_no_time(part):
    began = time.process_time()
    arithmetic.find_equations(part * 5_000)
    arithmetic.split_steps(part * 5_000)
    assert time.process_time() - began < 1.5


@given(st.text("ab. \n", max_size=60))
def test_steps_keep_the_text_but_for_space(text):
    steps = arithmetic.split_steps(text)
    assert "".join("".join(steps).split()) == "".join(text.split())
    assert all(step == step.strip() != "" for step in steps)


def test_steps_are_paragraphs_then_lines_then_sentences():
    assert arithmetic.split_steps("A.\nB.\n\nC. D.") == ["A.\nB.", "C. D."]
    assert arithmetic.split_steps("A.\nB. C.") == ["A.", "B. C."]
    assert arithmetic.split_steps("It is 2.5. Then 3! So 5.5") == [
        "It is 2.5.",
        "Then 3!",
        "So 5.5",
    ]
    assert arithmetic.split_steps("One.\n#### 7") == ["One."]
    assert arithmetic.split_steps(" \n") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"so \boxed{30}.", 30), (r"\boxed{\frac{1}{2}}", 0.5), ("7 eggs\n#### 1,450", 1450),
        (r"\boxed{\$2.50}", 2.5), (r"\boxed{x+1}", None), ("42", None), ("", None),
    ],
)  # fmt: skip
def test_the_answer_is_a_number_in_the_box_or_after_the_mark(text, value):
    assert arithmetic.final_number(text) == value


@pytest.mark.slow
@pytest.mark.parametrize(("name", "coverage"), [("gsm8k", 0.8), ("math500", 0.4)])
def test_worked_solutions_raise_next_to_no_alarm(hub, name, coverage):
    texts = [c[0]["content"] for c in data.load(name, "test")["completion"]]
    verdicts = [holds(text) for text in texts]
    assert sum(map(bool, verdicts)) > coverage * len(texts)
    assert sum(not all(row) for row in verdicts) < 0.01 * len(texts)
    if name == "gsm8k":
        marks = [e for text in texts for e in arithmetic.find_equations(text) if e.marked]
        assert len(marks) > 4000 and all(e.holds for e in marks)
        answers = data.load(name, "test")["answer"]
        assert [arithmetic.final_number(t) for t in texts] == [*map(int, answers)]
