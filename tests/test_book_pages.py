from dataclasses import replace

from hybridlib import markdown
from hybridlib.book import pages
from hybridlib.profiles import PROFILES


def record(name, seconds, tokens):
    score = {"split": "test", "metric": "sampled", "value": 0.5, "low": 0.4, "high": 0.6}
    return {
        "id": name,
        "scores": [score | {"family": "math"}, score | {"family": "math", "split": "valid"}],
        "cost": {"train_seconds": seconds, "eval_seconds": 60, "tokens": tokens},
    }


def test_the_page_of_runs_has_a_row_per_run_their_sums_and_what_each_grid_costs():
    page = pages.runs_page(PROFILES["tiny"], [record("base", 0, 0), record("sft", 120, 1500)])
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert "| run | math | training, s | evaluation, s |" in lines
    assert "| `sft` | 0.500 [0.400, 0.600] | 120 | 60 |" in lines
    assert "2 runs, 2 minutes of training, 2 minutes of evaluation, 1,500 tokens" in page
    assert any(line.startswith("| `everything` | 2 | 2 | 2 |") for line in lines)


def test_the_page_of_runs_says_when_there_are_none():
    assert "No run of this profile is stored yet." in pages.runs_page(PROFILES["tiny"], [])


def test_the_banner_says_which_model_the_numbers_are_about():
    tiny = " ".join(pages._banner(PROFILES["tiny"]).split())
    assert "a Qwen2 of 4 layers and width 64 that this project pretrained" in tiny
    assert "The exercises' commands" not in tiny
    mine = replace(PROFILES["tiny"], name="mine", model="org/model")
    assert "`mine`: the model `org/model`. Unless" in pages._banner(mine)
    assert "`make book PROFILE=mine`" in pages._banner(mine)


def test_outputs_meet_the_source_in_order_and_its_code_is_folded():
    def cell(source, *tags, **more):
        return {"cell_type": "code", "source": source, "metadata": {"tags": [*tags]}} | more

    ran = {"outputs": ["1"], "execution_count": 4}
    source = {"cells": [cell("a = 1", "parameters"), cell("a"), cell("b", "remove-input")]}
    executed = {
        "cells": [
            cell("a = 1", "parameters", **ran),
            cell("a = 2", "injected-parameters", **ran),
            cell("a", **ran),
            cell("b", **ran),
        ]
    }
    pages.graft(source, executed)
    tags = [one["metadata"]["tags"] for one in source["cells"]]
    assert tags == [["parameters", "hide-cell"], ["hide-input"], ["remove-input"]]
    assert [one.get("outputs") for one in source["cells"]] == [None, ["1"], ["1"]]


def test_a_table_writes_cells_as_they_are():
    import pandas as pd

    frame = pd.DataFrame({"arm": [markdown.cell("a|b")], "value": ["0.10"]})
    assert "| a\\|b | 0.10 |" in markdown.table(frame)
    flush = markdown.table(frame, right=["value"]).splitlines()
    assert flush[1].endswith(":|") and flush[2].split() == ["|", "a\\|b", "|", "0.10", "|"]
