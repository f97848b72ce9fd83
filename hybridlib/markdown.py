"""How does a page of Markdown come about? From a jinja2 template, and tables from data frames.

A template lies in the folder `templates` of the package whose module fills it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def render(package: str, template: str, **values: Any) -> str:
    """Return the text of a package's template, filled with the values.

    Raises jinja2.UndefinedError where the template uses a value that is not given.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def table(frame: pd.DataFrame, right: Collection[str] = ()) -> str:
    """Return a data frame as a Markdown table, without its index; `right` columns end flush.

    Cells are written as they are: numbers are formatted, and bars in texts escaped, by the caller.
    """
    if len(right):
        sides = ["right" if name in right else "left" for name in frame.columns]
        return frame.to_markdown(
            index=False, tablefmt="pipe", colalign=sides, disable_numparse=True
        )
    return frame.to_markdown(
        index=False, tablefmt="github", stralign=None, numalign=None, disable_numparse=True
    )


def cell(text: str) -> str:
    """Return a text with its bars escaped, which would end the cell of a table."""
    return text.replace("|", "\\|")
