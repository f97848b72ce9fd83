"""python -m benchmarks [NAME ...]: the engine against stock TRL, side by side in one run.

Prints a table and keeps it in benchmarks/engine.json, from which the book's page on the engine is
written. Leave the machine alone meanwhile; stock and ours take turns, ratios are of medians.
"""

import argparse
import json
import sys
from dataclasses import replace

from benchmarks import page, steps
from benchmarks.engine import BENCHMARKS
from benchmarks.settings import THREADS
from hybridlib import StudyError, files, fingerprint, results
from hybridlib.profiles import PROFILES
from hybridlib.runs import Run


def show(row: dict) -> None:
    """A line of the side-by-side table."""
    if row["what"] in ("curve", "floor"):
        return
    size = f" ({row['size']} {row['grows']})" if "size" in row else ""
    stock = f"{row['stock']:9.3f}" if row["stock"] else " " * 9
    ratio = f"{row['ratio']:6.2f} x" if row["ratio"] else " " * 8
    line = f"{row['what'] + size:58} {stock} {row['ours']:9.3f} {row['unit']:3} {ratio}"
    print(f"{line}   n = {row['n']}", flush=True)


def main() -> int:
    read = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    read.add_argument("names", nargs="*", help=f"which (default: all): {', '.join(BENCHMARKS)}")
    read.add_argument("--repeat", type=int, default=5, help="repetitions of each (default: 5)")
    asked = read.parse_args()
    try:
        chosen = {name: BENCHMARKS[name] for name in asked.names or BENCHMARKS}
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    steps.quiet(THREADS)
    profile = replace(PROFILES["tiny"], threads=THREADS)
    print(f"{'':58} {'stock':>9} {'ours':>9}")
    for name, measure in chosen.items():
        rows = measure(profile, asked.repeat)
        for row in rows:
            show(row)
        made = results.provenance(
            threads=THREADS, code=fingerprint.digests_of(Run("grpo"), profile)
        )
        stored = page.stored() | {name: {"rows": rows, "provenance": made}}
        files.write(page.RECORD, json.dumps(stored, indent=1))
    page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
