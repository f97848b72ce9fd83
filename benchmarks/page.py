"""The book's page on the engine, written from the record alone."""

import json

from hybridlib import ROOT, StudyError, files, markdown

RECORD = ROOT / "benchmarks" / "engine.json"
SPEED = ROOT / "benchmarks" / "speed.json"
PAGE = ROOT / "book" / "engine.md"
PICTURE = ROOT / "book" / "images" / "engine-curves.svg"


def stored() -> dict[str, dict]:
    """Return what has been measured: benchmark -> rows and provenance."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write() -> None:
    """Write the page and its picture, once every benchmark has been measured."""
    from benchmarks.engine import BENCHMARKS

    record = stored()
    missing = [name for name in BENCHMARKS if name not in record]
    if missing:
        print(f"the page is not written: still to be measured: {', '.join(missing)}")
        return
    curves(record["curves"]["rows"]).savefig(PICTURE, metadata={"Date": None})
    files.write(PAGE, text(record))
    print(f"written: {PAGE.relative_to(ROOT)}")


def curves(rows: list[dict]):
    """Return a figure of the mean reward of stock and ours by step, with the range over seeds.

    Rewards are means of five steps; a line is the mean over seeds.
    """
    import matplotlib
    import numpy as np

    matplotlib.rcParams["svg.hashsalt"] = "engine"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.add_subplot()
    for engine, colour in (("stock", "#D55E00"), ("ours", "#0072B2")):
        seeds = np.array([r["reward"] for r in rows if r["engine"] == engine])
        smooth = seeds.reshape(len(seeds), -1, 5).mean(2)
        steps = np.arange(smooth.shape[1]) * 5 + 3
        axis.plot(
            steps, smooth.mean(0), color=colour, label=f"{engine}, mean of {len(seeds)} seeds"
        )
        axis.fill_between(steps, smooth.min(0), smooth.max(0), color=colour, alpha=0.15, lw=0)
    axis.set(xlabel="optimizer step", ylabel="mean reward")
    axis.legend(frameon=False)
    return figure


def final_difference(rows: list[dict]) -> tuple[float, float, float]:
    """Return the reward of the last 20 steps, ours minus stock: mean and 95 % t interval."""
    import numpy as np
    from scipy.stats import t

    late = {
        engine: np.array([np.mean(r["reward"][-20:]) for r in rows if r["engine"] == engine])
        for engine in ("stock", "ours")
    }
    difference = late["ours"] - late["stock"]  # the same seed draws the same rows in both
    seeds = len(difference)
    half_width = t.ppf(0.975, seeds - 1) * difference.std(ddof=1) / seeds**0.5
    mean = difference.mean()
    return mean, mean - half_width, mean + half_width


def text(record: dict[str, dict]) -> str:
    """Return the page in Markdown; every number comes from the record.

    Raises StudyError where two benchmarks were measured on different machines, libraries or code.
    """
    provenance = record["grpo_step"]["provenance"]
    for name, part in record.items():
        for key in ("device", "threads", "versions", "code"):
            if part["provenance"][key] != provenance[key]:
                raise StudyError(f"benchmark {name} was measured with another {key}; run it again")
    rows = {name: part["rows"] for name, part in record.items()}
    floor, step = rows["floor"][0], rows["grpo_step"][0]
    compared = [
        *(rows[name][place] for name in ("grpo_step", "sft_step") for place in (0, -1)),
        *rows["evaluation"],
        *rows["grid"],
        *rows["memory"],
    ]
    inside = [row for name in ("grpo_step", "sft_step") for row in rows[name] if row.get("part")]
    single, four = rows["together"]
    speed = json.loads(SPEED.read_text())
    reading = "Below twice as fast, that is not worth a trainer of several runs."
    if four["ratio"] >= 2:
        reading = "That would pay, and is the next thing to build."
    return markdown.render(
        "benchmarks",
        "engine.md.j2",
        commit=provenance["commit"][:7],
        processor=provenance["device"],
        threads=provenance["threads"],
        torch=provenance["versions"]["torch"],
        trl=provenance["versions"]["trl"],
        compared=table(compared),
        inside=table(inside),
        tokens=floor["prompt_tokens"] + floor["answer_tokens"],
        taught=floor["taught_tokens"],
        gap=final_difference(rows["curves"]),
        seeds=len(rows["curves"]) // 2,
        growth=growth(rows["growth"]),
        giga=floor["operations"] / 1e9,
        bytes=floor["bytes"] / 1e9,
        flops=floor["peak_flops"] / 1e9,
        bandwidth=floor["bandwidth"] / 1e9,
        seconds=floor["seconds"],
        ours=step["ours"],
        stock=step["stock"],
        times=step["ours"] / floor["seconds"],
        apart=four["stock"],
        four=four["ours"],
        gain=four["ratio"],
        single=single["ratio"],
        reading=reading,
        before=speed["before"],
        speed=against_floor(speed["rows"]),
    )


def table(rows: list[dict]) -> str:
    """Return stock against ours as a Markdown table: medians and ranges."""
    import pandas as pd

    cells = [
        {
            "": row["what"],
            "stock": _median_and_range(row, "stock", row["spread"][0]),
            "ours": _median_and_range(row, "ours", row["spread"][1]),
            "times": f"{row['ratio']:.2f}",
            "repetitions": row["n"],
        }
        for row in rows
    ]
    return markdown.table(pd.DataFrame(cells))


def against_floor(rows: list[dict]) -> str:
    """Return the steps of `benchmarks.speed` as a Markdown table: medians, and times the floor."""
    import pandas as pd

    cells = [
        {
            "samples": row["samples"],
            "engine": row["engine"],
            **{part: f"{row['median'][part]:.2f} s" for part in row["median"]},
            "floor": f"{row['floor']:.2f} s",
            "times": f"{row['times']:.2f}",
            "at best": f"{row['fewest_times']:.2f}",
            "steps": row["n"],
        }
        for row in rows
    ]
    return markdown.table(pd.DataFrame(cells))


def _median_and_range(row: dict, engine: str, extremes: tuple[float, float]) -> str:
    if not row[engine]:
        return ""
    low, high = extremes
    return f"{row[engine]:.3f} {row['unit']} [{low:.3f}, {high:.3f}]"


def growth(rows: list[dict]) -> str:
    """Return a Markdown table of seconds at each size, and of their ratios at each doubling."""
    import pandas as pd

    cells = []
    for what, grows in dict.fromkeys((row["what"], row["grows"]) for row in rows):
        sizes = [row for row in rows if (row["what"], row["grows"]) == (what, grows)]
        seconds = [row["ours"] for row in sizes]
        ratios = [later / first for first, later in zip(seconds, seconds[1:], strict=False)]
        cells.append(
            {
                "": what,
                "grows by": grows,
                "sizes": ", ".join(str(row["size"]) for row in sizes),
                "seconds": ", ".join(f"{value:.2f}" for value in seconds),
                "time per doubling": ", ".join(f"{ratio:.2f} x" for ratio in ratios),
            }
        )
    return markdown.table(pd.DataFrame(cells))
