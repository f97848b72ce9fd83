"""Which weights learn? LoRA and its relatives, one function each.

An entry maps a rank to a PEFT config and states three facts, which a test holds it to:
`mutates_base`: making the adapter changes weights of the base (as PiSSA does), so that the model
    without it is another one than the base;
`mergeable`: what it adds to each weight is the product of LoRA factors and nothing else, so that
    `hybridlib.merging` and stacks of adapters may read it as a dense delta;
`needs_data`: its initialisation reads training rows (as EVA and CorDA do).
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError
from hybridlib.registry import Registry

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig

ADAPTERS = Registry("adapter", "mutates_base", "mergeable", "needs_data")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


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
    return _lora(rank, target_modules=ATTENTION + MLP)


@ADAPTERS.register(mutates_base=False, mergeable=True, needs_data=False)
def attention(rank: int) -> "LoraConfig":
    """LoRA on the attention projections only."""
    return _lora(rank, target_modules=ATTENTION)


@ADAPTERS.register(mutates_base=False, mergeable=True, needs_data=False)
def mlp(rank: int) -> "LoraConfig":
    """LoRA on the feed-forward layers only."""
    return _lora(rank, target_modules=MLP)


@ADAPTERS.register(mutates_base=False, mergeable=True, needs_data=False)
def rslora(rank: int) -> "LoraConfig":
    """LoRA scaled by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)."""
    return _lora(rank, target_modules=ATTENTION + MLP, use_rslora=True)


@ADAPTERS.register(mutates_base=False, mergeable=False, needs_data=False)
def dora(rank: int) -> "LoraConfig":
    """Weight-decomposed LoRA: direction and magnitude apart (Liu et al. 2024, arXiv:2402.09353)."""
    return _lora(rank, target_modules=ATTENTION + MLP, use_dora=True)


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

    Args:
        settings: What the adapter_config.json of a saved adapter holds.
    """
    for name, entry in ADAPTERS.items():
        if _comparable(entry(settings.get("r", 1)).to_dict()) == _comparable(settings):
            return name
    return ""


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back, without what PEFT fills in while it saves."""
    filled_in = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")
    stated = {name: value for name, value in settings.items() if name not in filled_in}
    stated["target_modules"] = sorted(stated.get("target_modules") or ())
    return json.loads(json.dumps(stated, default=sorted))  # PEFT keeps some settings as sets
