"""What of a finished run can be given away? Its adapter or merged model, with a card that says all.

A folder that is exported needs nothing of this project: transformers and PEFT load it, and its
logits are those of the model that was scored.
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hybridlib import ROOT, StudyError, estimate, files, labels, models, results, study, weights
from hybridlib.data import DATASETS
from hybridlib.engine import ends
from hybridlib.markdown import render, table
from hybridlib.methods import METHODS, train
from hybridlib.profiles import PROFILES, Profile, model_folder
from hybridlib.runs import Run

WITHOUT_ADAPTER = {
    "base": "it is the base, with which nothing was done",
    "route": "it sends each token to an adapter of its parents: export these",
}
"""Methods that leave no adapter -> why."""
OF_THE_MACHINE = ("output_dir", "report_to", "disable_tqdm", "use_cpu", "logging_steps")
"""Options of a trainer that say nothing about the model."""


def export(run_id: str, profile: Profile, out: Path, merged: bool = False) -> Path:
    """Write the adapter of a finished run, or its model, with tokenizer and card into a new folder.

    The folder appears complete or not at all. An adapter is copied as it is. A merged model is the
    base, out of 4 bits where the run had it so, plus the adapter, added in float32 and then rounded
    once to the profile's precision.

    Args:
        run_id: of a record of the profile.
        out: the folder to write; it may not exist.
        merged: write the whole model.
    Returns:
        The folder.
    Raises:
        StudyError: no such record, no adapter beside it or another one than was scored, another
            base than was trained on, or `out` exists or cannot be written.
    """
    run = study.recorded(run_id, profile)
    record = results.find(run, profile)
    adapter = files.run_folder(run_id, profile.name) / "adapter"
    trained_by = _check_adapter(run, profile, adapter)
    profile = _with_recorded_base(record, profile)
    files.check_writable(out)
    with files.new_folder(out) as folder:
        tokenizer, end_ids = _tokenizer(profile)
        if merged:
            _merged(run, profile, adapter).save_pretrained(folder)
        else:
            _copy_adapter(adapter, profile, folder)
        tokenizer.save_pretrained(folder)
        text = card(record, profile, out.name, merged, end_ids, trained_by)
        files.write(folder / "README.md", text)
    return out


def _check_adapter(run: Run, profile: Profile, adapter: Path) -> dict[str, str]:
    """Return the digests of the code that trained an adapter; StudyError where it cannot be had."""
    if why := WITHOUT_ADAPTER.get(run.method):
        raise StudyError(f"{run.id} has no adapter to export: {why}")
    again = (
        f"python -m hybridlib verify {run.id} --profile {profile.name}"
        if profile.name in PROFILES
        else "the same `run` with --force"
    )
    if not adapter.is_dir():
        raise StudyError(
            f"{adapter.parent} holds no weights of {run.id}, of which git keeps the record alone; "
            f"{again} trains it again, and its adapter stays there until you remove it"
        )
    weights.check_adapter(adapter)
    weights.check_finite([adapter / weights.ADAPTER_WEIGHTS])
    noted_run, noted_setting, code = files.read_json(adapter.parent / "started.json")
    today = results.as_json({"run": asdict(run), "setting": asdict(profile)})
    for part, noted in (("run", noted_run), ("setting", noted_setting)):
        if changed := [name for name in noted if noted[name] != today[part].get(name)]:
            raise StudyError(
                f"the weights in {adapter} are of another {part} than the record of {run.id} "
                f"({', '.join(changed)}); {again} trains it again"
            )
    return code


def _with_recorded_base(record: dict[str, Any], profile: Profile) -> Profile:
    """Return the profile with the very base that a record names; StudyError where it is another."""
    recorded = record["provenance"]["model"]
    if not model_folder(profile.model):
        return replace(profile, revision=recorded or profile.revision)
    if (today := models.revision(profile)) != recorded:
        raise StudyError(
            f"the weights of {profile.model} (digest {today}) are not those that {record['id']} "
            f"was trained on (digest {recorded}); restore them, or run it again with --force"
        )
    return profile


def _tokenizer(profile: Profile) -> tuple[Any, tuple[int, ...]]:
    """Return the tokenizer as the study uses it, and the tokens that end an answer."""
    from transformers import AutoConfig, GenerationConfig

    name = str(model_folder(profile.model) or profile.model)
    tokenizer = models.load_tokenizer(name, profile.revision)
    config = AutoConfig.from_pretrained(name, revision=profile.revision)
    try:
        generation = GenerationConfig.from_pretrained(name, revision=profile.revision)
    except OSError:
        generation = GenerationConfig()
    declared = SimpleNamespace(config=config, generation_config=generation)
    return tokenizer, ends.declare(declared, tokenizer)


def _copy_adapter(adapter: Path, profile: Profile, folder: Path) -> None:
    """Copy an adapter; what it calls its base is what the profile does, on any machine."""
    shutil.copy(adapter / weights.ADAPTER_WEIGHTS, folder)
    settings = files.read_object(adapter / weights.ADAPTER_CONFIG)
    settings |= {"base_model_name_or_path": profile.model, "inference_mode": True}
    if not model_folder(profile.model):
        settings["revision"] = profile.revision
    files.write(folder / weights.ADAPTER_CONFIG, json.dumps(settings, indent=2) + "\n")


def _merged(run: Run, profile: Profile, adapter: Path) -> Any:
    """Return the base with an adapter added to its weights, in the profile's precision."""
    import torch
    from peft import PeftModel

    nf4 = run.nf4 or profile.nf4
    model, _ = models.load(profile, nf4=nf4)
    if nf4:  # added to weights in 4 bits, the adapter would be rounded away
        model = model.dequantize()
    merged = PeftModel.from_pretrained(model.float(), adapter).merge_and_unload()
    return merged.to(getattr(torch, profile.dtype))


# ---------------------------------------------------------------- the card


def card(
    record: dict[str, Any],
    profile: Profile,
    name: str,
    merged: bool,
    end_ids: tuple[int, ...],
    trained_by: dict[str, str],
) -> str:
    """Return the model card of an export: Markdown under the hub's header.

    Args:
        name: of the folder.
        end_ids: tokens that end an answer.
        trained_by: digests of the code that trained the weights, as in a record.
    """
    import pandas as pd

    run = Run(**record["run"])
    scores = [
        {
            "data": score["family"],
            "split": score["split"],
            "metric": score["metric"],
            "% [95 % interval]": labels.interval(score),
            "rows": f"{score['n']:,}",
        }
        for score in record["scores"]
    ]
    method = METHODS[run.method]
    return render(
        "hybridlib",
        "card.md.j2",
        record=record,
        profile=profile,
        run=run,
        name=name,
        merged=merged,
        nf4=run.nf4 or profile.nf4,
        local=bool(model_folder(profile.model)),
        licence=licence(profile),
        steps=[labels.arm_label(step) for step in lineage(record, profile)],
        trainer=method.trainer,
        options=_options(run, profile) if method.trainer else {},
        data=[(dataset, _said_of(dataset)) for dataset in run.on or profile.datasets],
        prompt=estimate.stand_in(profile),
        end_ids=list(end_ids),
        scores=table(pd.DataFrame(scores), right=("% [95 % interval]", "rows")),
        same_code=trained_by == record["provenance"]["code"],
    )


def licence(profile: Profile) -> str:
    """Return the licence of a profile's base as the hub writes it, "" where it is not known.

    What this project has trained itself has the project's; another folder's is in its model card,
    as is that of a model on the hub, where that can be reached.
    """
    from huggingface_hub import ModelCard

    folder = model_folder(profile.model)
    if folder and folder.is_relative_to((ROOT / "data").resolve()):
        return "mit"
    try:
        text = ModelCard.load(folder / "README.md" if folder else profile.model)
    except Exception:  # no card, no network, or no such model any more
        return ""
    found = text.data.license
    return found if isinstance(found, str) else ""


def lineage(record: dict[str, Any], profile: Profile) -> list[dict[str, Any]]:
    """Return the fields of the runs that a run was made from, each once, and last its own."""
    found: dict[str, dict[str, Any]] = {}
    for run_id in Run(**record["run"]).prerequisites:
        before = results.find(study.recorded(run_id, profile), profile)
        found |= {json.dumps(step): step for step in lineage(before, profile)}
    return [*found.values(), record["run"]]


def _options(run: Run, profile: Profile) -> dict[str, Any]:
    """Return the options of a run's trainer that differ from TRL's defaults."""
    options = train.options(run, profile, Path())
    return {name: value for name, value in options.items() if name not in OF_THE_MACHINE}


def _said_of(dataset: str) -> str:
    """Return the first line of what a dataset of the study says of itself, "" for others."""
    entry = DATASETS.get(dataset)
    return (entry.__doc__ or "").splitlines()[0] if entry else "rows of the user's own"
