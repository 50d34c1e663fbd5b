"""What changed between two rankings: who entered and left the lists people look at, who moved, and why.

Rankings are Arrow tables with the columns `RANKED`, best first; only the lists become Python objects. A material
is known by its identifier: if its structure was changed, it is the same one, and the diff says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from atomsets_core.models import spearman

TOP = 10
"""First ranks that count as the top."""

MOST = 50
"""Entries of a list in a record; the counts say how many there were."""

LABELLED, FAILED, GONE = "its value is now known", "failed", "filtered out, or withdrawn by its source"
NEW, REVISED, OVERTAKEN = "a new candidate", "its structure was revised", "overtaken"


@dataclass(frozen=True)
class Move:
    """One material in a list of changes.

    Attributes:
        material_id: its identifier.
        formula: its formula.
        rank: now; None where it is ranked no more.
        rank_before: in the last run; None where it wasn't ranked.
        predicted: now, or, where it is ranked no more, in the last run; unit of the target.
        lower: end of its interval.
        upper: end of its interval.
        in_domain: whether the model knows structures like it.
        why: one of the reasons above, or what the ledger says.
    """

    material_id: str
    formula: str
    rank: int | None
    rank_before: int | None
    predicted: float
    lower: float
    upper: float
    in_domain: bool
    why: str = ""


def compare(
    before: pa.Table,
    now: pa.Table,
    known: Mapping[str, float],
    failed: Mapping[str, str],
    on_scale: Any = np.asarray,
) -> dict[str, Any]:
    """What changed between two runs.

    Args:
        before: what the last run ranked.
        now: what this run ranked.
        known: identifier -> value, of everything that is labelled now.
        failed: identifier -> reason, of every candidate that could not be used this time.
        on_scale: from the unit of the target to the scale of the model.

    Returns:
        JSON: "candidates" (before, now, new, gone, revised), "shortlist" and "top" (entered, left, moved, and their
        counts), "predictions" (how far those of unchanged structures moved, on the model's scale, and their rank
        correlation).
    """
    place = _places(now["material_id"], before["material_id"])
    kept = np.flatnonzero(place >= 0)
    same = _equal(now["structure_hash"].take(pa.array(kept)), before["structure_hash"].take(pa.array(place[kept])))
    lists = {
        name: _list_changes(before, now, rows(before), rows(now), place, known, failed)
        for name, rows in (("shortlist", _shortlist), ("top", _top))
    }
    return {
        "candidates": {
            "before": before.num_rows,
            "now": now.num_rows,
            "new": now.num_rows - len(kept),
            "gone": before.num_rows - len(np.unique(place[kept])),
            "revised": int((~same).sum()),
        },
        **lists,
        "predictions": _shift(before, now, kept[same], place[kept[same]], on_scale),
    }


def newcomers(before: pa.Table, now: pa.Table) -> npt.NDArray[np.bool_]:
    """(n_now,) which candidates the last run didn't rank, or with another structure."""
    return ~pc.is_in(now["structure_hash"], value_set=before["structure_hash"].combine_chunks()).to_numpy(
        zero_copy_only=False
    )


def entered_top(before: pa.Table | None, now: pa.Table) -> list[dict[str, Any]]:
    """The rows of the first `TOP` ranks that weren't there in the last run; none in a first run."""
    if before is None:
        return []
    old = set(before["material_id"].slice(0, TOP).to_pylist())
    return [row for row in now.slice(0, TOP).to_pylist() if row["material_id"] not in old]


def _places(names: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """(n,) row of each name among others; -1 where it isn't there."""
    found = pc.index_in(names, value_set=among.combine_chunks())
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _equal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return pc.equal(a, b).to_numpy().astype(bool)


def _shortlist(table: pa.Table) -> npt.NDArray[np.int64]:
    return np.flatnonzero(table["shortlist"].to_numpy())


def _top(table: pa.Table) -> npt.NDArray[np.int64]:
    return np.arange(min(TOP, table.num_rows))


def _list_changes(
    before: pa.Table,
    now: pa.Table,
    rows_before: npt.NDArray[np.int64],
    rows_now: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    known: Mapping[str, float],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """Who entered one list, who left it, and who stayed with another rank."""
    old = before.take(pa.array(rows_before)).to_pylist()
    new = now.take(pa.array(rows_now)).to_pylist()
    old_by_name = {row["material_id"]: row for row in old}
    new_names = {row["material_id"] for row in new}
    entered, moved, left = [], [], []
    for row, at in zip(new, place[rows_now].tolist(), strict=True):
        then = before.slice(at, 1).to_pylist()[0] if at >= 0 else None
        if row["material_id"] not in old_by_name:
            entered.append(_move(row, row, then, _why_entered(row, then)))
        elif then is not None and then["rank"] != row["rank"]:
            moved.append(_move(row, row, then, REVISED if then["structure_hash"] != row["structure_hash"] else ""))
    gone = [row for row in old if row["material_id"] not in new_names]
    found = _places(pa.chunked_array([pa.array([row["material_id"] for row in gone], pa.string())]), now["material_id"])
    for row, at in zip(gone, found.tolist(), strict=True):
        today = now.slice(at, 1).to_pylist()[0] if at >= 0 else None
        left.append(_move(row, today, row, _why_left(row["material_id"], today, known, failed)))
    moved.sort(key=lambda move: -abs((move.rank or 0) - (move.rank_before or 0)))
    parts = {"entered": entered, "left": left, "moved": moved}
    return {
        **{name: [asdict(move) for move in moves[:MOST]] for name, moves in parts.items()},
        "counts": {"size": len(new), **{name: len(moves) for name, moves in parts.items()}},
    }


def _move(shown: Mapping[str, Any], now: Mapping[str, Any] | None, then: Mapping[str, Any] | None, why: str) -> Move:
    row = now or shown
    return Move(
        material_id=row["material_id"],
        formula=row["formula"],
        rank=now["rank"] if now else None,
        rank_before=then["rank"] if then else None,
        predicted=row["predicted"],
        lower=row["lower"],
        upper=row["upper"],
        in_domain=bool(row["in_domain"]),
        why=why,
    )


def _why_entered(row: Mapping[str, Any], then: Mapping[str, Any] | None) -> str:
    if then is None:
        return NEW
    return REVISED if then["structure_hash"] != row["structure_hash"] else ""


def _why_left(name: str, today: Mapping[str, Any] | None, known: Mapping[str, float], failed: Mapping[str, str]) -> str:
    if today is not None:
        return OVERTAKEN
    if name in known:
        return LABELLED
    return f"{FAILED}: {failed[name]}" if name in failed else GONE


def _shift(
    before: pa.Table, now: pa.Table, rows: npt.NDArray[np.int64], places: npt.NDArray[np.int64], on_scale: Any
) -> dict[str, Any]:
    """How far the predictions of unchanged structures moved."""
    if not len(rows):
        return {"compared": 0, "mean_shift": None, "mean_absolute_shift": None, "spearman": None}
    old = on_scale(before["predicted"].to_numpy()[places])
    new = on_scale(now["predicted"].to_numpy()[rows])
    correlation = spearman(old, new)
    return {
        "compared": len(rows),
        "mean_shift": float(np.mean(new - old)),
        "mean_absolute_shift": float(np.mean(np.abs(new - old))),
        "spearman": correlation if np.isfinite(correlation) else None,
    }
