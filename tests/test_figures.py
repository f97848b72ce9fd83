"""Every figure draws each row with its interval and says what its axes are."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")

from hybridlib import figures  # noqa: E402

FAMILIES = ["gsm8k", "math", "mbpp"]


@pytest.fixture
def summary():
    rows = []
    for family in FAMILIES:
        for method in ("base", "sft", "grpo"):
            for level in (1, 2, 3):
                value = 0.9 - 0.2 * level
                rows.append(
                    {
                        "family": family,
                        "method": method,
                        "level": level,
                        "n_train": 0 if method == "base" else 32 * 4**level,
                        "partition": "all" if level == 1 else "random",
                        "train_seconds": 10.0 * level,
                        "value": value,
                        "low": value - 0.1,
                        "high": value + 0.1,
                    }
                )
    return pd.DataFrame(rows)


def drawn(figure, path):
    """Bars of intervals per panel, after rendering (which is where bad input shows)."""
    figure.savefig(path / "figure.png")
    assert not matplotlib.pyplot.get_fignums(), "a notebook would show it twice"
    for axis in figure.axes:
        assert axis.get_xlabel()
    assert "(" in figure.axes[0].get_ylabel() or "reward" in figure.axes[0].get_ylabel()
    return [len(axis.containers) for axis in figure.axes]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_accuracy_puts_the_base_behind_the_arms(summary, tmp_path):
    picked = summary[(summary["method"] != "base") | (summary["level"] == 1)]
    figure = figures.accuracy(picked, "partition", "method")
    assert drawn(figure, tmp_path) == [2, 2, 2]
    assert legend(figure) == ["base", "sft", "grpo"]
    assert [axis.get_title() for axis in figure.axes] == FAMILIES
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["all", "random"]
    assert figure.axes[0].get_ylim()[0] == 0


def test_accuracy_works_without_methods(summary, tmp_path):
    figure = figures.accuracy(summary.drop(columns="method"), "level", "partition")
    assert drawn(figure, tmp_path) == [2, 2, 2]


def test_ladder_has_a_line_per_method_and_whole_levels(summary, tmp_path):
    figure = figures.ladder(summary)
    assert drawn(figure, tmp_path) == [3, 3, 3]
    assert list(figure.axes[0].get_xticks()) == [1, 2, 3]
    bars = figure.axes[0].containers[0]
    values = bars.lines[0].get_ydata()
    assert values == pytest.approx([70, 50, 30])
    segment = bars.lines[2][0].get_segments()[0]
    assert segment[:, 1] == pytest.approx([60, 80]), "the interval is drawn"


def test_scaling_doubles_per_tick_and_leaves_out_the_untrained(summary, tmp_path):
    figure = figures.scaling(summary)
    assert drawn(figure, tmp_path) == [2, 2, 2]
    assert figure.axes[0].get_xscale() == "log"
    assert "512" in [tick.get_text() for tick in figure.axes[0].get_xticklabels()]


def test_frontier_never_falls_with_cost(summary, tmp_path):
    summary["value"] += np.random.default_rng(0).uniform(-0.1, 0.1, len(summary))
    figure = figures.frontier(summary)
    drawn(figure, tmp_path)
    for axis in figure.axes:
        line = next(line for line in axis.lines if line.get_label() == "frontier")
        assert (np.diff(line.get_xdata()) >= 0).all() and (np.diff(line.get_ydata()) >= 0).all()
        assert line.get_ydata().max() == pytest.approx(
            100 * summary.loc[summary["family"] == axis.get_title(), "value"].max()
        )


def test_curves_join_seeds_and_tell_arms_apart_by_what_differs(tmp_path):
    records = [
        {
            "run": {"method": "grpo", "rank": rank, "seed": seed, "rewards": ["correct"]},
            "curve": [{"step": t, "reward": t / 10 + seed, "loss": None} for t in range(5)],
        }
        for rank in (1, 8)
        for seed in (0, 1)
    ]
    figure = figures.curves(records, "reward")
    drawn(figure, tmp_path)
    assert legend(figure) == ["1", "8"]
    assert figure.legends[0].get_title().get_text() == "LoRA rank"
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx(np.arange(5) / 10 + 0.5)


def test_histogram_shows_empty_bins_with_what_they_could_hold(tmp_path):
    rates = pd.DataFrame(
        {"family": ["gsm8k"] * 4 + ["math"] * 4, "passrate": [0, 0, 0, 1, 0.5, 0.5, 1, 1]}
    )
    figure = figures.histogram(rates)
    assert drawn(figure, tmp_path) == [2]
    bars = figure.axes[0].containers[0]
    assert bars.lines[0].get_ydata() == pytest.approx([75, 0, 25])
    low, high = bars.lines[2][0].get_segments()[1][:, 1]
    assert low == 0 and high > 40


def test_methods_look_the_same_in_every_figure(summary, tmp_path):
    picture = figures.ladder(summary), figures.scaling(summary)
    colours = [
        {bar.get_label(): bar.lines[0].get_color() for bar in figure.axes[0].containers}
        for figure in picture
    ]
    assert colours[0]["grpo"] == colours[1]["grpo"] != colours[0]["sft"] == colours[1]["sft"]


def test_distance_draws_an_interval_both_ways_and_never_below_zero(tmp_path):
    arms = pd.DataFrame(
        {
            "method": ["sft", "grpo"],
            "x": [2.0, 0.1],
            "x_low": [1.5, -0.1],
            "x_high": [3.0, 0.3],
            "value": [1.0, 0.0],
            "low": [0.5, -0.5],
            "high": [1.5, 0.5],
        }
    )
    figure = figures.distance(arms, "accuracy lost (points)")
    assert drawn(figure, tmp_path) == [2]
    assert sorted(legend(figure)) == ["grpo", "sft"]
    assert figure.axes[0].get_xscale() == "log" and figure.axes[0].get_xlim()[0] > 0


def test_other_scales_than_rows_are_decimal(summary, tmp_path):
    tried = summary.assign(learning_rate=summary["n_train"] / 1e6)
    figure = figures.scaling(tried, over="learning_rate")
    assert drawn(figure, tmp_path) == [2, 2, 2]
    assert figure.axes[0].get_xlabel() == "learning rate"
