import json
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks import engine, intervals, page, speed
from hybridlib import ROOT, StudyError


def test_the_page_is_what_the_record_says():
    found = page.stored()
    assert set(found) == set(engine.BENCHMARKS)
    assert page.PAGE.read_text() == page.text(found)


def test_every_comparison_has_its_repetitions():
    for name, part in page.stored().items():
        for row in part["rows"]:
            if row["what"] not in ("curve", "floor") and row["stock"]:
                assert row["n"] >= 5, (name, row["what"])
                assert row["ratio"] == pytest.approx(row["stock"] / row["ours"])


def test_an_unknown_benchmark_names_the_valid_ones():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nope"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "grpo_step" in done.stderr and "Traceback" not in done.stderr


def test_growth_says_how_time_grows_at_each_doubling():
    rows = [engine.row("step", [], [s], size=n, grows="rows") for n, s in ((1, 1.0), (2, 1.5))]
    assert "| step | rows | 1, 2 | 1.00, 1.50 | 1.50 x |" in page.growth(rows)


def test_an_engine_is_compared_with_one_that_there_was():
    with pytest.raises(StudyError, match="no commit neverwas"):
        speed.in_turns("neverwas", 1, 1)


@pytest.mark.slow
def test_a_step_is_timed_beside_its_floor(monkeypatch, small, world):
    monkeypatch.setitem(speed.PROFILES, "tiny", small)
    found = speed.step(16, 1)
    assert set(found["seconds"]) == set(speed.PARTS)
    assert all(len(values) == 1 for values in found["seconds"].values())
    assert found["floor"]["answer_tokens"] > 16 and found["floor"]["seconds"] > 0


@pytest.mark.slow
def test_steps_are_timed_in_turns_with_their_parts(small, world):
    from benchmarks import steps

    profile = replace(small, threads=2)
    timed = steps.interleaved(
        lambda ours, n, seed: steps.grpo(profile, ours, str(world / "out"), n, seed),
        repeat=2,
        rounds=2,
    )
    for name in ("stock", "ours"):
        assert set(timed[name]) == {"step", "sampling", "rewards", "forward", "backward"}
        assert len(timed[name]["step"]) == 2
        inside = sum(timed[name][part][0] for part in timed[name] if part != "step")
        assert 0 < inside < timed[name]["step"][0]


def test_the_page_on_intervals_is_written_from_its_record():
    record = json.loads(intervals.RECORD.read_text())
    assert intervals.PAGE.read_text() == intervals.text(record)
    chosen = [r for r in record["estimators"] if r["estimator"] == "two-way ANOVA"]
    assert len(chosen) == len(intervals.SIZES)
    assert all(abs(r["covered"] - 0.95) < 0.02 for r in chosen)
    assert all(r["wrong"] <= 0.05 + 3 * r["error"] for r in record["staged"])


def test_every_estimator_knows_two_arms_apart():
    arms = next(iter(intervals.studies(intervals.World(effect=0.4, items=60), 1)))
    for judge, _ in intervals.JUDGES.values():
        low, high = judge(intervals.World(effect=0.4, items=60), arms)
        assert 0 < low < high < 1
