"""sympy in processes that can be killed: whatever it does, the caller gets an answer in time."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from hybridlib import ROOT, grading
from hybridlib.grading import symbolic


def test_equal_different_and_senseless_pairs():
    pairs = [(r"\sqrt{12}", r"2\sqrt{3}"), (r"\sqrt{12}", r"3\sqrt{2}"), ("1", r"\frac{1}{0}")]
    reasons = [reason for reason, _, _ in symbolic.compare(pairs)]
    assert reasons[:2] == ["pass", "wrong"] and reasons[2] in ("wrong", "error")


@pytest.mark.slow
def test_what_runs_for_ever_is_killed_and_the_rest_of_the_batch_is_judged():
    hang = ["9^{9^{9^9}}", "((9!)!)!", "(a+b+c)^{9999}", "1000000000!"]
    good = [(rf"\sqrt{{{4 * k}}}", rf"2\sqrt{{{k}}}") for k in (2, 3, 5, 7)]
    pairs = [pair for two in zip([(h, "5") for h in hang], good, strict=True) for pair in two]
    began = time.monotonic()
    outcomes = symbolic.compare(pairs)
    spent = time.monotonic() - began
    assert spent < len(hang) * symbolic.SECONDS + 30  # of which a busy machine takes its share
    assert [reason for reason, _, _ in outcomes[1::2]] == ["pass"] * 4
    assert {reason for reason, _, _ in outcomes[::2]} <= {"timeout", "error", "wrong"}
    assert "timeout" in {reason for reason, _, _ in outcomes[::2]}
    assert symbolic.compare(good[:1])[0][0] == "pass"


@pytest.mark.slow
def test_memory_is_limited_and_the_next_pair_is_judged():
    reason, error, _ = symbolic.compare([("10^{9^{10}}", "5")])[0]
    assert reason in ("timeout", "error") and error
    assert symbolic.compare([(r"\sqrt{8}", r"2\sqrt{2}")])[0][0] == "pass"


INTERVALS, WITHOUT_0 = r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R} \setminus \{0\}"


def test_a_pair_goes_to_a_worker_once(monkeypatch):
    sent = []
    inner = symbolic._compare_in_workers

    def counted(pairs):
        sent.extend(pairs)
        return inner(pairs)

    monkeypatch.setattr(symbolic, "_compare_in_workers", counted)
    symbolic.CACHE.clear()
    other = r"\mathbb{R} \setminus \{1\}"
    texts = [rf"\boxed{{{WITHOUT_0}}}", rf"so \boxed{{{WITHOUT_0}}}.", rf"\boxed{{{other}}}"] * 3
    verdicts = grading.grade_many(texts, [INTERVALS] * 9, ["expression"] * 9)
    assert [v.reason for v in verdicts] == ["pass", "pass", "wrong"] * 3
    assert len(sent) == 2


@pytest.mark.slow
def test_no_process_outlives_its_parent():
    code = (
        "import os, signal; from hybridlib.grading import symbolic; symbolic.compare([('x', 'y')]);"
        "print(os.getpid(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True
    )
    assert done.returncode == -9
    deadline = time.monotonic() + 60
    while left := [p for p in os.listdir("/proc") if _session(p) == done.stdout.strip()]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.2)


def _session(process: str) -> str:
    """Return the session of a process, which all that it started shares, "" if it has ended."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[3]
    except (OSError, IndexError):
        return ""


def _settles(answer):
    return symbolic.compare([("x^2-1", answer)])[0][0]


@pytest.mark.slow
def test_a_worker_process_that_compared_can_end():
    """Its own workers must be stopped first: multiprocessing waits for them.

    Pebble loses a race now and then while it stops, so a worker has three tries; without the
    finalizer each of them hangs.
    """
    for _ in range(3):
        with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")
        ) as pool:
            assert pool.submit(_settles, "(x-1)(x+1)").result(60) == "pass"
            (worker,) = pool._processes.values()
            pool.shutdown(wait=False)
            worker.join(20)
            ended = worker.exitcode
            worker.kill()
        if ended == 0:
            return
    raise AssertionError("no worker ended by itself")


@pytest.mark.slow
def test_a_script_without_a_guard_can_grade(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from hybridlib import grading\n"
        f"print(grading.grade(r'\\boxed{{{WITHOUT_0}}}', r'{INTERVALS}', 'expression').reason)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment
    )
    assert (done.stdout.strip(), done.returncode) == ("pass", 0), done.stderr
