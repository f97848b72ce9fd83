"""Which system calls may a program make? A filter for Linux's seccomp, written out as bytes.

A program under test computes: it needs memory, the time, its pipe, the files of the standard
library and those of its own folder. The filter lets through what serves that and answers EPERM to
all other calls, known today or not. Among them are some that only tell one program of another:
locks of files, pipes (their numbers count those of the whole machine), epoll, what memory is free,
which pages of a file are loaded. Four calls are let through in part (see RESTRICTED).

It is classic BPF as described in the kernel's Documentation/userspace-api/seccomp_filter.rst; the
call numbers are those of the two tables arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h. pyseccomp is not used: it needs the C library libseccomp, which
plain machines lack, for what is a list of numbers here.
"""

import platform
import struct

ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, lseek 8 62,
open 2 -, openat 257 56, creat 85 -, close 3 57, close_range 436 436,
dup 32 23, dup2 33 -, dup3 292 24, fcntl 72 25, ioctl 16 29,
stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291,
access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78,
getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10,
listxattr 194 11, llistxattr 195 12, flistxattr 196 13,
getcwd 79 17, chdir 80 49, fchdir 81 50, getdents64 217 61, umask 95 166,
mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35,
link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36,
rename 82 -, renameat 264 38, renameat2 316 276,
truncate 76 45, ftruncate 77 46, fallocate 285 47, fsync 74 82, fdatasync 75 83,
chmod 90 -, fchmod 91 52, fchmodat 268 53, utimensat 280 88,
brk 12 214, mmap 9 222, munmap 11 215, mremap 25 216, mprotect 10 226,
poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, futex 202 98, sched_yield 24 124,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -,
restart_syscall 219 128, nanosleep 35 101, clock_nanosleep 230 115, alarm 37 -,
getitimer 36 102, setitimer 38 103, clock_gettime 228 113, clock_getres 229 114,
gettimeofday 96 169, time 201 -, times 100 153, getrusage 98 165, getrlimit 97 163,
getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156,
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
getresuid 118 148, getresgid 120 150, getgroups 115 158,
uname 63 160, sched_getaffinity 204 123, getrandom 318 278, exit 60 93, exit_group 231 94
"""
"""Name, number on x86-64, number on arm64 (`-`: there is no such call)."""

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> its AUDIT_ARCH_* constant, and which number of an entry of ALLOWED is its own."""

LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD | BPF_W | BPF_ABS; BPF_JMP with BPF_JEQ, BPF_JGE and BPF_JSET; BPF_RET; each | BPF_K."""

ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050001
"""SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO | EPERM."""

NUMBER_OFFSET, ARCHITECTURE_OFFSET = 0, 4  # bytes into struct seccomp_data
ARGUMENT_OFFSETS = [16 + 8 * index for index in range(6)]  # their lower halves

X32_BIT = 0x40000000  # marks the second set of numbers that x86-64 answers to: none is allowed

# Constants of the kernel's headers fcntl.h, ioctls.h, mman.h and futex.h.
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
TCGETS, TIOCGWINSZ, FIONCLEX, FIOCLEX = 0x5401, 0x5413, 0x5450, 0x5451
MAP_HUGETLB, FUTEX_PRIVATE_FLAG = 0x40000, 128

RESTRICTED = {
    "fcntl": (1, JUMP_EQUAL, (F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC), True),
    "ioctl": (1, JUMP_EQUAL, (TCGETS, TIOCGWINSZ, FIONCLEX, FIOCLEX), True),
    "futex": (1, JUMP_IF_ANY_BIT, (FUTEX_PRIVATE_FLAG,), True),
    "mmap": (3, JUMP_IF_ANY_BIT, (MAP_HUGETLB,), False),
}
"""Call -> index of an argument, its test, values, and whether it is allowed if one holds.

No locks, leases and signals of files, no terminals; a futex within this process, for those in a
page of a file wake other processes; no huge pages, of which the machine has one stock.
"""

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if a test holds and if not, operand."""


def allowed_calls(machine: str) -> dict[str, int]:
    """Return name -> number of the allowed calls on this kind of machine; {} if it is unknown."""
    if machine not in ARCHITECTURES:
        return {}
    column = ARCHITECTURES[machine][1]
    entries = (entry.split() for entry in ALLOWED.split(","))
    return {name: int(numbers[column]) for name, *numbers in entries if numbers[column] != "-"}


def filter_program(machine: str = "") -> bytes:
    """Return the filter as BPF code, 8 bytes an instruction; b"" if the machine is unknown.

    Args:
        machine: a key of ARCHITECTURES; "" = the machine that this runs on.

    A call under another architecture's numbers ends the process, for they would mean other calls.
    """
    machine = machine or platform.machine()
    calls = allowed_calls(machine)
    if not calls:
        return b""
    instructions: list[Instruction] = [
        (LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine][0]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD_WORD, 0, 0, NUMBER_OFFSET),
        *_search(_segments(calls)),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def _segments(calls: dict[str, int]) -> list[tuple[int, list[Instruction]]]:
    """Return all numbers as ranges, in order: the first of each, and what decides on its calls."""
    allow, refuse = [(RETURN, 0, 0, ALLOW)], [(RETURN, 0, 0, REFUSE)]
    decisions = {
        number: _restriction(*RESTRICTED[name]) if name in RESTRICTED else allow
        for name, number in calls.items()
    }
    segments = [(0, decisions.get(0, refuse))]
    for number in range(1, max(decisions) + 2):
        decision = decisions.get(number, refuse)
        if decision != segments[-1][1]:
            segments.append((number, decision))
    return segments


def _search(segments: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Return the instructions that find a number's range in few steps.

    The kernel tries every number when a child takes the filter on: a list of comparisons would cost
    it a tenth of a program's time.
    """
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _search(segments[:middle]), _search(segments[middle:])
    return [(JUMP_AT_LEAST, len(below), 0, segments[middle][0]), *below, *above]


def _restriction(
    argument: int, operation: int, values: tuple[int, ...], allowed_if: bool
) -> list[Instruction]:
    """Return the instructions that decide on a call of RESTRICTED."""
    holds, fails = (ALLOW, REFUSE) if allowed_if else (REFUSE, ALLOW)
    tests = [(operation, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [
        (LOAD_WORD, 0, 0, ARGUMENT_OFFSETS[argument]),
        *tests,
        (RETURN, 0, 0, fails),
        (RETURN, 0, 0, holds),
    ]
