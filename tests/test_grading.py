"""The grader: gold is right, a changed gold is wrong, nothing raises and nothing hangs."""

import functools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import graders, perturbations
from hybridlib import StudyError, data, grading
from hybridlib.grading import equality, symbolic
from tests.conftest import HUB


def reason_for(gold, given, kind="expression"):
    text = f"\\boxed{{{given}}}" if kind == "expression" else f"#### {given}"
    return grading.grade(text, gold, kind).reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<<1+2=3>>3\n#### 1234", "pass"),
        ("#### 1,234", "pass"),
        ("#### $1,234.00", "pass"),
        ("#### 1234.", "pass"),
        ("####1234\nand more words", "pass"),
        ("#### 1235", "wrong"),
        ("#### 1234.0001", "wrong"),
        ("#### -1234", "wrong"),
        ("#### 1234 1235", "no answer"),
        ("#### 1234\n#### 1234", "several answers"),
        ("1234", "no answer"),
        ("\\boxed{1234}", "no answer"),
        ("", "no answer"),
        ("#### " + "9" * 5000, "no answer"),
    ],
)
def test_numbers(text, reason):
    assert grading.grade(text, "1234", "number").reason == reason


def test_neighbouring_numbers_differ_however_large():
    assert reason_for("15554", "15555", "number") == reason_for("15554", "15555") == "wrong"


DEEP, MILLION = 5_000, 10**6
HOSTILE = [
    "9^{9^{9^9}}", "10^{10^{10}}", "1000000000!", "((9!)!)!", "(a+b+c)^{99999}", "2**9**9",
    r"\binom{99999}{5000}", "7^{99999}", r"\sum_{k=1}^{10^9} k", r"\prod_{k=1}^{10^8} k",
    r"\sin(9^{9^9})", r"\log(9^{9^9})", "{" * DEEP + "1" + "}" * DEEP, "(" * DEEP + ")" * DEEP,
    r"\sqrt{" * 2_000 + "2" + "}" * 2_000, r"\sqrt" * 50 + "2", ",".join(map(str, range(20_000))),
    r"\{" + ",".join(rf"\frac{{1}}{{{n}}}" for n in range(2, 402)) + r"\}", "9" * 200,
    r"\frac{1}{" * 60 + "2" + "}" * 60, r"\frac" * 60, "9" * MILLION, "x" * MILLION, "\0" * 99,
    "\ud800" * 99, "\\" * MILLION, " " * MILLION + "5", r"\pm" * 90, r"\begin{pmatrix}" * 18,
    "e^{e^{e^{e^{e^e}}}}", "1e999999999", r"\text{" * 50, "|" * 290, "5" + "!" * 290,
]  # fmt: skip


@pytest.fixture(scope="module")
def sympy_workers():
    """Start the processes for sympy, whose imports take seconds on a busy machine."""
    symbolic.compare([("x", "y")])


@pytest.mark.usefixtures("sympy_workers")
@pytest.mark.parametrize("given", HOSTILE, ids=lambda given: ascii(given[:12]))
def test_hostile_answers_are_judged_in_time_and_the_next_one_rightly(given):
    began = time.perf_counter()
    verdict = grading.grade(f"\\boxed{{{given}}}", "x+y", "expression")
    assert verdict.reason in ("refused", "no answer", "wrong")
    assert reason_for(r"\frac12", "0.5") == "pass"
    assert time.perf_counter() - began < symbolic.SECONDS


LONG = [
    r"\boxed{" * 200_000, r"\boxed{}" * 200_000, r"\boxed{" * 99_999 + "1" + "}" * 99_999,
    "#### 6" * 100_000, "#" * MILLION, "#### " + " " * MILLION, "```python\n" * 99_999,
    "```" * 300_000,
    "```" + " " * MILLION, "=" * MILLION, ("=" + " " * 999) * 999, "#### " + "9" * MILLION,
    "#### 1" + ",111" * 200_000, "\n" * MILLION, "\\" * MILLION, "\0" * MILLION, "$" * MILLION,
    "$ " * 500_000, "answer " * 150_000, "**" * 500_000, (r"\boxed" + " " * 999) * 999,
    "def f(x):\n" + "(" * 50_000, "def f(x): return " + "[" * 3_000 + "]" * 3_000,
    "\ud800" * MILLION,
]  # fmt: skip


@pytest.mark.parametrize("text", LONG, ids=lambda text: ascii(text[:12]))
@pytest.mark.parametrize("kind", ["number", "expression"])
def test_megabytes_are_read_in_linear_time(text, kind):
    began = time.perf_counter()
    verdict = grading.grade(text, "5", kind)
    assert not verdict.correct
    assert not grading.grade_leniently([text], ["5"], [kind], [verdict])[0].correct
    assert not grading.well_formed(text, kind)
    assert time.perf_counter() - began < 2 * symbolic.SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("text", LONG, ids=lambda text: ascii(text[:12]))
def test_megabytes_are_no_program(text):
    assert not grading.grade(text, TESTS, "program").correct
    assert not grading.well_formed(text, "program") or text.startswith("def")


def test_tiny_expressions_are_decided_without_sympy(monkeypatch):
    monkeypatch.setattr(symbolic, "compare", lambda *_: pytest.fail("not needed"))
    for one, other in [("17", "18"), ("5x-3", "5x+3"), ("-x", "x"), ("7", "x"), ("x^2", "2x")]:
        assert reason_for(one, other) == "wrong" and reason_for(one, one) == "pass"


def test_the_last_box_that_closes_counts():
    assert grading.last_boxed(r"\boxed{1} or \boxed{\frac{1}{2}}. \boxed{") == r"\frac{1}{2}"
    assert grading.last_boxed(r"so $\boxed 9$.") == "9"
    assert grading.last_boxed(r"\boxed{} \boxed{") is None


WITHOUT_0 = r"(-\infty,0)\cup(0,\infty)"


def test_math_verify_works_in_any_thread():
    reasons = []
    thread = threading.Thread(
        target=lambda: reasons.append(reason_for(WITHOUT_0, r"\mathbb{R} \setminus \{0\}"))
    )
    thread.start()
    thread.join()
    assert reasons == ["pass"]


@pytest.mark.parametrize(
    ("text", "kind", "answer", "strict", "lenient"),
    [
        ("#### 5", "number", "5", "pass", "pass"),
        ("so 3+2=5 apples.", "number", "5", "no answer", "pass"),
        ("\\boxed{5} in 3 ways", "number", "5", "no answer", "pass"),
        ("#### 5\n#### 5", "number", "5", "several answers", "pass"),
        ("it costs $1,234.50.", "number", "1234.5", "no answer", "pass"),
        ("10-7", "number", "7", "no answer", "pass"),
        ("it is -7", "number", "7", "no answer", "no answer"),
        ("6, no: 5, or 6", "number", "5", "no answer", "no answer"),
        ("so $x = \\frac12$.", "expression", "0.5", "no answer", "pass"),
        ("The final answer is 7. I hope.", "expression", "7", "no answer", "pass"),
        ("Answer:\nit is **7**", "expression", "7", "no answer", "pass"),
        ("thus \\(7\\), not 8", "expression", "7", "no answer", "pass"),
        ("\\boxed{8}, no: $7$", "expression", "7", "wrong", "wrong"),
        ("nothing", "expression", "7", "no answer", "no answer"),
    ],
)
def test_lenient_finds_the_answer_elsewhere_and_takes_nothing_away(
    text, kind, answer, strict, lenient
):
    verdict = grading.grade(text, answer, kind)
    assert verdict.reason == strict
    assert grading.grade_leniently([text], [answer], [kind], [verdict])[0].reason == lenient


def test_lenient_takes_a_program_out_of_its_surroundings():
    texts = [
        f"```python\n{CODE}\n```\nthen\n```\nprint(f(1))\n```",
        f"Sure, here it is:\n{CODE}",
        f"```python\n{CODE.replace('1', '2')}\n```",
        CODE,
        "nothing",
    ]
    answers, kinds = [TESTS] * 5, ["program"] * 5
    verdicts = grading.grade_many(texts, answers, kinds)
    assert [v.correct for v in verdicts] == [True, False, False, True, False]
    lenient = grading.grade_leniently(texts, answers, kinds, verdicts)
    assert [v.correct for v in lenient] == [True, True, False, True, False]
    assert lenient[2:] == verdicts[2:]


TESTS = "assert f(1) == 2"
CODE = "def f(x):\n    return x + 1"


@pytest.mark.parametrize(
    ("text", "reason", "formed"),
    [
        (CODE, "pass", True),
        (f"```python\n{CODE}\n```", "pass", True),
        (f"Here it is:\n```python\n{CODE}\n```\nDone.", "pass", False),
        (f"```\n{CODE}", "pass", False),
        (CODE.replace("1", "2"), "wrong", True),
        ("def f(x:", "error", False),
        ("2", "no program", False),
        ("", "no program", False),
    ],
)
def test_programs(text, reason, formed):
    assert grading.grade(text, TESTS, "program").reason == reason
    assert grading.well_formed(text, "program") == formed


@pytest.mark.parametrize(
    ("text", "kind", "formed"),
    [
        ("1+1=2\n#### 2", "number", True),
        ("#### 2\n", "number", True),
        ("#### 2 and so on", "number", False),
        ("#### 2\nmore", "number", False),
        ("#### 2\n#### 2", "number", False),
        ("2", "number", False),
        ("1+1=2\n\\boxed{2}", "expression", True),
        ("So it is $\\boxed{2}$.", "expression", True),
        ("\\boxed{1}\n\\boxed{2}", "expression", False),
        ("\\boxed{2", "expression", False),
        ("\\boxed{2}\nmore", "expression", False),
        ("", "expression", False),
    ],
)
def test_forms(text, kind, formed):
    assert grading.well_formed(text, kind) == formed


def test_many_keep_their_order_and_kinds():
    texts = ["#### 1", CODE, "\\boxed{x}", CODE, "#### 2"]
    answers = ["1", TESTS, "x", "assert f(1) == 3", "1"]
    kinds = ["number", "program", "expression", "program", "number"]
    verdicts = grading.grade_many(texts, answers, kinds)
    assert [v.correct for v in verdicts] == [True, True, True, False, False]
    assert verdicts[3].reason == "wrong" and verdicts[3].error


def test_an_unknown_kind_is_named():
    with pytest.raises(StudyError, match="unknown kind 'essay'; valid: number"):
        grading.grade("", "", "essay")


@given(st.text(max_size=80), st.sampled_from(["number", "expression"]))
def test_no_text_raises(text, kind):
    for written in (text, f"#### {text}", f"\\boxed{{{text}}}"):
        assert grading.grade(written, "12x+7", kind).correct in (True, False)
        grading.well_formed(written, kind)
        grading.well_formed(written, "program")


LATEX = [*"{}[]()^_1x-=, ", "\\frac", "\\sqrt", "\\pi", "23"]


@given(st.lists(st.sampled_from(LATEX), max_size=9).map("".join))
def test_malformed_latex_never_raises(text):
    assert grading.grade(f"\\boxed{{{text}}}", "5", "expression").correct in (True, False)


@given(st.dictionaries(st.integers(0, 4), st.integers(-30, 30).filter(bool), min_size=1))
def test_a_polynomial_equals_its_reordering_and_no_neighbour(terms):
    def write(powers):
        return "".join(f"{terms[p]:+d}" + (f"x^{p}" if p else "") for p in powers).lstrip("+")

    forward, backward = write(sorted(terms)), write(sorted(terms, reverse=True))
    assert reason_for(forward, backward) == "pass"
    assert reason_for(forward, f"{backward}+1") == reason_for(f"{backward}+1", forward) == "wrong"


# ---------------------------------------------------------------- the real sets


@pytest.mark.parametrize(("name", "count"), [("gsm8k", 8_792), ("math", 12_500)])
@pytest.mark.slow
def test_every_gold_solution_grades_right(hub, name, count):
    rows = [row for split in ("train", "valid", "test") for row in data.load(name, split)]
    texts = [row["completion"][0]["content"] for row in rows]
    verdicts = grading.grade_many(texts, [r["answer"] for r in rows], [r["kind"] for r in rows])
    assert len(rows) == count
    assert [r["id"] for r, v in zip(rows, verdicts, strict=True) if not v.correct] == []


@functools.cache
def golds_of_math():
    """The different answers of all splits, in order."""
    splits = ("train", "valid", "test")
    return sorted({answer for split in splits for answer in data.load("math", split)["answer"]})


@pytest.mark.slow
def test_every_gold_of_math_can_be_read_and_equals_itself(hub):
    for gold in golds_of_math():
        assert equality.equal(equality.parse_answer(gold), equality.parse_answer(gold)), gold


@pytest.mark.slow
def test_no_spoilt_gold_of_math_grades_right(hub):
    pairs = [(gold, *way) for gold in golds_of_math() for way in perturbations.spoilt(gold).items()]
    texts = [f"\\boxed{{{text}}}" for _, _, text in pairs]
    verdicts = grading.grade_many(texts, [g for g, _, _ in pairs], ["expression"] * len(pairs))
    assert len(pairs) >= 5_000 and {way for _, way, _ in pairs} == set(perturbations.WAYS)
    assert [p for p, v in zip(pairs, verdicts, strict=True) if v.correct] == []


@pytest.mark.slow
def test_verdicts_agree_with_the_labels_of_processbench(hub):
    folder = HUB.parents[1] / "data" / "processbench"
    if not folder.is_dir():
        pytest.skip("no copy of ProcessBench beside the repository")
    disagreements = [row for part in graders.agreement(folder) for row in part["disagreements"]]
    missed = {row["id"] for row in disagreements if row["label"]}
    equal = {row["id"] for row in disagreements if not row["label"]}
    assert missed == {"gsm8k-238", "math-544", "math-926"}  # no answer that could be told apart
    assert equal == {"gsm8k-70", "gsm8k-74", "math-50", "math-278"}  # odd labels
