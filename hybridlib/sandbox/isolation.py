"""What does a program see of the machine, and what may it use? Namespaces, limits, no rights.

`Isolation` stands around the zygote, once: no network, no host name, no process but its own, and a
root folder that holds the standard library, read-only, and nothing else. `Isolation.confine` then
closes one child in: namespaces of its own, a memory disk of 1 MB as its working folder, a user of
its own, limits, no capability, and the filter of `seccomp`. Nothing here is optional: what the
kernel refuses raises OSError. Only the standard library is imported, as in the zygote.

Measured in a quiet moment on two cores: of the 2 ms that a program takes, the namespaces of its
child cost 0.06 ms and the network namespace another 0.28 ms. That is affordable, so each child has
one, although the filter refuses sockets as well.
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

PROTECTIONS = ["network", "processes", "files", "system calls"]
FILE_BYTES, INODES, OPEN_FILES, MEMORY_BYTES = 1 << 20, 64, 32, 512 << 20
NOBODY = 65534
FIRST_USER, USERS = 60_706, 256  # of the range that systemd's UIDS-GIDS.md calls unused
ANSWER_DESCRIPTOR = 3  # where a child writes its answers

# The kernel's constants, by the names of its headers.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE = 1024, 2048, 4096, 1 << 14, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # system call numbers: libc has no function for it
PIDFD_OPEN = 434  # on both; os.pidfd_open is missing where Python was built on an old system

LOCKED_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME
"""Flags of a mount that may not go when it is mounted again, equal to those of statvfs."""

CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
NO_CAPABILITIES = (ctypes.c_uint32 * 6)()

LIBC = ctypes.CDLL(None, use_errno=True)
for function in ("mount", "prctl", "capset", "unshare", "setns"):
    getattr(LIBC, function)  # looked up once, not in every child


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog: the number of BPF instructions, and where they are."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


class Isolation:
    """The isolation of this process, from now on; OSError where the kernel refuses a part of it.

    Args:
        weak: leave out all namespaces. Limits, rights and filter remain, but the machine's files
            and processes stay in sight, and a program has no folder to write to.

    Changes this process for good and forks: without `weak` it goes on as the child, the first
    process of its own process namespace, while the parent waits for its end.
    """

    def __init__(self, weak: bool):
        self.weak = weak
        self.protections = ["system calls"] if weak else PROTECTIONS
        code = seccomp.filter_program()
        if not code:
            raise OSError(f"no system call filter is known for {platform.machine()}")
        self.filter = _FilterProgram(len(code) // 8, code)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, a child goes first, never the judge
        if not weak:
            _enter_namespaces()
            self.process_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.can_switch_users = _can_switch_users()
        if not weak:
            _replace_root()
        os.chdir("/")

    def fork(self) -> int:
        """Fork like os.fork, the child being the first process of a new process namespace.

        When the child ends, the kernel ends every process in that namespace.
        """
        if self.weak:
            return os.fork()
        _call("unshare", CLONE_NEWPID)
        child = os.fork()
        if child:
            _call("setns", self.process_namespace, CLONE_NEWPID)
        return child

    def confine(self, user_index: int, cpu_seconds: int, job_pipe: int, answer_pipe: int) -> None:
        """Close this process, a forked child, in for good.

        Args:
            user_index: 0 to USERS - 1, which of the sandbox's users it becomes.
            job_pipe: the descriptor that becomes standard input.
            answer_pipe: the descriptor that becomes ANSWER_DESCRIPTOR.

        The null device is opened anew: what processes inherit of
        one opening, as its flags, one of them can change for all.
        The order matters: each step needs a right that a later step takes away.
        """
        os.setsid()
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        null_device = os.open(os.devnull, os.O_RDWR)
        os.dup2(job_pipe, 0)
        os.dup2(null_device, 1)
        os.dup2(null_device, 2)
        os.dup2(answer_pipe, ANSWER_DESCRIPTOR)
        os.closerange(ANSWER_DESCRIPTOR + 1, 256)
        user = FIRST_USER + user_index if self.can_switch_users else os.geteuid()
        if not self.weak:
            _call("unshare", CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET)
            options = f"size={FILE_BYTES},nr_inodes={INODES},mode=700,uid={user},gid={user}"
            _mount(b"tmpfs", "/job", b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
            os.chdir("/job")
        self._limit_resources(cpu_seconds)
        if self.can_switch_users:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # binds because the user is not root
        _call("capset", CAPABILITY_HEADER, NO_CAPABILITIES)
        _call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
        _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user had undone it
        _call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(self.filter), 0, 0)

    def _limit_resources(self, cpu_seconds: int) -> None:
        limits = {
            resource.RLIMIT_AS: MEMORY_BYTES,
            resource.RLIMIT_CPU: cpu_seconds,
            resource.RLIMIT_FSIZE: 0 if self.weak else FILE_BYTES,
            resource.RLIMIT_NOFILE: OPEN_FILES,
            resource.RLIMIT_CORE: 0,
        }
        for kind, limit in limits.items():
            resource.setrlimit(kind, (limit, limit))


def parent_descriptor() -> int:
    """Return a descriptor that is ready once the parent process has ended; -1 before Linux 5.3.

    The end of a socket alone does not tell: forks of the parent may hold it as well. A signal at
    the parent's death would come when the thread ends that had started this process.
    """
    return LIBC.syscall(PIDFD_OPEN, os.getppid(), 0)


def _call(name: str, *args) -> None:
    """Call a function of libc; OSError where it fails."""
    if getattr(LIBC, name)(*args) < 0:
        raise OSError(f"{name}: {os.strerror(ctypes.get_errno())}")


def _mount(
    source: bytes | None,
    target: str,
    filesystem: bytes | None,
    flags: int,
    options: bytes | None = None,
) -> None:
    """Call mount(2); OSError where it fails."""
    if LIBC.mount(source, target.encode(), filesystem, flags, options):
        raise OSError(f"mount on {target}: {os.strerror(ctypes.get_errno())}")


def _can_switch_users() -> bool:
    """Return whether this is root, with all users of the sandbox in its user namespace.

    In many containers root has a few users only.
    """
    if os.geteuid():
        return False
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as file:
            ranges = [[int(number) for number in line.split()] for line in file]
        if not any(
            first <= FIRST_USER and FIRST_USER + USERS <= first + count
            for first, _, count in ranges
        ):
            return False
    return True


def _enter_namespaces() -> None:
    """Go on as the first process of new namespaces, in which an ordinary user is nobody.

    Forks: the child returns, the parent waits for it and ends (`_wait_and_exit`).
    """
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    if not _can_switch_users() or LIBC.unshare(flags):  # root of a container may lack the right
        _call("unshare", flags | CLONE_NEWUSER)
        users, groups = f"{NOBODY} {user} 1", f"{NOBODY} {group} 1"
        for name, text in (("setgroups", "deny"), ("uid_map", users), ("gid_map", groups)):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    LIBC.sethostname(b"sandbox", 7)
    if child := os.fork():
        _wait_and_exit(child)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait_and_exit(child: int) -> NoReturn:
    """Wait for the child, killing it on SIGTERM, and exit with 0 if it succeeded, else 1."""

    def kill_child(*_) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, kill_child)
    os.close(0)  # the judge must see that the socket has ended when the child ends
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) and 1)


def _replace_root() -> None:
    """Make a small read-only memory disk with the standard library the root folder."""
    _mount(b"none", "/", None, MS_REC | MS_PRIVATE)
    new_root = "/proc"  # any folder will do: what it hides, it hides from this process alone
    folders = {
        path: os.statvfs(path).f_flag & LOCKED_FLAGS for path in sys.path if os.path.isdir(path)
    }
    disk = b"size=1m,nr_inodes=512,mode=755"
    _mount(b"tmpfs", new_root, b"tmpfs", MS_NOSUID | MS_NODEV, disk)
    for path, flags in folders.items():
        target = new_root + path
        if not os.path.isdir(target):  # lib-dynload lies within its parent
            os.makedirs(target)
            _mount(path.encode(), target, None, MS_BIND)
            _mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | flags)
    os.mkdir(f"{new_root}/dev")
    for name in ("null", "zero", "urandom"):
        open(f"{new_root}/dev/{name}", "w").close()
        target = f"{new_root}/dev/{name}"
        flags = os.statvfs(f"/dev/{name}").f_flag & LOCKED_FLAGS
        _mount(f"/dev/{name}".encode(), target, None, MS_BIND)
        # It can still be written to, but nobody can set its times, which all would see.
        _mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | flags)
    os.mkdir(f"{new_root}/job")
    os.chdir(new_root)
    _call("syscall", PIVOT_ROOT[platform.machine()], b".", b".")
    _call("umount2", b".", MNT_DETACH)
    _mount(None, "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
