"""What stands behind a shortlist: structures, nearest known materials, the share of each site, a map of feature space.

It is written after ranking as evidence.json and map.parquet, so that the report needs neither features nor the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atomsets_core.campaigns import EVIDENCE, MAP, OUT_OF_FOLD, RANKING
from atomsets_core.features import AnyStore
from atomsets_core.models import (
    NETWORKS,
    AtomSetsRegressor,
    ClassProbability,
    Contributions,
    HeadRegressor,
    contributions,
    load_regressor,
    read_config,
    sampled_rows,
)
from atomsets_core.parents import Features
from atomsets_core.storage import Store, with_units
from atomsets_core.structures import Compositions, Structures

NEXT = 300
"""Candidates after the shortlist that the map shows."""

SAMPLE = 1500
"""Others that it shows at most: those of a few shards, since reading features is what a map costs."""

SAMPLED_SHARDS = 8

MAP_SCHEMA = pa.schema(
    [
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("material_id", pa.string()),
        ("formula", pa.string()),
        ("value", pa.float64()),
        ("trained", pa.bool_()),
        ("shortlist", pa.bool_()),
    ]
)


def write_evidence(store: Store, features: AnyStore, folder: str, shortlist: Structures | Compositions) -> None:
    """Write evidence.json and map.parquet into a campaign's folder.

    Memory is that of the shortlist, of a few shards and of single columns of the ranking.

    Args:
        store: of the campaign; ranking.parquet and the model's out_of_fold.parquet are read.
        features: of candidates and training structures.
        folder: of the model.
        shortlist: the structures or compositions on the shortlist, best first.

    Raises:
        StorageError: a file is missing or damaged, or can't be written.
        KeyError: a shortlisted structure has no features.
    """
    model = load_regressor(store, folder)
    trained = store.read_table(f"{folder}/{OUT_OF_FOLD}", ["material_id", "formula", "value"])
    candidates = _candidates(model, features, shortlist, trained)
    points, explained = _map(store, features, model, trained)
    unit = str(read_config(store, folder)["about"].get("unit", ""))
    units = {"x": "first principal component", "y": "second principal component", "value": unit, "trained": "yes or no"}
    store.write_table(MAP, with_units(points, units))
    store.write_json(EVIDENCE, {"candidates": candidates, "map": {"explained": explained}})


def _candidates(
    model: AtomSetsRegressor, features: AnyStore, shortlist: Structures | Compositions, trained: pa.Table
) -> list[dict[str, Any]]:
    if not len(shortlist):
        return []
    found = features.find(list(shortlist.hashes)).load()
    shares = _shares(model, found)
    distance, rows = model.domain_.nearest(model.pooled(found), trained.num_rows)
    near = trained.take(pa.array(rows.reshape(-1))).to_pylist()
    k = rows.shape[1]
    out = []
    for i, (start, stop) in enumerate(zip(shortlist.offsets[:-1], shortlist.offsets[1:], strict=True)):
        neighbours = [
            {**row, "distance": float(d)} for row, d in zip(near[i * k : (i + 1) * k], distance[i], strict=True)
        ]
        out.append(
            {
                "material_id": str(shortlist.material_id[i]),
                **_what_it_is(shortlist, i),
                "neighbours": neighbours,
                "base": None if shares is None else float(shares.base[i]),
                "sites": None if shares is None else np.round(shares.sites[start:stop], 6).tolist(),
                "structure": None if shares is None else float(shares.structure[i]),
            }
        )
    return out


def _what_it_is(shortlist: Structures | Compositions, i: int) -> dict[str, Any]:
    """The crystal, or the elements of a formula with their fractions, as JSON."""
    rows = slice(shortlist.offsets[i], shortlist.offsets[i + 1])
    numbers = shortlist.numbers[rows].tolist()
    if isinstance(shortlist, Compositions):
        return {"numbers": numbers, "fractions": np.round(shortlist.fractions[rows], 9).tolist()}
    return {
        "lattice": np.round(shortlist.lattice[i], 6).tolist(),
        "numbers": numbers,
        "frac": np.round(shortlist.frac[rows], 6).tolist(),
        "occupancy": shortlist.shares[rows].tolist() if shortlist.disordered[i] else None,
    }


def _shares(model: AtomSetsRegressor, found: Features) -> Contributions | None:
    """What each site adds to the prediction, to the log odds of a class; of other heads than AtomSets nobody says."""
    if not isinstance(model, HeadRegressor):
        return contributions(model.network_, model.spec_, found)
    if not isinstance(model, ClassProbability) or model.head != NETWORKS:
        return None
    told, calibrator = contributions(model.network_, model.spec_, found), model.calibrator_
    shift = float(np.diff(calibrator.bias or (0.0, 0.0))[0])
    return Contributions(
        (told.base + shift) / calibrator.temperature,
        told.sites / calibrator.temperature,
        told.structure / calibrator.temperature,
    )


def _map(store: Store, features: AnyStore, model: AtomSetsRegressor, trained: pa.Table) -> tuple[pa.Table, list[float]]:
    """Points in the plane of the domain's first two components, and the share of the variance each of them holds."""
    domain = model.domain_
    # The references of a large training set are a sample of it.
    known = trained.take(pa.array(sampled_rows(trained.num_rows)))
    parts = [_points(_plane(domain.reference), known, known["value"], trained=True)]
    shown = _shown(store, features)
    if shown.num_rows:
        plane = _plane(domain.project(model.pooled(features.find(shown["structure_hash"].to_pylist()))))
        parts.append(_points(plane, shown, shown["predicted"], trained=False))
    spread = _plane(domain.reference).astype(np.float64).var(axis=0)
    return pa.concat_tables(parts), (spread / len(domain.mean)).tolist()


def _plane(projected: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, 2) the first two components; 0 where there is but one."""
    return np.pad(projected[:, :2], ((0, 0), (0, max(0, 2 - projected.shape[1]))))


def _points(plane: npt.NDArray[np.float32], rows: pa.Table, value: pa.ChunkedArray, *, trained: bool) -> pa.Table:
    n = rows.num_rows
    flags = pa.array(np.zeros(n, dtype=bool))
    return pa.table(
        {
            "x": plane[:, 0],
            "y": plane[:, 1],
            "material_id": rows["material_id"],
            "formula": rows["formula"],
            "value": value,
            "trained": np.full(n, trained),
            "shortlist": flags if trained else rows["shortlist"],
        }
    ).cast(MAP_SCHEMA)


def _shown(store: Store, features: AnyStore) -> pa.Table:
    """The rows of the ranking that the map shows: the shortlist, what comes next, and some of a few shards."""
    entries = list(features.entries())
    rng = np.random.default_rng(0)
    picked = rng.permutation(len(entries))[:SAMPLED_SHARDS]
    sampled = pa.array([h for k in picked for h in entries[k].hashes], pa.string())
    top, others, seen = [], [], 0
    columns = ["material_id", "formula", "predicted", "shortlist", "structure_hash"]
    with store.open(RANKING) as file:
        for batch in pq.ParquetFile(file).iter_batches(8192, columns=columns, use_threads=False):
            first = pa.array(np.arange(seen, seen + len(batch)) < NEXT)
            wanted = pc.or_(batch["shortlist"], first)
            top.append(pa.Table.from_batches([batch]).filter(wanted))
            rest = pc.and_(pc.invert(wanted), pc.is_in(batch["structure_hash"], sampled))
            others.append(pa.Table.from_batches([batch]).filter(rest))
            seen += len(batch)
    if not seen:
        return pa.table({name: [] for name in columns})
    other = pa.concat_tables(others)
    kept = np.sort(rng.permutation(other.num_rows)[:SAMPLE])
    return pa.concat_tables([*top, other.take(pa.array(kept))])
