"""Where do raw rows come from? Folders, files and the hub, with one clear line where one fails."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError

if TYPE_CHECKING:
    from datasets import DatasetDict

RawRow = dict[str, Any]  # column -> value, as the source has it
NumberedRows = list[tuple[int, RawRow]]  # with the row's number in the source
FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
VALID_NAMES = ("validation", "valid", "dev")  # how sources call the split `valid`


def split_rows(
    tables: list["DatasetDict"], name: str, split: str, columns: list[str], carved: tuple[str, ...]
) -> NumberedRows:
    """Return the rows of one split, numbered as in the source.

    A split of `carved` that the source lacks is carved out of train, a tenth of its rows for each.
    The content of the question decides which row goes where: the same rows on every machine, and
    no question in two splits.

    Args:
        tables: the parts of the source, one after another; the first says which splits there are.
        name: of the source, for the errors.
        columns: those that must be there, the question first.
        carved: splits that may be carved out of train.

    Raises:
        StudyError: the split or one of the columns is not there.
    """
    valid_name = next((known for known in VALID_NAMES if known in tables[0]), "valid")
    stored_name = {"valid": valid_name}
    absent = [known for known in carved if stored_name.get(known, known) not in tables[0]]
    stored_split = "train" if split in absent else stored_name.get(split, split)
    if stored_split not in tables[0]:
        raise StudyError(f"{name} has no split {split!r}; it has: {', '.join(tables[0])}")
    existing = tables[0][stored_split].column_names
    if missing := set(columns) - set(existing):
        raise StudyError(
            f"{name} lacks the columns {', '.join(sorted(missing))}; found: {', '.join(existing)}"
        )
    rows = list(enumerate(row for table in tables for row in table[stored_split]))
    if stored_split != "train":
        return rows
    owners = dict(enumerate(absent))  # tenth of train -> the split that it is carved out for

    def owner(row: RawRow) -> str:
        return owners.get(content_number("split", row[columns[0]]) % 10, "train")

    return [(index, row) for index, row in rows if owner(row) == split]


def content_number(purpose: str, content: Any) -> int:
    """Return a 64-bit number that depends on a purpose and some content alone."""
    text = json.dumps([purpose, content], default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@lru_cache(maxsize=16)
def read(location: str, config: str | None = None) -> "DatasetDict":
    """Read a folder, a data file or a hub id; the last 16 stay in memory.

    Turns off the progress bars and the log of `datasets`, whose failures become one line here.
    Without a network a hub id is looked for in the cache, and missed within seconds.

    Raises:
        StudyError: the source is not there or cannot be read.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    path = Path(location)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        if path.is_file():
            if path.suffix not in FORMATS:
                raise StudyError(f"{location} is no data file; valid: {', '.join(FORMATS)}")
            return datasets.load_dataset(FORMATS[path.suffix], data_files=location)
        if not path.is_dir() and not _reachable(location):
            datasets.config.HF_HUB_OFFLINE = True  # a copy in the cache will do
        return datasets.load_dataset(location, config)
    except DatasetGenerationError as error:
        reason = _malformed_line(path) or f"{location} cannot be read: {error.__cause__}"
        raise StudyError(reason) from None
    except ConnectionError:
        raise StudyError(
            f"no network to fetch the dataset {location}: set HYBRIDLIB_HUB to a folder that holds "
            f"{location}, or use --profile tiny, which needs none"
        ) from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{location} cannot be read: {str(error).splitlines()[0]}") from None


def _reachable(hub_id: str) -> bool:
    """Ask the hub once for a data set; return False where it cannot be asked.

    Raises:
        StudyError: the hub answers that it has no such set.
    """
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


def _malformed_line(path: Path) -> str:
    """Name the first line of the JSON files under a path that is not JSON; "" if all are."""
    files = [path] if path.is_file() else sorted([*path.rglob("*.jsonl"), *path.rglob("*.json")])
    for file in files:
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            try:
                json.loads(line or "0")
            except ValueError as error:
                return f"{file.name}, line {number} is no JSON: {error}"
    return ""
