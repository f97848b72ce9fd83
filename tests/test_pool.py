import pytest

from hybridlib import StudyError, pool
from hybridlib.profiles import PROFILES
from hybridlib.study import Run


def test_the_time_left_follows_the_methods_that_are_left(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(pool.time, "time", lambda: now[0])
    clock = pool.Clock(4, workers=2)
    now[0] += 60
    left = [Run("sft", seed=1), Run("grpo", seed=1)]
    clock.progress(Run("grpo"), 60, left)  # sft is unknown still: as long as the mean
    line = clock.progress(Run("sft"), 20, left)
    assert "[  2/4]   20 s  sft" in line and "1:00 so far" in line
    assert "about 0:40 left" in line  # (20 + 60) / 2 workers


def test_runs_after_a_failed_one_are_named_and_not_tried(monkeypatch, capsys):
    from concurrent.futures import Future

    tried = []

    def submit(self, run, **options):
        tried.append(run.id)
        future = Future()
        if run.method == "sft":
            future.set_exception(ValueError("no rows\nof that kind"))
        else:
            future.set_result({})
        return future

    monkeypatch.setattr(pool.Pool, "submit", submit)
    runs = [Run("sft"), Run("grpo", start="sft"), Run("base")]
    with pool.Pool(PROFILES["tiny"], None, workers=1) as crew:
        with pytest.raises(StudyError, match="2 of 3 runs failed: sft: ValueError: of that kind"):
            crew.work(runs)
    assert tried == ["sft", "base"]
    out = capsys.readouterr().out
    assert "FAILED sft" in out and "base" in out
