import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridlib.adapters import ADAPTERS, attach
from hybridlib.engine import decoder

SMALL = dict(
    vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
)  # fmt: skip
LORA = [name for name, entry in ADAPTERS.items() if entry(4).peft_type == "LORA"]
VARIANTS = {
    "llama": dict(attention_bias=True, mlp_bias=True),
    "mistral": dict(sliding_window=None),
    "qwen2": dict(tie_word_embeddings=True),
    "qwen3": dict(head_dim=8),
}


def _random(kind: str, **options):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SMALL | VARIANTS.get(kind, {}) | options)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # biases and norms start at 0 and 1, where a mistake would not show
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def _adapted(model, name: str):
    import torch

    peft = attach(ADAPTERS[name](4), copy.deepcopy(model)).eval()
    with torch.no_grad():
        for key, weight in peft.named_parameters():
            if "lora_" in key:
                weight.normal_(std=0.2)
    return peft


def _reference(model, prompts, completions, temperature):
    """Log-probabilities by transformers, one sequence at a time."""
    import torch

    parts = []
    for prompt, answers in zip(prompts, completions, strict=True):
        for answer in answers:
            if answer:
                ids = torch.tensor([prompt + answer], device=model.device)
                logits = model(ids).logits[0, len(prompt) - 1 : -1]
                log_probs = torch.log_softmax(logits / temperature, -1)
                parts.append(log_probs[range(len(answer)), answer])
    return torch.cat(parts)


PROMPTS = [[3, 4, 5, 6], [7], [8, 9]]
COMPLETIONS = [[[1, 2, 3], [4], [5, 6, 7, 8, 9]], [[1], [2]], [[9, 8, 7]]]


@pytest.mark.parametrize("kind", decoder.MODELS)
@pytest.mark.parametrize("adapter", LORA)
def test_values_and_gradients_are_those_of_transformers(kind, adapter):
    import torch

    model = _adapted(_random(kind), adapter)
    assert decoder.unsupported(model, training=True) == ""
    results = []
    for ours in (True, False):
        model.zero_grad()
        if ours:
            batch = decoder.PrefixBatch(PROMPTS, COMPLETIONS)
            log_probs, entropy = decoder.score_completions(decoder.Decoder(model), batch, 0.7)
            assert len(entropy) == len(log_probs) and bool((entropy > 0).all())
        else:
            log_probs = _reference(model, PROMPTS, COMPLETIONS, 0.7)
        (log_probs * torch.arange(len(log_probs))).sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((log_probs.detach(), gradients))
    (a, grad_a), (b, grad_b) = results
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert grad_a.keys() == grad_b.keys() and len(grad_a) > 0
    for name, gradient in grad_b.items():
        torch.testing.assert_close(grad_a[name], gradient, atol=2e-3, rtol=2e-3)


def test_a_full_fine_tune_has_its_gradients_too():
    import torch

    model = _random("qwen2")
    batch = decoder.PrefixBatch(PROMPTS, COMPLETIONS)
    decoder.score_completions(decoder.Decoder(model), batch)[0].sum().backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    _reference(model, PROMPTS, COMPLETIONS, 1.0).sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(ours[name], weight.grad, atol=2e-3, rtol=2e-3)


@pytest.fixture(scope="module")
def qwen2():
    return _random("qwen2")


TOKENS = st.lists(st.integers(0, 49), min_size=1, max_size=6)
GROUP = st.tuples(TOKENS, st.lists(st.one_of(TOKENS, st.just([])), min_size=1, max_size=4))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(groups=st.lists(GROUP, min_size=1, max_size=4))
def test_any_shape_of_groups(qwen2, groups):
    import torch

    prompts, completions = zip(*groups, strict=True)
    if not any(answer for answers in completions for answer in answers):
        return
    with torch.no_grad():
        batch = decoder.PrefixBatch(prompts, completions)
        ours = decoder.score_completions(decoder.Decoder(qwen2), batch)[0]
        torch.testing.assert_close(
            ours, _reference(qwen2, prompts, completions, 1.0), atol=1e-4, rtol=1e-4
        )


def test_a_prompt_is_read_once():
    batch = decoder.PrefixBatch([[1, 2, 3]], [[[4, 5], [6, 7, 8]]])
    assert batch.tokens.tolist() == [1, 2, 3, 4, 6, 7]
    assert batch.positions.tolist() == [0, 1, 2, 3, 3, 4]
    assert batch.targets.tolist() == [4, 5, 6, 7, 8]
    assert batch.sources.tolist() == [2, 3, 2, 4, 5]


def test_four_bit_weights_are_read_as_they_are_and_their_adapter_learns(tiny):
    import torch

    from hybridlib import models
    from hybridlib.profiles import PROFILES

    model, _ = models.load(PROFILES["tiny"], "lora", nf4=True)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.05)
    results = []
    for ours in (True, False):
        model.zero_grad()
        prompts, answers = [[5, 6, 7]], [[[8, 9, 10], [11, 12]]]
        if ours:
            log_probs = decoder.score_completions(
                decoder.Decoder(model), decoder.PrefixBatch(prompts, answers, model.device)
            )[0]
        else:
            log_probs = _reference(model, prompts, answers, 1.0)
        log_probs.sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        results.append((log_probs.detach(), gradients))
    (a, grad_a), (b, grad_b) = results
    torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    for name, gradient in grad_b.items():
        torch.testing.assert_close(grad_a[name], gradient, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        dict(modules_to_save=["lm_head"]),
        dict(target_modules=["lm_head", "v_proj"]),
        dict(bias="all"),
    ],
    ids=str,
)
def test_the_head_and_the_biases_may_learn(options):
    import torch
    from peft import LoraConfig, get_peft_model

    model = _random("llama")
    model = get_peft_model(
        model, LoraConfig(**dict(target_modules=["q_proj"], task_type="CAUSAL_LM") | options)
    )
    assert decoder.unsupported(model, training=True) == ""
    results = []
    for ours in (True, False):
        model.zero_grad()
        batch = decoder.PrefixBatch(PROMPTS, COMPLETIONS)
        log_probs = (
            decoder.score_completions(decoder.Decoder(model), batch)[0]
            if ours
            else _reference(model, PROMPTS, COMPLETIONS, 1.0)
        )
        log_probs.sum().backward()
        results.append({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})
    for name, gradient in results[1].items():
        torch.testing.assert_close(results[0][name], gradient, atol=2e-3, rtol=2e-3)


def test_stretched_positions_are_those_of_the_model():
    import torch

    scaled = dict(
        rope_type="llama3",
        rope_theta=1e4,
        factor=4.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
    )
    for rope in (scaled, dict(rope_type="yarn", rope_theta=1e4, factor=4.0)):
        model = _random("llama", rope_parameters=rope)
        prompts, answers = [list(range(40))], [[[1, 2, 3], [4, 5]]]
        with torch.no_grad():
            ours = decoder.score_completions(
                decoder.Decoder(model), decoder.PrefixBatch(prompts, answers)
            )[0]
            exact = _reference(model, prompts, answers, 1.0)
        torch.testing.assert_close(ours, exact, atol=1e-4, rtol=1e-4)


def test_a_switched_off_or_merged_adapter_is_not_added_again():
    import torch

    model = _adapted(_random("llama"), "lora")
    batch = decoder.PrefixBatch(PROMPTS, COMPLETIONS)
    with torch.no_grad():
        on = decoder.score_completions(decoder.Decoder(model), batch)[0]
        with model.disable_adapter():
            off = decoder.score_completions(decoder.Decoder(model), batch)[0]
            exact = _reference(model, PROMPTS, COMPLETIONS, 1.0)
        model.merge_adapter()
        merged = decoder.score_completions(decoder.Decoder(model), batch)[0]
    torch.testing.assert_close(off, exact, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged, on, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(on, off, atol=1e-2)


def test_what_cannot_be_stood_in_for_is_named():
    import torch
    from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model

    linear = dict(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    cases = {
        "gpt_neox": _random("gpt_neox"),
        "silu": _random("llama", hidden_act="gelu"),
        "sliding": _random("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=0),
        "half": _adapted(_random("qwen2"), "lora").to(torch.bfloat16),
        "other than LoRA": get_peft_model(
            _random("qwen2"), IA3Config(**linear, feedforward_modules=["down_proj"])
        ),
        "dropout": get_peft_model(_random("qwen2"), LoraConfig(**linear, lora_dropout=0.1)),
        "sliding ": _random("mistral", sliding_window=8),
        "a bias": get_peft_model(_random("qwen2"), LoraConfig(**linear, lora_bias=True)),
        "on the embedding": get_peft_model(
            _random("qwen2"), LoraConfig(target_modules=["embed_tokens"], task_type="CAUSAL_LM")
        ),
        "virtual tokens": get_peft_model(
            _random("qwen2"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
        ),
        "dropout ": _random("llama", attention_dropout=0.1),
    }
    for reason, model in cases.items():
        assert reason.strip() in decoder.unsupported(model, training=True), reason
    assert decoder.unsupported(cases["dropout"]) == ""  # it is off while sampling
    two = _adapted(_random("qwen2"), "lora")
    two.add_adapter("second", two.peft_config["default"])
    two.base_model.set_adapter(["default", "second"])
    assert "several adapters" in decoder.unsupported(two)
    model = _random("qwen2")
    model.gradient_checkpointing_enable()
    assert "checkpointing" in decoder.unsupported(model, training=True)
