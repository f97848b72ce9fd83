import pytest

from hybridlib.book import cache


def test_key_follows_imports_but_not_annotations(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    sources = {
        "__init__": "",
        "methods/__init__": "",
        "methods/train": "def f():\n    from hybridlib.models import load",
        "models": "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from hybridlib import figures",
        "figures": "",
        "stats": "",
        "merging/__init__": "",
        "merging/merge": "import hybridlib.stats",
    }
    for name, text in sources.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    train = cache.imported(["%matplotlib inline\nfrom hybridlib.methods import train"])
    assert train == ["__init__", "methods", "methods.train", "models"]
    merge = cache.imported(["import hybridlib.merging.merge as m"])
    assert merge == ["__init__", "merging", "merging.merge", "stats"]


def test_key_follows_a_wing_through_its_face():
    names = cache.imported(["from hybridlib.grading import grade"])
    assert {"grading", "grading.grader", "grading.notation", "sandbox.judge"} <= {*names}
    assert "study" not in names


@pytest.mark.parametrize(
    "old, new, reason",
    [
        ({"seed": 0}, {"seed": 0}, ""),
        ({"seed": 0}, {"seed": 1}, "parameter seed changed"),
        ({}, {"seed": 1}, "parameter seed is new"),
        ({"seed": 1}, {}, "parameter seed is gone"),
        ({"seed": 1}, {"seed": None}, "parameter seed is missing"),
        (
            {},
            dict.fromkeys("abcde", 0),
            "parameter a is new, parameter b is new, parameter c is new and 2 more",
        ),
    ],
)
def test_reasons(old, new, reason):
    assert cache.differences({"parameters": old}, {"parameters": new}) == reason
