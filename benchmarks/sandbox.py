"""How fast, how right and how small is the sandbox? Writes benchmarks/sandbox.json.

    python -m benchmarks.sandbox --mbpp FOLDER --mbppplus FOLDER

Judges the reference solutions of MBPP side by side with EvalPlus's own check, and MBPP+ against the
labels that EvalPlus gave to one model's programs. EvalPlus wants an environment of its own, as it
brings much along:

    python3.11 -m venv /tmp/evalplus-venv && /tmp/evalplus-venv/bin/pip install evalplus

Leave the machine alone meanwhile; ours and theirs take turns. What a change costs is measured on
its own, against a checkout of the repository as it was, and kept in the record beside the rest:

    git worktree add /tmp/before COMMIT
    python -m benchmarks.sandbox --mbpp FOLDER --before /tmp/before
"""

import argparse
import ast
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from benchmarks import mbppplus
from hybridlib import ROOT, StudyError, files, results
from hybridlib.sandbox import asserts, judge

RECORD = ROOT / "benchmarks" / "sandbox.json"
LIMIT = 20.0  # seconds a program: one reference solution takes two
SAMPLES = "samples-mistral-7b-instruct.jsonl"
LOOP, RIGHT = "def f(x):\n    while True: pass", "def f(x):\n    return x + 1"
TEST = "assert f(1) == 2\nassert f(2) == 3"
EXPLAINED: dict[tuple[int, str], str] = {}
"""(task, kind of tests) -> why our verdict is another than the label; none is needed today."""

JUDGE = """
import json, sys, time
from hybridlib.sandbox import judge
for line in sys.stdin:
    programs, tests, limit = json.loads(line)
    began = time.perf_counter()
    passed = sum(outcome.reason == "pass" for outcome in judge.judge(programs, tests, limit))
    print(json.dumps([time.perf_counter() - began, passed]), flush=True)
"""
"""What another process executes to judge with the package of its working folder."""

TICKS = os.sysconf("SC_CLK_TCK")  # a second, of the times in /proc

Timing = tuple[float, int]  # seconds, programs that passed


def references(folder: Path) -> tuple[list[str], list[str]]:
    """Return MBPP's reference solutions and their asserts."""
    rows = mbppplus.read(folder, "mbpp.jsonl")
    tests = ["\n".join([row["test_setup_code"], *row["test_list"]]) for row in rows]
    return [row["code"] for row in rows], tests


def cases(programs: list[str], tests: list[str]) -> dict[int, dict]:
    """Return those programs as EvalPlus wants them whose asserts are `name(literals) == literal`.

    Index of the program -> its code, the name of its function, inputs and expected values.
    """
    askable = {}
    for index, (program, text) in enumerate(zip(programs, tests, strict=True)):
        with contextlib.suppress(ValueError, AttributeError):
            names, inputs, expected = _literal_asserts(text)
            if len(names) == 1 and asserts.parse(text).comparisons[0].expected:
                askable[index] = {
                    "code": program,
                    "entry": names.pop(),
                    "inputs": repr(inputs),
                    "expected": repr(expected),
                }
    return askable


def _literal_asserts(text: str) -> tuple[set[str], list[list], list]:
    """Return function names, arguments and expected values of asserts `name(literals) == literal`.

    Raises ValueError or AttributeError for any other statement.
    """
    names, inputs, expected = set(), [], []
    for node in ast.parse(text).body:
        call, (value,) = node.test.left, node.test.comparators
        if not isinstance(node.test.ops[0], ast.Eq) or call.keywords:
            raise ValueError
        names.add(call.func.id)
        inputs.append([ast.literal_eval(argument) for argument in call.args])
        expected.append(ast.literal_eval(value))
    return names, inputs, expected


def rates(programs: list[str], tests: list[str], python: Path, repeat: int) -> list[dict]:
    """Time all reference solutions on this machine's cores: ours, and EvalPlus in turn.

    Args:
        python: the interpreter that has EvalPlus; without it, ours alone are timed.
        repeat: timings of each way, after one that warms the caches.
    """
    shared = cases(programs, tests)
    shared_programs = [programs[index] for index in shared]
    shared_tests = [tests[index] for index in shared]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(2))
        ways: dict[str, Callable[[], Timing]] = {
            "ours, all": lambda: time_judge(programs, tests),
            "ours, those that EvalPlus can be asked": lambda: time_judge(
                shared_programs, shared_tests
            ),
            "ours, the same in two processes": lambda: time_two_judges(
                pool, shared_programs, shared_tests
            ),
        }
        if python.exists():
            ask = stack.enter_context(_evalplus(python, [*shared.values()]))
            ways["EvalPlus, untrusted_check, two workers"] = ask
        else:
            print(f"no EvalPlus: {python} is not there; see --help", file=sys.stderr)
        timings: dict[str, list[Timing]] = {way: [] for way in ways}
        for turn in range(repeat + 1):
            for way, run in ways.items():
                timing = run()
                if turn > 0:
                    timings[way].append(timing)
    return [
        {
            "way": way,
            "programs": len(programs) if way == "ours, all" else len(shared),
            "passed": min(passed for _, passed in timing),
            "seconds": [seconds for seconds, _ in timing],
        }
        for way, timing in timings.items()
    ]


@contextlib.contextmanager
def _evalplus(python: Path, programs: list[dict]) -> Iterator[Callable[[], Timing]]:
    """Start EvalPlus's check on these programs; yields a function that runs and times it once."""
    command = [python, ROOT / "benchmarks" / "evalplus_rate.py"]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def ask(line: str) -> str:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline()

        ask(json.dumps(programs))
        yield lambda: json.loads(ask("go"))
        process.stdin.close()


def time_judge(programs: list[str], tests: list[str]) -> Timing:
    """Judge all programs in this process."""
    began = time.perf_counter()
    outcomes = judge.judge(programs, tests, LIMIT)
    return time.perf_counter() - began, sum(outcome.reason == "pass" for outcome in outcomes)


def time_two_judges(pool: Pool, programs: list[str], tests: list[str]) -> Timing:
    """Judge every second program in each of the pool's two processes."""
    began = time.perf_counter()
    halves = [(programs[start::2], tests[start::2]) for start in (0, 1)]
    timings = pool.starmap(time_judge, halves, chunksize=1)
    return time.perf_counter() - began, sum(passed for _, passed in timings)


def latency(programs: list[str], tests: list[str], count: int = 200) -> dict:
    """Return quantiles of the milliseconds that one judgement takes, one program at a time."""
    milliseconds = []
    for program, test in list(zip(programs, tests, strict=True))[:count]:
        began = time.perf_counter()
        judge.judge([program], [test], LIMIT)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"n": count, "median": cuts[49], "p90": cuts[89], "p99": cuts[98]}


def start(_: int) -> float:
    """Return the seconds from nothing to the first verdict, the sandbox's own test included.

    For a fresh process; the argument is what `Pool.map` hands over.
    """
    began = time.perf_counter()
    judge.judge([RIGHT], [TEST])
    return time.perf_counter() - began


def loops(size: int = 128) -> list[dict]:
    """Time a group of programs half of which are endless loops, judged by one and two processes."""
    programs = [text for i in range(size // 2) for text in (f"{RIGHT}  # {i}", LOOP)]
    tests = [TEST] * size
    rows = []
    for workers in (1, 2):
        began = time.perf_counter()
        if workers == 1:
            outcomes = judge.judge(programs, tests)
        else:
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                halves = [(programs[: size // 2], tests[: size // 2])] * 2
                first, second = pool.starmap(judge.judge, halves)
                outcomes = first + second
        seconds = time.perf_counter() - began
        reasons = [outcome.reason for outcome in outcomes]
        right = reasons == ["pass", "timeout"] * (size // 2)
        rows.append({"processes": workers, "programs": size, "seconds": seconds, "right": right})
    return rows


def compare(folder: Path, programs: list[str], tests: list[str], repeat: int) -> dict[str, Any]:
    """Time this package and that of another folder in turns, each in a process of its own.

    Args:
        folder: the repository as it was.
        programs: a workload with `tests`, beside others that are made here.

    Processor seconds count those of all processes that have judged. They tell more than seconds
    where the machine is busy; `load` says how busy it was.
    """
    short = [f"{RIGHT}  # {i}" for i in range(300)]
    equal_loops = [program for right in short[:64] for program in (right, LOOP)]
    loops = [f"{LOOP}  # {i}" for i in range(8)] + short[:8]
    workloads = {
        "short programs": (short, [TEST] * len(short), LIMIT),
        "reference solutions of MBPP": (programs, tests, LIMIT),
        "half of them the same endless loop": (equal_loops, [TEST] * len(equal_loops), 2.0),
        "half of them endless loops that differ": (loops, [TEST] * len(loops), 2.0),
    }
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(_judging(place))
            for name, place in (("before", folder), ("now", ROOT))
        }
        rows = [
            {"programs": name, "n": len(workload[0]), "turns": _turns(processes, workload, repeat)}
            for name, workload in workloads.items()
        ]
    return {"workloads": rows, "load": os.getloadavg(), "provenance": results.provenance()}


@contextlib.contextmanager
def _judging(folder: Path) -> Iterator[subprocess.Popen]:
    """Start a process that judges with the package in this folder, as JUDGE says."""
    with subprocess.Popen(
        [sys.executable, "-c", JUDGE],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield process
        process.stdin.close()


def _turns(
    processes: dict[str, subprocess.Popen], workload: tuple, repeat: int
) -> list[dict[str, dict]]:
    """Return what each process took for a workload, turn by turn; they change who begins.

    The first turn, which warms the caches, is left out.
    """
    turns = []
    for turn in range(repeat + 1):
        record = {}
        for name in sorted(processes, reverse=turn % 2 == 1):
            process = processes[name]
            before = cpu_seconds(process.pid)
            process.stdin.write(json.dumps(workload) + "\n")
            process.stdin.flush()
            seconds, passed = json.loads(process.stdout.readline())
            taken = cpu_seconds(process.pid) - before
            record[name] = {"seconds": seconds, "cpu_seconds": taken, "passed": passed}
        turns.append(record)
    return turns[1:]


def cpu_seconds(process: int) -> float:
    """Return the processor seconds of a process and of all that it and they have started."""
    ticks = 0
    for member in [process, *descendants(process)]:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            # Its own, and those of its children that have ended: utime, stime, cutime, cstime.
            ticks += sum(map(int, stat[11:15]))
    return ticks / TICKS


def memory(programs: list[str], tests: list[str]) -> dict:
    """Return the MiB of this process before it judges, and the most with all it has started.

    A page that processes have in common counts in equal shares for each. For a fresh process.
    """
    judge_process = multiprocessing.current_process().pid
    peak_kib, most_processes, done = 0, 0, threading.Event()

    def watch() -> None:
        nonlocal peak_kib, most_processes
        while not done.wait(0.02):
            processes = [judge_process, *descendants(judge_process)]
            peak_kib = max(peak_kib, sum(map(memory_share, processes)))
            most_processes = max(most_processes, len(processes))

    before_kib = memory_share(judge_process)
    watcher = threading.Thread(target=watch)
    watcher.start()
    judge.judge(programs, tests, LIMIT)
    done.set()
    watcher.join()
    return {"judge": before_kib / 1024, "peak": peak_kib / 1024, "processes": most_processes}


def descendants(process: int) -> list[int]:
    """Return the processes that this one has started, and theirs."""
    processes = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                processes += [child, *descendants(child)]
    return processes


def memory_share(process: int) -> int:
    """Return the KiB of a process, shared pages divided by their holders; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def agreement(folder: Path) -> dict:
    """Compare our verdicts with EvalPlus's labels, and judge its reference solutions.

    Args:
        folder: holds MbppPlus.jsonl and the labelled programs, SAMPLES.
    """
    tasks = mbppplus.tasks(folder)
    samples = mbppplus.read(folder, SAMPLES)
    kinds = [_agreement(kind, tasks, samples) for kind in ("base", "plus")]
    return {"left_out": sum(task.left_out for task in tasks), "kinds": kinds}


def _agreement(kind: str, tasks: list[mbppplus.Task], samples: list[dict]) -> dict[str, Any]:
    """Return what `agreement` tells of one kind of tests."""
    with_tests = {task.number: task for task in tasks if kind in task.tests}
    tests = {number: task.tests[kind] for number, task in with_tests.items()}
    solutions = [task.solution for task in with_tests.values()]
    references = judge.judge(solutions, [*tests.values()], LIMIT)
    samples = [row for row in samples if row["task_id"] in tests]
    outcomes = judge.judge(
        [row["solution"] for row in samples], [tests[row["task_id"]] for row in samples], LIMIT
    )
    disagreements = [
        {
            "task": row["task_id"],
            "label": row[f"{kind}_status"],
            "ours": outcome.reason,
            "detail": outcome.detail,
            "why": EXPLAINED.get((row["task_id"], kind), ""),
        }
        for row, outcome in zip(samples, outcomes, strict=True)
        if (outcome.reason == "pass") != (row[f"{kind}_status"] == "pass")
    ]
    return {
        "tests": kind,
        "references": len(references),
        "passed": sum(outcome.reason == "pass" for outcome in references),
        "asserts": sum(text.count("\nassert ") for text in tests.values()),
        "labelled": len(samples),
        "agree": len(samples) - len(disagreements),
        "disagreements": disagreements,
    }


def tables(record: dict) -> str:
    """Return the record as Markdown tables: rates, times and memory, agreement, before and now."""
    parts = [_rates_table(record), _measured_table(record), _agreement_table(record)]
    if "before" in record:
        parts.append(_before_table(record["before"]))
    return "\n\n".join(parts)


def _rates_table(record: dict) -> str:
    lines = [
        "| judged by | programs | passed | seconds: fastest | median | programs/s, fastest |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["rates"]:
        fastest, median = min(row["seconds"]), statistics.median(row["seconds"])
        lines.append(
            f"| {row['way']} | {row['programs']} | {row['passed']} | {fastest:.2f} | {median:.2f} "
            f"| {row['programs'] / fastest:.0f} |"
        )
    return "\n".join(lines)


def _measured_table(record: dict) -> str:
    times, space = record["latency"], record["memory"]
    lines = [
        "| what | measured |",
        "|---|---|",
        f"| one program at a time, median of {times['n']} | {times['median']:.1f} ms |",
        f"| the same, 99th percentile | {times['p99']:.1f} ms |",
        f"| from nothing to the first verdict | {statistics.median(record['start']):.2f} s |",
        f"| memory of a worker, all its processes, at most | {space['peak']:.0f} MiB |",
    ]
    for row in record["loops"]:
        lines.append(
            f"| {row['programs']} programs, half of them endless, {row['processes']} judging "
            f"| {row['seconds']:.1f} s |"
        )
    return "\n".join(lines)


def _agreement_table(record: dict) -> str:
    lines = [
        "| MBPP+ tests | asserts | references that pass | programs labelled | agree |",
        "|---|---|---|---|---|",
    ]
    for row in record["agreement"]["kinds"]:
        lines.append(
            f"| {row['tests']} | {row['asserts']:,} | {row['passed']} of {row['references']} "
            f"| {row['labelled']} | {row['agree']} ({row['agree'] / row['labelled']:.1%}) |"
        )
    return "\n".join(lines)


def _before_table(record: dict) -> str:
    lines = [
        "| programs | before, median s | now, median s | ratio by turns | of processor seconds |",
        "|---|---|---|---|---|",
    ]
    for row in record["workloads"]:
        seconds, processor = (
            {name: [turn[name][kind] for turn in row["turns"]] for name in ("before", "now")}
            for kind in ("seconds", "cpu_seconds")
        )
        lines.append(
            f"| {row['n']}: {row['programs']} | {statistics.median(seconds['before']):.2f} "
            f"| {statistics.median(seconds['now']):.2f} | {_ratios(seconds)} "
            f"| {_ratios(processor)} |"
        )
    return "\n".join(lines)


def _ratios(times: dict[str, list[float]]) -> str:
    ratios = [now / before for before, now in zip(times["before"], times["now"], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> int:
    """Measure, write the record and print its tables; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sandbox",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mbpp", type=Path, required=True, metavar="FOLDER", help="mbpp.jsonl")
    parser.add_argument(
        "--mbppplus",
        type=Path,
        metavar="FOLDER",
        help=f"MbppPlus.jsonl and {SAMPLES}",
    )
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="compare with this checkout, and only that"
    )
    parser.add_argument(
        "--evalplus",
        type=Path,
        default=Path("/tmp/evalplus-venv/bin/python"),
        metavar="PYTHON",
        help="the interpreter that has EvalPlus (%(default)s)",
    )
    parser.add_argument("--repeat", type=int, default=5, help="turns of each way (default: 5)")
    options = parser.parse_args()
    if not options.before and not options.mbppplus:
        parser.error("name a folder with --mbppplus, or with --before for the comparison alone")
    try:
        record = measure(options)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    record = json.loads(json.dumps(record), parse_float=lambda number: round(float(number), 4))
    files.write(RECORD, json.dumps(record, indent=1) + "\n")
    print(tables(record))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the whole record; takes minutes."""
    programs, tests = references(options.mbpp)
    stored = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if options.before:
        return stored | {"before": compare(options.before, programs, tests, options.repeat)}
    kept = {key: stored[key] for key in ("before",) if key in stored}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        memory_of_worker = fresh.apply(memory, (programs, tests))
        starts = fresh.map(start, range(options.repeat), chunksize=1)
    return kept | {
        "isolation": judge.protections(),
        "rates": rates(programs, tests, options.evalplus, options.repeat),
        "latency": latency(programs, tests),
        "start": starts,
        "memory": memory_of_worker,
        "loops": loops(),
        "agreement": agreement(options.mbppplus),
        "provenance": results.provenance(),
    }


if __name__ == "__main__":
    sys.exit(main())
