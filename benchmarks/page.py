"""The book's page on the engine, written from the record alone."""

import json

from hybridlib import ROOT, StudyError, files

RECORD = ROOT / "benchmarks" / "engine.json"
PAGE = ROOT / "book" / "engine.md"
PICTURE = ROOT / "book" / "images" / "engine-curves.svg"


def stored() -> dict[str, dict]:
    """What has been measured: benchmark -> rows and provenance."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def write() -> None:
    """Write the page and its picture, once every benchmark has been measured."""
    from benchmarks.engine import BENCHMARKS

    found = stored()
    if missing := [name for name in BENCHMARKS if name not in found]:
        print(f"the page is not written: still to be measured: {', '.join(missing)}")
        return
    curves(found["curves"]["rows"]).savefig(PICTURE, metadata={"Date": None})
    files.write(PAGE, text(found))
    print(f"written: {PAGE.relative_to(ROOT)}")


def curves(rows: list[dict]):
    """Mean reward of stock and ours by step, in windows of five, with the range over seeds."""
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


def ends(rows: list[dict]) -> tuple[float, float, float]:
    """Reward of the last 20 steps, ours minus stock, over seeds: mean and 95 % t interval."""
    import numpy as np
    from scipy.stats import t

    late = {
        engine: np.array([np.mean(r["reward"][-20:]) for r in rows if r["engine"] == engine])
        for engine in ("stock", "ours")
    }
    gap = late["ours"] - late["stock"]  # the same seed draws the same rows in both
    reach = t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
    return gap.mean(), gap.mean() - reach, gap.mean() + reach


def text(found: dict[str, dict]) -> str:
    """The page in Markdown; every number comes from the record."""
    rows = {name: part["rows"] for name, part in found.items()}
    floor, gap, made = rows["floor"][0], ends(rows["curves"]), found["grpo_step"]["provenance"]
    step = rows["grpo_step"][0]
    compared = [
        rows["grpo_step"][0], rows["grpo_step"][-1], rows["sft_step"][0], rows["sft_step"][-1],
        *rows["evaluation"], *rows["grid"],
        *rows["memory"],
    ]  # fmt: skip
    inside = [r for name in ("grpo_step", "sft_step") for r in rows[name] if r.get("part")]
    apart, four = rows["together"]
    tokens = floor["prompt_tokens"] + floor["answer_tokens"]
    for name, part in found.items():
        for key in ("device", "threads", "versions", "code"):
            if part["provenance"][key] != made[key]:
                raise StudyError(f"benchmark {name} was measured with another {key}; run it again")
    return (ROOT / "benchmarks" / "page.md").read_text().format(
        processor=made["device"], threads=made["threads"], torch=made["versions"]["torch"],
        trl=made["versions"]["trl"], compared=table(compared), inside=table(inside),
        tokens=tokens, taught=floor["taught_tokens"], gap=gap,
        seeds=len(rows["curves"]) // 2, growth=growth(rows["growth"]),
        giga=floor["operations"] / 1e9, bytes=floor["bytes"] / 1e9, flops=floor["peak_flops"] / 1e9,
        bandwidth=floor["bandwidth"] / 1e9, seconds=floor["seconds"], ours=step["ours"],
        stock=step["stock"], times=step["ours"] / floor["seconds"],
        apart=four["stock"], four=four["ours"], gain=four["ratio"], single=apart["ratio"],
        reading="Below twice as fast, that is not worth a trainer of several runs."
        if four["ratio"] < 2 else "That would pay, and is the next thing to build.",
    )  # fmt: skip


def table(rows: list[dict]) -> str:
    """Stock against ours as a Markdown table."""
    lines = ["| | stock | ours | times | repetitions |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [
            f"{row[name]:.3f} {row['unit']} [{low:.3f}, {high:.3f}]" if row[name] else ""
            for name, (low, high) in zip(("stock", "ours"), row["spread"], strict=True)
        ]
        lines.append(f"| {row['what']} | {' | '.join(cells)} | {row['ratio']:.2f} | {row['n']} |")
    return "\n".join(lines)


def growth(rows: list[dict]) -> str:
    """One line per measure: seconds at each size, and how often doubling more than doubled."""
    kinds = dict.fromkeys((row["what"], row["grows"]) for row in rows)
    lines = ["| | grows by | sizes | seconds | time per doubling |", "|---|---|---|---|---|"]
    for what, grows in kinds:
        part = [r for r in rows if (r["what"], r["grows"]) == (what, grows)]
        ratios = [b["ours"] / a["ours"] for a, b in zip(part, part[1:], strict=False)]
        cells = [
            ", ".join(str(r["size"]) for r in part), ", ".join(f"{r['ours']:.2f}" for r in part),
            ", ".join(f"{ratio:.2f} x" for ratio in ratios),
        ]  # fmt: skip
        lines.append(f"| {what} | {grows} | {' | '.join(cells)} |")
    return "\n".join(lines)
