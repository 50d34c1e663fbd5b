"""Features of several parents as one: where all of them hold a structure, and what is predicted from at once.

Each parent keeps shards of its own, so that a structure is featurised once by each, whatever else is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomsets_core.features.shards import Located, ShardEntry
from atomsets_core.features.specification import parse_features
from atomsets_core.features.stored import FeatureStore, JoinedFeatures, Piece, join_stored
from atomsets_core.parents import Features, joint_digest
from atomsets_core.storage import Digests, Store


@dataclass(frozen=True)
class JointStore:
    """Features of several parents for the same structures; the counterpart of `FeatureStore`.

    Attributes:
        parts: one for each parent, in the order of the specification.
    """

    parts: tuple[FeatureStore, ...]

    @property
    def store(self) -> Store:
        """Where the shards of all parents are."""
        return self.parts[0].store

    @property
    def parents(self) -> dict[str, str]:
        """Parent -> digest."""
        return {part.parent: part.digest for part in self.parts}

    @property
    def digest(self) -> str:
        """Digest of the parents together, see `joint_digest`."""
        return joint_digest(self.parents)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels as joined features name them, e.g. "chgnet:site"."""
        return tuple(f"{part.parent}:{level}" for part in self.parts for level in part.levels)

    def entries(self) -> Iterator[ShardEntry]:
        """The shards of the first parent, see `FeatureStore.entries`."""
        return self.parts[0].entries()

    def locate(self, hashes: Sequence[str] | Digests) -> Located:
        """Where the first parent has the structures that all have; of the others see `together`."""
        return together([part.locate(hashes) for part in self.parts]).located

    def find(self, hashes: Sequence[str]) -> JoinedFeatures:
        """The structures of these hashes, in this order.

        Raises:
            KeyError: a structure that no shard of a parent holds.
        """
        return join_stored({part.parent: part.find(hashes) for part in self.parts})

    def read(self, piece: Piece) -> Features:
        """Joined features of the structures of a piece that every parent has.

        Raises:
            ShardError: a shard is missing or damaged; the message names it.
        """
        found = {self.parts[0].parent: self.parts[0].read(Piece(piece.shard))}
        for part, entries in zip(self.parts[1:], piece.beside, strict=True):
            read = [part.read(Piece(entry)) for entry in entries]
            if not read:
                raise ValueError(f"no shard of {part.parent} stands beside shard {piece.shard.key}")
            found[part.parent] = Features.concat(read)
        # A structure that two campaigns featurised at the same time stands in two shards.
        places = {name: _first_places(features) for name, features in found.items()}
        held = set.intersection(*(set(at) for at in places.values()))
        order = [h for h in next(iter(places.values())) if h in held]
        return Features.join({name: found[name][[at[h] for h in order]] for name, at in places.items()})


AnyStore = FeatureStore | JointStore
"""Shards of one parent or of several."""


def _first_places(features: Features) -> dict[str, int]:
    places: dict[str, int] = {}
    for row, h in enumerate(features.structure_hash):
        places.setdefault(str(h), row)
    return places


@dataclass(frozen=True)
class Together:
    """Where the features of n structures are, of all parents.

    Attributes:
        located: where the first parent has those that all have; what a parent can't take is refused, and what one of
            them lacks and none refused is missing.
        pieces: that hold them.
        entries: every shard that is read for them.
    """

    located: Located
    pieces: tuple[Piece, ...]
    entries: tuple[ShardEntry, ...]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """(n,) those that have features of every parent."""
        return self.located.found


def together(of_parts: Sequence[Located]) -> Together:
    """What each parent has of the same n structures as one, parents in the order of the store."""
    first, *others = of_parts
    if not others:
        return Together(first, tuple(Piece(entry) for entry in first.entries), first.entries)
    found = np.logical_and.reduce([part.found for part in of_parts])
    refused_rows = np.logical_or.reduce([~part.found & ~part.missing for part in of_parts])
    reasons: dict[str, str] = {}
    for part in of_parts:
        for h, reason in part.refused.items():
            reasons.setdefault(h, reason)
    shard, row = np.where(found, first.shard, -1), np.where(found, first.row, -1)
    # Shards that hold nothing of what all have are read by nobody.
    used = np.unique(shard[found])
    renumbered = np.full(len(first.entries) + 1, -1, dtype=np.int64)
    renumbered[used] = np.arange(len(used))
    located = Located(tuple(first.entries[k] for k in used), renumbered[shard], row, reasons, ~found & ~refused_rows)
    pieces = []
    for k, entry in enumerate(located.entries):
        here = located.shard == k
        beside = tuple(tuple(part.entries[j] for j in np.unique(part.shard[here])) for part in others)
        pieces.append(Piece(entry, beside))
    every = {(e.parent, e.key): e for piece in pieces for entries in ((piece.shard,), *piece.beside) for e in entries}
    return Together(located, tuple(pieces), tuple(every.values()))


def open_features(store: Store, *specs: str) -> AnyStore:
    """The shards of every level that specifications need, of the parents as they are installed here.

    Args:
        store: the feature store.
        specs: e.g. "megnet:V0+V1,chgnet:site".

    Raises:
        ValueError: a specification can't be read, or names an unknown parent or level.
    """
    levels: dict[str, dict[str, None]] = {}
    for spec in map(parse_features, specs):
        for name in spec.parents:
            levels.setdefault(name, {}).update(dict.fromkeys(spec.needed(name)))
    parts = tuple(FeatureStore.of(store, name, tuple(needed)) for name, needed in levels.items())
    return parts[0] if len(parts) == 1 else JointStore(parts)
