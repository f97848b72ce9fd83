"""How do two adapters of one base get on? In the weights, and in what the model then says.

Measured on worked solutions of validation rows, read and not sampled, so that all variants of the
model see the same tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import data, models
from hybridlib.merging import geometry, merge
from hybridlib.profiles import Profile, model_folder

if TYPE_CHECKING:
    from torch import Tensor

ROWS, DRAWS = 8, 5  # validation rows of each data set; draws from each null model
NAMES = ("0", "1")


def measure(profile: Profile, adapters: Sequence[Path], seed: int = 0) -> dict[str, Any]:
    """What do two adapters share, and do they disturb each other?

    Returns:
        between, null: `geometry.between` (cosines only of the single modules) and
        `geometry.null`; spectra: `geometry.spectra` of each
        (where the base is a folder); interference: the mean over tokens and vocabulary of
        |z12 - z1 - z2 + z0|, the logits of both adapters, of each and of the base, as a share of
        |z1 - z0| + |z2 - z0|: 0 where each acts as if the other were not there; knockout: layer ->
        KL(both || both but one in this layer) in nats per token, for each of the two.
    """
    import torch

    model, batches = _loaded(profile, adapters)
    with torch.no_grad():
        inputs = _inputs(model, batches)
        found = {
            "interference": _interference(model, batches),
            "knockout": _knockout(model, batches),
        }
    parts = [merge.deltas(adapter) for adapter in adapters]
    generator = torch.Generator().manual_seed(seed)
    found["between"] = between = geometry.between(*parts, inputs)
    between["modules"] = {
        module: {key: values[key] for key in ("cosine", "functional")}
        for module, values in between["modules"].items()
    }
    found["null"] = geometry.null(*parts, generator, DRAWS, inputs)
    base = model_folder(profile.model)
    if base is not None:
        found["spectra"] = [geometry.spectra(merge.weights(base, part), part) for part in parts]
    return _short(found)


def layer(module: str) -> str:
    """The layer that a module belongs to: "3" of model.layers.3.mlp.up_proj; "" outside layers."""
    found = re.search(r"layers\.(\d+)\.", module)
    return found[1] if found else ""


def _loaded(profile: Profile, adapters: Sequence[Path]) -> tuple[Any, list[tuple[Tensor, int]]]:
    """The base with both adapters, and each text as its tokens and where its solution begins."""
    import torch
    from peft import PeftModel

    model, tokenizer = models.load(profile, nf4=profile.nf4)
    model = PeftModel.from_pretrained(model, adapters[0], NAMES[0])
    model.load_adapter(str(adapters[1]), NAMES[1])
    batches = []
    for name in profile.datasets:
        for row in data.load(name, "valid", ROWS, profile.columns):
            prompt = tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, return_dict=False
            )
            text = row["completion"][-1]["content"]
            answer = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[*prompt, *answer]], device=model.device)
            batches.append((ids, len(prompt)))
    return model.eval(), batches


def _logits(model: Any, active: Sequence[str], batches: list) -> Iterator[Tensor]:
    """What stands before each token of each solution, (tokens, vocabulary), with some adapters."""
    with _active(model, active):
        for ids, start in batches:
            yield model(input_ids=ids).logits[0, start - 1 : -1].float()


@contextmanager
def _active(model: Any, names: Sequence[str]) -> Iterator[None]:
    if names:
        model.base_model.set_adapter(list(names))
        yield
    else:
        with model.disable_adapter():
            yield


def _interference(model: Any, batches: list) -> float:
    choices = (NAMES, NAMES[:1], NAMES[1:], ())
    together, apart = 0.0, 0.0
    for batch in batches:
        both, one, other, none = ([*_logits(model, names, [batch])][0] for names in choices)
        together += float((both - one - other + none).abs().sum())
        apart += float((one - none).abs().sum() + (other - none).abs().sum())
    return together / apart if apart else 0.0


def _knockout(model: Any, batches: list) -> dict[str, list[float]]:
    """Layer -> nats per token that each adapter's part in it decides while both are active."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layers.setdefault(layer(name), []).append(module)
    whole = [logits.log_softmax(-1) for logits in _logits(model, NAMES, batches)]
    tokens = sum(map(len, whole))
    found: dict[str, list[float]] = {}
    for place, modules in layers.items():
        for kept in (NAMES[1:], NAMES[:1]):
            model.base_model.set_adapter(list(NAMES))
            for module in modules:
                module.set_adapter(list(kept))
            total = 0.0
            for (ids, start), before in zip(batches, whole, strict=True):
                after = model(input_ids=ids).logits[0, start - 1 : -1].float().log_softmax(-1)
                total += float((before.exp() * (before - after)).sum())
            found.setdefault(place, []).append(total / tokens)
    return found


def _inputs(model: Any, batches: list) -> dict[str, Tensor]:
    """Module -> mean of x x^T over the tokens that the base reads there, (in, in)."""
    from peft.tuners.lora import LoraLayer

    sums: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def add(module: Any, args: tuple, kwargs: dict) -> None:
            x = args[0].flatten(0, -2).float()
            sums[name] = sums.get(name, 0) + (x.T @ x).cpu()

        return add

    handles = [
        module.register_forward_pre_hook(hook(name.removeprefix(merge.PREFIX)), with_kwargs=True)
        for name, module in model.named_modules() if isinstance(module, LoraLayer)
    ]  # fmt: skip
    for _ in _logits(model, (), batches):
        pass
    for handle in handles:
        handle.remove()
    tokens = sum(ids.shape[1] for ids, _ in batches)
    return {name: total / tokens for name, total in sums.items()}


def _short(found: Any) -> Any:
    """The same with numbers of five digits: records are kept small."""
    if isinstance(found, dict):
        return {key: _short(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_short(value) for value in found]
    return float(f"{found:.5g}")
