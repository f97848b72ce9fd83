"""What is a run, a column or a number called for a reader?"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
    "kl": "KL from the base (nats per answer)",
}  # fmt: skip

WAYS = {  # training method -> what an arm is called, where that is not the method in capitals
    "base": "base", "route": "routing", "cat": "learnt merge", "stack": "GRPO on top",
    "isospectral": "spectrum restored", "rounded": "merged in bfloat16",
    "unrounded": "base in bfloat16", "chord_mu": "CHORD-mu", "relift": "ReLIFT",
    "interleave": "GRPO with interleaved SFT",
}  # fmt: skip


def arm(run: dict[str, Any]) -> str:
    """What is a run called for a reader? Its method and whatever is not usual, but for the seed."""
    method = WAYS.get(run["method"], run["method"].upper())
    if run["merge"]:
        method = f"{run['merge']} merge"
    first = f"{_start(run['start'])}, then " if run["start"] else ""
    words = [first + method]
    words += [_parents(run["parents"])] * bool(run["parents"])
    words += ["4-bit"] * run["nf4"]
    words += ["Unsloth"] * (run["backend"] == "unsloth")
    for field, usual in {"adapter": "lora", "rank": 8, "learning_rate": 0, "steps": 0}.items():
        words += [f"{name(field)} {run[field]}"] * (run[field] != usual)
    words += [f"{run['n_train']} rows per set"] * bool(run["n_train"])
    words += [f"{run['partition']} half"] * (run["partition"] != "all")
    words += ["paid " + " + ".join(run["rewards"])] * ([*run["rewards"]] != ["correct"])
    words += [f"selection {run['select']}"] * bool(run["select"])
    words += ["on " + " + ".join(run["on"])] * bool(run["on"])
    words += [f"lambdas {' and '.join(map(str, run['lambdas']))}"] * bool(run["lambdas"])
    words += [f"overlap {run['overlap']}"] * bool(run["overlap"])
    words += [f"share {run['share']}"] * (run["share"] != 0.5)
    words += [f"target {run['target']}"] * (run["target"] != "solution")
    words += [f"loss {run['objective']}"] * (run["objective"] != "nll")
    words += [option.replace("=", " ") for option in run["options"]]
    words += ["asked otherwise"] * bool(run["also"])
    return ", ".join(words).replace("_", "-")


def _parents(ids: Sequence[str]) -> str:
    """Passrate halves, all rows, or what was joined where that is neither."""
    if rules := sorted({*re.findall(r"_by-([a-z]+)", "+".join(ids))}):
        return "/".join(rules) + " halves"
    names = [_start(one) for one in ids]
    told = "all rows" if names == ["SFT", "GRPO"] else " + ".join(names)
    seeds = {"".join(re.findall(r"_seed-(\d+)", one)[:1]) for one in ids}
    return told + " of different seeds" * (len(seeds) > 1)


def _start(run_id: str) -> str:
    """SFT loss dft, for sft_loss-dft_seed-1."""
    method, *fields = re.split("_(?=[a-z]+-|nf4)", run_id)  # values, too, may have underscores
    told = [field.replace("-", " ", 1) for field in fields if not field.startswith("seed-")]
    return " ".join([method.upper(), *told])


def interval(row: dict[str, Any], sign: str = "") -> str:
    """How is an estimate written? In percent, as in 50.0 [41.0, 60.0]; sign="+" for differences."""
    value, low, high = (100 * row[name] for name in ("value", "low", "high"))
    text = f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def questions(gap: dict[str, Any], target: float = 0.0) -> str:
    """How many questions would bring the end of an interval to the target, seeds as they are?

    gap: a result of `stats.paired`. "about 2.5 times as many questions", or that none would do.
    """
    left = ((gap["value"] - target) / 1.96) ** 2 - (gap["se"] ** 2 - gap["se_items"] ** 2)
    if left <= 0:
        return "no number of questions alone"
    times = gap["se_items"] ** 2 / left
    text = f"about {times:.2g} times as many questions"
    return text if times > 1 else f"{text} (fewer than were asked)"


def column(rows: "pd.DataFrame") -> "pd.Series":
    """Estimates (value, low, high) as words for a table, as in 0.123 [0.1, 0.15]."""

    def told(row: Any) -> str:
        alone = row.low != row.low  # a single run has no interval
        return f"{row.value:.3g}" + ("" if alone else f" [{row.low:.3g}, {row.high:.3g}]")

    return rows.apply(told, axis=1)


def name(column: str) -> str:
    """The words for a column of the tables, as axes and headings use them."""
    return NAMES.get(column, column.replace("_", " "))
