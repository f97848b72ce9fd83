"""What does the table look like? Each function turns a tidy frame into one matplotlib figure.

Summaries come from `stats.summarise`: value, low, high per row. Figures are closed before they are
returned: a notebook shows each once, as the value of its cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hybridlib.labels import name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe (Wong 2011, doi:10.1038/nmeth.1618); a method looks the same everywhere.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
STYLE_OF_METHOD = {"sft": 0, "grpo": 1, "merge": 2, "base": 6}


def accuracy(summary: pd.DataFrame, x: str, hue: str, col: str = "family") -> Figure:
    """Which arm is best where? Points with 95 % intervals, one panel per `col`.

    Rows with method "base" become a horizontal band over the whole panel: what was there before.
    """
    is_base = summary["method"].eq("base") if "method" in summary else summary.index < 0
    arms, base = summary[~is_base], summary[is_base]
    places = {value: place for place, value in enumerate(_ordered(arms[x]))}
    panels = _ordered(summary[col])
    figure, axes = _panels(len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        _band(axis, base[base[col] == panel])
        groups = _groups(arms, hue)
        for index, (label, style, group) in enumerate(groups):
            group = group[group[col] == panel]
            spread = (index - (len(groups) - 1) / 2) * 0.5 / len(groups)
            _points(axis, group[x].map(places) + spread, group, label, style, line="")
        axis.set(title=panel, xlabel=name(x), xlim=(-0.5, len(places) - 0.5))
        wide = sum(len(str(place)) for place in places) > 24
        axis.set_xticks(list(places.values()), [str(place) for place in places],
                        rotation=30 if wide else 0, ha="right" if wide else "center")  # fmt: skip
    return _finish(figure, axes, "accuracy (%)", hue)


def ladder(
    summary: pd.DataFrame, hue: str = "method", x: str = "level", y: str = "accuracy (%)"
) -> Figure:
    """Up to which difficulty is it right? Accuracy by level (or other `x`), a panel per family."""
    return _lines(summary, x, hue, y)


def scaling(summary: pd.DataFrame, hue: str = "method", x: str = "n_train") -> Figure:
    """What do more rows (or another `x`) buy? Accuracy over x; rows whose x is 0 are the base."""
    figure = _lines(summary[summary[x] > 0], x, hue)
    for axis in figure.axes:
        _band(axis, summary[(summary[x] == 0) & (summary["family"] == axis.get_title())])
        if x == "n_train":
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(lambda rows, _: f"{rows:,.0f}")
        else:
            _log(axis)
    return figure


def ranking(summary: pd.DataFrame, col: str = "split") -> Figure:
    """Who is ahead, and by more than chance? A line per arm, best first in the first `col`."""
    panels = _ordered(summary[col])
    first = summary[summary[col] == panels[0]].sort_values("value", kind="stable")
    places = {arm: place for place, arm in enumerate(first["arm"])}
    beside = 0.075 * max(map(len, places)) / len(panels)  # room for the names of the arms
    figure, axes = _panels(len(panels), width=1.9 + beside, height=0.9 + 0.24 * len(places))
    for axis, panel in zip(axes, panels, strict=True):
        shown = summary[summary[col] == panel]
        _band(axis, shown[shown["method"] == "base"], across=True)
        for label, style, group in _groups(shown, "method"):
            _points(axis, group["arm"].map(places), group, label, style, line="", across=True)
        axis.set(title=panel, xlabel="accuracy (%)", ylim=(-0.6, len(places) - 0.4))
        axis.set_yticks([*places.values()], [*places])
    return _finish(figure, axes, "", "method", percent=False)


def differences(gaps: pd.DataFrame, what: str = "difference in accuracy (points)") -> Figure:
    """Which arms differ? Paired differences (`value`, low, high, `arm`) around the line of none."""
    figure, axes = _panels(1, width=5.2, height=0.9 + 0.32 * len(gaps))
    axes[0].axvline(0, color="black", lw=1, zorder=1)
    style = {"color": COLOURS[0], "marker": MARKERS[0]}
    _points(axes[0], range(len(gaps)), gaps, "", style, line="", across=True)
    axes[0].set(xlabel=what, ylim=(len(gaps) - 0.4, -0.6), yticks=range(len(gaps)),
                yticklabels=list(gaps["arm"]))  # fmt: skip
    axes[0].spines[["top", "right"]].set_visible(False)
    return figure


def distance(arms: pd.DataFrame, y: str) -> Figure:
    """What does moving away from the base cost? One point per arm, with its interval both ways.

    `arms`: x, x_low, x_high (KL to the base, nats per answer; log axis), value, low, high, method.
    """
    figure, axes = _panels(1, width=5.5)
    for label, style, group in _groups(arms, "method"):
        x, x_low, x_high, value, low, high = (
            group[name] for name in ("x", "x_low", "x_high", "value", "low", "high")
        )
        reach = {"xerr": [(x - x_low).clip(upper=0.999 * x), x_high - x],  # a log axis has no 0
                 "yerr": [value - low, high - value]}  # fmt: skip
        axes[0].errorbar(x, value, **reach, label=label, linestyle="", elinewidth=1.2,
                         capsize=2.5, **style)  # fmt: skip
    axes[0].axhline(0, color="black", lw=1, zorder=1)
    _log(axes[0])
    axes[0].set(xlabel=name("kl"), xlim=(arms["x"].min() / 2, None))  # bars may go on, to 0
    return _finish(figure, axes, y, "method", percent=False)


def frontier(table: pd.DataFrame, cost: str = "train_seconds", hue: str = "method") -> Figure:
    """Which accuracy is to be had at which cost? One point per row; the line joins the best.

    A point is on the frontier if nothing at its cost or below is as accurate. `table` holds one
    metric and split of `results.table`, or a summary with a cost column joined to it.
    """
    panels = _ordered(table["family"])
    figure, axes = _panels(len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        shown = table[table["family"] == panel].sort_values([cost, "value"])
        for label, style, group in _groups(table, hue):
            group = group[group["family"] == panel]
            _points(axis, group[cost], group, label, style, line="")
        best = shown[shown["value"] > shown["value"].cummax().shift(fill_value=-1)]
        # Drawn on to the right: paying more never takes an accuracy away.
        heights = 100 * best["value"]
        axis.step([*best[cost], table[cost].max()], [*heights, heights.max()],
                  where="post", color="black", lw=1, zorder=1, label="frontier")  # fmt: skip
        axis.set(title=panel, xlabel=name(cost))
    return _finish(figure, axes, "accuracy (%)", hue)


def curves(records: Iterable[dict], metric: str) -> Figure:
    """How did training go? `metric` of the stored curves by step: mean and range over seeds.

    Runs that differ in nothing but the seed form one line, named by what tells the lines apart.
    """
    import pandas as pd

    frames = []
    for record in records:
        run = {field: str(value) for field, value in record["run"].items() if field != "seed"}
        frame = pd.DataFrame(record["curve"]).reindex(columns=["step", metric])
        frames.append(frame.astype(float).dropna().assign(**run))
    frame = pd.concat(frames, ignore_index=True)
    fields = [field for field in frame.columns[2:] if frame[field].nunique() > 1] or ["method"]
    frame["arm"] = frame[fields].agg(", ".join, axis=1)
    figure, axes = _panels(1, width=5.5)
    for label, style, group in _groups(frame, "arm"):
        steps = group.groupby("step")[metric].agg(["mean", "min", "max"])
        axes[0].plot(steps.index, steps["mean"], color=style["color"], lw=1.5, label=label)
        axes[0].fill_between(steps.index, steps["min"], steps["max"], color=style["color"],
                             alpha=0.2, lw=0)  # fmt: skip
    axes[0].set_xlabel(name("step"))
    return _finish(figure, axes, name(metric), ", ".join(fields), percent=False)


def histogram(rates: pd.DataFrame, value: str = "passrate", hue: str = "family") -> Figure:
    """How hard are the rows for the base? Share of rows per pass rate, with Wilson intervals.

    `rates`: one row per training row, with `value` in 0..1 and `hue`.
    """
    import pandas as pd

    from hybridlib.proportions import wilson

    bins = sorted(rates[value].unique())
    figure, axes = _panels(1, width=5.5)
    for label, style, group in _groups(rates, hue):
        counts = group[value].value_counts().reindex(bins, fill_value=0)
        bounds = [wilson(count, len(group)) for count in counts]
        shares = pd.DataFrame(bounds, columns=["low", "high"]).assign(
            value=counts.to_numpy() / len(group)
        )
        _points(axes[0], [100 * rate for rate in bins], shares, label, style, line="-")
    axes[0].set_xlabel(name(value))
    return _finish(figure, axes, "share of rows (%)", hue)


def _lines(summary: pd.DataFrame, x: str, hue: str, y: str = "accuracy (%)") -> Figure:
    panels, groups = _ordered(summary["family"]), _groups(summary, hue)
    figure, axes = _panels(len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        for index, (label, style, group) in enumerate(groups):
            group = group[group["family"] == panel].sort_values(x)
            # Side by side, so that intervals stay readable; on a log axis the shift would distort.
            aside = 0.09 * (index - (len(groups) - 1) / 2) if x == "level" else 0
            _points(axis, group[x] + aside, group, label, style, line="-")
        axis.set(title=panel, xlabel=name(x))
        if x == "level":
            axis.set_xticks(_ordered(summary[x]))
    return _finish(figure, axes, y, hue)


def _band(axis: Axes, rows: pd.DataFrame, across: bool = False):
    """The base behind the arms, as a line with its interval."""
    line, span = (axis.axvline, axis.axvspan) if across else (axis.axhline, axis.axhspan)
    for row in rows.to_dict("records"):
        span(100 * row["low"], 100 * row["high"], color=COLOURS[6], alpha=0.25, lw=0)
        line(100 * row["value"], color=COLOURS[6], lw=1, label="base")


def _log(axis: Axes):
    """A logarithmic x axis with ticks at 1, 2 and 5, without a power of ten in sight."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.xaxis.set_major_formatter(lambda at, _: f"{at:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", rotation=45)


def _points(axis: Axes, x: Sequence[float], rows: pd.DataFrame, label: str, style: dict, line: str,
            across: bool = False):  # fmt: skip
    """Values with their intervals, in percent; `across`: along the x axis."""
    value = 100 * rows["value"].to_numpy(float)
    below, above = (100 * rows[end].to_numpy(float) for end in ("low", "high"))
    # An interval need not hold its estimate when seeds are few; a bar cannot have a negative arm.
    reach = [(value - below).clip(0), (above - value).clip(0)]
    places = {"x": value, "y": x, "xerr": reach} if across else {"x": x, "y": value, "yerr": reach}
    axis.errorbar(**places, label=label, linestyle=line, lw=1.5, elinewidth=1.2, capsize=2.5,
                  markersize=5.5, **style)  # fmt: skip


def _groups(frame: pd.DataFrame, hue: str) -> list[tuple[str, dict, pd.DataFrame]]:
    """(label, colour and marker, rows) per value of `hue`; methods look alike in every figure."""
    found, values = [], _ordered(frame[hue])
    words = {value: re.findall("[a-z]+", str(value).lower()) for value in values}
    method = {value: next((w for w in words[value] if w in STYLE_OF_METHOD), "") for value in values}
    owner = {method[v]: v for v in sorted(values, key=lambda value: -len(str(value)))}
    free = [i for i in range(len(COLOURS)) if i not in {STYLE_OF_METHOD.get(m) for m in owner}]
    for place, value in enumerate(values):
        own = method[value] in STYLE_OF_METHOD and owner[method[value]] == value  # the shortest name
        index = STYLE_OF_METHOD[method[value]] if own else free[place % len(free)]
        style = {"color": COLOURS[index], "marker": MARKERS[index]}
        found.append((str(value), style, frame[frame[hue] == value]))
    return found


def _ordered(values: pd.Series) -> list:
    """Distinct values: numbers ascending, names as they come."""
    distinct = list(values.unique())
    return sorted(distinct) if values.dtype.kind in "iuf" else distinct


def _panels(count: int, width: float = 2.5, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt
    import seaborn

    with seaborn.axes_style("whitegrid"), seaborn.plotting_context("notebook", font_scale=0.85):
        figure, axes = plt.subplots(
            1, count, figsize=(width * count + 1.2, height), sharex=True, sharey=True,
            squeeze=False, layout="constrained", dpi=144,
        )  # fmt: skip
    plt.close(figure)
    return figure, list(axes[0])


def _finish(figure: Figure, axes: list[Axes], y: str, legend: str, percent: bool = True) -> Figure:
    """Y label, limits and one legend for all panels, to the right of them."""
    axes[0].set_ylabel(y)
    if percent:
        axes[0].set_ylim(bottom=0)
    entries = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries = dict(zip(labels, handles, strict=True)) | entries
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(entries.values(), entries.keys(), loc="outside right upper",
                  title=name(legend), frameon=False)  # fmt: skip
    return figure
