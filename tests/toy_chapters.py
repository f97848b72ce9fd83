"""Small notebooks for the tests of the book, in a root of their own (the fixture `root`)."""

import json
from dataclasses import replace

from hybridlib.book import cache, kernels, plan
from hybridlib.profiles import PROFILES

TOY = replace(PROFILES["tiny"], name="toy", model="none")


def write(root, name, *code, after=(), grids=(), reads=(), seed=0, prose="Prose."):
    """A notebook of title, parameters cell and one cell per piece of code."""
    cell = {"metadata": {}, "execution_count": None, "outputs": [], "cell_type": "code"}
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {name}\n\n{prose}"},
        cell
        | {
            "id": "parameters",
            "metadata": {"tags": ["parameters"]},
            "source": f'profile = "tiny"\nseed = {seed}',
        },
        *(cell | {"id": f"code{i}", "source": text, "metadata": {}} for i, text in enumerate(code)),
    ]
    metadata = {
        "hybridlib": {"after": list(after), "grids": list(grids), "reads": list(reads)},
        "kernelspec": {"name": "mine", "display_name": "Mine", "language": "python"},
    }
    path = root / "notebooks" / f"{name}.ipynb"
    path.write_text(
        json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
    )


def reasons(**options):
    return {s.chapter.name: s.reason for s in plan.steps(plan.catalogue(), TOY, **options)}


def run(**options):
    steps = plan.steps(plan.catalogue(), TOY, **options)
    kernels.run(steps, TOY, jobs=2)
    return {step.chapter.name: step for step in steps}


def shown(name):
    cells = json.loads((cache.executed_folder(TOY) / f"{name}.ipynb").read_text())["cells"]
    return ["".join(out["text"]) for c in cells for out in c.get("outputs", ()) if "text" in out]
