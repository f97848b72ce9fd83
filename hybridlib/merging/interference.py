"""Do two adapters of one base disturb each other, in the weights and in the model's predictions?

Measured on worked solutions of validation rows, which the model reads and does not sample, so that
all variants of the model see the same tokens.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import data, models
from hybridlib.merging import geometry, merge
from hybridlib.profiles import Profile, model_folder

if TYPE_CHECKING:
    from torch import Tensor

N_ROWS, N_DRAWS = 8, 5  # validation rows of each data set; draws from each null model
FIRST, SECOND = "0", "1"  # what the adapters are called in the model that holds both

Texts = list[tuple["Tensor", int]]
"""Token ids (1, tokens) of prompt and solution, and the index at which the solution begins."""


def measure(profile: Profile, adapters: Sequence[Path], seed: int = 0) -> dict[str, Any]:
    """Measure what two adapters share and whether they disturb each other.

    Loads the base with both adapters; both updates have to fit into memory.

    Args:
        profile: names the base and the data sets of the texts.
        seed: of the null models' draws.

    Returns, with all numbers rounded to five digits:
        between: `geometry.similarity`, of single modules only the two cosines.
        null: `geometry.null_distribution`.
        spectra (where the base is a folder): `geometry.pooled_spectral_measures` of each adapter.
        interference: the mean over tokens and vocabulary of |z12 - z1 - z2 + z0|, the logits of
            both adapters, of each and of the base, as a share of |z1 - z0| + |z2 - z0|: 0 where
            each acts as if the other were not there.
        knockout: layer -> KL(both || both but one in this layer) in nats per token, for each of
            the two.
    """
    import torch

    model, texts = _load(profile, adapters)
    with torch.no_grad():
        moments = _input_moments(model, texts)
        facts: dict[str, Any] = {
            "interference": _interference(model, texts),
            "knockout": _knockout(model, texts),
        }
    updates = [merge.deltas(adapter) for adapter in adapters]
    facing_inputs = updates  # (out, in), which GPT-2's weights are not
    if merge.check_mergeable(adapters)[0].fan_in_fan_out:
        facing_inputs = [{name: delta.T for name, delta in update.items()} for update in updates]
    generator = torch.Generator().manual_seed(seed)
    facts["between"] = _with_cosines_only(geometry.similarity(*facing_inputs, moments))
    facts["null"] = geometry.null_distribution(*facing_inputs, generator, N_DRAWS, moments)
    base = model_folder(profile.model)
    if base is not None:
        facts["spectra"] = [
            geometry.pooled_spectral_measures(merge.weights(base, update), update)
            for update in updates
        ]
    return _rounded(facts)


def layer_of(module: str) -> str:
    """Return the number of the layer that a module belongs to, "outside" where it is in none.

    >>> layer_of("model.layers.3.mlp.up_proj"), layer_of("transformer.h.0.attn.c_attn")
    ('3', '0')
    """
    match = re.search(r"\.(\d+)\.", module)
    return match[1] if match else "outside"


def _load(profile: Profile, adapters: Sequence[Path]) -> tuple[Any, Texts]:
    """Load the base with both adapters, and N_ROWS validation rows of each data set as texts."""
    import torch
    from peft import PeftModel

    model, tokenizer = models.load(profile, nf4=profile.nf4)
    model = PeftModel.from_pretrained(model, adapters[0], FIRST)
    model.load_adapter(str(adapters[1]), SECOND)
    texts = []
    for name in profile.datasets:
        for row in data.load(name, "valid", N_ROWS, profile.columns, profile.ask):
            prompt = tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, return_dict=False
            )
            solution = tokenizer(row["completion"][-1]["content"], add_special_tokens=False)
            tokens = torch.tensor([[*prompt, *solution["input_ids"]]], device=model.device)
            texts.append((tokens, len(prompt)))
    return model.eval(), texts


def _logits(model: Any, active: Sequence[str], texts: Texts) -> Iterator[Tensor]:
    """Yield the logits (tokens, vocabulary) of each solution's tokens with some adapters active."""
    with _active(model, active):
        for tokens, start in texts:
            yield _solution_logits(model, tokens, start)


def _text_logits(model: Any, active: Sequence[str], text: tuple[Tensor, int]) -> Tensor:
    (logits,) = _logits(model, active, [text])
    return logits


def _solution_logits(model: Any, tokens: Tensor, start: int) -> Tensor:
    """Return the float32 logits from which each token from `start` on is predicted."""
    return model(input_ids=tokens).logits[0, start - 1 : -1].float()


@contextmanager
def _active(model: Any, names: Sequence[str]) -> Iterator[None]:
    """Run the block with just these adapters active, or with none.

    Named adapters stay active after the block; disabling all of them is undone.
    """
    if names:
        model.base_model.set_adapter(list(names))
        yield
    else:
        with model.disable_adapter():
            yield


def _interference(model: Any, texts: Texts) -> float:
    """Return the share of the adapters' effects on the logits that does not add up."""
    joint_effect, single_effects = 0.0, 0.0
    for text in texts:
        both, first, second, base = (
            _text_logits(model, active, text)
            for active in ((FIRST, SECOND), (FIRST,), (SECOND,), ())
        )
        joint_effect += float((both - first - second + base).abs().sum())
        single_effects += float((first - base).abs().sum() + (second - base).abs().sum())
    return joint_effect / single_effects if single_effects else 0.0


def _knockout(model: Any, texts: Texts) -> dict[str, list[float]]:
    """Return layer -> what leaving out each adapter there costs while both are active.

    KL divergence in nats per token, of the first adapter and of the second.
    """
    log_probs = [logits.log_softmax(-1) for logits in _logits(model, (FIRST, SECOND), texts)]
    token_count = sum(map(len, log_probs))
    divergences: dict[str, list[float]] = {}
    for layer, modules in _lora_modules_by_layer(model).items():
        divergences[layer] = []
        for remaining in (SECOND, FIRST):
            model.base_model.set_adapter([FIRST, SECOND])
            for module in modules:
                module.set_adapter([remaining])
            total = 0.0
            for (tokens, start), before in zip(texts, log_probs, strict=True):
                after = _solution_logits(model, tokens, start).log_softmax(-1)
                total += float((before.exp() * (before - after)).sum())
            divergences[layer].append(total / token_count)
    return divergences


def _lora_modules(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: part for name, part in model.named_modules() if isinstance(part, LoraLayer)}


def _lora_modules_by_layer(model: Any) -> dict[str, list[Any]]:
    layers: dict[str, list[Any]] = {}
    for name, module in _lora_modules(model).items():
        layers.setdefault(layer_of(name), []).append(module)
    return layers


def _input_moments(model: Any, texts: Texts) -> dict[str, Tensor]:
    """Return module -> mean of x x^T over its inputs x in the base without adapters, (in, in)."""
    sums: dict[str, Any] = {}

    def adder(name: str) -> Callable[[Any, tuple, dict], None]:
        def add(module: Any, args: tuple, kwargs: dict) -> None:
            inputs = args[0].flatten(0, -2).float()
            sums[name] = sums.get(name, 0) + (inputs.T @ inputs).cpu()

        return add

    handles = [
        module.register_forward_pre_hook(adder(name.removeprefix(merge.PREFIX)), with_kwargs=True)
        for name, module in _lora_modules(model).items()
    ]
    deque(_logits(model, (), texts), maxlen=0)  # keeps none of them: the hooks do the work
    for handle in handles:
        handle.remove()
    token_count = sum(tokens.shape[1] for tokens, _ in texts)
    return {name: total / token_count for name, total in sums.items()}


def _with_cosines_only(similarity: dict[str, Any]) -> dict[str, Any]:
    """Return a similarity without the other measures of single modules, to keep records small."""
    modules = {
        module: {name: measures[name] for name in ("cosine", "functional")}
        for module, measures in similarity["modules"].items()
    }
    return similarity | {"modules": modules}


def _rounded(facts: Any) -> Any:
    """Return facts with all numbers at five digits and lists for tuples, to keep records small."""
    if isinstance(facts, dict):
        return {key: _rounded(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_rounded(value) for value in facts]
    return float(f"{facts:.5g}")
