"""Who is at work on what? Locks on files, which end with the process that holds them.

Several calls may work on one folder at once, on one machine or on several that share it. The locks
are those of POSIX: the kernel, or the server of the file system (NFS and Lustre carry them between
machines), drops them when their holder ends, however it ends, and no child inherits them. Their
files stay, and hold who had the lock last: removing one would let two processes lock two files of
one name. A process that opens a file whose lock it holds a second time loses the lock when it
closes it.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import IO

TAKEN = (errno.EACCES, errno.EAGAIN)
NOT_SUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def held(path: Path, wait: bool = False) -> Iterator[str]:
    """Hold the lock of a file, which is made, as long as the context lasts.

    Yields "" where this process holds it, else who does. A file system without locks is taken for
    one that nobody else works on, and a line says so.

    Args:
        wait: print who holds it and wait until that process ends or lets go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        other = "" if _lock(file, fcntl.LOCK_NB) else _read(file)
        if other and wait:
            print(f"waiting for {path.name} of {other}", flush=True)
            _lock(file)
            other = ""
        if not other:
            _sign(file)
        yield other


def _lock(file: IO[str], how: int = 0) -> bool:
    """Return whether this process has the lock of an open file; waits for it unless told not to."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | how)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno not in NOT_SUPPORTED:
            raise
        _notice(os.path.dirname(file.name), error.strerror)
    return True


@cache  # once per process and folder
def _notice(folder: str, why: str) -> None:
    print(f"{folder} has no locks ({why}): let one call at a time work there", flush=True)


def _sign(file: IO[str]) -> None:
    file.truncate(0)
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
    file.flush()


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read() or "another process"
