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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, StudyError, data
from hybridlib.tiny import families, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FOLDER = ROOT / "data" / "tiny_base"
CHECKPOINT = 250  # steps between the states that a broken pretraining resumes from
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the base; the defaults are what ships."""

    vocabulary: int = 768
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    steps: int = 3000
    batch: int = 96  # documents per step
    learning_rate: float = 3e-3  # peak of a one-cycle schedule
    # per family: share of the documents; of these without steps; noisy; slips per noisy step
    gsm8k: tuple[float, float, float, float] = (0.35, 0.10, 0.35, 0.30)
    math: tuple[float, float, float, float] = (0.35, 0.10, 0.35, 0.30)
    mbpp: tuple[float, float, float, float] = (0.30, 0.00, 0.50, 0.35)
    seed: int = 0
    threads: int = 2


def slip(name: str, rate: float, rng: random.Random) -> families.Slip:
    """Goes wrong at a step with probability `rate`: a near number, or another operation."""

    def wrong(value: Any) -> Any:
        if rng.random() >= rate:
            return value
        if name == "tiny_mbpp":
            ops = families.tiny_mbpp.OPS
            op = rng.choice([o for o in ops if ("xs" in ops[o][1]) == ("xs" in ops[value[0]][1])])
            return op, rng.choice(ops[op][0])
        return value + rng.choice([-10, -2, -1, 1, 2, 10])

    return wrong


def documents(recipe: Recipe, window: int, n: int, top: int) -> list[tuple[str, str]]:
    """n (prompt, answer) pairs of levels 1 to `top`, few of the next; `window` seeds them."""
    levels = [*list(range(1, top + 1)) * 4, top + 1]
    streams = {
        name: tasks.stream(name, "pretrain", seed=recipe.seed * 10**6 + window, levels=levels)
        for name in tasks.FAMILIES
    }
    convert = {name: data.DATASETS[name]("pretrain", 1)[1] for name in streams}
    knobs = {name: getattr(recipe, name.removeprefix("tiny_")) for name in streams}
    rng = random.Random(f"{recipe.seed}/{window}")
    pairs = []
    for name in rng.choices(list(knobs), [k[0] for k in knobs.values()], k=n):
        chain, raw = next(streams[name])
        _, direct, noisy, rate = knobs[name]
        steps = rng.random() >= direct
        slips = slip(name, rate, rng) if steps and rng.random() < noisy else families.same
        prompt = data.chat_prompt(convert[name](raw)["question"])
        pairs.append((prompt, tasks.FAMILIES[name].solve(chain, slips, steps)))
    return pairs


def build_tokenizer(recipe: Recipe) -> "PreTrainedTokenizerFast":
    """Byte-level BPE over pretraining documents, digits apart, with the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    texts = [text for q, a in documents(recipe, -1, 20_000, 4) for text in (q[0]["content"], a)]
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", pad_token="<|pad|>",
        clean_up_tokenization_spaces=False, padding_side="left", model_max_length=1024,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> Any:
    """A random Qwen2 of the recipe's shape, float32."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
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
        )  # fmt: skip
    )


def batches(
    recipe: Recipe, tokenizer: "PreTrainedTokenizerFast", start: int
) -> Iterator[dict[str, Any]]:
    """Padded batches from step `start` on; within a window of 16, alike lengths share a batch."""
    import torch

    size = 16
    for window in range(start // size, -(-recipe.steps // size)):
        # From one step upward: the longest chains arrive once 40 % of the steps are done.
        top = min(4, 1 + int(4 * window * size / (0.4 * recipe.steps)))
        pairs = documents(recipe, window, size * recipe.batch, top)
        asked = tokenizer.apply_chat_template(
            [q for q, _ in pairs], tokenize=False, add_generation_prompt=True
        )
        asked = tokenizer(asked, add_special_tokens=False)["input_ids"]
        answered = tokenizer([a + "<|end|>" for _, a in pairs], add_special_tokens=False)[
            "input_ids"
        ]
        rows = sorted(zip(asked, answered, strict=True), key=lambda r: len(r[0]) + len(r[1]))
        cut = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
        random.Random(f"{recipe.seed}/order/{window}").shuffle(cut)
        for k, batch in enumerate(cut):
            if window * size + k < start or window * size + k >= recipe.steps:
                continue
            width = max(len(q) + len(a) for q, a in batch)
            ids = torch.full((len(batch), width), tokenizer.pad_token_id)
            labels = torch.full((len(batch), width), -100)
            for i, (q, a) in enumerate(batch):
                ids[i, : len(q) + len(a)] = torch.tensor(q + a)
                labels[i, len(q) : len(q) + len(a)] = torch.tensor(a)
            yield {"input_ids": ids, "labels": labels}


def pretrain(out: Path = FOLDER, recipe: Recipe | None = None, fresh: bool = False) -> Path:
    """Pretrain the base into `out` (fp16 weights, tokenizer, recipe, losses); resumable.

    Loss on the answers only, AdamW with a one-cycle schedule. Raises StudyError when `out` exists
    and `fresh` is not set.
    """
    import torch
    from torch.nn.functional import cross_entropy

    recipe = recipe or Recipe()
    if out.exists() and not fresh:
        raise StudyError(f"{out} exists; rebuild it with --force")
    torch.set_num_threads(recipe.threads)
    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.05
    )
    checkpoint = ROOT / "runs" / f"{out.name}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    first, tokens, curve = 0, 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint)
        if state["recipe"] == asdict(recipe):
            first, tokens, curve = state["step"], state["tokens"], state["curve"]
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            print(f"resuming at step {first}")
    began = time.time()
    for step, batch in enumerate(batches(recipe, tokenizer, first), first):
        # Right padding needs no mask under causal attention: real tokens never look at it.
        logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        tokens += int((batch["input_ids"] != tokenizer.pad_token_id).sum())
        if (step + 1) % 50 == 0:
            curve.append([step + 1, round(loss.item(), 4)])
            left = (time.time() - began) / (step + 1 - first) * (recipe.steps - step - 1)
            print(
                f"step {step + 1}/{recipe.steps}  loss {loss.item():.3f}  {left / 60:.1f} min left",
                flush=True,
            )
        if (step + 1) % CHECKPOINT == 0:
            state = {"recipe": asdict(recipe), "step": step + 1, "tokens": tokens, "curve": curve}
            state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | {"schedule": schedule.state_dict()}, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.half().save_pretrained(part)
    tokenizer.save_pretrained(part)
    facts = {"recipe": asdict(recipe), "tokens": tokens, "loss": curve}
    (part / "recipe.json").write_text(json.dumps(facts, indent=1) + "\n")
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
    checkpoint.unlink(missing_ok=True)
    return out


def ladder(
    folder: Path = FOLDER, rows: int = 60, samples: int = 8, split: str = "test"
) -> list[dict]:
    """How often is the base right at each level, sampled at temperature 1?

    Returns:
        One dict per family and level: family, level, value, low, high (95 %, over rows), rows,
        samples (per row). Level 6 comes from the split "longer".
    """
    import pandas as pd
    from transformers import AutoModelForCausalLM

    from hybridlib import grading, models, stats
    from hybridlib.engine import rollout

    if not folder.exists():
        raise StudyError(f"{folder} is missing; build it with: python -m hybridlib base")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = models.tokenizer(str(folder))
    items = []
    for name in tasks.FAMILIES:
        table = [*data.load(name, split, limit=rows * 5), *data.load(name, "longer", limit=rows)]
        answers = rollout.sample(model, tokenizer, [r["prompt"] for r in table], samples, 112)
        for i, (row, texts) in enumerate(zip(table, answers, strict=True)):
            verdicts = grading.grade_many(texts, [row["answer"]] * samples, [row["kind"]] * samples)
            items.append(
                {"family": name, "split": split, "item": i, "level": row["level"], "seed": 0,
                 "correct": sum(v.correct for v in verdicts), "samples": samples}
            )  # fmt: skip
    found = stats.summarise(pd.DataFrame(items), ["family", "level"], "sampled")
    found = found.rename(columns={"n_items": "rows"}).assign(samples=samples)
    return found.sort_values(["family", "level"]).to_dict("records")
