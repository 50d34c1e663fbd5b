"""Features of several parents in shards, side by side; and what the estimators call features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomsets_core.features import Features, joint_digest
from atomsets_core.storage import Store
from atomsets_core.stored import StoredFeatures
from atomsets_core.structures import IntArray, Refusal


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
        """Of the parents together."""
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
        """Row numbers and features of one shard of the first parent after the other.

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
