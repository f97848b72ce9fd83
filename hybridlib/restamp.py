"""Are records still good after a change of code that moved no number? Rerun some, renew all.

A record says which code decided it (`fingerprint`), so that a changed loss makes it stale. So does
a renamed function, which changes nothing. Restamping is the honest way out: a sample of the
records is rerun, and only if all are bitwise equal are the fingerprints renewed.
"""

from datetime import UTC, datetime
from typing import Any

from hybridlib import fingerprint, results
from hybridlib.profiles import Profile
from hybridlib.runs import Run
from hybridlib.verify import verify


def restamp(profile: Profile, sample: int = 12, seed: int = 0) -> int:
    """Rerun a sample of a profile's records; if bitwise equal, renew the fingerprints of all.

    Rewrites `provenance.code` of every record whose code is not today's, and adds
    `provenance.restamped`: the day, the runs that were rerun, the commit.

    Args:
        sample: how many records to rerun, from as many methods as there are.
        seed: of the draw.
    Returns:
        How many records were rewritten.
    Raises:
        StudyError: a rerun differs, or the setting of the profile has changed since; nothing is
            rewritten then.
    """
    records = results.read(profile.name)
    stale = {}
    for record in records:
        run = Run(**record["run"])
        results.find(run, profile)  # raises where run or setting mean something else today
        code = fingerprint.digests_of(run, profile)
        if code != record["provenance"]["code"]:
            stale[record["id"]] = code
    if not stale:
        return 0
    verified = verify(profile, sample, seed)
    stamp = {
        "on": datetime.now(UTC).date().isoformat(),
        "verified": verified,
        "commit": results.commit(),
    }
    for record in records:
        if code := stale.get(record["id"]):
            results.save(_stamped(record, code, stamp), force=True)
    return len(stale)


def _stamped(record: dict[str, Any], code: dict[str, str], stamp: dict[str, Any]) -> dict[str, Any]:
    return record | {"provenance": record["provenance"] | {"code": code, "restamped": stamp}}
