"""Names of arms: two arms of one grid never share one."""

import re
from collections import defaultdict
from dataclasses import asdict, replace

import pytest

from hybridlib import labels
from hybridlib.grids import GRIDS
from hybridlib.profiles import PROFILES
from hybridlib.runs import Run


@pytest.mark.parametrize("grid", sorted(GRIDS))
@pytest.mark.parametrize("profile", ["tiny", "tiny-full"])
def test_arms_that_differ_in_more_than_the_seed_have_names_of_their_own(grid, profile):
    def seedless(run):
        seeds = {"".join(re.findall(r"_seed-(\d+)", one)[:1]) for one in run.parents}
        parents = tuple(re.sub(r"_seed-\d+", "", one) for one in run.parents)
        start = re.sub(r"_seed-\d+", "", run.start)
        return replace(run, seed=0, start=start, parents=parents), len(seeds) > 1

    found = defaultdict(set)
    for run in GRIDS[grid](PROFILES[profile]):
        found[labels.arm_label(asdict(run))].add(seedless(run))
    assert {name: runs for name, runs in found.items() if len(runs) > 1} == {}


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (Run("base"), "base"),
        (Run("base", temperature=0.5), "base, at temperature 0.5"),
        (Run("grpo", start="sft_loss-chord_phi_seed-1"), "SFT loss chord_phi, then GRPO"),
        (Run("cat", parents=("sft_by-length", "grpo_by-length")), "learnt merge, length halves"),
        (
            Run("merge", parents=("sft", "sft_seed-1"), merge="mean"),
            "mean merge, SFT + SFT of different seeds",
        ),
        (Run("stack", start="sft"), "SFT, then GRPO on top"),
        (Run("sft", options=("warmup_steps=5",)), "SFT, warmup-steps 5"),
        (Run("grpo", rewards=("correct", "format")), "GRPO, paid correct + format"),
    ],
)
def test_names(run, name):
    assert labels.arm_label(asdict(run)) == name.replace("_", "-")


def test_numbers_are_written_with_their_interval():
    row = {"value": 0.5, "low": 0.412, "high": 0.6}
    assert labels.interval(row).replace("\N{NO-BREAK SPACE}", " ") == "50.0 [41.2, 60.0]"
    assert labels.heading("n_train") == "training rows" and labels.heading("a_b") == "a b"


def test_questions_are_counted_at_the_seeds_that_there_are():
    def needed(value, se, se_items, quantile=1.96):
        ends = {"high": value + quantile * se, "se": se, "se_items": se_items}
        return labels.questions_needed({"value": value} | ends)

    assert needed(0.1, 0.02, 0.02) == "about 0.15 times as many questions (fewer than were asked)"
    assert needed(0.01, 0.02, 0.02) == "about 15 times as many questions"
    assert needed(0.01, 0.02, 0.02, 2.776) == "about 31 times as many questions"
    # Where most of the error is the seeds':
    assert needed(0.01, 0.03, 0.01).startswith("no number of questions")
