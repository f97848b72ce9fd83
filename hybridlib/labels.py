"""What is a run, a column or a number called for a reader? Labels are shown, never joined on."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hybridlib.methods import METHODS

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "n_train": "training rows", "level": "level (reasoning steps)", "rank": "LoRA rank",
    "learning_rate": "learning rate", "train_seconds": "training time (s)",
    "eval_seconds": "evaluation time (s)", "tokens": "training tokens", "peak_gb": "memory (GB)",
    "trainable": "trainable parameters", "partition": "partition rule", "merge": "merge method",
    "loss": "loss (nats per token)", "reward": "mean reward", "step": "optimizer step",
    "passrate": "pass rate of the base (%)", "rewards/correct/mean": "share of right answers",
    "k": "answers drawn, k", "completions/mean_length": "answer length (tokens)",
    "kl": "KL from the base (nats per answer)", "label": "arm",
    "bucket": "pass rate of the base",
}  # fmt: skip


def arm_label(run: dict[str, Any]) -> str:
    """Return the display name of a run, given its fields: its method and what is unusual about it.

    The seed is left out. For readers only; tables are joined by the arm (`chapter.arm_key`).
    """
    return ", ".join([_method(run), *_unusual(run)]).replace("_", "-")


def _method(run: dict[str, Any]) -> str:
    method = METHODS[run["method"]].words.format(**run)
    return f"{_stage(run['start'])}, then {method}" if run["start"] else method


def _unusual(run: dict[str, Any]) -> list[str]:
    """Return the fields of a run that are not at their default, in words."""
    usual = {"adapter": "lora", "rank": 8, "learning_rate": 0, "steps": 0}
    phrases = [  # (words, whether the field is unusual)
        (_parents(run["parents"]), run["parents"]),
        ("4-bit", run["nf4"]),
        ("Unsloth", run["backend"] == "unsloth"),
        *((f"{heading(field)} {run[field]}", run[field] != usual[field]) for field in usual),
        (f"{run['n_train']} rows per set", run["n_train"]),
        (f"{run['partition']} half", run["partition"] != "all"),
        ("paid " + " + ".join(run["rewards"]), [*run["rewards"]] != ["correct"]),
        (f"selection {run['select']}", run["select"]),
        ("on " + " + ".join(run["on"]), run["on"]),
        (f"lambdas {' and '.join(map(str, run['lambdas']))}", run["lambdas"]),
        (f"overlap {run['overlap']}", run["overlap"]),
        (f"share {run['share']}", run["share"] != 0.5),
        (f"target {run['target']}", run["target"] != "solution"),
        (f"loss {run['objective']}", run["objective"] != "nll"),
        *((option.replace("=", " "), True) for option in run["options"]),
        (f"taught by {_stage(run['teacher'])}", run["teacher"]),
        ("asked otherwise", run["also"]),
        (f"at temperature {run['temperature']:g}", run["temperature"] != 1),
    ]
    return [words for words, unusual in phrases if unusual]


def _parents(run_ids: Sequence[str]) -> str:
    """Return what a merge joins: "passrate halves", "all rows", or else the parents' names."""
    fields = [field for run_id in run_ids for field in _fields(run_id)]
    if rules := sorted({field.removeprefix("by-") for field in fields if field.startswith("by-")}):
        return "/".join(rules) + " halves"
    names = [_stage(run_id) for run_id in run_ids]
    joined = "all rows" if names == ["SFT", "GRPO"] else " + ".join(names)
    seeds = {"".join(re.findall(r"_seed-(\d+)", run_id)[:1]) for run_id in run_ids}
    return f"{joined} of different seeds" if len(seeds) > 1 else joined


def _fields(run_id: str) -> list[str]:
    """Return the method and the fields of an id; values, too, may have underscores."""
    return re.split("_(?=[a-z]+-|nf4)", run_id)


def _stage(run_id: str) -> str:
    """Return SFT loss dft for sft_loss-dft_seed-1."""
    method, *fields = _fields(run_id)
    settings = [field.replace("-", " ", 1) for field in fields if not field.startswith("seed-")]
    return " ".join([method.upper(), *settings])


def interval(row: dict[str, Any], sign: str = "") -> str:
    """Return an estimate (value, low, high) in percent, as in 50.0 [41.0, 60.0].

    sign: "+" for differences.
    """
    value, low, high = (100 * row[name] for name in ("value", "low", "high"))
    text = f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def intervals(rows: "pd.DataFrame", sign: str = "") -> list[str]:
    """Return `interval` of each row."""
    return [interval(row, sign) for row in rows.to_dict("records")]


def questions_needed(gap: dict[str, Any], target: float = 0.0) -> str:
    """Return how many questions would bring the end of an interval to the target.

    The text is such as "about 2.5 times as many questions", the number of seeds staying as it is,
    or "no number of questions alone" where the variance between seeds is too large by itself. What
    few seeds add to the interval by Student's t is taken to stay as well.

    Args:
        gap: a result of `stats.paired`.
        target: where the nearer end is to lie, as a share.
    """
    quantile = (gap["high"] - gap["value"]) / gap["se"]
    room = ((gap["value"] - target) / quantile) ** 2 - (gap["se"] ** 2 - gap["se_items"] ** 2)
    if room <= 0:
        return "no number of questions alone"
    times = gap["se_items"] ** 2 / room
    text = f"about {times:.2g} times as many questions"
    return text if times > 1 else f"{text} (fewer than were asked)"


def estimates(rows: "pd.DataFrame") -> "pd.Series":
    """Return estimates (value, low, high) as text, as in 0.123 [0.1, 0.15].

    A single run has no interval (NaN), and none is written.
    """
    return rows.apply(_estimate, axis=1)


def _estimate(row: Any) -> str:
    if row.low != row.low:  # NaN
        return f"{row.value:.3g}"
    return f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]"


def heading(column: str) -> str:
    """Return the words for a column of the tables, as axes and headings use them."""
    return NAMES.get(column, column.replace("_", " "))
