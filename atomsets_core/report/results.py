"""What a finished campaign left in its folder, read back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Element

from atomsets_core.campaigns import EVIDENCE, FAILURES, MAP, OUT_OF_FOLD, RANKING, SUMMARY
from atomsets_core.report.candidates.crystals import Crystal, crystals
from atomsets_core.report.columns import COLUMNS
from atomsets_core.storage import StorageError, Store
from atomsets_core.transforms import Transform, find_transform

FloatArray = npt.NDArray[np.float64]

FLAGS, TEXTS = ("in_domain", "shortlist"), ("material_id", "formula", "remark", "structure_hash")

NUMBERS = ("rank", "predicted", "e_above_hull", *FLAGS)
"""Columns of the ranking that are read of every candidate."""

WHOLE = (*(column.name for column in COLUMNS if not column.made and column.name not in NUMBERS), "matter",
         "structure_hash")  # fmt: skip
"""Those that are read of the shortlist beside them."""

NAMES = ("material_id", "formula", "predicted")

SYMBOL = re.compile(r"[A-Z][a-z]?")


@dataclass(frozen=True)
class Results:
    """A finished campaign.

    Attributes:
        summary: content of summary.json.
        store: of the campaign.
        ranking: every ranked candidate, best first: the columns `NUMBERS` of ranking.parquet, since half a million
            names would take more memory than all else. `rows` gives whole rows.
        shortlist: the whole rows of the candidates that were chosen, best first; their index is that of the ranking.
        out_of_fold: each training structure with its value and the prediction of members that never saw it.
        failures: the ledger, one row for each structure or label that could not be used.
        discoveries: the simulated discoveries, one for each seed; empty where none was asked for.
        evidence: material_id -> what stands behind its place on the shortlist, see `atomsets_core.jobs.evidence`.
        plane: about the map of feature space ("explained": shares of the variance); None in older campaigns.
        points: of that map.
    """

    store: Store
    summary: dict[str, Any]
    ranking: pd.DataFrame
    shortlist: pd.DataFrame
    out_of_fold: pd.DataFrame
    failures: pd.DataFrame
    discoveries: Sequence[dict[str, Any]]
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    plane: dict[str, Any] | None = None
    points: pd.DataFrame | None = None

    @property
    def goal(self) -> str:
        """One of `objectives.GOALS`."""
        return str(self.summary["settings"]["objective"]["goal"])

    @property
    def unit(self) -> str:
        """Unit of the target; may be empty."""
        return str(self.summary["unit"])

    @property
    def transform(self) -> Transform:
        """To the scale the model works on."""
        return find_transform(self.summary["transform"])

    @cached_property
    def has_hull(self) -> bool:
        """Whether any candidate has an energy above hull."""
        return bool(self.ranking["e_above_hull"].notna().any())

    @cached_property
    def crystals(self) -> dict[str, Crystal]:
        """material_id -> what is said of the crystal of a shortlisted candidate; none of formulas."""
        return crystals(self.evidence)

    def heads(self) -> dict[str, dict[str, Any]]:
        """Name -> mean scores of the simulated discoveries, the campaign's own model first; none without discovery."""
        found = self.summary["discovery"]
        return {row["head"]: row for row in found["heads"]} if found else {}

    def utility(self) -> FloatArray:
        """(n_ranked,) how well the prediction alone meets the objective, higher is better."""
        predicted = self.ranking["predicted"].to_numpy(dtype=np.float64)
        if self.goal in ("maximize", "exceed", "class"):
            return predicted
        if self.goal == "minimize":
            return -predicted
        asked = self.summary["settings"]["objective"]
        ends = np.array(
            [asked["low"], asked["high"]] if self.goal == "window" else [asked["value"]] * 2, dtype=np.float64
        )
        y, (low, high) = self.transform.forward(predicted), self.transform.forward(ends)
        return -np.maximum(np.maximum(low - y, y - high), 0.0)

    def beyond_training(self) -> npt.NDArray[np.bool_]:
        """(n_shortlist,) whether the prediction lies beyond the training values, in the wanted direction.

        For the goals target and window: on either side.
        """
        predicted = self.shortlist["predicted"].to_numpy(dtype=np.float64)
        above = predicted > self.summary["model"]["value_max"]
        below = predicted < self.summary["model"]["value_min"]
        return {"maximize": above, "exceed": above, "minimize": below}.get(self.goal, above | below)

    def rows(self, positions: npt.ArrayLike, columns: Sequence[str] = NAMES) -> pd.DataFrame:
        """These columns of the ranking at these positions, with the positions as index."""
        wanted = np.sort(np.asarray(positions, dtype=np.int64))
        parts, start = [], 0
        for batch in ranking_batches(self.store, columns):
            first, last = np.searchsorted(wanted, [start, start + len(batch)])
            parts.append(batch.take(pa.array(wanted[first:last] - start)).to_pandas())
            start += len(batch)
        return pd.concat(parts).set_axis(wanted) if parts else pd.DataFrame(columns=list(columns))

    def element_counts(self) -> dict[str, tuple[int, int]]:
        """Element -> how many ranked and how many shortlisted candidates hold it; each candidate counts once."""
        ranked: Counter[str] = Counter()
        for batch in ranking_batches(self.store, ["formula"]):
            for text, n in Counter(batch["formula"].to_pylist()).items():
                ranked.update(dict.fromkeys(elements_in(text), n))
        chosen = Counter(symbol for text in self.shortlist["formula"] for symbol in elements_in(text))
        return {symbol: (n, chosen[symbol]) for symbol, n in ranked.items()}


def elements_in(text: str) -> set[str]:
    """The elements of a formula; whatever else stands in it is passed over."""
    return {symbol for symbol in SYMBOL.findall(str(text)) if Element.is_valid_symbol(symbol)}


def ranking_batches(store: Store, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """These columns of ranking.parquet, piece by piece.

    Raises:
        StorageError: it doesn't exist or is damaged.
    """
    store.size(RANKING)
    try:
        with store.open(RANKING) as file:
            yield from pq.ParquetFile(file).iter_batches(8192, columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{store.url(RANKING)} is damaged: {error}. Delete it and run again") from error


def read_results(store: Store) -> Results:
    """The files a finished run leaves: summary, ranking, out-of-fold predictions, ledger, simulated discoveries.

    Raises:
        StorageError: one of them is missing or damaged; the message names it.
    """
    summary = store.read_json(SUMMARY)
    columns = [*NUMBERS, *WHOLE]
    numbers: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in NUMBERS}
    chosen, start = [], 0
    for batch in ranking_batches(store, columns):
        # Of formulas there seldom is an energy above the hull.
        known = set(batch.schema.names)
        for name in NUMBERS:
            lacking = name == "e_above_hull" and name not in known
            values = np.full(len(batch), np.nan) if lacking else batch.column(name).to_numpy(zero_copy_only=False)
            numbers[name].append(values)
        places = np.flatnonzero(numbers["shortlist"][-1])
        rows = batch.take(pa.array(places)).to_pandas().set_axis(start + places)
        chosen.append(rows if "e_above_hull" in known else rows.assign(e_above_hull=np.nan))
        start += len(batch)
    evidence, plane, points = read_evidence(store)
    return Results(
        store=store,
        summary=summary,
        ranking=pd.DataFrame({name: np.concatenate(parts) for name, parts in numbers.items()})
        if chosen
        else _no_rows(list(NUMBERS)),
        shortlist=pd.concat(chosen) if chosen else _no_rows(columns),
        out_of_fold=store.read_table(f"{summary['model']['folder']}/{OUT_OF_FOLD}").to_pandas(),
        failures=store.read_table(FAILURES).to_pandas(),
        discoveries=[store.read_json(name) for name in summary["discovery"]["files"]] if summary["discovery"] else [],
        evidence=evidence,
        plane=plane,
        points=None if points is None else points.to_pandas(),
    )


def _no_rows(columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series(dtype=bool if name in FLAGS else object if name in TEXTS else float) for name in columns}
    )


def read_crystals(store: Store) -> dict[str, Crystal]:
    """material_id -> what is said of the crystal of each shortlisted candidate of a campaign; none of formulas."""
    return crystals(read_evidence(store)[0])


def read_evidence(store: Store) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None, pa.Table | None]:
    """What `write_evidence` left: material_id -> evidence, about the map, its points; nothing for older campaigns."""
    if not (store.exists(EVIDENCE) and store.exists(MAP)):
        return {}, None, None
    found = store.read_json(EVIDENCE)
    return {row["material_id"]: row for row in found["candidates"]}, found["map"], store.read_table(MAP)
