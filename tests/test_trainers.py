"""The replaced passes against TRL's own: same loss, same gradients, same logged numbers."""

import pytest

from hybridlib import models, study
from hybridlib.engine import trainers
from hybridlib.methods import train
from hybridlib.rewards import REWARDS


def _grpo(small, out, replaced: bool, rollout_func=None, reward_funcs=None, **options):
    import torch
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = models.load(small, "lora", 4)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora" in name:
            weight.data.normal_(std=0.02)
    run = study.Run("grpo")
    args = GRPOConfig(**train.options(run, small, out) | options)
    trainer_class = trainers.grpo(GRPOTrainer) if replaced else GRPOTrainer
    trainer = trainer_class(
        model=model,
        args=args,
        reward_funcs=reward_funcs or [REWARDS["correct"]],
        processing_class=tokenizer,
        rollout_func=rollout_func,
        train_dataset=study.rows_for(run, small).remove_columns(["completion"]),
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer, model.train()


def _batch():
    """Two prompts of unlike length with three samples each, and one group that earned the same."""
    import torch

    generator = torch.Generator().manual_seed(1)
    sizes, prompts = [3, 11, 7, 1, 12, 5, 6, 8, 2], [9, 4, 6]
    batch = {
        "prompt_ids": torch.full((9, 9), 1),
        "prompt_mask": torch.zeros(9, 9, dtype=torch.long),
        "completion_ids": torch.full((9, 12), 1),
        "completion_mask": torch.zeros(9, 12, dtype=torch.long),
    }
    for group, length in enumerate(prompts):
        ids = torch.randint(5, 300, (length,), generator=generator)
        for row in range(3 * group, 3 * group + 3):
            batch["prompt_ids"][row, 9 - length :] = ids
            batch["prompt_mask"][row, 9 - length :] = 1
            answer = torch.randint(5, 300, (sizes[row],), generator=generator)
            batch["completion_ids"][row, : sizes[row]] = answer
            batch["completion_mask"][row, : sizes[row]] = 1
    order = torch.tensor([4, 0, 8, 2, 6, 1, 3, 7, 5])  # TRL shuffles rows
    batch = {key: value[order] for key, value in batch.items()}
    batch["advantages"] = torch.tensor([0.5, -1, 0, 0.7, 0, 0.4, 0.9, 0, -1.2])
    batch["num_items_in_batch"] = batch["completion_mask"].sum()
    batch["old_per_token_logps"] = -6 + torch.rand(9, 12, generator=generator)
    batch["sampling_per_token_logps"] = batch["old_per_token_logps"]
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where `models.load` puts a model
    return {key: value.to(device) for key, value in batch.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [dict(loss_type=kind) for kind in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")]
    + [
        dict(loss_type="grpo", importance_sampling_level="sequence"),
        dict(temperature=0.7),
        dict(beta=0.1),
        dict(entropy_coef=0.1),
        dict(top_entropy_quantile=0.5),
    ],
    ids=str,
)
def test_grpo_loss_and_gradients_are_trls(small, world, options):
    import torch

    results, batch = [], _batch()
    for replaced in (False, True):
        trainer, model = _grpo(small, world / "out", replaced, **options)
        if not replaced:  # the policy has moved a little since it sampled: some ratios are clipped
            ids, mask = (
                torch.cat([batch[f"{part}_{kind}"] for part in ("prompt", "completion")], 1)
                for kind in ("ids", "mask")
            )
            with torch.no_grad():
                old, *_ = trainer._get_per_token_logps_and_entropies(model, ids, mask, 12)
                with model.disable_adapter():
                    reference = trainer._get_per_token_logps_and_entropies(model, ids, mask, 12)
            batch["ref_per_token_logps"] = reference[0]
            noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(2)) * 0.1
            batch["old_per_token_logps"] = old + noise.to(old.device)
            batch["sampling_per_token_logps"] = batch["old_per_token_logps"]
        loss = trainer._compute_loss(model, batch)
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        metrics = {k: v[-1] for k, v in trainer._metrics["train"].items()}
        results.append((loss.detach(), gradients, metrics))
    stock, ours = results
    torch.testing.assert_close(ours[0], stock[0], atol=1e-5, rtol=1e-4)
    assert max(float(g.abs().max()) for g in stock[1].values()) > 1e-4
    for name, gradient in stock[1].items():
        torch.testing.assert_close(ours[1][name], gradient, atol=1e-5, rtol=2e-3)
    assert ours[2] == pytest.approx(stock[2], abs=1e-4)


@pytest.mark.slow
def test_rows_that_cannot_teach_are_not_read_and_change_nothing(small, world, monkeypatch):
    import torch

    from hybridlib.engine import decoder

    read, build = [], decoder.PrefixBatch

    def counted(prompts, *rest):
        read.append(len(prompts))
        return build(prompts, *rest)

    monkeypatch.setattr(decoder, "PrefixBatch", counted)
    batch = _batch()
    del batch["old_per_token_logps"]
    results = []
    for replaced in (False, True):
        trainer, model = _grpo(small, world / "out", replaced)
        loss = trainer._compute_loss(model, batch)
        loss.backward()
        results.append((loss, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=1e-4)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, atol=1e-5, rtol=2e-3)
    mask = batch["completion_mask"]
    estimate = -(batch["sampling_per_token_logps"] * mask).sum() / mask.sum()
    assert trainer._metrics["train"]["entropy"][-1] == pytest.approx(float(estimate), abs=1e-4)
    none = batch | {"advantages": batch["advantages"] * 0}  # nothing to learn: still a gradient
    loss = trainer._compute_loss(model, none)
    loss.backward()
    assert read == [2, 1] and float(loss.detach()) == 0
    trainer._compute_loss(model, _batch())  # used a second time: ratios count in all rows
    trainer.beta = 0.1  # the KL term concerns all
    trainer._compute_loss(model, batch | {"ref_per_token_logps": batch["sampling_per_token_logps"]})
    assert read == [2, 1, 3, 3]


@pytest.mark.slow
def test_answers_that_were_cut_off_and_masked(small, world):
    import torch

    batch = _batch()
    batch["completion_mask"][[0, 4]] = 0  # as TRL masks truncated completions
    del batch["old_per_token_logps"]
    losses = []
    for replaced in (False, True):
        trainer, model = _grpo(small, world / "out", replaced, loss_type="dapo")
        losses.append(trainer._compute_loss(model, batch).detach())
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_whole_training_is_trls_from_the_same_samples(small, world):
    """Accumulation, a batch used twice, chunks of the old log-probabilities: the same adapter."""
    import torch

    after = []
    for replaced in (False, True):
        trainer, model = _grpo(
            small,
            world / "out",
            replaced,
            num_iterations=2,
            gradient_accumulation_steps=2,
            per_device_train_batch_size=4,
            max_steps=3,
            num_generations=4,
            temperature=1.3,
            rollout_func=train.sampler(5),
            reward_funcs=[REWARDS["format"], REWARDS["random"]],
        )
        trainer.train()
        after.append({n: p.detach().clone() for n, p in model.named_parameters() if "lora" in n})
    moved = 0.0
    fresh = dict(_grpo(small, world / "out", False)[1].named_parameters())
    for name, weight in after[0].items():
        torch.testing.assert_close(after[1][name], weight, atol=2e-4, rtol=1e-3)
        moved = max(moved, float((weight - fresh[name]).detach().abs().max()))
    assert moved > 1e-3


@pytest.mark.slow
def test_a_pass_without_padding_gives_trls_log_probabilities_and_entropies(small, world):
    import torch

    batch = _batch()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    results = []
    for replaced in (False, True):
        trainer, model = _grpo(small, world / "out", replaced)
        with torch.no_grad():
            log_probs, entropies, _ = trainer._get_per_token_logps_and_entropies(
                model, ids, mask, 12, compute_entropy=True
            )
        results.append([t * batch["completion_mask"] for t in (log_probs, entropies)])
    for ours, stock in zip(*results, strict=True):
        torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_sft_loss_gradients_and_metrics_are_trls(small, world):
    import torch
    from trl import SFTConfig, SFTTrainer

    run = study.Run("sft")
    rows = study.rows_for(run, small).select_columns(["prompt", "completion"])
    results = []
    for kind in (SFTTrainer, trainers.sft(SFTTrainer)):
        model, tokenizer = models.load(small, "lora", 4)
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.data.normal_(std=0.02)
        args = SFTConfig(**train.options(run, small, world / "out"), max_length=None)
        trainer = kind(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
        assert int(batch["attention_mask"].sum()) < batch["attention_mask"].numel()  # ragged
        batch = trainer._prepare_inputs(batch)
        loss = trainer.compute_loss(model.train(), batch, num_items_in_batch=torch.tensor(100))
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        metrics = {k: v[-1] for k, v in trainer._metrics["train"].items()}
        results.append((loss.detach(), gradients, metrics))
    stock, ours = results
    torch.testing.assert_close(ours[0], stock[0], atol=1e-5, rtol=1e-4)
    for name, gradient in stock[1].items():
        torch.testing.assert_close(ours[1][name], gradient, atol=1e-5, rtol=2e-3)
    assert ours[2] == pytest.approx(stock[2], abs=1e-4) and "entropy" in ours[2]


@pytest.mark.slow
def test_what_the_pass_cannot_do_goes_to_trl_with_a_notice(small, world, capsys):
    import torch

    trainers._notice.cache_clear()
    trainer, model = _grpo(small, world / "out", replaced=True)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout["default"] = torch.nn.Dropout(0.1)
    assert torch.isfinite(trainer._compute_loss(model, _batch()))
    assert "TRL's forward pass, which pads: dropout" in capsys.readouterr().out
