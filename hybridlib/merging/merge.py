"""What is the one adapter that several make? Merging LoRA adapters on their dense deltas.

PEFT's `linear`, `ties`, `dare_*` and `magnitude_prune` treat the factors A and B one by one, which
adds cross terms B1 A2 that no adapter ever had: two random rank-8 adapters come out wrong by about
100 %. Here each module's delta W is built, merged and only then factorised again, one module at
a time, so memory stays at a few weight matrices. Methods that work entry by entry (dare, magnitude,
ram, ties) leave a full-rank delta; its export is as large as the weights it adapts.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hybridlib import StudyError
from hybridlib.merging import geometry
from hybridlib.merging.operators import OPERATORS

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

MUTATES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
PREFIX = "base_model.model."


def deltas(adapter: Path) -> dict[str, Tensor]:
    """What does a saved LoRA adapter add to each weight? Module name -> float32 (out, in).

    The shape is the weight's: (in, out) where the adapter says fan_in_fan_out (Conv1D).
    Raises StudyError for adapters that are no dense delta of the base weights.
    """
    config = _config(adapter)
    dense = {module: left @ right for module, (left, right) in _factors(adapter, config).items()}
    return {module: d.T if config.fan_in_fan_out else d for module, d in dense.items()}


def combine(
    adapters: Sequence[Path], method: str, out: Path, seed: int = 0, base: Path | None = None,
    lambdas: Sequence[float] = (),
) -> dict:  # fmt: skip
    """What does merging these adapters give? Writes one ordinary LoRA adapter, returns facts.

    A module that an adapter lacks counts as a zero delta. `out` appears complete or not at all.
    Lambdas multiply the deltas before they are merged (task arithmetic); () = all 1.
    Ranks are per module whatever the merged delta needs, and alpha equals rank (scaling 1).
    Facts: norms of the inputs and norm of the result (Frobenius, all modules), cosine (inputs x
    inputs), truncation (mean over modules of the relative error of the new factors), rank (the
    largest), modules, and with `base` (a folder of safetensors) bf16_loss: the share of the
    delta that is lost in bfloat16, |bf16(W0 + dW) - W0 - dW| / |dW|.
    """
    import torch

    operator = OPERATORS[method]
    configs = check(adapters)
    parts = [_factors(adapter, config) for adapter, config in zip(adapters, configs, strict=True)]
    scales = torch.tensor(lambdas or [1.0] * len(parts))
    generator = torch.Generator().manual_seed(seed)
    factors, errors, gram, norm2, lost2 = {}, [], 0.0, 0.0, 0.0
    for module in sorted(set().union(*parts)):
        known = {index: part[module] for index, part in enumerate(parts) if module in part}
        left, right = next(iter(known.values()))
        stack = torch.zeros(len(parts), len(left), right.shape[1])
        for index, (left, right) in known.items():
            stack[index] = left @ right
        merged = operator(scales[:, None, None] * stack, generator)
        left, right = factors[module] = _refactor(merged)
        size = merged.double().norm().item()
        errors.append((left @ right - merged).double().norm().item() / size if size else 0.0)
        flat = stack.flatten(1).double()
        gram = gram + flat @ flat.T
        norm2 += size**2
        if base is not None:
            weight = _weight(base, module)
            exact = (weight.T if configs[0].fan_in_fan_out else weight).double() + merged.double()
            lost2 += (exact.bfloat16().double() - exact).norm().item() ** 2
    _write(Path(out), factors, configs[0])
    norms = gram.diag().sqrt()
    facts = {
        "norms": norms.tolist(),
        "norm": math.sqrt(norm2),
        "cosine": (gram / torch.outer(norms, norms).clamp(min=1e-300)).tolist(),
        "truncation": math.fsum(errors) / len(errors),
        "rank": max(len(right) for _, right in factors.values()),
        "modules": len(factors),
    }
    if base is not None:
        facts["bf16_loss"] = math.sqrt(lost2 / norm2) if norm2 else 0.0
    return facts


def concatenate(
    adapters: Sequence[Path], out: Path, weights: Callable[[str], Sequence[float]],
    on_top: bool = False,
) -> dict:  # fmt: skip
    """What is the weighted sum of adapters, exactly? Their factors side by side, in one adapter.

    Args:
        weights: module -> a factor per adapter.
        on_top: each adapter was trained where those before it were merged in, so that the later
            ones name another base; the result belongs to the base of the first.
    Facts: rank (the largest), modules.
    """
    import torch

    configs = [_config(adapter) for adapter in adapters] if on_top else check(adapters)
    parts = [_factors(adapter, config) for adapter, config in zip(adapters, configs, strict=True)]
    factors = {}
    for module in sorted(set().union(*parts)):
        known = [(w, *part[module]) for w, part in zip(weights(module), parts, strict=True)
                 if module in part]  # fmt: skip
        left = torch.cat([w * left for w, left, _ in known], 1)
        factors[module] = left, torch.cat([right for *_, right in known])
    _write(Path(out), factors, configs[0])
    return {"rank": max(len(right) for _, right in factors.values()), "modules": len(factors)}


def rewrite(
    adapter: Path, change: Callable[[Tensor, Tensor], Tensor], out: Path, base: Path
) -> dict:
    """What if every delta were another one? Writes the adapter of the changed deltas.

    Args:
        change: (weight, delta), both float32 (out, in) -> the delta to write.
        base: a folder of safetensors, the weights that the adapter adapts.
    Facts: norm_before, norm (Frobenius, all modules), rank (the largest), modules.
    """
    config = _config(adapter)
    factors, before, after = {}, 0.0, 0.0
    for module, (left, right) in _factors(adapter, config).items():
        weight = _weight(base, module)
        changed = change(weight.T if config.fan_in_fan_out else weight, left @ right)
        factors[module] = _refactor(changed)
        before += (left @ right).double().norm().item() ** 2
        after += changed.double().norm().item() ** 2
    _write(Path(out), factors, config)
    return {
        "norm_before": math.sqrt(before), "norm": math.sqrt(after),
        "rank": max(len(right) for _, right in factors.values()), "modules": len(factors),
    }  # fmt: skip


def weights(base: Path, modules: Iterable[str]) -> dict[str, Tensor]:
    """The float32 weights of some modules of a base, by name, in the shape (out, in) they have."""
    return {module: _weight(base, module) for module in modules}


def _config(adapter: Path) -> LoraConfig:
    """The settings of an adapter whose effect is W0 + dW; any other adapter is refused."""
    from peft import LoraConfig

    path = Path(adapter) / "adapter_config.json"
    if not path.exists():
        raise StudyError(f"{adapter} is no saved adapter: it has no adapter_config.json")
    stored = json.loads(path.read_text("utf-8"))
    kind, init = stored.get("peft_type"), stored.get("init_lora_weights")
    whole, bias = stored.get("modules_to_save"), stored.get("bias", "none")
    for applies, reason in (
        (kind != "LORA", f"it is {kind}; PEFT's save_as_lora converts some types"),
        (stored.get("use_dora"), "DoRA's magnitudes rescale the base; merge plain LoRA adapters"),
        (str(init).startswith(MUTATES_BASE), f"{init} changed the base weights; save it with "
                                             "path_initial_model_for_weight_conversion"),
        (whole, f"it replaces whole modules ({whole}); train without modules_to_save"),
        (bias != "none" or stored.get("lora_bias"), "it trains biases; train with bias='none'"),
        (stored.get("alora_invocation_tokens"), "it acts on some tokens only (aLoRA)"),
    ):  # fmt: skip
        if applies:
            raise StudyError(f"cannot merge {Path(adapter).name}: {reason}")
    return LoraConfig.from_pretrained(str(adapter))


def _factors(adapter: Path, config: LoraConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """Module name -> (scaling B (out, r), A (r, in)) in float32: their product is the delta."""
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    path = Path(adapter) / "adapter_model.safetensors"
    if not path.exists():
        raise StudyError(f"{adapter} has no adapter_model.safetensors; save it with PEFT again")
    state, factors = load_file(path), {}
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


def check(adapters: Sequence[Path]) -> list[LoraConfig]:
    """The settings of adapters that can be merged: dense deltas, of one base.

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
                    f"cannot merge {Path(adapters[0]).name} with {Path(adapter).name}: "
                    f"{field} is {first} there and {other} here; train both on one base"
                )
    return configs


def _refactor(delta: Tensor) -> tuple[Tensor, Tensor]:
    """B (out, r), A (r, in) with B A = delta, r its numerical rank (at least 1, as PEFT wants)."""
    left, values, right = geometry.frames(delta)
    if not len(values):
        return delta.new_zeros(len(delta), 1), delta.new_zeros(1, delta.shape[1])
    root = values.sqrt()
    return (left * root).float().contiguous(), (right * root).T.float().contiguous()


def _weight(base: Path, module: str) -> Tensor:
    """The float32 weight of one module, read alone from a folder of safetensors files."""
    from safetensors import safe_open

    for path in sorted(Path(base).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if f"{module}.weight" in file.keys():  # noqa: SIM118 (no mapping)
                return file.get_tensor(f"{module}.weight").float()
    raise StudyError(f"{base} has no weight {module}.weight; is it the base of these adapters?")


def _write(out: Path, factors: dict[str, tuple[Tensor, Tensor]], like: LoraConfig) -> None:
    """Write an adapter folder beside its place, then move it there."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    if out.exists() and not (out / "adapter_config.json").exists():
        raise StudyError(f"{out} exists and is no adapter; choose another folder")
    state = {}
    for module, (left, right) in factors.items():
        state[f"{PREFIX}{module}.lora_A.weight"] = right
        state[f"{PREFIX}{module}.lora_B.weight"] = left
    ranks = {module: len(right) for module, (_, right) in factors.items()}
    rank = max(ranks.values())
    # Anchored: PEFT matches these keys as regular expressions against the end of the names.
    pattern = {f"^{re.escape(module)}": r for module, r in ranks.items() if r != rank}
    config = LoraConfig(
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
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}"))
    try:
        os.chmod(temporary, 0o755)
        config.save_pretrained(str(temporary))
        save_file(state, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
