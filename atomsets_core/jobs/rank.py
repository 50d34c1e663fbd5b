"""Join the predictions of all shards, score, rank and pick the shortlist; write ranking.parquet and ranking.csv."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atomsets_core.campaigns import RANKING, RANKING_CSV
from atomsets_core.discovery import acquisition, diverse_shortlist
from atomsets_core.features import FeatureStore
from atomsets_core.sources import Catalogue
from atomsets_core.storage import HashIndex, Store, prediction_units, release, with_units
from atomsets_core.structures import IntArray
from atomsets_core.transforms import find_transform, transform_target

OFFERED = 20
"""Candidates looked at for each place on the shortlist."""

PIECE = 8192
"""Rows of the ranking written at a time."""

HULL = ("e_above_hull", "energy_above_hull")
"""What sources call the energy above the convex hull, eV/atom; the first that there is counts."""

NUMBERS = ("predicted", "std", "lower", "upper", "mean", "distance")

COLUMNS = (
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
    "structure_hash",
)


@dataclass(frozen=True)
class Ranking:
    """What a ranking came to; the rows themselves are in ranking.parquet.

    Attributes:
        n_ranked: rows.
        n_in_domain: of them within the domain of the training data.
        rows: (n_shortlist,) positions of the chosen ones among the candidates, best first.
        shortlist: the chosen rows, best first, with the columns of the file.
        first: identifier and formula of the candidate with the best score.
    """

    n_ranked: int
    n_in_domain: int
    rows: IntArray
    shortlist: pd.DataFrame
    first: str


@dataclass(frozen=True)
class Wish:
    """What makes a candidate good, in the unit of the property.

    Attributes:
        goal: see `acquisition`.
        value: for the goals "target" and "exceed".
        window: both ends, for the goal "window".
        acquisition: the kind of score.
        kappa: weight of the uncertainty in it.
        best: best training value.
        shortlist: length of the shortlist.
        diversity: see `diverse_shortlist`.
    """

    goal: str
    acquisition: str
    best: float
    shortlist: int
    kappa: float = 1.0
    value: float | None = None
    window: tuple[float, float] | None = None
    diversity: float = 0.0


def rank(
    store: Store,
    predictions: Sequence[str],
    candidates: Catalogue,
    wish: Wish,
    transform: str,
    unit: str,
    features: FeatureStore,
) -> Ranking:
    """Rank every candidate; write ranking.parquet and ranking.csv.

    Held in memory are some hundred bytes of numbers for each candidate beside its line of the catalogue.

    Args:
        store: of the campaign.
        predictions: names of the prediction files.
        candidates: to be ranked; one without a prediction is left out. Their e_above_hull is kept where there is one.
        wish: what makes one good.
        transform: of the target.
        unit: of the target.
        features: of the candidates, for their likeness.

    Returns:
        What it came to. `std` is on the model's scale (e.g. decades), like `score`.
    """
    table = _Table(store, candidates, predictions)
    mean, std = table.numbers["mean"], table.numbers["std"]
    score = acquisition(
        mean,
        std,
        goal=wish.goal,
        kind=wish.acquisition,
        kappa=wish.kappa,
        best=float(transform_target([wish.best], transform)[0]),
        target=None if wish.value is None else float(transform_target([wish.value], transform)[0]),
        window=None if wish.window is None else _ends(wish.window, transform),
    )
    table.sort(score)
    offered = table.frame(0, OFFERED * wish.shortlist)
    pooled = features.find(list(offered["structure_hash"])).load().pooled(features.levels)
    scale = pooled.std(axis=0)
    chosen = diverse_shortlist(
        offered["score"].to_numpy(),
        pooled / np.where(scale > 1e-6, scale, 1.0),
        offered["formula"].to_numpy(dtype=object),
        wish.shortlist,
        wish.diversity,
    )
    table.shortlist[chosen] = True
    write_ranking(store, table.frames(), unit, transform)
    shortlist = table.frame(0, OFFERED * wish.shortlist)
    shortlist = shortlist[shortlist["shortlist"]].reset_index(drop=True)
    candidates.forget()
    first = " ".join(offered.iloc[0][["material_id", "formula"]])
    rows = table.rows[np.flatnonzero(table.shortlist)]
    return Ranking(len(table), int(table.in_domain.sum()), rows, shortlist, first)


class _Table:
    """Columns of every candidate that has a prediction; in the order of the candidates until it is sorted."""

    def __init__(self, store: Store, candidates: Catalogue, predictions: Sequence[str]) -> None:
        index = HashIndex(candidates.digests())
        release()
        numbers = {name: np.full(len(index), np.nan) for name in NUMBERS}
        domain, known = np.zeros(len(index), dtype=bool), np.zeros(len(index), dtype=bool)
        self._remarks: dict[str, str] = {}
        for name in predictions:
            table = store.read_table(name)
            hashes = table["structure_hash"].to_pylist()
            at = index.find(hashes)
            new = np.flatnonzero(at >= 0)
            new = new[~known[at[new]]]
            known[at[new]] = True
            for column in NUMBERS:
                numbers[column][at[new]] = table[column].to_numpy()[new]
            domain[at[new]] = table["in_domain"].to_numpy()[new]
            for row in np.flatnonzero(np.asarray(pc.not_equal(table["remark"], ""))):
                self._remarks.setdefault(hashes[row], table["remark"][row].as_py())
        ranked = np.flatnonzero(known[index.inverse])
        self._ranked = ranked
        content = index.inverse[ranked]
        del index
        self.numbers = {name: numbers.pop(name)[content] for name in NUMBERS}
        self.in_domain = domain[content]
        # Read now that the index is gone: both at once would be the most memory of the whole run.
        release()
        self._lines = candidates.take(ranked).lines
        hull = candidates.columns(HULL)
        self._hull = (
            pd.to_numeric(hull.iloc[:, 0]).to_numpy(dtype=np.float64, na_value=np.nan)[ranked]
            if len(hull.columns)
            else np.full(len(ranked), np.nan)
        )
        self.score = np.zeros(len(ranked))
        self.shortlist = np.zeros(len(ranked), dtype=bool)
        self._order: IntArray = np.arange(len(ranked))

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def rows(self) -> IntArray:
        """(n,) positions among the candidates, in the order of the table."""
        return self._ranked[self._order]

    def sort(self, score: npt.NDArray[np.float64]) -> None:
        """The best score comes first, of equal ones the lower identifier."""
        self.score = score
        keys = pa.table({"score": score, "material_id": pa.array(self._lines.material_id)})
        order = pc.sort_indices(keys, sort_keys=[("score", "descending"), ("material_id", "ascending")])
        self._order = order.to_numpy().astype(np.int64)

    def frame(self, start: int, stop: int) -> pd.DataFrame:
        """Places start to before stop, counted from 0, with all columns of the ranking."""
        rows = self._order[start:stop]
        lines = self._lines.take(rows)
        columns = {name: values[rows] for name, values in self.numbers.items() if name != "mean"}
        frame = pd.DataFrame(
            {
                "rank": np.arange(start + 1, start + len(rows) + 1),
                "material_id": lines.material_id,
                "formula": lines.formulas,
                **columns,
                "e_above_hull": self._hull[rows],
                "in_domain": self.in_domain[rows],
                "score": self.score[rows],
                "shortlist": self.shortlist[start:stop],
                "n_atoms": lines.n_atoms,
                "remark": pd.array([self._remarks.get(h, "") for h in lines.hashes], dtype="str"),
                "structure_hash": lines.hashes,
            }
        )
        return frame[list(COLUMNS)]

    def frames(self) -> Iterator[pd.DataFrame]:
        """The whole ranking, piece by piece."""
        for start in range(0, len(self), PIECE):
            yield self.frame(start, start + PIECE)


def _ends(window: tuple[float, float], transform: str) -> tuple[float, float]:
    low, high = transform_target(window, transform)
    return float(low), float(high)


def write_ranking(store: Store, frames: Iterator[pd.DataFrame], unit: str, transform: str) -> None:
    """Write ranking.parquet, its units in the schema metadata, and ranking.csv."""
    units = prediction_units(unit, scale=find_transform(transform).applied_to(unit))
    with store.replacing(RANKING_CSV) as text, store.replacing(RANKING) as file:
        writer: pq.ParquetWriter | None = None
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
            table = with_units(table, units)
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
            lines = io.StringIO()
            frame.to_csv(lines, index=False, float_format="%.6g", header=bool(frame["rank"].iloc[0] == 1))
            text.write(lines.getvalue().encode())
        if writer is not None:
            writer.close()
