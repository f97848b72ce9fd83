"""Which setting do all runs of one build share? Model, data, sizes, and what TRL is told.

If two runs in one figure may differ in it, it is a field of `study.Run`; if every run of a build
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
class Profile:
    """The setting of one build; `resolve` finds it by name and applies a model or data of yours."""

    name: str
    model: str  # folder (relative ones lie under ROOT) or hub id
    revision: str = "main"  # the resolved commit is recorded in each result
    parameters: int = 0  # of the model; only for the estimates of a dry run
    backend: str = "hf"  # what trains unless a run says else: "hf" or "unsloth"
    nf4: bool = False  # load the base in 4-bit NormalFloat (QLoRA)
    dtype: str = "float32"
    datasets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)  # what `evaluate` scores
    columns: dict[str, str] = field(
        default_factory=dict
    )  # question, answer, ... of your own dataset
    max_completion_tokens: int = 512
    n_train: int = 0  # rows per dataset, 0 = all
    n_eval: int = 0  # test rows per dataset, 0 = all; a quarter of it of the other splits
    n_samples: int = 4  # answers per evaluated row, at temperature 1
    n_difficulty: int = 8  # answers per training row, for its pass rate
    n_batch: int = 256  # sequences that are sampled at once
    drift: bool = True  # measure each run's distance from the base
    seeds: tuple[int, ...] = (0,)
    full: bool = False  # the large grids: published evidence, not computed while a reader waits
    threads: int = 1  # per worker process
    sft: dict[str, Any] = field(default_factory=dict)  # trl.SFTConfig
    grpo: dict[str, Any] = field(default_factory=dict)  # trl.GRPOConfig


PROFILES = Registry("profile")


def profile(**fields: Any) -> None:
    PROFILES[fields["name"]] = Profile(**fields)


TINY = dict(
    model="data/tiny_base",
    datasets=("tiny_gsm8k", "tiny_math", "tiny_mbpp"),
    splits=("test", "longer", "wording"),
    max_completion_tokens=96,
    n_batch=128,
)
QWEN = dict(
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

# Learning rates from a few trials on validation rows; those of `tiny-full` come from `tiny-sweep`.
profile(
    name="tiny",
    **TINY,
    n_train=256,
    n_eval=64,
    n_samples=3,
    n_difficulty=6,
    drift=False,
    seeds=(0, 1),
    sft=dict(
        max_steps=40, per_device_train_batch_size=32, learning_rate=4e-3,
        lr_scheduler_type="linear", warmup_steps=5, save_strategy="no",
        train_sampling_strategy="group_by_length",
    ),
    grpo=dict(
        max_steps=60, per_device_train_batch_size=48, num_generations=8, learning_rate=2.5e-3,
        lr_scheduler_type="linear", loss_type="grpo", beta=0.0, save_strategy="no",
    ),
)  # fmt: skip
# SFT and GRPO put equally many sequences through the optimizer: 120 x 32 = 80 x 48.
FULL = dict(
    TINY,
    n_train=512,
    n_samples=3,
    sft=dict(
        max_steps=120, per_device_train_batch_size=32, learning_rate=4e-3,
        lr_scheduler_type="linear", warmup_steps=5, save_strategy="no",
        train_sampling_strategy="group_by_length",
    ),
    grpo=dict(
        max_steps=80, per_device_train_batch_size=48, num_generations=8, learning_rate=3e-3,
        lr_scheduler_type="linear", loss_type="grpo", beta=0.0, save_strategy="no",
    ),
)  # fmt: skip
profile(name="tiny-sweep", **FULL | dict(splits=("valid",), n_eval=100, seeds=(0, 1), drift=False))
# Rates of that sweep, in which every run but the base names its own: the best when these grids
# began, not told apart from the best when five seeds and newer code repeated it.
profile(
    name="tiny-full",
    **FULL
    | dict(
        n_train=1024,
        n_eval=100,
        seeds=(0, 1, 2, 3, 4),
        full=True,
        sft=FULL["sft"] | dict(learning_rate=2e-3),
        grpo=FULL["grpo"] | dict(learning_rate=1.5e-3),
    ),
)
profile(name="qwen-0.5b", model="Qwen/Qwen2.5-0.5B", parameters=494_032_768, **QWEN)
profile(name="qwen-1.5b", model="Qwen/Qwen2.5-1.5B", parameters=1_543_714_304, nf4=True, **QWEN)
profile(name="qwen-7b", model="Qwen/Qwen2.5-7B", parameters=7_615_616_512, nf4=True, **QWEN)


def local(model: str) -> Path | None:
    """The folder a model name means, or None when it is a hub id."""
    for folder in (Path(model).expanduser(), ROOT / model):
        if folder.is_dir():
            return folder.resolve()
    return None


def resolve(
    name: str, model: str = "", dataset: str = "", columns: dict[str, str] | None = None
) -> Profile:
    """The profile of this name, with your own model and dataset if given.

    Args:
        model: folder or hub id; dataset: folder, file, hub id or a name known to `data`.
        columns: which column of `dataset` is the question, the answer, the completion, the level.
    Returns:
        A profile whose name tells the difference, so that its results have a folder of their own.
    Raises:
        StudyError: unknown profile (the valid names are listed).
    """
    found: Profile = PROFILES[name]
    if model:
        if local(model) is None and (Path(model).is_absolute() or model.startswith(".")):
            raise StudyError(f"model folder {model} does not exist; give a folder or a hub id")
        found = replace(found, model=str(local(model) or model), parameters=0, revision="main")
    if dataset:
        from hybridlib.data import DATASETS

        if not (dataset in DATASETS or "/" in dataset or Path(dataset).exists()):
            raise StudyError(
                f"unknown dataset {dataset!r}; valid: {', '.join(sorted(DATASETS))}, or a folder, "
                "a file or a hub id with --columns"
            )
        found = replace(found, datasets=(dataset,), splits=("test",), columns=columns or {})
    elif columns:
        raise StudyError("--columns goes with --dataset")
    if model or dataset:
        parts = [Path(p).name for p in (model, dataset) if p]
        digest = hashlib.sha256(repr((found.model, found.datasets, columns)).encode()).hexdigest()[
            :6
        ]
        found = replace(found, name="-".join([name, *parts, digest]))
    return found
