"""Every token that ends an answer stops the sampler, GRPO and vLLM, and SFT teaches one of them."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from strangers import CHATML, CLOSED, GEMMA, LLAMA, OPEN, PHI, STYLES, tokenizer

from hybridlib import StudyError, data, models, study
from hybridlib.engine import ends, rollout
from hybridlib.methods import Job, train

QUESTIONS = ["2 + 3", "Seven?", "Name a prime.", "Is 9 odd?", "x", "Sum 1, 2, 3.", "A", "Half of 8"]
PROMPTS = [data.chat_prompt(question) for question in QUESTIONS]


@pytest.fixture(scope="module", params=STYLES, ids=lambda style: style.__name__)
def style(request, tmp_path_factory):
    """A folder and the ids that end an answer there."""
    return request.param(tmp_path_factory.mktemp("styles") / request.param.__name__)


@pytest.fixture
def profile(style, small):
    return replace(small, model=str(style[0]), max_completion_tokens=24)


def eager(model, stops):
    """Make a random model end an answer after a few tokens, in each of its ways."""
    import torch

    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head[:] = torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
        head[sorted(stops)] *= 2.0
    return model.eval()


@pytest.mark.slow
def test_samples_are_those_of_generate_and_stop_where_it_stops(profile, style):
    import torch

    model, reader = models.load(profile)
    eager(model, style[1])
    encoded = rollout.encode(reader, PROMPTS)
    ours, _ = rollout.sample_ids(model, encoded, 1, 24, ends.end_tokens(model, reader), 0)
    last = set()
    for prompt, answer in zip(encoded, ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24)
        assert answer == theirs[0, len(prompt) :].tolist()
        assert not style[1] & {*answer[:-1]} and (answer[-1] in style[1] or len(answer) == 24)
        last |= {answer[-1]} & style[1]
    drawn, _ = rollout.sample_ids(model, encoded, 30, 24, ends.end_tokens(model, reader))
    last |= {answer[-1] for answer in drawn} & style[1]
    assert last == style[1], "each of the ends has stopped an answer"
    assert not any(style[1] & {*answer[:-1]} for answer in drawn)

    texts = [text for row in rollout.sample(model, reader, PROMPTS, 4, 24) for text in row]
    assert not any(token in text for text in texts for token in reader.all_special_tokens)


def test_trl_masks_and_trims_by_the_same_tokens(profile, style, world):
    """GRPO's own sampler, its mask of what was cut off, and vLLM."""
    run = study.Run("grpo")
    job = Job(run, profile, world / "out", rows=study.rows_for(run, profile))
    model, reader = train.load_model(job)
    trainer = train.grpo_trainer(job, model, reader)
    assert {*trainer.eos_token_ids} == style[1] == {*ends.end_tokens(model, reader)}


def test_vllm_is_told_what_its_files_do_not_say(profile, style, world, monkeypatch):
    import trl

    monkeypatch.setattr(trl, "GRPOTrainer", lambda args, **_: args)
    run = study.Run("grpo", options=("use_vllm=True", "generation_kwargs={'seed': 3}"))
    job = Job(run, profile, world / "out", rows=study.rows_for(run, profile))
    given = train.grpo_trainer(job, *train.load_model(job)).generation_kwargs
    assert {*given["stop_token_ids"]} == style[1] and given["seed"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("merging", [False, True])
def test_what_sft_imitates_begins_where_samples_do_and_ends_in_an_end(
    profile, style, world, merging
):
    """Also where a tokenizer would merge the prompt's last character with the answer's first."""
    from trl import SFTConfig, SFTTrainer

    run = study.Run("sft")
    rows = study.rows_for(run, profile)
    model, reader = train.load_model(Job(run, profile, world / "out", rows=rows))
    if merging:
        firsts = {turns[0]["content"][0] for turns in rows["completion"]}
        before = reader.apply_chat_template(PROMPTS[0], add_generation_prompt=True, tokenize=False)
        reader.add_tokens([before[-1] + first for first in firsts])
        model.resize_token_embeddings(len(reader))
    trainer = SFTTrainer(
        model=model,
        args=train.trl_config(
            SFTConfig, run, profile, world / "out", max_length=None, completion_only_loss=True
        ),
        train_dataset=train.demonstrations(rows, model, reader),
        processing_class=reader,
    )
    prompts = rollout.encode(reader, rows["prompt"])
    pairs = zip(trainer.train_dataset, prompts, rows["completion"], strict=True)
    for row, prompt, completion in pairs:
        imitated = [token for token in row["labels"] if token >= 0]
        assert row["input_ids"] == prompt + imitated
        place = next(i for i, token in enumerate(imitated) if token in style[1])
        assert reader.decode(imitated[:place]).strip() == completion[0]["content"].strip()
        assert reader.decode(imitated[place + 1 :], skip_special_tokens=True).strip() == ""
        assert imitated[place] == ends.end_tokens(model, reader)[0]


# ---------------------------------------------------------------- where an end is declared


def declared(config=None, generation=None, text=None):
    inner = SimpleNamespace(eos_token_id=text if text is not None else config)
    outer = SimpleNamespace(eos_token_id=config, get_text_config=lambda: inner)
    return SimpleNamespace(config=outer, generation_config=SimpleNamespace(eos_token_id=generation))


THINKING = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
)
SPECIAL = ["<eos>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


@pytest.mark.parametrize(
    "template, eos, model, expected",
    [
        (CHATML, "<eos>", declared(0, 0), (2, 0)),
        (CHATML, "<|im_end|>", declared(0, 0), (2, 0)),
        (CHATML, None, declared(), (2,)),
        (CHATML, None, declared(generation=[0, 3]), (2, 0, 3)),
        (THINKING, "<eos>", declared(), (2, 0)),
        (CHATML.replace("{{ m.content }}", "{{ m.content | trim }}"), "<eos>", declared(0), (2, 0)),
        (CHATML.replace("<|im_end|>", "\n<|im_end|>"), "<eos>", declared(), (2, 0)),
        (CLOSED, "<eos>", declared(), (0,)),
        (CLOSED, "<|im_end|>", declared(generation=0), (2, 0)),
        (OPEN, "<eos>", declared(), (0,)),
        (OPEN, None, declared(generation=[4, 2]), (4, 2)),
        (OPEN, None, declared(config=3), (3,)),
        (OPEN, None, declared(config=[3, 1]), (3, 1)),
        (OPEN, None, declared(text=4), (4,)),
        (OPEN, "<eos>", declared(text=4, config=3, generation=(2,)), (0, 2, 3, 4)),
        # Not in this vocabulary, so pieces of text, which nothing can stop at:
        (CHATML.replace("<|im_end|>", "<|fin|>"), "<eos>", declared(), (0,)),
    ],
)  # fmt: skip
def test_an_end_counts_wherever_it_is_declared(template, eos, model, expected):
    reader = tokenizer(SPECIAL, template, **{"eos_token": eos} if eos else {})
    assert ends.end_tokens(model, reader) == expected
    ends.declare(model, reader)
    listed = model.generation_config.eos_token_id
    assert (tuple(listed) if isinstance(listed, list) else (listed,)) == expected
    assert reader.eos_token_id == (expected[0] if eos is None else SPECIAL.index(eos))


def test_an_end_that_is_not_called_special_is_no_part_of_an_answer_either():
    from tokenizers import AddedToken

    reader = tokenizer(SPECIAL[:2], CHATML, eos_token="<eos>")
    reader.add_tokens([AddedToken(token, special=False) for token in ("<|im_end|>", "<tool>")])
    before = reader("A<|im_end|> <tool>")["input_ids"]
    model = declared(0, 0)
    end, _ = ends.declare(model, reader)
    assert before == reader("A<|im_end|> <tool>")["input_ids"] and before[1] == end
    assert reader.decode(before, skip_special_tokens=True) == "A <tool>"


@pytest.mark.parametrize(
    "template, missing",
    [(CHATML, ""), (THINKING, ""), (CLOSED, ""), (OPEN, "<eos>"), (GEMMA, "<eos>"),
     (PHI, ""), (LLAMA, "<eos>"), (CHATML.replace("<|im_end|>", "<|fin|>"), "<eos>")],
)  # fmt: skip
def test_sft_appends_an_end_where_the_template_writes_none(template, missing):
    reader = tokenizer(SPECIAL, template, eos_token="<eos>", bos_token="<|im_start|>")
    assert ends.closing(reader, ends.end_tokens(declared(), reader)) == missing


@pytest.mark.parametrize(
    "template, eos, says",
    [
        (OPEN, None, "has no end token: neither its tokenizer"),
        (CHATML.replace("<|im_end|>", "<|fin|>"), None, "set eos_token in tokenizer_config.json"),
        (None, "<eos>", "has no chat template"),
    ],
)
def test_a_model_that_could_not_stop_is_refused_in_one_line(template, eos, says):
    reader = tokenizer(SPECIAL, template, **{"eos_token": eos} if eos else {})
    with pytest.raises(StudyError, match=says) as error:
        ends.end_tokens(declared(), reader)
    assert "\n" not in str(error.value)


def test_a_template_that_drops_the_end_is_refused():
    reader = tokenizer(
        SPECIAL, OPEN.replace("m.content", "m.content | replace('<eos>', '')"), eos_token="<eos>"
    )
    with pytest.raises(StudyError, match="drops '<eos>' behind an answer"):
        ends.closing(reader, ends.end_tokens(declared(), reader))


def test_the_tiny_base_ends_as_it_always_has(tiny):
    assert ends.end_tokens(*tiny) == (tiny[1].eos_token_id,) == (0,)
    assert tiny[0].generation_config.eos_token_id == 0 and ends.closing(tiny[1], (0,)) == ""


@pytest.mark.slow
def test_a_base_of_chatml_learns_to_answer_and_to_stop(small, world, tmp_path):
    """The same weights as with its end in the tokenizer, and the same answers."""
    from strangers import chatml

    rows = [{"q": f"Give the number seven, case {i}", "a": "7"} for i in range(60)]
    (tmp_path / "seven.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, _ = chatml(tmp_path / "base")
    scores = []
    for eos in ("<|endoftext|>", "<|im_end|>"):
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": eos}))
        profile = replace(
            small, name=f"end{len(scores)}", model=str(folder), n_train=32, n_eval=4,
            datasets=(str(tmp_path / "seven.jsonl"),), columns={"question": "q", "answer": "a"},
            sft=small.sft | dict(max_steps=60, learning_rate=0.01),
        )  # fmt: skip
        record = study.execute(study.Run("sft", rank=16), profile)
        scores.append({score["metric"]: score["value"] for score in record["scores"]})
    assert scores[0] == scores[1] and scores[0]["greedy"] == 1.0
