"""What can a base do, where does it err, and is it fit for the study? Its ladder and its gate.

A study that compares ways to train needs a base with something left to learn, and errors that are
more than noise of sampling: or whatever lowers the temperature wins.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridlib import StudyError, data, grading, models, proportions
from hybridlib.engine import rollout
from hybridlib.tiny import FAMILIES, SPLITS, errors

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from datasets import Dataset

SAMPLES = 8  # at each temperature
TRAINING_SAMPLES = 32  # of a training row
LIMIT = 112  # tokens of an answer
LEVELS = SPLITS["test"].levels


class Estimate(NamedTuple):
    """A mean over rows with its 95 % interval."""

    value: float
    low: float
    high: float


class Check(NamedTuple):
    """One condition of the gate: what was measured, on how many rows, and what it has to be."""

    what: str
    estimate: Estimate
    rows: int
    least: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether the estimate, as it is printed, lies within the bounds."""
        return self.least <= round(self.estimate.value, 3) <= self.most


def answer(folder: Path, rows: int = 60, split: str = "test") -> "pd.DataFrame":
    """Let a base answer held-out questions, greedily and SAMPLES times at temperatures 1 and .5.

    Args:
        folder: of the base.
        rows: about how many per family and level of `split`, `longer` and `wording`.
        split: where levels 1 to 5 come from.

    Returns:
        One row per question: family, split, level, greedy (0 or 1), sampled and cool (the share of
        right answers at temperatures 1 and .5), any (whether one of those at 1 is right), error
        (the first one of a wrong greedy answer, else "").

    Raises:
        StudyError: there is no such folder.
    """
    import pandas as pd

    model, tokenizer = _load(folder)
    parts = []
    for name in FAMILIES:
        for part in (split, "longer", "wording"):
            table = data.load(name, part, limit=rows * len(SPLITS[part].levels))
            greedy = _right(model, tokenizer, table, 1, 0.0)
            sampled = _right(model, tokenizer, table, SAMPLES, 1.0)
            cool = _right(model, tokenizer, table, SAMPLES, 0.5)
            found = {
                "family": name,
                "split": part,
                "level": table["level"],
                "greedy": [float(right) for ((right, _),) in greedy],
                "sampled": [_share(row) for row in sampled],
                "cool": [_share(row) for row in cool],
                "any": [float(_share(row) > 0) for row in sampled],
                "error": [
                    "" if right else errors.first_error(solution, text, kind)
                    for ((right, text),), solution, kind in zip(
                        greedy, _solutions(table), table["kind"], strict=True
                    )
                ],
            }
            parts.append(pd.DataFrame(found))
    return pd.concat(parts, ignore_index=True)


def attempt(folder: Path, rows: int = 300) -> "pd.DataFrame":
    """Let a base answer training rows, greedily and TRAINING_SAMPLES times at temperature 1.

    Returns:
        One row per question: family, greedy (0 or 1), right (how many of the samples are).

    Raises:
        StudyError: there is no such folder.
    """
    import pandas as pd

    model, tokenizer = _load(folder)
    parts = []
    for name in FAMILIES:
        table = data.load(name, "train", limit=rows)
        greedy = _right(model, tokenizer, table, 1, 0.0)
        sampled = _right(model, tokenizer, table, TRAINING_SAMPLES, 1.0)
        found = {
            "family": name,
            "greedy": [_share(row) for row in greedy],
            "right": [sum(right for right, _ in row) for row in sampled],
        }
        parts.append(pd.DataFrame(found))
    return pd.concat(parts, ignore_index=True)


def rungs(answers: "pd.DataFrame") -> "pd.DataFrame":
    """Return accuracy by family and rung: "1" to "5", "longer", "wording" as a whole.

    Columns: family, rung, rows, and an `Estimate` each of greedy, sampled and any.
    """
    import pandas as pd

    names = answers["split"].where(answers["split"].isin(["longer", "wording"]))
    rung = names.fillna(answers["level"].astype(str))
    lines = []
    for (family, name), group in answers.assign(rung=rung).groupby(["family", "rung"]):
        means = {column: mean(group[column]) for column in ("greedy", "sampled", "any")}
        lines.append({"family": family, "rung": name, "rows": len(group), **means})
    return pd.DataFrame(lines)


def errors_by_level(answers: "pd.DataFrame") -> "pd.DataFrame":
    """Return family, level, wrong (greedy answers), and of these the share of each of ERRORS."""
    import pandas as pd

    wrong = answers[(answers["error"] != "") & (answers["split"] != "wording")]
    lines = []
    for (family, level), group in wrong.groupby(["family", "level"]):
        counts = Counter(group["error"])
        shares = {kind: counts[kind] / len(group) for kind in errors.ERRORS}
        lines.append({"family": family, "level": level, "wrong": len(group), **shares})
    return pd.DataFrame(lines)


def gate(answers: "pd.DataFrame", attempts: "pd.DataFrame") -> list[Check]:
    """Check whether a base is fit for the study.

    Args:
        answers: as `answer` returns them.
        attempts: as `attempt` returns them.
    """
    checks = []
    held_out = answers[~answers["split"].isin(["longer", "wording"])]
    middle, top = LEVELS[len(LEVELS) // 2], LEVELS[-1]
    for family in answers["family"].unique():
        of_family = answers[answers["family"] == family]
        usual = held_out[held_out["family"] == family]
        wording = of_family[of_family["split"] == "wording"]["greedy"]
        greedy = {level: usual[usual["level"] == level]["greedy"] for level in LEVELS}
        longer = of_family[of_family["split"] == "longer"]["greedy"]
        checks += [
            _check(f"{family}: greedy, level {LEVELS[0]}", greedy[LEVELS[0]], 0.9, 1.0),
            _check(f"{family}: greedy, level {middle}", greedy[middle], 0.4, 0.7),
            _check(f"{family}: greedy, level {top}", greedy[top], 0.05, 0.3),
            _check(f"{family}: greedy, longer", longer, 0.02, 0.15),
            _ratio(f"{family}: greedy, wording over usual", wording, usual["greedy"], 0.5, 2.0),
        ]
    checks.append(_check("greedy, all levels", held_out["greedy"], 0.4, 0.6))
    for level in LEVELS:
        rung = held_out[held_out["level"] == level]
        gap = rung["greedy"] - rung["sampled"]
        checks.append(_check(f"greedy less sampled, level {level}", gap, -0.12, 0.12))
    checks.append(_ratio("sampled over greedy", held_out["sampled"], held_out["greedy"], 0.7, 2.0))
    gain = held_out["cool"] - held_out["sampled"]
    checks.append(_check("temperature .5 less temperature 1", gain, -1.0, 0.07))
    right, greedy = attempts["right"], attempts["greedy"]
    never = ((right == 0) & (greedy == 0)).astype(float)
    what = f"training rows wrong greedily and in {TRAINING_SAMPLES} samples"
    checks.append(_check(what, never, 0.15, 1.0))
    mixed = ((right > 0) & (right < TRAINING_SAMPLES)).astype(float)
    what = f"training rows right in some of {TRAINING_SAMPLES} samples and wrong in others"
    checks.append(_check(what, mixed, 0.2, 1.0))  # or RL has nothing to choose between
    return checks


def mean(values: "Sequence[float]") -> Estimate:
    """Return the mean of one value per row, with a 95 % interval over rows.

    By Wilson where every value is 0 or 1, else by the bootstrap.
    """
    import numpy as np

    scores = np.asarray(values, float)
    if set(np.unique(scores)) <= {0.0, 1.0}:
        return Estimate(scores.mean(), *proportions.wilson(scores.sum(), len(scores)))
    return Estimate(scores.mean(), *_quantiles(_resampled(scores)))


def _check(what: str, values: "Sequence[float]", least: float, most: float) -> Check:
    return Check(what, mean(values), len(values), least, most)


def _ratio(
    what: str, above: "Sequence[float]", below: "Sequence[float]", least: float, most: float
) -> Check:
    """Check a ratio of two means; columns of one table are resampled together."""
    import numpy as np

    above, below = np.asarray(above, float), np.asarray(below, float)
    draws = _resampled(above) / np.maximum(_resampled(below), 1e-9)
    value = above.mean() / max(below.mean(), 1e-9)
    return Check(what, Estimate(value, *_quantiles(draws)), len(above), least, most)


def _resampled(scores: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return proportions.bootstrap_shares(np.random.default_rng(0), len(scores)) @ scores


def _quantiles(draws: "np.ndarray") -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    if not folder.exists():
        raise StudyError(f"{folder} is missing; build it with: python -m hybridlib base")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return model, models.load_tokenizer(str(folder))


def _right(
    model: Any, tokenizer: Any, table: "Dataset", samples: int, temperature: float
) -> list[list[tuple[bool, str]]]:
    """Return for each row whether each answer is right, and the answer."""
    texts = rollout.sample(model, tokenizer, table["prompt"], samples, LIMIT, temperature)
    flat = [text for row in texts for text in row]
    golds = [gold for gold in table["answer"] for _ in range(samples)]
    kinds = [kind for kind in table["kind"] for _ in range(samples)]
    asked = [form for form in table["asked"] for _ in range(samples)]
    verdicts = grading.grade_many(flat, golds, kinds, asked)
    pairs = [(verdict.correct, text) for verdict, text in zip(verdicts, flat, strict=True)]
    return [pairs[i : i + samples] for i in range(0, len(pairs), samples)]


def _share(answers: list[tuple[bool, str]]) -> float:
    return sum(right for right, _ in answers) / len(answers)


def _solutions(table: "Dataset") -> list[str]:
    return [turns[-1]["content"] for turns in table["completion"]]
