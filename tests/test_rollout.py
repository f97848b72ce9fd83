import pytest

from hybridlib import data, rollout

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
    tokens, logps = rollout.sample_ids(
        model, encoded, 4, 40, tokenizer.eos_token_id, 0.7, generator
    )
    assert len(tokens) == len(logps) == 4 * PROMPTS
    for i, (completion, logp) in enumerate(zip(tokens, logps, strict=True)):
        prompt = encoded[i // 4]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        exact = torch.log_softmax(logits / 0.7, -1)[range(len(completion)), completion]
        torch.testing.assert_close(torch.tensor(logp), exact, atol=1e-4, rtol=1e-4)
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
        model, ids, n, 1, tokenizer.eos_token_id, 1.0, torch.Generator().manual_seed(1)
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


def test_folding_changes_no_logits_and_leaves_the_weights_bitwise(tiny, prompts):
    import copy

    import torch
    from peft import get_peft_model

    from hybridlib.adapters import ADAPTERS

    model = copy.deepcopy(tiny[0])
    before = {name: w.clone() for name, w in model.state_dict().items()}
    for name in ADAPTERS:
        peft = get_peft_model(copy.deepcopy(model), ADAPTERS[name](4)).eval()
        with torch.no_grad():
            for key, weight in peft.named_parameters():
                if "lora_B" in key:
                    weight.normal_(std=0.05)
            ids = torch.tensor([[5, 17, 33, 60]])
            composed = peft(ids).logits
            with rollout.folded(peft):
                folded = peft(ids).logits
            again = peft(ids).logits
        assert not torch.equal(composed, tiny[0](ids).logits)
        torch.testing.assert_close(folded, composed, atol=1e-4, rtol=1e-4)
        assert torch.equal(again, composed)
        kept = {
            k.replace("base_layer.", ""): w for k, w in peft.get_base_model().state_dict().items()
        }
        assert all(torch.equal(kept[k], w) for k, w in before.items())
