"""Which weights learn? LoRA and its relatives, one function each."""

from typing import TYPE_CHECKING, Any

from hybridlib.registry import Registry

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTERS = Registry("adapter")  # name -> (rank) -> PEFT config
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def _lora(rank: int, **options: Any) -> "LoraConfig":
    from peft import LoraConfig

    # alpha fixed at twice the rank: the scale of the update does not depend on the rank.
    defaults = dict(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
    )
    return LoraConfig(**(defaults | options))


@ADAPTERS.register
def lora(rank: int) -> "LoraConfig":
    """Low-rank update of every linear layer (Hu et al. 2021, arXiv:2106.09685)."""
    return _lora(rank, target_modules=ATTENTION + MLP)


@ADAPTERS.register
def attention(rank: int) -> "LoraConfig":
    """LoRA on the attention projections only."""
    return _lora(rank, target_modules=ATTENTION)


@ADAPTERS.register
def mlp(rank: int) -> "LoraConfig":
    """LoRA on the feed-forward layers only."""
    return _lora(rank, target_modules=MLP)


@ADAPTERS.register
def rslora(rank: int) -> "LoraConfig":
    """LoRA scaled by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)."""
    return _lora(rank, target_modules=ATTENTION + MLP, use_rslora=True)


@ADAPTERS.register
def dora(rank: int) -> "LoraConfig":
    """Weight-decomposed LoRA: direction and magnitude apart (Liu et al. 2024, arXiv:2402.09353)."""
    return _lora(rank, target_modules=ATTENTION + MLP, use_dora=True)
