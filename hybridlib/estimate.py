"""What will this run do, and what will it cost? Told before anything is loaded or fetched."""

import json
from dataclasses import asdict
from typing import Any

from hybridlib import results, train
from hybridlib.profiles import Profile, local
from hybridlib.study import Run, folder

RATES = {
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
    if run.method in ("sft", "grpo"):
        chosen = trainer_options(run, profile)
        print(f"trainer   trl.{'SFTConfig' if run.method == 'sft' else 'GRPOConfig'}")
        for name, value in sorted(chosen.items()):
            print(f"  {name:<22} {value}")
    print("estimate")
    for name, value in cost(run, profile).items():
        print(f"  {name:<22} {value}")
    print(f"result    {results.folder(profile.name) / (run.id + '.json')}")


def trainer_options(run: Run, profile: Profile) -> dict[str, Any]:
    """All of TRL's options with the values this run gives them, defaults included."""
    import trl

    config = trl.SFTConfig if run.method == "sft" else trl.GRPOConfig
    return config(**train.options(run, profile, folder(run.id, profile))).to_dict()


def parameters(profile: Profile) -> int:
    """Parameters of the model: from the profile, else counted from its folder's config."""
    if profile.parameters or not local(profile.model):
        return profile.parameters
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(local(profile.model))
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def cost(run: Run, profile: Profile) -> dict[str, str]:
    """Rough memory and time: weights, adapter, optimizer, activations; 6 FLOP a weight and token.

    GRPO adds sampling (2 FLOP) to every token. Good to a factor of about three; "unknown" for a hub
    id whose size is not in the profile.
    """
    n = parameters(profile)
    if not n:
        return {"parameters": f"unknown until {json.dumps(profile.model)} is fetched"}
    from hybridlib.pool import gpus

    own = profile.sft if run.method == "sft" else profile.grpo
    if run.method not in ("sft", "grpo"):
        own = {}
    width = 2 if "16" in profile.dtype else 4
    adapter = (
        n * 0.002 * run.rank
    )  # all linear layers of a Qwen2: about 2 % of the weights at rank 8 to 16
    rows = own.get("per_device_train_batch_size", 0)
    length = profile.max_completion_tokens * (1.5 if run.method == "grpo" else 0.75)
    memory = n * (0.65 if run.nf4 or profile.nf4 else width) + adapter * (width + 12)
    memory += rows * length * (n / 40) ** 0.5 * 40 * width  # activations grow with width x depth
    steps = (run.steps or own.get("max_steps", 0)) * own.get("gradient_accumulation_steps", 1)
    flop = steps * rows * length * n * (8 if run.method == "grpo" else 6)
    answers = (
        len(profile.datasets)
        * len(profile.splits)
        * (profile.n_eval or 1000)
        * (profile.n_samples + 1)
    )
    flop += answers * profile.max_completion_tokens * 2 * n
    seconds = flop / RATES["gpu" if gpus() else "cpu"]
    return {
        "parameters": f"{n:,}",
        "trainable (about)": f"{int(adapter):,}" if own else "0",
        "memory (about)": f"{memory / 2**30:.1f} GiB",
        "time (about)": f"{seconds / 60:.0f} min on {'a GPU' if gpus() else 'two CPU cores'}",
    }
