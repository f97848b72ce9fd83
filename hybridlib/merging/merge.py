"""How do several LoRA adapters become one? By merging their dense deltas, one module at a time.

PEFT's `linear`, `ties`, `dare_*` and `magnitude_prune` treat the factors A and B one by one, which
adds cross terms B1 A2 that no adapter ever had: two random rank-8 adapters come out wrong by about
100 %. Here each module's delta W is built, merged and only then factorised again, one module at
a time, so memory stays at a few weight matrices. Methods that work entry by entry (dare, magnitude,
ram, ties) leave a full-rank delta; its export is as large as the weights it adapts.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, files
from hybridlib.adapters import ADAPTERS, entry_name
from hybridlib.merging import geometry
from hybridlib.merging.operators import OPERATORS
from hybridlib.weights import check_adapter, check_finite

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import Tensor

MUTATES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How the names of PEFT's initialisations begin that change the base's weights."""

PREFIX = "base_model.model."  # of the module names in PEFT's checkpoints

Factors = dict[str, tuple["Tensor", "Tensor"]]
"""Module -> B (out, r) with the scaling, A (r, in), float32: their product is the delta."""


def deltas(adapter: Path) -> dict[str, Tensor]:
    """Return what a saved LoRA adapter adds to each weight: module name -> float32 (out, in).

    The shape is the weight's: (in, out) where the adapter says fan_in_fan_out (Conv1D).
    Raises StudyError for adapters that are no dense delta of the base weights.
    """
    config = _config(adapter)
    dense = {module: left @ right for module, (left, right) in _factors(adapter, config).items()}
    if config.fan_in_fan_out:
        return {module: delta.T for module, delta in dense.items()}
    return dense


def weights(base: Path, modules: Iterable[str]) -> dict[str, Tensor]:
    """Return module name -> its float32 weight, in the shape that the base's files have.

    Raises StudyError for a module that the base lacks.
    """
    return {module: _weight(base, module) for module in modules}


def combine(
    adapters: Sequence[Path],
    method: str,
    out: Path,
    seed: int = 0,
    base: Path | None = None,
    lambdas: Sequence[float] = (),
) -> dict[str, Any]:
    """Merge adapters by one of OPERATORS; write one ordinary LoRA adapter and return facts.

    Args:
        adapters: folders of saved adapters of one base; a module that one lacks is a zero delta.
        out: the folder to write; it appears complete or not at all, in place of an older adapter.
        seed: of the method's random draws.
        base: a folder of safetensors, the base's weights, for the fact `bf16_loss`.
        lambdas: factors of the deltas before they are merged (task arithmetic); () = all 1.

    Returns:
        norms: the Frobenius norm of each adapter over all modules, before `lambdas`.
        norm: that of the merged delta.
        cosine: of each adapter with each, (adapters, adapters); 0 for an adapter of norm 0.
        truncation: relative Frobenius error of the new factors, B A against the merged delta, mean
            over modules.
        rank: the largest of any module; alpha equals rank in each (scaling 1).
        modules: how many there are.
        bf16_loss (with `base`): the share of the delta that is lost when it is merged into a
            bfloat16 base, |bf16(W0 + dW) - W0 - dW| / |dW|.

    Raises StudyError for an unknown method, adapters that cannot be merged, and an `out` that is
    something else than an adapter.
    """
    import torch

    operator = OPERATORS[method]
    configs = check_mergeable(adapters)
    parts = [_factors(adapter, config) for adapter, config in zip(adapters, configs, strict=True)]
    scales = torch.tensor(lambdas or [1.0] * len(parts))
    generator = torch.Generator().manual_seed(seed)
    factors: Factors = {}
    errors, gram, norm2, loss2 = [], 0.0, 0.0, 0.0
    for module in sorted(set().union(*parts)):
        stack = _stack(parts, module)
        merged = operator(scales[:, None, None] * stack, generator)
        left, right = factors[module] = _factorise(merged)
        norm = merged.double().norm().item()
        errors.append((left @ right - merged).double().norm().item() / norm if norm else 0.0)
        flat = stack.flatten(1).double()
        gram = gram + flat @ flat.T
        norm2 += norm**2
        if base is not None:
            loss2 += _rounding_loss(_weight(base, module), merged, configs[0].fan_in_fan_out) ** 2
    _write(Path(out), factors, configs[0])
    norms = gram.diag().sqrt()
    facts = {
        "norms": norms.tolist(),
        "norm": math.sqrt(norm2),
        "cosine": (gram / torch.outer(norms, norms).clamp(min=1e-300)).tolist(),
        "truncation": math.fsum(errors) / len(errors),
        "rank": _largest_rank(factors),
        "modules": len(factors),
    }
    if base is not None:
        facts["bf16_loss"] = math.sqrt(loss2 / norm2) if norm2 else 0.0
    return facts


def concatenate(
    adapters: Sequence[Path],
    out: Path,
    weights: Callable[[str], Sequence[float]],
    on_top: bool = False,
) -> dict[str, Any]:
    """Write the weighted sum of adapters, exactly: their factors side by side in one adapter.

    Args:
        out: the folder to write; it appears complete or not at all, in place of an older adapter.
        weights: module -> a factor per adapter.
        on_top: each adapter was trained where those before it were merged in, so that the later
            ones name another base; the result belongs to the base of the first.

    Returns the facts rank (the largest) and modules (their number).
    """
    import torch

    configs = [_config(adapter) for adapter in adapters] if on_top else check_mergeable(adapters)
    parts = [_factors(adapter, config) for adapter, config in zip(adapters, configs, strict=True)]
    factors: Factors = {}
    for module in sorted(set().union(*parts)):
        lefts, rights = [], []
        for weight, part in zip(weights(module), parts, strict=True):
            if module in part:
                left, right = part[module]
                lefts.append(weight * left)
                rights.append(right)
        factors[module] = torch.cat(lefts, 1), torch.cat(rights)
    _write(Path(out), factors, configs[0])
    return {"rank": _largest_rank(factors), "modules": len(factors)}


def rewrite(
    adapter: Path, change: Callable[[Tensor, Tensor], Tensor], out: Path, base: Path
) -> dict[str, Any]:
    """Write an adapter whose deltas are those of another, each changed by a function.

    Args:
        change: (weight, delta), both float32 (out, in) -> the delta to write.
        out: the folder to write; it appears complete or not at all, in place of an older adapter.
        base: a folder of safetensors, the weights that the adapter adapts.

    Returns the facts norm_before, norm (Frobenius, all modules), rank (the largest) and modules
    (their number).
    """
    config = _config(adapter)
    factors: Factors = {}
    before2, after2 = 0.0, 0.0
    for module, (left, right) in _factors(adapter, config).items():
        weight = _weight(base, module)
        changed = change(weight.T if config.fan_in_fan_out else weight, left @ right)
        factors[module] = _factorise(changed)
        before2 += (left @ right).double().norm().item() ** 2
        after2 += changed.double().norm().item() ** 2
    _write(Path(out), factors, config)
    return {
        "norm_before": math.sqrt(before2),
        "norm": math.sqrt(after2),
        "rank": _largest_rank(factors),
        "modules": len(factors),
    }


def check_mergeable(adapters: Sequence[Path]) -> list[LoraConfig]:
    """Return the settings of adapters that can be merged: dense deltas, of one base.

    Raises StudyError for any other; a delta means something on its own base only.
    """
    configs = [_config(adapter) for adapter in adapters]
    if not configs:
        raise StudyError("nothing to merge: name at least one adapter")
    for adapter, config in zip(adapters, configs, strict=True):
        for field in ("base_model_name_or_path", "revision", "fan_in_fan_out"):
            first, other = getattr(configs[0], field), getattr(config, field)
            if first != other:
                raise StudyError(
                    f"cannot merge {_name(adapters[0])} with {_name(adapter)}: "
                    f"{field} is {first} there and {other} here; train both on one base"
                )
    return configs


# ---------------------------------------------------------------- reading


def _name(adapter: Path) -> str:
    """Return what an adapter is called: its folder's name, or its run's where that says nothing."""
    folder = Path(adapter)
    return folder.parent.name if folder.name == "adapter" else folder.name


def _config(adapter: Path) -> LoraConfig:
    """Return the settings of an adapter whose effect is W0 + dW; StudyError for any other."""
    from peft import LoraConfig

    path = Path(adapter) / "adapter_config.json"
    if not path.exists():
        raise StudyError(f"{adapter} is no saved adapter: it has no adapter_config.json")
    obstacles = _obstacles(files.read_object(path))
    if obstacles:
        raise StudyError(f"cannot merge {_name(adapter)}: {obstacles[0]}")
    return LoraConfig.from_pretrained(str(adapter))


def _obstacles(stored: dict[str, Any]) -> list[str]:
    """Return why the adapter of an adapter_config.json is not a dense delta of its base."""
    kind, init = stored.get("peft_type"), stored.get("init_lora_weights")
    whole_modules = stored.get("modules_to_save")
    trains_biases = stored.get("bias", "none") != "none" or stored.get("lora_bias")
    obstacles = []
    if kind != "LORA":
        obstacles.append(f"it is {kind}; PEFT's save_as_lora converts some types")
    if stored.get("use_dora"):
        obstacles.append("DoRA's magnitudes rescale the base; merge plain LoRA adapters")
    if str(init).startswith(MUTATES_BASE):
        obstacles.append(
            f"{init} changed the base weights; "
            "save it with path_initial_model_for_weight_conversion"
        )
    if whole_modules:
        obstacles.append(
            f"it replaces whole modules ({whole_modules}); train without modules_to_save"
        )
    if trains_biases:
        obstacles.append("it trains biases; train with bias='none'")
    if stored.get("alora_invocation_tokens"):
        obstacles.append("it acts on some tokens only (aLoRA)")
    name = entry_name(stored)
    if name and not ADAPTERS[name].mergeable:
        obstacles.append(f"the adapter {name!r} is declared not mergeable")
    return obstacles


def _factors(adapter: Path, config: LoraConfig) -> Factors:
    """Read the factors of an adapter; StudyError for tensors that are no LoRA of a linear layer."""
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    path = Path(adapter) / "adapter_model.safetensors"
    if not path.exists():
        raise StudyError(f"{adapter} has no adapter_model.safetensors; save it with PEFT again")
    check_adapter(Path(adapter))
    check_finite([path])
    state = load_file(path)
    factors: Factors = {}
    for key, value in state.items():
        stem, dot, end = key.rpartition(".lora_")
        if not dot or end not in ("A.weight", "B.weight") or value.dim() != 2:
            raise StudyError(f"cannot merge {path.parent.name}: {key} is no LoRA of a linear layer")
        if end == "A.weight":
            module, rank = stem.removeprefix(PREFIX), len(value)  # rank_pattern decided the shape
            pattern = get_pattern_key(config.alpha_pattern.keys(), module)
            alpha = config.alpha_pattern.get(pattern, config.lora_alpha)
            scaling = alpha / (math.sqrt(rank) if config.use_rslora else rank)
            factors[module] = scaling * state[f"{stem}.lora_B.weight"].float(), value.float()
    return factors


def _weight(base: Path, module: str) -> Tensor:
    """Read the float32 weight of one module, alone, from a folder of safetensors files."""
    from safetensors import safe_open

    for path in sorted(Path(base).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if f"{module}.weight" in file.keys():  # noqa: SIM118 (no mapping)
                return file.get_tensor(f"{module}.weight").float()
    raise StudyError(f"{base} has no weight {module}.weight; is it the base of these adapters?")


# ---------------------------------------------------------------- arithmetic


def _stack(parts: Sequence[Factors], module: str) -> Tensor:
    """Return the deltas (adapters, out, in) of a module, zero for an adapter that lacks it."""
    import torch

    present = {index: part[module] for index, part in enumerate(parts) if module in part}
    left, right = next(iter(present.values()))
    stack = torch.zeros(len(parts), len(left), right.shape[1])
    for index, (left, right) in present.items():
        stack[index] = left @ right
    return stack


def _factorise(delta: Tensor) -> tuple[Tensor, Tensor]:
    """Return B (out, r), A (r, in) with B A = delta; r is its numerical rank.

    r is at least 1, as PEFT wants it.
    """
    left, values, right = geometry.truncated_svd(delta)
    if not len(values):
        return delta.new_zeros(len(delta), 1), delta.new_zeros(1, delta.shape[1])
    root = values.sqrt()
    return (left * root).float().contiguous(), (right * root).T.float().contiguous()


def _rounding_loss(weight: Tensor, delta: Tensor, fan_in_fan_out: bool) -> float:
    """Return |bf16(W + dW) - W - dW| (Frobenius); the weight as the base's files have it."""
    exact = (weight.T if fan_in_fan_out else weight).double() + delta.double()
    return (exact.bfloat16().double() - exact).norm().item()


def _largest_rank(factors: Factors) -> int:
    return max(len(right) for _, right in factors.values())


# ---------------------------------------------------------------- writing


def _write(out: Path, factors: Factors, like: LoraConfig) -> None:
    """Write an adapter folder under a temporary name, then move it to its place.

    Args:
        like: the settings of an adapter of the same base; rank and alpha are set per module.

    Raises StudyError where `out` exists and is no adapter.
    """
    from safetensors.torch import save_file

    if out.exists() and not (out / "adapter_config.json").exists():
        raise StudyError(f"{out} exists and is no adapter; choose another folder")
    state: dict[str, torch.Tensor] = {}
    for module, (left, right) in factors.items():
        state[f"{PREFIX}{module}.lora_A.weight"] = right
        state[f"{PREFIX}{module}.lora_B.weight"] = left
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}"))
    try:
        os.chmod(temporary, 0o755)
        _export_config(factors, like).save_pretrained(str(temporary))
        save_file(state, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _export_config(factors: Factors, like: LoraConfig) -> LoraConfig:
    """Return settings for these factors in which alpha equals the rank of each module."""
    from peft import LoraConfig

    ranks = {module: len(right) for module, (_, right) in factors.items()}
    rank = max(ranks.values())
    # Anchored: PEFT matches these keys as regular expressions against the end of the names.
    pattern = {
        f"^{re.escape(module)}": module_rank
        for module, module_rank in ranks.items()
        if module_rank != rank
    }
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules=sorted(ranks),
        fan_in_fan_out=like.fan_in_fan_out,
        base_model_name_or_path=like.base_model_name_or_path,
        revision=like.revision,
        task_type=like.task_type,
        inference_mode=True,
    )
