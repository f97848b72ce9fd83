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


def grpo(profile: Profile, ours: bool, out: str, steps: int, seed: int = 0, **options: Any) -> Any:
    """Return a GRPO trainer on the profile's rows: TRL's own with `generate`, or the study's."""
    from trl import GRPOConfig, GRPOTrainer

    run = study.Run("grpo", steps=steps, seed=seed)
    model, tokenizer = models.load(profile, "lora")
    args = GRPOConfig(**train.options(run, profile, out) | options)
    trainer_class = trainers.grpo(GRPOTrainer) if ours else GRPOTrainer
    return trainer_class(
        model=model,
        args=args,
        reward_funcs=[REWARDS["correct"]],
        train_dataset=study.rows_for(run, profile).remove_columns(["completion"]),
        processing_class=tokenizer,
        rollout_func=train.sampler(seed) if ours else None,
    )


def sft(profile: Profile, ours: bool, out: str, steps: int, seed: int = 0, **options: Any) -> Any:
    """Return an SFT trainer on the profile's rows, TRL's own or the study's."""
    from trl import SFTConfig, SFTTrainer

    run = study.Run("sft", steps=steps, seed=seed)
    model, tokenizer = models.load(profile, "lora")
    args = SFTConfig(**train.options(run, profile, out) | options, max_length=None)
    trainer_class = trainers.sft(SFTTrainer) if ours else SFTTrainer
    return trainer_class(
        model=model,
        args=args,
        train_dataset=study.rows_for(run, profile).select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
    )


def seconds(trainer: Any, clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Train; return the seconds of each step and of its parts, without the first step (warm-up).

    Args:
        clock: What counts the seconds.
    Returns:
        "step" and, where the trainer has them, "sampling", "rewards", "forward", "backward".
    """
    from transformers import TrainerCallback

    spent: dict[str, list[float]] = defaultdict(list)
    now: dict[str, float] = defaultdict(float)

    def watch(owner: Any, name: str, part: str) -> None:
        """Add the time of a method to a part of the step, where the object has that method."""
        method = getattr(owner, name, None)
        if method is None:
            return

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            try:
                return method(*args, **kwargs)
            finally:
                now[part] += clock() - began

        setattr(owner, name, timed)

    watch(trainer, "_generate", "sampling")
    watch(trainer, "_calculate_rewards", "rewards")
    watch(trainer, "compute_loss", "forward")
    watch(trainer.accelerator, "backward", "backward")

    class Clock(TrainerCallback):
        last = 0.0

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            end = clock()
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
    """Time steps of stock and ours in turns, so that a slow minute of the machine hits both.

    Args:
        build: A trainer from (ours, steps, seed); a round has one seed, and so the same prompts.
        repeat: Timed steps of each, at least.
    Returns:
        "stock" and "ours" -> what `seconds` returns, all rounds together.
    """
    spent: dict[str, dict[str, list[float]]] = {"stock": {}, "ours": {}}
    steps = 1 + -(-repeat // rounds)
    for seed in range(rounds):
        for name in spent:
            timed = seconds(build(name == "ours", steps, seed))
            for part, values in timed.items():
                spent[name].setdefault(part, []).extend(values)
    return spent


def wider(profile: Profile, factor: int, out: str) -> Profile:
    """Return the profile on a random base of the same depth, `factor` times as wide.

    Writes that base and the tokenizer into a folder of `out`.
    """
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
    """Sample as a plain evaluation does: by `generate`, on batches of rows in their order."""
    import torch

    step = max(1, batch // n)
    for start in range(0, len(prompts), step):
        ids = rollout.encode(tokenizer, prompts[start : start + step])
        width = max(map(len, ids))
        padded = torch.tensor([[tokenizer.eos_token_id] * (width - len(i)) + i for i in ids])
        mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids])
        with torch.no_grad():
            out = model.generate(
                input_ids=padded,
                attention_mask=mask,
                do_sample=True,
                num_return_sequences=n,
                max_new_tokens=tokens,
                top_k=0,
                top_p=1.0,
                pad_token_id=tokenizer.eos_token_id,
            )
        tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)


def quiet(threads: int) -> None:
    """Import the libraries with so many threads; keep their log lines out of the table."""
    models.import_backend("hf")
    import datasets
    import torch
    import transformers.trainer_callback as callback

    torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    callback.PrinterCallback.on_log = lambda self, *args, **kwargs: None
