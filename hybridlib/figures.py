"""What does the table look like? Each function turns a tidy frame into one matplotlib figure.

Summaries come from `stats.summarise`: value, low, high per row. `over`, `hue` and `panel` name the
columns that become the horizontal axis, the colour and the panels; `label` is what an arm is
called. Figures are closed before they are returned: a notebook shows each once, as the value of its
cell.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hybridlib.labels import heading
from hybridlib.proportions import wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe (Wong 2011, doi:10.1038/nmeth.1618); a method looks the same everywhere.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
STYLE_OF_METHOD = {"sft": 0, "grpo": 1, "merge": 2, "base": 6}


def accuracy(summary: pd.DataFrame, over: str, hue: str, panel: str = "family") -> Figure:
    """Draw points with 95 % intervals, one panel per `panel`: which arm is best where?

    Rows with method "base" become a horizontal band over the whole panel: what was there before.
    """
    is_base = summary["method"].eq("base") if "method" in summary else summary.index < 0
    arms, base = summary[~is_base], summary[is_base]
    positions = {value: position for position, value in enumerate(_ordered(arms[over]))}
    titles = _ordered(summary[panel])
    figure, axes = _panels(len(titles))
    for axis, title in zip(axes, titles, strict=True):
        _base_band(axis, base[base[panel] == title])
        groups = _groups(arms, hue)
        for index, (label, style, group) in enumerate(groups):
            group = group[group[panel] == title]
            shift = (index - (len(groups) - 1) / 2) * 0.5 / len(groups)
            _points(axis, group[over].map(positions) + shift, group, label, style, line="")
        axis.set(title=title, xlabel=heading(over), xlim=(-0.5, len(positions) - 0.5))
        wide = sum(len(str(value)) for value in positions) > 24
        axis.set_xticks(
            list(positions.values()),
            [str(value) for value in positions],
            rotation=30 if wide else 0,
            ha="right" if wide else "center",
        )
    return _finish(figure, axes, "accuracy (%)", hue)


def ladder(
    summary: pd.DataFrame,
    hue: str = "method",
    over: str = "level",
    ylabel: str = "accuracy (%)",
) -> Figure:
    """Draw accuracy by level, a panel per family: up to which difficulty is it right?"""
    return _lines(summary, over, hue, ylabel)


def scaling(summary: pd.DataFrame, hue: str = "method", over: str = "n_train") -> Figure:
    """Draw accuracy over the number of rows on a log axis: what do more rows buy?

    Rows whose `over` is 0 are the base, and become a band.
    """
    figure = _lines(summary[summary[over] > 0], over, hue, "accuracy (%)")
    for axis in figure.axes:
        _base_band(axis, summary[(summary[over] == 0) & (summary["family"] == axis.get_title())])
        if over == "n_train":
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(lambda rows, _: f"{rows:,.0f}")
        else:
            _decimal_log_axis(axis)
    return figure


def ranking(summary: pd.DataFrame, panel: str = "split") -> Figure:
    """Draw a line per `label`, best first in the first panel: who is ahead by more than chance?"""
    titles = _ordered(summary[panel])
    first = summary[summary[panel] == titles[0]].sort_values("value", kind="stable")
    positions = {label: position for position, label in enumerate(first["label"])}
    margin = 0.075 * max(map(len, positions)) / len(titles)  # room for the names of the arms
    figure, axes = _panels(len(titles), width=1.9 + margin, height=0.9 + 0.24 * len(positions))
    for axis, title in zip(axes, titles, strict=True):
        shown = summary[summary[panel] == title]
        _base_band(axis, shown[shown["method"] == "base"], across=True)
        for label, style, group in _groups(shown, "method"):
            heights = group["label"].map(positions)
            _points(axis, heights, group, label, style, line="", across=True)
        axis.set(title=title, xlabel="accuracy (%)", ylim=(-0.6, len(positions) - 0.4))
        axis.set_yticks([*positions.values()], [*positions])
    return _finish(figure, axes, "", "method", percent=False)


def gains(table: pd.DataFrame, panel: str = "base") -> Figure:
    """Draw gains over the base by its pass rate, a line per `label`: what helps which questions?

    Args:
        table: `label`, `bucket` (in order), `value`, `low`, `high`, and a column of panels.
    """
    positions = {bucket: place for place, bucket in enumerate(table["bucket"].unique())}
    titles = _ordered(table[panel])
    figure, axes = _panels(len(titles), width=3.6 if len(titles) > 1 else 6.0, height=3.4)
    for axis, title in zip(axes, titles, strict=True):
        axis.axhline(0, color="black", lw=1, zorder=1)
        groups = _groups(table, "label")
        for index, (label, style, group) in enumerate(groups):
            group = group[group[panel] == title]
            shift = (index - (len(groups) - 1) / 2) * 0.12
            _points(axis, group["bucket"].map(positions) + shift, group, label, style, line="-")
        axis.set(title=title, xlabel=heading("bucket"))
        axis.set_xticks([*positions.values()], [*positions])
    return _finish(figure, axes, "gain over the base (points)", "", percent=False)


def differences(gaps: pd.DataFrame, xlabel: str = "difference in accuracy (points)") -> Figure:
    """Draw differences (`value`, low, high, `label`), top down, around the line of none."""
    figure, axes = _panels(1, width=5.2, height=0.9 + 0.32 * len(gaps))
    axes[0].axvline(0, color="black", lw=1, zorder=1)
    style = {"color": COLOURS[0], "marker": MARKERS[0]}
    _points(axes[0], range(len(gaps)), gaps, "", style, line="", across=True)
    axes[0].set(
        xlabel=xlabel,
        ylim=(len(gaps) - 0.4, -0.6),
        yticks=range(len(gaps)),
        yticklabels=list(gaps["label"]),
    )
    axes[0].spines[["top", "right"]].set_visible(False)
    return figure


def distance(arms: pd.DataFrame, ylabel: str) -> Figure:
    """Draw what moving away from the base costs: a point per arm, with its interval both ways.

    `arms`: x, x_low, x_high (KL to the base, nats per answer; log axis), value, low, high, method.
    """
    figure, axes = _panels(1, width=5.5)
    for label, style, group in _groups(arms, "method"):
        x, value = group["x"], group["value"]
        # A log axis has no 0.
        xerr = [(x - group["x_low"]).clip(upper=0.999 * x), group["x_high"] - x]
        yerr = [value - group["low"], group["high"] - value]
        bars = {"xerr": xerr, "yerr": yerr, "elinewidth": 1.2, "capsize": 2.5}
        axes[0].errorbar(x, value, label=label, linestyle="", **bars, **style)
    axes[0].axhline(0, color="black", lw=1, zorder=1)
    _decimal_log_axis(axes[0])
    axes[0].set(xlabel=heading("kl"), xlim=(arms["x"].min() / 2, None))  # bars may go on, to 0
    return _finish(figure, axes, ylabel, "method", percent=False)


def frontier(table: pd.DataFrame, cost: str = "train_seconds", hue: str = "method") -> Figure:
    """Draw which accuracy is to be had at which cost: a point per row; the line joins the best.

    A point is on the frontier if nothing at its cost or below is as accurate. `table` holds one
    metric and split of `results.table`, or a summary with a cost column joined to it.
    """
    families = _ordered(table["family"])
    figure, axes = _panels(len(families))
    for axis, family in zip(axes, families, strict=True):
        shown = table[table["family"] == family].sort_values([cost, "value"])
        for label, style, group in _groups(table, hue):
            group = group[group["family"] == family]
            _points(axis, group[cost], group, label, style, line="")
        best = shown[shown["value"] > shown["value"].cummax().shift(fill_value=-1)]
        # Drawn on to the right: paying more never takes an accuracy away.
        heights = 100 * best["value"]
        axis.step(
            [*best[cost], table[cost].max()],
            [*heights, heights.max()],
            where="post",
            color="black",
            lw=1,
            zorder=1,
            label="frontier",
        )
        axis.set(title=family, xlabel=heading(cost))
    return _finish(figure, axes, "accuracy (%)", hue)


def curves(records: Iterable[dict], metric: str) -> Figure:
    """Draw `metric` of the stored curves by step: mean and range over seeds.

    Runs that differ in nothing but the seed form one line, named by what tells the lines apart.

    Args:
        records: each with `run` (fields) and `curve` (dicts of step and metrics), as stored or as
            `chapter.OpenedGrids.curves` names them.
    """
    import pandas as pd

    frames = []
    for record in records:
        run = {field: str(value) for field, value in record["run"].items() if field != "seed"}
        frame = pd.DataFrame(record["curve"]).reindex(columns=["step", metric])
        frames.append(frame.astype(float).dropna().assign(**run))
    frame = pd.concat(frames, ignore_index=True)
    fields = [field for field in frame.columns[2:] if frame[field].nunique() > 1] or ["method"]
    frame["line"] = frame[fields].agg(", ".join, axis=1)
    figure, axes = _panels(1, width=5.5)
    for label, style, group in _groups(frame, "line"):
        steps = group.groupby("step")[metric].agg(["mean", "min", "max"])
        colour = style["color"]
        axes[0].plot(steps.index, steps["mean"], color=colour, lw=1.5, label=label)
        axes[0].fill_between(steps.index, steps["min"], steps["max"], color=colour, alpha=0.2, lw=0)
    axes[0].set_xlabel(heading("step"))
    return _finish(figure, axes, heading(metric), ", ".join(fields), percent=False)


def compute(points: pd.DataFrame, costs: Sequence[str], bases: pd.DataFrame) -> Figure:
    """Draw accuracy along trainings over what they had cost, a panel per kind of cost.

    Lines are means over seeds, bands the range over seeds.

    Args:
        points: one row per seed and point: label, method, seed, step, value (0 to 1) and `costs`.
        bases: what is there without training: label and value, a dashed line each.
    """
    figure, axes = _panels(len(costs), height=3.4, sharex=False)
    for axis, cost in zip(axes, costs, strict=True):
        for label, style, group in _groups(points, "label"):
            steps = group.groupby("step")
            across, height = steps[cost].mean(), 100 * steps["value"].mean()
            ends = 100 * steps["value"].agg(["min", "max"])
            colour, marker = style["color"], style["marker"]
            axis.plot(across, height, color=colour, marker=marker, ms=4, lw=1.5, label=label)
            axis.fill_between(across, ends["min"], ends["max"], color=colour, alpha=0.15, lw=0)
        dashes = ("--", ":", "-.", (0, (1, 3)), (0, (5, 5)))
        for line, base in zip(itertools.cycle(dashes), bases.to_dict("records"), strict=False):
            axis.axhline(100 * base["value"], color="black", lw=1, ls=line, label=base["label"])
        axis.set(xlabel=heading(cost), xscale="log")
    return _finish(figure, axes, "accuracy (%)", "")


def histogram(rates: pd.DataFrame, value: str = "passrate", hue: str = "family") -> Figure:
    """Draw the share of rows per pass rate of the base, with Wilson intervals.

    `rates`: one row per training row, with `value` in 0..1 and `hue`.
    """
    import pandas as pd

    bins = sorted(rates[value].unique())
    figure, axes = _panels(1, width=5.5)
    for label, style, group in _groups(rates, hue):
        counts = group[value].value_counts().reindex(bins, fill_value=0)
        bounds = [wilson(count, len(group)) for count in counts]
        shares = pd.DataFrame(bounds, columns=["low", "high"]).assign(
            value=counts.to_numpy() / len(group)
        )
        _points(axes[0], [100 * rate for rate in bins], shares, label, style, line="-")
    axes[0].set_xlabel(heading(value))
    return _finish(figure, axes, "share of rows (%)", hue)


# ---------------------------------------------------------------- what figures share


def _lines(summary: pd.DataFrame, over: str, hue: str, ylabel: str) -> Figure:
    """Draw a panel per family with a line per `hue`."""
    families, groups = _ordered(summary["family"]), _groups(summary, hue)
    figure, axes = _panels(len(families))
    for axis, family in zip(axes, families, strict=True):
        for index, (label, style, group) in enumerate(groups):
            group = group[group["family"] == family].sort_values(over)
            # Side by side, so that intervals stay readable; on a log axis the shift would distort.
            shift = 0.09 * (index - (len(groups) - 1) / 2) if over == "level" else 0
            _points(axis, group[over] + shift, group, label, style, line="-")
        axis.set(title=family, xlabel=heading(over))
        if over == "level":
            axis.set_xticks(_ordered(summary[over]))
    return _finish(figure, axes, ylabel, hue)


def _base_band(axis: Axes, rows: pd.DataFrame, across: bool = False) -> None:
    """Draw the base behind the arms, as a line with its interval."""
    line, span = (axis.axvline, axis.axvspan) if across else (axis.axhline, axis.axhspan)
    for row in rows.to_dict("records"):
        span(100 * row["low"], 100 * row["high"], color=COLOURS[6], alpha=0.25, lw=0)
        line(100 * row["value"], color=COLOURS[6], lw=1, label="base")


def _decimal_log_axis(axis: Axes) -> None:
    """Make x logarithmic with ticks at 1, 2 and 5, without a power of ten in sight."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.xaxis.set_major_formatter(lambda position, _: f"{position:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", rotation=45)


def _points(
    axis: Axes,
    positions: Sequence[float],
    rows: pd.DataFrame,
    label: str,
    style: dict[str, Any],
    line: str,
    across: bool = False,
) -> None:
    """Draw values with their intervals, in percent; `across`: along the x axis."""
    value = 100 * rows["value"].to_numpy(float)
    low, high = (100 * rows[end].to_numpy(float) for end in ("low", "high"))
    # An interval need not hold its estimate when seeds are few; a bar cannot have a negative arm.
    half_widths = [(value - low).clip(0), (high - value).clip(0)]
    if across:
        points = {"x": value, "y": positions, "xerr": half_widths}
    else:
        points = {"x": positions, "y": value, "yerr": half_widths}
    look = {"lw": 1.5, "elinewidth": 1.2, "capsize": 2.5, "markersize": 5.5}
    axis.errorbar(**points, label=label, linestyle=line, **look, **style)


def _groups(frame: pd.DataFrame, hue: str) -> list[tuple[str, dict[str, Any], pd.DataFrame]]:
    """Return (label, colour and marker, rows) per value of `hue`.

    The shortest name that holds a method of STYLE_OF_METHOD gets its style, in every figure; the
    others share the styles that are left.
    """
    values = _ordered(frame[hue])
    methods = {value: _method_in(value) for value in values}
    shortest = {methods[v]: v for v in sorted(values, key=lambda value: -len(str(value)))}
    free = [i for i in range(len(COLOURS)) if i not in {STYLE_OF_METHOD.get(m) for m in shortest}]
    groups = []
    for position, value in enumerate(values):
        method = methods[value]
        if method in STYLE_OF_METHOD and shortest[method] == value:
            index = STYLE_OF_METHOD[method]
        else:
            index = free[position % len(free)]
        style = {"color": COLOURS[index], "marker": MARKERS[index]}
        groups.append((str(value), style, frame[frame[hue] == value]))
    return groups


def _method_in(value: Any) -> str:
    """Return the first method that a name mentions, "" without one."""
    words = re.findall("[a-z]+", str(value).lower())
    return next((word for word in words if word in STYLE_OF_METHOD), "")


def _ordered(values: pd.Series) -> list:
    """Return distinct values: numbers ascending, names as they come."""
    distinct = list(values.unique())
    return sorted(distinct) if values.dtype.kind in "iuf" else distinct


def _panels(
    count: int, width: float = 2.5, height: float = 3.0, sharex: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a closed figure with `count` panels side by side; sizes in inches."""
    import matplotlib.pyplot as plt
    import seaborn

    with seaborn.axes_style("whitegrid"), seaborn.plotting_context("notebook", font_scale=0.85):
        figure, axes = plt.subplots(
            1,
            count,
            figsize=(width * count + 1.2, height),
            sharex=sharex,
            sharey=True,
            squeeze=False,
            layout="constrained",
            dpi=144,
        )
    plt.close(figure)
    return figure, list(axes[0])


def _finish(
    figure: Figure, axes: list[Axes], ylabel: str, legend: str, percent: bool = True
) -> Figure:
    """Set the y label, its limits and one legend for all panels, to the right of them."""
    axes[0].set_ylabel(ylabel)
    if percent:
        axes[0].set_ylim(bottom=0)
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, texts = axis.get_legend_handles_labels()
        entries = dict(zip(texts, handles, strict=True)) | entries
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside right upper",
        title=heading(legend),
        frameon=False,
    )
    return figure
