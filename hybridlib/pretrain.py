"""Where do the tiny bases come from? They are pretrained here, until they are half-competent.

They read right solutions alone, again and again, but few long ones, and some pairs of operations
never. So they err where chains are long or put together in a new way, and are as sure there as
elsewhere. What is left to learn is what SFT and RL are compared on.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, StudyError, data, files, tiny, weights
from hybridlib.engine import rollout
from hybridlib.tiny import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

CHECKPOINT_STEPS = 250  # between the states that an interrupted pretraining resumes from
LOG_STEPS = 50
WINDOW = 16  # steps whose documents are drawn together
TOKENIZER_DOCUMENTS = 20_000  # that the vocabulary is made of
IGNORED_LABEL = -100
END = "<|end|>"
PADDING = "<|pad|>"
SPECIAL_TOKENS = [END, PADDING, "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


Row = tuple[list[int], list[int]]
"""The token ids of a prompt and of its answer."""


@dataclass(frozen=True)
class Corpus:
    """The documents that a base reads again and again, none of them wrong.

    `gsm8k`, `math` and `mbpp` say how many of levels 1, 2, ... a family has. Few long chains, and
    pairs of operations that never follow each other, make a base that errs in long and in unseen
    compositions, and is as sure there as elsewhere.
    """

    gsm8k: tuple[int, ...]
    math: tuple[int, ...]
    mbpp: tuple[int, ...]
    # Share of each family's pairs of consecutive operations; see `tiny.withheld_pairs`.
    withheld: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a base. Recorded in recipe.json beside the weights."""

    corpus: Corpus
    vocabulary: int = 768
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    steps: int = 4000
    batch: int = 96  # documents per step
    learning_rate: float = 3e-3  # peak of a one-cycle schedule
    seed: int = 0
    threads: int = 1  # the same bits whatever the machine has


SIZES: dict[str, Recipe] = {
    "small": Recipe(
        hidden=64,
        heads=2,
        feed_forward=192,
        steps=2500,
        corpus=Corpus(
            gsm8k=(12_000, 15_000, 3_000, 1_500, 1_100),
            math=(19_000, 16_000, 12_500, 7_000, 3_800),
            mbpp=(5_600, 8_300, 2_400, 1_250, 950),
            withheld=(0.27, 0.22, 0.16),
        ),
    ),
    "middle": Recipe(
        corpus=Corpus(
            gsm8k=(23_000, 12_000, 4_000, 4_200, 1_029),
            math=(19_000, 17_000, 10_000, 5_600, 3_300),
            mbpp=(2_800, 4_300, 1_600, 800, 670),
            withheld=(0.36, 0.27, 0.16),
        ),
    ),
}
"""One recipe at about a quarter of a million and at one million parameters.

The corpora came nearest to the bands of `ladder` among some twenty tried.
"""


def base_folder(size: str = "small", seed: int = 0) -> Path:
    """Return where a base of SIZES lies; those of other seeds lie among the runs."""
    if seed:
        return files.runs_folder("bases") / f"{size}-{seed}"
    return ROOT / "data" / "bases" / size


# ---------------------------------------------------------------- documents


def corpus_documents(corpus: Corpus, seed: int = 0) -> list[tuple[list[dict[str, str]], str]]:
    """Return all documents of a corpus, pairs of a chat prompt and an answer."""
    pairs = []
    for name, withheld in zip(FAMILIES, corpus.withheld, strict=True):
        convert = data.DATASETS[name]("pretrain", 1)[1]
        for level, count in enumerate(getattr(corpus, name.removeprefix("tiny_")), 1):
            for raw in islice(tiny.documents(name, level, seed, withheld), count):
                row = convert(raw)
                pairs.append((data.chat_prompt(row["question"]), row["completion"]))
    return pairs


def reading_order(count: int, seed: int, places: range) -> list[int]:
    """Return which of `count` documents stand at these places of the reading.

    All are read in a random order, then all in another one, and so on.
    """
    order: list[int] = []
    for epoch in range(places.start // count, -(-places.stop // count)):
        order += _shuffled(count, f"{seed}/epoch/{epoch}")
    first = places.start // count * count
    return order[places.start - first : places.stop - first]


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: str) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def batches(
    recipe: Recipe, tokenizer: "PreTrainedTokenizerFast", start: int
) -> Iterator[dict[str, "Tensor"]]:
    """Yield the batches of the steps from `start` on, padded on the right.

    Documents of a window are batched by length; the batches come in random order.

    Yields:
        input_ids and labels, both (documents, tokens); labels are IGNORED_LABEL off the answers.
    """
    corpus = _encode(corpus_documents(recipe.corpus, recipe.seed), tokenizer)
    size = WINDOW * recipe.batch
    for window in range(start // WINDOW, -(-recipe.steps // WINDOW)):
        places = range(window * size, (window + 1) * size)
        rows = [corpus[place] for place in reading_order(len(corpus), recipe.seed, places)]
        for step, chunk in enumerate(in_batches(rows, recipe, window), window * WINDOW):
            if start <= step < recipe.steps:
                yield _padded(chunk, tokenizer.pad_token_id)


def _encode(
    pairs: list[tuple[list[dict[str, str]], str]], tokenizer: "PreTrainedTokenizerFast"
) -> list[Row]:
    prompts = rollout.encode(tokenizer, [prompt for prompt, _ in pairs])
    texts = [answer + END for _, answer in pairs]
    answers = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return list(zip(prompts, answers, strict=True))


def in_batches(rows: list[Row], recipe: Recipe, window: int) -> list[list[Row]]:
    """Return the rows of a window in batches of like length, the batches in random order."""
    rows = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    chunks = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
    random.Random(f"{recipe.seed}/order/{window}").shuffle(chunks)
    return chunks


def _padded(rows: list[Row], padding: int) -> dict[str, "Tensor"]:
    """Return a batch of rows."""
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    input_ids = torch.full((len(rows), width), padding)
    labels = torch.full((len(rows), width), IGNORED_LABEL)
    for place, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        input_ids[place, :end] = torch.tensor(prompt + answer)
        labels[place, len(prompt) : end] = torch.tensor(answer)
    return {"input_ids": input_ids, "labels": labels}


# ---------------------------------------------------------------- tokenizer and model


def build_tokenizer(recipe: Recipe) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE on pretraining documents, digits apart, and add the chat template."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    even = (TOKENIZER_DOCUMENTS // (5 * len(FAMILIES)),) * 5  # the same for all sizes and seeds
    pairs = corpus_documents(Corpus(even, even, even))
    texts = [text for prompt, answer in pairs for text in (prompt[0]["content"], answer)]
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=1024,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> Any:
    """Return a randomly initialised float32 Qwen2 of the recipe's shape; seeds torch."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads // 2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


# ---------------------------------------------------------------- training


@dataclass
class _Training:
    """A pretraining in progress: what is trained, and how far it has come."""

    recipe: Recipe
    model: Any
    optimizer: Any
    schedule: Any
    step: int = 0  # steps done
    tokens: int = 0  # tokens seen, padding apart
    curve: list[list[float]] = field(default_factory=list)  # [step, loss] every LOG_STEPS


def pretrain(out: Path, recipe: Recipe, fresh: bool = False) -> Path:
    """Pretrain the base and write it into a folder: fp16 weights, tokenizer, recipe.json.

    Loss on the answers only, AdamW with a one-cycle schedule. Prints its progress; an interrupted
    pretraining of the same recipe resumes from its last checkpoint, bit for bit.

    Args:
        out: the folder, which is returned.
        recipe: one of SIZES, or one of yours.
        fresh: replace a folder that is there already.

    Raises:
        StudyError: the folder is there and `fresh` is not set.
    """
    import torch

    if out.exists() and not fresh:
        raise StudyError(f"{out} exists; rebuild it with --force")
    torch.set_num_threads(recipe.threads)
    tokenizer = build_tokenizer(recipe)
    training = _begin(recipe, tokenizer)
    checkpoint = files.runs_folder("pretrain") / f"{out.name}.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        _resume(training, checkpoint)
    first_step, began = training.step, time.time()
    for batch in batches(recipe, tokenizer, first_step):
        loss = _train_step(training, batch, tokenizer.pad_token_id)
        if training.step % LOG_STEPS == 0:
            training.curve.append([training.step, round(loss, 4)])
            seconds_per_step = (time.time() - began) / (training.step - first_step)
            minutes_left = seconds_per_step * (recipe.steps - training.step) / 60
            print(
                f"step {training.step}/{recipe.steps}  loss {loss:.3f}  "
                f"{minutes_left:.1f} min left",
                flush=True,
            )
        if training.step % CHECKPOINT_STEPS == 0:
            _save_checkpoint(training, checkpoint)
    _save_base(training, tokenizer, out)
    checkpoint.unlink(missing_ok=True)
    return out


def _begin(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> _Training:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(recipe, tokenizer).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.05
    )
    return _Training(recipe, model, optimizer, schedule)


def _train_step(training: _Training, batch: dict[str, "Tensor"], padding: int) -> float:
    """Take one optimizer step on a batch and return its loss before the step."""
    import torch
    from torch.nn.functional import cross_entropy

    device = training.model.device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    # Right padding needs no mask under causal attention: the tokens before it never look at it.
    hidden = training.model.model(input_ids=batch["input_ids"]).last_hidden_state[:, :-1]
    labels = batch["labels"][:, 1:]
    taught = labels != IGNORED_LABEL  # half of the tokens, and only theirs need logits
    loss = cross_entropy(training.model.lm_head(hidden[taught]), labels[taught])
    training.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.schedule.step()
    training.step += 1
    training.tokens += int((batch["input_ids"] != padding).sum())
    return loss.item()


def _save_checkpoint(training: _Training, file: Path) -> None:
    """Write everything that `_resume` needs, in one step."""
    import torch

    state = {
        "recipe": asdict(training.recipe),
        "step": training.step,
        "tokens": training.tokens,
        "curve": training.curve,
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
    }
    temporary = file.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, file)


def _resume(training: _Training, file: Path) -> None:
    """Bring a training to the state of a checkpoint, if that is of the same recipe."""
    import torch

    try:
        weights.check_file(file)
    except StudyError as error:
        print(f"{error}; the pretraining begins anew")
        return
    state = torch.load(file, map_location=training.model.device)
    if state["recipe"] != asdict(training.recipe):
        return
    training.step, training.tokens, training.curve = state["step"], state["tokens"], state["curve"]
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.schedule.load_state_dict(state["schedule"])
    print(f"resuming at step {training.step}")


def _save_base(training: _Training, tokenizer: "PreTrainedTokenizerFast", out: Path) -> None:
    """Write the trained base beside `out` and move it there once it is complete."""
    temporary = out.with_name(out.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    training.model.cpu().half().save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    facts = {
        "recipe": asdict(training.recipe),
        "tokens": training.tokens,
        "loss": training.curve,
    }
    (temporary / "recipe.json").write_text(json.dumps(facts, indent=1) + "\n")
    if out.exists():
        shutil.rmtree(out)
    temporary.rename(out)
