"""What is made of trained adapters: sums, learnt weights, stages, restored spectra, rounding."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from hybridlib import StudyError, models, results, study
from hybridlib.merging import interference, merge
from hybridlib.methods import METHODS, Job, composed
from hybridlib.runs import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An SFT and a GRPO adapter of the shipped base, by their runs, far enough from it."""
    from hybridlib import profiles

    small = replace(
        profiles.PROFILES["tiny"],
        name="small",
        n_train=8,
        n_eval=4,
        n_samples=2,
        max_completion_tokens=48,
        splits=("test",),
        seeds=(0,),
        sft=dict(
            max_steps=3, per_device_train_batch_size=8, learning_rate=1e-2, save_strategy="no"
        ),
        grpo=dict(
            max_steps=3,
            per_device_train_batch_size=8,
            num_generations=4,
            learning_rate=1e-2,
            save_strategy="no",
        ),
    )
    folder = tmp_path_factory.mktemp("trained")
    runs = {"sft": Run("sft"), "grpo": Run("grpo", seed=1)}
    return small, {
        name: METHODS[name](Job(run, small, folder / name, rows=study.rows_for(run, small))).adapter
        for name, run in runs.items()
    }


def base_of(profile):
    from hybridlib.profiles import model_folder

    return model_folder(profile.model)


@pytest.mark.slow
def test_a_stack_is_the_first_adapter_plus_what_was_trained_on_it(trained, tmp_path):
    profile, adapters = trained
    run = Run("stack", start="sft", rewards=("random",))  # whatever the base is sure of
    rows = study.rows_for(run, profile)
    made = composed.stack(Job(run, profile, tmp_path, rows=rows, start=adapters["sft"]))
    whole, first = merge.deltas(made.adapter), merge.deltas(adapters["sft"])
    upper = merge.deltas(tmp_path / "upper" / "adapter")
    assert sum(delta.abs().sum() for delta in upper.values()) > 0
    for module, delta in whole.items():
        torch.testing.assert_close(delta, first[module] + upper[module], atol=1e-6, rtol=1e-4)
    assert made.curve and made.facts["rank"] == 16 and not (tmp_path / "base").exists()
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith("small")


@pytest.mark.slow
def test_learnt_weights_start_at_the_mean_and_move(trained, tmp_path):
    profile, adapters = trained
    both = [adapters["sft"], adapters["grpo"]]
    deltas = [merge.deltas(adapter) for adapter in both]
    still = Run("cat", parents=("sft", "grpo"), learning_rate=1e-12)
    rows = study.rows_for(still, profile)
    made = composed.cat(Job(still, profile, tmp_path / "still", rows=rows, parents=tuple(both)))
    for module, delta in merge.deltas(made.adapter).items():
        mean = (deltas[0][module] + deltas[1][module]) / 2
        torch.testing.assert_close(delta, mean, atol=1e-6, rtol=1e-4)
    moved = composed.cat(
        Job(
            replace(still, learning_rate=0),
            profile,
            tmp_path / "moved",
            rows=rows,
            parents=tuple(both),
        )
    )
    weights = moved.facts["weights"]
    assert set(weights) == {"0", "1", "2", "3"} and moved.cost["trainable"] == 8
    assert all(abs(w - 0.5) > 1e-3 for pair in weights.values() for w in pair)
    for module, delta in merge.deltas(moved.adapter).items():
        own = weights[interference.layer_of(module)]
        expected = own[0] * deltas[0][module] + own[1] * deltas[1][module]
        torch.testing.assert_close(delta, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_lambdas_scale_the_parents(trained, tmp_path):
    profile, adapters = trained
    parts = [adapters["sft"], adapters["grpo"]]
    plain = merge.combine(parts, "sum", tmp_path / "plain")
    facts = merge.combine(parts, "sum", tmp_path / "sum", lambdas=(0.5, -2.0))
    assert (facts["norms"], facts["cosine"]) == (plain["norms"], plain["cosine"])
    one, other = (merge.deltas(part) for part in parts)
    for module, delta in merge.deltas(tmp_path / "sum").items():
        expected = 0.5 * one[module] - 2 * other[module]
        torch.testing.assert_close(delta, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_a_restored_spectrum_is_the_bases_and_rounding_gives_bfloat16(trained, tmp_path):
    profile, adapters = trained
    made = {}
    for how in ("isospectral", "rounded", "unrounded"):
        method = METHODS[how]
        run = Run(how, start="sft")
        made[how] = merge.deltas(
            method(Job(run, profile, tmp_path / how, start=adapters["sft"])).adapter
        )
    delta = merge.deltas(adapters["sft"])
    for module, weight in merge.weights(base_of(profile), delta).items():
        values = torch.linalg.svdvals(weight + made["isospectral"][module])
        torch.testing.assert_close(values, torch.linalg.svdvals(weight), atol=1e-4, rtol=1e-4)
        kept = weight + made["rounded"][module]
        assert (kept - kept.bfloat16().float()).abs().max() < 1e-5
        exact = weight.bfloat16().float() + delta[module]
        torch.testing.assert_close(weight + made["unrounded"][module], exact, atol=1e-5, rtol=1e-4)
        assert (kept - exact).abs().max() > 1e-4


@pytest.mark.slow
def test_a_pair_is_measured_in_weights_and_in_words(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(interference, "N_ROWS", 2)
    profile, adapters = trained
    idle = tmp_path / "idle"
    models.load(profile, "lora")[0].save_pretrained(idle)  # B = 0: changes nothing
    alone = interference.measure(profile, [adapters["sft"], idle])
    assert alone["interference"] == pytest.approx(0, abs=1e-5)
    assert all(own > 0 and abs(none) < 1e-6 for own, none in alone["knockout"].values())
    twin = interference.measure(profile, [adapters["sft"], adapters["sft"]])
    assert twin["between"]["cosine"] == pytest.approx(1, abs=1e-4)
    assert twin["between"]["functional"] == pytest.approx(1, abs=1e-4)
    assert twin["interference"] > 0.01 and twin["spectra"][0] == twin["spectra"][1]
    assert len(json.dumps(twin)) < 6000


@pytest.mark.slow
def test_interference_is_that_of_all_texts(trained, monkeypatch):
    monkeypatch.setattr(interference, "N_ROWS", 1)
    profile, adapters = trained
    model, batches = interference._load(profile, [adapters["sft"], adapters["grpo"]])
    assert len(batches) == 3
    with torch.no_grad():
        first, second = interference.FIRST, interference.SECOND
        ways = ((first, second), (first,), (second,), ())
        both, one, other, none = (
            torch.cat([*interference._logits(model, active, batches)]) for active in ways
        )
        together = (both - one - other + none).abs().sum()
        apart = (one - none).abs().sum() + (other - none).abs().sum()
        found = interference._interference(model, batches)
    assert found == pytest.approx(float(together / apart), rel=1e-4) and found > 0.01


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (Run("stack", start="sft", nf4=True), "4 bits"),
        (Run("stack", start="sft", adapter="dora"), "adapter dora"),
    ],
)
@pytest.mark.slow
def test_a_stack_that_would_be_no_sum_is_refused_before_training(trained, tmp_path, run, reason):
    profile, adapters = trained
    rows = study.rows_for(run, profile)
    with pytest.raises(StudyError, match=reason):
        composed.stack(Job(run, profile, tmp_path, rows=rows, start=adapters["sft"]))
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_logits_of_a_pair_are_those_of_peft(trained):
    profile, adapters = trained
    model, batches = interference._load(profile, [adapters["sft"], adapters["grpo"]])
    with torch.no_grad():
        found = next(interference._logits(model, (interference.SECOND,), batches))
        ids, start = batches[0]
        plain = PeftModel.from_pretrained(models.load(profile)[0], adapters["grpo"])
        torch.testing.assert_close(found, plain(input_ids=ids).logits[0, start - 1 : -1])


@pytest.mark.slow
def test_composed_runs_go_through_the_study(small, world):
    small = replace(small, full=True)  # where pairs are measured
    sft, grpo = Run("sft"), Run("grpo")
    parents = (sft.id, grpo.id)
    made = [
        Run("merge", parents=parents, merge="sum", lambdas=(0.5, 1.0)),
        Run("merge", parents=parents, merge="mean"),
        Run("cat", parents=parents),
        Run("stack", start=sft.id),
        Run("rounded", start=grpo.id),
    ]
    for run in (sft, grpo, *made):
        study.execute(run, small)
    records = {record["id"]: record for record in results.read("small")}
    assert {run.id for run in made} <= set(records)
    assert "pair" in records[made[1].id]["facts"] and "pair" not in records[made[0].id]["facts"]
    assert study.plan([sft, grpo, *made], small) == {}
