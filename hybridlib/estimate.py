"""What will this run do, and what will it cost? Printed before anything is loaded or fetched."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hybridlib import adapters, data, models
from hybridlib.engine import rollout
from hybridlib.engine.ends import end_tokens
from hybridlib.files import results_folder, run_folder
from hybridlib.methods import METHODS, composed, train
from hybridlib.pool import count_gpus
from hybridlib.profiles import Form, Profile, model_folder
from hybridlib.runs import Run

# Sustained FLOP per second in training: of one data-centre GPU, of two laptop cores.
GPU_SPEED, CPU_SPEED = 6e13, 3e10
# FLOP per weight and token: SFT goes forward (2) and backward (4); GRPO samples as well.
SFT_FLOP, SAMPLING_FLOP = 6, 2
GRPO_FLOP = SFT_FLOP + SAMPLING_FLOP
NF4_BYTES = 0.65  # per weight, with its share of the quantisation constants
OPTIMIZER_BYTES = 12  # per trained weight: its gradient and AdamW's two moments
# Share of the model's weights that LoRA of rank 1 adds on all linear layers: Qwen2.5 at 0.5B.
LORA_SHARE = 0.0011
# Mean length of a training sequence, as a share of the longest completion: SFT has prompts and
# short solutions, GRPO prompts and sampled answers, some of which are cut off.
SFT_LENGTH, GRPO_LENGTH = 0.75, 1.5
UNLIMITED_ROWS = 1000  # assumed of a split whose rows the profile does not limit


def show(run: Run, profile: Profile) -> None:
    """Print the resolved run, every option its trainer gets, and an estimate of memory and time."""
    print(f"run       {run.id}")
    _print_values(asdict(run))
    print(f"profile   {profile.name}")
    settings = asdict(profile)
    _print_values({name: settings[name] for name in settings if name not in ("sft", "grpo")})
    if trainer := METHODS[run.method].trainer:
        print(f"trainer   trl.{trainer.upper()}Config")
        _print_values(dict(sorted(trainer_options(run, profile).items())))
        if folder := model_folder(profile.model):
            print("learns")
            _print_values(learning(run, folder))
    print("asks")
    print("\n".join(f"  | {line}" for line in prompt_shown(run, profile).splitlines()))
    print("estimate")
    _print_values(cost(run, profile))
    print(f"result    {results_folder(profile.name) / (run.id + '.json')}")


def learning(run: Run, folder: Path) -> dict[str, str]:
    """Return which modules of a model learn, which matrices do not, and what ends an answer."""
    model, tokenizer = models.outline(folder, run.adapter, run.rank)
    learns = adapters.learning(model)
    ends = tokenizer.convert_ids_to_tokens(end_tokens(model, tokenizer))
    return {
        "modules": ", ".join(learns["modules"]),
        "parameters": f"{learns['share']:.2%} of the model's, beside {learns['number']} modules",
        "left out": ", ".join(learns["left_out"]),
        "an answer ends in": ", ".join(ends),
    }


def prompt_shown(run: Run, profile: Profile) -> str:
    """Return one whole prompt as the model reads it, and behind it its number of tokens.

    Of the first training row where that can be had without a network; else a question stands for
    it. Without the tokenizer, the turns.
    """
    name = (run.on or profile.datasets)[0]
    at_hand = data.is_generated(name) or Path(name).exists()
    if at_hand or (name in data.DATASETS and os.environ.get("HYBRIDLIB_HUB")):
        prompt = data.load(name, "train", 1, profile.columns, profile.ask)[0]["prompt"]
    else:
        prompt = stand_in(profile)
    folder = model_folder(profile.model)
    if not folder:
        turns = "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
        return f"{turns}\n(tokens: unknown until {profile.model} is fetched)"
    tokenizer = models.load_tokenizer(str(folder))
    [ids] = rollout.encode(tokenizer, [prompt])
    return f"{tokenizer.decode(ids)}\n({len(ids)} tokens)"


def stand_in(profile: Profile) -> list[dict[str, str]]:
    """Return the turns of a prompt in the profile's first form, without its worked examples."""
    form = replace(profile.ask[0], examples=0) if profile.ask else Form("number")
    row = {"kind": form.kind, "prompt": data.chat_prompt("(a question)")}
    return data.asked(row, [form])["prompt"]


def trainer_options(run: Run, profile: Profile) -> dict[str, Any]:
    """Return all of TRL's options with the values this run gives them, defaults included."""
    import trl

    if run.method == "cat":
        run = replace(run, learning_rate=run.learning_rate or composed.CAT_RATE)
    config = getattr(trl, f"{METHODS[run.method].trainer.upper()}Config")
    return train.trl_config(config, run, profile, run_folder(run.id, profile.name)).to_dict()


def parameters(run: Run, profile: Profile) -> tuple[int, int]:
    """Return how many parameters the model and its adapter have; (0, 0) where that is unknown.

    Counted without memory where the model's folder is at hand. Else the profile's number, and for
    the adapter LORA_SHARE of it times the rank.
    """
    folder = model_folder(profile.model)
    if not folder:
        return profile.parameters, int(LORA_SHARE * profile.parameters * run.rank)
    model, _ = models.outline(folder, run.adapter, run.rank)
    trained, everything = model.get_nb_trainable_parameters()
    return everything - trained, trained


def cost(run: Run, profile: Profile) -> dict[str, str]:
    """Return rough numbers for a reader: parameters, memory, time. Good to a factor of about three.

    Says so where nothing is known: for a hub id whose size is not in the profile.
    """
    weights, adapter = parameters(run, profile)
    if not weights:
        return {"parameters": f"unknown until {json.dumps(profile.model)} is fetched"}
    has_gpu = bool(count_gpus())
    memory = _training_bytes(run, profile, weights, adapter)
    flop = _training_flop(run, profile, weights) + _evaluation_flop(profile, weights)
    seconds = flop / (GPU_SPEED if has_gpu else CPU_SPEED)
    return {
        "parameters": f"{weights:,}",
        "trainable": f"{adapter:,}" if METHODS[run.method].trainer else "0",
        "memory (about)": f"{memory / 2**30:.1f} GiB",
        "time (about)": f"{seconds / 60:.0f} min on {'a GPU' if has_gpu else 'two CPU cores'}",
    }


def _training_bytes(run: Run, profile: Profile, weights: int, adapter: int) -> float:
    """Return the memory of weights, adapter with its optimizer, and activations, in bytes."""
    width = 2 if "16" in profile.dtype else 4  # bytes of a number
    base = weights * (NF4_BYTES if run.nf4 or profile.nf4 else width)
    trained = adapter * (width + OPTIMIZER_BYTES)
    tokens = _options(run, profile).get("per_device_train_batch_size", 0) * _length(run, profile)
    activations = tokens * (weights / 40) ** 0.5 * 40 * width  # grow with width x depth
    return base + trained + activations


def _training_flop(run: Run, profile: Profile, weights: int) -> float:
    options = _options(run, profile)
    batches = run.steps or options.get("max_steps", 0)
    batches *= options.get("gradient_accumulation_steps", 1)
    rows = batches * options.get("per_device_train_batch_size", 0)
    flop = GRPO_FLOP if METHODS[run.method].trainer == "grpo" else SFT_FLOP
    return rows * _length(run, profile) * weights * flop


def _evaluation_flop(profile: Profile, weights: int) -> float:
    rows = len(profile.datasets) * len(profile.splits) * (profile.n_eval or UNLIMITED_ROWS)
    answers = rows * (profile.n_samples + 1)  # the sampled ones and the greedy one
    return answers * profile.max_completion_tokens * SAMPLING_FLOP * weights


def _options(run: Run, profile: Profile) -> dict[str, Any]:
    """Return the profile's options of the run's trainer; none where nothing is trained."""
    return {"sft": profile.sft, "grpo": profile.grpo}.get(METHODS[run.method].trainer, {})


def _length(run: Run, profile: Profile) -> float:
    """Return the mean length of a training sequence, in tokens."""
    share = GRPO_LENGTH if METHODS[run.method].trainer == "grpo" else SFT_LENGTH
    return profile.max_completion_tokens * share


def _print_values(values: dict[str, Any]) -> None:
    for name, value in values.items():
        print(f"  {name:<22} {value}")
