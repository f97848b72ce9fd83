"""What does a program see of the machine, and what may it use? Namespaces, limits, no rights.

`Walls` stands around the zygote, once: no network, no host name, no process but its own, and a root
folder that holds the standard library, read-only, and nothing else. `Walls.confine` then closes one
child in: namespaces of its own, a memory disk of 1 MB as its working folder, a user of its own,
limits, no capability, and the filter of `seccomp`. Nothing here is optional: what the kernel
refuses raises OSError. Standard library only, as the zygote that loads it.

In a quiet moment, two cores, the namespaces of a child cost 0.06 ms, its network namespace another
0.28 ms of 2 ms a program: affordable, so each child has one, though sockets are refused as well.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from typing import NoReturn

from hybridlib.sandbox import seccomp

WALLS = ["network", "processes", "files", "system calls"]
FILE_BYTES, INODES, OPEN_FILES, MEMORY = 1 << 20, 64, 32, 512 << 20
NOBODY = 65534
FIRST_USER, USERS = 60_706, 256  # of the range that systemd's UIDS-GIDS.md calls unused
MOUNT, HOST, IPC, USER = 0x20000, 0x4000000, 0x8000000, 0x10000000  # CLONE_NEW*
PROCESS, NETWORK = 0x20000000, 0x40000000
READ_ONLY, NO_SETUID, NO_DEVICES, REMOUNT, BIND = 1, 2, 4, 32, 4096  # MS_*
ALL_BELOW, PRIVATE, DETACH = 1 << 14, 1 << 18, 2
KEPT = 2 | 4 | 8 | 1024 | 2048  # flags of a mount that may not go when it is mounted again
DIE_WITH_PARENT, DUMPABLE, SECCOMP, NO_NEW_RIGHTS = 1, 4, 22, 38  # prctl
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # libc has no function for it
VERSION_3, NONE = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # of capset
LIBC = ctypes.CDLL(None, use_errno=True)
for name in ("mount", "prctl", "capset", "unshare", "setns"):
    getattr(LIBC, name)  # looked up once, not in every child


class _Filter(ctypes.Structure):
    """struct sock_fprog: a number of instructions, and where they are."""

    _fields_ = [("size", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


class Walls:
    """The walls around this process, from now on; OSError where the kernel refuses one.

    `weak` leaves out all namespaces: limits, rights and filter remain, the machine's files and
    processes stay in sight. A weakly walled program has no folder to write to.
    """

    def __init__(self, weak: bool):
        self.weak, self.names = weak, ["system calls"] if weak else WALLS
        code = seccomp.program()
        if not code:
            raise OSError(f"no system call filter is known for {platform.machine()}")
        self.filter = _Filter(len(code) // 8, code)
        self.null = os.open(os.devnull, os.O_RDWR)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, a child goes first, never the judge
        if not weak:
            _leave_the_machine()
            self.here = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.own_users = _has_users()
        if not weak:
            _empty_the_root()
        os.chdir("/")

    def fork(self) -> int:
        """os.fork, the child being the first process of a namespace: all in it dies with it."""
        if self.weak:
            return os.fork()
        _call("unshare", PROCESS)
        child = os.fork()
        if child:
            _call("setns", self.here, PROCESS)
        return child

    def confine(self, slot: int, cpu_seconds: int, out: int) -> None:
        """Closes this process in for good, as the user of that slot, with `out` as descriptor 3."""
        os.setsid()
        LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        for descriptor in (0, 1, 2):
            os.dup2(self.null, descriptor)
        os.dup2(out, 3)
        os.closerange(4, 256)
        user = FIRST_USER + slot if self.own_users else os.geteuid()
        if not self.weak:
            _call("unshare", MOUNT | IPC | NETWORK)
            options = f"size={FILE_BYTES},nr_inodes={INODES},mode=700,uid={user},gid={user}"
            _mount(b"tmpfs", "/job", b"tmpfs", NO_SETUID | NO_DEVICES, options.encode())
            os.chdir("/job")
        for limit, most in (
            (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, cpu_seconds),
            (resource.RLIMIT_FSIZE, 0 if self.weak else FILE_BYTES),
            (resource.RLIMIT_NOFILE, OPEN_FILES), (resource.RLIMIT_CORE, 0),
        ):  # fmt: skip
            resource.setrlimit(limit, (most, most))
        if self.own_users:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # binds because the user is not root
        _call("capset", VERSION_3, NONE)
        _call("prctl", DUMPABLE, 0, 0, 0, 0)
        _call("prctl", NO_NEW_RIGHTS, 1, 0, 0, 0)
        LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)  # a change of user had undone it
        _call("prctl", SECCOMP, 2, ctypes.byref(self.filter), 0, 0)


def _call(name: str, *args) -> None:
    if getattr(LIBC, name)(*args) < 0:
        raise OSError(f"{name}: {os.strerror(ctypes.get_errno())}")


def _mount(what: bytes | None, where: str, kind: bytes | None, flags: int, options=None) -> None:
    if LIBC.mount(what, where.encode(), kind, flags, options):
        raise OSError(f"mount on {where}: {os.strerror(ctypes.get_errno())}")


def _has_users() -> bool:
    """Is this root, and root of the users that the programs become? Not so in many containers."""
    if os.geteuid():
        return False
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as file:
            spans = [[int(number) for number in line.split()] for line in file]
        if not any(a <= FIRST_USER and FIRST_USER + USERS <= a + size for a, _, size in spans):
            return False
    return True


def _leave_the_machine() -> None:
    """Goes on as the first process of new namespaces; an ordinary user is nobody in them."""
    user, group = os.geteuid(), os.getegid()
    flags = MOUNT | HOST | IPC | PROCESS | NETWORK
    if not _has_users() or LIBC.unshare(flags):  # root of a container may lack the right, too
        _call("unshare", flags | USER)
        users, groups = f"{NOBODY} {user} 1", f"{NOBODY} {group} 1"
        for name, text in (("setgroups", "deny"), ("uid_map", users), ("gid_map", groups)):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    LIBC.sethostname(b"sandbox", 7)
    if inner := os.fork():
        _wait_for(inner)
    LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def _wait_for(inner: int) -> NoReturn:
    def end(*_) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have gone by itself just now
            os.kill(inner, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    for descriptor in (0, 1):  # the judge must see that these have ended when `inner` ends
        os.close(descriptor)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) and 1)


def _empty_the_root() -> None:
    """Makes a small memory disk with the standard library the root folder, and forgets the rest."""
    _mount(b"none", "/", None, ALL_BELOW | PRIVATE)
    new = "/proc"  # any folder will do: what it hides, it hides from this process alone
    folders = {path: os.statvfs(path).f_flag & KEPT for path in sys.path if os.path.isdir(path)}
    _mount(b"tmpfs", new, b"tmpfs", NO_SETUID | NO_DEVICES, b"size=1m,nr_inodes=512,mode=755")
    for path, flags in folders.items():
        target = new + path
        if not os.path.isdir(target):  # lib-dynload lies within its parent
            os.makedirs(target)
            _mount(path.encode(), target, None, BIND)
            _mount(None, target, None, BIND | REMOUNT | READ_ONLY | flags)
    os.mkdir(f"{new}/dev")
    for name in ("null", "zero", "urandom"):
        open(f"{new}/dev/{name}", "w").close()
        _mount(f"/dev/{name}".encode(), f"{new}/dev/{name}", None, BIND)
    os.mkdir(f"{new}/job")
    os.chdir(new)
    _call("syscall", PIVOT_ROOT[platform.machine()], b".", b".")
    _call("umount2", b".", DETACH)
    _mount(None, "/", None, REMOUNT | READ_ONLY | NO_SETUID | NO_DEVICES)
