"""How sure are we? Intervals and paired differences over seeds and items.

Everything here reads the long table of `results.items`: one row per run and item. The crossed
bootstrap is our own: scipy resamples one axis, and statsmodels has no resampling of two.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError
from hybridlib.proportions import RESAMPLES, bootstrap_shares, pass_at_k, wilson

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
        item_weights, seed_shares = _bootstrap(n_items, n_seeds)
        draws = ((_seed_weights(seed_shares) @ cells) * item_weights).sum(1)
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


# ---------------------------------------------------------------- differences


def paired(items: pd.DataFrame, arm: Selection, reference: Selection, metric: str) -> dict:
    """Return by how much one arm is better than another one on the items that both answered.

    Args:
        arm: selects its rows, {"method": "sft", "rank": 8}.
        reference: selects those that are subtracted.
    Returns:
        The `contrast` of the two, its estimate as `value`, as in the rows of `summarise`, and the
        numbers of seeds as seeds_arm and seeds_reference.

    Raises StudyError where no item was answered by both.
    """
    left, right = (_select(items, selection) for selection in (arm, reference))
    both = set(left.set_index(ITEM).index) & set(right.set_index(ITEM).index)
    if not both:
        raise StudyError(
            f"no item was answered by both {_in_words(arm)} and {_in_words(reference)}; same split?"
        )
    shared = items[items.set_index(ITEM).index.isin(both)]
    gap = contrast(shared, [(1.0, arm), (-1.0, reference)], metric)
    value, (seeds_arm, seeds_reference) = gap.pop("estimate"), gap.pop("seeds")
    return {"value": value, **gap, "seeds_arm": seeds_arm, "seeds_reference": seeds_reference}


def verdict(gaps: Sequence[Mapping[str, Any]], margin: float = 0.0) -> str:
    """Return what some intervals (low, high) together say of "every gap is above the margin".

    "supported" if all of them lie above it, "refuted" if one lies below it, else "undecided".
    Claims are judged by `claims.verdicts` instead, which corrects for their number.
    """
    if any(gap["high"] < margin for gap in gaps):
        return "refuted"
    return "supported" if all(gap["low"] > margin for gap in gaps) else "undecided"


@dataclass(frozen=True, eq=False)
class _Term:
    """One arm of a contrast: its weight and its scores, seeds x items."""

    weight: float
    cells: pd.DataFrame

    @functools.cached_property
    def seeds(self) -> tuple:
        return tuple(self.cells.index)

    @functools.cached_property
    def items(self) -> list[tuple]:
        """Family and position: an item under another prompt is the same item."""
        return [(family, position) for family, _, position in self.cells.columns]


def contrast(
    items: pd.DataFrame,
    terms: Sequence[tuple[float, Selection]],
    metric: str,
    margin: float = 0.0,
) -> dict:
    """Return a weighted sum of arms' means with its interval and p value.

    Args:
        terms: (weight, rows), such as [(1, {"method": "sft"}), (-1, {"method": "grpo"})].
            Differences of differences and slopes are contrasts, too.
    Returns:
        estimate, low, high (95 %), p (two-sided, of being no other than `margin`; below .05 where
        the interval leaves it out), margin, se, se_items (what no number of seeds would take away),
        n (items), seeds (per term).

    Items are resampled jointly, because all arms met the same ones, an item under another prompt
    being the same item; and so are seeds, because an arm may go on from another one's run of the
    same seed (Efron and Tibshirani 1993, chapter 16; Owen 2007). Pairing the seeds of arms that
    have nothing in common costs no more than a paired test does on unpaired data. The bootstrap
    gives the standard error; with few seeds its tails are too short, so interval and p are
    Student's, with Satterthwaite's degrees of freedom for the variance between seeds.
    """
    import numpy as np

    arms = _terms(items, terms, metric)
    all_items = list(dict.fromkeys(item for arm in arms for item in arm.items))
    draws, of_items = _contrast_draws(arms, all_items)
    estimate = 0.0
    for arm in arms:
        estimate += arm.weight * arm.cells.to_numpy().mean()
    se, se_items = float(draws.std()), float(of_items.std())
    if np.ptp(draws) > 1e-12:
        n_seeds = [len(arm.cells) for arm in arms]
        low, high, p = _student(estimate, margin, se, se_items, n_seeds)
    else:
        span = sum(abs(arm.weight) for arm in arms)
        low, high, p = _constant(estimate, margin, span, len(all_items))
    return {
        "estimate": float(estimate),
        "low": float(low),
        "high": float(high),
        "p": float(p),
        "margin": margin,
        "se": se,
        "se_items": se_items,
        "n": len(all_items),
        "seeds": [len(arm.cells) for arm in arms],
    }


def _terms(
    items: pd.DataFrame, terms: Sequence[tuple[float, Selection]], metric: str
) -> list[_Term]:
    """Return the scores of each arm of a contrast."""
    fields = {field for _, selection in terms for field in selection}
    used = {"id", "seed", *ITEM, "greedy", "correct", "samples"} | fields
    narrow = items[[column for column in items if column in used]]  # run fields are most of a table
    try:
        return _cells(narrow, terms, metric)
    except StudyError:  # the whole table says which fields tell the runs apart
        return _cells(items, terms, metric)


def _cells(
    items: pd.DataFrame, terms: Sequence[tuple[float, Selection]], metric: str
) -> list[_Term]:
    return [
        _Term(weight, _seeds_by_items(_select(items, selection), metric, selection))
        for weight, selection in terms
    ]


def _contrast_draws(arms: list[_Term], all_items: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """Return the contrast in each bootstrap draw, and with the items alone resampled."""
    import numpy as np

    position = {item: index for index, item in enumerate(all_items)}
    groups = list(dict.fromkeys(arm.seeds for arm in arms))  # sets of seeds are drawn once each
    weights, *shares = _bootstrap(len(all_items), *map(len, groups))
    seed_weights = {
        seeds: _seed_weights(share) for seeds, share in zip(groups, shares, strict=True)
    }
    draws, of_items = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for arm in arms:
        cells, item_weights = arm.cells.to_numpy(), weights
        if arm.items != all_items:  # an arm that has met only some of the items
            item_weights = weights[:, [position[item] for item in arm.items]]
            item_weights = item_weights / np.maximum(item_weights.sum(1, keepdims=True), 1e-12)
        draws += arm.weight * ((seed_weights[arm.seeds] @ cells) * item_weights).sum(1)
        of_items += arm.weight * (item_weights @ cells.mean(0))
    return draws, of_items


def _student(
    estimate: float, margin: float, se: float, se_items: float, n_seeds: list[int]
) -> tuple[float, float, float]:
    """Return low, high and p of Student's t with Satterthwaite's degrees of freedom."""
    import numpy as np
    from scipy.stats import t

    several = [n - 1 for n in n_seeds if n > 1]
    of_seeds = max(0.0, se**2 - se_items**2)
    df = min(several) * (se**2 / of_seeds) ** 2 if several and of_seeds else np.inf
    half_width = t.ppf(0.975, df) * se
    p = 2 * t.sf(abs(estimate - margin) / se, df)
    return estimate - half_width, estimate + half_width, p


def _constant(
    estimate: float, margin: float, span: float, n_items: int
) -> tuple[float, float, float]:
    """Return low, high and p where every item differs by the same amount, most often by 0.

    That is sure as far as n items can tell: by Wilson's interval and a sign test.
    """
    half_width = wilson(0, n_items)[1] * span / 2
    p = min(1.0, 2 * 0.5**n_items + 1 / RESAMPLES)
    if abs(estimate - margin) <= 1e-12:
        p = 1.0
    return estimate - half_width, estimate + half_width, p


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
def _bootstrap(*counts: int) -> list[np.ndarray]:
    """Return bootstrap weights per draw for each of several kinds, such as seeds and items.

    The generator starts anew, so that all groups of equal sizes meet the same draws.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    return [bootstrap_shares(rng, count) for count in counts]


def _seed_weights(shares: np.ndarray) -> np.ndarray:
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
