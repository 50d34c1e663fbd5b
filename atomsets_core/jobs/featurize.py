"""One shard of features, as a worker makes it: a stretch of the queue through the parent, or why it has none.

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

from atomsets_core.features import FeatureStore, counts_of, read_queued
from atomsets_core.parents import load_parent, resolve_device
from atomsets_core.storage import Store, peak_mb
from atomsets_core.structures import Refusal, Structures


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
