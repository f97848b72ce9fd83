"""The sandbox: right programs pass, everything else fails without harm to the judge."""

import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlib import ROOT, StudyError, data
from hybridlib.sandbox import asserts, isolation, judge, wire
from tests import attacks
from tests.attacks import RIGHT, TEST, numbered
from tests.conftest import HUB


def reason(program, tests=TEST, timeout=2.0):
    return judge.judge([program], [tests], timeout)[0].reason


def in_f(*lines):
    """A program whose function f(x) has these lines as its body."""
    return attacks.body("\n".join(lines))


@pytest.fixture
def isolated():
    """Skips where somebody has chosen the weak mode for the tests."""
    if "files" not in judge.protections():
        pytest.skip(f"{judge.MODE_VARIABLE} leaves the files in sight")


@pytest.mark.parametrize("name", attacks.CONTROLS)
def test_right_programs_pass(name):
    (outcome,) = judge.judge([attacks.CONTROLS[name]], [TEST], 10.0)
    assert (outcome.reason, outcome.detail) == ("pass", "") and 0 < outcome.seconds < 10


@pytest.mark.parametrize("name", attacks.SCRATCH)
def test_programs_may_write_to_a_folder_of_their_own(name, isolated):
    assert reason(attacks.SCRATCH[name]) == "pass"


@pytest.mark.parametrize("name", attacks.FALSE_ANSWERS)
def test_no_lie_passes_the_names_and_helpers_of_tests(name):
    program, tests = attacks.FALSE_ANSWERS[name]
    assert reason(program, tests) in {"wrong", "error"}


@pytest.mark.parametrize("name", attacks.TRUE_ANSWERS)
def test_right_programs_pass_tests_with_names_and_values_of_many_types(name):
    program, tests = attacks.TRUE_ANSWERS[name]
    assert judge.judge([program], [tests], 10.0)[0].reason == "pass"


@pytest.mark.slow
def test_attacks_fail_and_programs_beside_them_are_judged_rightly():
    weak = "files" not in judge.protections()
    names = [name for name in attacks.ATTACKS if not (weak and name in attacks.OPEN)]
    programs = numbered([text for name in names for text in (attacks.ATTACKS[name], RIGHT)])
    began = time.monotonic()
    outcomes = judge.judge(programs, [TEST] * len(programs), 1.0)
    assert time.monotonic() - began < 2 * len(names)  # none goes on for long beyond its limit
    for name, attack, beside in zip(names, outcomes[::2], outcomes[1::2], strict=True):
        assert attack.reason in {"error", "wrong", "timeout"}, (name, attack)
        assert attack.detail and attack.detail.isprintable(), name
        assert beside.reason == "pass", name
    assert attacks.left_alive() == 0
    assert not any(map(os.path.exists, (attacks.MARK, "/job", "/x")))


def test_there_are_attacks_of_every_class():
    assert len(attacks.ATTACKS) == sum(map(len, attacks.CLASSES.values())) >= 60
    assert len(attacks.CONTROLS) >= 10 and all(attacks.CLASSES.values())
    assert attacks.OPEN < set(attacks.CLASSES["reaching outside"])


def interpreter(user):
    """Return a Python that this user can run, perhaps another than the tests run in, or skip."""
    code = "import sys, hybridlib; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, shutil.which("python3.11"), "/usr/bin/python3"):
        try:
            if not subprocess.run([python, "-c", code], cwd=ROOT, stderr=-3, **user).returncode:
                return python
        except (OSError, TypeError):
            continue
    pytest.skip("an ordinary user can run no Python 3.11 here, or not read this repository")


@pytest.fixture(scope="module", params=["root", "a user", "root, weak", "a user, weak"])
def elsewhere(request):
    """The report of `python -m tests.attacks` as another user or in the weak mode."""
    who, _, weak = request.param.partition(", ")
    root, user = os.geteuid() == 0, {}
    if root and who != "root" or weak:  # the weak mode as root needs a library for all to read
        user = dict(user=12345, group=12345, extra_groups=[]) if root else {}
    if not root and (who == "root" or not weak):
        pytest.skip("only root can become somebody else; all other tests ran as this user")
    if not weak and "files" not in judge.protections():
        pytest.skip("the weak mode has been chosen for the tests")
    python = interpreter(user)
    done = subprocess.run(
        [python, "-m", "tests.attacks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={judge.MODE_VARIABLE: judge.WEAK_MODE if weak else ""},
        **({} if who == "root" else user),
    )
    if who != "root" and not weak and "the sandbox cannot start" in done.stderr:
        pytest.skip("this kernel allows namespaces to root alone")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["user"] == (0 if who == "root" else user.get("user", os.geteuid()))
    assert ("files" in report["protections"]) != bool(weak)
    return report


@pytest.mark.slow
def test_all_attacks_fail_for_every_user_and_in_the_weak_mode(elsewhere):
    right = {**attacks.CONTROLS, **attacks.SCRATCH}
    mistaken = {n: r for n, r in elsewhere["reasons"].items() if (r == "pass") != (n in right)}
    assert mistaken == {} and len(elsewhere["reasons"]) > 140
    assert set(elsewhere["next"].values()) == {"pass"}
    answers = elsewhere["answers"].items()
    assert {name for name, why in answers if why == "pass"} == {*attacks.TRUE_ANSWERS}
    assert {n: r for n, r in elsewhere["siblings"].items() if r == "pass"} == {}
    assert elsewhere["guess"] > 0.5
    assert elsewhere["crowd"] == ["timeout"] * 15 + ["pass"]
    assert not elsewhere["alive"] and not elsewhere["written"]


REFUSING = """
import ctypes, os
user, group = os.geteuid(), os.getegid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # a new user namespace, for its limits
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    open(f"/proc/self/{name}", "w").write(text)
open("/proc/sys/user/max_%s_namespaces", "w").write("%d")
from hybridlib import StudyError
from hybridlib.sandbox import judge
try:
    print("judged", judge.judge(["def f(x): return x + 1"], ["assert f(1) == 2"])[0].reason)
except StudyError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [
        ("net", 0, "the sandbox cannot start (unshare: No space left on device); "),
        ("mnt", 1, "a program could not be closed in: unshare: No space left on device"),
        ("net", 1, "a program could not be closed in: unshare: No space left on device"),
        ("pid", 1, "the sandbox has stopped (OSError: unshare: No space left on device); "),
        ("user", 9, "judged pass"),
    ],
)
def test_what_the_kernel_refuses_ends_in_one_clear_line(kind, limit, message, isolated):
    done = subprocess.run(
        [sys.executable, "-c", REFUSING % (kind, limit)], cwd=ROOT, capture_output=True, text=True
    )
    if "AssertionError" in done.stderr:
        pytest.skip("no user namespace can be made here")
    assert done.stdout.startswith(message) and done.stdout.count("\n") == 1, done
    assert "start" not in message or f"{judge.MODE_VARIABLE}={judge.WEAK_MODE}" in done.stdout


def test_a_machine_without_a_filter_is_refused(monkeypatch):
    monkeypatch.setattr(isolation.seccomp, "filter_program", lambda: b"")
    for weak in (True, False):
        with pytest.raises(OSError, match="no system call filter is known"):
            isolation.Isolation(weak)


def test_an_unknown_mode_names_the_valid_one(monkeypatch):
    monkeypatch.setenv(judge.MODE_VARIABLE, "off")
    with pytest.raises(StudyError, match=f"off is unknown.*{judge.WEAK_MODE}"):
        judge.protections()


@given(
    st.text(max_size=60)
    | st.text("()[]{}:;=+*.,'\"\\#@%\n\t\0 abdefilnrtw01", max_size=80)
    | st.lists(
        st.sampled_from(
            "def|f|(x)|:|return|x|1|+|\n|    |while|True|try|except|class|lambda|import|os|yield"
            "|del|raise|(|)|[|]|{|}|'|print|exec|async|await|with|for|in|*|**|=|==|@|;".split("|")
        ),
        max_size=30,
    ).map(" ".join)
    | st.text(max_size=30).map(lambda line: RIGHT + "\n" + line)
)
def test_any_text_gets_a_verdict_within_the_limit(program):
    (outcome,) = judge.judge([program], [TEST], timeout=0.5)
    assert outcome.reason in {"pass", "wrong", "error", "timeout", "no program"}
    assert outcome.detail.isprintable() and outcome.seconds < 10


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.sampled_from(["set", "dict", "range", "bytes", "int", "complex", "iter", "Counter"])
        | st.integers(10**400, 10**401),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    )
)
def test_any_answer_is_read_without_harm(answer):
    parsed = asserts.parse("assert f(1) == 2\nassert g(h(2)) < 3")
    for lines in ([json.dumps(answer)], [json.dumps([answer])] * 3):
        results, error = asserts.read_answers(lines, parsed)
        assert len(results) <= 2 and error.isprintable()
        json.dumps(asserts.comparison_job(results, parsed))


def test_programs_of_a_batch_share_nothing(isolated):
    """All pairs at once; `python -m tests.attacks` judges each pair alone."""
    programs = [program for pair in attacks.SIBLINGS.values() for program in pair]
    outcomes = judge.judge(programs, [TEST] * len(programs), 6.0)
    heard = {name: outcomes[2 * i + 1].reason for i, name in enumerate(attacks.SIBLINGS)}
    assert set(heard.values()) == {"wrong"}, heard
    assert {outcome.reason for outcome in outcomes[::2]} == {"pass", "wrong"}


def test_a_program_that_guesses_does_not_learn_whether_it_was_right():
    """It goes on to its end either way: being stopped would tell it, and through it others."""
    right_guess = attacks.GUESS.replace("return 0", "return 2")
    programs, tests = [attacks.GUESS, right_guess], ["assert f(1) == 2\nassert f(2) == 2"] * 2
    wrong, right = judge.judge(programs, tests)
    assert (wrong.reason, wrong.detail, right.reason) == ("wrong", "assert 1 does not hold", "pass")
    assert wrong.seconds > 0.5 and right.seconds > 0.5


def test_nothing_but_its_own_job_is_above_a_program():
    names = in_f(
        "frame, names = sys._getframe().f_back, []",
        "while frame:",
        "    names.append(frame.f_code.co_name)",
        "    frame = frame.f_back",
        "return [name for name in names if name != '<listcomp>']",
    )
    expected = ["<module>", "_evaluate", "run", "<module>"]
    assert reason(names, f"assert f(1) == {expected}") == "pass"


def test_the_zygote_is_told_numbers_alone(monkeypatch):
    orders, order = [], judge._Exchange._order
    monkeypatch.setattr(
        judge._Exchange, "_order", lambda self, text: (orders.append(text), order(self, text))
    )
    assert reason(RIGHT) == "pass"
    numbers = [text.pop(key) for text in orders for key in ("start", "end")]
    assert sorted(sum(numbers, [])) == [numbers[0][0]] * 2  # one child, started and ended
    assert all({*text} == {"cpu", "wall"} for text in orders)
    assert all(isinstance(value, float) for text in orders for value in text.values())


@pytest.mark.slow
def test_a_crowd_takes_no_time_from_an_honest_program():
    outcomes = judge.judge(attacks.CROWD, [TEST] * 16, timeout=1.0)
    assert [outcome.reason for outcome in outcomes] == ["timeout"] * 15 + ["pass"]


def test_equal_programs_with_equal_tests_are_judged_once():
    chance = "import os\nbit = os.urandom(1)[0] % 2\ndef f(x): return x + bit"
    outcomes = judge.judge([chance] * 40 + [RIGHT] * 2, [TEST] * 41 + ["assert f(1) == 3"])
    assert len({*outcomes[:40]}) == 1
    assert [outcome.reason for outcome in outcomes[40:]] == ["pass", "wrong"]


def test_what_fell_silent_in_a_crowd_is_judged_again_alone():
    """As where memory runs out: here half of the programs end at once, each time anew."""
    mortal = "import os\nif os.urandom(1)[0] % 2: os._exit(0)\n" + RIGHT
    outcomes = judge.judge(numbered([mortal] * 100), [TEST] * 100)
    assert sum(outcome.reason == "pass" for outcome in outcomes) > 58  # 75, or else 50


def test_computing_and_waiting_are_limited_each():
    both = (
        in_f("time.sleep(0.7)", "began = time.process_time()")
        + "\n"
        + ("    while time.process_time() < began + 0.7: pass\n    return x + 1")
    )
    sleeper, loop = in_f("time.sleep(60)"), in_f("while True: pass")
    tests = ["assert f(1) == 2"]
    assert [reason(text, *tests, timeout=1.0) for text in (both, sleeper, loop)] == [
        "pass",
        "timeout",
        "timeout",
    ]


def test_the_weak_mode_is_not_chosen_where_the_full_one_works():
    """So that no automatic run of these tests passes with fewer walls than it could have."""
    if os.environ.get(judge.MODE_VARIABLE) != judge.WEAK_MODE:
        assert "files" in judge.protections()
        return
    code = "from hybridlib.sandbox import judge; print(judge.protections())"
    full = {key: value for key, value in os.environ.items() if key != judge.MODE_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=full, capture_output=True, text=True
    )
    assert done.returncode, f"{judge.MODE_VARIABLE} is set, but the full sandbox works: unset it"


def test_the_end_of_a_program_that_waits_for_its_verdict_is_its_own():
    """Orders to end and answers that are ready at the same time do not meet."""
    both = in_f("time.sleep(0.1 if x == 1 else 0)", "return 0")
    outcomes = judge.judge(numbered([both, RIGHT] * 60), ["assert f(1) == 2\n" * 4 + TEST] * 120)
    assert [outcome.reason for outcome in outcomes] == ["wrong", "pass"] * 60


def test_a_long_answer_is_not_compared_by_the_judge():
    parsed = asserts.parse("assert f(1) == 2")
    line = json.dumps(["x" * asserts.MAX_COMPARED_CHARS])
    (undecided,), _ = asserts.read_answers([line], parsed)
    assert isinstance(undecided, list)
    assert asserts.comparison_job([undecided], parsed)["steps"] == [["bool(_0_0 == 2)"]]
    assert reason("def f(x): return ['a'] * 9999", "assert f(1) == ['a'] * 9999") == "pass"
    assert reason("def f(x): return ['a'] * 9998", "assert f(1) == ['a'] * 9999") == "wrong"


def test_a_zygote_is_renewed(monkeypatch):
    judge.judge([RIGHT], [TEST])
    first = judge._ZYGOTES["program"]
    monkeypatch.setattr(judge, "ZYGOTE_JOBS", 20)
    outcomes = judge.judge(numbered([RIGHT, "def f(x): return 0"] * 25), [TEST] * 50)
    assert [outcome.reason for outcome in outcomes] == ["pass", "wrong"] * 25
    assert judge._ZYGOTES["program"] is not first and first.process.returncode is not None


@pytest.mark.slow
def test_ten_thousand_programs_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def resources():
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "processes": len(attacks.descendants(os.getpid())),
            "files": os.listdir(tmp_path),
        }

    programs = [RIGHT, "def f(x): return 0", "def f(x): 1 / 0", in_f("open('a', 'w')", "return 2")]
    judge.judge(programs, [TEST] * 4)
    assert attacks.left_alive() == 0  # waits for the last to end
    before, count = resources(), 0
    while count < 10_000:
        outcomes = judge.judge(numbered(programs * 500), [TEST] * 2000)
        assert [outcome.reason for outcome in outcomes[:3]] == ["pass", "wrong", "error"]
        count += len(outcomes)
    assert attacks.left_alive() == 0 and resources() == before


def test_a_program_sees_neither_environment_nor_other_programs(monkeypatch, isolated):
    monkeypatch.setenv("A_SECRET", "1")
    seen = in_f("return ['A_SECRET' in os.environ, 'HOME' in os.environ, os.listdir()]")
    assert reason(seen, "assert f(1) == [False, False, []]") == "pass"


def test_reasons():
    programs = [
        RIGHT,
        "def f(x): return x",
        "def f(x): return 1 / 0",
        in_f("while True: pass"),
        " ",
    ]
    reasons = [outcome.reason for outcome in judge.judge(programs, [TEST] * 5, timeout=1.0)]
    assert reasons == ["pass", "wrong", "error", "timeout", "no program"]


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
        judge.judge([RIGHT], [tests])


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("def t(x): return f(x)\nassert t(1) == 2", "helper that asks the program"),
        ("def check(c): assert c(1) == 2\ncheck(f)", "no assert that asks the program"),
        ("x = f(1)\nif x > 1:\n    assert x == 2", "depends on what the program answers"),
        ("for x in f(1):\n    assert x", "depends on what the program answers"),
        ("n = f(9)\nwhile n:\n    assert f(n)", "depends on what the program answers"),
        ("t = 0\nfor a in [1]:\n    t = f(t)\nassert t == 1", "carries an answer"),
        ("t = 1\nt += f(1)\nassert f(t) == 2", "changes t, which a call of the program reads"),
        ("assert f(1) == UNKNOWN", "compare with UNKNOWN, which they do not define"),
        ("x = 1\nassert f(x) == UNKNOWN", "compare with UNKNOWN, which they do not define"),
        ("x = 1 / 0\nassert f(1) == 2", "ZeroDivisionError"),
        ("for x in []:\n    assert f(x) == 1", "come to no assert"),
        ("try:\n    f(1)\nexcept ValueError:\n    pass", "cannot be judged"),
        ("c = 1\nassert all(f(x) == c for x in [1])", "cannot be judged"),
        ("class W:\n    def __init__(self, x): self.x = x\nc = [1, 2]\nassert f(W(c)) == c[1]",
         "would show the program what it is compared with"),
        ("for n in range(2000):\n    assert f(n) == n + 1", "more than 1000 asserts"),
    ],
)  # fmt: skip
def test_tests_that_cannot_be_taken_apart_are_refused_with_a_reason(tests, why):
    assert why in judge.refusals([tests, TEST])[0] and judge.refusals([tests, TEST])[1] == ""
    with pytest.raises(StudyError, match=why):
        judge.judge([RIGHT], [tests])


def test_names_of_the_tests_never_enter_the_programs_zygote():
    tests = "case = (3, 12345)\nfor x, y in [case]:\n    assert f(x) == y"
    (parsed,) = judge._plan([tests])
    assert parsed.steps == [["f(_value_0)"]] and parsed.variables == {"_value_0": 3}


def test_expected_values_never_enter_the_programs_zygote():
    parsed = asserts.parse(
        "import math\nassert f(3) == 12345\nassert g(f(1)) < math.floor(54321.5)"
    )
    assert "12345" not in str(parsed.steps) and "54321" not in str(parsed.steps)
    assert parsed.steps == ["import math", ["f(3)"], ["g(f(1))"]]


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -2.5, "ä\ud800", [1, (2, {3: {4, 5}})], frozenset({1}), 2j, b"\xff", range(3)],
)
def test_plain_values_survive_the_pipe(value):
    assert wire.decode(wire.encode(value)) == value


def test_an_integer_of_many_digits_survives_the_pipe():
    number = -(7**9999)
    assert wire.decode(json.loads(json.dumps(wire.encode([number])))) == [number]


def test_a_killed_zygote_is_reported_and_replaced():
    judge.judge([RIGHT], [TEST])
    zygote = judge._ZYGOTES["program"]
    zygote.process.kill()
    zygote.process.wait()
    assert reason(RIGHT) == "pass"
    assert judge._ZYGOTES["program"] is not zygote


def test_a_forked_copy_of_this_process_gets_a_zygote_of_its_own():
    judge.judge([RIGHT], [TEST])
    pid = os.fork()
    if not pid:
        os._exit(0 if reason(RIGHT) == "pass" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert reason(RIGHT) == "pass"


def still_there(processes):
    """Return those of these processes that have not ended within five seconds."""
    for _ in range(100):
        left = [process for process in processes if os.path.exists(f"/proc/{process}")]
        if not left:
            break
        time.sleep(0.05)
    return left


def test_nothing_is_left_alive_by_a_process_that_ends_abruptly():
    code = (
        "import os; from hybridlib.sandbox import judge; from tests import attacks\n"
        "print(judge.judge(['def f(): return 1'], ['assert f() == 1'])[0].reason)\n"
        "print(*attacks.descendants(os.getpid()), flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    verdict, processes = done.stdout.splitlines()
    assert verdict == "pass" and processes
    assert still_there(processes.split()) == []


def test_nothing_outlives_a_judge_that_is_killed():
    """In the middle of its work, and though a fork of it goes on holding all that it had open."""
    code = (
        "import os, time; from hybridlib.sandbox import judge\n"
        "judge.judge(['x = 1'], ['assert f() == 1'])\n"
        "fork = os.fork()\n"
        "if not fork: time.sleep(60)\n"
        "print(fork, flush=True)\n"
        "judge.judge(['while True: pass\\n# 1', 'while True: pass'], ['assert f() == 1'] * 2, 60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as killed:
        fork = int(killed.stdout.readline())
        time.sleep(0.5)
        processes = {*attacks.descendants(killed.pid)} - {fork}
        killed.kill()
    try:
        assert len(processes) >= 3  # the zygote and two children
        assert still_there(processes) == [] and os.path.exists(f"/proc/{fork}")
    finally:
        os.kill(fork, 9)


@pytest.mark.slow
def test_a_zygote_that_hangs_is_given_up(monkeypatch):
    judge.judge([RIGHT], [TEST])
    process = judge._ZYGOTES["program"].process
    monkeypatch.setattr(judge, "SILENCE_SECONDS", -0.4)
    members = [process.pid, *attacks.descendants(process.pid)]
    for member in members:
        os.kill(member, 19)  # SIGSTOP
    with pytest.raises(StudyError, match="the sandbox has stopped"):
        judge.judge([RIGHT], [TEST], 0.1)
    assert reason(RIGHT) == "pass"
    assert still_there(members) == []


def test_the_zygote_imports_the_standard_library_only():
    allowed = {*sys.stdlib_module_names, "hybridlib"}
    loaded = ("zygote", "isolation", "wire", "seccomp")
    for name in ("__init__", "sandbox/__init__", *(f"sandbox/{module}" for module in loaded)):
        for node in ast.walk(ast.parse((ROOT / "hybridlib" / f"{name}.py").read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", ""), *(a.name for a in node.names)]
                assert {name.split(".")[0] for name in names if name} & allowed, names


@pytest.mark.slow
@pytest.mark.skipif(not HUB.is_dir(), reason="no copy of MBPP beside the repository")
@pytest.mark.parametrize(("name", "count"), [("mbpp", 974), ("mbpp_sanitized", 427)])
def test_all_references_of_mbpp_pass(monkeypatch, name, count):
    monkeypatch.setenv("HYBRIDLIB_HUB", str(HUB))
    rows = [row for split in ("train", "valid", "test", "prompt") for row in data.load(name, split)]
    programs = [row["completion"][0]["content"] for row in rows]
    began = time.perf_counter()
    outcomes = judge.judge(programs, [row["answer"] for row in rows], timeout=20.0)
    print(f"{name}: {len(rows) / (time.perf_counter() - began):.0f} programs/s")
    assert len(rows) == count
    assert [(r["id"], o) for r, o in zip(rows, outcomes, strict=True) if o.reason != "pass"] == []


@pytest.mark.slow
def test_half_a_group_of_endless_loops_costs_seconds():
    programs = numbered([RIGHT] * 128)
    programs[1::2] = [in_f("while True: pass")] * 64
    began = time.monotonic()
    reasons = [outcome.reason for outcome in judge.judge(programs, [TEST] * 128)]
    assert reasons == ["pass", "timeout"] * 64
    assert time.monotonic() - began < 15  # equal loops compute their two seconds once


@pytest.mark.slow
def test_a_slow_program_is_not_late_because_others_never_end():
    slow = in_f("total = sum(i * i for i in range(4_000_000))", "return x + 1")
    programs = [slow, *numbered([RIGHT] * 40)]
    assert [o.reason for o in judge.judge(programs, [TEST] * 41)] == ["pass"] * 41


def test_large_answers_and_large_programs_do_not_block_each_other():
    wordy = in_f("return ['a' * 1000] * 200") + "\n#" + "x" * 40_000
    outcomes = judge.judge(numbered([wordy, RIGHT] * 40), [TEST] * 80)
    assert [outcome.reason for outcome in outcomes] == ["wrong", "pass"] * 40
