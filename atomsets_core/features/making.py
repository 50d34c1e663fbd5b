"""Make features of structures, in memory or as shards of a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from atomsets_core.features.specification import parse_features
from atomsets_core.features.stored import AnyFeatures, FeatureStore, StoredFeatures, join_stored
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
    stores = {name: FeatureStore.of(store, name, parsed.needed(name)) for name in parsed.parents}
    parts = {name: featurize_into(where, batch, device, done) for name, where in stores.items()}
    return next(iter(parts.values())) if len(parts) == 1 else join_stored(parts)


SHARD_SIZE = 1024
"""Structures of a shard made here."""


def featurize_into(
    where: FeatureStore,
    structures: Structures | Catalogue,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> StoredFeatures:
    """Features of these structures in a store; what no shard holds is made, a shard at a time.

    Args:
        where: they are to be.
        structures: in the order of the result.
        device: for the parent.
        progress: called after each shard with the number of structures done and the number there was to do.

    Returns:
        Those the parent can take; the others are in `refused`.

    Raises:
        ValueError: an unknown parent or level, or a parent that is another one here.
        StorageError: the store can't be written.
    """
    network = load_parent(where.parent, device)
    if network.digest != where.digest:
        raise ValueError(
            f"features of {where.parent} {where.digest} can't be made here, where the parent is {network.digest}: "
            "install the same version of it"
        )
    hashes = [str(h) for h in structures.hashes]
    todo = np.intersect1d(HashIndex(hashes).first, np.flatnonzero(where.locate(hashes).missing))
    for start in range(0, len(todo), SHARD_SIZE):
        part = read(structures.take(todo[start : start + SHARD_SIZE]))
        where.write(where.shard_key([str(h) for h in part.hashes]), network.featurize(part, where.levels))
        if progress:
            progress(start + len(part), len(todo))
    located = where.locate(hashes)
    kept = located.found
    refusals = tuple(
        Refusal(str(structures.material_id[row]), "featurize", located.refused[hashes[row]], hashes[row])
        for row in np.flatnonzero(~kept)
    )
    stored = where.indexed(located, [hashes[row] for row in np.flatnonzero(kept)])
    names = np.asarray(structures.material_id[kept], dtype=object)
    return replace(stored, material_id=names, refused=refusals)
