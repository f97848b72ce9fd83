import json

import pytest

from hybridlib import StudyError, pretrain
from hybridlib.tiny import tasks

SMALL = pretrain.Recipe(
    vocabulary=300, hidden=32, layers=1, heads=2, feed_forward=64, steps=24, batch=8
)


def test_the_shipped_base_is_small_and_says_how_it_was_made():
    files = list(pretrain.BASE_FOLDER.iterdir())
    assert sum(f.stat().st_size for f in files) <= 8e6
    recipe = json.loads((pretrain.BASE_FOLDER / "recipe.json").read_text())["recipe"]
    assert recipe == json.loads(json.dumps(pretrain.asdict(pretrain.Recipe())))


def test_digits_stay_single_and_texts_come_back(tiny):
    _, tokenizer = tiny
    for text in (
        "<<12+7=19>>19\n#### 19",
        "def f(xs):\n    xs = xs[::-1]\n    return xs",
        "naïve ∑",
    ):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert all(not t.isdigit() or len(t) == 1 for t in tokenizer.convert_ids_to_tokens(ids))


def test_documents_err_reason_and_answer_directly():
    pairs = pretrain.documents(pretrain.Recipe(), 0, 2000, 4)
    assert len(pairs) == 2000
    words = [a for _, a in pairs if "####" in a]
    assert 0.05 < sum("<<" not in a for a in words) / len(words) < 0.5
    steps = [s for a in words for s in a.splitlines() if s.startswith("<<")]
    wrong = [
        s for s in steps if eval(s[2 : s.index("=")]) != int(s[s.index("=") + 1 : s.index(">>")])
    ]
    assert 0.01 < len(wrong) / len(steps) < 0.5


@pytest.mark.slow
def test_a_broken_pretraining_goes_on_bitwise(world, monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_STEPS", 10)
    whole = pretrain.pretrain(world / "whole", SMALL)
    all_batches = pretrain.batches

    def interrupted(recipe, tokenizer, start):
        for step, batch in enumerate(all_batches(recipe, tokenizer, start), start):
            if start == 0 and step == 17:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(pretrain, "batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(world / "parts", SMALL)
    assert not (world / "parts").exists()
    parts = pretrain.pretrain(world / "parts", SMALL)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    with pytest.raises(StudyError, match="--force"):
        pretrain.pretrain(world / "parts", SMALL)


@pytest.mark.slow
def test_the_ladder_leaves_room_for_sft_and_rl():
    rows = pretrain.ladder(rows=40)
    for name in tasks.FAMILIES:
        accuracy = {r["level"]: r["value"] for r in rows if r["family"] == name}
        assert accuracy[1] >= 0.6
        assert any(0.15 <= accuracy[level] <= 0.5 for level in (2, 3, 4))
        top = [accuracy[level] for level in (5, 6)]
        assert min(top) < 0.05 and max(top) > 0
