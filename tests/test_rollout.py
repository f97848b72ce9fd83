import pytest

from hybridlib import data
from hybridlib.engine import rollout

PROMPTS = 6


@pytest.fixture(scope="module")
def prompts():
    return [
        row["prompt"]
        for name in ("tiny_gsm8k", "tiny_math")
        for row in data.load(name, "test", limit=3)
    ]


def test_log_probabilities_are_the_models(tiny, prompts):
    import torch

    model, tokenizer = tiny
    encoded = rollout.encode(tokenizer, prompts)
    generator = torch.Generator().manual_seed(0)
    tokens, log_probs = rollout.sample_ids(
        model, encoded, 4, 40, [tokenizer.eos_token_id], 0.7, generator
    )
    assert len(tokens) == len(log_probs) == 4 * PROMPTS
    for i, (completion, log_prob) in enumerate(zip(tokens, log_probs, strict=True)):
        prompt = encoded[i // 4]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        exact = torch.log_softmax(logits / 0.7, -1)[range(len(completion)), completion]
        torch.testing.assert_close(torch.tensor(log_prob), exact, atol=1e-4, rtol=1e-4)
        assert tokenizer.eos_token_id not in completion[:-1]
        assert len(completion) == 40 or completion[-1] == tokenizer.eos_token_id


def test_greedy_is_what_generate_gives(tiny, prompts):
    model, tokenizer = tiny
    ours = rollout.sample(model, tokenizer, prompts, 1, 40, temperature=0)
    for prompt, texts in zip(prompts, ours, strict=True):
        ids = tokenizer.apply_chat_template(
            [prompt], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        out = model.generate(ids, do_sample=False, max_new_tokens=40)
        assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == texts[0]


def test_frequencies_are_those_of_the_distribution(tiny, prompts):
    import torch
    from scipy.stats import chisquare

    model, tokenizer = tiny
    ids = rollout.encode(tokenizer, prompts[:1])
    n = 20_000
    tokens, _ = rollout.sample_ids(
        model, ids, n, 1, [tokenizer.eos_token_id], 1.0, torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor(ids)).logits[0, -1].double(), -1) * n
    seen = torch.bincount(torch.tensor(tokens)[:, 0], minlength=len(expected)).double()
    often = expected > 10
    seen = torch.cat([seen[often], seen[~often].sum()[None]])
    expected = torch.cat([expected[often], expected[~often].sum()[None]])
    assert chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3


def test_the_same_seed_gives_the_same_answers(tiny, prompts):
    a, b, c = (rollout.sample(*tiny, prompts, 3, 30, seed=s) for s in (0, 0, 1))
    assert a == b != c


def test_a_zero_probability_is_never_drawn():
    import torch

    logits = torch.full((4000, 5), float("-inf"))
    logits[:, [1, 3]] = 0.0
    tokens, log_probs = rollout._draw(logits, 1.0, torch.Generator().manual_seed(0))
    assert set(tokens.tolist()) == {1, 3} and 1800 < int((tokens == 1).sum()) < 2200
    torch.testing.assert_close(log_probs.exp(), torch.full((4000,), 0.5))


def test_other_decoders_are_sampled_by_generate_with_a_notice(capsys):
    """Same contract: log-probabilities of what was drawn, a stop at the end token, a seed."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    model = GPTNeoXForCausalLM(config).eval()
    prompts = [[3, 4, 5, 6, 7], [8, 9]]
    rollout._notice.cache_clear()

    def draw(temperature, seed=0):
        return rollout.sample_ids(
            model, prompts, 3, 20, [0], temperature, torch.Generator().manual_seed(seed)
        )

    tokens, log_probs = draw(0.8)
    assert "gpt_neox" in capsys.readouterr().out
    assert draw(0.8) == (tokens, log_probs) != draw(0.8, seed=1)
    assert capsys.readouterr().out == ""  # once
    assert {len(t) < 20 for t in tokens} == {True, False} or all(t[-1] == 0 for t in tokens)
    for i, (answer, log_prob) in enumerate(zip(tokens, log_probs, strict=True)):
        prompt = prompts[i // 3]
        assert 0 not in answer[:-1] and (len(answer) == 20 or answer[-1] == 0)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        exact = torch.log_softmax(logits / 0.8, -1)[range(len(answer)), answer]
        torch.testing.assert_close(torch.tensor(log_prob), exact, atol=1e-4, rtol=1e-4)
    greedy, _ = draw(0)
    assert greedy[0] == greedy[1] == greedy[2]


def test_adapters_are_sampled_from_and_left_alone(tiny, prompts):
    import copy

    import torch

    from hybridlib.adapters import ADAPTERS, attach

    for name in ADAPTERS:
        model = attach(ADAPTERS[name](4), copy.deepcopy(tiny[0])).eval()
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "lora_B" in key:
                    weight.normal_(std=0.05)
        before = {key: weight.clone() for key, weight in model.state_dict().items()}
        ids = rollout.encode(tiny[1], prompts[:2])
        tokens, log_probs = rollout.sample_ids(
            model, ids, 2, 12, [tiny[1].eos_token_id], 1.0, torch.Generator().manual_seed(2)
        )
        with torch.no_grad():
            whole = model(torch.tensor([ids[0] + tokens[0]])).logits[0, len(ids[0]) - 1 : -1]
        exact = torch.log_softmax(whole, -1)[range(len(tokens[0])), tokens[0]]
        torch.testing.assert_close(torch.tensor(log_probs[0]), exact, atol=1e-4, rtol=1e-4)
        assert all(torch.equal(w, before[key]) for key, w in model.state_dict().items())


def test_a_template_that_writes_the_start_and_a_tokenizer_that_adds_it_give_one():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "why": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "<s>{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert tokenizer("why ?")["input_ids"] == [0, 2, 3]
    assert rollout.encode(tokenizer, [[{"role": "user", "content": "why ?"}]]) == [[0, 2, 3]]
