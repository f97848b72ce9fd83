"""Metrics without a judge: by hand, by property, and against the record of their validity."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import validity
from hybridlib import ROOT, StudyError, data, metrics
from hybridlib.metrics import METRICS
from hybridlib.proportions import share
from tests.conftest import HUB

PROCESSBENCH = HUB.parents[1] / "data" / "processbench"
GOLD = "Half is <<8/2=4>>4.\nWith one more <<4+1=5>>5.\nTwice: <<5*2=10>>10\n#### 10"

names = pytest.mark.parametrize("name", METRICS)
answers = st.lists(st.sampled_from(["1", "1.0", "2", "x", None]), min_size=1, max_size=8)
verdicts = st.lists(st.booleans(), min_size=1, max_size=8)
rates = st.floats(0, 1)


def one(name, solution, gold=GOLD):
    return METRICS[name]([solution], gold=[gold])[0]


# ---------------------------------------------------------------- one solution


@names
@given(
    solution=st.one_of(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=4)),
    gold=st.text(max_size=80),
)
def test_every_metric_is_in_range_for_any_text(name, solution, gold):
    score = one(name, solution, gold)
    assert score is None or (isinstance(score, float) and 0 <= score <= 1)


@names
def test_every_metric_says_its_range_and_where_it_comes_from(name):
    assert "0 to 1" in METRICS[name].__doc__ or "else 0" in METRICS[name].__doc__
    assert "et al. 20" in METRICS[name].__doc__ or "et al. (20" in METRICS[name].__doc__


@names
def test_scores_do_not_depend_on_the_other_rows(name):
    solutions = [GOLD, "2 + 2 = 5", ["no sum"], "", "<<1+1=3>>3"]
    gold = [GOLD] * 5
    alone = [one(name, solution) for solution in solutions]
    assert METRICS[name](solutions, gold=gold) == alone
    assert METRICS[name](solutions[::-1], gold=gold) == alone[::-1]
    assert METRICS[name]([], gold=[]) == []


@names
@pytest.mark.parametrize("bad", [None, 3, ["a", 1], {"a": 1}])
def test_a_row_that_is_no_solution_is_named(name, bad):
    with pytest.raises(StudyError, match="row 1: "):
        METRICS[name](["fine", bad], gold=[GOLD, GOLD])


@pytest.mark.parametrize("family", ["tiny_gsm8k", "gsm8k"])
def test_worked_solutions_score_full_marks(request, family):
    if family == "gsm8k":
        request.getfixturevalue("hub")
    rows = data.load(family, "test", limit=50)
    texts = [c[0]["content"] for c in rows["completion"]]
    for name in ("mark_validity", "intermediate_recall", "answer_follows"):
        scores = [s for s in METRICS[name](texts, gold=texts) if s is not None]
        assert len(scores) > 25 and sum(scores) > 0.85 * len(scores)
    assert set(METRICS["mark_validity"](texts)) <= {1.0, None}
    assert set(METRICS["intermediate_recall"](texts, gold=texts)) <= {1.0, None}


def test_arithmetic_validity_and_coverage_by_hand():
    steps = ["2 + 2 = 4 and 2 * 4 = 9", "so it is large", "9 - 1 = 8", "9 + 1 = 11"]
    assert one("arithmetic_validity", steps) == 0.5
    assert one("arithmetic_coverage", steps) == 0.75
    assert one("arithmetic_validity", "\n".join(steps)) == 0.5
    assert one("arithmetic_validity", "it is large") is None
    assert one("arithmetic_coverage", "it is large") == 0
    assert one("arithmetic_coverage", "") is None


def test_mark_validity_reads_marks_alone():
    assert one("mark_validity", "<<1+1=2>>2, <<1+1=3>>3, 1 + 1 = 4") == 0.5
    assert one("arithmetic_validity", "<<1+1=2>>2, <<1+1=3>>3, 1 + 1 = 4") == 0
    assert one("mark_validity", "1 + 1 = 4") is None


def test_intermediate_recall_by_hand():
    assert one("intermediate_recall", "8 / 2 = 4, 4 * 2 = 8, 8 + 2 = 10") == 0.5
    assert one("intermediate_recall", "4, then 5, then 10") == 0  # stated, not computed
    assert one("intermediate_recall", GOLD) == 1
    assert one("intermediate_recall", GOLD, gold="<<5*2=10>>10\n#### 10") is None
    with pytest.raises(StudyError, match="row 1 has no partner"):
        METRICS["intermediate_recall"]([GOLD, GOLD], gold=[GOLD])


def test_answer_follows_by_hand():
    assert one("answer_follows", GOLD) == 1
    assert one("answer_follows", GOLD.replace("#### 10", "#### 11")) == 0
    assert one("answer_follows", r"2 + 2 = 5, so \boxed{5}") == 1  # wrong, yet it follows
    assert one("answer_follows", "#### 10") is None
    assert one("answer_follows", "2 + 2 = 4") is None


def test_first_error():
    steps = ["It costs 3.", "2 + 2 = 4", "4 * 2 = 9", "1 + 1 = 3"]
    assert metrics.first_error([steps, steps[:2], []]) == [2, -1, -1]
    assert metrics.first_error(["\n".join(steps)]) == [2]


# ---------------------------------------------------------------- groups


def test_agreement_by_hand():
    assert metrics.agreement([["7", "7.0", " x", "x", None, None]]) == [
        [pytest.approx(share) for share in (2 / 6, 2 / 6, 2 / 6, 2 / 6, 1 / 6, 1 / 6)]
    ]


@given(st.data(), answers)
def test_groups_do_not_depend_on_the_order(pick, group):
    order = pick.draw(st.permutations(range(len(group))))
    moved = [group[i] for i in order]
    right = [answer in ("1", "1.0") for answer in group]
    assert metrics.agreement([moved])[0] == [metrics.agreement([group])[0][i] for i in order]
    assert metrics.answer_entropy([moved]) == pytest.approx(metrics.answer_entropy([group]))
    shuffled = metrics.majority_accuracy([moved], [[right[i] for i in order]])
    assert shuffled == pytest.approx(metrics.majority_accuracy([group], [right]))


@given(answers)
def test_entropy_lies_between_agreement_and_none(group):
    entropy = metrics.answer_entropy([group])[0]
    assert 0 <= entropy <= math.log(len(group)) + 1e-12
    assert (entropy == 0) == (min(metrics.agreement([group])[0]) == 1)
    assert all(1 / len(group) <= share <= 1 for share in metrics.agreement([group])[0])


def test_majority_and_entropy_by_hand():
    groups = [["1", "1", "2"], ["1", "2"], ["1", "2", "2"], [None, "1", None], [None, None]]
    right = [[a == "1" for a in group] for group in groups]
    assert metrics.majority_accuracy(groups, right) == pytest.approx([1, 0.5, 0, 1 / 3, 0])
    assert metrics.answer_entropy([["1", "1", "2", "3"]]) == pytest.approx([1.5 * math.log(2)])
    assert metrics.answer_entropy([["1"] * 4, [None] * 4]) == pytest.approx([0, math.log(4)])


def test_the_majority_beats_the_mean_where_most_are_right():
    rng = random.Random(0)
    groups = [
        ["1" if rng.random() < 0.7 else str(rng.randrange(2, 9)) for _ in range(9)]
        for _ in range(200)
    ]
    right = [[a == "1" for a in group] for group in groups]
    mean = sum(map(sum, right)) / (9 * 200)
    assert sum(metrics.majority_accuracy(groups, right)) / 200 > mean + 0.1


@given(st.lists(verdicts, min_size=1, max_size=6))
def test_informative_groups_are_those_with_both(right):
    expected = sum(len(set(row)) == 2 for row in right) / len(right)
    assert metrics.informative_share(right) == pytest.approx(expected)
    flipped = [[not flag for flag in row] for row in right]
    assert metrics.informative_share(flipped) == pytest.approx(expected)


# ---------------------------------------------------------------- prefixes


@given(answers.filter(lambda row: len(row) > 1))
def test_aoc_is_a_share_of_prefixes(row):
    area = metrics.truncation_aoc([row])[0]
    assert (area is None) == (row[-1] is None)
    assert area is None or 0 <= area * (len(row) - 1) <= len(row) - 1


def test_aoc_by_hand():
    rows = [["7", "7", "7"], [None, "3", "7"], ["3", "7", "7.0"], ["7", None]]
    assert metrics.truncation_aoc(rows) == [0, 1, 0.5, None]


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=5))
def test_step_values_and_where_they_drop_to_zero(row):
    values = metrics.step_values([row])[0]
    assert all(0 <= value <= 1 for value in values)
    dead = [k for k, outcomes in enumerate(row) if not any(outcomes)]
    assert metrics.first_drop([values]) == [dead[0] if dead else -1]
    assert metrics.step_values([[outcomes[::-1] for outcomes in row]]) == [values]


def test_step_values_by_hand():
    rollouts = [[[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]]
    assert metrics.step_values(rollouts) == [[0.75, 0.25, 0, 0.25]]
    assert metrics.first_drop(metrics.step_values(rollouts)) == [2]


# ---------------------------------------------------------------- rewards and verifiers


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=9))
def test_the_hacking_gap_changes_sign_with_its_sides(pairs):
    rewards, held_out = zip(*pairs, strict=True)
    gap = metrics.hacking_gap(rewards, held_out)
    assert -1 <= gap <= 1 and gap == -metrics.hacking_gap(held_out, rewards)
    assert metrics.hacking_gap(rewards, rewards) == 0


def test_the_hacking_gap_of_programs_by_hand():
    assert metrics.hacking_gap([1, 1, 1, 0], [1, 0, 1, 0]) == 0.25


@given(rates, st.floats(0, 0.45), st.floats(0, 0.45))
def test_correction_undoes_the_verifier(true, alpha, beta):
    observed = true * (1 - beta) + (1 - true) * alpha
    assert metrics.corrected(observed, alpha, beta) == pytest.approx(true)


def test_correction_is_clipped_and_refuses_a_coin():
    assert metrics.corrected(0.05, 0.1, 0.2) == 0
    assert metrics.corrected(0.95, 0.1, 0.2) == 1
    assert metrics.corrected(0.3, 0, 0) == 0.3
    with pytest.raises(StudyError, match="alpha \\+ beta = 1.2"):
        metrics.corrected(0.5, 0.5, 0.7)


@pytest.mark.parametrize(
    ("function", "arguments", "row"),
    [
        (metrics.agreement, [[["1"], []]], 1),
        (metrics.agreement, [["12"]], 0),
        (metrics.answer_entropy, [[["1"], ["1", 2]]], 1),
        (metrics.majority_accuracy, [[["1"], ["1"]], [[True], [True, False]]], 1),
        (metrics.majority_accuracy, [[["1"], ["1"]], [[True]]], 1),
        (metrics.majority_accuracy, [[["1"]], [["yes"]]], 0),
        (metrics.informative_share, [[[True], [0.5]]], 1),
        (metrics.informative_share, [[]], 0),
        (metrics.truncation_aoc, [[["1", "2"], ["1"]]], 1),
        (metrics.step_values, [[[[True]], [[True], []]]], 1),
        (metrics.step_values, [[[]]], 0),
        (metrics.first_drop, [[[0.5], [math.nan]]], 1),
        (metrics.hacking_gap, [[1, 0], [1]], 1),
        (metrics.hacking_gap, [[], []], 0),
        (metrics.hacking_gap, [[1, None], [1, 1]], 1),
        (metrics.corrected, [0.5, 0.1, 1.5], 2),
        (metrics.first_error, [["fine", 7]], 1),
        (metrics.validity, [[{"subset": "a"}]], 0),
    ],
)
def test_a_bad_row_is_named(function, arguments, row):
    with pytest.raises(StudyError, match=f"row {row}\\b") as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- validity


def labelled(steps, label, right, gold=""):
    return {
        "subset": "a",
        "steps": steps,
        "label": label,
        "final_answer_correct": right,
        "gold": gold,
    }


def test_validity_by_hand():
    rows = [
        labelled(["1 + 1 = 3"], 0, False),
        labelled(["1 + 1 = 2", "2 + 2 = 5"], 1, False),
        labelled(["1 + 1 = 2", "2 + 2 = 5"], 0, False),  # an error that no equation shows
        labelled(["1 + 1 = 2"], 0, True),
        labelled(["1 + 1 = 2"], -1, True),
        labelled(["It is two."], -1, True),
    ]
    table = {(row["metric"], row["target"]): row for row in metrics.validity(rows)}
    wrong = table["arithmetic_validity", "wrong step"]
    assert (wrong["n"], wrong["positives"], wrong["flagged"], wrong["scored"]) == (6, 4, 3, 5)
    assert wrong["precision"] == share([True] * 3)
    assert wrong["recall"] == share([True] * 3 + [False])
    assert wrong["auc"][0] == 0.875  # three of four pairs won, one tied
    right = table["arithmetic_validity", "right answer"]
    assert (right["positives"], right["flagged"]) == (3, 2)
    assert right["precision"][0] == 1 and right["recall"][0] == pytest.approx(2 / 3)
    assert table["final_answer", "wrong step"]["recall"][0] == 0.75
    first = table["first_error", "first wrong step"]
    assert (first["found"][0], first["passed"][0]) == (0.5, 1)
    assert first["f1"][0] == pytest.approx(2 * 0.5 / 1.5)
    assert not {"mark_validity", "intermediate_recall"} & {metric for metric, _ in table}


def test_a_perfect_metric_is_told_from_chance_and_a_useless_one_is_not():
    rng = random.Random(0)
    kinds = [rng.random() < 0.5 for _ in range(100)]
    good = [labelled([f"1 + 1 = {2 + k}"], k - 1, not k) for k in kinds]
    idle = [labelled([f"1 + 1 = {rng.randrange(2, 4)}"], k - 1, not k) for k in kinds]
    perfect, useless = (
        next(r for r in metrics.validity(rows) if r["metric"] == "arithmetic_validity")["auc"]
        for rows in (good, idle)
    )
    assert perfect == pytest.approx([1, 1, 1])
    assert useless[1] < 0.5 < useless[2]


def test_the_page_is_what_the_record_says():
    record = validity.stored()
    page = validity.PAGE.read_text()
    assert page == validity.text(record)
    assert not [name for name in METRICS if f"{{{name}}}" in page]
    functions = [METRICS[name] for name in METRICS]
    assert all(function.__name__ in validity.TEMPLATE.read_text() for function in functions)


def test_what_the_page_says_in_words_holds_in_the_record():
    rows = validity.stored()["labelled"]
    for subset in validity.SUBSETS:
        by_metric = {
            row["metric"]: row
            for row in rows
            if row["subset"] == subset and row["target"] == "wrong step"
        }
        final = by_metric.pop("final_answer")["auc"]
        assert final[1] > max(row["auc"][2] for row in by_metric.values())
        assert by_metric["arithmetic_validity"]["precision"][1] > 0.7
        assert by_metric["arithmetic_validity"]["recall"][2] < 0.25


def test_the_command_names_a_folder_without_the_labels(tmp_path):
    command = [sys.executable, "-m", "benchmarks.validity", "--processbench", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "gsm8k*.jsonl" in done.stderr


@pytest.mark.slow
def test_the_record_is_what_the_labels_say(hub):
    if not Path(PROCESSBENCH).is_dir():
        pytest.skip("no copy of ProcessBench beside the repository")
    assert validity.measure(PROCESSBENCH) == validity.stored()
