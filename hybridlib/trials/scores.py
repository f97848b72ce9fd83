"""Which scores does a contrast read? All runs of a profile as one matrix, terms cut from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybridlib import StudyError, stats
from hybridlib.crossed import Estimate, Term, estimate

if TYPE_CHECKING:
    import pandas as pd


class Scores:
    """The scores of all runs under one metric, runs x questions, made once for many contrasts.

    items: as `results.items` has them, with a column `bucket` where terms ask for one.
    metric: see `stats.item_scores`.
    """

    def __init__(self, items: pd.DataFrame, metric: str):
        import numpy as np
        import pandas as pd

        self.metric = metric
        by_question = items.groupby(stats.ITEM, sort=False)
        codes, first = by_question.ngroup().to_numpy(), by_question.head(1)
        rows, self.ids = pd.factorize(items["id"])
        self._row = {name: row for row, name in enumerate(self.ids)}
        self.matrix = np.full((len(self.ids), len(first)), np.nan)
        self.matrix[rows, codes] = stats.item_scores(items, metric)
        columns = [*stats.ITEM, *(["bucket"] if "bucket" in items else [])]
        self.questions = first[columns].reset_index(drop=True)
        # A question under another prompt, "test@exam", is the same item.
        splits = self.questions["split"].str.partition("@")[0]
        same = pd.MultiIndex.from_arrays([self.questions["family"], splits, self.questions["item"]])
        self._item, kept = pd.factorize(same)
        self.families = kept.get_level_values(0).to_numpy()

    def term(
        self,
        weight: float,
        ids: Sequence[str],
        split: str = "test",
        bucket: str = "",
        block: object = 0,
        fixed: bool = False,
    ) -> Term:
        """Return the scores of some runs, one per seed, on a split or one bucket of it.

        Raises StudyError for a run without scores, and where nothing is left.
        """
        import numpy as np

        if unknown := [name for name in ids if name not in self._row]:
            raise StudyError(f"no {self.metric} scores of {', '.join(unknown[:3])}")
        wanted = (self.questions["split"] == split).to_numpy()
        if bucket:
            wanted = wanted & (self.questions["bucket"] == bucket).to_numpy()
        rows = self.matrix[[self._row[name] for name in ids]][:, wanted]
        if not rows.size or np.isnan(rows).all(0).any():
            raise StudyError(f"{ids[0]} has no {self.metric} scores on {split} {bucket}".rstrip())
        scores = np.full((len(ids), len(self.families)), np.nan)
        scores[:, self._item[wanted]] = rows
        return Term(weight, scores, block, fixed)

    def estimate(self, terms: Sequence[Term]) -> Estimate:
        """Return `crossed.estimate` of the terms, items stratified by family."""
        return estimate(terms, self.families)
