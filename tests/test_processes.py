"""Real processes: what is started ends with what started it, whatever ends that."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hybridlib import processes

# A parent that starts a child in some way, prints the child's id and waits.
PARENT = """
import subprocess, sys, time
from hybridlib import processes
child = "from hybridlib.processes import end_with_parent as end; end(); {before}; import time; "
command = [sys.executable, "-c", child + "print(flush=True); time.sleep(600)"]
if {launched}:
    command = processes.command_that_ends([sys.executable, "-c", "print(flush=True);"
                                           "import time; time.sleep(600)"])
child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()  # it is ready
print(child.pid, flush=True)
{then}
"""
DEAF = "import signal; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]"
STUCK = "import re, threading; threading.Timer(0.5, re.match, ['(a+)+$', 'a' * 40 + 'b']).start()"
WAITS = "time.sleep(600)"


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids, seconds=10):
    end = time.time() + seconds
    while any(map(alive, pids)) and time.time() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def started(**how):
    # A shell's background job ignores SIGQUIT, and so would all that it starts.
    heard = "import signal; signal.signal(signal.SIGQUIT, signal.SIG_DFL)"
    code = heard + PARENT.format(**dict(before="pass", launched=False, then=WAITS) | how)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return parent, int(parent.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    "how, end",
    [
        ({}, signal.SIGKILL),
        ({}, signal.SIGTERM),
        ({}, signal.SIGHUP),
        ({}, signal.SIGQUIT),
        ({}, signal.SIGABRT),
        (dict(before=DEAF), signal.SIGKILL),
        (dict(before=DEAF), signal.SIGHUP),
        (dict(before=STUCK), signal.SIGKILL),  # the interpreter's lock is held in C
        (dict(launched=True), signal.SIGKILL),
        (dict(launched=True), signal.SIGTERM),
        (dict(then="raise SystemExit(3)"), None),
        (dict(then="import os; os._exit(0)"), None),
        (dict(then="1 / 0"), None),
    ],
    ids=str,
)
def test_a_child_ends_with_its_parent(how, end):
    parent, child = started(**how)
    if how.get("before") == STUCK:
        time.sleep(0.7)
    if end:
        assert alive(child)
        parent.send_signal(end)
    parent.wait(10)
    parent.stdout.close()
    try:
        assert gone([child])
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


def test_a_thread_looks_where_no_kernel_helps(monkeypatch):
    parents, exits = [7, 7, 7, 1], []
    monkeypatch.setattr(processes.os, "getppid", lambda: parents.pop(0))
    monkeypatch.setattr(processes.os, "_exit", exits.append)
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: None)
    processes._watch(7)
    assert exits == [1] and parents == []


POOL = """
import os, sys, time
from pathlib import Path
from hybridlib import pool
from hybridlib.profiles import PROFILES
from hybridlib.study import Run
from test_processes import sleep
if __name__ == "__main__":
    runs = [Run(method) for method in sys.argv[1:]]
    with pool.Pool(PROFILES["tiny"], sleep, workers=len(runs)) as crew:
        crew.work(runs)
"""


def sleep(run, profile, **options):
    """Stand in for `study.execute`: say who is at work, with what children, and go on for long."""
    from hybridlib import files, grading

    grading.grade("\\boxed{x+1}", "1+x", "expression")  # the grader's workers are children, too
    files.write(files.ROOT / run.id, str(os.getpid()))
    time.sleep(600)


def marked(mark):
    """Return the processes that have inherited a variable of this content."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = open(f"/proc/{pid}/environ", "rb").read()
        except OSError:
            continue
        if mark.encode() in environment and alive(pid):
            found.append(int(pid))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("end", "runs"), [(signal.SIGKILL, ["base", "sft"]), (signal.SIGHUP, ["base"])]
)
def test_nothing_is_left_of_a_sweep(world, end, runs, tmp_path):
    """Neither workers, nor the grader's, nor a sandbox: whoever inherited the environment."""
    script, mark = tmp_path / "sweep.py", f"mark-{os.getpid()}-{end}"
    script.write_text(POOL)
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = os.environ | {"HYBRIDLIB_ROOT": str(world), "MARK": mark, "PYTHONPATH": path}
    with open(tmp_path / "log", "w") as log:
        command = [sys.executable, script, *runs]
        sweep = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    until = time.time() + 120
    while not all((world / run).exists() for run in runs):
        assert sweep.poll() is None and time.time() < until, (tmp_path / "log").read_text()
        time.sleep(0.2)
    assert len(marked(mark)) > len(runs)
    sweep.send_signal(end)
    sweep.wait(20)
    end = time.time() + 15
    while marked(mark) and time.time() < end:
        time.sleep(0.1)
    left = marked(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
