"""Where do raw rows come from? Folders, files and the hub, with one clear line where one fails."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError

if TYPE_CHECKING:
    from datasets import DatasetDict


def part(
    tables: list["DatasetDict"], name: str, split: str, columns: list[str], cut: tuple[str, ...]
) -> list[tuple[int, dict[str, Any]]]:
    """Which rows, with their number in the source, does a split have?

    Those of `cut` that the source lacks are taken out of train by the content of the first of
    `columns`, the question: the same rows on every machine, and no question in two splits.
    Raises StudyError for a split that is not to be had and for missing columns.
    """
    valid = next((s for s in ("validation", "valid", "dev") if s in tables[0]), "valid")
    lacking = [s for s in cut if (valid if s == "valid" else s) not in tables[0]]
    where = "train" if split in lacking else valid if split == "valid" else split
    if where not in tables[0]:
        raise StudyError(f"{name} has no split {split!r}; it has: {', '.join(tables[0])}")
    missing = set(columns) - set(tables[0][where].column_names)
    if missing:
        raise StudyError(
            f"{name} lacks the columns {', '.join(sorted(missing))}; "
            f"found: {', '.join(tables[0][where].column_names)}"
        )
    rows = list(enumerate(row for table in tables for row in table[where]))
    if where != "train":
        return rows
    owners = {tenth: s for tenth, s in enumerate(lacking)}  # a tenth of train each
    return [
        (index, row) for index, row in rows
        if owners.get(digest("split", row[columns[0]]) % 10, "train") == split
    ]  # fmt: skip


def digest(purpose: str, content: Any) -> int:
    """A number that depends on the purpose and on the content, not on where it stands."""
    text = json.dumps([purpose, content], default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@lru_cache(maxsize=16)
def read(where: str, config: str | None = None) -> "DatasetDict":
    """What does a folder, a file or a hub id hold? Off the network it fails within seconds."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    path = Path(where)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what fails is said once, below
    try:
        if path.is_file():
            form = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
            if path.suffix not in form:
                raise StudyError(f"{where} is no data file; valid: {', '.join(form)}")
            return datasets.load_dataset(form[path.suffix], data_files=where)
        if path.is_dir():
            return datasets.load_dataset(where, config)
        if not _reachable(where):
            datasets.config.HF_HUB_OFFLINE = True  # a copy in the cache will do
        return datasets.load_dataset(where, config)
    except DatasetGenerationError as error:
        raise StudyError(_broken(path) or f"{where} cannot be read: {error.__cause__}") from None
    except ConnectionError:
        raise StudyError(
            f"no network to fetch the dataset {where}: set HYBRIDLIB_HUB to a folder that holds "
            f"{where}, or use --profile tiny, which needs none"
        ) from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{where} cannot be read: {str(error).splitlines()[0]}") from None


def _reachable(hub_id: str) -> bool:
    """Does the hub answer? One question without retries; StudyError where it has no such set."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(hub_id, timeout=10)
    except (RepositoryNotFoundError, HFValidationError):
        raise StudyError(
            f"{hub_id} is no folder here and no data set on the hub, or a closed one; "
            "give a folder, a data file or a hub id that you can read"
        ) from None
    except Exception:  # whatever the network does to us, the cache may still have it
        return False
    return True


def _broken(path: Path) -> str:
    """Which line of which file under this path is no JSON? "" where that is not the trouble."""
    files = [path] if path.is_file() else sorted([*path.rglob("*.jsonl"), *path.rglob("*.json")])
    for file in files:
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            try:
                json.loads(line or "0")
            except ValueError as error:
                return f"{file.name}, line {number} is no JSON: {error}"
    return ""
