"""Where do raw rows come from? Folders, files and the hub, with one clear line where one fails."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from hybridlib import StudyError, hub
from hybridlib.data import textfiles
from hybridlib.data.textfiles import RawRow

NumberedRows = list[tuple[int, RawRow]]  # with the row's number in the source
Splits = dict[str, list[RawRow]]  # split -> its rows, each with all columns of the split
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
GUESSED = ("float", "double", "timestamp", "date", "time")
"""How the types begin that `datasets` infers from texts or from gaps."""
VALID_NAMES = ("validation", "valid", "dev")  # how sources call the split `valid`


def split_rows(
    tables: list[Splits], name: str, split: str, columns: list[str], carved: tuple[str, ...]
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
    existing = list(next(iter(tables[0][stored_split]), {}))
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
def read(location: str, config: str | None = None) -> Splits:
    """Read a folder, a data file or a hub id; the last 16 stay in memory.

    `datasets` says which files belong to which split, and `textfiles` reads them. Turns off the
    progress bars and the log of `datasets`, whose failures become one line here. Without a network
    a hub id is looked for in the cache, and missed within seconds.

    Raises:
        StudyError: the source is not there or cannot be read.
    """
    path = Path(location)
    if path.is_file():
        return {"train": textfiles.read_file(path)}
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not path.is_dir() and not hub.has("dataset", location):
        datasets.config.HF_HUB_OFFLINE = True  # a copy in the cache will do
    try:
        builder = datasets.load_dataset_builder(location, config)
        named = builder.config.data_files
        if not named:
            return _cached_tables(builder)
        local = datasets.DownloadManager().download_and_extract(dict(named))
    except ConnectionError:
        raise StudyError(
            f"no network to fetch the dataset {location}: set HYBRIDLIB_HUB to a folder that holds "
            f"{location}, or use --profile tiny, which needs none"
        ) from None
    except StudyError:
        raise
    except Exception as error:  # whatever the library makes of a folder that is none of data
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StudyError(f"{location} cannot be read: {reason}") from None
    splits = {}
    for split, names in named.items():
        rows: list[RawRow] = []
        for name, file in zip(names, local[split], strict=True):
            rows += textfiles.read_file(Path(file), form=_form(name))
        splits[str(split)] = textfiles.with_all_columns(rows)
    return splits


def _form(name: str) -> str:
    """Return the suffix that says how a file is read, of the file in a compressed one."""
    stem = Path(name)
    return stem.suffix if stem.suffix not in COMPRESSED else Path(stem.stem).suffix


def _cached_tables(builder: Any) -> Splits:
    """Return the rows of a hub set of which only the tables that `datasets` made are at hand.

    Raises:
        StudyError: a column has a type that `datasets` may have guessed, and changed answers by.
    """
    builder.download_and_prepare()
    splits = {}
    for split, table in builder.as_dataset().items():
        for column, feature in table.features.items():
            if str(getattr(feature, "dtype", "")).startswith(GUESSED):
                raise StudyError(
                    f"of {builder.repo_id} there is a copy whose column {column!r} was retyped to "
                    f"{feature.dtype}; read its files, from a folder or with a network"
                )
        splits[str(split)] = list(table)
    return splits
