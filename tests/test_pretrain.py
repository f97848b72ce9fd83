import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import StudyError, ladder, pretrain
from hybridlib.grading.arithmetic import find_equations
from hybridlib.tiny import tasks

CORPUS = pretrain.Corpus(
    gsm8k=(30, 20, 5), math=(30, 10), mbpp=(20, 9, 3, 1), withheld=(0.2, 0.1, 0.2)
)
SMALL = pretrain.Recipe(
    CORPUS, vocabulary=300, hidden=32, layers=1, heads=2, feed_forward=64, steps=24, batch=8
)


def test_the_shipped_bases_are_small_and_say_how_they_were_made():
    folders = [folder for folder in map(pretrain.base_folder, pretrain.SIZES) if folder.exists()]
    assert pretrain.base_folder("small") in folders
    assert sum(file.stat().st_size for one in folders for file in one.iterdir()) <= 12e6
    for folder in folders:
        recipe = json.loads((folder / "recipe.json").read_text())["recipe"]
        assert recipe == json.loads(json.dumps(pretrain.asdict(pretrain.SIZES[folder.name])))


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


def test_a_corpus_has_its_documents_and_no_slip():
    pairs = pretrain.corpus_documents(CORPUS)
    assert len(pairs) == 55 + 40 + 33
    words = [answer for _, answer in pairs if "####" in answer]
    assert Counter(answer.count("<<") for answer in words) == {1: 30, 2: 20, 3: 5}
    assert all(equation.holds for answer in words for equation in find_equations(answer))
    other = pretrain.corpus_documents(CORPUS, seed=1)
    assert len(other) == len(pairs) and other != pairs


@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 100))
def test_every_epoch_reads_every_document_once(count, start, length):
    order = pretrain.reading_order(count, 3, range(0, start + length))
    assert pretrain.reading_order(count, 3, range(start, start + length)) == order[start:]
    for first in range(0, start + length - count + 1, count):
        assert sorted(order[first : first + count]) == list(range(count))


def test_batches_of_a_corpus_go_on_where_they_broke_off(tiny):
    whole = list(pretrain.batches(SMALL, tiny[1], 0))
    assert len(whole) == SMALL.steps
    for one, other in zip(whole[17:], pretrain.batches(SMALL, tiny[1], 17), strict=True):
        assert (one["input_ids"] == other["input_ids"]).all()
        assert (one["labels"] == other["labels"]).all()


def test_sizes_and_seeds_share_one_tokenizer(monkeypatch):
    monkeypatch.setattr(pretrain, "TOKENIZER_DOCUMENTS", 300)
    recipes = [*pretrain.SIZES.values(), replace(pretrain.SIZES["small"], seed=2)]
    texts = {pretrain.build_tokenizer(recipe).backend_tokenizer.to_str() for recipe in recipes}
    assert len(texts) == 1


@pytest.mark.slow
def test_a_broken_pretraining_goes_on_bitwise(world, monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_STEPS", 10)
    monkeypatch.setattr(pretrain, "TOKENIZER_DOCUMENTS", 300)
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
def test_the_base_knows_short_chains_and_not_long_ones():
    """A glance; `base --gate` has the bands, on more rows."""
    rungs = ladder.rungs(ladder.answer(pretrain.base_folder("small"), rows=6))
    for name in tasks.FAMILIES:
        of_family = rungs[rungs["family"] == name].set_index("rung")
        greedy, sampled = (
            {rung: estimate.value for rung, estimate in of_family[column].items()}
            for column in ("greedy", "sampled")
        )
        assert greedy["1"] >= 0.7 and sampled["1"] >= 0.6
        assert max(greedy["5"], greedy["longer"]) <= 0.5
