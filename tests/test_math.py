"""The losses that chapters 2 and 3 compute by hand are those that the trainers compute and log."""

import ast
import json
from math import exp
from pathlib import Path

import pytest

from hybridlib import models, study
from hybridlib.engine import trainers
from hybridlib.methods import train
from hybridlib.profiles import PROFILES

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def computed(notebook, cell_id, **given):
    """The names that a cell leaves behind; what is `given` stands in for its own numbers."""
    import pandas as pd

    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
    source = "".join(next(cell for cell in cells if cell["id"] == cell_id)["source"])
    tree = ast.parse(source)
    names = {"pd": pd} | given
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert given.keys() <= assigned
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in given)
    ]
    exec(compile(tree, cell_id, "exec"), names)
    return names


def test_the_hand_made_numbers_can_be_followed_with_pencil():
    by_hand = computed("02_sft", "02-loss-called")
    nats = (0.1 + 0.7 + 0.2 + 0.4) + (1.2 + 0.3 + 0.6) + (2.3 + 0.2)
    assert float(by_hand["loss"]) == pytest.approx(nats / 9)
    by_hand = computed("03_grpo", "03-loss-called")
    right, wrong = (2 / 3) / (3**-0.5 + 1e-4), (-1 / 3) / (3**-0.5 + 1e-4)

    surrogates = (
        right * (exp(0.1) + 1.2 + 1) / 3,  # exp(0.3) is clipped
        wrong * (0.8 + 1) / 2,  # exp(-0.3) is clipped
        wrong * (exp(-0.1) + exp(0.4) + 1) / 3,  # a rise of what is wrong is not
    )
    assert float(by_hand["loss"]) == pytest.approx(-sum(surrogates) / 3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_the_loss_of_sft_is_what_the_trainer_logs_at_its_first_step(small, world, replaced):
    import torch
    from trl import SFTConfig, SFTTrainer

    run = study.Run("sft")
    rows = study.rows_for(run, small).select_columns(["prompt", "completion"]).select(range(3))
    model, tokenizer = models.load(small, "lora", 4)
    options = train.options(run, small, world / "out")
    options |= {"max_steps": 1, "per_device_train_batch_size": 3, "max_length": None}
    kind = trainers.sft(SFTTrainer) if replaced else SFTTrainer
    trainer = kind(
        model=model,
        args=SFTConfig(**options, completion_only_loss=True),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:]
    label_mask = labels != -100
    log_probs = logits[:, :-1].log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    trainer.train()
    logged = trainer.state.log_history[0]["loss"]
    by_hand = computed("02_sft", "02-loss-called", log_probs=log_probs, label_mask=label_mask)
    assert float(by_hand["loss"]) == pytest.approx(logged, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_advantages_and_loss_of_grpo_are_the_trainers(small, world, monkeypatch, replaced):
    import torch
    from trl import GRPOConfig, GRPOTrainer

    by_hand = computed("03_grpo", "03-loss-called")
    assert PROFILES["tiny"].grpo["loss_type"] == "grpo" and PROFILES["tiny"].grpo["beta"] == 0

    def as_by_hand(completions, **_):
        return by_hand["reward"].tolist()

    model, tokenizer = models.load(small, "lora", 4)
    run = study.Run("grpo")
    options = train.options(run, small, world / "out") | {"loss_type": "grpo", "beta": 0.0}
    options |= {"per_device_train_batch_size": 3, "num_generations": 3}
    rows = study.rows_for(run, small).remove_columns(["completion"])
    trainer = (trainers.grpo(GRPOTrainer) if replaced else GRPOTrainer)(
        model=model,
        args=GRPOConfig(**options),
        reward_funcs=as_by_hand,
        processing_class=tokenizer,
        rollout_func=train.sampler(0),
        train_dataset=rows,
    )
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    scored = trainer._generate_and_score_completions([rows[0]] * 3)
    torch.testing.assert_close(scored["advantages"], by_hand["advantage"])

    def hand_made(*_, **__):
        return by_hand["log_probs"], torch.zeros(3, 3), None

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", hand_made)
    batch = {
        "prompt_ids": torch.full((3, 2), 7),
        "prompt_mask": torch.ones(3, 2, dtype=torch.long),
        "completion_ids": torch.full((3, 3), 7),
        "completion_mask": by_hand["mask"],
        "old_per_token_logps": by_hand["old_log_probs"],
        "advantages": scored["advantages"],
        "num_items_in_batch": by_hand["mask"].sum(),
    }
    torch.testing.assert_close(trainer._compute_loss(model, batch), by_hand["loss"])
