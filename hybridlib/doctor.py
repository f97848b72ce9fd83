"""What will run on this machine, and what will not? One decorated function a check."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from hybridlib import ROOT, StudyError, hub
from hybridlib.profiles import PROFILES, model_folder
from hybridlib.registry import Registry
from hybridlib.sandbox import judge

CHECKS = Registry("check")
"""Name -> `fn() -> str`, what was found; StudyError says what is missing and what mends it."""
GIB = 2**30
FREE_GIB = 2  # that adapters, checkpoints and the book of the tiny profiles fit into


def examine() -> Iterator[str]:
    """Yield one line for each check; whatever a check raises is a finding, too."""
    for name, check in CHECKS.items():
        try:
            yield f"ok       {name:<14} {check()}"
        except Exception as error:
            reason = str(error).strip() or type(error).__name__
            yield f"missing  {name:<14} {reason.splitlines()[0]}"


@CHECKS.register
def python() -> str:
    """The interpreter."""
    return f"{sys.version.split()[0]}, {sys.executable}"


@CHECKS.register
def cores() -> str:
    """Cores of the machine, as sweeps count them."""
    return f"{os.cpu_count()}"


@CHECKS.register
def memory() -> str:
    """Memory of the machine."""
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB"


@CHECKS.register
def disk() -> str:
    """Room for adapters and checkpoints."""
    free = shutil.disk_usage(ROOT).free / GIB
    if free < FREE_GIB:
        raise StudyError(f"{free:.1f} GiB free at {ROOT}; make room: rm -r {ROOT / 'runs'}")
    return f"{free:.1f} GiB free"


@CHECKS.register
def gpu() -> str:
    """GPUs that torch can use."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not names:
        raise StudyError("none: tiny profiles run, Qwen profiles want one (nvidia-smi lists them)")
    return ", ".join(names)


@CHECKS.register
def sandbox() -> str:
    """Walls round the programs that a model writes."""
    return ", ".join(judge.protections())


@CHECKS.register
def unsloth() -> str:
    """Training of the Qwen profiles on a GPU."""
    return _installed("unsloth", "pip install --no-deps -r requirements-unsloth.txt")


@CHECKS.register
def vllm() -> str:
    """Sampling of the Qwen profiles on a GPU."""
    return _installed("vllm", "the study's sampler is used instead; pip install -e '.[gpu]'")


@CHECKS.register
def bitsandbytes() -> str:
    """4-bit bases and 8-bit optimizers."""
    return _installed("bitsandbytes", "runs with --nf4 need it; pip install -r requirements.txt")


@CHECKS.register
def base() -> str:
    """The tiny base."""
    model = PROFILES["tiny"].model
    if not model_folder(model):
        raise StudyError(f"no {model}; python -m hybridlib base makes it")
    return model


@CHECKS.register(name="real data")
def real_data() -> str:
    """The published sets: the folder HYBRIDLIB_HUB, or the hub."""
    if folder := os.environ.get("HYBRIDLIB_HUB"):
        if not Path(folder).is_dir():
            raise StudyError(f"HYBRIDLIB_HUB={folder} is no folder; correct or unset it")
        return folder
    if not hub.has("dataset", "openai/gsm8k"):
        raise StudyError("the hub is out of reach; export HYBRIDLIB_HUB=FOLDER in its layout")
    return "the hub"


def _installed(package: str, otherwise: str) -> str:
    """Return that a package is there, without importing it; StudyError says what else."""
    if importlib.util.find_spec(package) is None:
        raise StudyError(f"not installed; {otherwise}")
    from importlib.metadata import version

    return version(package)
