"""What a finished campaign left in its folder, read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.storage import Store

RANKING = [
    "rank",
    "material_id",
    "formula",
    "predicted",
    "std",
    "lower",
    "upper",
    "e_above_hull",
    "in_domain",
    "score",
    "shortlist",
    "distance",
    "n_atoms",
    "remark",
]
"""Columns of the ranking that a report shows."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Results:
    """A finished campaign.

    Attributes:
        summary: content of summary.json.
        ranking: every ranked candidate, best first; columns `RANKING`.
        out_of_fold: each training structure with its value and the prediction of members that never saw it.
        failures: the ledger, one row for each structure or label that could not be used.
        discoveries: the simulated discoveries, one for each seed; empty where none was asked for.
    """

    summary: dict[str, Any]
    ranking: pd.DataFrame
    out_of_fold: pd.DataFrame
    failures: pd.DataFrame
    discoveries: Sequence[dict[str, Any]]

    @property
    def goal(self) -> str:
        """One of `objectives.GOALS`."""
        return str(self.summary["settings"]["objective"]["goal"])

    @property
    def unit(self) -> str:
        """Of the target; may be empty."""
        return str(self.summary["unit"])

    @property
    def is_log(self) -> bool:
        """Whether the model works on log10 of the target."""
        return bool(self.summary["transform"] == "log10")

    @cached_property
    def shortlist(self) -> pd.DataFrame:
        """The rows of the ranking that were chosen, best first."""
        return self.ranking[self.ranking["shortlist"].astype(bool)]

    @cached_property
    def has_hull(self) -> bool:
        """Whether any candidate has an energy above hull."""
        return bool(self.ranking["e_above_hull"].notna().any())

    def heads(self) -> dict[str, dict[str, Any]]:
        """Name -> mean scores of the simulated discoveries, the campaign's own model first; none without discovery."""
        found = self.summary["discovery"]
        return {row["head"]: row for row in found["heads"]} if found else {}

    def utility(self) -> FloatArray:
        """(n_ranked,) how well the prediction alone meets the objective, higher is better."""
        predicted = self.ranking["predicted"].to_numpy(dtype=np.float64)
        if self.goal in ("maximize", "exceed"):
            return predicted
        if self.goal == "minimize":
            return -predicted
        asked = self.summary["settings"]["objective"]
        ends = np.array(
            [asked["low"], asked["high"]] if self.goal == "window" else [asked["value"]] * 2, dtype=np.float64
        )
        y, (low, high) = (np.log10(predicted), np.log10(ends)) if self.is_log else (predicted, ends)
        return -np.maximum(np.maximum(low - y, y - high), 0.0)

    def beyond_training(self) -> npt.NDArray[np.bool_]:
        """(n_shortlist,) whether the prediction lies beyond the training values, in the wanted direction.

        For the goals target and window: on either side.
        """
        predicted = self.shortlist["predicted"].to_numpy(dtype=np.float64)
        above = predicted > self.summary["model"]["value_max"]
        below = predicted < self.summary["model"]["value_min"]
        return {"maximize": above, "exceed": above, "minimize": below}.get(self.goal, above | below)


def read_results(store: Store) -> Results:
    """The files a finished run leaves: summary, ranking, out-of-fold predictions, ledger, simulated discoveries.

    Raises:
        StorageError: one of them is missing or damaged; the message names it.
    """
    summary = store.read_json("summary.json")
    return Results(
        summary=summary,
        ranking=store.read_table("ranking.parquet", RANKING).to_pandas(),
        out_of_fold=store.read_table(f"{summary['model']['folder']}/out_of_fold.parquet").to_pandas(),
        failures=store.read_table("failures.parquet").to_pandas(),
        discoveries=[store.read_json(name) for name in summary["discovery"]["files"]] if summary["discovery"] else [],
    )
