"""Which of my rows should I imitate, which reinforce, which leave out; then merge or stack?

The base is measured on the rows, `choice` says what the evidence of one profile makes of their
buckets, and rows and reasons are written down.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlib import StudyError, data, difficulty, files, markdown, preflight, stats
from hybridlib.advise.choice import (
    METHOD_OF_FILE,
    BucketChoice,
    choose,
    evidence_of,
    expected_gain,
    merge_or_stack,
)
from hybridlib.claims import CLAIMS, Effect, Evidence, in_words, ledger
from hybridlib.crossed import Estimate
from hybridlib.data import intake
from hybridlib.grids import MERGE, PER_BUCKET
from hybridlib.labels import interval
from hybridlib.partition import BUCKETS, bucket
from hybridlib.profiles import PROFILES, Form, Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    from datasets import Dataset

EVIDENCE = "tiny-full"  # the profile whose committed results decide
MAX_NEVER_SOLVED = 0.9
"""Share of rows that the base never solves above which a set is too hard for this base: fewer than
one row in ten can earn RL a reward, and of the sets behind the evidence the base solves about half
the rows at least sometimes."""
RESTS_ON = ("the_flip", "divide_and_merge", "sft_first")
"""The claims that say whether buckets, merges and stages are worth while at all."""
SOLUTIONS_FIRST = "solutions first"  # the advice on `zero` in such a set

Row = dict[str, Any]


def advise(profile: Profile, out: Path, limit: int = 0) -> str:
    """Sort the rows of a profile's sets by method, and return the summary of the report on them.

    Samples answers of the profile's model, asked by its forms, prints how many, and writes
    report.md and the rows.

    Args:
        out: folder; sft.jsonl and rl.jsonl have the columns of `intake` and passrate, with the
            question alone as the prompt, and are only there where they have rows.
        limit: at most so many rows of each set, 0 for all.

    Raises:
        StudyError: no row can be used, the evidence is incomplete, or `out` cannot be written to.
    """
    preflight.check_folders(profile)
    files.check_writable(out)
    preflight.check_model(profile)
    preflight.check_reachable(profile)
    evidence = evidence_of(PROFILES[EVIDENCE])
    rows, asked, refused = _usable_rows(profile, limit)
    print(f"pass rates of {len(rows)} rows from {profile.n_difficulty} samples each", flush=True)
    rates = difficulty.pass_rates(profile, asked)
    buckets = [bucket(rate) for rate in rates]
    sizes = {name: buckets.count(name) for name in BUCKETS}
    choices = choose(evidence)
    if sizes["zero"] > MAX_NEVER_SOLVED * len(rows):
        choices = _solutions_first(choices)
    by_file = _by_file(rows, rates, choices)
    for name in METHOD_OF_FILE:
        _write_rows(out / f"{name}.jsonl", by_file[name])
    facts = {
        "profile": profile,
        "rates": rates,
        "sizes": sizes,
        "by_file": by_file,
        "refused": refused,
        "too_hard": choices[0].advice == SOLUTIONS_FIRST,
    }
    summary = _summary(evidence, choices, facts)
    files.write(out / "report.md", summary + "\n" + _details(evidence, facts))
    return f"{summary}\nWritten to {out / 'report.md'}"


def _usable_rows(profile: Profile, limit: int) -> tuple[Dataset, Dataset, dict[str, str]]:
    """Return the rows of all sets of a profile that can be trained on, and how they are asked.

    Returns:
        The rows; the same in the profile's forms; id -> why of the rows that cannot be used.
    Raises:
        StudyError: there is none (with the first three reasons), or a set has too few for the
            worked examples of a form.
    """
    from datasets import concatenate_datasets

    parts, asked, refused = [], [], {}
    for name in profile.datasets:
        rows, reasons = intake.usable(name, limit, profile.columns)
        if len(rows):
            parts.append(rows)
            asked.append(_asked(rows, profile.ask))
        refused |= reasons
    if parts:
        return concatenate_datasets(parts), concatenate_datasets(asked), refused
    reasons = "; ".join(f"{row}: {why}" for row, why in [*refused.items()][:3]) or "there is none"
    hint = (
        "" if profile.columns else "; answers that stand alone need --columns question=Q,answer=A"
    )
    raise StudyError(f"no row of {', '.join(profile.datasets)} can be used ({reasons}){hint}")


def _asked(rows: Dataset, forms: Sequence[Form]) -> Dataset:
    """Return rows in the forms of their kinds; worked examples are the first others of the kind."""
    from datasets import Dataset

    most = max((form.examples for form in forms), default=0)
    by_kind: dict[str, list[Row]] = {}
    for row in rows if most else ():
        by_kind.setdefault(row["kind"], []).append(row)
    examples = [row for same in by_kind.values() for row in same[: most + 1]]
    return Dataset.from_list([data.asked(row, forms, examples) for row in rows])


def _solutions_first(choices: Sequence[BucketChoice]) -> list[BucketChoice]:
    """Return the choices, changed so that rows that the base never solves go to SFT."""
    zero, *others = choices
    return [replace(zero, advice=SOLUTIONS_FIRST, file="sft"), *others]


def _by_file(
    rows: Dataset, rates: Sequence[float], choices: Sequence[BucketChoice]
) -> dict[str, list[Row]]:
    """Return file -> its rows, with the column passrate; the file "" has those left out."""
    file_of_bucket = {choice.bucket: choice.file for choice in choices}
    by_file: dict[str, list[Row]] = {name: [] for name in (*METHOD_OF_FILE, "")}
    for row, rate in zip(rows, rates, strict=True):
        by_file[file_of_bucket[bucket(rate)]].append(row | {"passrate": rate})
    return by_file


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    if rows:
        files.write(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.unlink(missing_ok=True)  # an earlier report may have written it


# ---------------------------------------------------------------- the report


def _summary(evidence: Evidence, choices: Sequence[BucketChoice], facts: dict[str, Any]) -> str:
    sizes, n = facts["sizes"], len(facts["rates"])
    shares = {name: size / n for name, size in sizes.items()}
    return markdown.render(
        "hybridlib.advise",
        "summary.md.j2",
        **facts,
        n=n,
        answers_alone=sum(map(_is_answer_alone, facts["by_file"]["sft"])),
        choices=choices,
        table=_table(choices, sizes, n),
        merge_or_stack=_merge_or_stack(evidence, facts["by_file"]),
        expected=expected_gain(evidence, choices, shares),
        evidence=_facts_of(evidence),
        verdicts=_verdicts(evidence.profile),
        points=_points,
        in_points=_in_points,
        percent=_percent,
    )


def _details(evidence: Evidence, facts: dict[str, Any]) -> str:
    """Return the Markdown below the summary: the method, and a table of the refused rows."""
    import pandas as pd

    reasons = [" ".join(why.replace("|", "/").split()) for why in facts["refused"].values()]
    refused = pd.DataFrame({"set/split/row, from 0": [*facts["refused"]], "why": reasons})
    return markdown.render(
        "hybridlib.advise",
        "details.md.j2",
        profile=facts["profile"],
        samples=evidence.profile.n_samples,
        refused=markdown.table(refused) if reasons else "",
    )


def _is_answer_alone(row: Row) -> bool:
    """Return whether the solution of a row is its answer and nothing else."""
    alone = f"#### {row['answer']}", f"\\boxed{{{row['answer']}}}"
    return row["completion"][-1]["content"].strip() in alone


def _points(found: Estimate) -> str:
    """Return an estimate in percentage points with its interval, as in "+8.9 [+2.0, +15.8]"."""
    low, high = found.interval()
    return interval({"value": found.value, "low": low, "high": high}, "+")


def _in_points(effect: Effect) -> str:
    """Return an effect of a claim in the same way, with the interval that its verdict rests on."""
    return interval(effect | {"value": effect["estimate"]}, "+")


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _table(choices: Sequence[BucketChoice], sizes: dict[str, int], n: int) -> str:
    """Return the Markdown table of buckets: sizes, advice, gains and numbers behind them."""
    import pandas as pd

    rows = []
    for choice in choices:
        low, high = BUCKETS[choice.bucket]
        size = sizes[choice.bucket]
        rows.append(
            {
                "bucket": choice.bucket,
                "pass rate": f"{low:g} to {high:g}" if high else "0",
                "rows": f"{size} ({_percent(size, n)})",
                "go to": choice.file.upper() or "neither",
                "SFT - base": _points(choice.sft),
                "RL - base": _points(choice.rl),
                "SFT - RL": _points(choice.gap),
                "n": choice.gap.items,
                "seeds": choice.gap.seeds[0],
            }
        )
    return markdown.table(pd.DataFrame(rows))


def _merge_or_stack(evidence: Evidence, by_file: dict[str, list[Row]]) -> str:
    both = bool(by_file["sft"] and by_file["rl"])
    gap = merge_or_stack(evidence) if both else None
    low, high = gap.interval() if gap else (0.0, 0.0)
    return markdown.render(
        "hybridlib.advise",
        "merge_or_stack.md.j2",
        both=both,
        gap=gap,
        low=low,
        high=high,
        merge=MERGE,
        profile=evidence.profile,
        points=_points,
    )


def _verdicts(profile: Profile) -> list[dict[str, Any]]:
    """Return code, sentence, verdict and effects of the claims that the advice rests on."""
    judgements = ledger(profile)
    effects = {one.name: one.effects for one in judgements}
    return [
        {
            "code": CLAIMS[name].code,
            "says": CLAIMS[name].says,
            "verdict": in_words(judgements, name),
            "effects": effects[name],
        }
        for name in RESTS_ON
    ]


def _facts_of(evidence: Evidence) -> dict[str, Any]:
    """Return how large the model and sets behind the advice are, and the base's accuracies."""
    from hybridlib.estimate import parameters

    items = evidence.items
    base = items[(items["id"] == "base") & (items["split"] == "test")]
    return {
        "profile": evidence.profile,
        "parameters": parameters(Run("base"), evidence.profile)[0],
        "per_bucket": PER_BUCKET,
        "n_tests": len(base),
        "greedy": float(stats.item_scores(base, "greedy").mean()),
        "sampled": float(stats.item_scores(base, "sampled").mean()),
    }
