"""How fast is EvalPlus's own check on the same programs? For benchmarks/sandbox.py.

Run by another interpreter, in which `evalplus` is installed. Reads the cases as one line of JSON,
then, for every further line, judges all of them with two workers as `evalplus.evaluate` does and
prints the JSON list of the seconds and the number that passed.
"""

import ast
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed


def check(case: dict) -> bool:
    """Return whether EvalPlus passes one of the cases of `benchmarks.sandbox.cases`."""
    from evalplus.eval import PASS, untrusted_check

    status, _ = untrusted_check(
        "mbpp",
        case["code"],
        ast.literal_eval(case["inputs"]),
        case["entry"],
        expected=ast.literal_eval(case["expected"]),
        atol=0,
        ref_time=[0.0] * 3,
        fast_check=True,
        min_time_limit=20.0,
    )
    return status == PASS


def main() -> None:
    """Serve until standard input ends."""
    cases = json.loads(sys.stdin.readline())
    with ProcessPoolExecutor(max_workers=2) as pool:
        list(pool.map(check, cases[:4]))  # the workers have started and imported
        print("ready", flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            checks = [pool.submit(check, case) for case in cases]
            passed = sum(done.result() for done in as_completed(checks))
            print(json.dumps([time.perf_counter() - began, passed]), flush=True)


if __name__ == "__main__":
    main()
