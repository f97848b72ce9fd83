"""The filter: what it refuses here, and that its bytes say so for both kinds of machine."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlib.sandbox import judge, seccomp


def run(code: bytes, architecture: int, number: int) -> int:
    """Interpret classic BPF, as far as the filter uses it; return its answer to a call."""
    instructions = [struct.unpack("<HBBI", code[i : i + 8]) for i in range(0, len(code), 8)]
    position = value = 0
    while True:
        operation, skip_if_true, skip_if_false, operand = instructions[position]
        position += 1
        if operation == seccomp.RETURN:
            return operand
        if operation == seccomp.LOAD_WORD:
            value = {0: number, 4: architecture}[operand]
        else:
            equal = operation == seccomp.JUMP_EQUAL
            holds = value == operand if equal else value >= operand
            position += skip_if_true if holds else skip_if_false


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
@settings(deadline=None)
@given(number=st.integers(0, 2**32 - 1))
def test_listed_calls_are_refused_and_all_others_pass(machine, number):
    code, architecture = seccomp.filter_program(machine), seccomp.ARCHITECTURES[machine][0]
    refused = set(seccomp.refused_calls(machine).values())
    is_x32 = machine == "x86_64" and number >= seccomp.X32_BIT
    expected = seccomp.REFUSE if number in refused or is_x32 else seccomp.ALLOW
    assert run(code, architecture, number) == expected
    assert all(run(code, architecture, call) == seccomp.REFUSE for call in refused)
    assert run(code, architecture ^ 1, number) == seccomp.KILL_PROCESS


def test_numbers_are_those_of_the_kernels_headers():
    """Where the C headers are installed: x86-64 has a table of its own, arm64 the generic one."""
    import re
    from pathlib import Path

    compared = 0
    for machine, pattern in (("x86_64", "**/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")):
        for file in Path("/usr/include").glob(pattern):
            known = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", file.read_text()))
            numbers = seccomp.refused_calls(machine)
            for name in numbers.keys() & known.keys():
                assert known[name] == str(numbers[name]), (machine, name)
                compared += 1
    if not compared:
        pytest.skip("no C headers here")
    assert compared > 40


def test_an_unknown_machine_has_no_filter():
    assert seccomp.filter_program("riscv64") == b"" and seccomp.refused_calls("riscv64") == {}


@pytest.mark.parametrize("name", ["socket", "clone", "ptrace", "mount", "memfd_create", "keyctl"])
def test_a_program_cannot_make_the_call(name):
    if "system calls" not in judge.protections():
        pytest.skip("the sandbox has no filter on this machine")
    import platform

    number = seccomp.refused_calls(platform.machine())[name]
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"def f():\n    return libc.syscall({number}, 0, 0, 0, 0, 0, 0), ctypes.get_errno()"
    )
    (outcome,) = judge.judge([program], ["assert f() == (-1, 1)"])
    assert outcome.reason == "pass", outcome  # refused with EPERM


def test_the_second_numbering_of_x86_is_refused():
    import platform

    if platform.machine() != "x86_64" or "system calls" not in judge.protections():
        pytest.skip("no x32 calls here")
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"def f():\n    return libc.syscall({seccomp.X32_BIT + 39}), ctypes.get_errno()"
    )
    (outcome,) = judge.judge([program], ["assert f() == (-1, 1)"])
    assert outcome.reason == "pass", outcome
