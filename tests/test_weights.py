"""A folder of weights that is cut, incomplete or no number is one line that names the file."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from hybridlib import ROOT, StudyError, data, difficulty, files, models, study, weights
from hybridlib.runs import Run

BASE = ROOT / "data" / "bases" / "small"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
MODULE = "base_model.model.layers.0.q_proj"


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(BASE, tmp_path / "model")


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}
    (folder / weights.ADAPTER_CONFIG).write_text(json.dumps(settings))
    tensors = {
        f"{MODULE}.lora_A.weight": torch.ones(2, 4),
        f"{MODULE}.lora_B.weight": torch.ones(4, 2),
    }
    save_file(tensors, folder / weights.ADAPTER_WEIGHTS)
    return folder


def cut(share):
    def change(file):
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])

    return change


def holding(content):
    return lambda file: file.write_bytes(content)


DAMAGE = {  # of a model: what happened -> the file, the change, words of the one line
    "weights are gone": ("model.safetensors", lambda file: file.unlink(), "has no weights"),
    "weights are empty": ("model.safetensors", cut(0), "is empty"),
    "weights end early": ("model.safetensors", cut(0.9), "is cut"),
    "half the weights": ("model.safetensors", cut(0.5), "is cut"),
    "a cut header": ("model.safetensors", cut(0.001), "is cut"),
    "less than a header": ("model.safetensors", holding(b"\x08"), "is cut"),
    "weights are a pointer": ("model.safetensors", holding(POINTER), "git lfs pull"),
    "weights are a page": ("model.safetensors", holding(b"<html>404</html>" * 9), "is cut or no"),
    "settings are gone": ("config.json", lambda file: file.unlink(), "cannot be read"),
    "settings are empty": ("config.json", cut(0), "is empty"),
    "settings are cut": ("config.json", cut(0.5), "is no readable JSON"),
    "settings are a list": ("config.json", holding(b"[1]"), "holds no object"),
    "settings are a pointer": ("config.json", holding(POINTER), "git lfs pull"),
    "no tokenizer": ("tokenizer.json", lambda file: file.unlink(), "cannot be read"),
    "the tokenizer is cut": ("tokenizer.json", cut(0.7), "is no readable JSON"),
    "the tokenizer is a pointer": ("tokenizer.json", holding(POINTER), "git lfs pull"),
    "other settings are cut": ("tokenizer_config.json", cut(0.5), "is no readable JSON"),
}


@pytest.mark.parametrize("happened", DAMAGE)
def test_a_damaged_model_is_one_line_that_names_the_file(model, happened):
    weights.check_model(model)
    name, change, words = DAMAGE[happened]
    change(model / name)
    with pytest.raises(StudyError, match=words) as caught:
        weights.check_model(model)
    message = str(caught.value)
    assert str(model if words == "has no weights" else model / name) in message
    assert "\n" not in message


def test_no_chat_template(model):
    (model / "chat_template.jinja").unlink()
    with pytest.raises(StudyError, match=f"{model} has no chat template"):
        weights.check_model(model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "{{x}}"}))
    weights.check_model(model)


def test_every_part_of_a_model_in_parts_is_checked(model):
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, model / part)
    places = {name: part for part, held in parts.items() for name in held}
    (model / "model.safetensors").unlink()
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    weights.check_model(model)
    (model / "b.safetensors").unlink()
    with pytest.raises(StudyError, match=r"b\.safetensors cannot be read"):
        weights.check_model(model)
    index.write_text("{}")
    with pytest.raises(StudyError, match=r"index\.json has no weight_map"):
        weights.check_model(model)


def test_cut_weights_of_torch(model):
    file = model / "pytorch_model.bin"
    torch.save(load_file(model / "model.safetensors"), file)
    (model / "model.safetensors").unlink()
    weights.check_model(model)
    cut(0.9)(file)
    with pytest.raises(StudyError, match=r"pytorch_model\.bin is cut"):
        weights.check_model(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value, dtype):
    tensors = {"good": torch.ones(3, dtype=dtype), "ids": torch.ones(3, dtype=torch.int64)}
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    weights.check_finite([file])
    save_file(tensors | {"bad": torch.tensor([1, value], dtype=dtype)}, file)
    with pytest.raises(StudyError, match=r"model\.safetensors: the weights bad are not all num"):
        weights.check_finite([file])


ADAPTER_DAMAGE = {
    "settings are gone": (weights.ADAPTER_CONFIG, lambda file: file.unlink(), "cannot be read"),
    "settings are empty": (weights.ADAPTER_CONFIG, cut(0), "is empty"),
    "settings are cut": (weights.ADAPTER_CONFIG, cut(0.5), "is no readable JSON"),
    "weights are gone": (weights.ADAPTER_WEIGHTS, lambda file: file.unlink(), "cannot be read"),
    "weights are empty": (weights.ADAPTER_WEIGHTS, cut(0), "is empty"),
    "weights end early": (weights.ADAPTER_WEIGHTS, cut(0.9), "is cut"),
    "weights are a pointer": (weights.ADAPTER_WEIGHTS, holding(POINTER), "git lfs pull"),
}


@pytest.mark.parametrize("happened", ADAPTER_DAMAGE)
def test_a_damaged_adapter_is_one_line_that_names_the_file(adapter, happened):
    weights.check_adapter(adapter)
    name, change, words = ADAPTER_DAMAGE[happened]
    change(adapter / name)
    with pytest.raises(StudyError, match=words) as caught:
        weights.check_adapter(adapter)
    assert str(adapter / name) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", "AB")
def test_half_an_adapter_is_refused_by_file_and_module(adapter, factor):
    file = adapter / weights.ADAPTER_WEIGHTS
    tensors = load_file(file)
    tensors.pop(f"{MODULE}.lora_{factor}.weight")
    save_file(tensors, file)
    with pytest.raises(StudyError, match=f"{file} has half an adapter of {MODULE}: .*{factor}"):
        weights.check_adapter(adapter)


@pytest.mark.parametrize("gone", [1, 9])
def test_a_model_that_lacks_weights_is_not_filled_up_at_random(model, small, gone):
    file = model / "model.safetensors"
    tensors = load_file(file)
    kept = {name: tensors[name] for name in sorted(tensors)[gone:]}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(StudyError, match=f"{model} lack .*{sorted(tensors)[0]}") as caught:
        models.load(replace(small, model=str(model)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["start", "teacher", "parents"])
def test_a_run_does_not_build_on_an_adapter_that_diverged(adapter, small, world, field):
    folder = files.run_folder("sft", small.name) / "adapter"
    shutil.copytree(adapter, folder)
    file = folder / weights.ADAPTER_WEIGHTS
    tensors = load_file(file)
    save_file({name: tensor * torch.inf for name, tensor in tensors.items()}, file)
    run = {
        "start": Run("grpo", start="sft"),
        "teacher": Run("distil", teacher="sft"),
        "parents": Run("merge", parents=("sft", "sft"), merge="mean"),
    }[field]
    with pytest.raises(StudyError, match=f"{file}: the weights .* are not all numbers"):
        study.execute(run, small)


def test_a_damaged_note_of_a_run_that_was_started_is_thrown_away(small, world):
    run = Run("sft")
    folder = study._workspace(run, small)
    (folder / "kept").touch()
    assert study._workspace(run, small) == folder and (folder / "kept").exists()
    (folder / "started.json").write_text("[{")
    study._workspace(run, small)
    assert not (folder / "kept").exists() and json.loads((folder / "started.json").read_text())


def test_damaged_pass_rates_are_named(small, world):
    rows = data.load("tiny_math", "train", 2)
    file = difficulty._counts_file(small, difficulty._cache_key(small, rows, 0))
    file.parent.mkdir(parents=True)
    for content in ("", '{"correct": [1', "[]"):
        file.write_text(content)
        with pytest.raises(StudyError, match=str(file)):
            difficulty.pass_rates(small, rows)
