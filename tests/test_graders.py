"""The page on the graders says what its record says, and the record holds what was promised."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import grader_rates, graders_page, perturbations
from hybridlib import ROOT, grading

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def test_the_page_is_what_the_record_says():
    page = graders_page.PAGE.read_text()
    assert page == graders_page.text(graders_page.stored())
    assert not [name for name in ("{gold}", "{spoilt}", "{rates}", "{sandbox}") if name in page]


def test_the_record_holds_what_the_page_says_in_words():
    record = graders_page.stored()
    assert [(row["n"], row["right"]) for row in record["gold"]] == [(8_792,) * 2, (12_500,) * 2]
    assert sum(row["ours"] for row in record["spoilt"]) == 0
    assert sum(row["ours tried"] for row in record["spoilt"]) >= 5_000
    assert {row["way"] for row in record["spoilt"]} == set(perturbations.WAYS)
    for row in record["agreement"]:
        assert row["n"] - row["lenient"] == len(row["disagreements"]) < 0.02 * row["n"]
    ours = record["pairs"][0]
    assert (ours["accepted"], ours["let_through"]) == (ours["equal"], 0)
    rate = {row["grader"]: row for row in record["rates"]["rows"]}
    assert rate["ours"]["per_second"] >= 20 * rate["math-verify"]["per_second"]
    assert rate["ours"]["missed"] == 0
    odd = {row["read"] for part in record["agreement"] for row in part["disagreements"]}
    assert {row["answer"] for row in record["rates"]["faults"]} <= odd  # where the label is odd


@pytest.mark.parametrize("way", perturbations.WAYS)
def test_every_way_to_spoil_a_gold_applies_somewhere_and_is_seen(way):
    golds = [
        "5",
        "-3",
        r"\frac{5}{6}",
        "(1,2)",
        r"[1,\infty)",
        "5x-3",
        "5x+3",
        r"2\sqrt{3}",
        r"3\pi",
        "6+9i",
        "x^2",
        r"5\text{ cm}^2",
        r"7 \text{ feet}",
        r"12\%",
        "52_8",
        "3, 5, 7",
        r"x \le 5",
        r"\text{even}",
        r"(0,1)\cup(2,3)",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    ]
    spoilt = [(gold, wrong) for gold in golds if (wrong := perturbations.WAYS[way](gold))]
    assert spoilt
    for gold, wrong in spoilt:
        assert not grading.grade(f"\\boxed{{{wrong}}}", gold, "expression").correct, (gold, wrong)


@pytest.mark.slow
def test_the_command_names_a_folder_without_the_labels(tmp_path, hub):
    command = [sys.executable, "-m", "benchmarks.graders", "--data", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "gsm8k*.jsonl" in done.stderr


@pytest.mark.slow
def test_steps_have_groups_that_repeat_answers(hub):
    if not SHARED.is_dir():
        pytest.skip("no copy of ProcessBench beside the repository")
    for step in grader_rates.grpo_steps(SHARED / "processbench"):
        assert len(step) == grader_rates.PROMPTS * grader_rates.SAMPLES
        assert len(set(step)) < 0.8 * len(step)
        assert {sample.right for sample in step} == {True, False}
