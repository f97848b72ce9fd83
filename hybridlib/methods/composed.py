"""What can be made of adapters that are trained? Methods that combine several or change one."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, models
from hybridlib.merging import geometry, interference
from hybridlib.merging.merge import check_mergeable, combine, concatenate, rewrite
from hybridlib.methods.train import METHODS, Trained, grpo
from hybridlib.profiles import Profile, model_folder

if TYPE_CHECKING:
    from datasets import Dataset

    from hybridlib.runs import Run

CAT_SHARE, CAT_RATE = 0.05, 0.05
"""Share of the training rows on which `cat` learns its weights, and their learning rate."""


# ---------------------------------------------------------------- of several


@METHODS.register(rows=False)
def merge(run: "Run", profile: Profile, out: Path, adapters: Sequence[Path]) -> Trained:
    """One adapter of several, by a merge method (`hybridlib.merge`).

    Of the mean of two, in the full grids, the facts also say how these lie to each other
    (`hybridlib.pairs`), for which all updates have to fit into memory.
    """
    origin = model_folder(profile.model)
    facts = combine(adapters, run.merge, out / "adapter", run.seed, origin, run.lambdas)
    if run.merge == "mean" and len(adapters) == 2 and profile.full:
        facts["pair"] = interference.measure(profile, adapters)
    return Trained(out / "adapter", facts=facts)


@METHODS.register(rows=False)
def route(run: "Run", profile: Profile, out: Path, adapters: Sequence[Path]) -> Trained:
    """Every token goes to the adapter that its hidden state fits best: Arrow (arXiv:2405.11157).

    Nothing is merged and nothing trained; PEFT takes the direction in which an adapter acts most
    strongly as its prototype. Adapters of one rank on the same modules only.
    """
    from peft import ArrowConfig, create_arrow_model

    model, tokenizer = models.load(profile, nf4=run.nf4 or profile.nf4, backend=run.backend)
    paths = [str(adapter) for adapter in adapters]
    try:
        routed = create_arrow_model(model, paths, ArrowConfig(top_k=1))
    except (ValueError, TypeError, RuntimeError) as error:
        raise StudyError(f"cannot route between {' and '.join(run.parents)}: {error}") from None
    return Trained(model=(routed, tokenizer))


@METHODS.register(rows=True)
def cat(run: "Run", profile: Profile, rows: "Dataset", out: Path, *adapters: Path) -> Trained:
    """One learnt weight per adapter and layer: CAT of LoRA Soups (arXiv:2410.13025).

    The adapters stay as they are. Weights start at 1 / adapters, the mean, and are learnt by the
    likelihood of the solutions of CAT_SHARE of the rows, with the steps of the profile's SFT.
    They are no part of PEFT's checkpoints, so a training that was stopped starts again.
    """
    check_mergeable(adapters)
    from trl import SFTConfig, SFTTrainer

    from hybridlib.methods.train import _config, _train

    model, tokenizer = models.load(profile, start=adapters[0], nf4=run.nf4 or profile.nf4)
    names = ["default"]
    for index, adapter in enumerate(adapters[1:], 1):
        names.append(str(index))
        model.load_adapter(str(adapter), names[-1])
    model.base_model.set_adapter(names)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    weights = _weighted(model, names)
    few = rows.shuffle(seed=run.seed).select(range(max(1, round(CAT_SHARE * len(rows)))))
    plain = replace(
        run, method="sft", learning_rate=run.learning_rate or CAT_RATE,
        options=(*run.options, "save_strategy=no"),
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model,
        args=_config(SFTConfig, plain, profile, out, max_length=None, completion_only_loss=True),
        train_dataset=few.select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
    )
    trained = _train(trainer, out)
    learnt = {layer: w.detach().tolist() for layer, w in weights.items()}
    facts = concatenate(
        adapters, out / "adapter", lambda module: learnt[interference.layer_of(module)]
    )
    return trained._replace(facts=facts | {"weights": learnt, "rows_for_weights": len(few)})


def _weighted(model: Any, names: list[str]) -> dict[str, Any]:
    """Layer -> its learnable weights (adapters,), which scale the adapters in every pass."""
    import torch
    from peft.tuners.lora import LoraLayer

    weights: dict[str, Any] = torch.nn.ParameterDict()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layer = interference.layer_of(name)
            if layer not in weights:
                weights[layer] = torch.full((len(names),), 1 / len(names), device=model.device)
            module.scaling = _Learnt(module.scaling, names, weights[layer])
    model.cat_weights = weights  # where the trainer finds what learns
    return weights


class _Learnt(dict):
    """The scaling of a LoRA layer's adapters, times weights that learn."""

    def __init__(self, scaling: dict[str, float], names: list[str], weights: Any):
        super().__init__(scaling)
        self.places, self.weights = {name: i for i, name in enumerate(names)}, weights

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name) * self.weights[self.places[name]]


# ---------------------------------------------------------------- of one


@METHODS.register(rows=True)
def stack(run: "Run", profile: Profile, rows: "Dataset", out: Path, start: Path) -> Trained:
    """GRPO of a fresh adapter on the base with the first adapter merged in.

    Differs from going on with the same adapter (`grpo` with a start) by the room that each stage
    has: its own rank. What is left behind is one adapter of both, side by side.
    Raises StudyError where that would not be the model that was trained: on a 4-bit base, whose
    rounding changes with what is merged in, and for adapters that are no dense delta.
    """
    check_mergeable([start])
    if run.nf4 or profile.nf4 or run.adapter == "dora":
        what = "DoRA" if run.adapter == "dora" else "a base in 4 bits"
        raise StudyError(f"a stack is no sum with {what}; go on with one adapter: --method grpo")
    merged = out / "base"
    model, tokenizer = models.load(profile, start=start, trainable=False)
    model.merge_and_unload().save_pretrained(merged)
    tokenizer.save_pretrained(merged)
    upper = replace(run, method="grpo", start="")
    trained = grpo(upper, replace(profile, model=str(merged)), rows, out / "upper")
    facts = concatenate([start, trained.adapter], out / "adapter", lambda _: (1, 1), on_top=True)
    shutil.rmtree(merged)
    return trained._replace(adapter=out / "adapter", facts=trained.facts | facts)


@METHODS.register(rows=False)
def isospectral(run: "Run", profile: Profile, out: Path, adapters: Sequence[Path]) -> Trained:
    """The adapted weights with the singular values of the base put back (ISO, arXiv:2607.19331)."""
    return _changed(profile, out, adapters, geometry.isospectral)


@METHODS.register(rows=False)
def rounded(run: "Run", profile: Profile, out: Path, adapters: Sequence[Path]) -> Trained:
    """The adapted weights as merging saves them: rounded to bfloat16."""
    return _changed(profile, out, adapters, geometry.rounded)


@METHODS.register(rows=False)
def unrounded(run: "Run", profile: Profile, out: Path, adapters: Sequence[Path]) -> Trained:
    """The adapter beside a base in bfloat16, not merged: the control of `rounded`."""
    return _changed(profile, out, adapters, geometry.unrounded)


def _changed(
    profile: Profile, out: Path, adapters: Sequence[Path], change: Callable[..., Any]
) -> Trained:
    base = model_folder(profile.model)
    if base is None:
        raise StudyError(f"{profile.model} is no folder; fetch the model and give --model FOLDER")
    return Trained(out / "adapter", facts=rewrite(adapters[0], change, out / "adapter", base))
