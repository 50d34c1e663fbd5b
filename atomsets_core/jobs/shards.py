"""One shard, as a worker takes it: features of a stretch of the queue, or why it has none; predictions for its rows.

Arguments and results are stores, names, keys and small numbers, never arrays, so that any scheduler can carry them.
Every function may be called again at any time: what is already there is kept.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from atomsets_core.features import FeatureStore, ShardEntry, counts_of, read_queued
from atomsets_core.models import load_regressor, read_config
from atomsets_core.parents import load_parent, resolve_device
from atomsets_core.storage import Store, peak_mb, prediction_units, seal, with_units
from atomsets_core.structures import Refusal, Structures
from atomsets_core.transforms import listed_transforms


def featurize_shard(
    store: Store, queue: str, group: int, features: FeatureStore, key: str, rows: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Featurise one row group of the queue, or rows first to last (exclusive) of it, into a shard.

    Args:
        store: of the queue.
        queue: name of the file, see `write_queue`.
        group: of the queue.
        features: where the shard is to be.
        key: of the shard.
        rows: first and last (exclusive) of the group; all by default.

    Returns:
        rows, refused, sites, bonds, seconds, used (seconds of processor time), and the worker's host, pid and peak_mb.
    """
    started, used = time.perf_counter(), time.process_time()
    structures = read_queued(store, queue, group)
    if rows is not None:
        structures = structures.take(np.arange(*rows))
    network = load_parent(features.parent, str(resolve_device("auto")))
    entry = features.write(key, network.featurize(structures, features.levels))
    return {
        **counts_of(entry),
        "seconds": time.perf_counter() - started,
        "used": time.process_time() - used,
        "host": platform.node(),
        "pid": os.getpid(),
        "peak_mb": peak_mb(),
    }


def refuse_structure(
    store: Store, queue: str, group: int, features: FeatureStore, key: str, row: int, reason: str
) -> dict[str, int]:
    """Write a shard without rows that says why one structure of the queue has no features."""
    structures = read_queued(store, queue, group).take(np.array([row]))
    nothing = load_parent(features.parent).featurize(structures.take(np.empty(0, dtype=np.int64)), features.levels)
    refusal = Refusal(str(structures.material_id[0]), "featurize", reason, str(structures.hashes[0]))
    return counts_of(features.write(key, replace(nothing, refused=(refusal,))))


def try_parent(parent: str, levels: Sequence[str]) -> None:
    """Featurise rock salt: what fails at this fails for its own reasons, not for the structures'."""
    cell = 2.82 * np.array([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    frac = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    salt = Structures(np.array(["NaCl"], dtype=object), cell, np.array([2]), np.array([11, 17]), frac)
    load_parent(parent, str(resolve_device("auto"))).featurize(salt, levels)


def predict_shard(store: Store, features: FeatureStore, entry: ShardEntry, folder: str, name: str) -> dict[str, Any]:
    """Apply a saved model to every structure of a shard; write the predictions as Parquet.

    Args:
        store: of the campaign.
        features: the shard's.
        entry: of the shard.
        folder: of the model, which needs the levels of `features`.
        name: of the file.

    Returns:
        rows, seconds.
    """
    started = time.perf_counter()
    model = load_regressor(store, folder)
    found = features.read(entry)
    prediction = model.predict_distribution(found)
    columns: dict[str, Any] = {"structure_hash": pa.array(found.structure_hash, pa.string())}
    columns |= {column: pa.array(values) for column, values in prediction.columns().items()}
    columns["remark"] = pa.array([found.flagged.get(h, "") for h in found.structure_hash], pa.string())
    unit = str(read_config(store, folder)["about"].get("unit", ""))
    units = prediction_units(unit, scale=listed_transforms(model.transform, 1)[0].applied_to(unit))
    store.write_table(name, with_units(finite_table(pa.table(columns)), units))
    seal(store, name)
    return {"rows": len(found), "seconds": time.perf_counter() - started}


def finite_table(table: pa.Table) -> pa.Table:
    """The table, once it is certain that every number in it is one.

    Raises:
        ValueError: a NaN or infinity, with the column and the structure it belongs to.
    """
    for name in table.column_names:
        values = table[name]
        if not pa.types.is_floating(values.type):
            continue
        missing = ~np.isfinite(values.to_numpy())
        # A model of too few rows gives no intervals at all.
        if missing.any() and not (name in ("lower", "upper") and np.isnan(values.to_numpy()).all()):
            row = int(np.flatnonzero(~np.isfinite(values.to_numpy()))[0])
            raise ValueError(f"{name} of structure {table['structure_hash'][row]} is {values[row]}: not a number")
    return table
