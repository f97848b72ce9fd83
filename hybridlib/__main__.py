"""python -m hybridlib VERB: carry out runs, judge claims, build the book, examine the machine."""

import ast
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from hybridlib import StudyError, data, profiles, results, study, tracking
from hybridlib.files import results_folder
from hybridlib.grids import GRIDS
from hybridlib.methods import METHODS
from hybridlib.pretrain import SIZES
from hybridlib.profiles import PROFILES, Profile
from hybridlib.registry import REGISTRIES
from hybridlib.rewards import REWARDS
from hybridlib.runs import Run, at_least
from hybridlib.tracking import TRACKERS

ProfileName = Annotated[str, arg(metavar="NAME", help=f"one of: {', '.join(PROFILES)}")]
DatasetName = Annotated[
    str,
    arg(
        metavar="ROWS", help=f"your rows: a folder, a file, a hub id, or {', '.join(data.DATASETS)}"
    ),
]
SizeName = Annotated[str, arg(metavar="SIZE", help=f"one of: {', '.join(SIZES)}")]
GridName = Annotated[str, arg(metavar="GRID", help=f"one of: {', '.join(GRIDS)}")]
TrackerName = Annotated[str, arg(metavar="TRACKER", help=f"watch in: {', '.join(TRACKERS)}")]
RunName = Annotated[str, arg(metavar="RUN")]
RunNames = Annotated[tuple[str, ...], arg(metavar="[RUN ...]")]
ChapterNames = Annotated[tuple[str, ...], arg(metavar="[CHAPTER ...]")]
Parameters = Annotated[
    UseAppendAction[tuple[tuple[str, str, str], ...]],
    arg(aliases=["-p"], metavar="CHAPTER NAME VALUE"),
]

app = tyro.extras.SubcommandApp()


@dataclass(frozen=True)
class Setting:
    """What all runs of a call share: a profile, on your model and rows if you like."""

    profile: ProfileName = "tiny"
    model: str = ""  # your model: a folder or a hub id
    dataset: DatasetName = ""
    # which columns of your rows are the question, the answer, the completion, the level
    columns: Annotated[str, arg(metavar="question=Q,answer=A")] = ""

    def resolve(self) -> Profile:
        """Return the profile that this means; raises StudyError for what is not there."""
        if self.dataset:
            data.check_known(self.dataset)
        return profiles.resolve(self.profile, self.model, self.dataset, _columns(self.columns))


@dataclass(frozen=True)
class Execution:
    """How the runs are carried out."""

    workers: int = 0  # processes at once, 0 = as many as cores or GPUs allow
    force: bool = False  # run again what is stored
    dry_run: bool = False  # say what would run, and why; needs no network
    track: TrackerName = ""

    def __post_init__(self) -> None:
        at_least(0, workers=self.workers)


def _valid_names() -> str:
    """List the valid names of the flags of `run` that name something registered."""
    lines = [
        "Everything about one model under test. "
        "What stands beside the reward correct should not outbid it. Valid names:"
    ]
    for field in fields(Run):
        if kind := field.metadata.get("registry"):
            names = sorted(REGISTRIES[kind])
            if kind == REWARDS.kind:
                names = [f"{n} [{REWARDS[n].low:g}, {REWARDS[n].high:g}]" for n in names]
            lines.append(f"--{field.name.replace('_', '-')}: {', '.join(names)}.")
    return "\n".join(lines)


@app.command(name="run")
def execute_run(
    run: Annotated[Run, arg(help=_valid_names())],
    setting: Setting,
    execution: Execution,
    anyway: bool = False,
) -> None:
    """Execute one run: train or merge, evaluate, write its record.

    Args:
        anyway: start GRPO even where next to none of the model's answers are right
    """
    from hybridlib import pilot
    from hybridlib.pool import count_gpus

    profile = setting.resolve()
    by_unsloth = profile.backend == "unsloth" and "unsloth" in METHODS[run.method].backends
    if by_unsloth and run.backend == "hf" and count_gpus():
        run = replace(run, backend="unsloth")
    study.check(run, profile)
    tracking.choose(execution.track)
    if execution.dry_run:
        from hybridlib import estimate, preflight

        preflight.check_model(profile)
        estimate.show(run, profile)
        return
    before = [study.recorded(run_id, profile) for run_id in run.prerequisites]
    study.execute_all(
        [*before, run],
        profile,
        execution.workers,
        execution.force,
        gate=None if anyway else pilot.check,
    )
    record = results.find(run, profile)
    for s in record["scores"]:
        print(
            f"{s['family']:<12} {s['split']:<8} {s['metric']:<8} {s['value']:.3f} "
            f"[{s['low']:.3f}, {s['high']:.3f}] n={s['n']}"
        )
    print(results_folder(profile.name) / f"{run.id}.json")


@app.command(name="sweep")
def execute_grid(grid: Positional[GridName], setting: Setting, execution: Execution) -> None:
    """Execute a grid of runs, as many at a time as the machine carries."""
    profile = setting.resolve()
    runs = GRIDS[grid](profile)
    tracking.choose(execution.track)
    if execution.dry_run:
        todo = study.plan(runs, profile, execution.force)
        for run, reason in todo.items():
            print(f"{run.id}: {reason}")
        print(f"{len(todo)} of {len(runs)} runs would run")
        return
    study.execute_all(runs, profile, execution.workers, execution.force)
    print(f"{len(runs)} runs finished: {results_folder(profile.name)}")


@app.command(name="table")
def print_table(profile: ProfileName = "tiny", csv: bool = False) -> None:
    """Print what came out: sampled accuracy, one row per run.

    Args:
        csv: print one row per run, family, split and metric instead, comma-separated
    """
    table = results.table(PROFILES[profile].name)
    if csv:
        table.to_csv(sys.stdout, index=False)
        return
    if table.empty:
        raise StudyError(
            f"no results of profile {profile}; python -m hybridlib sweep everything makes them"
        )
    wide = table[table.metric == "sampled"].pivot_table(
        index="id", columns=["split", "family"], values="value"
    )
    print(wide.round(3).to_string())


@app.command(name="claims")
def print_claims(
    profile: ProfileName = "tiny-full",
    keep: bool = False,
    next_stage: Annotated[bool, arg(name="next")] = False,
    dry_run: bool = False,
    workers: int = 0,
) -> None:
    """Print the verdict on every claim from what has been run, or run what is undecided further.

    Args:
        keep: add changed verdicts to the history in data/verdicts
        next_stage: run the next stage of the claims that are undecided, and of no others (resumes)
        dry_run: with --next, say what would run
        workers: with --next, processes at once, 0 = as many as cores or GPUs allow
    """
    from hybridlib.claims import verdicts

    at_least(0, workers=workers)
    resolved = PROFILES[profile]
    if dry_run and not next_stage:
        raise StudyError("--dry-run goes with --next")
    if next_stage:
        _run_next_stages(resolved, dry_run, workers)
        return
    ledger = verdicts.ledger(resolved)
    _print_ledger(ledger)
    if keep:
        verdicts.extend_history(resolved, ledger)


def _run_next_stages(profile: Profile, dry_run: bool, workers: int) -> None:
    from hybridlib.claims import CLAIMS, runs_to_come

    to_come = runs_to_come(profile)
    for name, runs in to_come.items():
        print(f"{CLAIMS[name].code:<4} {len(runs):>4} runs  {CLAIMS[name].says}")
    once = list(dict.fromkeys(run for runs in to_come.values() for run in runs))
    if dry_run:
        print(f"{len(once)} runs would run")
        return
    study.execute_all(once, profile, workers)
    print(f"{len(once)} runs finished: {results_folder(profile.name)}")


def _print_ledger(ledger: Any) -> None:
    from hybridlib.claims import CLAIMS, in_words

    for one in ledger:
        print(f"{CLAIMS[one.name].code:<4} {in_words(ledger, one.name)}: {CLAIMS[one.name].says}")
        for effect in one.effects:
            shown = {effect["metric"]: [effect[end] for end in ("estimate", "low", "high")]}
            cells = [
                f"{metric} {value:+.3f} [{low:+.3f}, {high:+.3f}]".strip()
                for metric, (value, low, high) in (shown | effect["also"]).items()
            ]
            print(f"     {effect['what']} ({effect['seeds']} seeds): {'; '.join(cells)}")


@app.command(name="power")
def print_power(profile: ProfileName = "tiny-full", items: int = 900, keep: bool = False) -> None:
    """Print which effect each claim will find four times in five, at each stage of seeds.

    Args:
        profile: whose records say how comparisons scatter
        items: test items of the study that is planned, all families together
        keep: store the table for the page of claims, dated today
    """
    from hybridlib.claims import Evidence, power

    at_least(2, items=items)
    found = power.measured(Evidence(PROFILES[profile]), items)
    for line in power.lines(found):
        code, what, *cells = line
        print(f"{code:<5} {what:<48}", *(f"{cell:>11}" for cell in cells))
    if keep:
        power.keep(found)


@app.command(name="advise")
def advise_on_rows(setting: Setting, rows: int = 0, out: str = "") -> None:
    """Say which rows to imitate, which to reinforce, which to leave out.

    Args:
        rows: at most so many of each set, 0 = all
        out: folder that the report and the rows go to, "" = advice/PROFILE
    """
    from hybridlib.advise import report

    at_least(0, rows=rows)
    profile = setting.resolve()
    print(report.advise(profile, Path(out or f"advice/{profile.name}"), rows))


@app.command(name="book")
def build_book(
    profile: ProfileName = "tiny",
    only: ChapterNames = (),
    force: Annotated[tuple[str, ...] | None, arg(metavar="[CHAPTER ...]")] = None,
    dry_run: bool = False,
    jobs: int = 2,
    parameter: Parameters = (),
) -> None:
    """Run the study, execute the chapters, render the book.

    Args:
        only: these chapters and what they need
        force: rerun these; none named: everything
        dry_run: say what would rerun, and why
        jobs: chapters at once
        parameter: another value of a chapter's parameter
    """
    from hybridlib.book import build

    at_least(1, jobs=jobs)
    parameters: dict[str, dict[str, Any]] = {}
    for chapter, name, value in parameter:
        parameters.setdefault(chapter, {})[name] = _literal(value)
    build.build(
        PROFILES[profile],
        only=only,
        force=force,
        dry_run=dry_run,
        jobs=jobs,
        parameters=parameters,
    )


@app.command(name="base")
def pretrain_base(
    profile: ProfileName = "tiny",
    size: SizeName = "small",
    seed: int = 0,
    ladder: bool = False,
    gate: bool = False,
    rows: int = 60,
    force: bool = False,
) -> None:
    """Pretrain a base from nothing (resumes), or say what one can do.

    Args:
        profile: taken by every verb; here it changes nothing, since sizes have names of their own
        size: of the base
        seed: of pretraining; others than 0 go to runs/bases
        ladder: print accuracy by family and level and kinds of error, and train nothing
        gate: print the ladder and whether the base is fit for the study; ends with code 2 if not
        rows: per family and level of the ladder
        force: replace the base that is there
    """
    from hybridlib import pretrain

    at_least(1, rows=rows)
    PROFILES[profile]  # a misspelt name is an error here, too
    if size not in pretrain.SIZES:
        raise StudyError(f"unknown size {size!r}; valid: {', '.join(pretrain.SIZES)}")
    folder = pretrain.base_folder(size, seed)
    if ladder or gate:
        _print_ladder(folder, rows, gate)
        return
    recipe = replace(pretrain.SIZES[size], seed=seed)
    print(pretrain.pretrain(folder, recipe, fresh=force))


def _print_ladder(folder: Path, rows: int, gate: bool) -> None:
    """Print what a base can do; raises StudyError if `gate` is set and the base is not fit."""
    from hybridlib import ladder

    answers = ladder.answer(folder, rows)
    columns = ("greedy", "sampled", "any")
    print(f"{folder}: {ladder.SAMPLES} samples at temperature 1; 95 % intervals over rows")
    print(f"family      level    rows  greedy{'':<17}sampled{'':<16}pass@{ladder.SAMPLES}")
    for line in ladder.rungs(answers).to_dict("records"):
        shares = "  ".join(_with_interval(line[column]) for column in columns)
        print(f"{line['family']:<11} {line['rung']:<7} {line['rows']:>5}  {shares}")
    print("\nfirst errors of wrong greedy answers, in %")
    print("family      level  wrong  " + "  ".join(ladder.errors.ERRORS))
    for line in ladder.errors_by_level(answers).to_dict("records"):
        shares = "  ".join(f"{line[kind] * 100:>{len(kind)}.0f}" for kind in ladder.errors.ERRORS)
        print(f"{line['family']:<11} {line['level']:>5}  {line['wrong']:>5}  {shares}")
    if not gate:
        return
    checks = ladder.gate(answers, ladder.attempt(folder))
    print("\ngate")
    for check in checks:
        verdict = "holds" if check.holds else "FAILS"
        bounds = f"{check.least:g} to {check.most:g}"
        estimate = _with_interval(check.estimate)
        print(f"{verdict}  {estimate}  n={check.rows:<5} {bounds:<12} {check.what}")
    if failing := sum(not check.holds for check in checks):
        raise StudyError(f"{folder.name} is not fit for the study: {failing} checks fail")


def _with_interval(estimate: tuple[float, float, float]) -> str:
    value, low, high = estimate
    return f"{value:>6.3f} [{low:.3f}, {high:.3f}]"


@app.command(name="verify")
def verify_records(
    runs: Positional[RunNames] = (),
    profile: ProfileName = "tiny",
    sample: int = 2,
    seed: int = 0,
) -> None:
    """Rerun recorded runs from their specification and compare every metric, bit by bit.

    Args:
        runs: ids of the runs; none named: a sample
        sample: how many, drawn at random
        seed: of the draw
    """
    from hybridlib.verify import verify

    at_least(1, sample=sample)
    verify(PROFILES[profile], sample, seed, runs)


@app.command(name="restamp")
def restamp_records(profile: ProfileName = "tiny", sample: int = 12, seed: int = 0) -> None:
    """Rerun a sample of the records; if all are bitwise equal, renew the fingerprints of all.

    Args:
        sample: how many, drawn at random
        seed: of the draw
    """
    from hybridlib.restamp import restamp

    at_least(1, sample=sample)
    print(f"{restamp(PROFILES[profile], sample, seed)} records renewed")


@app.command(name="export")
def export_run(
    run: Positional[RunName],
    to: Annotated[Path, arg(metavar="FOLDER")],
    setting: Setting,
    merged: bool = False,
) -> None:
    """Write the adapter of a finished run, or its whole model, with a model card, for others.

    Args:
        run: id of the run, as `table` lists it
        to: the folder to write, which may not exist yet
        merged: write the model with the adapter in its weights, which transformers loads alone
    """
    from hybridlib.export import export

    print(export(run, setting.resolve(), to.expanduser(), merged))


@app.command(name="doctor")
def examine_machine() -> None:
    """Say what will run on this machine, what will not, and what mends it."""
    from hybridlib import doctor

    for line in doctor.examine():
        print(line, flush=True)


def _columns(text: str) -> dict[str, str]:
    """Read question=COLUMN,answer=COLUMN; "" means no columns."""
    columns = {}
    for pair in text.split(",") if text else []:
        name, _, column = pair.partition("=")
        if not column:
            raise StudyError(f"--columns {text!r} is not question=COLUMN,answer=COLUMN")
        columns[name] = column
    return columns


def _literal(text: str) -> Any:
    """Return a number, a list, True ... as Python writes them; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main(arguments: list[str] | None = None) -> int:
    """Carry out a command line (default: the process's) and return its exit code.

    Failures that the user can fix are one line on stderr and code 2; what is no verb or flag, or
    has no number where one belongs, ends the process with code 2.
    """
    options = (OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        app.cli(prog="python -m hybridlib", description=__doc__, args=arguments, config=options)
    except StudyError as error:
        print(f"hybridlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nhybridlib: stopped; finished runs and chapters are kept, the same call goes on",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
