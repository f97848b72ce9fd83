"""Facts about sets: near-duplicates, kinds of answer, and how reliable a pass rate is."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import StudyError, files, results
from hybridlib.data import describe, load

WORDS = st.lists(st.sampled_from("a b c d e f g".split()), min_size=1, max_size=8).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS)
def test_the_nearest_is_the_one_with_most_in_common(train, text):
    def jaccard(one, other):
        a, b = (describe._shingles(t) for t in (one, other))
        return len(a & b) / len(a | b)

    (similarity,) = describe.closest_similarity(train, [text])
    assert similarity == pytest.approx(max(jaccard(text, other) for other in train))
    assert describe.closest_similarity([*train, text], [text]) == [1.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("12", "integer"),
        ("-1,200", "integer"),
        ("0.5", "decimal"),
        ("\\frac56", "fraction"),
        ("3/4", "fraction"),
        ("2\\sqrt{3}", "radical"),
        ("(1,2)", "several"),
        ("3x+1", "with letters"),
        ("\\pi", "other expression"),
    ],
)
def test_kinds_of_answer(answer, kind):
    assert describe.answer_kind("expression", answer) == kind
    assert describe.answer_kind("program", answer) == "program"


def test_reliability_grows_with_k_and_is_one_without_noise():
    rng = np.random.default_rng(1)
    truth = rng.random(600)
    one, other = (rng.binomial(8, truth) / 8 for _ in range(2))
    table = describe.reliability(one, other, 8)
    assert list(table["k"]) == [1, 2, 4, 8]
    assert table["value"].is_monotonic_increasing and (table["low"] < table["high"]).all()
    sure = (truth > 0.5).astype(float)
    assert describe.reliability(sure, sure, 8)["agree"].min() == 1.0


def test_correlations_find_order_and_leave_out_what_does_not_vary():
    rows = pd.DataFrame({"rising": range(50), "still": 1, "rate": [i**3 for i in range(50)]})
    table = describe.correlations(rows, ["rising", "still"], "rate").set_index("column")
    assert list(table.index) == ["rising"] and table.loc["rising", "value"] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_gsm8k", "tiny_math", "tiny_mbpp", "gsm8k", "math", "mbpp"])
def test_facts_that_are_kept_are_those_of_today(name, request):
    if not name.startswith("tiny"):
        request.getfixturevalue("hub")
    train, test = (load(name, split).to_list() for split in ("train", "test"))
    stored = describe.facts(name)
    assert results.as_json(describe.measure(train, test)) == stored


@pytest.mark.slow
def test_facts_are_kept_and_sets_that_are_not_at_hand_left_out(world, monkeypatch):
    first = describe.facts("tiny_math")
    assert first["rows"] == [1000, 1000] and sum(first["levels"].values()) == 1000
    assert first["seen"][1] <= first["seen"][0] <= first["seen"][2]
    assert (files.results_folder("sets") / "tiny_math.json").exists()

    def absent(*_):
        raise StudyError("not at hand")

    monkeypatch.setattr(describe, "load", absent)
    assert describe.facts("tiny_math") == first
    assert list(describe.table(["tiny_math", "gsm8k"]).index) == ["tiny_math"]
