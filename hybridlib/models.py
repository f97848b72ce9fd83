"""What is trained, and by which library? The base with its adapter; the one switch to Unsloth."""

import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, StudyError, adapters
from hybridlib.engine import ends
from hybridlib.profiles import BACKENDS, Profile, model_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNSLOTH_MAX_TOKENS = 2048  # of a row; longer ones are cut by Unsloth
MISSING_NAMED = 3  # how many missing weights an error lists


def import_backend(backend: str) -> None:
    """Import the training libraries of a backend and silence them; one backend per process.

    Unsloth must come before transformers, trl and peft, and replaces TRL's trainers for the whole
    process. Sets environment variables of these libraries that are not set.

    Raises:
        StudyError: An unknown or missing backend, or this process has imported the other one.
    """
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
    """Return the exact model: a digest of the folder's weights, or the hub commit it resolves to.

    Reads all weights of a folder; asks the hub for a hub id. "" where the hub names no commit.
    """
    folder = model_folder(profile.model)
    if folder:
        import hashlib

        digest = hashlib.sha256()
        for file in sorted(folder.glob("*.safetensors")):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(profile.model, revision=profile.revision)
    return getattr(config, "_commit_hash", "") or ""


def load_tokenizer(name: str, revision: str = "main") -> "PreTrainedTokenizerBase":
    """Load the tokenizer exactly as its tokenizer.json says.

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
    """Load the base of a profile and its tokenizer, with an adapter or without.

    Args:
        adapter: Name of an entry of ADAPTERS, made fresh; "" = none.
        start: Folder of a saved adapter, in place of a fresh one.
        nf4: 4-bit NormalFloat base through bitsandbytes (QLoRA, Dettmers et al. 2023).
        backend: "hf" or "unsloth"; what really trained is recorded with the result.
        trainable: Whether a saved adapter learns on.
    Raises:
        StudyError: The model is neither a folder nor a reachable hub id, no end of an answer is
            known, or model or backend do not fit the adapter.
    """
    import_backend(backend)
    import torch

    fresh = adapters.trainable(adapter, rank) if adapter and not start else None
    name = str(model_folder(profile.model) or profile.model)
    dtype = getattr(torch, profile.dtype)
    try:
        if backend == "unsloth":
            model = _load_unsloth(str(start) if start else name, name, profile, dtype, nf4)
        else:
            model = _load_plain(name, profile, dtype, nf4)
        tokenizer = load_tokenizer(name, profile.revision)
    except OSError as error:
        raise StudyError(
            f"cannot load model {profile.model!r} ({str(error).splitlines()[0]}); "
            "give --model FOLDER, or use --profile tiny"
        ) from None
    ends.declare(model, tokenizer)
    if backend == "unsloth" and fresh:
        model = adapters.attach(fresh, model, partial(_add_unsloth_adapter, name=adapter))
    # bitsandbytes on CPUs with AVX512-BF16 repacks 4-bit weights in place at the first evaluation,
    # after which every backward pass is wrong, without an error. Keep the layout that trains.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if backend == "hf" and start:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, start, is_trainable=trainable)
    elif backend == "hf" and fresh:
        model = adapters.attach(fresh, model)
    return model, tokenizer


def outline(
    folder: Path, adapter: str = "", rank: int = 1
) -> "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]":
    """Return what `load` would, but without weights: it takes a second and no memory.

    Args:
        folder: of the model.
        adapter, rank: of a fresh adapter; "" = none.
    Raises:
        StudyError: the folder holds no model that continues text, or one of a type that
            transformers does not know; no end of an answer is known, or no adapter fits.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        tokenizer = load_tokenizer(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            f"{folder} holds no causal language model: {str(error).strip().splitlines()[0]}"
        ) from None
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    ends.declare(model, tokenizer)
    if adapter:
        with torch.device("meta"):
            model = adapters.attach(adapters.trainable(adapter, rank), model)
    return model, tokenizer


def check(profile: Profile, names: Iterable[str]) -> None:
    """Raise StudyError where a model that lies on this machine cannot be trained.

    Reads its settings and its tokenizer, no weights.

    Args:
        names: of the adapters that it will be trained with.
    """
    if folder := model_folder(profile.model):
        for name in [*names] or [""]:
            outline(folder, name)


def _load_plain(name: str, profile: Profile, dtype: Any, nf4: bool) -> Any:
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
    model, found = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    if missing := sorted(found["missing_keys"]):  # transformers would leave them at random
        raise StudyError(
            f"the weights of model {name} lack {', '.join(missing[:MISSING_NAMED])}"
            f"{' ...' if len(missing) > MISSING_NAMED else ''}; fetch or save them again"
        )
    return model


def _load_unsloth(name: str, base: str, profile: Profile, dtype: Any, nf4: bool) -> Any:
    """Load a base, or a saved adapter with its base, as the model that it is.

    Beyond the positions of a base, Unsloth stretches them (RoPE scaling): that is another model.

    Args:
        name: Folder or hub id of the base, or folder of the adapter.
        base: Folder or hub id of the base.
    Raises:
        StudyError: Unsloth has stretched the positions all the same.
    """
    import torch
    from transformers import AutoConfig
    from unsloth import FastLanguageModel

    config = AutoConfig.from_pretrained(base, revision=profile.revision).get_text_config()
    positions = config.max_position_embeddings
    model, _ = FastLanguageModel.from_pretrained(
        name,
        max_seq_length=min(UNSLOTH_MAX_TOKENS, positions),
        dtype=dtype,
        load_in_4bit=nf4,
        load_in_16bit=not nf4,
        fast_inference=torch.cuda.is_available() and bool(profile.grpo.get("use_vllm")),
    )
    stretched = model.config.get_text_config().max_position_embeddings
    if stretched != positions:
        raise StudyError(
            f"Unsloth stretches the base's {positions} positions to {stretched}, which makes it "
            "another model; use --backend hf"
        )
    return model


def _add_unsloth_adapter(model: Any, config: Any, name: str) -> Any:
    import torch
    from unsloth import FastLanguageModel

    parameters = inspect.signature(FastLanguageModel.get_peft_model).parameters
    return FastLanguageModel.get_peft_model(
        model,
        **unsloth_options(name, config, parameters),
        use_gradient_checkpointing="unsloth" if torch.cuda.is_available() else False,
    )


def unsloth_options(
    adapter: str, config: Any, parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    """Return the keyword arguments with which Unsloth makes the adapter of a PEFT config.

    Args:
        adapter: Its name, for messages.
        parameters: Those of Unsloth's `get_peft_model`. One of the kind **kwargs takes every
            field, since Unsloth hands these on to `LoraConfig`.
    Raises:
        StudyError: Names the fields that differ from PEFT's defaults and that Unsloth does not
            take; or the config is none of LoRA.
    """
    from peft import LoraConfig

    if type(config) is not LoraConfig:
        kind = type(config).__name__
        raise StudyError(f"Unsloth trains LoRA alone, and adapter {adapter!r} is a {kind}")
    default = LoraConfig(task_type="CAUSAL_LM")  # Unsloth sets the task itself
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    options, refused = {}, []
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        value = sorted(value) if isinstance(value, set) else value
        if name in parameters:
            if value != parameters[name].default:
                options[name] = value
        elif value == getattr(default, name):
            continue
        elif takes_any and name != "task_type":
            options[name] = value
        else:
            refused.append(name)
    if refused:
        raise StudyError(f"Unsloth does not take {', '.join(refused)} of adapter {adapter!r}")
    return options
