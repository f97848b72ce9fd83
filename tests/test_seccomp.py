"""The filter: what it lets through, and that its bytes say so for both kinds of machine."""

import platform
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib.sandbox import judge, seccomp


def run(code: bytes, architecture: int, number: int, arguments=(0,) * 6) -> int:
    """Interpret classic BPF, as far as the filter uses it; return its answer to a call."""
    instructions = [struct.unpack("<HBBI", code[i : i + 8]) for i in range(0, len(code), 8)]
    memory = {0: number, 4: architecture}
    memory |= dict(zip(seccomp.ARGUMENT_OFFSETS, arguments, strict=True))
    position = value = 0
    while True:
        operation, skip_if_true, skip_if_false, operand = instructions[position]
        position += 1
        if operation == seccomp.RETURN:
            return operand
        if operation == seccomp.LOAD_WORD:
            value = memory[operand]
        else:
            holds = {
                seccomp.JUMP_EQUAL: value == operand,
                seccomp.JUMP_AT_LEAST: value >= operand,
                seccomp.JUMP_IF_ANY_BIT: bool(value & operand),
            }[operation]
            position += skip_if_true if holds else skip_if_false


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
@settings(deadline=None)
@given(number=st.integers(0, 600) | st.integers(0, 2**32 - 1))
def test_listed_calls_pass_and_all_others_are_refused(machine, number):
    code, architecture = seccomp.filter_program(machine), seccomp.ARCHITECTURES[machine][0]
    calls = seccomp.allowed_calls(machine)
    restricted = {calls[name] for name in seccomp.RESTRICTED}
    allowed = set(calls.values()) - restricted
    if number not in restricted:
        expected = seccomp.ALLOW if number in allowed else seccomp.REFUSE
        assert run(code, architecture, number) == expected
    assert all(run(code, architecture, call) == seccomp.ALLOW for call in allowed)
    assert all(
        run(code, architecture, call | seccomp.X32_BIT) == seccomp.REFUSE for call in calls.values()
    )
    assert run(code, architecture ^ 1, number) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        *[("fcntl", (9, command), True) for command in (0, 1, 2, 3, 4, 1030)],
        *[("fcntl", (9, command), False) for command in (5, 6, 7, 8, 9, 10, 37, 1024, 1026, 1031)],
        *[("ioctl", (9, command), True) for command in (0x5401, 0x5413, 0x5450, 0x5451)],
        *[("ioctl", (9, command), False) for command in (0, 0x5412, 0x541B, 0x5452, 0x8901)],
        *[("futex", (9, 128 | operation), True) for operation in range(14)],
        *[("futex", (9, operation), False) for operation in range(14)],
        ("mmap", (0, 4096, 3, 0x22), True),
        ("mmap", (0, 4096, 3, 0x22 | 0x40000), False),
    ],
)
def test_some_calls_are_let_through_in_part(machine, name, arguments, allowed):
    code, architecture = seccomp.filter_program(machine), seccomp.ARCHITECTURES[machine][0]
    number = seccomp.allowed_calls(machine)[name]
    answer = run(code, architecture, number, (*arguments, *[0] * (6 - len(arguments))))
    assert answer == (seccomp.ALLOW if allowed else seccomp.REFUSE)


def test_numbers_are_those_of_the_kernels_headers():
    """Where the C headers are installed: x86-64 has a table of its own, arm64 the generic one."""
    compared = 0
    for machine, pattern in (("x86_64", "**/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")):
        for file in Path("/usr/include").glob(pattern):
            known = dict(re.findall(r"#define __NR3?2?6?4?_?(\w+)\s+(\d+)", file.read_text()))
            numbers = seccomp.allowed_calls(machine)
            for name in numbers.keys() & known.keys():
                assert known[name] == str(numbers[name]), (machine, name)
                compared += 1
    if not compared:
        pytest.skip("no C headers here")
    assert compared > 80


def test_an_unknown_machine_has_no_filter():
    assert seccomp.filter_program("riscv64") == b"" and seccomp.allowed_calls("riscv64") == {}


REFUSED = """
socket 41 198, clone 56 220, clone3 435 435, execve 59 221, ptrace 101 117, mount 165 40,
memfd_create 319 279, memfd_secret 447 447, keyctl 250 219, flock 73 32, inotify_init 253 -,
inotify_init1 294 26, fanotify_init 300 262, eventfd2 290 19, signalfd4 289 74,
epoll_create1 291 20, timerfd_create 283 85, timer_create 222 107, pipe2 293 59, sysinfo 99 179,
statfs 137 43, mincore 27 232, madvise 28 233, preadv2 327 286, fadvise64 221 223,
readahead 187 213,
sched_setaffinity 203 122, setpriority 141 140, shmget 29 194, semget 64 190, msgget 68 186,
mq_open 240 180, landlock_create_ruleset 444 444, userfaultfd 323 282, futex_waitv 449 449,
io_uring_setup 425 425, set_mempolicy 238 237, mlock 149 228, getcpu 309 168, syslog 103 116
"""


@pytest.mark.parametrize("entry", [entry.split() for entry in REFUSED.split(",")], ids=" ".join)
def test_a_program_cannot_make_the_call(entry):
    if "system calls" not in judge.protections():
        pytest.skip("the sandbox has no filter on this machine")
    number = entry[1 + seccomp.ARCHITECTURES[platform.machine()][1]]
    if number == "-":
        pytest.skip("there is no such call on this machine")
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"def f():\n    return libc.syscall({number}, 0, 0, 0, 0, 0, 0), ctypes.get_errno()"
    )
    (outcome,) = judge.judge([program], ["assert f() == (-1, 1)"])
    assert outcome.reason == "pass", outcome  # refused with EPERM


def test_the_second_numbering_of_x86_is_refused():
    if platform.machine() != "x86_64" or "system calls" not in judge.protections():
        pytest.skip("no x32 calls here")
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"def f():\n    return libc.syscall({seccomp.X32_BIT + 39}), ctypes.get_errno()"
    )
    (outcome,) = judge.judge([program], ["assert f() == (-1, 1)"])
    assert outcome.reason == "pass", outcome
