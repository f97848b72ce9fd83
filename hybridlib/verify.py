"""Does a recorded run repeat? Rerun from its specification and compare, bit by bit."""

import random
from collections.abc import Sequence

from hybridlib import StudyError, results, study
from hybridlib.pool import Pool
from hybridlib.profiles import Profile

COMPARED = ("scores", "items", "curve", "samples", "facts")


def verify(profile: Profile, sample: int = 2, seed: int = 0, ids: Sequence[str] = ()) -> bool:
    """Rerun recorded runs; is every score, item, curve point and sampled text the same?

    Bitwise equality is promised for one machine, code and thread count; where these differ from
    the record, that is said first.

    Args:
        ids: these runs; none: `sample` runs, drawn with `seed`.
    """
    records = {record["id"]: record for record in results.read(profile.name)}
    if not records:
        raise StudyError(f"no results of profile {profile.name} to verify; make book computes them")
    for missing in [name for name in ids if name not in records]:
        raise StudyError(f"no run {missing!r}; valid: {', '.join(records)}")
    count = min(sample, len(records))
    chosen = list(ids) or sorted(random.Random(seed).sample(sorted(records), count))
    runs = {name: study.Run(**records[name]["run"]) for name in chosen}
    todo = study.plan(list(runs.values()), profile, force=True)
    parents = {run: why for run, why in todo.items() if run.id not in chosen}
    with Pool(profile) as pool:
        if parents:  # their adapters are not in git
            pool.work(parents)
        futures = {name: pool.submit(run, save=False) for name, run in runs.items()}
        return all([_same(records[n], results.plain(f.result())) for n, f in futures.items()])


def _same(old: dict, new: dict) -> bool:
    for key in ("device", "threads", "code"):
        if old["provenance"][key] != new["provenance"][key]:
            print(f"{old['id']}: another {key} than recorded")
    differs = [part for part in COMPARED if old[part] != new[part]]
    items = sum(len(item["greedy"]) for item in new["items"].values())
    said = f"differs in {', '.join(differs)}" if differs else "bitwise equal"
    counts = f"{len(new['scores'])} scores, {items} items, {len(new['curve'])} curve points"
    print(f"{old['id']}: {said} ({counts})", flush=True)
    return not differs
