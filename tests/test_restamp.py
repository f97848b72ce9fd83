"""Fingerprints are renewed where reruns are bitwise equal, and only there."""

import json

import pytest

from hybridlib import StudyError, files, fingerprint, results, study
from hybridlib.restamp import restamp
from hybridlib.runs import Run
from hybridlib.verify import draw


@pytest.fixture
def outdated(small, world, in_process):
    """Two records whose code is said to be another than today's."""
    for run in (Run("base"), Run("sft")):
        study.execute(run, small)
    for record in results.read("small"):
        code = record["provenance"]["code"] | {"old.py": "0" * 12}
        results.save(record | {"provenance": record["provenance"] | {"code": code}}, force=True)
    return small


@pytest.mark.slow
def test_equal_reruns_renew_all_records_and_one_that_differs_none(outdated, capsys):
    path = files.results_folder("small") / "base.json"
    whole = path.read_text()
    record = json.loads(whole)
    record["items"]["gsm8k/test"]["greedy"] = "0110"[::-1] + "2"
    path.write_text(json.dumps(record))
    with pytest.raises(StudyError, match="not equal: base"):
        restamp(outdated, sample=2)
    assert "old.py" in results.stale_reason(Run("sft"), outdated)
    path.write_text(whole)
    assert restamp(outdated, sample=1) == 2
    assert "bitwise equal" in capsys.readouterr().out
    for record in results.read("small"):
        assert not results.stale_reason(Run(**record["run"]), outdated)
        assert record["provenance"]["code"] == fingerprint.digests_of(
            Run(**record["run"]), outdated
        )
        assert set(record["provenance"]["restamped"]) == {"on", "verified", "commit"}
        assert len(record["provenance"]["restamped"]["verified"]) == 1
    assert restamp(outdated) == 0, "nothing is left to renew"


def test_a_sample_has_every_method_before_a_second_of_any():
    methods = {"sft": 30, "grpo": 30, "base": 1, "merge": 3}
    records = {
        f"{method}-{number}": {"run": {"method": method}}
        for method, count in methods.items()
        for number in range(count)
    }
    drawn = draw(records, 4, seed=0)
    assert {name.split("-")[0] for name in drawn} == set(methods)
    assert drawn == draw(records, 4, seed=0) != draw(records, 4, seed=1)
    assert len(set(draw(records, 10, seed=0))) == 10
    assert len(draw(records, 1000, seed=0)) == 64
