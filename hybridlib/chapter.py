"""Which runs does a chapter show? `open_grid` executes what is missing and hands out the rest.

A chapter joins and selects by the arm, which is the id of a run without its seeds, and shows the
label, which is what that arm is called.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hybridlib import labels, results, study
from hybridlib.grids import GRIDS
from hybridlib.profiles import Profile
from hybridlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OpenedGrids:
    """The finished runs of some grids of a profile, and what their records say.

    Every data frame has the columns `arm` and `label`. Each attribute is computed when it is first
    read, and then stored.
    """

    profile: Profile
    grids: dict[str, list[Run]]

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of all grids, each once, in the order of the grids."""
        return list({run.id: run for grid in self.grids.values() for run in grid}.values())

    @cached_property
    def arms(self) -> dict[str, str]:
        """Run id -> arm."""
        return {run.id: arm_key(run) for run in self.runs}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Arm -> what it is called, in the order of the grids."""
        return {self.arms[run.id]: labels.arm_label(asdict(run)) for run in self.runs}

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """Run id -> record, in the order of ids."""
        stored = results.read(self.profile.name)
        return {record["id"]: record for record in stored if record["id"] in self.arms}

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run, in the order of the grids: id, arm, label, run fields, rows, cost.

        rows: how many training rows the run had, 0 for none; the costs are seconds, tokens,
        trainable parameters and peak memory in GB.
        """
        import pandas as pd

        rows = []
        for run in self.runs:
            record = self.records[run.id]
            counts = {"rows": record["facts"].get("rows", 0)} | record["cost"]
            rows.append({"id": run.id} | asdict(run) | counts)
        return self._named(pd.DataFrame(rows))

    @cached_property
    def items(self) -> pd.DataFrame:
        """One row per run and item (`results.items`), in the order of ids."""
        return self._named(results.items(self.profile.name, list(self.arms)))

    @cached_property
    def distances(self) -> pd.DataFrame:
        """One row per run and family (`results.distances`), in the order of ids."""
        distances = results.distances(self.profile.name)
        return self._named(distances[distances["id"].isin(list(self.arms))])

    @cached_property
    def checkpoints(self) -> pd.DataFrame:
        """One row per run, point, family and split (`results.checkpoints`), in the order of ids.

        With the method and the seed of the run. What a run cost until a point counts what the run
        before it, whose adapter it goes on from, had cost in the end.
        """
        points = results.checkpoints(self.profile.name, list(self.arms))
        costs = [*results.CHECKPOINT_COSTS]
        ends = points.groupby("id")[costs].max()
        runs = {run.id: run for run in self.runs}
        points = points.assign(
            method=[runs[name].method for name in points["id"]],
            seed=[runs[name].seed for name in points["id"]],
        )
        for name in points["id"].unique():
            start = runs[name].start
            while start:
                points.loc[points["id"] == name, costs] += ends.loc[start]
                start = runs[start].start
        return self._named(points)

    @property
    def curves(self) -> list[dict[str, Any]]:
        """The curves of all trainings, each named by its label, for `figures.curves`."""
        curves = []
        for run_id, record in self.records.items():
            if record["curve"]:
                line = {"method": self.label(run_id), "seed": record["run"]["seed"]}
                curves.append({"run": line, "curve": record["curve"]})
        return curves

    @property
    def minutes(self) -> float:
        """Sum of the times of all trainings and evaluations, in minutes."""
        costs = [record["cost"] for record in self.records.values()]
        return sum(cost["train_seconds"] + cost["eval_seconds"] for cost in costs) / 60

    def label(self, run_id: str) -> str:
        """Return what the arm of a run is called."""
        return self.labels[self.arms[run_id]]

    def _named(self, rows: pd.DataFrame) -> pd.DataFrame:
        arms = rows["id"].map(self.arms)
        return rows.assign(arm=arms, label=arms.map(self.labels))


def open_grid(names: str | tuple[str, ...], profile: Profile) -> OpenedGrids:
    """Execute what is missing of one or several grids, in worker processes, and open them.

    Raises StudyError for an unknown grid, for stale results, and for runs that failed.
    """
    several = (names,) if isinstance(names, str) else names
    opened = OpenedGrids(profile, {name: GRIDS[name](profile) for name in several})
    study.execute_all(opened.runs, profile)
    return opened


def arm_key(run: Run) -> str:
    """Return the id of a run without its seeds and those of the runs that it is made from.

    >>> arm_key(Run("grpo", start="sft_seed-2", seed=2))
    'grpo_after-sft'

    A parent, start or teacher with another seed than the run's keeps the mark "_other-seed".
    """
    parents = tuple(_seedless(parent, run.seed) for parent in run.parents)
    start, teacher = (_seedless(run_id, run.seed) for run_id in (run.start, run.teacher))
    return replace(run, seed=0, parents=parents, start=start, teacher=teacher).id


def _seedless(run_id: str, seed: int) -> str:
    """Return a run's id without seeds; "" stays ""."""
    if not run_id:
        return ""
    seeds = {int(digits) for digits in re.findall(r"_seed-(\d+)", run_id)} or {0}
    key = re.sub(r"_seed-\d+", "", run_id)
    return key if seeds == {seed} else f"{key}_other-seed"
