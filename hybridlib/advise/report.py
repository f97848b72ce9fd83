"""Which of my rows should I imitate, which reinforce, which leave out; then merge or stack?

The base is measured on the rows, `choice` says what the evidence of one profile makes of their
buckets, and rows and reasons are written down.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hybridlib import StudyError, difficulty, results, stats
from hybridlib.advise.choice import METHOD_OF_FILE, Choice, Flip, choices, expected, merge_or_stack
from hybridlib.data import intake
from hybridlib.grids import MERGE, PER_BUCKET
from hybridlib.labels import interval
from hybridlib.partition import BUCKETS, bucket
from hybridlib.profiles import PROFILES, Profile
from hybridlib.runs import Run

EVIDENCE = "tiny-full"  # the profile whose committed results decide
OUT_OF_REACH = 0.9
"""Share of rows that the base never solves above which the set is the wrong one for this base:
fewer than one row in ten can tell RL anything, and the evidence is from sets half in reach."""
SAYS = {
    "either": "On `{0}` the evidence does not separate the two; its rows go to {1}, whose estimate "
    "is larger.",
    "leave out": "On `{0}` no gain of either method is sure. That does not say that they do harm.",
}


def advise(profile: Profile, out: Path, limit: int = 0) -> str:
    """Measure the rows of a profile's sets, write report.md and the rows by method; the summary.

    Args:
        out: folder; sft.jsonl and rl.jsonl have the columns of `intake` and passrate, and are only
            there where they have rows.
        limit: at most so many rows of each set, 0 for all.
    Raises:
        StudyError: no row can be used, the evidence is incomplete, or `out` cannot be written to.
    """
    from datasets import concatenate_datasets

    flip = Flip(PROFILES[EVIDENCE])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"cannot write to {out}: {error.strerror}") from None
    parts, refused = [], {}
    for name in profile.datasets:
        found, why = intake.usable(name, limit, profile.columns)
        parts, refused = parts + [found] * bool(len(found)), refused | why
    if not parts:
        told = "; ".join(f"{row}: {why}" for row, why in [*refused.items()][:3]) or "there is none"
        hint = "; answers that stand alone need --columns question=Q,answer=A"
        raise StudyError(
            f"no row of {', '.join(profile.datasets)} can be used ({told})"
            + hint * (not profile.columns)
        )
    rows = concatenate_datasets(parts)
    print(f"pass rates of {len(rows)} rows from {profile.n_difficulty} samples each", flush=True)
    rates = difficulty.pass_rates(profile, rows)
    sizes = {name: sum(bucket(rate) == name for rate in rates) for name in BUCKETS}
    chosen = choices(flip)
    if sizes["zero"] > OUT_OF_REACH * len(rows):
        chosen = [replace(c, verdict="reach", file="sft") if c.bucket == "zero" else c
                  for c in chosen]  # fmt: skip
    goes = {c.bucket: c.file for c in chosen}
    files: dict[str, list[dict]] = {"sft": [], "rl": [], "": []}
    for row, rate in zip(rows, rates, strict=True):
        files[goes[bucket(rate)]].append(row | {"passrate": rate})
    for name in METHOD_OF_FILE:
        file = out / f"{name}.jsonl"
        if files[name]:
            results.write(file, "".join(json.dumps(row) + "\n" for row in files[name]))
        else:
            file.unlink(missing_ok=True)  # of another time
    summary = _summary(profile, flip, chosen, sizes, rates, files, len(refused))
    results.write(out / "report.md", summary + _details(flip, profile.n_difficulty, refused))
    return f"{summary}\nWritten to {out / 'report.md'}"


def _summary(
    profile: Profile, flip: Flip, chosen: Sequence[Choice], sizes: dict[str, int],
    rates: Sequence[float], files: dict[str, list[dict]], refused: int,
) -> str:  # fmt: skip
    n, k = len(rates), profile.n_difficulty
    lines = [
        "# Which rows to imitate, which to reinforce", "",
        f"{n} rows of {', '.join(profile.datasets)} can be trained on"
        + f"; {refused} cannot (report.md lists them)" * bool(refused)
        + f". The base, {profile.model}, answered each {k} times, and "
        f"{100 * sum(rates) / n:.1f} % of its answers are right.", "",
    ]  # fmt: skip
    if chosen[0].verdict == "reach":
        lines += [_reach(sizes["zero"], n, k, files["sft"]), ""]
    lines += [
        "| bucket | pass rate | rows | go to | SFT - base | RL - base | SFT - RL | n | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(c, sizes[c.bucket], n) for c in chosen), "",
        "Gains are points of sampled accuracy on n test rows of the bucket after training on rows "
        "of that bucket alone, with 95 % intervals over seeds and test rows, each by itself and "
        "not corrected for their number. RL is GRPO.",
        *(SAYS[c.verdict].format(c.bucket, _say(c.file)) for c in chosen
          if c.verdict in SAYS and sizes[c.bucket]), "",
        "Files: " + ", ".join(f"{name}.jsonl has {len(files[name])} rows" if files[name] else
                              f"{name}.jsonl is not written, as it would have none"
                              for name in METHOD_OF_FILE) + f"; {len(files[''])} rows are left out.", "",
        f"**Merge or stack?** {_merge(flip, files)}", "",
        f"**What to expect?** {_expect(flip, chosen, sizes, n)}", "",
        _scale(flip), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _say(file: str) -> str:
    return file.upper() or "neither"


def _line(c: Choice, size: int, n: int) -> str:
    low, high = BUCKETS[c.bucket]
    rate = f"{low:g} to {high:g}" if high else "0"
    numbers = (interval(e | {"value": e["estimate"]}, "+") for e in (c.sft, c.rl, c.gap))
    return (
        f"| {c.bucket} | {rate} | {size} ({100 * size / n:.1f} %) | {_say(c.file)} | "
        f"{' | '.join(numbers)} | {c.gap['n']} | {c.gap['seeds'][0]} |"
    )


def _reach(zero: int, n: int, k: int, rows: Sequence[dict]) -> str:
    """Why RL can do nothing with most of the rows, and what can be done."""
    bare = sum(
        row["completion"][-1]["content"].strip()
        in (f"#### {row['answer']}", f"\\boxed{{{row['answer']}}}")
        for row in rows
    )
    return (
        f"**Most rows are out of the base's reach.** For {zero} of {n} rows "
        f"({100 * zero / n:.1f} %) none of {k} answers is right. RL gets no signal from them: it "
        "pays an answer by how much better it is than the others to the same question, and where "
        "all are wrong that is 0 for each. Train by SFT on worked solutions first, then measure "
        "again with that model as --model, or take a stronger base. The rows of `zero` are in "
        "sft.jsonl for that reason, whatever the evidence says of sets within reach."
        + f" {bare} of its rows hold the answer alone: write their solutions out first."
        * bool(bare)
    )


def _merge(flip: Flip, files: dict[str, list[dict]]) -> str:
    if not (files["sft"] and files["rl"]):
        return "Neither: at most one method gets rows."
    found = merge_or_stack(flip.evidence)
    if found is None:
        return (
            "Not known, as runs are missing: python -m hybridlib sweep hybrids "
            f"--profile {flip.profile.name} makes them."
        )
    gap = f"{interval(found | {'value': found['estimate']}, '+')} points"
    seeds = f"{found['n']} test rows, {found['seeds'][0]} seeds"
    told = (
        f"Merge the two adapters ({MERGE})" if found["low"] > 0
        else "Stack: GRPO on the adapter of SFT" if found["high"] < 0
        else "The evidence does not separate the two; the estimate is larger for "
        + (f"merging ({MERGE})" if found["estimate"] > 0 else "stacking, GRPO after SFT")
    )  # fmt: skip
    return f"{told}. Halves by pass rate merged, minus SFT then GRPO on all rows: {gap} ({seeds})."


def _expect(flip: Flip, chosen: Sequence[Choice], sizes: dict[str, int], n: int) -> str:
    if chosen[0].verdict == "reach":
        return "Nothing that the evidence could tell: it is from sets within the base's reach."
    found = expected(flip, chosen, {name: size / n for name, size in sizes.items()})
    if found is None:
        return "No gain: all rows are left out."
    return (
        f"{interval(found | {'value': found['estimate']}, '+')} points of sampled accuracy on rows "
        "like these, the mean of the buckets' gains over your rows (0 where they are left out). It "
        "supposes that training on several buckets at once neither adds nor takes away."
    )


def _scale(flip: Flip) -> str:
    """How large are the models and sets behind the advice?"""
    from hybridlib.estimate import parameters

    p = flip.profile
    size, tests = parameters(Run("base"), p)[0], flip.items.groupby(["family", "item"]).ngroups
    rows = flip.evidence.items.query("id == 'base' and split == 'test'")
    greedy, sampled = (100 * float(stats.score(rows, m).mean()) for m in ("greedy", "sampled"))
    return (
        f"**Evidence**: profile `{p.name}`: {p.model} with {size:,} parameters on "
        f"{', '.join(p.datasets)}; {PER_BUCKET} training rows of each set and bucket, {tests} test "
        f"rows, {len(p.seeds)} seeds. Whether it holds for a larger model "
        "or for other sets is untested. Gains are of answers sampled at temperature 1. That base "
        f"is right on {sampled:.0f} % of those and on {greedy:.0f} % decoded greedily: where the "
        "two lie far apart, a gain may be one in reliability and not in skill."
    )


def _details(flip: Flip, k: int, refused: dict[str, str]) -> str:
    """What the report has beside its summary: how it was found, and the rows that are of no use."""
    drawn = int(flip.items["split"].nunique())
    lines = [
        "## How this was found", "",
        f"A row of yours stands in its bucket by {k} answers of your base, a test row of the "
        f"evidence by {drawn - 1} of the {drawn} answers of its base. The base's accuracy there is "
        "that of the answer left out, each in turn: answers that choose the bucket and are "
        "compared in it, too, would make bad luck a gain. A bucket is left out if neither "
        "method's gain has an interval above 0; it goes to the better method if the interval of "
        "their difference leaves 0 out, and else to the larger estimate.", "",
        "Train: TRL's SFTTrainer on sft.jsonl; its GRPOTrainer on rl.jsonl without the column "
        "`completion`, paid by `hybridlib.rewards.correct`.", "",
    ]  # fmt: skip
    if refused:
        lines += ["## Rows that cannot be used", "", "| set/split/row, from 0 | why |", "|---|---|",
                  *(f"| {row} | {' '.join(why.replace('|', '/').split())} |"
                    for row, why in refused.items()), ""]  # fmt: skip
    return "\n" + "\n".join(lines)
