"""Features that stay in their shards: an X for the estimators that holds an index and no features.

`blocks` reads one shard after the other, so that learning from or predicting for any number of structures takes the
memory of a shard beside what is kept of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from atomsets_core.catalogue import Catalogue, read
from atomsets_core.features import Features, Float32Array
from atomsets_core.hashes import HashIndex
from atomsets_core.parents import load_parent
from atomsets_core.shards import Located, ShardEntry, folder, iter_entries, locate, read_shard, shard_key, write_shard
from atomsets_core.storage import Store
from atomsets_core.structures import IntArray, Refusal, Structures, ragged_rows

SHARD_SIZE = 1024
"""Structures of a shard made here."""


@dataclass(frozen=True)
class StoredFeatures:
    """Features of n structures in the shards of a feature store; rows may repeat and come in any order.

    Attributes:
        store: the feature store.
        entries: manifest entries of the shards that hold them.
        levels: that are read.
        shard: (n,) which of `entries` holds each structure.
        row: (n,) where in that shard.
        material_id: (n,) object array of str.
        structure_hash: (n,) object array of str.
        formula: (n,) object array of str, reduced formulas.
        n_atoms: (n,) int64, sites of each structure.
        refused: structures of the request that the parent can't take, with the reason; they have no row above.
    """

    store: Store
    entries: tuple[ShardEntry, ...]
    levels: tuple[str, ...]
    shard: IntArray
    row: IntArray
    material_id: npt.NDArray[np.object_]
    structure_hash: npt.NDArray[np.object_]
    formula: npt.NDArray[np.object_]
    n_atoms: IntArray
    refused: tuple[Refusal, ...] = field(default=())

    @classmethod
    def find(
        cls, store: Store, parent: str, digest: str, levels: Sequence[str], hashes: Sequence[str]
    ) -> StoredFeatures:
        """The structures of these hashes, in this order; `material_id` is the hash, since shards know no identifiers.

        Raises:
            KeyError: a structure that no shard holds.
        """
        located = locate(iter_entries(store, parent, digest), levels, hashes)
        if not located.found.all():
            lacking = np.flatnonzero(~located.found)
            raise KeyError(f"{len(lacking)} structures have no features, e.g. {hashes[lacking[0]]}")
        return cls._indexed(store, located, levels, hashes)

    @classmethod
    def whole(cls, store: Store, parent: str, digest: str, levels: Sequence[str]) -> StoredFeatures:
        """Every structure that the store has these levels of, once."""
        entries = sorted(iter_entries(store, parent, digest), key=lambda entry: entry.key)
        hashes = dict.fromkeys(h for entry in entries if set(levels) <= set(entry.levels) for h in entry.hashes)
        return cls.find(store, parent, digest, levels, list(hashes))

    @classmethod
    def _indexed(cls, store: Store, located: Located, levels: Sequence[str], hashes: Sequence[str]) -> StoredFeatures:
        """Those that have features; `hashes` are of these alone."""
        shard, row = located.shard[located.found], located.row[located.found]
        formula, n_atoms = np.empty(len(hashes), dtype=object), np.empty(len(hashes), dtype=np.int64)
        for k, entry in enumerate(located.entries):
            # Two columns of the file, unverified: the features are verified when they are read.
            with store.open(f"{folder(entry.parent, entry.digest)}/{entry.key}.parquet") as file:
                table = pq.read_table(file, columns=["formula", "n_atoms"])
            here = shard == k
            formula[here] = np.array(table["formula"].to_pylist(), dtype=object)[row[here]]
            n_atoms[here] = table["n_atoms"].to_numpy()[row[here]]
        names = np.array(hashes, dtype=object)
        return cls(store, located.entries, tuple(levels), shard, row, names, names, formula, n_atoms)

    def __len__(self) -> int:
        return len(self.shard)

    @property
    def shape(self) -> tuple[int]:
        """(n,), so that scikit-learn's splitters can count the rows."""
        return (len(self),)

    @property
    def digest(self) -> str:
        """Of the parent that made the features; "" where there are none."""
        return self.entries[0].digest if self.entries else ""

    @property
    def flagged(self) -> dict[str, str]:
        """structure_hash -> remark, of all shards."""
        return {h: remark for entry in self.entries for h, remark in entry.flagged.items()}

    def __getitem__(self, indices: IntArray | Sequence[int] | slice) -> StoredFeatures:
        """The rows at these positions, in this order (positions, a boolean mask or a slice)."""
        rows = np.arange(len(self))[indices]
        if rows.ndim != 1:
            raise TypeError("select rows with a list, a mask or a slice, not with one number")
        columns = ("shard", "row", "material_id", "structure_hash", "formula", "n_atoms")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns}, refused=())

    def blocks(self) -> Iterator[tuple[IntArray, Features]]:
        """Row numbers and features of one shard after the other.

        Raises:
            ShardError: a shard is missing or damaged; the message names it.
        """
        for k, entry in enumerate(self.entries):
            rows = np.flatnonzero(self.shard == k)
            if len(rows):
                part = read_shard(self.store, entry, self.levels, self.row[rows])
                yield rows, replace(part, material_id=self.material_id[rows])

    def load(self) -> Features:
        """All of them in memory.

        Raises:
            ShardError: a shard is missing or damaged; the message names it.
        """
        offsets = np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)
        weights, weighted = np.ones(int(offsets[-1]), dtype=np.float32), False
        sites: dict[str, Float32Array] = {}
        structure: dict[str, Float32Array] = {}
        for rows, block in self.blocks():
            at = ragged_rows(offsets, rows)
            if block.weights is not None:
                weights[at], weighted = block.weights, True
            for level, values in block.sites.items():
                sites.setdefault(level, np.empty((offsets[-1], values.shape[1]), dtype=np.float32))[at] = values
            for level, values in block.structure.items():
                structure.setdefault(level, np.empty((len(self), values.shape[1]), dtype=np.float32))[rows] = values
        hashes = set(self.structure_hash)
        flagged = {h: remark for h, remark in self.flagged.items() if h in hashes}
        return Features(
            self.material_id,
            self.structure_hash,
            self.formula,
            self.n_atoms,
            sites,
            structure,
            self.digest,
            weights if weighted else None,
            refused=self.refused,
            flagged=flagged,
        )


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
