"""EvalPlus's own check over the same programs, for benchmarks/sandbox.py; needs EvalPlus alone.

Run by another interpreter, in which `evalplus` is installed: reads the cases as one line of JSON,
then, for every further line, judges all of them with two workers as `evalplus.evaluate` does and
prints the seconds and how many have passed.
"""

import ast
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed


def check(case: dict) -> bool:
    from evalplus.eval import PASS, untrusted_check

    status, _ = untrusted_check(
        "mbpp", case["code"], ast.literal_eval(case["inputs"]), case["entry"],
        expected=ast.literal_eval(case["expected"]), atol=0, ref_time=[0.0] * 3, fast_check=True,
        min_time_limit=20.0,
    )  # fmt: skip
    return status == PASS


def main() -> None:
    cases = json.loads(sys.stdin.readline())
    with ProcessPoolExecutor(max_workers=2) as pool:
        list(pool.map(check, cases[:4]))  # the workers have started and imported
        print("ready", flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            passed = [f.result() for f in as_completed([pool.submit(check, c) for c in cases])]
            print(json.dumps([time.perf_counter() - began, sum(passed)]), flush=True)


if __name__ == "__main__":
    main()
