"""The filter: what it refuses here, and that its bytes say so for both kinds of machine."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib.sandbox import judge, seccomp


def run(code: bytes, architecture: int, number: int) -> int:
    """What classic BPF returns for a call: the few instructions that the filter uses."""
    steps = [struct.unpack("<HBBI", code[i : i + 8]) for i in range(0, len(code), 8)]
    place = value = 0
    while True:
        kind, yes, no, k = steps[place]
        place += 1
        if kind == seccomp.RETURN:
            return k
        if kind == seccomp.LOAD:
            value = {0: number, 4: architecture}[k]
        else:
            holds = value == k if kind == seccomp.EQUAL else value >= k
            place += yes if holds else no


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
@settings(deadline=None)
@given(number=st.integers(0, 2**32 - 1))
def test_listed_calls_are_refused_and_all_others_pass(machine, number):
    code, own = seccomp.program(machine), seccomp.ARCHITECTURES[machine][0]
    refused = set(seccomp.calls(machine).values())
    second = machine == "x86_64" and number >= seccomp.X32
    expected = seccomp.EPERM if number in refused or second else seccomp.ALLOW
    assert run(code, own, number) == expected
    assert all(run(code, own, call) == seccomp.EPERM for call in refused)
    assert run(code, own ^ 1, number) == seccomp.KILL


def test_numbers_are_those_of_the_kernels_headers():
    """Where the C headers are installed: x86-64 has a table of its own, arm64 the generic one."""
    import re
    from pathlib import Path

    compared = 0
    for machine, pattern in (("x86_64", "**/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")):
        for file in Path("/usr/include").glob(pattern):
            known = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", file.read_text()))
            numbers = seccomp.calls(machine)
            for name in numbers.keys() & known.keys():
                assert known[name] == str(numbers[name]), (machine, name)
                compared += 1
    if not compared:
        pytest.skip("no C headers here")
    assert compared > 40


def test_an_unknown_machine_has_no_filter():
    assert seccomp.program("riscv64") == b"" and seccomp.calls("riscv64") == {}


@pytest.mark.parametrize("name", ["socket", "clone", "ptrace", "mount", "memfd_create", "keyctl"])
def test_a_program_cannot_make_the_call(name):
    if "system calls" not in judge.isolation():
        pytest.skip("the sandbox has no filter on this machine")
    import platform

    number = seccomp.calls(platform.machine())[name]
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"def f():\n    return libc.syscall({number}, 0, 0, 0, 0, 0, 0), ctypes.get_errno()"
    )
    (outcome,) = judge.judge([program], ["assert f() == (-1, 1)"])
    assert outcome.reason == "pass", outcome  # refused with EPERM


def test_the_second_numbering_of_x86_is_refused():
    import platform

    if platform.machine() != "x86_64" or "system calls" not in judge.isolation():
        pytest.skip("no x32 calls here")
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"def f():\n    return libc.syscall({seccomp.X32 + 39}), ctypes.get_errno()"
    )
    (outcome,) = judge.judge([program], ["assert f() == (-1, 1)"])
    assert outcome.reason == "pass", outcome
