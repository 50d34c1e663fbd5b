"""Several properties of the same candidates joined into one ranking, with known values where there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.campaigns import EVIDENCE, KNOWN, LABELLED, OUT_OF_FOLD, RANKING, SUMMARY, structures_name
from atomsets_core.discovery import (
    Goal,
    Judged,
    Known,
    best_combination,
    judge,
    known_of,
    pick_batch,
    search_together,
    summarize_together,
)
from atomsets_core.jobs.candidate_columns import COMPUTED, candidate_column, candidate_numbers
from atomsets_core.jobs.rank import (
    LEFT_OUT,
    LOOKED_AT,
    OF_CELLS,
    OFFERED,
    PIECE,
    VACUUM,
    Places,
    hull_energies,
    put_in_place,
    write_ranking,
)
from atomsets_core.sources import Catalogue, SourceError
from atomsets_core.storage import Store
from atomsets_core.structures import MATTER_KINDS, NO_BULK, STRUCTURES, IntArray
from atomsets_core.transforms import NONE, Transform, find_transform

FloatArray = npt.NDArray[np.float64]

SEEDS = 5
"""Searches with hidden values, see `discovery.search_together`."""


@dataclass(frozen=True)
class Part:
    """A property whose own campaign has run.

    Attributes:
        name: of the property.
        store: of its campaign.
        unit: of its values.
        transform: name of the scale its model works on.
    """

    name: str
    store: Store
    unit: str
    transform: str

    @property
    def scale(self) -> Transform:
        """To the scale of the model."""
        return find_transform(self.transform)


@dataclass(frozen=True)
class Combined:
    """What a joint ranking came to; the rows are in ranking.parquet.

    Attributes:
        n_ranked: rows.
        n_in_domain: of them inside the domain of every model that predicted for them.
        n_known: rows with at least one known value.
        n_front: rows on the Pareto front of the values.
        filtered: reason -> candidates left out by it, the limits among them.
        failed: candidates without a value of some property: identifier -> reason.
        combine: how the score was made, one of `discovery.COMBINATIONS`.
        searches: see `discovery.summarize_together`; empty where nothing could be tried.
        tried: "n_known", "n_pool", "budget", "n_front" of these searches, and "n", materials with all values; why
            nothing was tried as "why".
        shortlist: the chosen rows, best first, with the columns of the file.
        why_first: why the first line is outside the domain; empty where it isn't.
        units: column -> unit.
    """

    n_ranked: int
    n_in_domain: int
    n_known: int
    n_front: int
    filtered: dict[str, int]
    failed: dict[str, str]
    combine: str
    searches: list[dict[str, Any]]
    tried: dict[str, Any]
    shortlist: pd.DataFrame
    why_first: str
    units: dict[str, str] = field(default_factory=dict)


def on_scale(goal: Goal, scale: Transform) -> Goal:
    """A goal in the unit of a property, as one on the scale of its model."""

    def forward(value: float | None) -> float | None:
        return None if value is None else float(scale.forward(np.array(value)))

    return replace(goal, value=forward(goal.value), low=forward(goal.low), high=forward(goal.high))


def combine(
    store: Store,
    candidates: Catalogue,
    parts: Sequence[Part],
    goals: Sequence[Goal],
    *,
    how: str = "auto",
    shortlist: int = 25,
    outside: str = "mark",
    leave_known: bool = True,
    units: Mapping[str, str] | None = None,
) -> Combined:
    """Rank candidates by several properties at once; write ranking.parquet and ranking.csv.

    Args:
        store: of the campaign; each part has its own.
        candidates: as they were pulled.
        parts: the properties.
        goals: in the units of the properties; of names that no part has, of columns of the candidates.
        how: one of `discovery.COMBINATIONS`, or "auto": the one that gained most in searches with hidden values.
        shortlist: length of the shortlist.
        outside: see `Wish.outside`.
        leave_known: leave out candidates of which every property is known.
        units: of columns of the candidates, where their source says any.

    Raises:
        SourceError: no candidate is left; the message says which limit left how many out.
    """
    table = _Table(candidates, parts, goals, units or {})
    scales = {part.name: part.scale for part in parts}
    wanted = [on_scale(goal, scales.get(goal.name, NONE)) for goal in goals]
    searches, tried, best = _search(parts, wanted)
    chosen = best if how == "auto" else how
    filtered: Counter[str] = Counter()
    table.leave_out(table.missing_columns(), filtered)
    if leave_known and len(parts):
        table.leave_out({"every property is known": np.all(list(table.known.values()), axis=0)}, filtered)
    known = _known(parts, wanted, table)
    if not len(table.rows):
        raise _nothing(filtered, table)
    judged = judge(wanted, table.mean, table.std, known, chosen)
    asked = {goal.name: goal for goal in goals if goal.at_least is not None}
    out = {limit_words(asked[name], table.units.get(name, "")): mask for name, mask in judged.out.items()}
    likeliest = {name: float(judged.met[name].max()) for name in judged.out}
    table.judged = judged
    table.leave_out(out, filtered)
    if not len(table.rows):
        raise _nothing(filtered, table, likeliest)
    table.sort()
    # What a formula is made of, no cell shows: nothing is to be looked at.
    offer = max(OFFERED * shortlist, LOOKED_AT) if candidates.kind == STRUCTURES else 0
    dropped, why_first = put_in_place(table, candidates, outside, offer)
    if dropped:
        filtered[LEFT_OUT[candidates.kind]] = dropped
    table.choose(wanted, known, chosen, shortlist, outside)
    write_ranking(store, table.frames(), table.units)
    short = table.frame(0, max(OFFERED * shortlist, LOOKED_AT))
    order = table.order
    return Combined(
        n_ranked=len(table),
        n_in_domain=int(table.in_domain[order].sum()),
        n_known=int(np.any(list(table.known.values()), axis=0)[order].sum()) if parts else 0,
        n_front=int(table.judged.front[order].sum()),
        filtered=dict(filtered.most_common()),
        failed=table.failed,
        combine=chosen,
        searches=searches,
        tried=tried,
        shortlist=short[short["shortlist"]].reset_index(drop=True),
        why_first=why_first,
        units=table.units,
    )


def limit_words(goal: Goal, unit: str) -> str:
    """A limit that a candidate missed, in words."""
    unit = f" {unit}" if unit else ""
    what = {
        "exceed": f"above {goal.value:g}{unit}" if goal.value is not None else "",
        "below": f"below {goal.value:g}{unit}" if goal.value is not None else "",
        "window": f"between {goal.low:g} and {goal.high:g}{unit}" if goal.low is not None else "",
        "class": "of the wanted class",
    }[goal.goal]
    return f"{goal.name} is {what} with less than {100 * (goal.at_least or 0):g}%"


def chance_words(share: float) -> str:
    """A probability as a percentage, with so many digits that nearly certain doesn't look like certain."""
    for digits in range(6):
        text = f"{100 * share:.{digits}f}"
        if share in (0.0, 1.0) or float(text) not in (0.0, 100.0):
            return f"{text}%"
    return "almost 0%" if share < 0.5 else "almost 100%"


def _nothing(filtered: Mapping[str, int], table: _Table, likeliest: Mapping[str, float] | None = None) -> SourceError:
    reasons = "; ".join(f"{reason}: {n}" for reason, n in filtered.items())
    best = ", ".join(f"{chance_words(share)} for {name}" for name, share in (likeliest or {}).items())
    more = f". The likeliest candidate has {best}: lower at_least, or ask for less" if best else ""
    lost = f"{len(table.failed)} have no value of some property" if table.failed else ""
    return SourceError(f"no candidate is left: {reasons or lost or 'there is none'}{more}")


def _known(parts: Sequence[Part], goals: Sequence[Goal], table: _Table) -> Known:
    """What the labels say of the axes; columns that no label has are as the candidates' own."""
    labelled = {part.name: _labels(part) for part in parts}
    whole = {name: values for name, (_, values) in labelled.items()}
    for goal in goals:
        if goal.name not in labelled and (column := _column_of_labels(parts, goal.name)) is not None:
            labelled[goal.name], whole[goal.name] = column, column[1]
        whole.setdefault(goal.name, table.mean[goal.name])
    if any(goal.name not in labelled for goal in goals):
        return known_of(goals, {goal.name: np.empty(0) for goal in goals}, whole)
    shared = _shared([labelled[goal.name][0] for goal in goals])
    values = {goal.name: labelled[goal.name][1][rows] for goal, rows in zip(goals, shared, strict=True)}
    return known_of(goals, values, whole)


def _labels(part: Part) -> tuple[npt.NDArray[np.object_], FloatArray]:
    """(n,) content hashes and values on the scale of the model."""
    found = part.store.read_table(LABELLED, columns=["structure_hash", "value"])
    values = part.scale.forward(found["value"].to_numpy().astype(np.float64))
    return np.array(found["structure_hash"].to_pylist(), dtype=object), np.asarray(values)


def _column_of_labels(parts: Sequence[Part], name: str) -> tuple[npt.NDArray[np.object_], FloatArray] | None:
    """(n,) content hashes and values of a column of labelled materials; None where no source of labels has it."""
    for part in parts:
        catalogue = Catalogue.open(part.store, structures_name("training"))
        labelled = catalogue.take(np.isin(np.asarray(catalogue.hashes, dtype=object), _labels(part)[0]))
        try:
            values = candidate_column(labelled, name)
        except SourceError:
            continue
        there = np.isfinite(values)
        if there.any():
            return np.asarray(labelled.hashes, dtype=object)[there], values[there]
    return None


def _shared(hashes: Sequence[npt.NDArray[np.object_]]) -> list[IntArray]:
    """For each list, (k,) int64 rows of what all of them hold, in one order."""
    common = set(hashes[0]).intersection(*hashes[1:])
    names = np.array(sorted(common), dtype=object)
    places = [{name: row for row, name in reversed(list(enumerate(texts)))} for texts in hashes]
    return [np.array([place[name] for name in names], dtype=np.int64) for place in places]


def _search(parts: Sequence[Part], goals: Sequence[Goal]) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """Searches with hidden values, with the predictions of held-out members."""
    names = {part.name for part in parts}
    columns = {g.name: _column_of_labels(parts, g.name) for g in goals if g.name not in names}
    if lacking := sorted(name for name, column in columns.items() if column is None):
        return [], {"why": f"labelled materials have no {', '.join(lacking)}"}, best_combination([])
    found: dict[str, tuple[npt.NDArray[np.object_], FloatArray, FloatArray, FloatArray]] = {}
    for part in parts:
        model = part.store.read_json(SUMMARY)["model"]["folder"]
        kept = ["structure_hash", "value", "predicted", "std_scale"]
        frame = part.store.read_table(f"{model}/{OUT_OF_FOLD}", kept).to_pandas()
        hashes, value, centre, width = (frame[name].to_numpy() for name in kept)
        value, centre = (np.asarray(part.scale.forward(numbers)) for numbers in (value, centre))
        found[part.name] = hashes.astype(object), value, centre, np.nan_to_num(width)
    for name, column in columns.items():
        if column is not None:
            found[name] = column[0], column[1], column[1], np.zeros(len(column[1]))
    rows = _shared([hashes for hashes, *_ in found.values()])
    placed = list(zip(found.items(), rows, strict=True))
    values = {name: value[at] for (name, (_, value, _, _)), at in placed}
    mean = {name: centre[at] for (name, (_, _, centre, _)), at in placed}
    std = {name: width[at] for (name, (_, _, _, width)), at in placed}
    runs = [run for seed in range(SEEDS) if (run := search_together(goals, values, mean, std, seed))]
    n = len(rows[0])
    if not runs:
        return [], {"n": n, "why": f"of {n} materials all values are known, too few to hide some"}, best_combination([])
    about = {name: runs[0][name] for name in ("n_known", "n_pool", "budget", "n_front")}
    return summarize_together(runs), {"n": n, "repeats": len(runs), **about}, best_combination(runs)


class _Table(Places):
    """Values of every property of every candidate that has them all.

    Attributes:
        mean: property or column -> (n,) values on the scale of the model.
        std: the same of deviations; 0 where a value is known.
        known: property -> (n,) bool, whether its value is a label.
    """

    def __init__(
        self, candidates: Catalogue, parts: Sequence[Part], goals: Sequence[Goal], units: Mapping[str, str]
    ) -> None:
        self._lines, self._of_cells = candidates.lines, candidates.kind == STRUCTURES
        ids, n = pd.Index(self._lines.material_id), len(candidates)
        self._natural: dict[str, dict[str, FloatArray]] = {}
        self.mean, self.std = dict[str, FloatArray](), dict[str, FloatArray]()
        self.known, self.failed = dict[str, npt.NDArray[np.bool_]](), dict[str, str]()
        self.units = {"e_above_hull": "eV/atom", "p_feasible": "", "p_front": "", "n_atoms": "", "score": ""}
        inside, there = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
        self._remarks: dict[int, str] = {}
        matter = np.full(n, "", dtype=object)
        offered = np.zeros(n, dtype=bool)
        for part in parts:
            columns = ["material_id", "predicted", "std", "lower", "upper", "std_scale", "in_domain", "remark"]
            ranked = part.store.read_table(RANKING, [*columns, *(("matter",) if self._of_cells else ())])
            at = ids.get_indexer(ranked["material_id"].to_pylist())
            ranked, at = ranked.filter(at >= 0), at[at >= 0]
            natural = {name: np.full(n, np.nan) for name in ("value", "std", "lower", "upper")}
            for name in natural:
                natural[name][at] = ranked["predicted" if name == "value" else name].to_numpy()
            deviation, own = np.full(n, np.nan), np.zeros(n, dtype=bool)
            deviation[at] = np.nan_to_num(ranked["std_scale"].to_numpy())
            domain = np.zeros(n, dtype=bool)
            domain[at] = ranked["in_domain"].to_numpy()
            if self._of_cells:
                words = np.array(ranked["matter"].to_pylist(), dtype=object)
                matter[at[words != ""]] = words[words != ""]
            for row, text in zip(at, ranked["remark"].to_pylist(), strict=True):
                if text:
                    self._remarks[int(row)] = text
            seen = part.store.read_table(KNOWN)
            where = ids.get_indexer(seen["material_id"].to_pylist())
            value = seen["value"].to_numpy().astype(np.float64)[where >= 0]
            where = where[where >= 0]
            for name in ("value", "lower", "upper"):
                natural[name][where] = value
            natural["std"][where], deviation[where], own[where], domain[where] = 0.0, 0.0, True, True
            have = np.isfinite(natural["value"])
            offered |= have
            self._natural[part.name] = natural
            self.mean[part.name] = np.asarray(part.scale.forward(natural["value"]))
            self.std[part.name], self.known[part.name] = deviation, own
            self.units |= dict.fromkeys(self._columns(part.name), part.unit)
            inside &= domain
            there &= have
        for row in np.flatnonzero(offered & ~there):
            lacking = [name for name, found in self._natural.items() if not np.isfinite(found["value"][row])]
            self.failed[str(self._lines.material_id[row])] = f"there is no value of {', '.join(lacking)} for it"
        self._column_names = [goal.name for goal in goals if goal.name not in self._natural]
        there = there if parts else np.ones(n, dtype=bool)
        for name in self._column_names:
            self.mean[name], unread = candidate_numbers(candidates, name)
            for row in np.flatnonzero((unread != "") & there):
                self.failed[str(self._lines.material_id[row])] = f"{name} {unread[row]}"
            there &= unread == ""
            self.std[name] = np.zeros(n)
            self.units.setdefault(name, units.get(name, "") or COMPUTED.get(name, ""))
        rows = np.flatnonzero(there)
        hull = hull_energies(candidates)
        self._hull = np.full(n, np.nan) if hull is None else hull
        self._left_out = set[str]()
        if not self._of_cells:
            self._left_out = {*OF_CELLS, *(("e_above_hull",) if hull is None else ())}
        super().__init__(rows, inside[rows])
        self.matter = matter[rows]
        self._narrow(rows)
        nothing = np.zeros(len(rows))
        self.judged = Judged(nothing, nothing, {}, nothing, nothing.astype(bool), {})
        self.shortlist = np.zeros(0, dtype=bool)

    @staticmethod
    def _columns(name: str) -> tuple[str, str, str, str]:
        return name, f"{name}_std", f"{name}_lower", f"{name}_upper"

    def _narrow(self, rows: IntArray) -> None:
        """Keep these rows of all columns."""
        self.mean = {name: values[rows] for name, values in self.mean.items()}
        self.std = {name: values[rows] for name, values in self.std.items()}
        self.known = {name: values[rows] for name, values in self.known.items()}
        for found in self._natural.values():
            for name in found:
                found[name] = found[name][rows]

    def missing_columns(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Reason -> (n,) bool, candidates without a value in a column that counts."""
        return {f"{name} is missing": np.isnan(self.mean[name]) for name in self._column_names}

    def leave_out(self, reasons: Mapping[str, npt.NDArray[np.bool_]], filtered: Counter[str]) -> None:
        """Leave candidates out, each counted under the first reason that holds for it."""
        gone = np.zeros(len(self._ranked), dtype=bool)
        for reason, mask in reasons.items():
            if n := int((mask & ~gone).sum()):
                filtered[reason] += n
            gone |= mask
        kept = np.flatnonzero(~gone)
        if len(kept) == len(gone):
            return
        judged = self.judged
        matter = self.matter[kept]
        super().__init__(self._ranked[kept], self.in_domain[kept])
        self.matter = matter
        self._narrow(kept)
        self.judged = Judged(
            judged.score[kept], judged.feasible[kept], {k: v[kept] for k, v in judged.met.items()},
            judged.on_front[kept], judged.front[kept], {},
        )  # fmt: skip

    def sort(self) -> None:
        """The best score comes first; of equal ones the likelier to be feasible, then the lower identifier."""
        names = self._lines.take(self._ranked).material_id.astype(str)
        self.order = np.lexsort((np.asarray(names, dtype=str), -self.judged.feasible, -self.judged.score))

    def choose(self, goals: Sequence[Goal], known: Known, how: str, size: int, outside: str) -> None:
        """Mark the shortlist among the leading candidates."""
        offer = self.order[: OFFERED * size]
        fit = np.ones(len(offer), dtype=bool)
        if outside != "keep":
            kind = self.matter[offer]
            fit = ~(np.isin(kind, list(VACUUM)) | (np.isin(kind, list(NO_BULK)) & ~self.in_domain[offer]))
            fit &= self.in_domain[offer] | ~self.in_domain[offer].any()
        rows = offer[fit]
        mean, std = ({name: values[rows] for name, values in of.items()} for of in (self.mean, self.std))
        formulas = self._lines.take(self._ranked[rows]).formulas
        picked = pick_batch(goals, mean, std, known, list(formulas), size, how)
        self.shortlist = np.zeros(len(self.order), dtype=bool)
        self.shortlist[np.flatnonzero(fit)[picked]] = True

    def frame(self, start: int, stop: int) -> pd.DataFrame:
        """Places start to before stop, counted from 0, with all columns of the ranking."""
        rows = self.order[start:stop]
        at = self._ranked[rows]
        lines, judged = self._lines.take(at), self.judged
        columns: dict[str, Any] = {
            "rank": np.arange(start + 1, start + len(rows) + 1),
            "material_id": lines.material_id,
            "formula": lines.formulas,
        }
        for name, found in self._natural.items():
            columns |= dict(
                zip(self._columns(name), (found[k][rows] for k in ("value", "std", "lower", "upper")), strict=True)
            )
            columns[f"{name}_known"] = self.known[name][rows]
        for name in judged.met:
            columns[f"{name}_probability"] = judged.met[name][rows]
        columns |= {name: self.mean[name][rows] for name in self._column_names}
        columns.setdefault("e_above_hull", self._hull[at])
        columns |= {
            "p_feasible": judged.feasible[rows],
            "p_front": judged.on_front[rows],
            "front": judged.front[rows],
            "in_domain": self.in_domain[rows],
            "matter": pd.array(self.matter[rows], dtype="str"),
            "score": judged.score[rows],
            "shortlist": self.shortlist[start : start + len(rows)],
        }
        columns.setdefault("n_atoms", lines.n_atoms)
        columns["remark"] = pd.array([self._remark(int(i), row) for i, row in zip(at, rows, strict=True)], dtype="str")
        columns["structure_hash"] = lines.hashes
        left_out = self._left_out.difference(self._column_names)
        return pd.DataFrame({name: values for name, values in columns.items() if name not in left_out})

    def _remark(self, place: int, row: int) -> str:
        kind = self.matter[row]
        said = self._remarks.get(place, "")
        own = f"{kind}: {MATTER_KINDS[kind]}" if kind in NO_BULK else ""
        return "; ".join(part for part in (said, own if own not in said else "") if part)

    def frames(self) -> Iterator[pd.DataFrame]:
        """The whole ranking, piece by piece."""
        for start in range(0, len(self), PIECE):
            yield self.frame(start, start + PIECE)


def write_structures(store: Store, candidates: Catalogue, shortlist: pd.DataFrame) -> None:
    """Write evidence.json of a joint ranking: the structures of the shortlist, best first; none of compositions.

    Args:
        store: of the campaign.
        candidates: as they were pulled.
        shortlist: of `Combined`.
    """
    names = list(shortlist["material_id"])
    at = pd.Index(candidates.lines.material_id).get_indexer(names)
    rows = np.sort(at)
    if candidates.kind != STRUCTURES or not len(rows):
        store.write_json(EVIDENCE, {"candidates": []})
        return
    found = candidates.take(rows).structures()
    written = {}
    for i in range(len(rows)):
        part = slice(found.offsets[i], found.offsets[i + 1])
        written[str(found.material_id[i])] = {
            "material_id": str(found.material_id[i]),
            "lattice": np.round(found.lattice[i], 6).tolist(),
            "numbers": found.numbers[part].tolist(),
            "frac": np.round(found.frac[part], 6).tolist(),
            "occupancy": None if found.occupancy is None else found.occupancy[part].tolist(),
        }
    store.write_json(EVIDENCE, {"candidates": [written[name] for name in names]})
