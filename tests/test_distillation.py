"""On-policy distillation against its definition: the reverse KL on the student's own samples."""

import json
from dataclasses import asdict, replace

import pytest

from hybridlib import StudyError, fingerprint, labels, models, study
from hybridlib.engine import rollout, trainers
from hybridlib.methods import METHODS, Job
from hybridlib.methods.distillation import reverse_kl
from hybridlib.rewards import REWARDS

DESCENT = ("optim=sgd", "max_grad_norm=0", "lr_scheduler_type=constant")
"""With a learning rate of 1, a step of these leaves the gradient itself."""


def _train(profile, run, out, start=None, teacher=None):
    job = Job(run, profile, out, rows=study.rows_for(run, profile), start=start, teacher=teacher)
    return METHODS[run.method](job)


def _run(**fields):
    return study.Run("distil", teacher="sft", **fields)


def _perturbed(small, out, seed=0, std=0.1):
    """Write an adapter that says something else than the base does (std 0: the same)."""
    import torch

    model, _ = models.load(small, "lora", 8)
    generator = torch.Generator(model.device).manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=std, generator=generator)
    model.save_pretrained(out)
    return out


def _weights(adapter):
    from safetensors.torch import load_file

    return load_file(adapter / "adapter_model.safetensors")


def _by_padding(monkeypatch):
    """Let transformers' forward pass score what the engine samples."""
    monkeypatch.setattr(trainers, "can_replace_pass", lambda trainer, model: False)


def _steps(small, steps, micro_batches=1, **options):
    """Return the profile with two prompts a step, four samples each."""
    grpo = dict(
        max_steps=steps,
        per_device_train_batch_size=8 // micro_batches,
        gradient_accumulation_steps=micro_batches,
    )
    return replace(small, grpo=small.grpo | grpo | options)


@pytest.fixture
def samples(monkeypatch):
    """What was sampled, as pairs of a prompt's messages and token ids; none earns a reward."""
    sampled = []

    def correct(prompts, completions, completion_ids, **_):
        sampled.extend(zip(prompts, completion_ids, strict=True))
        return [0.0] * len(completions)

    monkeypatch.setitem(REWARDS, "correct", correct)
    return sampled


def _divergence(student, teacher, prompts, completions, temperature=1.0):
    """Return KL(student || teacher) of each token, by transformers on rows padded at their end."""
    import torch
    from torch.distributions import Categorical, kl_divergence
    from torch.nn.utils.rnn import pad_sequence

    rows = [
        torch.tensor([*p, *c], device=student.device)
        for p, c in zip(prompts, completions, strict=True)
    ]
    ids = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logits = student(input_ids=ids, attention_mask=mask).logits / temperature
    with torch.no_grad():
        teacher_logits = teacher(input_ids=ids, attention_mask=mask).logits / temperature
    divergence = kl_divergence(Categorical(logits=logits), Categorical(logits=teacher_logits))
    parts = [
        divergence[row, len(p) - 1 : len(p) + len(c) - 1]
        for row, (p, c) in enumerate(zip(prompts, completions, strict=True))
    ]
    return torch.cat(parts)


def test_the_divergence_is_that_of_torch_and_exact_where_both_agree():
    import torch
    from torch.distributions import Categorical, kl_divergence

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 300, generator=generator, requires_grad=True)
    other = torch.randn(5, 300, generator=generator)
    expected = kl_divergence(Categorical(logits=logits), Categorical(logits=other))
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    divergence = reverse_kl(logits.log_softmax(-1), other.log_softmax(-1))
    torch.testing.assert_close(divergence, expected)
    torch.testing.assert_close(torch.autograd.grad(divergence.sum(), logits)[0], gradient)
    same = reverse_kl(logits.log_softmax(-1), logits.detach().log_softmax(-1))
    assert not same.any() and not torch.autograd.grad(same.sum(), logits)[0].any()


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
def test_who_is_taught_by_itself_learns_nothing(small, world, monkeypatch, padded):
    start = _perturbed(small, world / "sft")
    if padded:
        _by_padding(monkeypatch)
    trained = _train(small, _run(start="sft"), world / "out", start, teacher=start)
    assert [point["loss"] for point in trained.curve] == [0.0, 0.0]
    before, after = _weights(start), _weights(trained.adapter)
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_loss_and_gradient_are_the_divergence_of_the_samples(
    small, world, monkeypatch, samples, padded, temperature
):
    """Of all samples, though none has an advantage; the teacher stays what it is."""
    import torch

    start, taught_by = _perturbed(small, world / "a"), _perturbed(small, world / "b", seed=1)
    loaded, load = [], models.load
    monkeypatch.setattr(models, "load", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    if padded:
        _by_padding(monkeypatch)
    run = _run(
        options=(*DESCENT, f"temperature={temperature}"), learning_rate=1.0, steps=1, start="sft"
    )
    trained = _train(small, run, world / "out", start, taught_by)
    assert len(samples) == 8 and trained.curve[0]["reward"] == 0

    (student, tokenizer), (teacher, _) = (
        load(small, start=adapter) for adapter in (start, taught_by)
    )
    prompts = rollout.encode(tokenizer, [prompt for prompt, _ in samples])
    completions = [ids for _, ids in samples]
    divergence = _divergence(student, teacher, prompts, completions, temperature)
    assert len(divergence) == sum(map(len, completions))
    divergence.mean().backward()
    assert trained.curve[0]["loss"] == pytest.approx(divergence.mean().item(), abs=1e-4)
    before, after = _weights(start), _weights(trained.adapter)
    gradients = {
        name.replace(".default", ""): weight.grad
        for name, weight in student.named_parameters()
        if weight.requires_grad
    }
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    for name, gradient in gradients.items():
        torch.testing.assert_close(before[name] - after[name], gradient, atol=4e-6, rtol=1e-3)
    used, fresh = loaded[1][0].state_dict(), teacher.state_dict()
    assert all(used[name].equal(fresh[name]) for name in fresh) and not loaded[1][0].training


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [2, 4])
def test_accumulated_micro_batches_give_the_update_of_one_batch(small, world, micro_batches):
    import torch

    start, taught_by = _perturbed(small, world / "a"), _perturbed(small, world / "b", seed=1)
    run = _run(options=DESCENT, learning_rate=0.1)
    whole, parts = (
        _train(_steps(small, 3, n), run, world / str(n), start, taught_by)
        for n in (1, micro_batches)
    )
    for one, other in zip(whole.curve, parts.curve, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-4)
    before, one, other = (_weights(a) for a in (start, whole.adapter, parts.adapter))
    assert max(float((one[name] - before[name]).abs().max()) for name in one) > 1e-3
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_the_student_comes_closer_to_its_teacher_on_held_out_prompts(small, world):
    import torch

    from hybridlib import data

    start, taught_by = (
        _perturbed(small, world / "a", std=0.2),
        _perturbed(small, world / "b", std=0),
    )
    profile = _steps(small, 20, learning_rate=3e-3)
    trained = _train(profile, _run(start="sft"), world / "out", start, taught_by)
    held_out = data.load(small.datasets[0], "test", 32)["prompt"]
    teacher, tokenizer = models.load(small, start=taught_by)
    prompts, means = rollout.encode(tokenizer, held_out), []
    for adapter in (start, trained.adapter):
        student, _ = models.load(small, start=adapter)
        drawn = torch.Generator(student.device).manual_seed(0)
        completions, _ = rollout.sample_ids(
            student, prompts, 1, 48, [tokenizer.eos_token_id], 1.0, drawn
        )
        with torch.no_grad():
            means.append(_divergence(student, teacher, prompts, completions).mean().item())
    assert means[1] < 0.6 * means[0]


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(small, world, monkeypatch):
    profile = _steps(small, 4, save_strategy="steps", save_steps=1)
    run, taught_by, batches = _run(), _perturbed(small, world / "sft"), []
    whole = _train(profile, run, world / "whole", None, taught_by)
    reward = REWARDS["correct"]

    def correct(completions, **columns):
        batches.append(completions)
        if len(batches) == 3:
            raise InterruptedError
        return reward(completions, **columns)

    monkeypatch.setitem(REWARDS, "correct", correct)
    with pytest.raises(InterruptedError):
        _train(profile, run, world / "parts", None, taught_by)
    assert (world / "parts" / "checkpoint-2").is_dir()
    parts = _train(profile, run, world / "parts", None, taught_by)
    assert parts.curve == whole.curve
    one, other = ((t.adapter / "adapter_model.safetensors").read_bytes() for t in (whole, parts))
    assert one == other


@pytest.mark.slow
def test_it_runs_from_rows_to_record(small, world):
    for run in (study.Run("sft"), _run(rewards=("correct", "format"))):
        record = study.execute(run, small)
    stored = json.loads((world / "data" / "results" / "small" / f"{run.id}.json").read_text())
    assert stored["scores"] and stored["run"]["teacher"] == "sft"
    assert set(record["facts"]["pay"]) == {"correct", "format"}
    assert all(point["loss"] > 0 for point in record["curve"]) and record["cost"]["tokens"] > 0


def test_a_run_without_a_teacher_is_refused():
    with pytest.raises(StudyError, match="^a distil needs the run that teaches: --teacher ID$"):
        study.Run("distil")
    with pytest.raises(StudyError, match="needs the backend hf"):
        _run(backend="unsloth")


def test_an_arm_is_called_by_its_teacher():
    run = study.Run("distil", teacher="grpo_rank-16", start="sft")
    assert run.prerequisites == ("sft", "grpo_rank-16")
    assert (
        labels.arm_label(asdict(run)) == "SFT, then on-policy distillation, taught by GRPO rank 16"
    )


def test_other_runs_do_not_hang_on_distillation(small):
    assert "methods/distillation.py" in fingerprint.digests_of(_run(), small)
    for method in ("sft", "grpo", "chord", "base"):
        assert "methods/distillation.py" not in fingerprint.digests_of(study.Run(method), small)
