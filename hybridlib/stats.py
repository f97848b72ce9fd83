"""How sure are we? Intervals and paired differences over seeds and items.

Everything here reads the long table of `results.items`: one row per run and item.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybridlib import StudyError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RESAMPLES = 2_000
ITEM = ["family", "split", "item"]
"""The columns that name one evaluated item; its position is the same in every run of a profile."""
NOT_A_RUN_FIELD = {*ITEM, "id", "level", "greedy", "correct", "samples", "seed", "value"}


def pass_at_k(n, correct, k: int) -> np.ndarray:
    """How likely is it that at least one of `k` answers is right? Unbiased, from `n` samples.

    1 - C(n - correct, k) / C(n, k), elementwise over arrays (Chen et al. 2021, arXiv:2107.03374).
    Needs 1 <= k <= n. Choosing the first k samples instead would be noisier; 1 - (1 - c/n)^k is
    biased low.
    """
    import numpy as np

    n, correct = np.broadcast_arrays(np.asarray(n, float), np.asarray(correct, float))
    if k < 1 or (n < k).any():
        raise StudyError(f"pass@{k} needs 1 <= k <= samples, and there are {n.min():.0f} samples")
    all_wrong = np.ones_like(n)
    for drawn in range(k):
        all_wrong = all_wrong * np.clip(n - correct - drawn, 0, None) / (n - drawn)
    return 1 - all_wrong


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Between which shares does the true one lie, at 95 %? (0, 1) for n = 0.

    The score interval of Wilson (1927): unlike the bootstrap it stays honest when no item, or
    every item, is right.
    """
    if n == 0:
        return 0.0, 1.0
    z, share = 1.959963984540054, successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return max(0.0, centre - half) if share else 0.0, min(1.0, centre + half) if share < 1 else 1.0


def share(flags: Sequence[bool]) -> list[float] | None:
    """Which share is true, as [estimate, low, high] with Wilson's interval? None without any."""
    return [sum(flags) / len(flags), *wilson(sum(flags), len(flags))] if flags else None


def score(items: pd.DataFrame, metric: str) -> np.ndarray:
    """What does each item score, in 0..1, under "greedy", "sampled" or "pass@k"?"""
    if metric == "greedy":
        return items["greedy"].to_numpy(float)
    if metric == "sampled":
        return items["correct"].to_numpy(float) / items["samples"].to_numpy(float)
    if match := re.fullmatch(r"pass@(\d+)", metric):
        return pass_at_k(items["samples"], items["correct"], int(match[1]))
    raise StudyError(f"unknown metric {metric!r}; valid: greedy, sampled, pass@k")


def unpack(items: dict[str, dict]) -> pd.DataFrame:
    """What did one run do on each item? The `items` of a record as one row per item.

    Columns: family, split, item (position), level, greedy (0 or 1), correct (right ones among
    `samples`), samples; greedy and correct are NaN where they were not measured.
    """
    import numpy as np
    import pandas as pd

    parts = [pd.DataFrame(columns=[*ITEM, "level", "greedy", "correct", "samples"])]
    for name, stored in items.items():
        family, split = name.rsplit("/", 1)
        n = len(stored["level"])
        digits = {
            column: np.array(list(stored.get(column) or [np.nan] * n), float)
            for column in ("level", "greedy", "correct")
        }
        place = {"family": family, "split": split, "item": np.arange(n)}
        parts.append(pd.DataFrame({**place, **digits, "samples": stored.get("samples", 0)}))
    return pd.concat(parts[1:] or parts, ignore_index=True).astype({"level": int})


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
        rng = np.random.default_rng(0)
        draws = _resample(cells, _weights(rng, n), rng)
        low, high = np.quantile(draws, [0.025, 0.975]) if np.ptp(cells) else wilson(value * n, n)
        # A skewed group can push the percentiles past what a share can be, by the seed correction.
        rows.append((*key, metric, value, max(low, 0.0), min(high, 1.0), n, seeds))
    return pd.DataFrame(rows, columns=[*by, "metric", "value", "low", "high", "n_items", "n_seeds"])


def paired(items: pd.DataFrame, a: dict, b: dict, metric: str) -> dict:
    """By how much is arm `a` better than arm `b` on the items both answered?

    `a` and `b` select rows: {"method": "sft", "rank": 8}. Items are resampled jointly, because
    both arms met the same ones; seeds independently, because no seed is shared between trainings.
    Returns estimate, low, high (95 %), p (two-sided, by inverting the same bootstrap, so that
    p < .05 where the interval leaves out 0; never below 1 / 1000), n, seeds_a, seeds_b.
    (Efron and Tibshirani 1993, chapter 16; Owen 2007.)
    """
    import numpy as np

    left, right = (_matrix(_select(items, arm), metric, arm) for arm in (a, b))
    shared = left.columns.intersection(right.columns)
    if shared.empty:
        raise StudyError(f"no item was answered by both {_say(a)} and {_say(b)}; same split?")
    left, right = left[shared].to_numpy(), right[shared].to_numpy()
    n = len(shared)
    gap = left.mean() - right.mean()
    rng = np.random.default_rng(0)
    weights = _weights(rng, n)
    draws = _resample(left, weights, rng) - _resample(right, weights, rng)
    if np.ptp(draws) > 1e-12:
        low, high = np.quantile(draws, [0.025, 0.975])
        tail = min((draws <= 0).sum(), (draws >= 0).sum())
        p = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))
    else:
        # Every item differs by the same amount (most often 0): as far as n items can tell.
        reach = wilson(0, n)[1]
        low, high = max(gap - reach, -1.0), min(gap + reach, 1.0)
        p = min(1.0, 2 * 0.5**n + 1 / RESAMPLES) if abs(gap) > 1e-12 else 1.0  # a sign test
    return {"estimate": float(gap), "low": float(low), "high": float(high), "p": float(p), "n": n,
            "seeds_a": len(left), "seeds_b": len(right)}  # fmt: skip


def auc(positive: Sequence[float], negative: Sequence[float]) -> list[float] | None:
    """How often does a positive score higher than a negative, a tie counting half? With 95 %.

    The area under the ROC curve (Hanley & McNeil 1982) as [estimate, low, high], by a bootstrap of
    each side; None where a side is empty.
    """
    import numpy as np

    yes, no, rng = np.array(positive, float), np.array(negative, float), np.random.default_rng(0)
    if not yes.size or not no.size:
        return None
    wins = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
    draws = ((_weights(rng, len(yes)) @ wins) * _weights(rng, len(no))).sum(1)
    low, high = np.quantile(draws.clip(0, 1), [0.025, 0.975])
    return [float(wins.mean()), float(low), float(high)]


def f1(found: Sequence[bool], passed: Sequence[bool]) -> list[float] | None:
    """The harmonic mean of two shares as [estimate, low, high], 95 % by a bootstrap of each.

    None where a side is empty. ProcessBench's measure (Zheng et al. 2024): `found` says of each
    wrong solution whether its first error was found, `passed` of each right one that none was.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    if not len(found) or not len(passed):
        return None
    sides = [np.array(side, float) for side in (found, passed)]
    a, b = (np.append(side.mean(), _weights(rng, len(side)) @ side) for side in sides)
    value, *draws = 2 * a * b / np.maximum(a + b, 1e-12)
    return [float(value), *map(float, np.quantile(draws, [0.025, 0.975]))]


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


def _weights(rng: np.random.Generator, n: int) -> np.ndarray:
    """Shares of n things in each bootstrap draw, (RESAMPLES, n)."""
    import numpy as np

    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def _resample(cells: np.ndarray, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bootstrapped means (RESAMPLES,) of a seeds x items matrix under given item weights."""
    count = len(cells)
    seeds = _weights(rng, count)
    if count > 1:
        # Resampling S seeds shows (S-1)/S of the variance of their mean: half of it for two.
        seeds = 1 / count + (seeds - 1 / count) * (count / (count - 1)) ** 0.5
    return ((seeds @ cells) * items).sum(axis=1)


def _select(items: pd.DataFrame, arm: dict) -> pd.DataFrame:
    for field, wanted in arm.items():
        if field not in items:
            raise StudyError(f"no column {field!r}; valid: {', '.join(items.columns)}")
        items = items[items[field] == wanted]
    if items.empty:
        raise StudyError(f"no finished run matches {_say(arm)}")
    return items


def _say(arm: dict) -> str:
    return " ".join(f"{field}={value}" for field, value in arm.items()) or "the whole table"
