"""Which estimator says 95 % and means it, and what will the stages find? Simulated.

`python -m benchmarks.intervals` simulates studies with known effects (a quarter of an hour on one
core), takes the parts of the variance from the records of `tiny-full`, and writes
benchmarks/intervals.json, the book's page on intervals and its two pictures. `--page` writes the
page again from what is stored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hybridlib import ROOT, files, markdown, stats
from hybridlib.trials import (
    DESIGN,
    LEVEL,
    Plan,
    Primary,
    Term,
    estimate,
    levels,
    smallest_found,
)
from hybridlib.trials.decisions import SAME, UNDECIDED
from hybridlib.trials.planning import pooled, power_table
from hybridlib.trials.worlds import World, coverage, studies

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

RECORD = ROOT / "benchmarks" / "intervals.json"
PAGE = ROOT / "book" / "intervals.md"
IMAGES = ROOT / "book" / "images"
SIZES = ((2, 64), (5, 100), (5, 300), (10, 300), (20, 300))
BASIS = World(effect=0.059)
"""The world of the issue: two arms, 5.9 points apart."""
OTHERS = {
    "no effect": {"effect": 0.0},
    "arms of one seed share half of its luck, compared seed by seed": {"shared": 0.5},
    "seeds do not matter": {"seed": 0.0},
    "seeds matter four times as much": {"seed": 1.0},
    "every seed has items of its own that it can do": {"seed_by_item": 1.0},
    "items suit both arms alike": {"item_by_arm": 0.0},
    "three families, far apart": {"families": 3, "apart": 4.0},
    "5 and 10 seeds": {"seeds": (5, 10)},
    "4 answers per item": {"samples": 4},
    "difference of two differences": {"seeds": (5,) * 4, "weights": (1.0, -1.0, -1.0, 1.0)},
    "hardly anything is right": {"ease": -6.0, "effect": 0.01},
}
ITEMS = 900
"""Test items of the grids to come: 300 of each family."""
REGION = 0.02
CLAIMS = 16
"""How many claims are to be decided together; Holm's correction begins with their number."""


# ---------------------------------------------------------------- ways of judging


def by_anova(world: World, arms: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the interval of `trials.estimate`, seeds apart."""
    return estimate(world.terms(arms), world.strata).interval()


def by_paired_anova(world: World, arms: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the interval of `trials.estimate`, arms compared seed by seed."""
    return estimate(world.terms(arms, paired=True), world.strata).interval()


def by_seeds_alone(world: World, arms: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return Student's interval over the seeds' differences, as though the items were all."""
    means = sum(weight * scores.mean(1) for weight, scores in zip(world.weights, arms, strict=True))
    return _student(means)


def by_items_alone(world: World, arms: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return Student's interval over the items' differences, as though the seeds were all."""
    means = sum(weight * scores.mean(0) for weight, scores in zip(world.weights, arms, strict=True))
    return _student(means)


def by_reml(world: World, arms: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the interval by restricted maximum likelihood, arms compared seed by seed.

    With balanced data it is the analysis of variance, but that a negative part is pooled with the
    residual instead of cut off (Searle, Casella and McCulloch 1992, section 4.8).
    """
    import numpy as np
    from scipy.stats import t

    cells = sum(weight * scores for weight, scores in zip(world.weights, arms, strict=True))
    n_seeds, n_items = cells.shape
    of_seeds = n_items * ((cells.mean(1) - cells.mean()) ** 2).sum()
    of_items = n_seeds * ((cells.mean(0) - cells.mean()) ** 2).sum()
    left = ((cells - cells.mean()) ** 2).sum() - of_seeds - of_items
    pooled, free = left, (n_seeds - 1) * (n_items - 1)
    kept = []
    for squares, df in sorted(
        [(of_seeds, n_seeds - 1), (of_items, n_items - 1)], key=lambda pair: pair[0] / pair[1]
    ):
        if squares / df <= pooled / free:
            pooled, free = pooled + squares, free + df
        else:
            kept.append((squares / df, df))
    # With both kept the variance is MS_seeds + MS_items - MS_residual, with one that one.
    used = [*kept, (pooled / free, free)] if len(kept) != 1 else kept
    variance = sum(square for square, _ in used) - (2 * pooled / free if len(kept) == 2 else 0)
    df = variance**2 / sum(square**2 / free for square, free in used)
    half_width = t.ppf(0.975, df) * (variance / cells.size) ** 0.5
    return float(np.mean(cells) - half_width), float(np.mean(cells) + half_width)


def by_bootstrap(world: World, arms: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the interval by which the first study judged.

    Its standard error is that of the pigeonhole bootstrap (Owen 2007): items are resampled jointly,
    and so are the seeds of arms that have as many. Student's t has Satterthwaite's degrees of
    freedom for the variance between seeds.
    """
    import numpy as np
    from scipy.stats import t

    counts = list(dict.fromkeys(len(scores) for scores in arms))
    item_weights, *shares = stats.bootstrap(arms[0].shape[1], *counts)
    drawn = dict(zip(counts, map(stats.seed_weights, shares), strict=True))
    estimate, draws, of_items = 0.0, 0.0, 0.0
    for weight, scores in zip(world.weights, arms, strict=True):
        estimate += weight * scores.mean()
        draws += weight * ((drawn[len(scores)] @ scores) * item_weights).sum(1)
        of_items += weight * (item_weights @ scores.mean(0))
    variance = np.var(draws)
    of_seeds = max(0.0, variance - np.var(of_items))
    df = (min(counts) - 1) * (variance / of_seeds) ** 2 if of_seeds else np.inf
    half_width = t.ppf(0.975, df) * variance**0.5
    return float(estimate - half_width), float(estimate + half_width)


def _student(values: np.ndarray) -> tuple[float, float]:
    from scipy.stats import t

    half_width = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half_width), float(values.mean() + half_width)


JUDGES = {
    "items alone": (by_items_alone, 1000),
    "seeds alone": (by_seeds_alone, 1000),
    "bootstrap of both (first study)": (by_bootstrap, 200),
    "REML, paired": (by_reml, 1000),
    "two-way ANOVA, paired": (by_paired_anova, 1000),
    "two-way ANOVA": (by_anova, 1000),
}
"""Estimator -> its function and the number of studies that it is tried on."""


# ---------------------------------------------------------------- what is measured


def estimators() -> list[dict[str, Any]]:
    """Return coverage and width of each estimator at each size."""
    return [
        {"estimator": name, "seeds": seeds, "items": items}
        | coverage(replace(BASIS, seeds=(seeds, seeds), items=items), judge, repetitions)
        for name, (judge, repetitions) in JUDGES.items()
        for seeds, items in SIZES
    ]


def other_worlds(repetitions: int = 1000) -> list[dict[str, Any]]:
    """Return coverage and width of the chosen estimator in other worlds, 5 seeds x 300 items."""
    rows = []
    for what, changes in OTHERS.items():
        judge = by_paired_anova if "shared" in changes else by_anova
        rows.append({"world": what} | coverage(replace(BASIS, **changes), judge, repetitions))
    return rows


def staged_verdicts(world: World, margin: float, region: float, repetitions: int) -> list[str]:
    """Return the verdict of the whole staged rule on each of some simulated studies.

    A study goes on to the next stage only while it is undecided.
    """
    given = []
    for arms in studies(world, repetitions, start=1):
        found, stages = UNDECIDED, ()
        for seeds in DESIGN.seeds:
            terms = [
                Term(w, scores[:seeds], block)
                for block, (w, scores) in enumerate(zip(world.weights, arms, strict=True))
            ]
            stages = (*stages, estimate(terms, world.strata))
            effect = Primary("effect", stages, margin, region)
            if (found := levels([effect]).verdict(0.05)) != UNDECIDED:
                break
        given.append(found)
    return given


def staged(repetitions: int = 600) -> list[dict[str, Any]]:
    """Return how often the staged rule gives a wrong verdict where the truth is at its limits."""
    at_margin = World(effect=0.0, seeds=(20, 20), items=300)
    cases = {
        "no effect, margin 0": (at_margin, 0.0, 1e-9, {UNDECIDED}),
        "no effect, seeds do not matter": (replace(at_margin, seed=0.0), 0.0, 1e-9, {UNDECIDED}),
        "no effect, seeds matter twice as much": (
            replace(at_margin, seed=0.5),
            0.0,
            1e-9,
            {UNDECIDED},
        ),
        "effect at the end of the region": (
            replace(at_margin, effect=0.1, items=600),
            -1.0,
            0.1,
            {UNDECIDED, "supported"},
        ),
    }
    rows = []
    for what, (world, margin, region, right) in cases.items():
        given = staged_verdicts(world, margin, region, repetitions)
        wrong = sum(one not in right for one in given) / repetitions
        rows.append(
            {"case": what, "wrong": wrong, "error": (wrong * (1 - wrong) / repetitions) ** 0.5}
        )
    return rows


def planned() -> dict[str, Any]:
    """Return the parts of contrasts of two arms of `tiny-full`, and what stages will find."""
    from hybridlib.claims import Evidence, power
    from hybridlib.profiles import PROFILES

    evidence = Evidence(PROFILES["tiny-full"])
    whole: dict[str, Any] = {"dated": datetime.now(UTC).date().isoformat()}
    for metric in ("greedy", "sampled"):
        found = power.of_two_arms(evidence, metric)
        plan = pooled([*found.values()])
        fullest = plan.parts(DESIGN.seeds[-1], ITEMS).total
        whole[metric] = {
            "contrasts": len(found),
            "typical": asdict(plan),
            "information": [fullest / plan.parts(n, ITEMS).total for n in DESIGN.seeds],
            "rows": power_table(plan, ITEMS, REGION),
            "smallest": smallest_found(plan, ITEMS),
            "smallest_if_seeds_differ": smallest_found(replace(plan, seed=3 * plan.seed), ITEMS),
            "smallest_of_many": smallest_found(plan, ITEMS, level=LEVEL / CLAIMS),
        }
    return whole


# ---------------------------------------------------------------- pictures and page


def coverage_figure(found: Sequence[dict[str, Any]]) -> Figure:
    """Return a figure of coverage and width by estimator and size."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(JUDGES)
    colours = ["#56B4E9", "#E69F00", "#0072B2", "#D55E00", "#009E73"]
    for index, (size, colour) in enumerate(zip(SIZES, colours, strict=True)):
        mine = [r for r in found if (r["seeds"], r["items"]) == size]
        heights = np.arange(len(mine)) + (index - 2) * 0.13
        covered = [100 * r["covered"] for r in mine]
        errors = [196 * r["error"] for r in mine]
        label = f"{size[0]} x {size[1]}"
        left.errorbar(covered, heights, xerr=errors, fmt="o", ms=4, color=colour, label=label)
        right.plot([100 * r["width"] for r in mine], heights, "o", ms=4, color=colour)
    left.axvspan(93, 97, color="black", alpha=0.08, lw=0)
    left.axvline(95, color="black", lw=1)
    left.set(xlabel="coverage (%), 95 wanted", yticks=range(len(names)), yticklabels=names)
    right.set(xlabel="mean width (points)", xscale="log", xticks=[5, 10, 20, 50, 100])
    right.xaxis.set_major_formatter("{x:g}")
    right.minorticks_off()
    figure.legend(
        *left.get_legend_handles_labels(),
        title="seeds x items",
        frameon=False,
        loc="outside lower center",
        ncols=5,
    )
    return figure


def boundary_figure(plan: Plan) -> Figure:
    """Return a figure of the boundary, and of three studies that meet it."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.add_subplot()
    seeds, critical = np.array(DESIGN.seeds), np.array(DESIGN.critical())
    for side in (1, -1):
        axis.plot(seeds, side * critical, "s-", color="black", label="boundary" * (side > 0))
        axis.axhline(
            side * 1.96,
            color="#999999",
            ls="--",
            lw=1,
            label="1.96: one look, no boundary" * (side > 0),
        )
    rng = np.random.default_rng(6)
    by_seed = (plan.seed**2 + plan.residual**2 / ITEMS) ** 0.5
    for effect, colour in ((0.0, "#0072B2"), (0.015, "#E69F00"), (0.03, "#D55E00")):
        item = rng.normal(0, plan.item_by_arm / ITEMS**0.5)
        values = effect + item + rng.normal(0, by_seed, seeds[-1]).cumsum() / range(1, 21)
        ses = [plan.parts(count, ITEMS).total ** 0.5 for count in range(2, 21)]
        axis.plot(
            range(2, 21),
            values[1:] / ses,
            color=colour,
            lw=1.2,
            label=f"a study, truth {100 * effect:g} points",
        )
    axis.fill_between(seeds, critical, 8, color="#009E73", alpha=0.1, lw=0)
    axis.fill_between(seeds, -critical, -8, color="#D55E00", alpha=0.1, lw=0)
    axis.text(19.8, 6.9, "supported", ha="right"), axis.text(19.8, -7.4, "refuted", ha="right")
    axis.set(
        xlabel="seeds",
        ylabel="(effect - margin) / standard error",
        ylim=(-8, 8),
        xticks=[2, *DESIGN.seeds],
    )
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def write(record: dict[str, Any]) -> None:
    """Write the page and its pictures from what was measured."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "intervals"
    plan = Plan(**record["planned"]["greedy"]["typical"])
    pictures = {
        "coverage": coverage_figure(record["estimators"]),
        "boundary": boundary_figure(plan),
    }
    for name, figure in pictures.items():
        figure.savefig(IMAGES / f"intervals-{name}.svg", metadata={"Date": None})
    files.write(PAGE, text(record))
    print(f"written: {PAGE.relative_to(ROOT)}")


def text(record: dict[str, Any]) -> str:
    """Return the page in Markdown; every number comes from the record."""
    import pandas as pd

    plans = {}
    for metric in ("greedy", "sampled"):
        found = record["planned"][metric]
        plans[metric] = {
            "contrasts": found["contrasts"],
            "typical": {name: f"{100 * sd:.1f}" for name, sd in found["typical"].items()},
            "information": ", ".join(f"{share:.2f}" for share in found["information"]),
            "smallest": _points(found["smallest"]),
            "smallest_if_seeds_differ": _points(found["smallest_if_seeds_differ"]),
            "smallest_of_many": _points(found["smallest_of_many"]),
            "table": markdown.table(pd.DataFrame(_cells(found["rows"]))),
        }
    worlds = [
        {"world": r["world"], "covered": _share(r), "width": f"{100 * r['width']:.1f} points"}
        for r in record["other_worlds"]
    ]
    wrong = [
        {"case": r["case"], "wrong verdicts": f"{100 * r['wrong']:.1f} % ± {196 * r['error']:.1f}"}
        for r in record["staged"]
    ]
    at = {r["estimator"]: r for r in record["estimators"] if (r["seeds"], r["items"]) == (5, 300)}
    return markdown.render(
        "benchmarks",
        "intervals.md.j2",
        dated=record["planned"]["dated"],
        critical=DESIGN.critical(),
        seeds=DESIGN.seeds,
        spent_at=", ".join(f"{share:.2f}" for share in DESIGN.fractions),
        items=ITEMS,
        claims=CLAIMS,
        region=100 * REGION,
        plans=plans,
        before=at["bootstrap of both (first study)"],
        paired=at["two-way ANOVA, paired"],
        chosen=at["two-way ANOVA"],
        worlds=markdown.table(pd.DataFrame(worlds)),
        wrong=markdown.table(pd.DataFrame(wrong)),
    )


def _points(effects: Sequence[float]) -> str:
    return ", ".join(f"{100 * effect:.1f}" for effect in effects)


def _share(row: dict[str, Any]) -> str:
    return f"{100 * row['covered']:.1f} % ± {196 * row['error']:.1f}"


def _cells(found: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the rows of the power table as text."""
    cells = []
    for row in found:
        needed = row["needed"]
        cell = {"true effect, points": f"{100 * row['effect']:g}"}
        for stage, seeds in enumerate(DESIGN.seeds):
            shares = [row["supported"][stage], row[SAME][stage]]
            cell[f"{seeds} seeds"] = " / ".join(f"{100 * share:.0f}" for share in shares)
        cell["refuted at the end"] = f"{100 * row['refuted'][-1]:.0f}"
        cell["seeds, one look"] = "" if needed is None else f"{needed:g}"
        cells.append(cell)
    return cells


def main(arguments: Sequence[str]) -> None:
    """Measure what is asked for (all, or `--page`: nothing), keep it, write the page."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    parts = {
        "planned": planned,
        "staged": staged,
        "other_worlds": other_worlds,
        "estimators": estimators,
    }
    names = [name for name in arguments if name in parts] or list(parts)
    for name in names if "--page" not in arguments else []:
        record[name] = parts[name]()
        files.write(RECORD, json.dumps(record, indent=1) + "\n")
        print(f"measured: {name}", flush=True)
    write(record)


if __name__ == "__main__":
    main(sys.argv[1:])
