"""Can this folder of weights be loaded? What its files say, before any of them is loaded.

Libraries find a cut file late, name no file, or load what is left: a missing factor of an adapter
stays at random, and with weights that are no numbers all answers are noise.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

from hybridlib import StudyError, files

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""How transformers calls a model's weights; several files are listed in NAME.index.json."""
FACTORS = {".lora_A.": ".lora_B.", ".lora_B.": ".lora_A."}
TRAINER_STATE = "trainer_state.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")


def check_model(folder: Path) -> None:
    """Check that a folder holds a model that can be asked: settings, whole weights, tokenizer.

    Reads no weights.

    Raises:
        StudyError: names the file that is absent, cut, a pointer of Git LFS, or not what it should
            be; or the folder, where its tokenizer has no chat template.
    """
    files.read_object(folder / "config.json")
    for file in model_files(folder):
        check_file(file)
    files.read_object(folder / "tokenizer.json")
    settings_file = folder / "tokenizer_config.json"
    settings = files.read_object(settings_file) if settings_file.exists() else {}
    has_template = any((folder / name).exists() for name in TEMPLATES)
    if not (settings.get("chat_template") or has_template):
        raise StudyError(
            f"{folder} has no chat template, so that no question can be put to it; "
            f"add {TEMPLATES[0]}"
        )


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights, in order.

    Raises:
        StudyError: there are none.
    """
    for name in MODEL_WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).exists():
            return [folder / name]
        if index.exists():
            return [folder / part for part in sorted({*_weight_map(index).values()})]
    raise StudyError(f"{folder} has no weights: no {' or '.join(MODEL_WEIGHTS)}")


def _weight_map(index: Path) -> dict[str, str]:
    places = files.read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise StudyError(f"{index} has no weight_map from weights to files; restore it")
    return places


def check_file(file: Path) -> None:
    """Check that a file of weights is there and whole, by its header and its length.

    Raises:
        StudyError: names the file, and what is wrong with it.
    """
    files.check_content(file)
    if file.suffix == ".safetensors":
        _names(file)
    else:
        with file.open("rb") as opened:
            is_zip = opened.read(2) == b"PK"  # since torch 1.6; a cut one has no directory
        if is_zip and not zipfile.is_zipfile(file):
            raise StudyError(f"{file} is cut; fetch it or save it again")


def _names(file: Path) -> list[str]:
    """Return the names of the tensors of a file of safetensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"{file} is cut or no file of safetensors ({reason}); fetch it or save it again"
        ) from None


def check_adapter(folder: Path) -> None:
    """Check that a folder holds a whole adapter: settings, weights, both factors of each module.

    Reads no weights.

    Raises:
        StudyError: names the file, and where a factor is missing the module.
    """
    files.read_object(folder / ADAPTER_CONFIG)
    file = folder / ADAPTER_WEIGHTS
    check_file(file)
    names = _names(file)
    for name in names:
        for factor, other in FACTORS.items():
            partner = name.replace(factor, other)
            if factor in name and partner not in names:
                module = name.partition(factor)[0]
                raise StudyError(
                    f"{file} has half an adapter of {module}: {partner} is missing; "
                    "train it or save it again"
                )


def check_checkpoint(folder: Path) -> None:
    """Check that the checkpoint of a training is whole; its trainer writes the state last.

    Raises:
        StudyError: names the file that is absent or cut.
    """
    files.read_object(folder / TRAINER_STATE)
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".bin", ".pt", ".pth"):
            try:
                check_file(file)
            except StudyError:
                raise StudyError(f"{file} is cut or damaged") from None


def check_finite(weights: Iterable[Path]) -> None:
    """Check that all weights of some files of safetensors are numbers; reads all of them.

    Raises:
        StudyError: names the file and the first tensor that holds NaN or infinity.
    """
    import torch
    from safetensors import safe_open

    for file in weights:
        if file.suffix != ".safetensors":
            continue
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point() and not tensor.to(torch.float32).isfinite().all():
                    raise StudyError(
                        f"{file}: the weights {name} are not all numbers (NaN or infinity); "
                        "fetch it or train it again"
                    )
