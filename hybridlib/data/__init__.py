"""Rows: where they come from, what form they take, whether they can be trained on.

A data set is one decorated function in `rows`; `sources` reads folders, files and the hub, `audit`
refuses rows whose own solution is not right, `intake` sorts one's own rows out one by one, and
`describe` says what is in a set. Import the names below from here; `sources` is not for others.
"""

from hybridlib.data.rows import DATASETS, SPLITS, TEMPLATES, asked, chat, load, wrapped

__all__ = ["DATASETS", "SPLITS", "TEMPLATES", "asked", "chat", "load", "wrapped"]
