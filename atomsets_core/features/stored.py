"""Features that stay in their shards: an X for the estimators that holds an index and no features.

`blocks` reads one shard after the other, so that learning from or predicting for any number of structures takes the
memory of a shard beside what is kept of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from atomsets_core.features.shards import (
    SCHEMA_VERSION,
    Located,
    ShardEntry,
    entries_in,
    find_entry,
    folder,
    locate,
    read_shard,
    shard_key,
    write_shard,
)
from atomsets_core.parents import Features, Float32Array, joint_digest, load_parent
from atomsets_core.storage import Digests, Store
from atomsets_core.structures import IntArray, Refusal, ragged_rows


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

    def __len__(self) -> int:
        return len(self.shard)

    @property
    def shape(self) -> tuple[int]:
        """(n,), so that scikit-learn's splitters can count the rows."""
        return (len(self),)

    @property
    def digest(self) -> str:
        """Digest of the parent that made the features; "" where there are none."""
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
        """(k,) int64 row numbers, ascending, and features of the k structures of one shard after the other.

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


@dataclass(frozen=True)
class Piece:
    """Structures that are predicted for at once: those of a shard, with what other parents have of them.

    Attributes:
        shard: of the first parent; its `hashes` may be left empty.
        beside: for each other parent the shards that hold some of the same structures.
    """

    shard: ShardEntry
    beside: tuple[tuple[ShardEntry, ...], ...] = ()

    @property
    def key(self) -> str:
        """Key of the shard; of several parents 32 hex digits from the keys of all their shards."""
        if not self.beside:
            return self.shard.key
        text = ";".join(",".join(entry.key for entry in entries) for entries in ((self.shard,), *self.beside))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class FeatureStore:
    """Features of one parent at some levels, in the shards of a store: what jobs, tasks and flows are told of features.

    It is small and goes to other processes as it is, the store as its path or URL.

    Attributes:
        store: of the shards; those of other parents may lie there too.
        parent: that made them.
        digest: of that parent.
        levels: that are needed; the shards may hold others as well.
    """

    store: Store
    parent: str
    digest: str
    levels: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, parent: str, levels: Sequence[str]) -> FeatureStore:
        """Features of a parent as it is installed here.

        Raises:
            ValueError: an unknown parent.
        """
        return cls(store, parent, load_parent(parent).digest, tuple(levels))

    @property
    def parts(self) -> tuple[FeatureStore, ...]:
        """Itself, where features of several parents may stand, see `several.JointStore`."""
        return (self,)

    def entries(self) -> Iterator[ShardEntry]:
        """The shards that hold the levels as they are now, by key, one after the other.

        An entry that can't be read counts as absent.
        """
        for entry in entries_in(self.store, folder(self.parent, self.digest)):
            ours = entry.schema_version == SCHEMA_VERSION and entry.digest == self.digest
            if ours and set(self.levels) <= set(entry.levels):
                yield entry

    def entry(self, key: str) -> ShardEntry | None:
        """The shard of this key; None where it has not been made."""
        return find_entry(self.store, folder(self.parent, self.digest), key)

    def shard_key(self, hashes: Sequence[str]) -> str:
        """Key of a shard of these structures, in this order."""
        return shard_key(list(hashes), self.digest, self.levels)

    def write(self, key: str, features: Features) -> ShardEntry:
        """Write a shard; see `write_shard`."""
        return write_shard(self.store, self.parent, key, features, self.levels)

    def read(self, piece: Piece) -> Features:
        """The levels of a shard; see `read_shard`."""
        return read_shard(self.store, piece.shard, self.levels)

    def locate(self, hashes: Sequence[str] | Digests) -> Located:
        """Where the features of these structures are, and which of them have none; see `shards.locate`."""
        return locate(self.entries(), self.levels, hashes)

    def find(self, hashes: Sequence[str]) -> StoredFeatures:
        """The structures of these hashes, in this order; `material_id` is the hash, since shards know no identifiers.

        Raises:
            KeyError: a structure that no shard holds.
        """
        located = self.locate(hashes)
        if not located.found.all():
            lacking = np.flatnonzero(~located.found)
            raise KeyError(f"{len(lacking)} structures have no features, e.g. {hashes[lacking[0]]}")
        return self.indexed(located, hashes)

    def whole(self) -> StoredFeatures:
        """Every structure that has these levels, once."""
        return self.find(list(dict.fromkeys(h for entry in self.entries() for h in entry.hashes)))

    def indexed(self, located: Located, hashes: Sequence[str]) -> StoredFeatures:
        """Those of some located structures that have features; `hashes` are of these alone."""
        shard, row = located.shard[located.found], located.row[located.found]
        formula, n_atoms = np.empty(len(hashes), dtype=object), np.empty(len(hashes), dtype=np.int64)
        for k, entry in enumerate(located.entries):
            # Two columns of the file, unverified: the features are verified when they are read.
            with self.store.open(entry.file) as file:
                table = pq.read_table(file, columns=["formula", "n_atoms"])
            here = shard == k
            formula[here] = np.array(table["formula"].to_pylist(), dtype=object)[row[here]]
            n_atoms[here] = table["n_atoms"].to_numpy()[row[here]]
        names = np.array(hashes, dtype=object)
        return StoredFeatures(self.store, located.entries, self.levels, shard, row, names, names, formula, n_atoms)


@dataclass(frozen=True)
class JoinedFeatures:
    """`Features.join` of features that stay in their shards; made by `join_stored`.

    Attributes:
        parts: parent -> its features; the same structures in the same order.
        refused: structures that one of the parents can't take.
    """

    parts: Mapping[str, StoredFeatures]
    refused: tuple[Refusal, ...] = ()

    def __len__(self) -> int:
        return len(self._first)

    @property
    def shape(self) -> tuple[int]:
        """(n,), so that scikit-learn's splitters can count the rows."""
        return (len(self),)

    @property
    def _first(self) -> StoredFeatures:
        return next(iter(self.parts.values()))

    @property
    def store(self) -> Store:
        """The feature store."""
        return self._first.store

    @property
    def material_id(self) -> npt.NDArray[np.object_]:
        """(n,) object array of str."""
        return self._first.material_id

    @property
    def structure_hash(self) -> npt.NDArray[np.object_]:
        """(n,) object array of str."""
        return self._first.structure_hash

    @property
    def formula(self) -> npt.NDArray[np.object_]:
        """(n,) object array of str, reduced formulas."""
        return self._first.formula

    @property
    def n_atoms(self) -> IntArray:
        """(n,) int64, sites of each structure."""
        return self._first.n_atoms

    @property
    def parents(self) -> dict[str, str]:
        """Parent -> digest."""
        return {name: part.digest for name, part in self.parts.items()}

    @property
    def digest(self) -> str:
        """Digest of the parents together, see `joint_digest`."""
        return joint_digest(self.parents)

    @property
    def flagged(self) -> dict[str, str]:
        """structure_hash -> remark."""
        found: dict[str, str] = {}
        for part in self.parts.values():
            for key, remark in part.flagged.items():
                found[key] = f"{found[key]}; {remark}" if key in found else remark
        return found

    def __getitem__(self, indices: IntArray | Sequence[int] | slice) -> JoinedFeatures:
        """The rows at these positions, in this order."""
        return JoinedFeatures({name: part[indices] for name, part in self.parts.items()})

    def blocks(self) -> Iterator[tuple[IntArray, Features]]:
        """(k,) int64 row numbers and joined features of one shard of the first parent after the other.

        Raises:
            ShardError: a shard is missing or damaged; the message names it.
        """
        first, *others = self.parts
        for rows, block in self.parts[first].blocks():
            yield rows, Features.join({first: block, **{name: self.parts[name][rows].load() for name in others}})

    def load(self) -> Features:
        """All of them in memory."""
        return Features.join({name: part.load() for name, part in self.parts.items()})


def join_stored(parts: Mapping[str, StoredFeatures]) -> JoinedFeatures:
    """The structures that every parent can take; those that one of them refused are refused."""
    refused = {r.structure_hash: r for part in parts.values() for r in reversed(part.refused)}
    kept = {
        name: part[[i for i, h in enumerate(part.structure_hash) if h not in refused]] for name, part in parts.items()
    }
    return JoinedFeatures(kept, tuple(refused.values()))


AnyFeatures = Features | StoredFeatures | JoinedFeatures
"""In memory or in shards, of one parent or of several."""


def in_memory(features: AnyFeatures) -> Features:
    """All of them read, where they aren't."""
    return features if isinstance(features, Features) else features.load()
