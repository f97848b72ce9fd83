"""python -m benchmarks.sandbox --mbpp FOLDER --mbppplus FOLDER: how fast, how right, how small?

Judges the reference solutions of MBPP side by side with EvalPlus's own check, and MBPP+ against the
labels that EvalPlus gave to one model's programs; writes benchmarks/sandbox.json. EvalPlus wants an
environment of its own, as it brings much along:

    python3.11 -m venv /tmp/evalplus-venv && /tmp/evalplus-venv/bin/pip install evalplus

Leave the machine alone meanwhile; ours and theirs take turns.
"""

import argparse
import ast
import contextlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import mbppplus
from hybridlib import ROOT, StudyError, results
from hybridlib.sandbox import asserts, judge

RECORD = ROOT / "benchmarks" / "sandbox.json"
LIMIT = 20.0  # seconds a program: one reference solution takes two
SAMPLES = "samples-mistral-7b-instruct.jsonl"
LOOP, RIGHT = "def f(x):\n    while True: pass", "def f(x):\n    return x + 1"
TEST = "assert f(1) == 2\nassert f(2) == 3"
EXPLAINED: dict[tuple[int, str], str] = {}
"""(task, kind of tests) -> why our verdict is another than the label; none is needed today."""


def references(folder: Path) -> tuple[list[str], list[str]]:
    """MBPP's reference solutions and their asserts."""
    rows = mbppplus.read(folder, "mbpp.jsonl")
    tests = ["\n".join([row["test_setup_code"], *row["test_list"]]) for row in rows]
    return [row["code"] for row in rows], tests


def cases(programs: list[str], tests: list[str]) -> dict[int, dict]:
    """The programs whose asserts are all `name(literals) == literal`, as EvalPlus wants them."""
    found = {}
    for i, (program, text) in enumerate(zip(programs, tests, strict=True)):
        inputs, expected, names = [], [], set()
        with contextlib.suppress(ValueError, AttributeError):
            for node in ast.parse(text).body:
                call, (value,) = node.test.left, node.test.comparators
                if not isinstance(node.test.ops[0], ast.Eq) or call.keywords:
                    raise ValueError
                names.add(call.func.id)
                inputs.append([ast.literal_eval(argument) for argument in call.args])
                expected.append(ast.literal_eval(value))
            if len(names) == 1 and asserts.plan(text).checks[0].literal:
                found[i] = {"code": program, "entry": names.pop(), "inputs": repr(inputs),
                            "expected": repr(expected)}  # fmt: skip
    return found


def rates(programs: list[str], tests: list[str], python: Path, repeat: int) -> list[dict]:
    """Seconds for all reference solutions on this machine's cores: ours, and EvalPlus in turn."""
    shared = cases(programs, tests)
    few = [programs[i] for i in shared], [tests[i] for i in shared]
    ways = {
        "ours, all": lambda: ours(programs, tests),
        "ours, those that EvalPlus can be asked": lambda: ours(*few),
        "ours, the same in two processes": lambda: apart(pool, *few),
    }
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(2))
        if python.exists():
            theirs = stack.enter_context(subprocess.Popen(
                [python, ROOT / "benchmarks" / "evalplus_rate.py"], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            ))  # fmt: skip
            ask(theirs, json.dumps([*shared.values()]))
            ways["EvalPlus, untrusted_check, two workers"] = lambda: json.loads(ask(theirs, "go"))
        else:
            print(f"no EvalPlus: {python} is not there; see --help", file=sys.stderr)
        runs: dict[str, list] = {way: [] for way in ways}
        for turn in range(repeat + 1):
            for way, run in ways.items():
                found = run()
                runs[way] += [found] * (turn > 0)  # the first turn warms the caches
        if python.exists():
            theirs.stdin.close()
    return [
        {"way": way, "programs": len(programs) if way == "ours, all" else len(shared),
         "passed": min(passed for _, passed in found), "seconds": [s for s, _ in found]}
        for way, found in runs.items()
    ]  # fmt: skip


def ask(process: subprocess.Popen, line: str) -> str:
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def ours(programs: list[str], tests: list[str]) -> tuple[float, int]:
    began = time.perf_counter()
    outcomes = judge.judge(programs, tests, LIMIT)
    return time.perf_counter() - began, sum(o.reason == "pass" for o in outcomes)


def apart(pool: Any, programs: list[str], tests: list[str]) -> tuple[float, int]:
    began = time.perf_counter()
    halves = [(programs[k::2], tests[k::2]) for k in (0, 1)]
    found = pool.starmap(ours, halves, chunksize=1)
    return time.perf_counter() - began, sum(passed for _, passed in found)


def latency(programs: list[str], tests: list[str], count: int = 200) -> dict:
    """Milliseconds of one judgement at a time: the reference solutions' quantiles."""
    spent = []
    for program, test in list(zip(programs, tests, strict=True))[:count]:
        began = time.perf_counter()
        judge.judge([program], [test], LIMIT)
        spent.append(1e3 * (time.perf_counter() - began))
    cuts = statistics.quantiles(spent, n=100)
    return {"n": count, "median": cuts[49], "p90": cuts[89], "p99": cuts[98]}


def start(_: int) -> float:
    """Seconds from nothing to the first verdict, the sandbox's own two programs included."""
    began = time.perf_counter()
    judge.judge([RIGHT], [TEST])
    return time.perf_counter() - began


def loops(size: int = 128) -> list[dict]:
    """Seconds until a group has its verdicts, half of which are endless loops."""
    programs, tests = [RIGHT, LOOP] * (size // 2), [TEST] * size
    rows = []
    for workers in (1, 2):
        began = time.perf_counter()
        if workers == 1:
            found = [o.reason for o in judge.judge(programs, tests)]
        else:
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                halves = [(programs[: size // 2], tests[: size // 2])] * 2
                found = [o.reason for half in pool.starmap(judge.judge, halves) for o in half]
        seconds = time.perf_counter() - began
        right = found == ["pass", "timeout"] * (size // 2)
        rows.append({"processes": workers, "programs": size, "seconds": seconds, "right": right})
    return rows


def memory(programs: list[str], tests: list[str]) -> dict:
    """MiB of a process that judges, with all it has started: its share of every page, at most."""
    own, peak, done = multiprocessing.current_process().pid, [0, 0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            tree = [own, *below(own)]
            peak[:] = max(peak[0], sum(map(share, tree))), max(peak[1], len(tree))

    before = share(own)
    (watcher := threading.Thread(target=watch)).start()
    judge.judge(programs, tests, LIMIT)
    done.set()
    watcher.join()
    return {"judge": before / 1024, "peak": peak[0] / 1024, "processes": peak[1]}


def below(process: int) -> list[int]:
    """The processes that this one has started, and theirs."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *below(child)]
    return found


def share(process: int) -> int:
    """KiB that the process holds, pages in common divided by their holders; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def agreement(folder: Path) -> dict:
    """Our verdicts beside EvalPlus's labels, and on its reference solutions."""
    tasks = mbppplus.tasks(folder)
    known = {task.number: task for task in tasks}
    rows = mbppplus.read(folder, SAMPLES)
    found: dict[str, Any] = {"left_out": sum(task.left_out for task in tasks), "kinds": []}
    for kind in ("base", "plus"):
        own = [task for task in tasks if kind in task.tests]
        reasons = judge.judge([t.solution for t in own], [t.tests[kind] for t in own], LIMIT)
        asked = [row for row in rows if kind in known[row["task_id"]].tests]
        tests = [known[row["task_id"]].tests[kind] for row in asked]
        outcomes = judge.judge([row["solution"] for row in asked], tests, LIMIT)
        other = [
            {"task": row["task_id"], "label": row[f"{kind}_status"], "ours": o.reason,
             "detail": o.detail, "why": EXPLAINED.get((row["task_id"], kind), "")}
            for row, o in zip(asked, outcomes, strict=True)
            if (o.reason == "pass") != (row[f"{kind}_status"] == "pass")
        ]  # fmt: skip
        found["kinds"].append({
            "tests": kind, "references": len(own),
            "passed": sum(outcome.reason == "pass" for outcome in reasons),
            "asserts": sum(t.tests[kind].count("\nassert ") for t in own),
            "labelled": len(asked), "agree": len(asked) - len(other), "disagreements": other,
        })  # fmt: skip
    return found


def tables(record: dict) -> str:
    """The record as Markdown tables."""
    lines = ["| judged by | programs | passed | seconds: fastest | median | programs/s, fastest |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in record["rates"]:
        best, middle = min(row["seconds"]), statistics.median(row["seconds"])
        lines.append(f"| {row['way']} | {row['programs']} | {row['passed']} | {best:.2f} | "
                     f"{middle:.2f} | {row['programs'] / best:.0f} |")  # fmt: skip
    late, worker = record["latency"], record["memory"]
    lines += ["", "| what | measured |", "|---|---|"]
    lines += [
        f"| one program at a time, median of {late['n']} | {late['median']:.1f} ms |",
        f"| the same, 99th percentile | {late['p99']:.1f} ms |",
        f"| from nothing to the first verdict | {statistics.median(record['start']):.2f} s |",
        f"| memory of a worker, all its processes, at most | {worker['peak']:.0f} MiB |",
    ]
    lines += [
        f"| {row['programs']} programs, half of them endless, {row['processes']} judging | "
        f"{row['seconds']:.1f} s |" for row in record["loops"]
    ]  # fmt: skip
    lines += ["", "| MBPP+ tests | asserts | references that pass | programs labelled | agree |",
              "|---|---|---|---|---|"]  # fmt: skip
    for row in record["agreement"]["kinds"]:
        lines.append(
            f"| {row['tests']} | {row['asserts']:,} | {row['passed']} of {row['references']} | "
            f"{row['labelled']} | {row['agree']} ({row['agree'] / row['labelled']:.1%}) |"
        )
    return "\n".join(lines)


def main() -> int:
    read = argparse.ArgumentParser(
        prog="python -m benchmarks.sandbox", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    read.add_argument("--mbpp", type=Path, required=True, metavar="FOLDER", help="mbpp.jsonl")
    read.add_argument("--mbppplus", type=Path, required=True, metavar="FOLDER",
                      help=f"MbppPlus.jsonl and {SAMPLES}")  # fmt: skip
    read.add_argument("--evalplus", type=Path, default=Path("/tmp/evalplus-venv/bin/python"),
                      metavar="PYTHON",
                      help="the interpreter that has EvalPlus (%(default)s)")  # fmt: skip
    read.add_argument("--repeat", type=int, default=5, help="turns of each way (default: 5)")
    asked = read.parse_args()
    try:
        programs, tests = references(asked.mbpp)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
            worker = fresh.apply(memory, (programs, tests))
            starts = fresh.map(start, range(asked.repeat), chunksize=1)
        found = {
            "isolation": judge.isolation(),
            "rates": rates(programs, tests, asked.evalplus, asked.repeat),
            "latency": latency(programs, tests), "start": starts, "memory": worker,
            "loops": loops(), "agreement": agreement(asked.mbppplus),
            "provenance": results.provenance(),
        }  # fmt: skip
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    found = json.loads(json.dumps(found), parse_float=lambda number: round(float(number), 4))
    results.write(RECORD, json.dumps(found, indent=1) + "\n")
    print(tables(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
