"""Make features of structures, in memory or as shards of a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from atomsets_core.features.shards import (
    iter_entries,
    locate,
    shard_key,
    write_shard,
)
from atomsets_core.features.specification import parse_features
from atomsets_core.features.stored import AnyFeatures, StoredFeatures, join_stored
from atomsets_core.parents import load_parent, resolve_device
from atomsets_core.sources import Catalogue, read
from atomsets_core.storage import HashIndex, Store
from atomsets_core.structures import Compositions, Refusal, Structures


def featurize(
    batch: Structures | Catalogue | Compositions,
    spec: str,
    store: Store | None = None,
    done: Callable[[int, int], None] | None = None,
) -> AnyFeatures:
    """Features of a batch at the levels of a specification such as "megnet:V0+V1", in memory or in a store.

    Those of compositions are small and quickly made: they are never stored.
    """
    parsed, device = parse_features(spec), str(resolve_device("auto"))
    if store is None or isinstance(batch, Compositions):
        return parsed.featurize(batch if isinstance(batch, Compositions) else read(batch), device)
    parts = {name: featurize_into(store, name, parsed.needed(name), batch, device, done) for name in parsed.parents}
    return next(iter(parts.values())) if len(parts) == 1 else join_stored(parts)


SHARD_SIZE = 1024
"""Structures of a shard made here."""


def featurize_into(
    store: Store,
    parent: str,
    levels: Sequence[str],
    structures: Structures | Catalogue,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> StoredFeatures:
    """Features of these structures in a store; what no shard holds is made, a shard at a time.

    Args:
        store: the feature store.
        parent: name of the parent.
        levels: to be there.
        structures: in the order of the result.
        device: for the parent.
        progress: called after each shard with the number of structures done and the number there was to do.

    Returns:
        Those the parent can take; the others are in `refused`.

    Raises:
        ValueError: an unknown parent or level.
        StorageError: the store can't be written.
    """
    network = load_parent(parent, device)
    hashes = [str(h) for h in structures.hashes]
    missing = locate(iter_entries(store, parent, network.digest), levels, hashes).missing
    todo = np.intersect1d(HashIndex(hashes).first, np.flatnonzero(missing))
    for start in range(0, len(todo), SHARD_SIZE):
        part = read(structures.take(todo[start : start + SHARD_SIZE]))
        key = shard_key([str(h) for h in part.hashes], network.digest, levels)
        write_shard(store, parent, key, network.featurize(part, levels), levels)
        if progress:
            progress(start + len(part), len(todo))
    located = locate(iter_entries(store, parent, network.digest), levels, hashes)
    kept = located.found
    refusals = tuple(
        Refusal(str(structures.material_id[row]), "featurize", located.refused[hashes[row]], hashes[row])
        for row in np.flatnonzero(~kept)
    )
    stored = StoredFeatures._indexed(store, located, levels, [hashes[row] for row in np.flatnonzero(kept)])
    names = np.asarray(structures.material_id[kept], dtype=object)
    return replace(stored, material_id=names, refused=refusals)
