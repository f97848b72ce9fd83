"""Both losses in one adapter: each half is the study's own, and their sum is what is said of it."""

import json
import random
import zlib
from dataclasses import replace

import pytest

from hybridlib import StudyError, fingerprint, labels, study
from hybridlib.methods import METHODS, Job
from hybridlib.methods import mixed as mixed_methods
from hybridlib.rewards import REWARDS

MIXED = ("chord_mu", "chord", "relift", "interleave")


def _train(small, run, out, start=None):
    job = Job(run, small, out, rows=study.rows_for(run, small), start=start)
    return METHODS[run.method](job)


def _weights(trained):
    from safetensors.torch import load_file

    return load_file(trained / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def tuned(small, tmp_path_factory):
    """An adapter that has left its start, so that both of its matrices have a gradient."""
    profile = replace(small, sft=small.sft | dict(max_steps=4, learning_rate=5e-3))
    return _train(profile, study.Run("sft"), tmp_path_factory.mktemp("tuned")).adapter


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chord_mu", "chord"])
def test_without_weight_on_imitation_it_is_grpo_bit_by_bit(small, world, monkeypatch, method):
    for name in ("MU_START", "MU_END", "MU_CONSTANT"):
        monkeypatch.setattr(mixed_methods, name, 0.0)
    hot = ("temperature=2",)  # or the base is sure of all its answers
    rewards = dict(rewards=("format", "random"), seed=3, options=hot)
    mixed = _train(small, study.Run(method, **rewards), world / "mixed")
    plain = _train(small, study.Run("grpo", **rewards), world / "plain")
    ours, theirs = ((t.adapter / "adapter_model.safetensors").read_bytes() for t in (mixed, plain))
    assert ours == theirs
    for point, other in zip(mixed.curve, plain.curve, strict=True):
        assert point == other | {"mu": 0.0, "sft_loss": point["sft_loss"]}
        assert point["reward_std"] > 0 and point["sft_loss"] > 0
    assert {name: mixed.facts[name] for name in plain.facts} == plain.facts
    tokens = mixed.facts["imitated"]["tokens"]
    assert mixed.cost["tokens"] - plain.cost["tokens"] == tokens > 0


def _gradient(small, start, rows, weigh):
    """Of the weighted mean likelihood of these rows' completions, by transformers alone."""
    import torch

    from hybridlib import models
    from hybridlib.engine import rollout

    model, tokenizer = models.load(small, start=start)
    losses, weights = [], []
    for row in rows:
        whole = [*row["prompt"], *row["completion"]]
        text = tokenizer.apply_chat_template(whole, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        cut = len(rollout.encode(tokenizer, [row["prompt"]])[0])
        tokens = torch.tensor([ids], device=model.device)
        logps = model(input_ids=tokens).logits[0].log_softmax(-1)
        found = logps[cut - 1 : -1].gather(1, tokens[0, cut:, None])[:, 0]
        losses.append(-found)
        weights.append(weigh(found.detach().exp()))
    (torch.cat(losses) * torch.cat(weights)).mean().backward()
    return {
        name.replace(".default", ""): weight.grad
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["", "another model"])
@pytest.mark.parametrize(
    "objective,weigh", [("nll", lambda p: p * 0 + 1), ("chord_phi", lambda p: p * (1 - p))]
)
def test_with_all_weight_on_imitation_it_is_sft_on_the_drawn_rows(
    small, world, tuned, monkeypatch, objective, weigh, reason
):
    """One step of plain descent at rate 1 leaves the gradient itself, decoder or not."""
    import torch

    from hybridlib.engine import decoder

    monkeypatch.setattr(mixed_methods, "MU_CONSTANT", 1.0)
    if reason:
        monkeypatch.setattr(decoder, "unsupported", lambda model, training=False: reason)
    options = "optim=sgd", "max_grad_norm=0", "lr_scheduler_type=constant"
    run = study.Run("chord", objective=objective, options=options, learning_rate=1.0, steps=1)
    trained = _train(small, run, world / "out", tuned)
    assert trained.facts["imitated"]["rows"] == 2  # a quarter of eight samples
    rows = study.rows_for(run, small)
    drawn = random.Random("0/0").sample(range(len(rows)), 2)
    expected = _gradient(small, tuned, rows.select(drawn), weigh)
    before, after = _weights(tuned), _weights(trained.adapter)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 3e-4
    for name, gradient in expected.items():
        torch.testing.assert_close(before[name] - after[name], gradient, atol=1e-6, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method,loss", [("chord_mu", "grpo"), ("chord_mu", "dapo"), ("relift", "grpo")]
)
def test_accumulated_micro_batches_give_the_update_of_one_batch(
    small, world, tuned, monkeypatch, method, loss
):
    import torch

    def correct(completions, id, **_):  # pays nothing for every other row
        return [
            float(len(str(text)) % 3 == 0 and zlib.crc32(name.encode()) % 2)
            for text, name in zip(completions, id, strict=True)
        ]

    monkeypatch.setitem(REWARDS, "correct", correct)
    options = "optim=sgd", "lr_scheduler_type=constant", f"loss_type={loss}"
    run = study.Run(method, options=options, learning_rate=0.5, steps=3)
    whole = replace(
        small,
        sft=small.sft | dict(per_device_train_batch_size=1),
        grpo=small.grpo | dict(per_device_train_batch_size=8),
    )
    parts = replace(
        whole, grpo=whole.grpo | dict(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    )
    a, b = (_train(p, run, world / name, tuned) for p, name in ((whole, "a"), (parts, "b")))
    assert a.facts == b.facts and a.facts["imitated"]["steps"] > 0
    before, a, b = (_weights(adapter) for adapter in (tuned, a.adapter, b.adapter))
    assert max(float((a[name] - before[name]).abs().max()) for name in a) > 1e-3
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-3)


@pytest.fixture
def solved(monkeypatch):
    """A reward `correct` that pays for some rows and never for others; what it was asked for."""
    batches, hopeless = [], set()

    def correct(completions, id, **_):
        batches.append(list(dict.fromkeys(id)))
        return [float(name not in hopeless and i % 4 == 0) for i, name in enumerate(id)]

    monkeypatch.setitem(REWARDS, "correct", correct)
    return batches, hopeless


@pytest.fixture
def imitated(monkeypatch):
    """The prompts of every batch whose SFT loss was asked for, as their token ids."""
    from hybridlib.engine import trainers

    seen, build = [], trainers.sft

    def sft(trainer, objective):
        class Seen(build(trainer, objective)):
            def compute_loss(self, model, inputs, *args, **kwargs):
                seen.append([tuple(prompt) for prompt in self._prompts_and_completions(inputs)[0]])
                return super().compute_loss(model, inputs, *args, **kwargs)

        return Seen

    monkeypatch.setattr(trainers, "sft", sft)
    return seen


def _encoded(small, rows):
    """id -> the tokens of its prompt."""
    from hybridlib import models
    from hybridlib.engine import rollout

    prompts = rollout.encode(models.load(small)[1], rows["prompt"])
    return {name: tuple(ids) for name, ids in zip(rows["id"], prompts, strict=True)}


def _turns(small, steps=6, micro=1):
    """Two prompts a step, so that two rows are imitated together."""
    return replace(
        small,
        grpo=small.grpo
        | dict(
            max_steps=steps,
            per_device_train_batch_size=8 // micro,
            gradient_accumulation_steps=micro,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("micro", [1, 2])
def test_relift_imitates_exactly_what_was_never_solved(small, world, solved, imitated, micro):
    profile, run = _turns(small, micro=micro), study.Run("relift")
    rows, (batches, hopeless) = study.rows_for(run, profile), solved
    hopeless |= set(rows["id"][::2])
    trained = _train(profile, run, world / "out")
    never = [name for batch in batches for name in batch if name in hopeless]
    assert len(batches) == 6 and 4 <= len(never) < 12
    prompts = _encoded(small, rows)
    taken = [prompts[name] for name in never]
    assert imitated == [taken[i : i + 2] for i in range(0, len(taken) - 1, 2)]
    found = trained.facts["imitated"]
    assert found["steps"] == len(imitated) and found["rows"] == 2 * found["steps"]
    assert found["rows"] + found["waiting"] == len(never) and "mu" not in found
    assert sum("sft_loss" in point for point in trained.curve) == len(
        {sum(n in hopeless for b in batches[: i + 1] for n in b) // 2 for i in range(6)} - {0}
    )


@pytest.mark.slow
def test_where_everything_is_solved_relift_is_grpo_bit_by_bit(small, world, solved, imitated):
    profile = _turns(small, steps=3)
    mixed, plain = (
        _train(profile, study.Run(method), world / method) for method in ("relift", "grpo")
    )
    ours, theirs = ((t.adapter / "adapter_model.safetensors").read_bytes() for t in (mixed, plain))
    assert ours == theirs and mixed.curve == plain.curve and not imitated
    assert mixed.facts["imitated"] == {"rows": 0, "steps": 0, "tokens": 0, "waiting": 0}
    assert mixed.cost["tokens"] == plain.cost["tokens"]


@pytest.mark.slow
def test_the_control_takes_as_many_rows_of_the_same_batches_solved_or_not(
    small, world, solved, imitated
):
    profile, (batches, hopeless), found = _turns(small), solved, {}
    rows = study.rows_for(study.Run("relift"), profile)
    hopeless |= set(rows["id"][::2])
    for method in ("relift", "interleave"):
        batches.clear()
        imitated.clear()
        facts = _train(profile, study.Run(method), world / method).facts["imitated"]
        found[method] = ({**facts, "tokens": 0}, [list(batch) for batch in batches], [*imitated])
    assert found["relift"][:2] == found["interleave"][:2]  # as many, at the same moments
    prompts = _encoded(small, rows)
    asked = {prompts[name] for batch in batches for name in batch}
    others = [prompt for batch in found["interleave"][2] for prompt in batch]
    assert set(others) <= asked
    assert any(prompt not in {prompts[name] for name in hopeless} for prompt in others)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chord_mu", "relift", "interleave"])
def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(small, world, solved, method):
    profile, run = _turns(small), study.Run(method)
    profile = replace(profile, grpo=profile.grpo | dict(save_strategy="steps", save_steps=1))
    batches, hopeless = solved
    hopeless |= set(study.rows_for(run, profile)["id"][::2])
    whole = _train(profile, run, world / "whole")
    batches.clear()
    pay = REWARDS["correct"]

    def correct(completions, **columns):
        if len(batches) == 3:
            raise InterruptedError
        return pay(completions, **columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REWARDS, "correct", correct)
        with pytest.raises(InterruptedError):
            _train(profile, run, world / "parts")
    kept = json.loads((world / "parts" / "checkpoint-3" / mixed_methods.STATE_FILE).read_text())
    assert len(kept["waiting"]) == (method != "chord_mu")
    parts = _train(profile, run, world / "parts")
    assert parts.facts == whole.facts and 0 < kept["rows"] < whole.facts["imitated"]["rows"]
    assert parts.curve == whole.curve and parts.cost["tokens"] == whole.cost["tokens"]
    ours, theirs = ((t.adapter / "adapter_model.safetensors").read_bytes() for t in (parts, whole))
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("method", MIXED)
def test_every_method_runs_from_rows_to_record(small, world, method):
    profile = _turns(small, steps=4)
    run = study.Run(method, target="answer", rewards=("correct", "format"))
    record = study.execute(run, profile)
    stored = json.loads((world / "data" / "results" / "small" / f"{run.id}.json").read_text())
    assert stored["scores"] and stored["facts"]["imitated"] == record["facts"]["imitated"]
    assert set(record["facts"]["pay"]) == {"correct", "format"}
    found = record["facts"]["imitated"]
    assert found["rows"] > 0 and found["steps"] > 0
    assert record["cost"]["tokens"] > found["tokens"] > 0
    assert any("sft_loss" in point for point in record["curve"])
    ends = {
        "chord_mu": [mixed_methods.MU_START, mixed_methods.MU_END],
        "chord": [mixed_methods.MU_CONSTANT] * 2,
    }
    assert found.get("mu") == ends.get(method)
    mus = [point.get("mu") for point in record["curve"]]
    assert [mus[0], mus[-1]] == ends.get(method, [None, None])
    words = labels.arm_label(record["run"])
    assert words == (f"{METHODS[method].words}, paid correct + format, target answer")
    study.results.save(record)  # the same answer once more


def test_what_cannot_be_mixed_is_refused(small):
    with pytest.raises(StudyError, match="pay correct"):
        _train(small, study.Run("relift", rewards=("format",)), small)
    with pytest.raises(StudyError, match="needs the backend hf"):
        study.Run("chord", backend="unsloth")
    with pytest.raises(StudyError, match="belong to SFT"):
        study.Run("grpo", objective="chord_phi")


def test_an_arm_is_called_by_its_method_and_its_loss():
    from dataclasses import asdict

    names = [labels.arm_label(asdict(study.Run(method, objective="chord_phi"))) for method in MIXED]
    assert names[:2] == ["CHORD-mu, loss chord-phi", "CHORD, loss chord-phi"]


def test_runs_that_were_here_before_do_not_hang_on_the_mixed_methods(small):
    """An entry is found by its name in all registries: theirs must be new."""
    for run in (study.Run("sft", objective="chord_phi"), study.Run("grpo"), study.Run("base")):
        assert "methods/mixed.py" not in fingerprint.digests_of(run, small)
    plain, phi = (
        fingerprint.digests_of(study.Run("chord", objective=name), small)
        for name in ("nll", "chord_phi")
    )
    assert plain["methods/mixed.py"] == phi["methods/mixed.py"]
    assert plain["objectives.py"] != phi["objectives.py"]
