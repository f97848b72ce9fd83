"""Merged adapters against float64 arithmetic, against PEFT, and against composed adapters."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hybridlib import StudyError
from hybridlib.merging import merge
from hybridlib.merging.operators import OPERATORS

SHAPES = {
    "model.layers.0.self_attn.q_proj": (64, 64),
    "model.layers.0.self_attn.k_proj": (32, 64),
    "model.layers.1.mlp.up_proj": (96, 64),
    "model.layers.1.mlp.down_proj": (64, 96),
    "model.layers.1.self_attn.q_proj": (64, 64),
}


def adapter(folder, seed, rank=4, modules=None, tensors=None, **config):
    """A saved LoRA adapter of random factors; `config` overrides fields of adapter_config.json."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    state = {}
    for module in modules or SHAPES:
        out, into = SHAPES[module]
        r = config.get("rank_pattern", {}).get(module, rank)
        left = torch.randn(out, r, generator=generator) / 30
        state[f"base_model.model.{module}.lora_A.weight"] = torch.randn(
            r, into, generator=generator
        )
        state[f"base_model.model.{module}.lora_B.weight"] = left
    save_file({**state, **(tensors or {})}, folder / "adapter_model.safetensors")
    stored = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(modules or SHAPES),
        "base_model_name_or_path": "base",
    } | config
    (folder / "adapter_config.json").write_text(json.dumps(stored))
    return folder


def relative(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


def apply(name, *stack, seed=0):
    return OPERATORS[name](torch.stack(stack), torch.Generator().manual_seed(seed))


def delta(seed, rank=3, shape=(12, 20)):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(shape[0], rank, generator=generator)
    return left @ torch.randn(rank, shape[1], generator=generator)


def trim(d):
    """The largest fifth of a matrix, in numpy and float64."""
    d = d.double().numpy()
    keep = math.ceil(0.2 * d.size)
    return np.where(np.abs(d) >= np.sort(np.abs(d), axis=None)[-keep], d, 0)


def reference_ties(stack):
    trimmed = np.stack([trim(d) for d in stack])
    sign = np.sign(trimmed.sum(0))
    total, count = np.zeros_like(sign), np.zeros_like(sign)
    for d in trimmed:
        agrees = (np.sign(d) == sign) & (d != 0)
        total, count = total + np.where(agrees, d, 0), count + agrees
    return total / np.maximum(count, 1)


def reference_norm_matched(stack):
    norms = [np.linalg.norm(d) for d in stack]
    return np.mean([d * np.mean(norms) / n for d, n in zip(stack, norms, strict=True)], axis=0)


def reference_slerp(stack):
    merged = stack[0]
    for k, other in enumerate(stack[1:], 2):
        lengths = np.linalg.norm(merged), np.linalg.norm(other)
        one, two = merged / lengths[0], other / lengths[1]
        angle = np.arccos(np.clip((one * two).sum(), -1, 1))
        around = (np.sin((1 - 1 / k) * angle) * one + np.sin(angle / k) * two) / np.sin(angle)
        merged = ((1 - 1 / k) * lengths[0] + lengths[1] / k) * around
    return merged


def reference_ram(stack):
    trimmed = np.stack([trim(torch.tensor(d)) for d in stack])
    return trimmed.sum(0) / np.maximum((trimmed != 0).sum(0), 1)


def reference_knots(stack):
    u, values, v = np.linalg.svd(np.concatenate(stack, 1), full_matrices=False)
    rank = (values > 1e-6 * values[0]).sum()
    blocks = np.split(values[:rank, None] * v[:rank], len(stack), 1)
    return u[:, :rank] @ reference_ties([torch.tensor(b) for b in blocks])


REFERENCE = {
    "slerp": reference_slerp,
    "magnitude": lambda stack: np.mean([trim(torch.tensor(d)) for d in stack], axis=0),
    "ram": reference_ram,
    "knots": reference_knots,
    "sum": lambda stack: np.sum(stack, axis=0),
    "mean": lambda stack: np.mean(stack, axis=0),
    "norm_matched": reference_norm_matched,
    "ties": lambda stack: reference_ties([torch.tensor(d) for d in stack]),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99))
@pytest.mark.parametrize("name", REFERENCE)
def test_an_operator_agrees_with_float64(name, ranks, seed):
    stack = [delta(seed + i, rank) for i, rank in enumerate(ranks)]
    expected = REFERENCE[name]([d.double().numpy() for d in stack])
    assert apply(name, *stack).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_dare_keeps_the_expectation_repeats_by_seed_and_drops_half():
    one, two = delta(1), delta(2)
    draws = torch.stack([apply("dare", one, two, seed=seed) for seed in range(2000)])
    noise = draws.std(0) / 2000**0.5
    assert ((draws.mean(0) - (one + two) / 2).abs() < 5 * noise).all()
    assert torch.equal(apply("dare", one, two, seed=3), apply("dare", one, two, seed=3))
    alone = apply("dare", torch.ones(100, 100))
    assert set(alone.unique().tolist()) == {0.0, 2.0}
    assert (alone == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sum", lambda d: 2 * d),
        ("mean", lambda d: d),
        ("norm_matched", lambda d: d),
        ("slerp", lambda d: d),
        ("magnitude", lambda d: torch.tensor(trim(d)).float()),
        ("ties", lambda d: torch.tensor(trim(d)).float()),
        ("ram", lambda d: torch.tensor(trim(d)).float()),
        ("knots", lambda d: torch.tensor(reference_knots([d.double().numpy()])).float()),
    ],
)
def test_an_adapter_merged_with_itself(name, expected):
    d = delta(7)
    assert relative(apply(name, d, d), expected(d)) < 1e-5


@pytest.mark.parametrize(
    ("name", "scale", "of"),
    [
        ("sum", 1, "all"),
        ("mean", 0.5, "all"),
        ("norm_matched", 0.5, "all"),
        ("slerp", 0.5, "all"),
        ("magnitude", 0.5, "trimmed"),
        ("ties", 1, "trimmed"),
        ("ram", 1, "trimmed"),
        ("knots", 1, "aligned"),
    ],
)
def test_an_adapter_merged_with_a_zero_one(name, scale, of):
    d = delta(7)
    aligned = torch.tensor(reference_knots([d.double().numpy()])).float()
    whole = {"all": d, "trimmed": torch.tensor(trim(d)).float(), "aligned": aligned}[of]
    for stack in ((d, torch.zeros_like(d)), (torch.zeros_like(d), d)):
        assert relative(apply(name, *stack), scale * whole) < 1e-5


def test_slerp_of_opposites_is_their_average():
    d = delta(7)
    assert apply("slerp", d, -d).norm() < 1e-5
    assert relative(apply("slerp", d, 3 * d), 2 * d) < 1e-5


def test_dare_gives_an_adapter_back_on_average():
    d = delta(7)
    draws = torch.stack([apply("dare", d, d, seed=seed) for seed in range(4000)])
    assert relative(draws.mean(0), d) < 0.03


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sum", lambda d: d),
        ("mean", lambda d: d / 2),
        ("norm_matched", lambda d: d / 2),
        ("ties", lambda d: torch.tensor(trim(d)).float()),
    ],
)
def test_a_zero_adapter_has_no_direction(name, expected):
    d = delta(8)
    assert relative(apply(name, d, torch.zeros_like(d)), expected(d)) < 1e-6


@pytest.mark.parametrize("name", OPERATORS)
def test_zero_stays_zero_and_every_method_names_its_source(name):
    assert not apply(name, torch.zeros(5, 4), torch.zeros(5, 4)).any()
    assert OPERATORS[name].__doc__


def test_a_long_delta_does_not_drown_a_short_one_when_norms_match():
    short, long = delta(1), 100 * delta(2)

    def share(merged):
        return ((merged * short).sum() / merged.norm() / short.norm()).item()

    assert share(apply("norm_matched", short, long)) > 0.5 > 5 * share(apply("mean", short, long))


def test_ties_elects_the_heavier_sign_and_averages_those_that_agree():
    base = torch.zeros(1, 10)
    stack = [base.clone() for _ in range(3)]
    for d, values in zip(stack, [(4.0, 3.0), (2.0, -9.0), (-1.0, 1.0)], strict=True):
        d[0, 0], d[0, 1] = values
    assert apply("ties", *stack)[0, :3].tolist() == [3.0, -9.0, 0.0]


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 8 / 2),
        ({"lora_alpha": 3}, 3 / 4),
        ({"alpha_pattern": {"q_proj": 20}}, 20 / 4),
        ({"alpha_pattern": {"xq_proj": 20}}, 2.0),
        ({"rank_pattern": {"model.layers.0.self_attn.q_proj": 2}}, 8 / 2),
    ],
)
def test_deltas_scale_as_peft_does(tmp_path, config, scaling):
    folder = adapter(tmp_path / "a", 0, **config)
    state = load_file(folder / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    left, right = (state[f"base_model.model.{name}.lora_{x}.weight"] for x in "BA")
    deltas = merge.deltas(folder)
    assert set(deltas) == set(SHAPES)
    assert torch.allclose(deltas[name], scaling * left @ right, rtol=1e-5, atol=1e-6)


def test_deltas_have_the_shape_of_the_weight(tmp_path):
    straight = merge.deltas(adapter(tmp_path / "a", 0))
    turned = merge.deltas(adapter(tmp_path / "b", 0, fan_in_fan_out=True))
    for module, shape in SHAPES.items():
        assert tuple(straight[module].shape) == shape
        assert torch.equal(turned[module], straight[module].T)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "VERA"}, "it is VERA"),
        ({"use_dora": True}, "DoRA's magnitudes"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 changed the base"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
        ({"bias": "all"}, "trains biases"),
        ({"lora_bias": True}, "trains biases"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
    ],
)
def test_an_adapter_that_is_no_dense_delta_is_refused(tmp_path, config, reason):
    folder = adapter(tmp_path / "odd", 0, **config)
    with pytest.raises(StudyError, match=f"cannot merge odd: .*{reason}") as caught:
        merge.deltas(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_tensor_or_a_missing_file_is_refused(tmp_path):
    extra = {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 4)}
    with pytest.raises(StudyError, match="lora_embedding_A is no LoRA of a linear layer"):
        merge.deltas(adapter(tmp_path / "odd", 0, tensors=extra))
    with pytest.raises(StudyError, match="is no saved adapter"):
        merge.deltas(tmp_path)
    folder = adapter(tmp_path / "half", 0)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(StudyError, match="has no adapter_model.safetensors"):
        merge.deltas(folder)


@pytest.mark.parametrize("factor", "AB")
def test_half_an_adapter_is_refused_by_file_and_module(tmp_path, factor):
    folder, whole = adapter(tmp_path / "half", 0), adapter(tmp_path / "whole", 1)
    state = load_file(folder / "adapter_model.safetensors")
    module = next(iter(SHAPES))
    state.pop(f"base_model.model.{module}.lora_{factor}.weight")
    save_file(state, folder / "adapter_model.safetensors")
    for refuse in (
        lambda: merge.deltas(folder),
        lambda: merge.combine([whole, folder], "sum", tmp_path / "out"),
        lambda: merge.concatenate([whole, folder], tmp_path / "out", lambda _: (1, 1)),
    ):
        with pytest.raises(StudyError, match=f"half/adapter_model.safetensors has half.*{module}"):
            refuse()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("adapter_config.json", b"", "is empty"),
        ("adapter_config.json", b'{"peft_type": "LO', "is no readable JSON"),
        ("adapter_model.safetensors", b"", "is empty"),
        ("adapter_model.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs"),
        ("adapter_model.safetensors", 9 * b"\x01", "is cut"),
    ],
)
def test_a_broken_file_of_an_adapter_is_named(tmp_path, name, content, words):
    folder = adapter(tmp_path / "broken", 0)
    (folder / name).write_bytes(content)
    with pytest.raises(StudyError, match=f"broken/{name} {words}|broken/{name}.*{words}"):
        merge.deltas(folder)


def test_an_adapter_that_diverged_is_not_merged(tmp_path):
    module, (out, _) = next(iter(SHAPES.items()))
    name = f"base_model.model.{module}.lora_B.weight"
    folder = adapter(tmp_path / "far", 0, tensors={name: torch.full((out, 4), torch.nan)})
    with pytest.raises(StudyError, match=f"far/adapter_model.safetensors: the weights {name}"):
        merge.deltas(folder)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_exported_adapter_holds_the_merged_delta(tmp_path, name):
    parts = [adapter(tmp_path / str(seed), seed, rank) for seed, rank in ((0, 4), (1, 7))]
    facts = merge.combine(parts, name, tmp_path / "out", seed=5)
    dense = [merge.deltas(part) for part in parts]
    generator = torch.Generator().manual_seed(5)
    exported = merge.deltas(tmp_path / "out")
    for module in sorted(SHAPES):
        expected = OPERATORS[name](torch.stack([d[module] for d in dense]), generator)
        assert relative(exported[module], expected) < 1e-5
    assert facts["truncation"] < 1e-5
    entry_by_entry = name in ("dare", "magnitude", "ram", "ties")  # leaves no low rank
    assert facts["rank"] > 11 if entry_by_entry else facts["rank"] == 11


@pytest.mark.parametrize("turned", [False, True])
def test_facts_describe_inputs_result_and_rounding(tmp_path, turned):
    parts = [
        adapter(tmp_path / name, seed, fan_in_fan_out=turned) for seed, name in enumerate("ab")
    ]
    weights = {module: torch.randn(d.shape) for module, d in merge.deltas(parts[0]).items()}
    (tmp_path / "base").mkdir()
    save_file({f"{m}.weight": w for m, w in weights.items()}, tmp_path / "base/model.safetensors")
    facts = merge.combine(parts, "sum", tmp_path / "out", base=tmp_path / "base")
    flat = [torch.cat([d[m].flatten() for m in SHAPES]).double() for d in map(merge.deltas, parts)]
    assert facts["norms"] == pytest.approx([f.norm().item() for f in flat])
    assert facts["norm"] == pytest.approx((flat[0] + flat[1]).norm().item())
    cosine = (flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()).item()
    assert facts["cosine"][0] == pytest.approx([1, cosine], abs=1e-6)
    w0 = torch.cat([weights[m].flatten() for m in SHAPES]).double()
    exact = w0 + flat[0] + flat[1]
    loss = ((exact.bfloat16().double() - exact).norm() / (flat[0] + flat[1]).norm()).item()
    assert facts["bf16_loss"] == pytest.approx(loss, rel=1e-4)
    assert len(json.dumps(facts)) < 1000
    with pytest.raises(StudyError, match="has no weight model.layers.0"):
        merge.combine(parts, "sum", tmp_path / "out", base=tmp_path)


def test_adapters_of_other_modules_merge_on_the_union(tmp_path):
    names = list(SHAPES)
    parts = [
        adapter(tmp_path / "a", 0, modules=names[:3]),
        adapter(tmp_path / "b", 1, modules=names[2:]),
    ]
    merge.combine(parts, "mean", tmp_path / "out")
    one, two = map(merge.deltas, parts)
    merged = merge.deltas(tmp_path / "out")
    assert set(merged) == set(SHAPES)
    assert relative(merged[names[0]], one[names[0]] / 2) < 1e-5
    assert relative(merged[names[2]], (one[names[2]] + two[names[2]]) / 2) < 1e-5
    assert relative(merged[names[3]], two[names[3]] / 2) < 1e-5


def test_adapters_of_other_bases_are_refused(tmp_path):
    other = adapter(tmp_path / "b", 1, base_model_name_or_path="other")
    parts = [adapter(tmp_path / "a", 0), other]
    with pytest.raises(StudyError, match="cannot merge a with b: .* is base there and other here"):
        merge.combine(parts, "mean", tmp_path / "out")
    with pytest.raises(StudyError, match="unknown merge method 'men'; valid: dare, knots"):
        merge.combine(parts[:1], "men", tmp_path / "out")
    with pytest.raises(StudyError, match="nothing to merge"):
        merge.combine([], "mean", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_out_is_replaced_whole_and_only_if_it_is_an_adapter(tmp_path, monkeypatch):
    part = adapter(tmp_path / "a", 0)
    merge.combine([part], "sum", tmp_path / "out")
    merge.combine([part, part], "sum", tmp_path / "out")
    name = next(iter(SHAPES))
    doubled = 2 * merge.deltas(part)[name]
    assert relative(merge.deltas(tmp_path / "out")[name], doubled) < 1e-5
    (tmp_path / "notes").mkdir()
    with pytest.raises(StudyError, match="notes exists and is no adapter"):
        merge.combine([part], "sum", tmp_path / "notes")

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        merge.combine([part], "sum", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "notes", "out"]
    assert relative(merge.deltas(tmp_path / "out")[name], doubled) < 1e-5


def test_a_result_of_zero_is_still_an_adapter(tmp_path):
    part = adapter(tmp_path / "a", 0)
    state = load_file(part / "adapter_model.safetensors")
    save_file(
        {key: torch.zeros_like(value) for key, value in state.items()},
        part / "adapter_model.safetensors",
    )
    facts = merge.combine([part, part], "norm_matched", tmp_path / "out")
    assert (facts["norm"], facts["truncation"], facts["rank"]) == (0, 0, 1)
    assert not any(d.any() for d in merge.deltas(tmp_path / "out").values())


@pytest.fixture(scope="module")
def qwen():
    """A maker of one and the same random Qwen2 model: hidden 64, two layers."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    def make():
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=50,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        return Qwen2ForCausalLM(config).eval()

    return make


@torch.no_grad()
def logits(model):
    return model(torch.arange(24).reshape(2, 12)).logits


@torch.no_grad()
def with_deltas(model, deltas):
    for module, d in deltas.items():
        model.get_submodule(module).weight += d
    return logits(model)


@pytest.mark.parametrize("name", OPERATORS)
def test_peft_loads_a_merged_adapter_to_base_plus_delta(tmp_path, qwen, name):
    from peft import PeftModel

    names = list(SHAPES)
    fewer = adapter(tmp_path / "b", 1, 5, modules=names[1:], use_rslora=True)
    parts = [adapter(tmp_path / "a", 0, 3), fewer]
    merge.combine(parts, name, tmp_path / "out")
    dense = merge.deltas(tmp_path / "out")
    ranks = {module: torch.linalg.matrix_rank(d).item() for module, d in dense.items()}
    assert len(set(ranks.values())) > 1, "modules of different rank are the hard case"
    loaded = PeftModel.from_pretrained(qwen(), tmp_path / "out")
    for module, d in dense.items():
        layer = loaded.base_model.model.get_submodule(module)
        assert relative(layer.get_delta_weight("default"), d) < 1e-5
    expected = with_deltas(qwen(), dense)
    assert (logits(loaded) - expected).abs().max() < 1e-4
    assert (logits(loaded) - logits(qwen())).abs().max() > 1e-2, "the adapter does something"


def test_two_active_adapters_are_their_sum(tmp_path, qwen):
    from peft import PeftModel

    parts = [adapter(tmp_path / "a", 0, 3), adapter(tmp_path / "b", 1, 5)]
    merge.combine(parts, "sum", tmp_path / "out")
    composed = PeftModel.from_pretrained(qwen(), parts[0], adapter_name="a")
    composed.load_adapter(parts[1], adapter_name="b")
    composed.base_model.set_adapter(["a", "b"])
    merged = PeftModel.from_pretrained(qwen(), tmp_path / "out")
    assert (logits(composed) - logits(merged)).abs().max() < 1e-4


PEFTS = {  # combination type -> options, and the relative error to the mean that it makes
    "cat": ({}, 0, 1e-5), "svd": (dict(svd_rank=16), 0, 1e-4), "linear": ({}, 0.8, 1.2),
    "ties": (dict(density=0.5), 0.8, 1.2), "magnitude_prune": (dict(density=0.5), 0.8, 1.2),
    "dare_linear": (dict(density=0.5), 1.5, 3.5),
}  # fmt: skip


def test_what_pefts_merges_are_off_by(tmp_path, qwen):
    """Why this module exists: most of `add_weighted_adapter` is no merge of the deltas."""
    from peft import PeftModel

    parts = [adapter(tmp_path / "a", 0, 8), adapter(tmp_path / "b", 1, 8)]
    merge.combine(parts, "mean", tmp_path / "out")
    model = PeftModel.from_pretrained(qwen(), parts[0], adapter_name="a")
    model.load_adapter(parts[1], adapter_name="b")
    model.load_adapter(tmp_path / "out", adapter_name="ours")
    halves = ["a", "b"], [0.5, 0.5]
    for kind, (options, _, _) in PEFTS.items():
        model.add_weighted_adapter(*halves, adapter_name=kind, combination_type=kind, **options)
    model.add_weighted_adapter(*halves, adapter_name="cut", combination_type="svd", svd_rank=8)
    one, two = map(merge.deltas, parts)
    bounds = {kind: row[1:] for kind, row in PEFTS.items()} | {"ours": (0, 1e-5)}
    for kind, (low, high) in (bounds | {"cut": (0.3, 0.65)}).items():
        for module in SHAPES:
            layer = model.base_model.model.get_submodule(module)
            mean = (one[module] + two[module]) / 2
            assert low <= relative(layer.get_delta_weight(kind), mean) <= high, (kind, module)
