"""A finished run is stale when code that it reaches has changed, and only then."""

import functools
import shutil

import pytest

import hybridlib
from hybridlib import fingerprint
from hybridlib.profiles import PROFILES
from hybridlib.runs import Run


def named(method, **more):
    """What a run of this method names, by kind of registry; `more` adds or replaces entries."""
    kinds = {
        "training method": method,
        "adapter": "lora",
        "partition rule": "all",
        "target": "solution",
        "objective": "nll",
        "dataset": "tiny_gsm8k",
        "tiny task": "tiny_gsm8k",
        "reward": "correct",
        "merge method": "",
    }
    kinds |= {kind.replace("_", " "): name for kind, name in more.items()}
    return tuple((kind, frozenset({name})) for kind, name in kinds.items() if name)


SFT = named("sft")
GRPO = named("grpo")
TIES = named("merge", merge_method="ties")


@pytest.fixture
def package(tmp_path):
    copy = tmp_path / "hybridlib"
    shutil.copytree(fingerprint.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@functools.cache
def unchanged(names):
    return fingerprint.code(dict(names))


def changed(package, names, *edits):
    """Which files of the fingerprint change when these edits are made?"""
    before = unchanged(names)
    for file, old, new in edits:
        path = package / file
        text = path.read_text()
        assert text.count(old) >= 1, f"{file} no longer has {old!r}"
        path.write_text(text.replace(old, new, 1))
    after = fingerprint.code(dict(names), package)
    return {name for name in before | after if before.get(name) != after.get(name)}


ANCHOR = ("objectives.py", "ANCHOR = 0.05", "ANCHOR = 0.5")
OUT_OF_REACH = [
    ANCHOR,  # of an objective that is not used
    ("objectives.py", '"""Maximum likelihood', '"""Most likely'),  # a docstring
    ("partition.py", "def split(", "# halves\ndef split("),  # a comment
    ("rewards.py", "def texts(", "def other(x):\n    return x\n\n\ndef texts("),
    ("merging/operators.py", "DENSITY = 0.2", "DENSITY = 0.3"),
    ("grids.py", "PER_BUCKET", "ROWS_PER_BUCKET"),
    ("proportions.py", "RESAMPLES = 2_000", "RESAMPLES = 1_000"),
    ("adapters.py", "use_dora=True", "use_dora=False"),
    ("methods/train.py", "        tracking.attach(trainer, job.run, job.profile)\n", ""),
]
REACHED = [
    ("objectives.py", "return -tokens.label_log_probs\n", "return -tokens.log_probs\n"),
    ("adapters.py", "lora_alpha=2 * rank", "lora_alpha=rank"),
    ("tiny/tasks.py", "range(60, 85)", "range(60, 80)"),
    ("tiny/families.py", "rng.randint(2, 50)", "rng.randint(2, 51)"),
    ("sandbox/isolation.py", "512 << 20", "256 << 20"),  # started as a script, not imported
    ("engine/trainers.py", "scores.argmax", "scores.argmin"),
]


@pytest.mark.slow
def test_what_a_run_does_not_reach_leaves_it_alone(package):
    assert changed(package, SFT, *OUT_OF_REACH) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "names, edits",
    [
        (SFT, REACHED),
        (GRPO, [("rewards.py", "verdict.correct", "not verdict.correct")]),
        (named("sft", objective="asft"), [ANCHOR]),
        (TIES, [("merging/operators.py", "DENSITY = 0.2", "DENSITY = 0.3")]),
        (named("cat"), [("methods/composed.py", "0.05, 0.05", "0.05, 0.03")]),
        (named("stack"), [("methods/train.py", "1_000_003", "1_000_033")]),  # GRPO's
    ],
    ids=["sft", "grpo", "asft", "ties", "cat", "stack"],
)
def test_what_a_run_reaches_makes_it_stale(package, names, edits):
    assert changed(package, names, *edits) == {file for file, *_ in edits}


def test_each_method_has_its_own_code():
    sft, grpo = (fingerprint.code(dict(names)) for names in (SFT, GRPO))
    assert sft["methods/train.py"] != grpo["methods/train.py"]
    assert sft["data/rows.py"] == grpo["data/rows.py"]
    assert "rewards.py" in grpo and "stats.py" not in sft and "results.py" not in sft


def test_the_weights_of_the_base_count(tmp_path, monkeypatch):
    monkeypatch.setattr(hybridlib, "ROOT", tmp_path)
    weights = tmp_path / PROFILES["tiny"].model / fingerprint.WEIGHTS
    weights.parent.mkdir(parents=True)
    found = []
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        found.append(fingerprint.digests_of(Run("sft"), PROFILES["tiny"]))
    assert {name for name in found[0] if found[0][name] != found[1][name]} == {"model.safetensors"}
    assert all(len(digest) == 12 for digest in found[0].values())


@pytest.mark.slow
def test_entries_of_one_name_in_two_registries_are_two_things(package):
    """A run on random halves does not depend on the reward of that name."""
    halves = named("sft", partition_rule="random")
    edit = "rewards.py", "digest()[0] % 2", "digest()[1] % 2"
    assert changed(package, halves, edit) == set()
    assert changed(package, named("grpo", reward="random")) == {"rewards.py"}  # the same edit
