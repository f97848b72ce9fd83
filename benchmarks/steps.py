"""One GRPO step, one SFT step: stock TRL against ours, and where the time of a step goes."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hybridlib import models, study
from hybridlib.engine import rollout, trainers
from hybridlib.methods import train
from hybridlib.profiles import Profile
from hybridlib.rewards import REWARDS


def grpo(profile: Profile, lean: bool, out: str, steps: int, seed: int = 0, **options: Any) -> Any:
    """A GRPO trainer on the profile's rows: TRL's own with `generate`, or the study's."""
    from trl import GRPOConfig, GRPOTrainer

    run = study.Run("grpo", steps=steps, seed=seed)
    model, tokenizer = models.load(profile, "lora")
    args = GRPOConfig(**train.options(run, profile, out) | options)
    return (trainers.grpo(GRPOTrainer) if lean else GRPOTrainer)(
        model=model, args=args, reward_funcs=[REWARDS["correct"]],
        train_dataset=study.rows_for(run, profile).remove_columns(["completion"]),
        processing_class=tokenizer, rollout_func=train.sampler(seed) if lean else None,
    )  # fmt: skip


def sft(profile: Profile, lean: bool, out: str, steps: int, seed: int = 0, **options: Any) -> Any:
    """An SFT trainer on the profile's rows, which are shuffled as TRL does by default."""
    from trl import SFTConfig, SFTTrainer

    run = study.Run("sft", steps=steps, seed=seed)
    model, tokenizer = models.load(profile, "lora")
    args = SFTConfig(**train.options(run, profile, out) | options, max_length=None)
    return (trainers.sft(SFTTrainer) if lean else SFTTrainer)(
        model=model, args=args, processing_class=tokenizer,
        train_dataset=study.rows_for(run, profile).select_columns(["prompt", "completion"]),
    )  # fmt: skip


def seconds(trainer: Any) -> dict[str, list[float]]:
    """Train; seconds of each step and of its parts, the first step (warming up) left out.

    Returns:
        "step" and, where the trainer has them, "sampling", "rewards", "forward", "backward".
    """
    from transformers import TrainerCallback

    spent: dict[str, list[float]] = defaultdict(list)
    now: dict[str, float] = defaultdict(float)

    def watch(owner: Any, name: str, part: str) -> None:
        inner = getattr(owner, name, None)
        if inner is None:
            return

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                now[part] += time.perf_counter() - began

        setattr(owner, name, timed)

    watch(trainer, "_generate", "sampling")
    watch(trainer, "_calculate_rewards", "rewards")
    watch(trainer, "compute_loss", "forward")
    watch(trainer.accelerator, "backward", "backward")

    class Clock(TrainerCallback):
        last = 0.0

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            end = time.perf_counter()
            if self.last:
                spent["step"].append(end - self.last)
                for part, value in now.items():
                    spent[part].append(value)
            now.clear()
            self.last = end

    trainer.add_callback(Clock())
    trainer.train()
    return dict(spent)


def interleaved(
    build: Callable[[bool, int, int], Any], repeat: int, rounds: int = 3
) -> dict[str, dict[str, list[float]]]:
    """Steps of stock and ours in turns, so that a slow minute of the machine hits both.

    Args:
        build: a trainer from (lean, steps, seed); a round has one seed, and so the same prompts.
        repeat: timed steps of each, at least.
    """
    found: dict[str, dict[str, list[float]]] = {"stock": {}, "ours": {}}
    for seed in range(rounds):
        for name in found:
            timed = seconds(build(name == "ours", 1 + -(-repeat // rounds), seed))
            for part, values in timed.items():
                found[name].setdefault(part, []).extend(values)
    return found


def wider(profile: Profile, factor: int, out: str) -> Profile:
    """The profile on a base of the same depth and vocabulary, `factor` times as wide, random."""
    import shutil
    from pathlib import Path

    from transformers import AutoConfig, AutoModelForCausalLM

    from hybridlib.profiles import model_folder

    source, target = model_folder(profile.model), Path(out) / f"wide{factor}"
    config = AutoConfig.from_pretrained(source)
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        setattr(config, name, getattr(config, name) * factor)
    AutoModelForCausalLM.from_config(config).save_pretrained(target)
    for file in source.glob("*token*"):
        shutil.copy(file, target)
    for file in source.glob("*.jinja"):
        shutil.copy(file, target)
    return replace(profile, model=str(target))


def generate(model: Any, tokenizer: Any, prompts: list, n: int, tokens: int, batch: int) -> None:
    """What a plain evaluation does: `generate` on batches of rows in their order."""
    import torch

    step = max(1, batch // n)
    for start in range(0, len(prompts), step):
        ids = rollout.encode(tokenizer, prompts[start : start + step])
        width = max(map(len, ids))
        padded = torch.tensor([[tokenizer.eos_token_id] * (width - len(i)) + i for i in ids])
        mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids])
        with torch.no_grad():
            out = model.generate(
                input_ids=padded, attention_mask=mask, do_sample=True, num_return_sequences=n,
                max_new_tokens=tokens, top_k=0, top_p=1.0, pad_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)


def quiet(threads: int) -> None:
    """Import the libraries on all cores; keep TRL's log lines out of the table."""
    import torch

    models.use("hf")
    torch.set_num_threads(threads)
    import datasets
    import transformers.trainer_callback as callback

    datasets.disable_progress_bars()

    callback.PrinterCallback.on_log = lambda self, *args, **kwargs: None
