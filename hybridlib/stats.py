"""How sure are we? Intervals and paired differences over seeds and items.

Everything here reads the long table of `results.items`: one row per run and item. Differences are
estimated by `crossed`, as those of the claims are. The crossed bootstrap of single arms is our own:
scipy resamples one axis, and statsmodels has no resampling of two.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError
from hybridlib.crossed import Term, blocks, estimate
from hybridlib.proportions import bootstrap_shares, pass_at_k, wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ITEM = ["family", "split", "item"]
"""The columns that name one evaluated item; its position is the same in every run of a profile."""
NOT_A_RUN_FIELD = {
    *ITEM,
    "id",
    "level",
    "greedy",
    "correct",
    "samples",
    "majority",
    "prerequisites",
    "seed",
    "value",
}

Selection = Mapping[str, Any]
"""Rows of an items table: field -> its value, or a list or a set of which any will do."""


# ---------------------------------------------------------------- from records to rows


def item_scores(items: pd.DataFrame, metric: str) -> np.ndarray:
    """Return the score of each item, in 0..1, under "greedy", "sampled", "majority" or "pass@k".

    Raises StudyError for another metric, or where there are fewer than k samples.
    """
    if metric in ("greedy", "majority"):
        return items[metric].to_numpy(float)
    if metric == "sampled":
        return items["correct"].to_numpy(float) / items["samples"].to_numpy(float)
    if match := re.fullmatch(r"pass@(\d+)", metric):
        return pass_at_k(items["samples"], items["correct"], int(match[1]))
    raise StudyError(f"unknown metric {metric!r}; valid: greedy, sampled, majority, pass@k")


def unpack(*items: dict[str, dict]) -> pd.DataFrame:
    """Return the `items` of records as one row per item, in order.

    Columns: family, split, item (position), level, greedy (0 or 1), correct (right ones among
    `samples`), samples, majority (0 to 1, whether the most frequent answer is right); greedy,
    correct and majority are NaN where they were not measured.
    """
    import numpy as np
    import pandas as pd

    names = [name.rsplit("/", 1) for run in items for name in run]
    parts = [part for run in items for part in run.values()]
    sizes = [len(part["level"]) for part in parts]

    def digits(column: str) -> np.ndarray:
        values = [
            _parse_digits(part[column]) if part.get(column) else np.full(size, np.nan)
            for part, size in zip(parts, sizes, strict=True)
        ]
        return np.concatenate(values) if values else np.empty(0)

    return pd.DataFrame(
        {
            "family": np.repeat([family for family, _ in names], sizes),
            "split": np.repeat([split for _, split in names], sizes),
            "item": [position for size in sizes for position in range(size)],
            "level": digits("level").astype(int),
            "greedy": digits("greedy"),
            "correct": digits("correct"),
            "samples": np.repeat([part.get("samples", 0) for part in parts], sizes),
            "majority": np.concatenate(
                [part.get("majority", [np.nan] * n) for part, n in zip(parts, sizes, strict=True)]
                or [[]]
            ),
        }
    )


def _parse_digits(text: str) -> np.ndarray:
    """Return the digits of a string as numbers."""
    import numpy as np

    return np.frombuffer(text.encode(), np.uint8) - float(ord("0"))


def scores(items: dict[str, dict], draws: int = 0) -> list[dict]:
    """Return the scores of one run, a dict per family, split and metric of its record's `items`.

    Keys: family, split, metric, value, low, high (95 %, over items), n. Metrics: greedy, sampled,
    from more than one sample pass@k with k = `draws` (0 = as many as there are samples), and
    majority where it is stored.
    """
    rows = []
    for name, stored in items.items():
        frame = unpack({name: stored}).assign(seed=0)
        samples = stored.get("samples", 0)
        metrics = ["greedy"] if stored.get("greedy") else []
        if stored.get("correct"):
            metrics.append("sampled")
            if samples > 1:
                metrics.append(f"pass@{draws or samples}")
        if stored.get("majority"):
            metrics.append("majority")
        for metric in metrics:
            row = summarise(frame, ["family", "split"], metric).iloc[0]
            numbers = {key: round(float(row[key]), 6) for key in ("value", "low", "high")}
            place = {"family": row["family"], "split": row["split"], "metric": metric}
            rows.append({**place, **numbers, "n": int(row["n_items"])})
    return rows


# ---------------------------------------------------------------- groups of runs


def summarise(items: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """Return the mean score of each group and its interval, one row per combination of `by`.

    Columns: `by`, metric, value, low, high (95 %, over seeds and items), n_items, n_seeds.
    Every seed answers the same items, so both are resampled, crossed and not nested: the
    pigeonhole bootstrap (Owen 2007, doi:10.1214/07-AOAS122), which errs on the wide side.
    Percentile intervals from a handful of seeds are rough: read n_seeds along with them.
    Where all items score the same, the bootstrap has nothing to resample and Wilson steps in.

    Raises StudyError where a group mixes runs that differ in more than the seed, or where a seed
    lacks an item.
    """
    import numpy as np
    import pandas as pd

    rows = []
    for key, group in items.groupby(by, sort=False, dropna=False):
        cells = _seeds_by_items(group, metric, dict(zip(by, key, strict=True))).to_numpy()
        n_seeds, n_items = cells.shape
        value = cells.mean()
        item_weights, seed_shares = bootstrap(n_items, n_seeds)
        draws = ((seed_weights(seed_shares) @ cells) * item_weights).sum(1)
        if np.ptp(cells):
            low, high = np.quantile(draws, [0.025, 0.975])
        else:
            low, high = wilson(value * n_items, n_items)
        # A skewed group can push the percentiles past what a share can be, by the seed correction.
        rows.append((*key, metric, value, max(low, 0.0), min(high, 1.0), n_items, n_seeds))
    return pd.DataFrame(rows, columns=[*by, "metric", "value", "low", "high", "n_items", "n_seeds"])


def over_seeds(runs: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Return the mean and the 95 % t interval, over runs, of a number that each run has once.

    Columns: `by`, value, low, high, n_seeds. A single run has no interval: low and high are NaN.
    """
    from scipy.stats import t

    cells = runs.groupby(by, sort=False, dropna=False)[column].agg(["mean", "sem", "count"])
    half_width = t.ppf(0.975, cells["count"] - 1) * cells["sem"]
    means = cells.assign(
        value=cells["mean"], low=cells["mean"] - half_width, high=cells["mean"] + half_width
    )
    columns = ["value", "low", "high", "n_seeds"]
    return means.rename(columns={"count": "n_seeds"})[columns].reset_index()


def at_budget(points: pd.DataFrame, by: list[str], cost: str, budget: float) -> pd.DataFrame:
    """Return where each curve stands at a budget, between its points by a straight line.

    Args:
        points: several per curve: `by`, value, and a column of costs, rising along a curve.
        by: the columns that tell curves apart.

    Returns:
        `by` and value, a row per curve; NaN where the budget lies before its first point, and the
        last value where it lies behind the last.
    """
    import numpy as np
    import pandas as pd

    rows = [
        (*key, np.interp(budget, curve[cost], curve["value"], left=np.nan))
        for key, curve in points.sort_values(cost).groupby(by, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "value"])


# ---------------------------------------------------------------- differences


def paired(items: pd.DataFrame, arm: Selection, reference: Selection, metric: str) -> dict:
    """Return by how much one arm is better than another one on the items that both answered.

    Estimated by `crossed.estimate`, items stratified by family. Arms that share runs, as the
    columns id and prerequisites tell where there are such, are compared seed by seed; seeds of
    others have nothing in common. An arm of one seed counts as fixed: what other seeds would do is
    not in the interval, which is over the items alone where both arms have one.

    Args:
        arm: selects its rows, {"method": "sft", "rank": 8}.
        reference: selects those that are subtracted.
    Returns:
        value, low, high (95 %), p (two-sided, of no difference; below .05 where the interval leaves
        0 out), se, se_items (what of it falls as items are added, the seeds staying as they are),
        n (items), seeds_arm, seeds_reference.

    Raises StudyError where no item was answered by both, where an arm mixes runs that differ in
    more than the seed, or where a seed lacks an item.
    """
    import pandas as pd

    chosen = [(_select(items, selection), selection) for selection in (arm, reference)]
    places = [pd.MultiIndex.from_frame(rows[ITEM]) for rows, _ in chosen]
    met = [here.isin(there) for here, there in zip(places, reversed(places), strict=True)]
    if not met[0].any():
        raise StudyError(
            f"no item was answered by both {_in_words(arm)} and {_in_words(reference)}; same split?"
        )
    cells = [
        _seeds_by_items(rows[both], metric, selection)
        for (rows, selection), both in zip(chosen, met, strict=True)
    ]
    same_seeds = cells[0].index.equals(cells[1].index)
    paired_seeds = same_seeds and _share_runs(items, [rows for rows, _ in chosen])
    terms = [
        Term(weight, scores.to_numpy(), 0 if paired_seeds else weight, fixed=len(scores) == 1)
        for weight, scores in zip((1.0, -1.0), cells, strict=True)
    ]
    found = estimate(terms, cells[0].columns.get_level_values("family"))
    low, high = found.interval()
    return {
        "value": found.value,
        "low": low,
        "high": high,
        "p": found.p(),
        "se": found.se,
        "se_items": (found.parts.items + found.parts.residual) ** 0.5,
        "n": found.items,
        "seeds_arm": found.seeds[0],
        "seeds_reference": found.seeds[1],
    }


def _share_runs(items: pd.DataFrame, arms: Sequence[pd.DataFrame]) -> bool:
    """Return whether two arms have runs in common, or go on from common runs."""
    if "id" not in items:
        return False
    before = {}
    if "prerequisites" in items:
        runs = items.drop_duplicates("id")
        before = dict(zip(runs["id"], runs["prerequisites"], strict=True))
    first, second = blocks([set(arm["id"]) for arm in arms], before)
    return first == second


def verdict(gaps: Sequence[Mapping[str, Any]], margin: float = 0.0) -> str:
    """Return what some intervals (low, high) together say of "every gap is above the margin".

    "supported" if all of them lie above it, "refuted" if one lies below it, else "undecided".
    Claims are judged by `claims.verdicts` instead, which corrects for their number.
    """
    if any(gap["high"] < margin for gap in gaps):
        return "refuted"
    return "supported" if all(gap["low"] > margin for gap in gaps) else "undecided"


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that the chance of any false alarm stays below the level (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = round(worst, 12)
    return adjusted


# ---------------------------------------------------------------- cells and draws


def _seeds_by_items(group: pd.DataFrame, metric: str, selection: Selection) -> pd.DataFrame:
    """Return scores as seeds x items; refuse a group whose runs differ in more than the seed."""
    group = group.assign(value=item_scores(group, metric))
    if group.duplicated(["seed", *ITEM]).any():
        fields = [c for c in group if c not in NOT_A_RUN_FIELD and group[c].nunique() > 1]
        raise StudyError(
            f"{_in_words(selection)} mixes runs; tell them apart by {', '.join(fields) or 'id'}"
        )
    cells = group.pivot(index="seed", columns=ITEM, values="value")
    if cells.isna().to_numpy().any():
        raise StudyError(
            f"{_in_words(selection)}: not every seed has a {metric} score for every item"
        )
    return cells


@functools.lru_cache(maxsize=8)
def bootstrap(*counts: int) -> list[np.ndarray]:
    """Return bootstrap weights per draw for each of several kinds, such as seeds and items.

    The generator starts anew, so that all groups of equal sizes meet the same draws.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    return [bootstrap_shares(rng, count) for count in counts]


def seed_weights(shares: np.ndarray) -> np.ndarray:
    """Return the bootstrap weights of seeds, widened by the root of S/(S-1) for S seeds.

    Resampling S seeds shows only (S-1)/S of the variance of a mean, half of it for two seeds.
    """
    count = shares.shape[1]
    if count == 1:
        return shares
    return 1 / count + (shares - 1 / count) * (count / (count - 1)) ** 0.5


def _select(items: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """Return the selected rows; raise StudyError for an unknown field and where none is left."""
    for field, wanted in selection.items():
        if field not in items:
            raise StudyError(f"no column {field!r}; valid: {', '.join(items.columns)}")
        several = isinstance(wanted, list | set | frozenset)
        items = items[items[field].isin(wanted) if several else items[field] == wanted]
    if items.empty:
        raise StudyError(f"no finished run matches {_in_words(selection)}")
    return items


def _in_words(selection: Selection) -> str:
    return " ".join(f"{field}={value}" for field, value in selection.items()) or "the whole table"
