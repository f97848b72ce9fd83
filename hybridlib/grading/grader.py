"""Is this text right? One grader for the reward and for the metric.

Numbers are compared exactly, expressions by their structure and exact values, programs by their
tests in the sandbox. `grade_leniently` is a second opinion on the wrong ones: was only the form
missed?
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from hybridlib import StudyError
from hybridlib.grading import comparison, extraction, question, symbolic
from hybridlib.sandbox import judge

KINDS = ("number", "expression", "program")


@dataclass(frozen=True)
class Verdict:
    """The grader's decision on one text.

    `reason` is `pass`, `wrong`, `no answer`, `several answers`, `refused`, `timeout`, `error` or
    `no program`; a grader that failed (`timeout`, `error`) is not the same as a wrong answer.
    `extracted` is what was compared, `seconds` the time it took, `error` says what went wrong.
    """

    correct: bool
    reason: str
    extracted: str | None = None
    seconds: float = 0.0
    error: str = ""


def grade(text: str, answer: str, kind: str, asked: str = "") -> Verdict:
    """Return the verdict on one text, given the right answer of its row and the kind of answer.

    `asked` says how the question asks for it, as `form_asked` returns it.

    Raises as `grade_many` does; no text makes it raise.

    >>> grade("<<12+7=19>>19\\n#### 19", "19", "number").correct
    True
    """
    return grade_many([text], [answer], [kind], [asked])[0]


def grade_many(
    texts: Sequence[str], answers: Sequence[str], kinds: Sequence[str], asked: Sequence[str] = ()
) -> list[Verdict]:
    """Return one verdict for each text, in order; see `grade`. Without `asked` none is asked for.

    Programs are run in the sandbox, and pairs for sympy go to its worker processes, each in one
    batch. Raises StudyError for a kind that is not in KINDS and for tests that cannot be judged.
    """
    verdicts: list[Verdict] = []
    programs: dict[int, tuple[str, str]] = {}  # place -> (code, tests)
    pairs: dict[int, tuple[str, str]] = {}  # place -> (gold, given)
    columns = texts, answers, kinds, asked or [""] * len(texts)
    for place, (text, answer, kind, form) in enumerate(zip(*columns, strict=True)):
        if kind == "program":
            code = extraction.extract_program(text)
            if code:
                programs[place] = code, answer
            verdicts.append(Verdict(False, "no program", code))
        elif kind == "number":
            verdicts.append(_grade_number(text, answer, form))
        elif kind == "expression":
            verdict, pair = _grade_expression(text, answer, form)
            if pair:
                pairs[place] = pair
            verdicts.append(verdict)
        else:
            raise StudyError(f"unknown kind {kind!r}; valid: {', '.join(KINDS)}")
    if pairs:
        _settle_by_sympy(verdicts, pairs)
    if programs:
        _settle_by_tests(verdicts, programs)
    return verdicts


def grade_leniently(
    texts: Sequence[str],
    answers: Sequence[str],
    kinds: Sequence[str],
    verdicts: Sequence[Verdict],
    asked: Sequence[str] = (),
) -> list[Verdict]:
    """Return the verdicts, but a wrong text is right where the answer only stands elsewhere.

    A number: in a box, else the last in the text. An expression: after "answer is", in bold type or
    in the last formula. A program: in the first fence, else from its first definition on. Never a
    reward, as it would pay for a tail of guesses: what it adds is the price of the form.
    """
    merged = list(verdicts)
    second_tries: dict[int, tuple[str, str]] = {}  # place -> (text in its form, kind)
    for place, verdict in enumerate(verdicts):
        if verdict.correct:
            continue
        elsewhere = extraction.find_elsewhere(texts[place], kinds[place], verdict.extracted)
        if elsewhere:
            second_tries[place] = elsewhere
    second_verdicts = grade_many(
        [text for text, _ in second_tries.values()],
        [answers[place] for place in second_tries],
        [kind for _, kind in second_tries.values()],
        [asked[place] for place in second_tries] if asked else (),
    )
    for place, verdict in zip(second_tries, second_verdicts, strict=True):
        if verdict.correct:
            merged[place] = verdict
    return merged


def _grade_number(text: str, answer: str, asked: str) -> Verdict:
    start = time.perf_counter()
    parts = text.split("####")
    if len(parts) != 2:
        return Verdict(False, "no answer" if len(parts) == 1 else "several answers")
    given = extraction.number_after_mark(parts[1])
    if given is None:
        return Verdict(False, "no answer")
    number, gold = extraction.parse_number(given), extraction.parse_number(answer)
    correct = number == gold
    if asked and not correct and number is not None and gold is not None:
        correct = question.is_rounded(Fraction(gold), Fraction(number), asked)
    reason = "pass" if correct else "wrong"
    return Verdict(correct, reason, given, time.perf_counter() - start)


def _grade_expression(text: str, answer: str, asked: str) -> tuple[Verdict, tuple[str, str] | None]:
    """Return the verdict of the cheap layers, and the pair for sympy where they cannot tell."""
    start = time.perf_counter()
    boxed = extraction.last_boxed(text)
    if not boxed:
        return Verdict(False, "no answer"), None
    gold, given = " ".join(answer.split()), " ".join(boxed.split())
    if len(given) > comparison.LONGEST and gold != given:
        return Verdict(False, "refused", given[: comparison.LONGEST]), None  # not into the cache
    outcome = comparison.compare_expressions(gold, given, asked)
    if outcome == "wrong" and text.count("boxed") > 1 and comparison.is_list(gold):
        for boxes in (extraction.boxes_on_last_line(text), extraction.all_boxes(text)):
            together = ", ".join(boxes)
            if len(boxes) > 1 and comparison.compare_expressions(gold, together, asked) == "pass":
                outcome, given = "pass", together
                break
    if isinstance(outcome, str):
        seconds = time.perf_counter() - start
        return Verdict(outcome == "pass", outcome, given, seconds), None
    return Verdict(False, "error", given), outcome


def _settle_by_sympy(verdicts: list[Verdict], pairs: dict[int, tuple[str, str]]) -> None:
    """Replace the verdicts at these places by those of math-verify."""
    outcomes = symbolic.compare(list(pairs.values()))
    for place, (reason, error, seconds) in zip(pairs, outcomes, strict=True):
        given = verdicts[place].extracted
        verdicts[place] = Verdict(reason == "pass", reason, given, seconds, error)


def _settle_by_tests(verdicts: list[Verdict], programs: dict[int, tuple[str, str]]) -> None:
    """Replace the verdicts at these places by those of the sandbox."""
    codes = [code for code, _ in programs.values()]
    outcomes = judge.judge(codes, [tests for _, tests in programs.values()])
    for (place, (code, _)), outcome in zip(programs.items(), outcomes, strict=True):
        passed = outcome.reason == "pass"
        verdicts[place] = Verdict(passed, outcome.reason, code, outcome.seconds, outcome.detail)
