"""Advice: rows go where the evidence says and no further, bad rows are named."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib import StudyError, data, difficulty, grading, results
from hybridlib import __main__ as cli
from hybridlib.advise import choice
from hybridlib.advise.report import EVIDENCE, _merge_or_stack, _verdicts, advise
from hybridlib.claims import BASE, CLAIMS, Evidence, difference, ledger
from hybridlib.crossed import Estimate, Parts
from hybridlib.data import intake
from hybridlib.grids import GRIDS, MERGE
from hybridlib.methods import METHODS, Job
from hybridlib.partition import BUCKETS
from hybridlib.profiles import PROFILES, Form, resolve
from hybridlib.runs import Run
from hybridlib.tiny import tasks

FULL = PROFILES[EVIDENCE]
FAMILIES = ("gsm8k", "math", "mbpp")
COLUMNS = {"id", "family", "kind", "level", "prompt", "completion", "answer", "asked", "passrate"}


def frame(rows):
    columns = ["id", "seed", "family", "split", "item", "level", "greedy", "correct", "samples"]
    return pd.DataFrame(rows, columns=columns)


def evidence(monkeypatch, gain=lambda run: 0.0, runs=None, items=150):
    """Stored runs that are right as often as the base, each item by its own rate, plus a gain."""
    rng = np.random.default_rng(7)
    rates = rng.choice([0.02, 0.15, 0.5, 0.9], (len(FAMILIES), items))
    runs = runs or [run for run in GRIDS["flip"](FULL) if not run.steps]
    rows = []
    for run in runs:
        samples = FULL.n_samples
        truth = np.clip(rates + (0 if run.method == "base" else gain(run)), 0, 1)
        right, greedy = rng.binomial(samples, truth), rng.binomial(1, truth)
        rows += [
            (run.id, run.seed, family, "test", item, 1, greedy[f, item], right[f, item], samples)
            for f, family in enumerate(FAMILIES)
            for item in range(items)
        ]
    monkeypatch.setattr(results, "items", lambda name: frame(rows))
    return Evidence(FULL)


# ---------------------------------------------------------------- what the evidence says


@pytest.mark.slow
def test_each_bucket_goes_where_it_gains(monkeypatch):
    gains = {
        "sft": {"zero": 0.3, "low": 0, "middle": 0.2, "high": 0},
        "grpo": {"zero": 0, "low": 0, "middle": 0.2, "high": 0.3},
    }
    choices = choice.choose(evidence(monkeypatch, lambda run: gains[run.method][run.select]))
    assert [c.advice for c in choices] == ["sft", "leave out", "either", "rl"]
    assert [c.file for c in choices][:2] == ["sft", ""] and choices[2].file in ("sft", "rl")
    assert choices[0].sft.value == pytest.approx(0.3, abs=0.05)
    assert all(c.gap.seeds == (5, 5) and c.gap.items > 50 for c in choices)


@pytest.mark.slow
def test_luck_of_the_base_is_no_gain(monkeypatch):
    """Runs no better than the base: the samples that sort the rows would find a gain."""
    none = evidence(monkeypatch)
    choices = choice.choose(none)
    assert {c.advice for c in choices} == {"leave out"}
    assert all(abs(c.sft.value) < 0.07 for c in choices)
    trained, base = choice.trained("sft", "zero").first(5), replace(BASE, bucket="zero")
    naive = difference("naive", trained, base, metric="sampled").estimate(none)
    assert naive.interval()[0] > 0
    assert choice.expected_gain(none, choices, dict.fromkeys(BUCKETS, 0.25)) is None


def test_more_seeds_count_as_soon_as_they_have_finished(monkeypatch):
    more = [run for run in GRIDS["flip"](replace(FULL, seeds=range(7))) if not run.steps]
    choices = choice.choose(evidence(monkeypatch, runs=more, items=40))
    assert all(c.sft.seeds == (7, 1) and c.gap.seeds == (7, 7) for c in choices)


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(-1, 1), st.floats(0, 0.5))
def test_the_rule(sft, half_width_sft, rl, half_width_rl):
    def found(value, se):
        return Estimate(value, se, 4.0, Parts(se**2, 0.0, 0.0))

    gap = found(sft - rl, half_width_sft + half_width_rl)
    both = found(sft, half_width_sft), found(rl, half_width_rl)
    verdict, file = choice.bucket_advice(*both, gap)
    gains = any(one.interval()[0] > 0 for one in both)
    assert (file != "") == gains == (verdict != "leave out")
    if gains:
        low, high = gap.interval()
        assert file == ("sft" if gap.value > 0 else "rl")
        assert (verdict == "either") == (low <= 0 <= high)
        assert verdict in ("either", file)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any))
def test_the_expected_gain_is_the_mean_over_the_rows(chosen_once, sizes):
    stored, choices = chosen_once
    shares = {name: n / sum(sizes) for name, n in zip(BUCKETS, sizes, strict=True)}
    gains = {c.bucket: getattr(c, c.file).value if c.file else 0.0 for c in choices}
    found = choice.expected_gain(stored, choices, shares)
    mean = sum(shares[name] * gains[name] for name in BUCKETS)
    assert (found.value if found else 0.0) == pytest.approx(mean)


@pytest.fixture(scope="module")
def chosen_once():
    with pytest.MonkeyPatch.context() as patch:
        stored = evidence(patch, lambda run: 0.2 * (run.select in ("zero", "middle")), items=30)
        return stored, choice.choose(stored)


@pytest.mark.slow
def test_merge_or_stack(monkeypatch):
    runs = GRIDS["hybrids"](FULL)
    for sign in (1, -1):
        stored = evidence(monkeypatch, lambda run, s=sign: 0.2 * s * (run.merge == MERGE), runs)
        found = choice.merge_or_stack(stored)
        assert 0.1 < sign * found.value < 0.25  # no rate falls below 0
        assert min(sign * end for end in found.interval()) > 0 and found.seeds == (5, 5)
    stored = evidence(monkeypatch, runs=[run for run in runs if not run.start])
    assert choice.merge_or_stack(stored) is None


@pytest.mark.parametrize(("gain", "advice"), [(0.3, "Merge"), (-0.3, "Stack"), (0, "not separate")])
def test_what_is_said_of_merging(monkeypatch, gain, advice):
    runs = dict.fromkeys(run for name in ("flip", "hybrids") for run in GRIDS[name](FULL))
    stored = evidence(monkeypatch, lambda run: gain * (run.merge == MERGE), runs, items=40)
    some = [{"id": "a"}]
    text = _merge_or_stack(stored, {"sft": some, "rl": some})
    assert advice in text and "120 test rows, 5 seeds" in text
    assert "at most one method" in _merge_or_stack(stored, {"sft": some, "rl": []})


@pytest.mark.slow
def test_the_verdicts_it_rests_on_come_with_their_effects(monkeypatch):
    evidence(monkeypatch, lambda run: 0.1 * (run.method == "grpo"), GRIDS["flip"](FULL), items=20)
    judged = {one.name: one for one in ledger(FULL)}
    found = {one["code"]: one for one in _verdicts(FULL)}
    assert list(found) == ["C1", "C2", "C14"]
    assert found["C1"]["verdict"] == judged["the_flip"].verdict
    assert found["C1"]["effects"] == judged["the_flip"].effects and found["C1"]["effects"]
    assert found["C2"]["verdict"] == "not run" and not found["C2"]["effects"]
    assert all(one["says"] in {claim.says for claim in CLAIMS.values()} for one in found.values())


def test_missing_evidence_is_one_line_with_the_command(monkeypatch):
    evidence(monkeypatch, runs=[Run("base")])
    with pytest.raises(StudyError, match="lacks 40 of 41 .* sweep flip --profile tiny-full"):
        choice.evidence_of(FULL)


# ---------------------------------------------------------------- the rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def mixture(n):
    return [row for name in sorted(tasks.FAMILIES) for row in tasks.raw_rows(name, "train", n)]


@pytest.mark.parametrize("name", ["tiny_math", "gsm8k"])
def test_rows_of_a_known_set_are_those_of_data(hub, name):
    rows, refused = intake.usable(name, 40)
    expected = data.load(name, "train", 40)
    assert rows.to_list() == expected.select_columns(list(intake.COLUMNS)).to_list()
    assert not refused


def test_a_file_may_mix_the_forms(tmp_path):
    mixed = [row | {"kind": "a column that says something else"} for row in mixture(5)]
    rows, refused = intake.usable(write(tmp_path / "mix.jsonl", mixed))
    assert not refused and len(rows) == 15
    assert {*zip(rows["family"], rows["kind"], strict=True)} == {
        *zip(FAMILIES, grading.KINDS, strict=True)
    }
    again, refused = intake.usable(write(tmp_path / "again.jsonl", rows.to_list()))
    strip = [column for column in intake.COLUMNS if column != "id"]
    assert not refused and again["id"][14] == "again/train/14"
    assert again.select_columns(strip).to_list() == rows.select_columns(strip).to_list()


def test_every_bad_row_is_named_with_its_reason_and_the_rest_goes_on(tmp_path):
    good, bad = (
        mixture(2),
        {
            "'answer' is empty": {"question": "2+2?", "answer": None},
            "no '#### number'": {"question": "2+2?", "answer": "It is four."},
            "no \\boxed": {"problem": "2+2?", "solution": "4"},
            "no asserts": {"text": "Add.", "code": "def f(): pass", "test_list": []},
            "invalid syntax": {"text": "Add.", "code": "def f(:", "test_list": ["assert f() == 1"]},
            "its own solution gives 'wrong'": {
                "text": "Add.",
                "code": "def f(): return 2",
                "test_list": ["assert f() == 1"],
            },
            "unknown kind 'essay'": {
                "kind": "essay",
                "prompt": [],
                "completion": [],
                "answer": "x",
            },
            "list index out of range": {
                "kind": "number",
                "prompt": [],
                "completion": [],
                "answer": "1",
            },
            "no column question, problem, test_list, kind": {"text": "2+2?"},
        },
    )
    rows, refused = intake.usable(write(tmp_path / "a.jsonl", [*good, *bad.values()]))
    assert list(rows["id"]) == [f"a/train/{i}" for i in range(len(good))]
    assert sorted(refused) == sorted(f"a/train/{len(good) + i}" for i in range(len(bad)))
    for i, reason in enumerate(bad):
        assert reason in refused[f"a/train/{len(good) + i}"]


def test_columns_of_ones_own_keep_every_row_but_the_empty(tmp_path):
    rows = [{"ask": f"{i}+1?", "say": None if i == 4 else i + 1} for i in range(30)]
    columns = {"question": "ask", "answer": "say"}
    found, refused = intake.usable(write(tmp_path / "a.jsonl", rows), columns=columns)
    assert len(found) == 29 and list(refused) == ["a/train/4"] and "empty" in refused["a/train/4"]
    assert found[0]["completion"][0]["content"] == "#### 1"
    assert len(intake.usable(str(tmp_path / "a.jsonl"), 10, columns)[0]) in (9, 10)
    with pytest.raises(StudyError, match="need 'question' and 'answer'"):
        intake.usable(str(tmp_path / "a.jsonl"), columns={"question": "ask"})


# ---------------------------------------------------------------- the whole


def profile_of(file, small, **columns):
    mine = resolve("tiny", dataset=file, columns=columns)
    return replace(small, name=mine.name, datasets=mine.datasets, columns=mine.columns)


@pytest.mark.slow
def test_rows_come_out_ready_to_train_on(monkeypatch, world, small, tmp_path, capsys):
    both = {"sft": {"zero"}, "grpo": {"low", "middle", "high"}}
    evidence(monkeypatch, lambda run: 0.3 * (run.select in both[run.method]), items=60)
    mine = profile_of(write(tmp_path / "mix.jsonl", [*mixture(5), {"text": "?"}]), small)
    summary = advise(mine, tmp_path / "out")
    parts = {
        name: load_dataset("json", data_files=str(tmp_path / "out" / f"{name}.jsonl"))["train"]
        for name in ("sft", "rl")
    }
    assert len(parts["sft"]) + len(parts["rl"]) == 15
    assert all(set(part.column_names) == COLUMNS for part in parts.values())
    assert set(parts["sft"]["passrate"]) == {0} and min(parts["rl"]["passrate"]) > 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert report.startswith(summary.rpartition("\nWritten")[0])
    assert f"sft.jsonl has {len(parts['sft'])} rows" in summary and "1 cannot" in summary
    assert "| mix/train/15 | of unknown kind" in report and "mix/train/15" not in summary
    assert "sweep hybrids" in summary and "larger model or for other sets is unt" in summary
    assert "points of greedy accuracy on rows like these" in summary
    # A second time nothing is measured, and nothing changes.
    stored = sorted((world / "data" / "results" / mine.name / "difficulty").iterdir())
    assert advise(mine, tmp_path / "out") == summary and len(stored) == 3
    for name, method in choice.METHOD_OF_FILE.items():
        run = Run(method)
        trained = METHODS[method](Job(run, small, world / "runs" / run.id, rows=parts[name]))
        assert (trained.adapter / "adapter_model.safetensors").exists()


def test_the_model_is_asked_by_the_forms_of_the_profile(monkeypatch, world, small, tmp_path):
    evidence(monkeypatch, items=10)
    prompts = []

    def rates(profile, rows):
        prompts.extend(rows["prompt"])
        return [0.0] * len(rows)

    monkeypatch.setattr(difficulty, "pass_rates", rates)
    file = write(tmp_path / "mix.jsonl", mixture(3))
    forms = (
        Form("number", "Be brief.", "End with '#### number'.", 1),
        Form("program", line="Code."),
    )
    advise(replace(profile_of(file, small), ask=forms), tmp_path / "out")
    plain = [json.loads(line)["prompt"] for line in (tmp_path / "out" / "sft.jsonl").open()]
    rows, _ = intake.usable(file)
    assert plain == rows["prompt"]  # what is written is the question alone
    for row, prompt in zip(rows, prompts, strict=True):
        form = next((form for form in forms if form.kind == row["kind"]), Form(""))
        question = row["prompt"][-1]["content"]
        assert prompt[-1]["content"] == (f"{question}\n{form.line}" if form.line else question)
        assert [turn["role"] for turn in prompt] == (
            ["system", "user", "assistant", "user"] if form.examples else ["user"]
        )
    assert "has to add the form" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_rows_that_the_base_never_solves_are_called_that(monkeypatch, world, small, tmp_path):
    evidence(monkeypatch, items=60)  # in which nothing gains
    out = tmp_path / "out"
    rows = [{"ask": f"What is {i} to the power of 31?", "say": str(i**31)} for i in range(3, 9)]
    file = write(tmp_path / "far.jsonl", rows)
    out.mkdir()
    write(out / "rl.jsonl", [{"of": "yesterday"}])
    summary = advise(profile_of(file, small, question="ask", answer="say"), out)
    assert "6 of 6 rows (100.0 %) none of 2 answers is right" in summary
    assert "out of the base's reach" in summary and "stronger base" in summary
    assert "6 of its rows hold the answer alone" in summary
    assert "Nothing that the evidence could tell" in summary
    assert "points of greedy accuracy on rows like these" not in summary
    assert not (out / "rl.jsonl").exists() and (out / "sft.jsonl").exists()


def test_no_row_left_and_no_place_to_write(monkeypatch, world, tmp_path, capsys):
    evidence(monkeypatch, items=10)
    file = write(tmp_path / "a.jsonl", [{"question": "2+2?", "answer": "4"}])
    assert cli.main(["advise", "--dataset", file, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "a/train/0: the answer has no '#### number'" in error and "--columns" in error
    assert cli.main(["advise", "--dataset", file, "--out", file]) == 2
    assert "cannot write to" in capsys.readouterr().err
