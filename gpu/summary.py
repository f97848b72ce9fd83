"""python gpu/summary.py FOLDER: is the first step of Unsloth that of Hugging Face? And a table.

Reads the lines of `steps.py` in FOLDER/*.json, writes FOLDER/check.json; fails where they differ.
"""

import json
import sys
from pathlib import Path

TOLERANCE = 0.02  # of plain Hugging Face's value
FLOOR = 0.05  # below it a loss is compared as if it were so large


def lines(folder: Path) -> dict[str, dict]:
    """Return the last line of JSON of every file, by its name."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        made = [line for line in file.read_text().splitlines() if line.startswith('{"what"')]
        found[file.stem] = json.loads(made[-1]) if made else {"failed": file.stem}
    return found


def parity(results: dict[str, dict]) -> list[dict]:
    """Return a comparison per method and precision."""
    compared = []
    for method in ("sft", "grpo"):
        for precision in ("bf16", "nf4"):
            ours, plain = (
                results.get(f"first-{method}-{backend}-{precision}", {})
                for backend in ("unsloth", "hf")
            )
            same = "loss" in ours and "loss" in plain
            for name, floor in (("loss", FLOOR), ("grad_norm", 0.0)):
                allowed = TOLERANCE * max(abs(plain.get(name, 0)), floor)
                same = same and abs(ours[name] - plain[name]) <= allowed
            compared.append(
                {"what": f"{method} {precision}", "same": same, "hf": plain, "unsloth": ours}
            )
    return compared


def main(folder: Path) -> int:
    results = lines(folder)
    compared = parity(results)
    (folder / "check.json").write_text(json.dumps({"parity": compared, "all": results}, indent=1))
    for pair in compared:
        print("parity" if pair["same"] else "NO PARITY", pair["what"], pair["hf"], pair["unsloth"])
    for name, result in results.items():
        if not name.startswith("first"):
            print(name, result)
    return 0 if all(pair["same"] for pair in compared) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
