"""Which weights learn? LoRA and its relatives, one function each.

An entry maps a rank to a PEFT config. The modules of that are ALL_LINEAR, ATTENTION or MLP, whose
names `attach` finds by type in each model, or names of its own. It states three facts, which a test
holds it to:
`mutates_base`: making the adapter changes weights of the base (as PiSSA does), so that the model
    without it is another one than the base;
`mergeable`: what it adds to each weight is the product of LoRA factors and nothing else, so that
    `hybridlib.merging` and stacks of adapters may read it as a dense delta;
`needs_data`: its initialisation reads training rows (as EVA and CorDA do).
"""

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError
from hybridlib.registry import Registry

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig, PeftModel
    from torch.nn import Module

ADAPTERS = Registry("adapter", "mutates_base", "mergeable", "needs_data")
ALL_LINEAR, ATTENTION, MLP = "all-linear", "attention-linear", "mlp-linear"


def _lora(rank: int, **options: Any) -> "LoraConfig":
    from peft import LoraConfig

    # alpha fixed at twice the rank: the scale of the update does not depend on the rank.
    defaults: dict[str, Any] = dict(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
    )
    return LoraConfig(**(defaults | options))


@ADAPTERS.register(mutates_base=False, mergeable=True, needs_data=False)
def lora(rank: int) -> "LoraConfig":
    """Low-rank update of every linear layer (Hu et al. 2021, arXiv:2106.09685)."""
    return _lora(rank, target_modules=ALL_LINEAR)


@ADAPTERS.register(mutates_base=False, mergeable=True, needs_data=False)
def attention(rank: int) -> "LoraConfig":
    """LoRA on the linear layers of attention only."""
    return _lora(rank, target_modules=ATTENTION)


@ADAPTERS.register(mutates_base=False, mergeable=True, needs_data=False)
def mlp(rank: int) -> "LoraConfig":
    """LoRA on the linear layers outside attention only: those of the feed-forward parts."""
    return _lora(rank, target_modules=MLP)


@ADAPTERS.register(mutates_base=False, mergeable=True, needs_data=False)
def rslora(rank: int) -> "LoraConfig":
    """LoRA scaled by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)."""
    return _lora(rank, target_modules=ALL_LINEAR, use_rslora=True)


@ADAPTERS.register(mutates_base=False, mergeable=False, needs_data=False)
def dora(rank: int) -> "LoraConfig":
    """Weight-decomposed LoRA: direction and magnitude apart (Liu et al. 2024, arXiv:2402.09353)."""
    return _lora(rank, target_modules=ALL_LINEAR, use_dora=True)


# ---------------------------------------------------------------- what the facts decide


def trainable(name: str, rank: int) -> "PeftConfig":
    """Return the config of a fresh adapter that the study can train.

    Raises:
        StudyError: its facts say that it cannot, and why.
    """
    entry = ADAPTERS[name]
    if entry.needs_data:
        raise StudyError(f"adapter {name!r} is initialised from data, which no run hands to it")
    if entry.mutates_base:
        raise StudyError(
            f"adapter {name!r} changes the base weights: the model without it would not be the "
            "base that drift, anchored losses and the reward 'implicit' compare with"
        )
    return entry(rank)


def entry_name(settings: Mapping[str, Any]) -> str:
    """Return the name of the entry that makes such an adapter, "" where none of them does.

    Entries that differ in nothing but which linear layers they mean make the same settings, on one
    model or another; the first of them is returned.

    Args:
        settings: What the adapter_config.json of a saved adapter holds.
    """
    for name, entry in ADAPTERS.items():
        made = _comparable(entry(settings.get("r", 1)).to_dict())
        stored = _comparable(settings)
        if made["target_modules"] in (ALL_LINEAR, ATTENTION, MLP):
            for of_the_model in ("target_modules", "fan_in_fan_out"):
                made[of_the_model] = stored.get(of_the_model)
        if made == stored:
            return name
    return ""


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back, without what PEFT fills in while it saves."""
    filled_in = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")
    stated = {name: value for name, value in settings.items() if name not in filled_in}
    if not isinstance(stated.get("target_modules"), str):
        stated["target_modules"] = sorted(stated.get("target_modules") or ())
    return json.loads(json.dumps(stated, default=sorted))  # PEFT keeps some settings as sets


# ---------------------------------------------------------------- which modules it means


def attach(
    config: "PeftConfig", model: Any, make: "Callable[[Any, PeftConfig], PeftModel] | None" = None
) -> "PeftModel":
    """Return a model with the adapter of a config on all the modules that it means.

    Where the config says ALL_LINEAR, ATTENTION or MLP, these are linear layers (`linear_layers`),
    named in the adapter's settings by the shortest endings that fit no other module, such as
    q_proj. A change of these names changes no other setting.

    Args:
        make: (model, config) -> the model with an adapter; None: PEFT's `get_peft_model`.
    Raises:
        StudyError: the model has no such layers, or some that would be left out.
    """
    import peft
    from transformers.pytorch_utils import Conv1D

    make, kind = make or peft.get_peft_model, getattr(config, "target_modules", None)
    if kind not in (ALL_LINEAR, ATTENTION, MLP):
        return make(model, config)
    modules, layers = dict(model.named_modules()), linear_layers(model, kind)
    config = copy.copy(config)
    config.target_modules = _shortest_endings(layers, [name for name in modules if name])
    if all(isinstance(modules[name], Conv1D) for name in layers):
        config.fan_in_fan_out = True  # GPT-2's layers hold their weights as (in, out)
    try:
        adapted = make(model, config)
    except ValueError as error:
        raise StudyError(f"no adapter fits model type {model.config.model_type}: {error}") from None
    if missing := sorted({*layers} - {*_adapted(adapted)}):
        raise StudyError(
            f"PEFT leaves {', '.join(_patterns(missing))} of model type {model.config.model_type} "
            "without an adapter; --adapter attention may fit, or an entry with names of its own"
        )
    return adapted


def linear_layers(model: Any, kind: str = ALL_LINEAR) -> list[str]:
    """Return the names of the linear layers between embedding and head, in the model's order.

    They are found by type: torch's Linear, whose 4-bit and 8-bit forms derive from it, and the
    Conv1D of GPT-2. Of a model that also sees or hears, those of its language model.

    Args:
        model: one without adapters.
        kind: ALL_LINEAR, or one part: ATTENTION or MLP, which is all the rest.
    Raises:
        StudyError: there are none, or some are no layers but stand in one tensor, as experts do.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    modules, model_type = dict(model.named_modules()), model.config.model_type
    head, text = model.get_output_embeddings(), {*model.get_decoder().modules()}
    layers = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and module in text
    ]
    if kind != ALL_LINEAR:
        layers = [name for name in layers if _in_attention(name, modules) == (kind == ATTENTION)]
    if kind != ATTENTION and (stacked := _stacked_weights(model)):
        raise StudyError(
            f"model type {model_type} holds linear layers as one tensor each, which no adapter "
            f"here reaches ({', '.join(stacked)}); --adapter attention leaves them out and says so"
        )
    if not layers:
        raise StudyError(f"model type {model_type} has no layers that are {kind}")
    return layers


def _in_attention(layer: str, modules: "Mapping[str, Module]") -> bool:
    """Return whether a module above this one is called attention, by its class or its name."""
    path = layer.split(".")[:-1]
    above = [".".join(path[: i + 1]) for i in range(len(path))]
    called = [f"{name} {type(modules[name]).__name__}" for name in above]
    return any(re.search("attn|attention", names.rpartition(".")[2], re.I) for names in called)


def _stacked_weights(model: Any) -> list[str]:
    """Return the patterns of matrices that stand side by side in one tensor, convolutions apart."""
    from torch.nn.modules.conv import _ConvNd

    return _patterns(
        f"{name}.{parameter}"
        for name, module in model.get_decoder().named_modules()
        if not isinstance(module, _ConvNd)
        for parameter, weight in module.named_parameters(recurse=False)
        if weight.ndim > 2
    )


def _shortest_endings(wanted: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return endings of dotted names that match all those wanted and no other name, sorted.

    >>> _shortest_endings(["h.0.attn.c", "h.0.attn.q"], ["h.0.attn.c", "h.0.attn.q", "h.0.mlp.c"])
    ['attn.c', 'q']
    """
    left, found, length = {*wanted}, set(), 1
    others = {*names} - left
    while left:
        taken = {_ending(name, length) for name in others}
        fitting = {name for name in left if _ending(name, length) not in taken}
        found |= {_ending(name, length) for name in fitting}
        left, length = left - fitting, length + 1
    return sorted(found)


def _ending(name: str, length: int) -> str:
    return ".".join(name.split(".")[-length:])


def _adapted(model: "PeftModel") -> list[str]:
    """Return the names of the modules of the base that have an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = model.get_base_model().named_modules()
    return [name for name, module in modules if isinstance(module, BaseTunerLayer)]


def _patterns(names: Iterable[str]) -> list[str]:
    """Return names with * for their numbers, each once, in order."""
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in names))


def learning(model: Any) -> dict[str, Any]:
    """Return what of a model with an adapter learns, and what is left as it is.

    Returns:
        modules: patterns of the modules whose weights an adapter changes; number: how many they
        are; share: trained parameters to those of the whole model; left_out: patterns of the
        matrices that nothing changes.
    """
    adapted, left_out = _adapted(model), []
    inside = tuple(f"{name}." for name in adapted)
    for name, weight in model.get_base_model().named_parameters():
        if weight.ndim > 1 and not name.startswith(inside):
            left_out.append(name.removesuffix(".weight"))
    trained, everything = model.get_nb_trainable_parameters()
    return {
        "modules": _patterns(adapted),
        "number": len(adapted),
        "share": float(f"{trained / everything:.4g}"),
        "left_out": _patterns(left_out),
    }
