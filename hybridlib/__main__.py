"""python -m hybridlib: run, sweep, table, claims, advise, book, base, verify."""

import argparse
import ast
import sys
from dataclasses import fields, replace
from typing import Any

from hybridlib import StudyError, files
from hybridlib.profiles import PROFILES, Profile, resolve
from hybridlib.rewards import REWARDS
from hybridlib.study import GRIDS, METHODS, Run

TOLD = {
    "rewards": ", ".join(f"{name} [{r.low}, {r.high}]" for name, r in sorted(REWARDS.items())),
    "reward_weights": "one for each; whatever stands beside correct should not outbid it",
}


def parser() -> argparse.ArgumentParser:
    """Verbs are what a user wants; the flags of `run` are the fields of `study.Run`."""
    top = argparse.ArgumentParser(prog="python -m hybridlib", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, does: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=does, description=does)
        sub.set_defaults(act=globals()[name])
        sub.add_argument(
            "--profile", default="tiny", help=f"one of: {', '.join(PROFILES)} (default: tiny)"
        )
        return sub

    def yours(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--model", default="", help="your model: a folder or a hub id")
        sub.add_argument(
            "--dataset", default="", help="your rows: a folder, a file, a hub id, or a known name"
        )
        sub.add_argument(
            "--columns", type=_mapping, default={}, metavar="question=Q,answer=A",
            help="which of its columns is the question, the answer, the completion, the level",
        )  # fmt: skip

    def shared(sub: argparse.ArgumentParser) -> None:
        yours(sub)
        sub.add_argument(
            "--workers",
            type=int,
            default=0,
            help="processes at once (default: as cores or GPUs allow)",
        )
        sub.add_argument("--force", action="store_true", help="run again what is stored")
        sub.add_argument(
            "--dry-run", action="store_true", help="say what would run, and why; needs no network"
        )

    one = verb("run", "Execute one run: train or merge, evaluate, write its record.")
    for f in fields(Run):
        flag = "--" + f.name.replace("_", "-")
        if f.name == "method":
            one.add_argument(flag, required=True, help=", ".join(METHODS))
        elif f.type is bool:
            one.add_argument(flag, action="store_true")
        elif isinstance(f.default, tuple):
            kind = float if f.name in ("reward_weights", "lambdas") else str
            says = f"{TOLD.get(f.name, '')} (default: {f.default})".strip()
            one.add_argument(flag, nargs="*", type=kind, default=f.default, help=says)
        else:
            one.add_argument(
                flag, type=type(f.default), default=f.default, help=f"(default: {f.default!r})"
            )
    shared(one)
    many = verb("sweep", "Execute a grid of runs, as many at a time as the machine carries.")
    many.add_argument("grid", help=f"one of: {', '.join(GRIDS)}")
    shared(many)
    verb("table", "Print what came out: one row per run, family, split and metric.").add_argument(
        "--csv", action="store_true", help="all columns, comma-separated"
    )
    judge = verb("claims", "Print the verdict on every claim from what has been run.")
    judge.add_argument("--keep", action="store_true", help="add changes to the kept history")
    which = verb("advise", "Say which rows to imitate, which to reinforce, which to leave out.")
    yours(which)
    which.add_argument("--rows", type=int, default=0, help="at most so many of each set (0: all)")
    which.add_argument("--out", default="", metavar="FOLDER", help="(default: advice/PROFILE)")
    full = verb("book", "Run the study, execute the chapters, render the book.")
    full.add_argument(
        "--only", nargs="*", default=[], metavar="CHAPTER", help="these chapters and what they need"
    )
    full.add_argument(
        "--force",
        nargs="*",
        default=None,
        metavar="CHAPTER",
        help="rerun these; none named: everything",
    )
    full.add_argument("--dry-run", action="store_true", help="say what would rerun, and why")
    full.add_argument("--jobs", type=int, default=2, help="chapters at once (default: 2)")
    full.add_argument(
        "-p",
        "--parameter",
        nargs=3,
        action="append",
        default=[],
        metavar=("CHAPTER", "NAME", "VALUE"),
    )
    tiny = verb("base", "Pretrain the tiny base from nothing (resumes), or print its ladder.")
    tiny.add_argument(
        "--ladder", action="store_true", help="accuracy by family and level, with intervals"
    )
    tiny.add_argument(
        "--rows", type=int, default=60, help="rows per family and level of the ladder (default: 60)"
    )
    tiny.add_argument("--force", action="store_true", help="replace the base that is there")
    again = verb(
        "verify",
        "Rerun recorded runs from their specification and compare every metric, bit by bit.",
    )
    again.add_argument(
        "--sample", type=int, default=2, help="how many, drawn at random (default: 2)"
    )
    again.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    again.add_argument("ids", nargs="*", metavar="RUN", help="or these runs")
    return top


def _mapping(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(mark and value for _, mark, value in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not question=COLUMN,answer=COLUMN")
    return {name: value for name, _, value in pairs}


def _literal(text: str) -> Any:
    """A number, a list, True ... as Python writes them; any other word is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _profile(args: argparse.Namespace) -> Profile:
    """Return the profile that the flags describe; an unknown dataset fails before any work."""
    if args.dataset:
        from hybridlib.data import check_known

        check_known(args.dataset)
    return resolve(args.profile, args.model, args.dataset, args.columns)


def run(args: argparse.Namespace) -> None:
    from hybridlib import study
    from hybridlib.pool import count_gpus

    chosen = Run(**{f.name: getattr(args, f.name) for f in fields(Run)})
    profile = _profile(args)
    known = "unsloth" in METHODS[args.method].backends
    if known and profile.backend == "unsloth" and args.backend == "hf" and count_gpus():
        chosen = replace(chosen, backend="unsloth")
    if args.dry_run:
        from hybridlib import estimate

        return estimate.show(chosen, profile)
    parents = [study.recorded(need, profile) for need in chosen.prerequisites]
    study.execute_all([*parents, chosen], profile, args.workers, args.force)
    record = study.results.find(chosen, profile)
    for s in record["scores"]:
        print(
            f"{s['family']:<12} {s['split']:<8} {s['metric']:<8} {s['value']:.3f} "
            f"[{s['low']:.3f}, {s['high']:.3f}] n={s['n']}"
        )
    print(files.results_folder(profile.name) / f"{chosen.id}.json")


def sweep(args: argparse.Namespace) -> None:
    from hybridlib import study

    profile = _profile(args)
    runs = GRIDS[args.grid](profile)
    todo = study.plan(runs, profile, args.force)
    if args.dry_run:
        for one, why in todo.items():
            print(f"{one.id}: {why}")
        print(f"{len(todo)} of {len(runs)} runs would run")
        return
    study.execute_all(runs, profile, args.workers, args.force)
    print(f"{len(runs)} runs finished: {files.results_folder(profile.name)}")


def table(args: argparse.Namespace) -> None:
    from hybridlib import results

    found = results.table(PROFILES[args.profile].name)
    if args.csv:
        return found.to_csv(sys.stdout, index=False)
    if found.empty:
        raise StudyError(
            f"no results of profile {args.profile}; python -m hybridlib sweep everything makes them"
        )
    wide = found[found.metric == "sampled"].pivot_table(
        index="id", columns=["split", "family"], values="value"
    )
    print(wide.round(3).to_string())


def claims(args: argparse.Namespace) -> None:
    from hybridlib.claims import verdicts
    from hybridlib.claims.rules import CLAIMS

    profile = PROFILES[args.profile]
    found = verdicts.ledger(profile)
    for one in found:
        print(f"{CLAIMS[one.name].code:<4} {one.verdict:<10} {CLAIMS[one.name].says}")
        for effect in one.effects:
            interval = f"[{effect['low']:+.3f}, {effect['high']:+.3f}]"
            print(f"     {effect['what']}: {effect['estimate']:+.3f} {interval}")
    if args.keep:
        verdicts.extend_history(profile, found)


def advise(args: argparse.Namespace) -> None:
    from pathlib import Path

    from hybridlib.advise import report as adviser

    profile = _profile(args)
    print(adviser.advise(profile, Path(args.out or f"advice/{profile.name}"), args.rows))


def book(args: argparse.Namespace) -> None:
    from hybridlib.book import build

    parameters: dict[str, dict[str, Any]] = {}
    for chapter, name, value in args.parameter:
        parameters.setdefault(chapter, {})[name] = _literal(value)
    build.build(
        PROFILES[args.profile], only=args.only, force=args.force, dry_run=args.dry_run,
        jobs=args.jobs, parameters=parameters,
    )  # fmt: skip


def base(args: argparse.Namespace) -> None:
    from hybridlib import pretrain as tiny

    if not args.ladder:
        print(tiny.pretrain(fresh=args.force))
        return
    print(f"sampled at temperature 1, {args.rows} rows a level; 95 % intervals over rows")
    print("family      level  accuracy  interval        rows  samples")
    for row in tiny.ladder(rows=args.rows):
        print(
            f"{row['family']:<11} {row['level']:>5}  {row['value']:>8.3f}  "
            f"[{row['low']:.3f}, {row['high']:.3f}]  {row['rows']:>4}  {row['samples']:>7}"
        )


def verify(args: argparse.Namespace) -> None:
    from hybridlib.verify import verify as again

    if not again(PROFILES[args.profile], args.sample, args.seed, args.ids):
        raise StudyError("not equal; see above for what differs")


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        args.act(args)
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
