"""What is trained, and by which library? The base with its adapter; the one switch to Unsloth."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, StudyError
from hybridlib.adapters import ADAPTERS
from hybridlib.profiles import BACKENDS, Profile, model_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def use(backend: str) -> None:
    """Import the training libraries of a backend; choose once per process.

    Unsloth must come before transformers, trl and peft, and replaces TRL's trainers for the whole
    process, so that a process which has imported them already refuses it.
    """
    import sys

    if backend not in BACKENDS:
        raise StudyError(f"unknown backend {backend!r}; valid: {', '.join(BACKENDS)}")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # for rollout_func
    if backend == "unsloth" and "unsloth" not in sys.modules:
        if "trl" in sys.modules:
            raise StudyError("this process has imported trl already; Unsloth needs one of its own")
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(ROOT / "runs" / "unsloth_cache"))
        try:
            import unsloth  # noqa: F401
        except ImportError:
            raise StudyError(
                "Unsloth is missing; pip install --no-deps -r requirements-unsloth.txt"
            ) from None
    if backend == "hf" and "unsloth" in sys.modules:
        raise StudyError(
            "Unsloth has patched this process; plain Hugging Face needs one of its own"
        )
    import peft  # noqa: F401
    import trl  # noqa: F401
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def revision(profile: Profile) -> str:
    """The exact model: a digest of the folder's weights, or the hub commit that was resolved."""
    folder = model_folder(profile.model)
    if folder:
        import hashlib

        digest = hashlib.sha256()
        for file in sorted(folder.glob("*.safetensors")):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]
    from transformers import AutoConfig

    return (
        getattr(
            AutoConfig.from_pretrained(profile.model, revision=profile.revision), "_commit_hash", ""
        )
        or ""
    )


def tokenizer(name: str, revision: str = "main") -> "PreTrainedTokenizerBase":
    """The tokenizer exactly as its tokenizer.json says.

    AutoTokenizer would give a Qwen2 model the pre-tokenizer of the hub's Qwen2, whatever the
    folder's own is; line breaks and indents would come out as tokens that the model never saw.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(name, revision=revision)


def load(
    profile: Profile,
    adapter: str = "",
    rank: int = 8,
    start: Path | None = None,
    nf4: bool = False,
    backend: str = "hf",
    trainable: bool = True,
) -> "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]":
    """The base of a profile, with a fresh adapter (`adapter`), a saved one (`start`), or none.

    Args:
        nf4: 4-bit NormalFloat base through bitsandbytes (QLoRA, Dettmers et al. 2023).
        backend: "hf" or "unsloth"; what really trained is recorded with the result.
    Raises:
        StudyError: neither a folder nor a reachable hub id.
    """
    use(backend)
    import torch

    name = str(model_folder(profile.model) or profile.model)
    dtype = getattr(torch, profile.dtype)
    try:
        if backend == "unsloth":
            model = _unsloth(name, profile, dtype, nf4, adapter, rank, start)
        else:
            model = _plain(name, profile, dtype, nf4)
        words = tokenizer(name, profile.revision)
    except OSError as error:
        raise StudyError(
            f"cannot load model {profile.model!r} ({str(error).splitlines()[0]}); "
            "give --model FOLDER, or use --profile tiny"
        ) from None
    # bitsandbytes on CPUs with AVX512-BF16 repacks 4-bit weights in place at the first evaluation,
    # after which every backward pass is wrong, without an error. Keep the layout that trains.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if backend == "hf" and start:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, start, is_trainable=trainable)
    elif backend == "hf" and adapter:
        from peft import get_peft_model

        model = get_peft_model(model, ADAPTERS[adapter](rank))
    return model, words


def _plain(name: str, profile: Profile, dtype: Any, nf4: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": dtype, "revision": profile.revision}
    if nf4:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    return AutoModelForCausalLM.from_pretrained(name, **options)


def _unsloth(
    name: str, profile: Profile, dtype: Any, nf4: bool, adapter: str, rank: int, start: Path | None
) -> Any:
    import torch
    from unsloth import FastLanguageModel

    # A saved adapter names its base; Unsloth loads both from the adapter's folder.
    model, _ = FastLanguageModel.from_pretrained(
        str(start) if start else name, max_seq_length=2048, dtype=dtype,
        load_in_4bit=nf4, load_in_16bit=not nf4,
        fast_inference=torch.cuda.is_available() and bool(profile.grpo.get("use_vllm")),
    )  # fmt: skip
    if adapter and not start:
        config = ADAPTERS[adapter](rank)
        model = FastLanguageModel.get_peft_model(
            model, r=config.r, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout,
            bias=config.bias, target_modules=sorted(config.target_modules),
            use_rslora=config.use_rslora, use_dora=config.use_dora,
            use_gradient_checkpointing="unsloth" if torch.cuda.is_available() else False,
        )  # fmt: skip
    return model
