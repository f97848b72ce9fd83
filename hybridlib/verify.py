"""Does a recorded run repeat? Rerun from its specification and compare, bit by bit."""

import random
from collections.abc import Sequence
from typing import Any

from hybridlib import StudyError, results, study
from hybridlib.pool import Pool
from hybridlib.profiles import Profile
from hybridlib.runs import Run

COMPARED = ("scores", "items", "curve", "checkpoints", "samples", "facts")


def verify(profile: Profile, sample: int = 2, seed: int = 0, ids: Sequence[str] = ()) -> list[str]:
    """Rerun recorded runs and compare every score, item, curve point, sampled text and fact.

    Trains the parents of composed runs again, whose adapters are not in git. Prints a line for
    each run. Bitwise equality is promised for one machine, code and thread count; where these
    differ from the record, that is said first. Stored records stay as they are.

    Args:
        sample: how many records to draw with `seed`, from as many different methods as there are.
        ids: rerun these instead.
    Returns:
        The ids of the runs that were rerun.
    Raises:
        StudyError: there is nothing to verify, a run is unknown, or one is not equal.
    """
    records = {record["id"]: record for record in results.read(profile.name)}
    if not records:
        raise StudyError(f"no results of profile {profile.name} to verify; make book computes them")
    for missing in [name for name in ids if name not in records]:
        raise StudyError(f"no run {missing!r}; valid: {', '.join(records)}")
    chosen = list(ids) or draw(records, sample, seed)
    runs = [Run(**records[name]["run"]) for name in chosen]
    with Pool(profile, study.execute) as pool:
        reruns = pool.work(study.plan(runs, profile, force=True), save=False)
    different = [
        name for name in chosen if not _equal(records[name], results.as_json(reruns[name]))
    ]
    if different:
        raise StudyError(f"not equal: {', '.join(different)}; see above for what differs")
    return chosen


def draw(records: dict[str, dict[str, Any]], sample: int, seed: int) -> list[str]:
    """Draw ids of records at random, one of each method before a second of any."""
    generator = random.Random(seed)
    by_method: dict[str, list[str]] = {}
    for name in sorted(records):
        by_method.setdefault(records[name]["run"]["method"], []).append(name)
    for names in by_method.values():
        generator.shuffle(names)
    methods = sorted(by_method)
    drawn: list[str] = []
    while len(drawn) < min(sample, len(records)):
        generator.shuffle(methods)
        drawn += [by_method[method].pop() for method in methods if by_method[method]]
    return sorted(drawn[:sample])


def _equal(recorded: dict[str, Any], rerun: dict[str, Any]) -> bool:
    """Return whether all COMPARED parts are equal; print the outcome."""
    for key in ("device", "threads", "code"):
        if recorded["provenance"][key] != rerun["provenance"][key]:
            print(f"{recorded['id']}: another {key} than recorded")
    differs = [part for part in COMPARED if recorded.get(part) != rerun.get(part)]
    items = sum(len(item["greedy"]) for item in rerun["items"].values())
    outcome = f"differs in {', '.join(differs)}" if differs else "bitwise equal"
    counts = f"{len(rerun['scores'])} scores, {items} items, {len(rerun['curve'])} curve points"
    print(f"{recorded['id']}: {outcome} ({counts})", flush=True)
    return not differs
