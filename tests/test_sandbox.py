"""The sandbox: right programs pass, everything else fails without harm to the judge."""

import ast
import os
import random
import subprocess
import sys
import time

import pytest

from hybridlib import StudyError, data, sandbox, zygote
from tests.conftest import HUB

TEST = "assert f(1) == 2\nassert f(2) == 3"
GOOD = "def f(x):\n    return x + 1"


def reason(program, tests=TEST, timeout=2.0):
    return sandbox.judge([program], [tests], timeout)[0].reason


def in_f(*lines):
    return "import os, sys, time\ndef f(x):\n" + "\n".join(f"    {line}" for line in lines)


CONTROLS = {
    "plain": GOOD,
    "windows lines": GOOD.replace("\n", "\r\n"),
    "prints": "print('x' * 10**7)\ndef f(x):\n    print(x)\n    return x + 1",
    "lambda": "f = lambda x: x + 1",
    "class inside": "class A:\n    def g(self, x): return x + 1\nf = A().g",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\n"
    "def f(x): return A(x + 1).x",
    "float": "def f(x): return x + 1.0",
    "imports": "import statistics\ndef f(x): return int(statistics.mean([x, x + 2]))",
    "scratch file": in_f("open('a', 'w').write(str(x + 1))", "return int(open('a').read())"),
}
ATTACKS = {
    # resources
    "endless loop": (in_f("while True: pass"), {"timeout"}),
    "sleep": (in_f("time.sleep(60)"), {"timeout"}),
    "fork bomb": (in_f("while True: os.fork()"), {"error"}),
    "threads": (
        "import threading\ndef f(x):\n    threading.Thread(target=print).start()\n    return 0",
        {"error", "wrong"},
    ),
    "memory bomb": (in_f("return len('x' * 10**10)"), {"error"}),
    "memory leak": (in_f("a = []", "while True: a.append('y' * 10**6)"), {"error", "timeout"}),
    "huge text": (in_f("return 'x' * 10**7"), {"error"}),
    "huge list": (in_f("return [1] * 10**7"), {"error"}),
    "endless values": (in_f("while True: yield 1"), {"error"}),
    "big file": (in_f("open('a', 'wb').write(b'x' * 10**8)", "return 0"), {"error"}),
    "deep value": (in_f("a = []", "for _ in range(9999): a = [a]", "return a"), {"error"}),
    # crashes
    "crash": ("import ctypes\ndef f(x): return ctypes.string_at(0)", {"error"}),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)", {"error", "timeout"},
    ),
    "no python": ("def f(x: return", {"error"}),
    "raises": (in_f("raise ValueError"), {"error"}),
    # forging the verdict
    "exit 0": ("import sys\nsys.exit(0)", {"error"}),
    "hard exit 0": ("import os\nos._exit(0)", {"error"}),
    "equal to all": (
        "class A:\n    def __eq__(s, o): return True\ndef f(x): return A()", {"error"},
    ),
    "int equal to all": (
        "class A(int):\n    def __eq__(s, o): return True\ndef f(x): return A(7)", {"error"},
    ),
    "patched builtins": (
        "import builtins\nbuiltins.type = lambda x: int\nbuiltins.isinstance = lambda *a: True\n"
        "def f(x): return object()", {"error"},
    ),
    "patched json": ("import json\njson.dumps = lambda v: '[true]'\ndef f(x): return 0", {"wrong"}),
    "raw answer": ("import os\nos.write(3, b'[true]\\n[true]\\n')\nos._exit(0)", {"wrong"}),
    "too many answers": ("import os\nos.write(3, b'[2, 3, 4]\\n' * 9)\nos._exit(0)", {"error"}),
    "raw nonsense": ("import os\nos.write(3, b'[' * 90000 + b'\\n')\nos._exit(0)", {"error"}),
    "raw bytes": ("import os\nos.write(3, bytes(range(256)) + b'\\n')\nos._exit(0)", {"error"}),
    "raw kinds": ("import os\nos.write(3, b'[[\"set\", [\"list\"]]]\\n')\nos._exit(0)", {"error"}),
    "closes the pipe": ("import os\nos.close(3)\nwhile True: pass", {"error"}),
    "no function": ("x = 1", {"error"}),
    # hurting the judge
    "kills all": (in_f("os.kill(-1, 9)", "return 0"), {"error", "wrong"}),
    "kills the parent": (in_f("os.kill(os.getppid(), 9)", "return 0"), {"error", "wrong"}),
    "kills its group": (in_f("os.killpg(0, 9)", "return 0"), {"error", "wrong"}),
}  # fmt: skip
OUTSIDE = {
    "network": "import socket\ndef f(x):\n    socket.create_connection(('1.1.1.1', 53), 1)",
    "reads a file": in_f("open('/etc/passwd').read()"),
    "reads this repository": in_f(f"open({sandbox.__file__!r}).read()"),
    "writes beside itself": in_f("open('../x', 'w').write('x')"),
    "writes the library": in_f("open(os.__file__, 'a').write('')"),
    "runs a program": in_f("os.execv('/bin/true', ['true'])"),
    "sees processes": in_f("os.listdir('/proc')"),
    "leaves its root": in_f("os.chroot('.')"),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_right_programs_pass(name):
    assert sandbox.judge([CONTROLS[name]], [TEST])[0] == sandbox.Outcome(
        "pass", "", pytest.approx(1, abs=1)
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_fail_within_the_limit_and_the_next_program_is_judged_rightly(name):
    program, expected = ATTACKS[name]
    limit = 1.0 if "timeout" in expected else 10.0
    attack, control = sandbox.judge([program, GOOD], [TEST, TEST], limit)
    assert attack.reason in expected, attack
    assert attack.detail and attack.seconds < limit + 5
    assert control.reason == "pass"


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_is_reached(name):
    if "files" not in sandbox.isolation():
        pytest.skip("this kernel grants no namespaces")
    program = OUTSIDE[name] + "\n    return x + 1"  # reaching it would pass
    assert reason(program) == "error"


def test_a_program_sees_neither_environment_nor_other_programs(monkeypatch):
    monkeypatch.setenv("A_SECRET", "1")
    seen = in_f("return ['A_SECRET' in os.environ, 'HOME' in os.environ, os.listdir()]")
    assert reason(seen, "assert f(1) == [False, False, []]") == "pass"


def test_reasons():
    programs = [GOOD, "def f(x): return x", "def f(x): return 1 / 0", in_f("while True: pass"), " "]
    found = [o.reason for o in sandbox.judge(programs, [TEST] * 5, timeout=1.0)]
    assert found == ["pass", "wrong", "error", "timeout", "no program"]


def test_the_first_assert_that_does_not_hold_decides():
    late = "def f(x):\n    while x > 1: pass\n    return 0"
    (outcome,) = sandbox.judge([late], [TEST], timeout=1.0)
    assert (outcome.reason, outcome.detail) == ("wrong", "assert 1 does not hold")


@pytest.mark.parametrize(
    ("body", "tests", "expected"),
    [
        ("return {1, 2}", "assert f(0) == {2, 1}", "pass"),
        ("return (1, [2.5, None, b'b'])", "assert f(0) == (1, [2.5, None, b'b'])", "pass"),
        ("return [1]", "assert f(0) == (1,)", "wrong"),
        ("return map(str, [1])", "assert list(f(0)) == ['1']", "pass"),
        ("return map(str, [1])", "assert f(0) == ['1']", "wrong"),
        ("return collections.Counter(x)", "assert f('aa') == {'a': 2}", "pass"),
        ("return re.match('a', x)", "assert f('a')\nassert not f('b')", "pass"),
        ("return x / 3", "import math\nassert math.isclose(f(1), 0.3333333333)", "pass"),
        ("return x / 3", "import math\nassert math.isclose(f(1), 0.34)", "wrong"),
        ("return x.a", "p = P(4)\nassert f(p) == 4\nassert f(P(5)) == 5", "pass"),
        ("return sys.getsizeof(x)", "assert f(()) == sys.getsizeof(())", "pass"),
        ("return None", "assert len(f(1)) == 3", "wrong"),
        ("return x", "assert f(float('inf')) > 5 and f(2) == 2", "pass"),
        ("return random.random()", f"assert f(1) == {random.Random(0).random()!r}", "pass"),
        ("return x\ndef sum(a, b): return a * b", "assert sum(2, 3) == 6", "pass"),
    ],
)
def test_values_keep_their_types_and_any_assert_is_judged(body, tests, expected):
    head = "import collections, random, re, sys\nclass P:\n    def __init__(s, a): s.a = a\n"
    assert reason(f"{head}def f(x):\n    {body}", tests) == expected


@pytest.mark.parametrize(
    "tests", ["x = 1", "assert 1 == 1", "assert (", "assert all(f(x) == 1 for x in [1, 2])"]
)
def test_tests_that_cannot_be_judged_are_named(tests):
    with pytest.raises(StudyError, match="fix the row|cannot be judged"):
        sandbox.judge([GOOD], [tests])


def test_expected_values_never_enter_the_programs_zygote():
    plan = sandbox._plan("import math\nassert f(3) == 12345\nassert g(f(1)) < math.floor(54321.5)")
    assert "12345" not in str(plan.steps) and "54321" not in str(plan.steps)
    assert plan.steps == ["import math", ["f(3)"], ["g(f(1))"]]


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -2.5, "ä\ud800", [1, (2, {3: {4, 5}})], frozenset({1}), 2j, b"\xff", range(3)],
)
def test_plain_values_survive_the_pipe(value):
    assert zygote.decode(zygote.encode(value)) == value


def test_a_killed_zygote_is_reported_and_replaced():
    sandbox.judge([GOOD], [TEST])
    held = sandbox._ZYGOTES["program"]
    held.process.kill()
    held.process.wait()
    assert reason(GOOD) == "pass"
    assert sandbox._ZYGOTES["program"] is not held


def test_a_forked_copy_of_this_process_gets_a_zygote_of_its_own():
    sandbox.judge([GOOD], [TEST])
    pid = os.fork()
    if not pid:
        os._exit(0 if reason(GOOD) == "pass" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert reason(GOOD) == "pass"


def test_nothing_is_left_behind_by_a_process_that_ends_abruptly():
    code = (
        "import os; from hybridlib import sandbox as s\n"
        "print(s.judge(['def f(): return 1'], ['assert f() == 1'])[0].reason)\n"
        "print(s._ZYGOTES['program'].folder, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verdict, folder = done.stdout.split()
    assert verdict == "pass"
    for _ in range(100):
        if not os.path.exists(folder):
            return
        time.sleep(0.05)
    pytest.fail(f"{folder} is left")


def test_without_namespaces_the_limits_still_hold(tmp_path, monkeypatch):
    source = open(zygote.__file__).read()
    (tmp_path / "bare.py").write_text(source.replace("if libc.unshare(mount", "if 1 or (mount"))
    monkeypatch.setattr(zygote, "__file__", str(tmp_path / "bare.py"))
    monkeypatch.setattr(sandbox, "_ZYGOTES", {})
    names = ["fork bomb", "memory bomb", "hard exit 0", "equal to all", "kills the parent"]
    programs = [GOOD, *(ATTACKS[name][0] for name in names), in_f("while True: pass"), GOOD]
    reasons = [o.reason for o in sandbox.judge(programs, [TEST] * len(programs), timeout=1.0)]
    assert set(sandbox.isolation()) <= {"system calls"}
    assert reasons[0] == reasons[-1] == "pass" and "pass" not in reasons[1:-1]
    assert reasons[-2] == "timeout"
    sandbox._ZYGOTES["program"].close()


def test_a_sandbox_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr(zygote, "__file__", "/nowhere/zygote.py")
    with pytest.raises(StudyError, match="the sandbox cannot start"):
        sandbox._Zygote()


def test_zygote_imports_the_standard_library_only():
    tree = ast.parse(open(zygote.__file__).read())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert {a.name for node in imports for a in node.names} <= set(sys.stdlib_module_names)


@pytest.mark.slow
@pytest.mark.skipif(not HUB.is_dir(), reason="no copy of MBPP beside the repository")
@pytest.mark.parametrize(("name", "count"), [("mbpp", 974), ("mbpp_sanitized", 427)])
def test_all_references_of_mbpp_pass(monkeypatch, name, count):
    monkeypatch.setenv("HYBRIDLIB_HUB", str(HUB))
    rows = [row for split in ("train", "valid", "test", "prompt") for row in data.load(name, split)]
    programs = [row["completion"][0]["content"] for row in rows]
    began = time.perf_counter()
    outcomes = sandbox.judge(programs, [row["answer"] for row in rows], timeout=20.0)
    print(f"{name}: {len(rows) / (time.perf_counter() - began):.0f} programs/s")
    assert len(rows) == count
    assert [(r["id"], o) for r, o in zip(rows, outcomes, strict=True) if o.reason != "pass"] == []


@pytest.mark.slow
def test_half_a_group_of_endless_loops_costs_seconds():
    programs = [GOOD, in_f("while True: pass")] * 64
    began = time.monotonic()
    found = [o.reason for o in sandbox.judge(programs, [TEST] * 128)]
    assert found == ["pass", "timeout"] * 64
    assert time.monotonic() - began < 15


@pytest.mark.slow
def test_a_slow_program_is_not_late_because_others_never_end():
    slow = in_f("total = sum(i * i for i in range(4_000_000))", "return x + 1")
    programs = [slow, *[GOOD] * 40]
    assert [o.reason for o in sandbox.judge(programs, [TEST] * 41)] == ["pass"] * 41


def test_large_answers_and_large_programs_do_not_block_each_other():
    wordy = in_f("return ['a' * 1000] * 200") + "\n#" + "x" * 40_000
    found = sandbox.judge([wordy, GOOD] * 40, [TEST] * 80)
    assert [o.reason for o in found] == ["wrong", "pass"] * 40
