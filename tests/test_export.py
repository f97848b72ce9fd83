"""What is exported is the model that was scored, to whoever loads it with the card's own lines."""

import json
import re
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from hybridlib import ROOT, StudyError, export, files, models, results, study
from hybridlib import __main__ as cli
from hybridlib.merging import merge
from hybridlib.profiles import PROFILES
from hybridlib.runs import Run

BASE = ROOT / "data" / "bases" / "small"
TEXT = "def f(x):\n    return x + 1\n\n12 * 3 = 36 \t#### 36"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root with one finished run, far enough from the base; its run and profile."""
    root = tmp_path_factory.mktemp("finished")
    run, profile = Run("sft", rank=4, seed=3, n_train=6), small_steps()
    with pytest.MonkeyPatch.context() as patch:
        settle(root, patch)
        study.execute(run, profile)
    return root, run, profile


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A copy of that root to work in."""
    root, run, profile = finished
    shutil.copytree(root, tmp_path, symlinks=True, dirs_exist_ok=True)
    settle(tmp_path, monkeypatch)
    return tmp_path, run, profile


def small_steps():
    sft = dict(max_steps=2, per_device_train_batch_size=8, learning_rate=2e-2, save_strategy="no")
    return replace(
        PROFILES["tiny"],
        name="small",
        n_eval=4,
        n_samples=2,
        seeds=(0,),
        splits=("test",),
        max_completion_tokens=48,
        sft=sft,
    )


def settle(root, patch):
    """Make a folder the root, with the shipped base in it, and the place where we are."""
    if not (root / "data" / "bases").exists():
        (root / "data" / "bases").mkdir(parents=True)
        (root / "data" / "bases" / "small").symlink_to(BASE)
    patch.setattr(files, "ROOT", root)
    patch.chdir(root)


def logits(model):
    ids = torch.arange(2, 42)[None]
    with torch.no_grad():
        return model.eval()(ids).logits.float()


def scored(run, profile):
    """Return the model that a run was scored with."""
    adapter = files.run_folder(run.id, profile.name) / "adapter"
    return models.load(profile, start=adapter, nf4=run.nf4, trainable=False)


def use(folder, capsys):
    """Execute the code of a card as a reader would, and return its names and what it printed."""
    [code] = re.findall(r"```python\n(from .*?)```", (folder / "README.md").read_text(), re.S)
    names = {}
    exec(code, names)
    return names, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("nf4", [False, True])
def test_the_lines_of_the_card_load_the_model_that_was_scored(nf4, here, capsys):
    root, run, profile = here
    if nf4:
        run = replace(run, nf4=True)
        study.execute(run, profile)
    own, tokenizer = scored(run, profile)
    expected, base = logits(own), logits(models.load(profile, nf4=nf4)[0])
    assert (expected - base).abs().max() > 0.1  # or the test would say nothing

    folder = export.export(run.id, profile, root / "mine")
    capsys.readouterr()
    names, answer = use(folder, capsys)
    assert isinstance(names["model"], PeftModel) and answer.strip()
    assert torch.equal(logits(names["model"]), expected)

    whole = export.export(run.id, profile, root / "whole", merged=True)
    assert names["tokenizer"](TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    names, again = use(whole, capsys)
    assert names["tokenizer"](TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    torch.testing.assert_close(logits(names["model"]), expected, atol=2e-4, rtol=1e-4)
    assert again == answer
    assert names["model"].config.to_dict().get("quantization_config") is None

    for exported in (folder, whole):
        assert AutoTokenizer.from_pretrained(exported).chat_template == tokenizer.chat_template
        assert not [f for f in exported.glob("*.json") if str(root) in f.read_text()]
    assert not list(root.glob(".mine*")) + list(root.glob(".whole*"))


@pytest.mark.slow
def test_a_merged_model_is_rounded_once(here):
    root, run, profile = here
    profile = replace(profile, dtype="bfloat16", name="rounded")
    study.execute(run, profile)
    folder = export.export(run.id, profile, root / "whole", merged=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    base = models.load(profile)[0].state_dict()
    merged = model.state_dict()
    adapter = files.run_folder(run.id, profile.name) / "adapter"
    for module, delta in merge.deltas(adapter).items():
        exact = base[f"{module}.weight"].float() + delta
        equal = merged[f"{module}.weight"] == exact.bfloat16()
        assert equal.float().mean() > 0.999, module


@pytest.mark.slow
def test_the_card_says_data_recipe_scores_and_licence(here):
    root, run, profile = here
    text = (export.export(run.id, profile, root / "mine") / "README.md").read_text()
    record = results.find(run, profile)
    header = text.split("---")[1]
    assert "license: mit" in header and "library_name: peft" in header
    for score in record["scores"]:
        low, high = (f"{100 * score[end]:.1f}" for end in ("low", "high"))
        start = rf"\| {score['family']} .*\| {score['metric']} "
        line = rf"{start}.*\[{low},\s{high}\].* {score['n']} \|"
        assert re.search(line, text), score
    for words in (
        *profile.datasets,
        "SFT, LoRA rank 4",
        "seed 3",
        f"{record['facts']['rows']} rows",
    ):
        assert words in text
    assert f"`learning_rate={profile.sft['learning_rate']}`" in text
    assert record["provenance"]["model"] in text and "earlier state of the code" not in text


@pytest.mark.slow
def test_a_run_without_weights_is_one_line_that_says_how_to_get_them(here):
    root, run, profile = here
    (files.run_folder(run.id, profile.name) / "adapter").rename(root / "away")
    with pytest.raises(StudyError, match="git keeps the record alone; .* --force trains it") as why:
        export.export(run.id, profile, root / "mine")
    assert "\n" not in str(why.value) and not (root / "mine").exists()


@pytest.mark.slow
def test_what_trains_nothing_has_nothing_to_export(here):
    root, run, profile = here
    record = results.find(run, profile)
    results.save(record | {"id": "base", "run": asdict(Run("base"))})
    with pytest.raises(StudyError, match="base has no adapter to export"):
        export.export("base", profile, root / "mine")
    with pytest.raises(StudyError, match="no run 'sft' in small"):
        export.export("sft", profile, root / "mine")


@pytest.mark.slow
def test_weights_of_another_training_or_base_are_refused(here, monkeypatch):
    root, run, profile = here
    note = files.run_folder(run.id, profile.name) / "started.json"
    noted_run, setting, code = json.loads(note.read_text())
    for other, words in (
        ([noted_run | {"steps": 1}, setting, code], r"another run than .* \(steps\)"),
        ([noted_run, setting | {"n_train": 9}, code], r"another setting than .* \(n_train\)"),
    ):
        note.write_text(json.dumps(other))
        with pytest.raises(StudyError, match=words):
            export.export(run.id, profile, root / "mine")
    note.write_text(json.dumps([noted_run, setting, {"engine.py": "changed"}]))
    text = (export.export(run.id, profile, root / "mine") / "README.md").read_text()
    assert "earlier state of the code" in text
    monkeypatch.setattr(models, "revision", lambda profile: "another")
    with pytest.raises(StudyError, match=r"weights of data/bases/small \(digest another\) are not"):
        export.export(run.id, profile, root / "other")


@pytest.mark.slow
def test_half_an_export_cannot_exist(here, monkeypatch):
    root, run, profile = here
    taken = root / "taken"
    taken.mkdir()
    with pytest.raises(StudyError, match=f"{taken} exists"):
        export.export(run.id, profile, taken)
    (root / "file").touch()
    with pytest.raises(StudyError, match="cannot write to .*file/mine: Not a directory"):
        export.export(run.id, profile, root / "file" / "mine")
    monkeypatch.setattr(export, "card", lambda *arguments: 1 / 0)
    before = {*root.iterdir()}
    with pytest.raises(ZeroDivisionError):
        export.export(run.id, profile, root / "mine")
    assert {*root.iterdir()} == before


@pytest.mark.slow
def test_a_model_that_was_made_in_stages_names_each_once(here):
    root, run, profile = here
    record = results.find(run, profile)
    again = Run("grpo", start=run.id)
    merge_of_both = Run("merge", merge="mean", parents=(run.id, again.id))
    for later in (again, merge_of_both):
        results.save(results.as_json(record | {"id": later.id, "run": asdict(later)}))
    made = export.lineage(results.find(merge_of_both, profile), profile)
    assert [Run(**step) for step in made] == [run, again, merge_of_both]


def test_the_verb_prints_the_folder(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(export, "export", lambda *given: asked.append(given) or given[2])
    assert cli.main(f"export sft --to {tmp_path}/mine --merged --profile tiny-full".split()) == 0
    [(run, profile, folder, merged)] = asked
    assert (run, profile.name, folder, merged) == ("sft", "tiny-full", tmp_path / "mine", True)
    assert capsys.readouterr().out.strip() == str(tmp_path / "mine")
