"""Is the hub there, and has it this model or data set? Asked once and briefly, before all else.

Where it is out of reach, its libraries are told not to ask: they would try again for minutes.
"""

import os
from functools import lru_cache

from hybridlib import StudyError

SECONDS = 5  # that the hub may take to answer


@lru_cache(maxsize=64)
def has(kind: str, name: str) -> bool:
    """Ask the hub for a "model" or a "dataset"; return False where it cannot be asked.

    Sets HF_HUB_OFFLINE then, for this process and those that it starts.

    Raises:
        StudyError: the hub answers that it has none of this name.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
    try:
        ask(name, timeout=SECONDS)
    except (RepositoryNotFoundError, HFValidationError):
        raise StudyError(
            f"{name} is no folder here and no {kind} on the hub, or a closed one; "
            "give a folder, a data file or a hub id that you can read"
        ) from None
    except Exception:  # whatever the network does to us, the cache may still have it
        _go_offline()
        return False
    return True


def check_model(name: str, revision: str) -> None:
    """Check that a model can be had from the cache or from the hub.

    Raises:
        StudyError: it can not, and what to do.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if not has("model", name) and not isinstance(cached, str):
        raise StudyError(
            f"no network to fetch the model {name}, and no copy in the cache: "
            "give --model FOLDER, or use --profile tiny, which needs none"
        )


def _go_offline() -> None:
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
