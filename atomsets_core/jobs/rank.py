"""Join the predictions of all shards, score, rank and pick the shortlist; write ranking.parquet and ranking.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atomsets_core.campaigns import OUT_OF_FOLD, RANKING, RANKING_CSV
from atomsets_core.discovery import acquisition, diverse_shortlist
from atomsets_core.features import AnyStore
from atomsets_core.models import Beyond, believed, target_deviation, trust_in_candidates, trust_summary
from atomsets_core.sources import UNREAD, Catalogue, numbers_of
from atomsets_core.storage import HashIndex, Store, csv_text, prediction_units, release, with_units
from atomsets_core.structures import COMPOSITIONS, MATTER_KINDS, NO_BULK, STRUCTURES, IntArray, matter_kinds
from atomsets_core.transforms import Transform, find_transform, transform_target

OFFERED = 20
"""Candidates looked at for each place on the shortlist."""

PIECE = 8192
"""Rows of the ranking written at a time."""

NUMBERS = ("predicted", "std", "lower", "upper", "mean", "std_scale", "distance")

OUTSIDE = ("mark", "drop", "keep")
"""What becomes of candidates outside the domain, and of those that are no bulk crystals; see `Wish.outside`."""

LEFT_OUT = {
    STRUCTURES: "unlike all training structures, or no bulk crystal",
    COMPOSITIONS: "unlike all training compositions",
}
"""Why candidates are left out where that is asked for, by what they are."""

LOOKED_AT = 500
"""Leading candidates whose kind of matter is looked at, or the shortlist's offer if that is more."""

VACUUM = frozenset({"slab", "wire", "molecule"})
"""Kinds of matter that no property of a bulk crystal is predicted for."""

OF_CELLS = ("matter", "n_atoms")
"""Columns that a ranking of formulas doesn't have."""

COLUMNS = (
    "rank",
    "material_id",
    "formula",
    "predicted",
    "std",
    "lower",
    "upper",
    "beyond",
    "e_above_hull",
    "in_domain",
    "matter",
    "score",
    "shortlist",
    "distance",
    "std_scale",
    "n_atoms",
    "remark",
    "structure_hash",
)


HULL = ("e_above_hull", "energy_above_hull")
"""What sources call the energy above the convex hull, eV/atom; the first that there is counts."""


@dataclass(frozen=True)
class Ranking:
    """What a ranking came to; the rows themselves are in ranking.parquet.

    Attributes:
        n_ranked: rows.
        n_in_domain: of them within the domain of the training data.
        n_no_bulk: of the leading ones that are no bulk crystals, such as molecules in a box.
        n_dropped: candidates that have a prediction and were left out, by `Wish.outside`.
        why_first: why the first line is not inside the domain; empty where it is.
        intervals: JSON: how far the intervals can be believed, see `models.trust_summary`.
        rows: (n_shortlist,) positions of the chosen ones among the candidates, best first.
        shortlist: the chosen rows, best first, with the columns of the file.
        first: identifier and formula of the candidate with the best score.
    """

    n_ranked: int
    n_in_domain: int
    rows: IntArray
    shortlist: pd.DataFrame
    first: str
    n_no_bulk: int = 0
    n_dropped: int = 0
    why_first: str = ""
    intervals: dict[str, Any] = field(default_factory=dict)


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
        median: median training value: a shortlist holds nothing that is predicted worse.
        reach: of values beyond the best training value, on the scale of the model, see `models.reach_beyond`.
        outside: "mark": candidates outside the domain of the training data keep the place of their score, but none
            comes before the best one inside; molecules, slabs and wires in vacuum, and molecular crystals outside the
            domain, come after all others and aren't shortlisted. "drop": all these are left out of the ranking. "keep":
            the score alone counts.
    """

    goal: str
    acquisition: str
    best: float
    shortlist: int
    kappa: float = 1.0
    value: float | None = None
    window: tuple[float, float] | None = None
    diversity: float = 0.0
    median: float | None = None
    reach: float = float("nan")
    outside: str = "mark"

    def __post_init__(self) -> None:
        if self.outside not in OUTSIDE:
            raise ValueError(f"outside must be one of {', '.join(OUTSIDE)}, not {self.outside!r}")

    def beyond(self, transform: Transform) -> Beyond | None:
        """What the simulated discoveries say of values beyond the best; None for goals without an end."""
        if self.goal not in ("maximize", "minimize"):
            return None
        sign = 1.0 if self.goal == "maximize" else -1.0
        return Beyond(sign, float(transform.forward(self.best)), self.reach)


def rank(
    store: Store,
    predictions: Sequence[str],
    candidates: Catalogue,
    wish: Wish,
    transform: str,
    unit: str,
    features: AnyStore,
    model: str,
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
        model: folder of the model that predicted.

    Returns:
        What it came to. `std_scale` and `score` are on the model's scale (e.g. decades), all else is in the unit.
    """
    table, scale = Table(store, candidates, predictions), find_transform(transform)
    trust = trust_in_candidates(store, model, OUT_OF_FOLD, features, table.hashes, scale)
    beyond = wish.beyond(scale)
    table.numbers = believed(table.numbers, scale, trust, target_deviation(store, model), beyond)
    mean, std = table.numbers["mean"], table.numbers["std_scale"]
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
    # What a formula is made of, no cell shows: nothing is to be looked at.
    offer = max(OFFERED * wish.shortlist, LOOKED_AT) if candidates.kind == STRUCTURES else 0
    dropped, why_first = put_in_place(table, candidates, wish.outside, offer)
    offered = table.frame(0, OFFERED * wish.shortlist)
    fit = np.flatnonzero(_fit_for_shortlist(offered, wish, scale))
    chosen = fit[_shortlist(offered.iloc[fit], features, wish)]
    table.shortlist[chosen] = True
    write_ranking(store, table.frames(), prediction_units(unit, scale=scale.applied_to(unit)))
    shortlist = table.frame(0, OFFERED * wish.shortlist)
    shortlist = shortlist[shortlist["shortlist"]].reset_index(drop=True)
    candidates.forget()
    first = " ".join(offered.iloc[0][["material_id", "formula"]]) if len(offered) else ""
    rows = table.rows[np.flatnonzero(table.shortlist)]
    return Ranking(
        len(table), int(table.ranked_in_domain.sum()), rows, shortlist, first, table.n_no_bulk, dropped, why_first,
        {**trust_summary(trust, beyond), "outside": wish.outside},
    )  # fmt: skip


def put_in_place(table: Places, candidates: Catalogue, outside: str, offer: int) -> tuple[int, str]:
    """Find out what the leading candidates are, and move or leave out those that can't be believed.

    Returns:
        How many were left out, and why the first line is outside the domain, if it is.
    """
    if outside == "drop":
        table.keep(table.in_domain[table.order])
    # Places that were emptied are filled by others, which are looked at in turn.
    for _ in range(20):
        new = table.rows_unknown(offer)
        if not len(new):
            break
        at = np.sort(new)
        words = matter_kinds(candidates.take(table.positions(at)).structures())
        table.matter[at] = words
        if outside == "keep":
            break
        strange = table.strange()
        if outside == "drop":
            table.keep(~strange[table.order])
        else:
            table.last(strange)
    dropped = len(table.in_domain) - len(table)
    if not len(table) or table.in_domain[table.order[0]]:
        return dropped, ""
    if outside == "keep":
        return dropped, "the campaign ranks by the score alone"
    inside = np.flatnonzero(table.in_domain[table.order] & ~table.strange()[table.order])
    if not len(inside):
        return dropped, "no candidate is inside the domain of the training data"
    table.first(int(inside[0]))
    return dropped, ""


def _fit_for_shortlist(offered: pd.DataFrame, wish: Wish, scale: Transform) -> npt.NDArray[np.bool_]:
    """(n,) bool, candidates that a shortlist may hold: bulk, and not predicted worse than the median known value."""
    fit = np.ones(len(offered), dtype=bool)
    if wish.outside != "keep":
        inside = offered["in_domain"].to_numpy(dtype=bool)
        kind = offered["matter"].to_numpy(dtype=object) if "matter" in offered else np.full(len(offered), "", object)
        fit &= ~_strange(kind, inside)
    if wish.median is not None and wish.goal in ("maximize", "minimize"):
        sign = 1.0 if wish.goal == "maximize" else -1.0
        predicted = scale.forward(offered["predicted"].to_numpy(dtype=np.float64))
        fit &= sign * predicted >= sign * float(scale.forward(wish.median))
    return fit


def _strange(kind: npt.NDArray[np.object_], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(n,) bool, what is in vacuum, and what is otherwise no bulk crystal and like nothing that was trained on."""
    return np.isin(kind, list(VACUUM)) | (np.isin(kind, list(NO_BULK)) & ~inside)


def _shortlist(offered: pd.DataFrame, features: AnyStore, wish: Wish) -> IntArray:
    """Rows of the offer that make the shortlist, see `diverse_shortlist`."""
    if not len(offered):
        return np.empty(0, dtype=np.int64)
    pooled = features.find(list(offered["structure_hash"])).load().pooled(features.levels)
    scale = pooled.std(axis=0)
    return diverse_shortlist(
        offered["score"].to_numpy(),
        pooled / np.where(scale > 1e-6, scale, 1.0),
        offered["formula"].to_numpy(dtype=object),
        wish.shortlist,
        wish.diversity,
    )


class Places:
    """Candidates in the order of a ranking, what kind of matter they are, and which lie inside the domain.

    Args:
        rows: (n,) positions among the candidates.
        in_domain: (n,) bool, whether each lies inside the domain of the training data.
    """

    def __init__(self, rows: IntArray, in_domain: npt.NDArray[np.bool_]) -> None:
        self._ranked, self.in_domain = rows, in_domain
        self.matter = np.full(len(rows), "", dtype=object)
        self.order: IntArray = np.arange(len(rows))

    def __len__(self) -> int:
        return len(self.order)

    @property
    def rows(self) -> IntArray:
        """(n,) positions among the candidates, in the order of the table."""
        return self._ranked[self.order]

    def positions(self, rows: IntArray) -> IntArray:
        """(k,) positions among the candidates of rows of the table as it was read."""
        return self._ranked[rows]

    @property
    def ranked_in_domain(self) -> npt.NDArray[np.bool_]:
        """(n,) bool, in the order of the table."""
        return self.in_domain[self.order]

    @property
    def n_no_bulk(self) -> int:
        """How many of those that were looked at are no bulk crystals."""
        return int(np.isin(self.matter, list(NO_BULK)).sum())

    def rows_unknown(self, offer: int) -> IntArray:
        """(k,) rows as they were read, of the first places, of which it isn't known what kind of matter they are."""
        first = self.order[:offer]
        return first[self.matter[first] == ""]

    def strange(self) -> npt.NDArray[np.bool_]:
        """(n_read,) bool, rows as they were read; see `_strange`."""
        return _strange(self.matter, self.in_domain)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Leave out all others; the mask is in the order of the table."""
        self.order = self.order[mask]

    def last(self, rows: npt.NDArray[np.bool_]) -> None:
        """Put these rows, a mask of those that were read, after all others."""
        behind = rows[self.order]
        self.order = np.concatenate([self.order[~behind], self.order[behind]])

    def first(self, place: int) -> None:
        """Put the row at this place before all others."""
        self.order = np.concatenate([[self.order[place]], np.delete(self.order, place)])


def hull_energies(candidates: Catalogue) -> npt.NDArray[np.float64] | None:
    """(n,) energies above the hull as the source has them, eV/atom, NaN where there is none; None without a column."""
    frame = candidates.columns([*HULL, UNREAD])
    name = next((name for name in HULL if name in frame), None)
    return None if name is None else numbers_of(frame, name)[0]


class Table(Places):
    """Columns of every candidate that has a prediction; in the order of the candidates until it is sorted.

    Attributes:
        numbers: column -> (n,) its values.
        lines: of the candidates.
    """

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
        content = index.inverse[ranked]
        del index
        self.numbers = {name: numbers.pop(name)[content] for name in NUMBERS}
        super().__init__(ranked, domain[content])
        # Read now that the index is gone: both at once would be the most memory of the whole run.
        release()
        self.lines = candidates.take(ranked).lines
        hull = hull_energies(candidates)
        self._hull = np.full(len(ranked), np.nan) if hull is None else hull[ranked]
        self._left_out = set[str]()
        if candidates.kind == COMPOSITIONS:
            self._left_out = {*OF_CELLS, *(("e_above_hull",) if hull is None else ())}
        self.score = np.zeros(len(ranked))
        self.shortlist = np.zeros(len(ranked), dtype=bool)

    @property
    def hashes(self) -> list[str]:
        """(n,) of every candidate, in the order of the candidates."""
        return list(self.lines.hashes)

    def sort(self, score: npt.NDArray[np.float64]) -> None:
        """The best score comes first, of equal ones the lower identifier."""
        self.score = score
        keys = pa.table({"score": score, "material_id": pa.array(self.lines.material_id)})
        order = pc.sort_indices(keys, sort_keys=[("score", "descending"), ("material_id", "ascending")])
        self.order = order.to_numpy().astype(np.int64)

    def frame(self, start: int, stop: int) -> pd.DataFrame:
        """Places start to before stop, counted from 0, with all columns of the ranking."""
        rows = self.order[start:stop]
        lines = self.lines.take(rows)
        columns = {name: values[rows] for name, values in self.numbers.items() if name != "mean"}
        frame = pd.DataFrame(
            {
                "rank": np.arange(start + 1, start + len(rows) + 1),
                "material_id": lines.material_id,
                "formula": lines.formulas,
                **columns,
                "e_above_hull": self._hull[rows],
                "in_domain": self.in_domain[rows],
                "matter": pd.array(self.matter[rows], dtype="str"),
                "score": self.score[rows],
                "shortlist": self.shortlist[start : start + len(rows)],
                "n_atoms": lines.n_atoms,
                "remark": pd.array(
                    [self._remark(h, row) for h, row in zip(lines.hashes, rows, strict=True)], dtype="str"
                ),
                "structure_hash": lines.hashes,
            }
        )
        return frame[[name for name in COLUMNS if name not in self._left_out]]

    def _remark(self, name: str, row: int) -> str:
        kind = self.matter[row]
        said = [self._remarks.get(name, ""), f"{kind}: {MATTER_KINDS[kind]}" if kind in NO_BULK else ""]
        return "; ".join(part for part in said if part)

    def frames(self) -> Iterator[pd.DataFrame]:
        """The whole ranking, piece by piece."""
        for start in range(0, len(self), PIECE):
            yield self.frame(start, start + PIECE)


def _ends(window: tuple[float, float], transform: str) -> tuple[float, float]:
    low, high = transform_target(window, transform)
    return float(low), float(high)


def write_ranking(store: Store, frames: Iterator[pd.DataFrame], units: Mapping[str, str]) -> None:
    """Write ranking.parquet, its units in the schema metadata, and ranking.csv."""
    with store.replacing(RANKING_CSV) as text, store.replacing(RANKING) as file:
        writer: pq.ParquetWriter | None = None
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
            table = with_units(table, units)
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
            text.write(csv_text(frame, header=bool(frame["rank"].iloc[0] == 1)).encode())
        if writer is not None:
            writer.close()
