"""How does a process end together with the one that started it, whatever ends that one?"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
LOOK_SECONDS = 1.0
LAUNCHER = "from hybridlib.processes import launch; launch()"


def end_with_parent(parent: int = 0) -> None:
    """End this process when its parent ends: by itself, by TERM or HUP, by kill -9.

    On Linux the kernel sees to it, also while a long call of C keeps every thread waiting. A thread
    that looks once a second serves other systems, and a parent that had ended before this call.
    What dies with its parent on Linux dies with the thread of it that started this process.

    Args:
        parent: the parent's process id, where it is known; 0 = whoever is the parent now.
    """
    parent = parent or os.getppid()
    _ask_the_kernel()
    threading.Thread(target=_watch, args=[parent], daemon=True).start()


def command_that_ends(command: Sequence[object]) -> list[str]:
    """Return a command that carries out another one and ends with the process that starts it.

    On Linux; elsewhere it only carries out the other one.
    """
    return [sys.executable, "-c", LAUNCHER, str(os.getpid()), *map(str, command)]


def launch() -> None:
    """Turn this process into that of `command_that_ends`: the main function of its launcher."""
    parent, *command = sys.argv[1:]
    _ask_the_kernel()  # which remembers it across exec
    if os.getppid() == int(parent):
        os.execv(command[0], command)


def _ask_the_kernel() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)
