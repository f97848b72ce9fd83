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
            future.set_result(pool.Outcome({}))
        return future

    monkeypatch.setattr(pool.Pool, "submit", submit)
    runs = [Run("sft"), Run("grpo", start="sft"), Run("base")]
    with pool.Pool(PROFILES["tiny"], None, workers=1) as crew:
        with pytest.raises(StudyError, match="2 of 3 runs failed: sft: ValueError: of that kind"):
            crew.work(runs)
    assert tried == ["sft", "base"]
    out = capsys.readouterr().out
    assert "FAILED sft" in out and "base" in out


HOLDER = """
import json, sys, time
from pathlib import Path
from hybridlib import files, locks
name, run_id, made = sys.argv[1:]
with locks.held(files.runs_folder(name) / "locks" / run_id):
    print(flush=True)
    time.sleep({seconds})
    if made != "nothing":
        files.write(files.results_folder(name) / f"{{run_id}}.json", json.dumps({{"id": run_id}}))
"""


@pytest.fixture
def crew(world, monkeypatch):
    """Return a function that sweeps in this process and says what was executed here."""
    from concurrent.futures import ThreadPoolExecutor

    def sweep(*runs, seen=None, workers=1):
        executed = []

        def execute(run, profile, **options):
            executed.append(run.id)
            return {"id": run.id, "by": "this process"}

        threads = ThreadPoolExecutor(1)

        def submit(self, run, seen=None, **options):
            return threads.submit(pool._execute_alone, execute, run, self.profile, seen, options)

        monkeypatch.setattr(pool.Pool, "submit", submit)
        monkeypatch.setattr(pool, "PAUSE", 0.1)
        with pool.Pool(PROFILES["tiny"], execute, workers=workers) as crew:
            return crew.work(runs, seen=seen), executed

    return sweep


@pytest.fixture
def elsewhere(world):
    """Return a function that lets another process hold the lock of a run, and its record come."""
    import os
    import subprocess
    import sys

    processes = []

    def hold(run, seconds=1.0, made="record"):
        code = HOLDER.format(seconds=seconds)
        process = subprocess.Popen(
            [sys.executable, "-c", code, "tiny", run.id, made],
            env=os.environ | {"HYBRIDLIB_ROOT": str(world)},
            stdout=subprocess.PIPE,
        )
        process.stdout.readline()
        processes.append(process)
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def fresh(monkeypatch):
    """Take every stored record for one of today's code."""
    import json

    from hybridlib import files, results

    def stored(run, profile):
        path = files.results_folder(profile.name) / f"{run.id}.json"
        return json.loads(path.read_text()) if path.exists() else None

    monkeypatch.setattr(results, "find", stored)
    monkeypatch.setattr(results, "stale_reason", lambda *of: "" if stored(*of) else "missing")


BASE, SFT, GRPO = Run("base"), Run("sft"), Run("grpo", start="sft")


def test_what_another_call_makes_is_taken_from_it(crew, elsewhere, fresh, capsys):
    other = elsewhere(SFT)
    records, executed = crew(SFT, BASE, GRPO, seen={})
    assert executed == ["base", "grpo_after-sft"]  # what is left comes last, its child after it
    assert records["sft"] == {"id": "sft"} and len(records) == 3
    assert f"sft: left to process {other.pid} on " in capsys.readouterr().out


@pytest.mark.parametrize("how", ["killed", "ends with nothing"])
def test_what_another_call_leaves_undone_is_taken_up(crew, elsewhere, fresh, how):
    other = elsewhere(SFT, seconds=0.5 if how != "killed" else 600, made="nothing")
    if how == "killed":
        import threading

        threading.Timer(0.5, other.kill).start()
    records, executed = crew(SFT, BASE, seen={})
    assert executed == ["base", "sft"] and records["sft"]["by"] == "this process"


def test_what_was_made_before_the_plan_is_executed_all_the_same(crew, elsewhere, fresh):
    """A verification, or --force: the record is there, and older than the call."""
    from hybridlib import files

    elsewhere(SFT, seconds=0).wait()
    assert crew(SFT, seen=None)[1] == ["sft"]
    assert crew(SFT, seen=files.recorded_times("tiny"))[1] == ["sft"]
    assert crew(SFT, seen={})[1] == []


def test_a_run_whose_worker_is_killed_is_tried_once_more_and_alone(monkeypatch, capsys):
    from concurrent.futures import Future
    from concurrent.futures.process import BrokenProcessPool

    tried, at_once = [], []

    def submit(self, run, **options):
        tried.append(run.id)
        future = Future()
        kills = run.method == "sft" or (run.method == "base" and tried.count("base") == 1)
        error = BrokenProcessPool("a process was terminated abruptly") if kills else None
        future.set_exception(error) if error else future.set_result(pool.Outcome({}))
        return future

    def wait(running, *options):
        at_once.append({run.id for run, _ in running.values()})
        return wait_as_before(running, *options)

    wait_as_before = pool.wait
    monkeypatch.setattr(pool, "wait", wait)
    monkeypatch.setattr(pool.Pool, "submit", submit)
    with pool.Pool(PROFILES["tiny"], None, workers=2) as crew:
        with pytest.raises(StudyError, match="1 of 3 runs failed: sft: BrokenProcessPool"):
            crew.work([SFT, BASE, Run("grpo")])
    assert sorted(tried) == ["base", "base", "grpo", "sft", "sft"]
    assert {"sft", "base"} in at_once and {"sft"} in at_once and {"base"} in at_once
    assert "a worker was killed; once more" in capsys.readouterr().out


SWEEP = """
import json, sys
from hybridlib import study
from hybridlib.profiles import Profile
from test_pool import counting
if __name__ == "__main__":
    study.execute = counting
    runs = [study.Run("base", seed=seed) for seed in range(4)]
    study.execute_all(runs, Profile(**json.loads(sys.argv[1])), workers=1)
"""


def counting(run, profile, **options):
    """Execute a run and note that; the first to come to seed 2 is killed there."""
    import os
    import signal

    from hybridlib import files, study

    with (files.ROOT / "executed").open("a") as file:
        print(run.seed, file=file)
    if run.seed == 2 and not (files.ROOT / "killed").exists():
        (files.ROOT / "killed").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGSTOP)  # ends with its parent all the same
    return study.execute(run, profile, **options)


@pytest.mark.slow
def test_of_two_sweeps_at_once_each_run_is_done_once_though_one_is_killed(small, world, tmp_path):
    import json
    import os
    import subprocess
    import sys
    from dataclasses import asdict

    from hybridlib import results

    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = os.environ | {"HYBRIDLIB_ROOT": str(world), "PYTHONPATH": path}
    sweeps = [
        subprocess.Popen(
            [sys.executable, script, json.dumps(asdict(small))],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    shown = [sweep.communicate(timeout=300)[0] for sweep in sweeps]
    assert sorted(sweep.returncode for sweep in sweeps) == [-9, 0], shown
    assert len(results.read("small")) == 4
    executed = (world / "executed").read_text().split()
    assert sorted(executed) == ["0", "1", "2", "2", "3"]  # seed 2 had been cut short
