"""Rows of data sets: where they come from, what form they take, whether they can be trained on.

Public are the names below and three modules: `audit` refuses rows whose own solution the grader
rejects, `intake` sorts the rows of a custom set into usable and refused ones, and `describe`
measures what is in a set. `sources`, which reads folders, files and the hub, may not be imported
from outside; a new data set is one decorated function in `rows`.
"""

from hybridlib.data.rows import (
    DATASETS,
    SPLITS,
    TEMPLATES,
    apply_template,
    asked,
    chat_prompt,
    check_known,
    is_generated,
    load,
    with_template,
)

__all__ = [
    "DATASETS",
    "SPLITS",
    "TEMPLATES",
    "apply_template",
    "asked",
    "chat_prompt",
    "check_known",
    "is_generated",
    "load",
    "with_template",
]
