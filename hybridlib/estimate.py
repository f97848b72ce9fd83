"""What will this run do, and what will it cost? Told before anything is loaded or fetched."""

import json
from dataclasses import asdict, replace
from typing import Any

from hybridlib import files
from hybridlib.adapters import ADAPTERS
from hybridlib.methods import METHODS, composed, train
from hybridlib.profiles import Profile, model_folder
from hybridlib.runs import Run

FLOP_PER_SECOND = {
    "cpu": 3e10,
    "gpu": 6e13,
}  # sustained training FLOP/s of two laptop cores; of one data-centre GPU


def show(run: Run, profile: Profile) -> None:
    """Print the resolved run, every option its trainer gets, and an estimate of memory and time."""
    print(f"run       {run.id}")
    for name, value in asdict(run).items():
        print(f"  {name:<22} {value}")
    print(f"profile   {profile.name}")
    for name, value in asdict(profile).items():
        if name not in ("sft", "grpo"):
            print(f"  {name:<22} {value}")
    if trainer := _trainer(run):
        chosen = trainer_options(run, profile)
        print(f"trainer   trl.{trainer.upper()}Config")
        for name, value in sorted(chosen.items()):
            print(f"  {name:<22} {value}")
    print("estimate")
    for name, value in cost(run, profile).items():
        print(f"  {name:<22} {value}")
    print(f"result    {files.results_folder(profile.name) / (run.id + '.json')}")


def trainer_options(run: Run, profile: Profile) -> dict[str, Any]:
    """All of TRL's options with the values this run gives them, defaults included."""
    import trl

    kind = _trainer(run)
    alone = replace(run, method=kind, target="solution", objective="nll", parents=(), start="")
    if run.method == "cat":
        alone = replace(alone, learning_rate=run.learning_rate or composed.CAT_RATE)
    config = getattr(trl, f"{kind.upper()}Config")
    return config(**train.options(alone, profile, files.run_folder(run.id, profile.name))).to_dict()


def _trainer(run: Run) -> str:
    """The trainer that a run's steps are those of: sft, grpo, or "" where nothing is trained."""
    return METHODS[run.method].trainer


def parameters(run: Run, profile: Profile) -> tuple[int, int]:
    """Parameters of the model and of its adapter: counted on no memory where a folder is at hand.

    Else the profile's number, and for the adapter the share that all linear layers of the Qwen2.5
    models have at rank 1 (0.11 % at 0.5B), times the rank; (0, 0) when nothing is known.
    """
    where = model_folder(profile.model)
    if not where:
        return profile.parameters, int(0.0011 * profile.parameters * run.rank)
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(where))
        base = sum(p.numel() for p in model.parameters())
        model = get_peft_model(model, ADAPTERS[run.adapter](run.rank))
        return base, sum(p.numel() for p in model.parameters() if p.requires_grad)


def cost(run: Run, profile: Profile) -> dict[str, str]:
    """Rough memory and time: weights, adapter, optimizer, activations; 6 FLOP a weight and token.

    GRPO adds sampling (2 FLOP) to every token. Good to a factor of about three; "unknown" for a hub
    id whose size is not in the profile.
    """
    n, adapter = parameters(run, profile)
    if not n:
        return {"parameters": f"unknown until {json.dumps(profile.model)} is fetched"}
    from hybridlib.pool import count_gpus

    trainer = _trainer(run)
    own = {"sft": profile.sft, "grpo": profile.grpo}.get(trainer, {})
    width = 2 if "16" in profile.dtype else 4
    rows = own.get("per_device_train_batch_size", 0)
    length = profile.max_completion_tokens * (1.5 if trainer == "grpo" else 0.75)
    memory = n * (0.65 if run.nf4 or profile.nf4 else width) + adapter * (width + 12)
    memory += rows * length * (n / 40) ** 0.5 * 40 * width  # activations grow with width x depth
    steps = (run.steps or own.get("max_steps", 0)) * own.get("gradient_accumulation_steps", 1)
    flop = steps * rows * length * n * (8 if trainer == "grpo" else 6)
    rows = len(profile.datasets) * len(profile.splits) * (profile.n_eval or 1000)
    answers = rows * (profile.n_samples + 1)
    flop += answers * profile.max_completion_tokens * 2 * n
    seconds = flop / FLOP_PER_SECOND["gpu" if count_gpus() else "cpu"]
    return {
        "parameters": f"{n:,}",
        "trainable": f"{adapter:,}" if own else "0",
        "memory (about)": f"{memory / 2**30:.1f} GiB",
        "time (about)": f"{seconds / 60:.0f} min on {'a GPU' if count_gpus() else 'two CPU cores'}",
    }
