"""How sure are we? Intervals and paired differences over seeds and items.

Everything here reads the long table of `results.items`: one row per run and item.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybridlib import StudyError
from hybridlib.proportions import RESAMPLES, drawn, pass_at_k, wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ITEM = ["family", "split", "item"]
"""The columns that name one evaluated item; its position is the same in every run of a profile."""
NOT_A_RUN_FIELD = {*ITEM, "id", "level", "greedy", "correct", "samples", "seed", "value"}


def score(items: pd.DataFrame, metric: str) -> np.ndarray:
    """What does each item score, in 0..1, under "greedy", "sampled" or "pass@k"?"""
    if metric == "greedy":
        return items["greedy"].to_numpy(float)
    if metric == "sampled":
        return items["correct"].to_numpy(float) / items["samples"].to_numpy(float)
    if match := re.fullmatch(r"pass@(\d+)", metric):
        return pass_at_k(items["samples"], items["correct"], int(match[1]))
    raise StudyError(f"unknown metric {metric!r}; valid: greedy, sampled, pass@k")


def unpack(*items: dict[str, dict]) -> pd.DataFrame:
    """What did runs do on each item? The `items` of their records as one row per item, in order.

    Columns: family, split, item (position), level, greedy (0 or 1), correct (right ones among
    `samples`), samples; greedy and correct are NaN where they were not measured.
    """
    import numpy as np
    import pandas as pd

    names = [name.rsplit("/", 1) for run in items for name in run]
    parts = [part for run in items for part in run.values()]
    sizes = [len(part["level"]) for part in parts]

    def digits(column: str) -> np.ndarray:
        values = [
            np.frombuffer(part[column].encode(), np.uint8) - 48.0  # "0" is 48
            if part.get(column) else np.full(n, np.nan)
            for part, n in zip(parts, sizes, strict=True)
        ]  # fmt: skip
        return np.concatenate(values) if values else np.empty(0)

    return pd.DataFrame({
        "family": np.repeat([family for family, _ in names], sizes),
        "split": np.repeat([split for _, split in names], sizes),
        "item": [place for n in sizes for place in range(n)],
        "level": digits("level").astype(int),
        "greedy": digits("greedy"),
        "correct": digits("correct"),
        "samples": np.repeat([part.get("samples", 0) for part in parts], sizes),
    })  # fmt: skip


def scores(items: dict[str, dict], k: int = 0) -> list[dict]:
    """How good is one run? A dict per family, split and metric of the `items` of its record.

    Keys: family, split, metric, value, low, high (95 %, over items), n. Metrics: greedy, sampled
    and, from more than one sample, pass@k (k: 0 = as many as there are samples).
    """
    found = []
    for name, stored in items.items():
        frame = unpack({name: stored}).assign(seed=0)
        samples = stored.get("samples", 0)
        metrics = ["greedy"] if stored.get("greedy") else []
        metrics += ["sampled"] if stored.get("correct") else []
        metrics += [f"pass@{k or samples}"] if stored.get("correct") and samples > 1 else []
        for metric in metrics:
            row = summarise(frame, ["family", "split"], metric).iloc[0]
            numbers = {key: round(float(row[key]), 6) for key in ("value", "low", "high")}
            place = {"family": row["family"], "split": row["split"], "metric": metric}
            found.append({**place, **numbers, "n": int(row["n_items"])})
    return found


def summarise(items: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """How good is each group, and how sure is that? One row per combination of `by`.

    Columns: `by`, metric, value, low, high (95 %, over seeds and items), n_items, n_seeds.
    Every seed answers the same items, so both are resampled, crossed and not nested: the
    pigeonhole bootstrap (Owen 2007, doi:10.1214/07-AOAS122), which errs on the wide side.
    Percentile intervals from a handful of seeds are rough: read n_seeds along with them.
    Where all items score the same, the bootstrap has nothing to resample and Wilson steps in.
    """
    import numpy as np
    import pandas as pd

    rows = []
    for key, group in items.groupby(by, sort=False, dropna=False):
        cells = _matrix(group, metric, dict(zip(by, key, strict=True))).to_numpy()
        seeds, n = cells.shape
        value = cells.mean()
        each, several = _resampled(n, seeds)
        draws = ((_seed_weights(several) @ cells) * each).sum(1)
        low, high = np.quantile(draws, [0.025, 0.975]) if np.ptp(cells) else wilson(value * n, n)
        # A skewed group can push the percentiles past what a share can be, by the seed correction.
        rows.append((*key, metric, value, max(low, 0.0), min(high, 1.0), n, seeds))
    return pd.DataFrame(rows, columns=[*by, "metric", "value", "low", "high", "n_items", "n_seeds"])


def over_seeds(runs: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """How large is a number that each run has once? Mean and 95 % t interval over the runs.

    Columns: `by`, value, low, high, n_seeds. A single run has no interval: low and high are NaN.
    """
    from scipy.stats import t

    cells = runs.groupby(by, sort=False, dropna=False)[column].agg(["mean", "sem", "count"])
    reach = t.ppf(0.975, cells["count"] - 1) * cells["sem"]
    found = cells.assign(value=cells["mean"], low=cells["mean"] - reach, high=cells["mean"] + reach)
    return found.rename(columns={"count": "n_seeds"})[
        ["value", "low", "high", "n_seeds"]
    ].reset_index()


def paired(items: pd.DataFrame, a: dict, b: dict, metric: str) -> dict:
    """By how much is arm `a` better than arm `b` on the items both answered?

    `a` and `b` select rows: {"method": "sft", "rank": 8}. A `contrast` of two terms; its result
    has the numbers of seeds as seeds_a and seeds_b.
    """
    left, right = (_select(items, arm) for arm in (a, b))
    both = set(left.set_index(ITEM).index) & set(right.set_index(ITEM).index)
    if not both:
        raise StudyError(f"no item was answered by both {_say(a)} and {_say(b)}; same split?")
    shared = items[items.set_index(ITEM).index.isin(both)]
    found = contrast(shared, [(1.0, a), (-1.0, b)], metric)
    return {**{k: v for k, v in found.items() if k != "seeds"},
            "seeds_a": found["seeds"][0], "seeds_b": found["seeds"][1]}  # fmt: skip


def contrast(
    items: pd.DataFrame, terms: Sequence[tuple[float, dict]], metric: str, margin: float = 0.0
) -> dict:
    """How large is a weighted sum of arms' means, and how sure is that?

    Args:
        terms: (weight, rows), such as [(1, {"method": "sft"}), (-1, {"method": "grpo"})]. A value
            that is a list or a set selects any of it. Differences of differences and slopes are
            contrasts, too.
    Returns:
        estimate, low, high (95 %), p (two-sided, of being no other than `margin`; below .05 where
        the interval leaves it out), margin, se, se_items (what no number of seeds would take away),
        n (items), seeds (per term).
    Items are resampled jointly, because all arms met the same ones, an item under another prompt
    being the same item; and so are seeds, because an arm may go on from another one's run of the
    same seed (Efron and Tibshirani 1993, chapter 16; Owen 2007). Arms whose seeds have nothing in
    common lose no more by that than a paired test does on unpaired data. The bootstrap gives the
    standard error; with few seeds its tails are too short, so interval and p are Student's, with
    Satterthwaite's degrees of freedom for the part of the variance that is the seeds'.
    """
    import numpy as np
    from scipy.stats import t as student

    fields = {field for _, arm in terms for field in arm}
    used = {"id", "seed", *ITEM, "greedy", "correct", "samples"} | fields
    few = items[[column for column in items if column in used]]  # run fields weigh more than items
    try:
        cells = [_matrix(_select(few, arm), metric, arm) for _, arm in terms]
    except StudyError:  # says which fields tell the runs apart
        cells = [_matrix(_select(items, arm), metric, arm) for _, arm in terms]
    keys = [[(c[0], c[2]) for c in matrix.columns] for matrix in cells]  # family and item
    every = list(dict.fromkeys(key for columns in keys for key in columns))
    place = {key: i for i, key in enumerate(every)}
    known = dict.fromkeys(tuple(matrix.index) for matrix in cells)
    weights, *shares = _resampled(len(every), *map(len, known))
    seeds = {own: _seed_weights(share) for own, share in zip(known, shares, strict=True)}
    draws, fixed, estimate, spread = np.zeros(RESAMPLES), np.zeros(RESAMPLES), 0.0, 0.0
    for (factor, _), matrix, columns in zip(terms, cells, keys, strict=True):
        own = weights
        if columns != every:  # an arm that has met only some of the items
            own = weights[:, [place[key] for key in columns]]
            own = own / np.maximum(own.sum(1, keepdims=True), 1e-12)
        draws += factor * ((seeds[tuple(matrix.index)] @ matrix.to_numpy()) * own).sum(1)
        fixed += factor * (own @ matrix.to_numpy().mean(0))
        estimate += factor * matrix.to_numpy().mean()
        spread += abs(factor)
    n = len(every)
    se, se_items = float(draws.std()), float(fixed.std())
    if np.ptp(draws) > 1e-12:
        several = [len(m) - 1 for m in cells if len(m) > 1]
        own = max(0.0, se**2 - se_items**2)
        df = min(several) * (se**2 / own) ** 2 if several and own else np.inf
        low, high = (estimate + sign * student.ppf(0.975, df) * se for sign in (-1, 1))
        p = 2 * student.sf(abs(estimate - margin) / se, df)
    else:
        # Every item differs by the same amount (most often 0): as far as n items can tell.
        reach = wilson(0, n)[1] * spread / 2
        low, high = estimate - reach, estimate + reach
        sure = min(1.0, 2 * 0.5**n + 1 / RESAMPLES)  # a sign test
        p = sure if abs(estimate - margin) > 1e-12 else 1.0
    return {"estimate": float(estimate), "low": float(low), "high": float(high), "p": float(p),
            "margin": margin, "se": se, "se_items": se_items, "n": n,
            "seeds": [len(m) for m in cells]}  # fmt: skip


def holm(ps: Sequence[float]) -> list[float]:
    """P values adjusted so that the chance of any false alarm stays below the level (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = round(worst, 12)
    return adjusted


def detectable(se: float) -> float:
    """The smallest effect that an estimate with this standard error finds, 4 times in 5 at 5 %.

    (z_.975 + z_.8) se, the minimum detectable effect (Bloom 1995, doi:10.1177/0193841X9501900504).
    """
    return (1.959964 + 0.841621) * se


def _matrix(group: pd.DataFrame, metric: str, name: dict) -> pd.DataFrame:
    """Scores as seeds x items; refuses a group whose runs differ in more than the seed."""
    group = group.assign(value=score(group, metric))
    if group.duplicated(["seed", *ITEM]).any():
        fields = [c for c in group if c not in NOT_A_RUN_FIELD and group[c].nunique() > 1]
        raise StudyError(f"{_say(name)} mixes runs; tell them apart by {', '.join(fields) or 'id'}")
    cells = group.pivot(index="seed", columns=ITEM, values="value")
    if cells.isna().to_numpy().any():
        raise StudyError(f"{_say(name)}: not every seed has a {metric} score for every item")
    return cells


@functools.lru_cache(maxsize=8)
def _resampled(*counts: int) -> list[np.ndarray]:
    """Shares of things of several kinds in each bootstrap draw; all groups meet the same draws."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [drawn(rng, count) for count in counts]


def _seed_weights(shares: np.ndarray) -> np.ndarray:
    """Weights of seeds in each draw from their shares: S seeds show (S-1)/S of a mean's variance.

    That is half of it for two seeds, so deviations are drawn out by the root of S/(S-1).
    """
    count = shares.shape[1]
    return 1 / count + (shares - 1 / count) * (count / (count - 1)) ** 0.5 if count > 1 else shares


def _select(items: pd.DataFrame, arm: dict) -> pd.DataFrame:
    for field, wanted in arm.items():
        if field not in items:
            raise StudyError(f"no column {field!r}; valid: {', '.join(items.columns)}")
        several = isinstance(wanted, list | set | frozenset)
        items = items[items[field].isin(wanted) if several else items[field] == wanted]
    if items.empty:
        raise StudyError(f"no finished run matches {_say(arm)}")
    return items


def _say(arm: dict) -> str:
    return " ".join(f"{field}={value}" for field, value in arm.items()) or "the whole table"
