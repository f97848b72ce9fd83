"""Rows: the same form from every source, the real counts, and one clear line for bad input."""

import json
import time

import pandas as pd
import pytest

from hybridlib import StudyError, data, grading, hub
from hybridlib.profiles import PROFILES, Form

COLUMNS = set("id family kind level topic prompt completion answer asked".split())
PUBLISHED = {
    "gsm8k": {"train+valid": 7473, "test": 1319},
    "math": {"train+valid": 7500, "test": 5000},
    "math500": {"test": 500},
    "mbpp": {"train": 374, "valid": 90, "test": 500, "prompt": 10},
    "mbpp_sanitized": {"train": 120, "valid": 43, "test": 257, "prompt": 7},
}
COLUMN_NAMES = {"question": "ask", "answer": "say"}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def check(rows, name, split):
    assert set(rows.column_names) == COLUMNS
    assert len(set(rows["id"])) == len(rows)
    for row in rows:
        assert row["id"].startswith(f"{name}/{split}/")
        assert row["kind"] in grading.KINDS and row["level"] >= 0 and row["answer"]
        assert [m["role"] for m in row["prompt"] + row["completion"]] == ["user", "assistant"]


@pytest.mark.parametrize("split", ["train", "valid", "test", "longer", "wording"])
@pytest.mark.parametrize("name", [name for name in data.DATASETS if name.startswith("tiny_")])
def test_tiny_rows_have_the_form_and_gold_grades_right(name, split):
    rows = data.load(name, split, limit=30)
    check(rows, name, split)
    texts = [c[0]["content"] for c in rows["completion"]]
    verdicts = grading.grade_many(texts, rows["answer"], rows["kind"])
    assert all(v.correct for v in verdicts)
    assert all(map(grading.well_formed, texts, rows["kind"]))
    levels = set(rows["level"])
    assert levels == {6} if split == "longer" else levels <= set(range(1, 6)) and len(levels) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_sets_have_their_rows(hub, name):
    for splits, count in PUBLISHED[name].items():
        parts = [data.load(name, split) for split in splits.split("+")]
        assert sum(map(len, parts)) == count
        for rows, split in zip(parts, splits.split("+"), strict=True):
            check(rows, name, split)
    assert {name for name in data.DATASETS if not name.startswith("tiny_")} == set(PUBLISHED)


@pytest.mark.slow
def test_valid_and_train_share_no_question_and_the_cut_is_about_a_tenth(hub):
    train, valid = data.load("gsm8k", "train"), data.load("gsm8k", "valid")
    questions = [{p[0]["content"] for p in rows["prompt"]} for rows in (train, valid)]
    assert not questions[0] & questions[1]
    assert 0.08 < len(valid) / 7473 < 0.12


@pytest.mark.slow
def test_rows_of_the_real_sets(hub):
    first = data.load("gsm8k", "train")[0]
    assert (first["id"], first["level"], first["answer"]) == ("gsm8k/train/0", 2, "72")
    assert "1450000" in data.load("gsm8k", "test")["answer"]  # 1,450,000 there
    problem = data.load("math500", "test")[0]
    assert (problem["level"], problem["topic"]) == (2, "Precalculus")
    assert 0 in data.load("math", "train")["level"]  # "Level ?"
    program = data.load("mbpp", "test")[0]
    assert program["prompt"][0]["content"].endswith('\nassert remove_Occ("hello","l") == "heo"')
    assert program["answer"].count("assert") == 3
    assert "\r" not in program["completion"][0]["content"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_math", "gsm8k"])
def test_limits_repeat_and_nest(hub, name):
    small, again, large = (set(data.load(name, "train", n)["id"]) for n in (20, 20, 50))
    assert small == again and len(small) == 20 and len(large) == 50
    prompts = [str(p) for p in data.load(name, "train", 50)["prompt"]]
    assert {str(p) for p in data.load(name, "train", 20)["prompt"]} <= set(prompts)


# ---------------------------------------------------------------- custom data sets


def test_a_custom_folder(tmp_path):
    rows = [{"ask": f"{i} + 1?", "say": str(i + 1), "hard": f"grade {i % 3}"} for i in range(200)]
    write(tmp_path / "mine" / "train.jsonl", rows)
    splits = ("train", "valid", "test")
    parts = {
        split: data.load(str(tmp_path / "mine"), split, columns=COLUMN_NAMES) for split in splits
    }
    for split, part in parts.items():
        check(part, "mine", split)
    assert sum(map(len, parts.values())) == 200
    assert len({p[0]["content"] for part in parts.values() for p in part["prompt"]}) == 200
    assert 5 < len(parts["valid"]) < 40 and 5 < len(parts["test"]) < 40
    levels = data.load(str(tmp_path / "mine"), "train", columns={**COLUMN_NAMES, "level": "hard"})
    assert set(levels["level"]) == {0, 1, 2} and levels["id"] == parts["train"]["id"]


def test_parquet_and_splits_of_its_own(tmp_path):
    for split, size in (("train", 30), ("validation", 4), ("test", 5)):
        frame = pd.DataFrame({"ask": [f"{split} {i}" for i in range(size)], "say": ["1"] * size})
        frame.to_parquet(tmp_path / f"{split}.parquet")
    sizes = [
        len(data.load(str(tmp_path), s, columns=COLUMN_NAMES)) for s in ("train", "valid", "test")
    ]
    assert sizes == [30, 4, 5]


@pytest.mark.parametrize(
    ("given", "kind", "answer", "completion"),
    [
        ("1,234", "number", "1234", "#### 1234"),
        (7, "number", "7", "#### 7"),
        ("$2.50", "number", "2.50", "#### 2.50"),
        ("2x+1", "expression", "2x+1", "\\boxed{2x+1}"),
        ("3+4=7\n#### 7", "number", "7", "3+4=7\n#### 7"),
        ("so $\\boxed{\\frac12}$", "expression", "\\frac12", "so $\\boxed{\\frac12}$"),
    ],
)
def test_the_kind_follows_from_the_answer(tmp_path, given, kind, answer, completion):
    file = write(tmp_path / "a.jsonl", [{"ask": str(i), "say": given} for i in range(20)])
    row = data.load(file, "train", columns=COLUMN_NAMES)[0]
    assert (row["kind"], row["answer"]) == (kind, answer)
    assert row["completion"][0]["content"] == completion
    assert grading.grade(completion, row["answer"], row["kind"]).correct


def test_a_completion_gets_its_answer_where_the_grader_looks(tmp_path):
    rows = [{"ask": str(i), "say": "7", "work": "3 and 4 is 7."} for i in range(20)]
    file = write(tmp_path / "a.jsonl", rows)
    row = data.load(file, "train", columns={**COLUMN_NAMES, "completion": "work"})[0]
    assert row["completion"][0]["content"] == "3 and 4 is 7.\n#### 7"


# ---------------------------------------------------------------- bad input


def fails(*args, **named):
    with pytest.raises(StudyError) as caught:
        data.load(*args, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_names_list_the_valid_ones():
    assert "gsm8k, math" in fails("gsm9k", "test") and "folder" in fails("gsm9k", "test")
    assert "valid: train, valid, test" in fails("gsm8k", "dev")
    assert "valid: train" in fails("tiny_math", "prompt")


def test_a_row_without_an_answer(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"ask": "q", "say": "1"}, {"ask": "r", "say": None}] * 9)
    message = fails(file, "train", columns=COLUMN_NAMES)
    assert "row 1 of" in message and "a.jsonl" in message and "'say' is empty" in message


def test_missing_columns_are_named(tmp_path, monkeypatch):
    file = write(tmp_path / "a.jsonl", [{"ask": "q", "reply": "1"}])
    assert "lacks the columns say; found: ask, reply" in fails(file, "train", columns=COLUMN_NAMES)
    assert "need 'question' and 'answer'" in fails(file, "train")
    assert "given: question, reply" in fails(file, "train", columns={"question": "a", "reply": "b"})
    folder = tmp_path / "openai" / "gsm8k"
    write(folder / "main" / "train.jsonl", [{"question": "q", "solution": "1"}])
    files = "data_files: [{split: train, path: main/train*}]"
    (folder / "README.md").write_text(f"---\nconfigs: [{{config_name: main, {files}}}]\n---\n")
    monkeypatch.setenv("HYBRIDLIB_HUB", str(tmp_path))
    assert "lacks the columns answer; found: question, solution" in fails("gsm8k", "train")


def test_malformed_lines_are_located(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"ask": "q", "say": "1"}\n{"ask": "q", "sa\n')
    assert "a.jsonl, line 2" in fails(str(file), "train", columns=COLUMN_NAMES)
    assert "a.jsonl, line 2" in fails(str(tmp_path), "train", columns=COLUMN_NAMES)


def test_other_files_and_empty_folders(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert "valid: .jsonl" in fails(str(tmp_path / "a.txt"), "train", columns=COLUMN_NAMES)
    (tmp_path / "empty").mkdir()
    assert "cannot be read" in fails(str(tmp_path / "empty"), "train", columns=COLUMN_NAMES)


def test_without_a_network_one_line_says_what_to_do(monkeypatch):
    monkeypatch.delenv("HYBRIDLIB_HUB", raising=False)
    monkeypatch.setattr(hub, "has", lambda *_: False)
    began = time.perf_counter()
    for name, columns in (("mbpp_sanitized", None), ("nobody/nothing", COLUMN_NAMES)):
        message = fails(name, "train", columns=columns)
        assert "HYBRIDLIB_HUB" in message and "--profile tiny" in message
    assert time.perf_counter() - began < 20


def test_an_incomplete_hub_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRIDLIB_HUB", str(tmp_path))
    assert "has no folder openai/gsm8k" in fails("gsm8k", "train")


def test_math500_cannot_be_trained_on(hub):
    assert "has no split 'train'; it has: test" in fails("math500", "train")


def test_a_form_puts_system_line_and_worked_examples_round_the_question():
    form = Form("number", system="Be brief.", line="End with ####.", examples=2)
    plain = data.load("tiny_gsm8k", "train", 6)
    asked = data.load("tiny_gsm8k", "train", 6, forms=[form])
    assert asked.remove_columns("prompt").to_list() == plain.remove_columns("prompt").to_list()
    solutions = {
        row["prompt"][0]["content"]: row["completion"][0]["content"]
        for row in data.load("tiny_gsm8k", "train", 12)
    }
    for before, after in zip(plain["prompt"], asked["prompt"], strict=True):
        system, *shown, question = after
        assert system == {"role": "system", "content": "Be brief."}
        assert question["content"] == before[0]["content"] + "\nEnd with ####."
        assert [turn["role"] for turn in shown] == ["user", "assistant"] * 2
        for user, answer in zip(shown[::2], shown[1::2], strict=True):
            example = user["content"].removesuffix("\nEnd with ####.")
            assert example != before[0]["content"], "a row is no example of itself"
            assert answer["content"] == solutions[example]


def test_kinds_without_a_form_stay_as_they_are_and_tiny_profiles_have_none():
    plain = data.load("tiny_math", "test", 3)
    assert data.load("tiny_math", "test", 3, forms=[Form("number", line="?")])[:] == plain[:]
    assert not any(PROFILES[name].ask for name in ("tiny", "tiny-sweep", "tiny-full"))
    assert {form.kind for form in PROFILES["qwen-0.5b"].ask} == {*grading.KINDS}


def test_too_few_rows_for_the_examples_are_one_line(tmp_path):
    rows = [{"ask": f"1 + {n}?", "say": str(1 + n)} for n in range(3)]
    name = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(StudyError, match="asks for 4; ask for fewer"):
        data.load(name, "train", 0, COLUMN_NAMES, [Form("number", examples=4)])
