"""What can be made of adapters that are trained? Methods that combine several or change one."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridlib import StudyError, models
from hybridlib.adapters import ADAPTERS
from hybridlib.merging import (
    check_mergeable,
    combine,
    concatenate,
    geometry,
    interference,
    rewrite,
)
from hybridlib.methods.registry import METHODS, Job, Trained
from hybridlib.methods.train import demonstrations, fit, grpo, trl_config
from hybridlib.profiles import model_folder

CAT_SHARE, CAT_RATE = 0.05, 0.05
"""Share of the training rows on which `cat` learns its weights, and their learning rate."""


# ---------------------------------------------------------------- of several


@METHODS.register(trainer="", needs=("parents",), words="{merge} merge", backends=("hf",))
def merge(job: Job) -> Trained:
    """Merge several adapters into one, by a merge method (`hybridlib.merging`).

    For the mean of two adapters in a profile with the full grids, the facts also hold `pair`, the
    comparison of the two by `merging.interference`; for it both updates have to fit into memory.
    """
    run, profile = job.run, job.profile
    adapter = job.out / "adapter"
    facts = combine(
        job.parents, run.merge, adapter, run.seed, model_folder(profile.model), run.lambdas
    )
    if run.merge == "mean" and len(job.parents) == 2 and profile.full:
        facts["pair"] = interference.measure(profile, job.parents)
    return Trained(adapter, facts=facts)


@METHODS.register(trainer="", needs=("parents",), words="routing", backends=("hf", "unsloth"))
def route(job: Job) -> Trained:
    """Send every token to the adapter that its hidden state fits best: Arrow (arXiv:2405.11157).

    Nothing is merged and nothing trained; PEFT takes the direction in which an adapter acts most
    strongly as its prototype. Adapters of one rank on the same modules only.
    """
    check_mergeable(job.parents)  # dense deltas of one base: what prototypes are taken from
    from peft import ArrowConfig, create_arrow_model

    model, tokenizer = models.load(job.profile, nf4=job.nf4, backend=job.run.backend)
    paths = [str(adapter) for adapter in job.parents]
    try:
        routed = create_arrow_model(model, paths, ArrowConfig(top_k=1))
    except (ValueError, TypeError, RuntimeError) as error:
        parents = " and ".join(job.run.parents)
        raise StudyError(f"cannot route between {parents}: {error}") from None
    return Trained(model=(routed, tokenizer))


@METHODS.register(trainer="sft", needs=("rows", "parents"), words="learnt merge", backends=("hf",))
def cat(job: Job) -> Trained:
    """Learn one weight per adapter and layer: CAT of LoRA Soups (arXiv:2410.13025).

    The adapters stay as they are. Weights start at 1 / adapters, the mean, and are learnt by the
    likelihood of the solutions of CAT_SHARE of the rows, with the steps of the profile's SFT.
    They are no part of PEFT's checkpoints, so a training that was stopped starts again.
    """
    check_mergeable(job.parents)
    from trl import SFTConfig, SFTTrainer

    run, profile = job.run, job.profile
    model, tokenizer = models.load(profile, start=job.parents[0], nf4=job.nf4)
    names = ["default"]
    for index, adapter in enumerate(job.parents[1:], 1):
        names.append(str(index))
        model.load_adapter(str(adapter), names[-1])
    model.base_model.set_adapter(names)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    weights = _weighted(model, names)
    count = max(1, round(CAT_SHARE * len(job.rows)))
    rows = job.rows.shuffle(seed=run.seed).select(range(count))
    config = replace(
        run,
        learning_rate=run.learning_rate or CAT_RATE,
        options=(*run.options, "save_strategy=no"),
    )
    trainer = SFTTrainer(
        model=model,
        args=trl_config(
            SFTConfig, config, profile, job.out, max_length=None, completion_only_loss=True
        ),
        train_dataset=demonstrations(rows, model, tokenizer),
        processing_class=tokenizer,
    )
    trained = fit(trainer, job)
    learnt = {layer: weight.detach().tolist() for layer, weight in weights.items()}
    facts = concatenate(
        job.parents, job.out / "adapter", lambda module: learnt[interference.layer_of(module)]
    )
    return trained._replace(facts=facts | {"weights": learnt, "rows_for_weights": len(rows)})


def _weighted(model: Any, names: list[str]) -> dict[str, Any]:
    """Make the scaling of the adapters learnable; return layer -> its weights (adapters,)."""
    import torch
    from peft.tuners.lora import LoraLayer

    weights: dict[str, Any] = torch.nn.ParameterDict()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layer = interference.layer_of(name)
            if layer not in weights:
                weights[layer] = torch.full((len(names),), 1 / len(names), device=model.device)
            module.scaling = _LearntScaling(module.scaling, names, weights[layer])
    model.cat_weights = weights  # registers the parameters, so that the optimizer gets them
    return weights


class _LearntScaling(dict):
    """The scaling of a LoRA layer's adapters, times weights that learn."""

    def __init__(self, scaling: dict[str, float], names: list[str], weights: Any):
        super().__init__(scaling)
        self.indices = {name: index for index, name in enumerate(names)}
        self.weights = weights

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name) * self.weights[self.indices[name]]


# ---------------------------------------------------------------- of one


@METHODS.register(trainer="grpo", needs=("rows", "start"), words="GRPO on top", backends=("hf",))
def stack(job: Job) -> Trained:
    """Train a fresh adapter by GRPO on the base with the first adapter merged in.

    Differs from going on with the same adapter (`grpo` with a start) by the room that each stage
    has: its own rank. The result is one adapter, the sum of both, of their ranks together.

    Raises:
        StudyError: where that would not be the model that was trained: on a 4-bit base, whose
            rounding changes with what is merged in, and for adapters that are no dense delta.
    """
    run, profile = job.run, job.profile
    check_mergeable([job.start])
    if job.nf4 or not ADAPTERS[run.adapter].mergeable:
        obstacle = "a base in 4 bits" if job.nf4 else f"the adapter {run.adapter}"
        raise StudyError(
            f"a stack is no sum with {obstacle}; go on with one adapter: --method grpo"
        )
    merged = job.out / "base"
    model, tokenizer = models.load(profile, start=job.start, trainable=False)
    model.merge_and_unload().save_pretrained(merged)
    tokenizer.save_pretrained(merged)
    upper = Job(
        replace(run, method="grpo", start=""),
        replace(profile, model=str(merged)),
        job.out / "upper",
        rows=job.rows,
    )
    trained = grpo(upper)
    adapter = job.out / "adapter"
    facts = concatenate([job.start, trained.adapter], adapter, lambda _: (1, 1), on_top=True)
    shutil.rmtree(merged)
    return trained._replace(adapter=adapter, facts=trained.facts | facts)


@METHODS.register(trainer="", needs=("start",), words="spectrum restored", backends=("hf",))
def isospectral(job: Job) -> Trained:
    """Put the singular values of the base back into the adapted weights (ISO, arXiv:2607.19331)."""
    return _rewritten(job, geometry.isospectral)


@METHODS.register(trainer="", needs=("start",), words="merged in bfloat16", backends=("hf",))
def rounded(job: Job) -> Trained:
    """Round the adapted weights to bfloat16, as merging saves them."""
    return _rewritten(job, geometry.rounded)


@METHODS.register(trainer="", needs=("start",), words="base in bfloat16", backends=("hf",))
def unrounded(job: Job) -> Trained:
    """Keep the adapter beside a base in bfloat16, not merged: the control of `rounded`."""
    return _rewritten(job, geometry.unrounded)


def _rewritten(job: Job, change: Callable[..., Any]) -> Trained:
    """Write the start adapter with each delta replaced by change(weight, delta); trains nothing.

    Raises StudyError where the base is no local folder, since its weights are read from there.
    """
    base: Path | None = model_folder(job.profile.model)
    if base is None:
        raise StudyError(
            f"{job.profile.model} is no folder; fetch the model and give --model FOLDER"
        )
    adapter = job.out / "adapter"
    return Trained(adapter, facts=rewrite(job.start, change, adapter, base))
