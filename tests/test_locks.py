"""A lock is held by one process at a time and ends with it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

from hybridlib import locks

HOLDER = """
import sys, time
from pathlib import Path
from hybridlib import locks
with locks.held(Path(sys.argv[1]), wait=bool(sys.argv[2:])) as other:
    print(other or "mine", flush=True)
    {then}
"""


def holder(path, then="time.sleep(600)", *wait):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(then=then), str(path), *wait],
        stdout=subprocess.PIPE,
        text=True,
    )
    return process


def test_one_process_holds_it_and_the_others_learn_who(tmp_path):
    path = tmp_path / "folder" / "lock"
    first = holder(path)
    assert first.stdout.readline() == "mine\n"
    with locks.held(path) as other:
        assert f"process {first.pid} on " in other and " since " in other
    second = holder(path, "pass")
    assert f"process {first.pid} on " in second.communicate()[0]
    first.kill()
    first.wait()
    with locks.held(path) as other:
        assert other == ""
    with locks.held(path) as other:
        assert other == "", "it was let go"
    first.stdout.close()


def test_no_child_of_the_holder_keeps_it(tmp_path):
    then = "import os, subprocess; subprocess.Popen(['sleep', '60']); os.fork(); time.sleep(600)"
    first = holder(tmp_path / "lock", then + " # forks twice: by exec and plainly")
    assert first.stdout.readline() == "mine\n"
    time.sleep(0.3)
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True)
    first.kill()
    first.wait()
    try:
        with locks.held(tmp_path / "lock") as other:
            assert other == ""
    finally:
        assert len(children.stdout.split()) == 2
        for pid in children.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        first.stdout.close()


def test_who_waits_gets_it_when_the_holder_ends(tmp_path):
    first = holder(tmp_path / "lock")
    assert first.stdout.readline() == "mine\n"
    second = holder(tmp_path / "lock", "pass", "wait")
    assert f"waiting for lock of process {first.pid} on" in second.stdout.readline()
    assert second.poll() is None
    first.kill()
    assert second.communicate(timeout=10)[0] == "mine\n"
    first.communicate()


def test_a_folder_without_locks_is_worked_on_with_a_notice(tmp_path, monkeypatch, capsys):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    locks._notice.cache_clear()
    for _ in range(2):
        with locks.held(tmp_path / "lock") as other:
            assert other == ""
    assert capsys.readouterr().out.count("has no locks (No locks available)") == 1
