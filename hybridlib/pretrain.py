"""Where does the tiny model come from? It is pretrained here, until it is half-competent.

The mixture teaches it to reason and also to err: some documents give the answer without steps, some
slip at a step and go on from the slip. What is left to learn is what SFT and RL are compared on.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridlib import ROOT, StudyError, data, files, grading, models, stats
from hybridlib.engine import rollout
from hybridlib.tiny import FAMILIES, no_slip, stream
from hybridlib.tiny.families import Family, Slip

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

BASE_FOLDER = ROOT / "data" / "tiny_base"
CHECKPOINT_STEPS = 250  # between the states that an interrupted pretraining resumes from
LOG_STEPS = 50
WINDOW = 16  # steps whose documents are drawn together
IGNORED_LABEL = -100
END = "<|end|>"
PADDING = "<|pad|>"
SPECIAL_TOKENS = [END, PADDING, "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the base; the defaults are what ships.

    Recorded in recipe.json beside the weights, so that fields keep their names. `gsm8k`, `math` and
    `mbpp` are the four numbers of a `Mixture`.
    """

    vocabulary: int = 768
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    steps: int = 3000
    batch: int = 96  # documents per step
    learning_rate: float = 3e-3  # peak of a one-cycle schedule
    gsm8k: tuple[float, float, float, float] = (0.35, 0.10, 0.35, 0.30)
    math: tuple[float, float, float, float] = (0.35, 0.10, 0.35, 0.30)
    mbpp: tuple[float, float, float, float] = (0.30, 0.00, 0.50, 0.35)
    seed: int = 0
    threads: int = 2


class Mixture(NamedTuple):
    """What pretraining sees of one family, in shares."""

    documents: float  # of all documents
    without_steps: float  # of the family's documents: the answer alone
    noisy: float  # of its documents with steps: they may slip
    slips: float  # of the steps of a noisy document


# ---------------------------------------------------------------- documents


def documents(
    recipe: Recipe, window: int, count: int, top_level: int
) -> list[tuple[list[dict[str, str]], str]]:
    """Return `count` pairs of a chat prompt and an answer, some of them wrong.

    Args:
        window: seeds the documents, together with the recipe's seed.
        top_level: levels 1 to this are equally frequent, the next one is rare.
    """
    levels = [*list(range(1, top_level + 1)) * 4, top_level + 1]
    seed = recipe.seed * 10**6 + window
    streams = {name: stream(name, "pretrain", seed, levels) for name in FAMILIES}
    converters = {name: data.DATASETS[name]("pretrain", 1)[1] for name in FAMILIES}
    mixtures = {name: Mixture(*getattr(recipe, name.removeprefix("tiny_"))) for name in FAMILIES}
    weights = [mixture.documents for mixture in mixtures.values()]
    rng = random.Random(f"{recipe.seed}/{window}")
    pairs = []
    for name in rng.choices(list(FAMILIES), weights, k=count):
        chain, raw = next(streams[name])
        mixture = mixtures[name]
        steps = rng.random() >= mixture.without_steps
        noisy = steps and rng.random() < mixture.noisy
        slip = random_slip(FAMILIES[name], mixture.slips, rng) if noisy else no_slip
        prompt = data.chat_prompt(converters[name](raw)["question"])
        pairs.append((prompt, FAMILIES[name].solve(chain, slip, steps)))
    return pairs


def random_slip(family: type[Family], rate: float, rng: random.Random) -> Slip:
    """Return a slip that replaces a step by a wrong one of the family with probability `rate`."""

    def slip(step: Any) -> Any:
        if rng.random() >= rate:
            return step
        return family.wrong_step(step, rng)

    return slip


def batches(
    recipe: Recipe, tokenizer: "PreTrainedTokenizerFast", start: int
) -> Iterator[dict[str, "Tensor"]]:
    """Yield the batches of the steps from `start` on, padded on the right.

    Documents of a window are batched by length; the batches come in random order. The curriculum
    begins with level 1 and has reached level 4 when 40 % of the steps are done.

    Yields:
        input_ids and labels, both (documents, tokens); labels are IGNORED_LABEL off the answers.
    """
    for window in range(start // WINDOW, -(-recipe.steps // WINDOW)):
        top_level = min(4, 1 + int(4 * window * WINDOW / (0.4 * recipe.steps)))
        pairs = documents(recipe, window, WINDOW * recipe.batch, top_level)
        prompts = rollout.encode(tokenizer, [prompt for prompt, _ in pairs])
        texts = [answer + END for _, answer in pairs]
        answers = tokenizer(texts, add_special_tokens=False)["input_ids"]
        rows = sorted(zip(prompts, answers, strict=True), key=lambda row: len(row[0]) + len(row[1]))
        chunks = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
        random.Random(f"{recipe.seed}/order/{window}").shuffle(chunks)
        for step, chunk in enumerate(chunks, window * WINDOW):
            if start <= step < recipe.steps:
                yield _padded(chunk, tokenizer.pad_token_id)


def _padded(rows: list[tuple[list[int], list[int]]], padding: int) -> dict[str, "Tensor"]:
    """Return a batch of rows, each the token ids of a prompt and of its answer."""
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
    texts = []
    for prompt, answer in documents(recipe, window=-1, count=20_000, top_level=4):
        texts += [prompt[0]["content"], answer]
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


def pretrain(out: Path = BASE_FOLDER, recipe: Recipe | None = None, fresh: bool = False) -> Path:
    """Pretrain the base and write it into a folder: fp16 weights, tokenizer, recipe.json.

    Loss on the answers only, AdamW with a one-cycle schedule. Prints its progress; an interrupted
    pretraining of the same recipe resumes from its last checkpoint, bit for bit.

    Args:
        out: the folder, which is returned.
        recipe: the default one if None.
        fresh: replace a folder that is there already.

    Raises:
        StudyError: the folder is there and `fresh` is not set.
    """
    import torch

    recipe = recipe or Recipe()
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

    model = build_model(recipe, tokenizer)
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

    # Right padding needs no mask under causal attention: the tokens before it never look at it.
    logits = training.model(input_ids=batch["input_ids"]).logits[:, :-1]
    loss = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
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

    state = torch.load(file)
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
    training.model.half().save_pretrained(temporary)
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


# ---------------------------------------------------------------- what it can do


def ladder(
    folder: Path = BASE_FOLDER, rows: int = 60, samples: int = 8, split: str = "test"
) -> list[dict[str, Any]]:
    """Measure how often a base is right at each level, sampled at temperature 1.

    Args:
        folder: of the base.
        rows: about how many per family and level.
        samples: answers per row.
        split: where levels 1 to 5 come from; level 6 comes from "longer".

    Returns:
        One dict per family and level: family, level, value, low, high (95 %, over rows), rows,
        samples.

    Raises:
        StudyError: the folder does not exist.
    """
    import pandas as pd
    from transformers import AutoModelForCausalLM

    if not folder.exists():
        raise StudyError(f"{folder} is missing; build it with: python -m hybridlib base")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = models.load_tokenizer(str(folder))
    items = []
    for name in FAMILIES:
        table = [*data.load(name, split, limit=rows * 5), *data.load(name, "longer", limit=rows)]
        prompts = [row["prompt"] for row in table]
        answers = rollout.sample(model, tokenizer, prompts, samples, 112)
        for place, (row, texts) in enumerate(zip(table, answers, strict=True)):
            verdicts = grading.grade_many(texts, [row["answer"]] * samples, [row["kind"]] * samples)
            items.append(
                {
                    "family": name,
                    "split": split,
                    "item": place,
                    "level": row["level"],
                    "seed": 0,
                    "correct": sum(verdict.correct for verdict in verdicts),
                    "samples": samples,
                }
            )
    accuracy = stats.summarise(pd.DataFrame(items), ["family", "level"], "sampled")
    accuracy = accuracy.rename(columns={"n_items": "rows"}).assign(samples=samples)
    return accuracy.sort_values(["family", "level"]).to_dict("records")
