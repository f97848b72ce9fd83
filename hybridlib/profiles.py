"""Which setting do all runs of one build share? Model, data, sizes, and what TRL is told.

If two runs in one figure may differ in it, it is a field of `runs.Run`; if every run of a build
shares it, it stands here. `sft` and `grpo` go to TRL's configs verbatim and are never mirrored.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hybridlib import ROOT, StudyError
from hybridlib.registry import Registry

BACKENDS = ("hf", "unsloth")


@dataclass(frozen=True)
class Form:
    """How one kind of row is asked, so that a model can know the form it is graded by.

    `data.load` applies it to training and test rows alike.
    """

    kind: str  # of the rows: one of `grading.KINDS`
    system: str = ""  # the system message
    line: str = ""  # of instruction, behind the question
    examples: int = 0  # worked ones before it, from the training rows


@dataclass(frozen=True)
class Profile:
    """The setting of one build; `resolve` finds it by name and applies a custom model or dataset.

    Recorded with every result, so that fields keep their names.
    """

    name: str
    model: str  # folder (relative ones lie under ROOT) or hub id
    revision: str = "main"  # the resolved commit is recorded in each result
    parameters: int = 0  # of the model; only for the estimates of a dry run
    backend: str = "hf"  # what trains unless a run says else: "hf" or "unsloth"
    nf4: bool = False  # load the base in 4-bit NormalFloat (QLoRA)
    dtype: str = "float32"
    datasets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)  # what `evaluate` scores
    columns: dict[str, str] = field(default_factory=dict)  # of a custom dataset; see `data.load`
    ask: tuple[Form, ...] = ()  # of kinds that are not asked by the question alone
    max_completion_tokens: int = 512
    n_train: int = 0  # rows per dataset, 0 = all
    n_eval: int = 0  # test rows per dataset, 0 = all; a quarter of it of the other splits
    n_samples: int = 4  # answers per evaluated row, at temperature 1
    n_difficulty: int = 8  # answers per training row, for its pass rate
    n_batch: int = 256  # sequences that are sampled at once
    drift: bool = True  # measure each run's distance from the base
    checkpoints: tuple[float, ...] = ()  # shares of the steps after which accuracy is read
    n_checkpoint: int = 0  # the first so many rows per dataset and split are read there, 0 = all
    seeds: tuple[int, ...] = (0,)
    full: bool = False  # the large grids: published evidence, not computed while a reader waits
    threads: int = 1  # per worker process
    sft: dict[str, Any] = field(default_factory=dict)  # trl.SFTConfig
    grpo: dict[str, Any] = field(default_factory=dict)  # trl.GRPOConfig


PROFILES = Registry("profile")


def add(**fields: Any) -> None:
    """Add a profile with these fields to PROFILES."""
    PROFILES[fields["name"]] = Profile(**fields)


# ---------------------------------------------------------------- the bases of this project

TINY = dict(
    model="data/bases/small",
    datasets=("tiny_gsm8k", "tiny_math", "tiny_mbpp"),
    max_completion_tokens=96,
    n_batch=256,
)
TINY_SPLITS = ("test", "longer", "wording")
# Constant rates, so that a point of a learning curve is what a shorter run would have reached.
SFT = dict(
    max_steps=400, per_device_train_batch_size=32, learning_rate=2e-3,
    lr_scheduler_type="constant", save_strategy="no",
    train_sampling_strategy="group_by_length",
)  # fmt: skip
GRPO = dict(
    max_steps=100, per_device_train_batch_size=256, num_generations=8, learning_rate=1e-3,
    lr_scheduler_type="constant", loss_type="grpo", beta=0.0, save_strategy="no",
)  # fmt: skip
# Learning rates from a few trials on validation rows; those of the large grids from `tiny-sweep`.
add(
    name="tiny",
    **TINY,
    splits=TINY_SPLITS,
    n_train=256,
    n_eval=64,
    n_samples=3,
    n_difficulty=6,
    drift=False,
    seeds=(0, 1),
    sft=dict(SFT, max_steps=40),
    grpo=dict(GRPO, max_steps=60, per_device_train_batch_size=48),
)
CURVE = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
LARGE = dict(n_train=1024, n_eval=300, n_samples=8, checkpoints=CURVE, n_checkpoint=100)
add(
    name="tiny-sweep",
    **TINY,
    **LARGE | dict(n_samples=3),
    splits=("valid",),
    drift=False,
    seeds=(0, 1),
    sft=SFT,
    grpo=GRPO,
)
add(
    name="tiny-full",
    **TINY,
    **LARGE,
    splits=TINY_SPLITS,
    seeds=(0, 1, 2, 3, 4),
    full=True,
    sft=SFT,
    grpo=GRPO,
)

# ---------------------------------------------------------------- models from the hub

# The line of expressions is the one that Qwen2.5-Math's model card advises.
IN_WORDS = (
    Form("number", line="Please reason step by step, and end with a line '#### number'."),
    Form(
        "expression",
        line="Please reason step by step, and put your final answer within \\boxed{}.",
    ),
    Form("program", line="Write this Python function, and nothing but its code."),
)
QWEN = dict(
    ask=IN_WORDS,
    backend="unsloth",
    dtype="bfloat16",
    datasets=("gsm8k", "math", "mbpp"),
    max_completion_tokens=1024,
    n_eval=500,
    seeds=(0, 1, 2),
    threads=8,
    sft=dict(
        max_steps=500, per_device_train_batch_size=16, learning_rate=2e-4,
        lr_scheduler_type="linear", warmup_steps=10, bf16=True, save_steps=100, optim="adamw_8bit",
    ),
    grpo=dict(
        max_steps=200, per_device_train_batch_size=16, gradient_accumulation_steps=8,
        num_generations=8, learning_rate=5e-5, lr_scheduler_type="constant", bf16=True,
        beta=0.0, save_steps=50,
        use_vllm=True, vllm_mode="colocate", vllm_gpu_memory_utilization=0.5,
    ),
)  # fmt: skip
add(name="qwen-0.5b", model="Qwen/Qwen2.5-0.5B", parameters=494_032_768, **QWEN)
add(name="qwen-1.5b", model="Qwen/Qwen2.5-1.5B", parameters=1_543_714_304, nf4=True, **QWEN)
add(name="qwen-7b", model="Qwen/Qwen2.5-7B", parameters=7_615_616_512, nf4=True, **QWEN)


def model_folder(model: str) -> Path | None:
    """Return the folder of a model that lies on this machine; None for a hub id.

    Args:
        model: as in `Profile.model`: a folder, a relative one below ROOT or here, or a hub id.
    """
    for folder in (Path(model).expanduser(), ROOT / model):
        if folder.is_dir():
            return folder.resolve()
    return None


def resolve(
    name: str, model: str = "", dataset: str = "", columns: dict[str, str] | None = None
) -> Profile:
    """Return the profile of this name, with a custom model and dataset if given.

    Args:
        model: folder or hub id.
        dataset: a name, folder, file or hub id, as `data.load` takes it; not checked here.
        columns: of a custom dataset, which column is the question, the answer, the completion, the
            level.

    Returns:
        The profile; with a custom model or dataset its name tells the difference, so that its
        results have a folder of their own.

    Raises:
        StudyError: an unknown profile (the valid names are listed), a model folder that does not
            exist, or columns without a dataset.
    """
    if columns and not dataset:
        raise StudyError("--columns goes with --dataset")
    resolved: Profile = PROFILES[name]
    if model:
        folder = model_folder(model)
        if folder is None and (Path(model).is_absolute() or model.startswith(".")):
            raise StudyError(f"model folder {model} does not exist; give a folder or a hub id")
        resolved = replace(resolved, model=str(folder or model), parameters=0, revision="main")
    if dataset:
        resolved = replace(resolved, datasets=(dataset,), splits=("test",), columns=columns or {})
    if model or dataset:
        difference = (resolved.model, resolved.datasets, columns)
        digest = hashlib.sha256(repr(difference).encode()).hexdigest()[:6]
        parts = [Path(part).name for part in (model, dataset) if part]
        resolved = replace(resolved, name="-".join([name, *parts, digest]))
    return resolved
