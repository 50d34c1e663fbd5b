"""What a parent network knows of a batch of structures: site levels and structure levels, as plain arrays.

Crystals and compositions are the same thing here: a composition has its elements for sites, each weighing its fraction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from atomsets_core.structures import IntArray, Refusal, ragged_rows

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Features of n structures from one parent (or several, joined).

    Attributes:
        material_id: (n,) object array of str.
        structure_hash: (n,) object array of str, `Structures.hashes`.
        formula: (n,) object array of str, reduced formulas.
        n_atoms: (n,) int64, sites of each structure.
        sites: level -> (n_atoms.sum(), width) float32, structure after structure.
        structure: level -> (n, width) float32.
        digest: of the parent that made them, or `joint_digest` of several.
        weights: (n_atoms.sum(),) float32, weight of each site in its structure; None where all are 1. Fractions for
            compositions, occupancies for disordered structures.
        parents: parent -> digest where several are joined, the levels being called "parent:level"; else empty.
        refused: structures of the request that the parent can't take, with the reason; they have no row above.
        flagged: structure_hash -> remark on a row that is here but should be trusted less.
        bonds: directed bonds of all structures, where the parent counts them: its amount of work.
    """

    material_id: npt.NDArray[np.object_]
    structure_hash: npt.NDArray[np.object_]
    formula: npt.NDArray[np.object_]
    n_atoms: IntArray
    sites: dict[str, Float32Array]
    structure: dict[str, Float32Array]
    digest: str
    weights: Float32Array | None = None
    parents: dict[str, str] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    flagged: dict[str, str] = field(default_factory=dict)
    bonds: int = 0

    def __post_init__(self) -> None:
        total = int(self.n_atoms.sum())
        for level, values in self.sites.items():
            if len(values) != total:
                raise ValueError(f"site level {level}: {len(values)} rows for {total} sites")
        if self.weights is not None and self.weights.shape != (total,):
            raise ValueError(f"{len(self.weights)} weights for {total} sites")
        for level, values in self.structure.items():
            if len(values) != len(self):
                raise ValueError(f"structure level {level}: {len(values)} rows for {len(self)} structures")

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def shape(self) -> tuple[int]:
        """(n,), so that scikit-learn's splitters can count the rows."""
        return (len(self),)

    @cached_property
    def offsets(self) -> IntArray:
        """(n + 1,) int64: sites of structure i are rows offsets[i]:offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    def __getitem__(self, indices: IntArray | Sequence[int] | slice) -> Features:
        """The rows at these positions, in this order (positions, a boolean mask or a slice)."""
        rows = np.arange(len(self))[indices]
        if rows.ndim != 1:
            raise TypeError("select rows with a list, a mask or a slice, not with one number")
        site_rows = ragged_rows(self.offsets, rows)
        hashes = self.structure_hash[rows]
        return replace(
            self,
            material_id=self.material_id[rows],
            structure_hash=hashes,
            formula=self.formula[rows],
            n_atoms=self.n_atoms[rows],
            sites={level: values[site_rows] for level, values in self.sites.items()},
            structure={level: values[rows] for level, values in self.structure.items()},
            weights=None if self.weights is None else self.weights[site_rows],
            refused=(),
            bonds=0,
            flagged={h: self.flagged[h] for h in hashes if h in self.flagged},
        )

    def blocks(self, size: int = 1024) -> Iterator[tuple[IntArray, Features]]:
        """(k,) int64 row numbers and features of `size` structures after another."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self[rows]

    def site_matrix(self, levels: Sequence[str]) -> Float32Array:
        """(n_atoms.sum(), width) float32: these site levels side by side; width 0 for no level.

        Raises:
            KeyError: a level is not among `sites`.
        """
        if not levels:
            return np.empty((int(self.n_atoms.sum()), 0), dtype=np.float32)
        return np.concatenate([self._level(self.sites, level, "site") for level in levels], axis=1)

    def structure_matrix(self, levels: Sequence[str]) -> Float32Array:
        """(n, width) float32: these structure levels side by side; width 0 for no level."""
        if not levels:
            return np.empty((len(self), 0), dtype=np.float32)
        return np.concatenate([self._level(self.structure, level, "structure") for level in levels], axis=1)

    def _level(self, levels: dict[str, Float32Array], level: str, kind: str) -> Float32Array:
        if level not in levels:
            raise KeyError(f"no {kind} level {level!r} in these features; there are {sorted(levels) or 'none'}")
        return levels[level]

    def pooled(self, levels: Sequence[str]) -> Float32Array:
        """(n, 2 width) float32: weighted mean and standard deviation over the sites of these levels.

        The plain vector for ridge, neighbours, distances and diversity. Levels of the structure itself are
        appended as they are.
        """
        on_sites = [level for level in levels if level in self.sites]
        on_structures = [level for level in levels if level not in self.sites]
        parts = [self.structure_matrix(on_structures)]
        if on_sites and len(self):
            mean, deviation = self.moments(self.site_matrix(on_sites))
            parts = [mean, deviation, *parts]
        return np.concatenate(parts, axis=1)

    def moments(self, values: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Weighted mean and standard deviation over the sites of each structure, (n, width) float32 both.

        Args:
            values: (n_atoms.sum(), width).
        """
        if not len(self):
            return np.empty((0, values.shape[1]), np.float32), np.empty((0, values.shape[1]), np.float32)
        exact, starts = values.astype(np.float64), self.offsets[:-1]
        weights = np.ones(len(exact)) if self.weights is None else self.weights.astype(np.float64)
        total = np.add.reduceat(weights, starts)[:, None]
        mean = np.add.reduceat(exact * weights[:, None], starts, axis=0) / total
        exact -= np.repeat(mean, self.n_atoms, axis=0)
        variance = np.add.reduceat(exact**2 * weights[:, None], starts, axis=0) / total
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def extremes(self, values: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Smallest and largest entries over the sites of each structure, (n, width) float32 both."""
        if not len(self):
            return np.empty((0, values.shape[1]), np.float32), np.empty((0, values.shape[1]), np.float32)
        starts = self.offsets[:-1]
        return np.minimum.reduceat(values, starts, axis=0), np.maximum.reduceat(values, starts, axis=0)

    @staticmethod
    def join(parts: Mapping[str, Features]) -> Features:
        """Features of the same structures from several parents, side by side; levels become "parent:level".

        Structures that one of the parents refused are refused.

        Args:
            parts: parent -> features, all of one request; none of them joined already.

        Raises:
            ValueError: there is none, or they are not of the same structures.
        """
        if not parts:
            raise ValueError("no features to join")
        refused = {r.material_id or r.structure_hash: r for part in parts.values() for r in reversed(part.refused)}
        aligned = _aligned(parts)
        first = next(iter(aligned.values()))
        flagged: dict[str, str] = {}
        for part in aligned.values():
            for key, remark in part.flagged.items():
                flagged[key] = f"{flagged[key]}; {remark}" if key in flagged else remark
        digests = {name: part.digest for name, part in parts.items()}
        return Features(
            material_id=first.material_id,
            structure_hash=first.structure_hash,
            formula=first.formula,
            n_atoms=first.n_atoms,
            sites={f"{name}:{level}": values for name, part in aligned.items() for level, values in part.sites.items()},
            structure={
                f"{name}:{level}": values for name, part in aligned.items() for level, values in part.structure.items()
            },
            digest=joint_digest(digests),
            weights=first.weights,
            parents=digests,
            refused=tuple(refused.values()),
            flagged=flagged,
        )

    @staticmethod
    def concat(parts: Sequence[Features]) -> Features:
        """One batch after the other; all must come from the same parent and have the same levels.

        Raises:
            ValueError: there is none, or digests or levels differ.
        """
        if not parts:
            raise ValueError("no features to join")
        first = parts[0]
        for part in parts[1:]:
            if part.digest != first.digest:
                raise ValueError(f"features of two parents can't be joined row by row: {first.digest}, {part.digest}")
            if (set(part.sites), set(part.structure)) != (set(first.sites), set(first.structure)):
                raise ValueError("features with different levels can't be joined row by row")
        return Features(
            material_id=np.concatenate([part.material_id for part in parts]),
            structure_hash=np.concatenate([part.structure_hash for part in parts]),
            formula=np.concatenate([part.formula for part in parts]),
            n_atoms=np.concatenate([part.n_atoms for part in parts]),
            sites={level: np.concatenate([part.sites[level] for part in parts]) for level in first.sites},
            structure={level: np.concatenate([part.structure[level] for part in parts]) for level in first.structure},
            digest=first.digest,
            weights=None
            if all(part.weights is None for part in parts)
            else np.concatenate(
                [
                    np.ones(int(part.n_atoms.sum()), np.float32) if part.weights is None else part.weights
                    for part in parts
                ]
            ),
            parents=first.parents,
            refused=tuple(refusal for part in parts for refusal in part.refused),
            flagged={key: value for part in parts for key, value in part.flagged.items()},
            bonds=sum(part.bonds for part in parts),
        )


def joint_digest(digests: Mapping[str, str]) -> str:
    """16 hex digits from the digests of several parents, whatever their order; of one parent its own."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    text = ",".join(f"{name}={digests[name]}" for name in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _aligned(parts: Mapping[str, Features]) -> dict[str, Features]:
    """The rows that all parts have, in the order of the first."""
    names, first = list(parts), next(iter(parts.values()))
    if not all(np.array_equal(part.structure_hash, first.structure_hash) for part in parts.values()):
        keys = {name: list(zip(part.material_id, part.structure_hash, strict=True)) for name, part in parts.items()}
        rows = {name: {key: row for row, key in enumerate(found)} for name, found in keys.items()}
        for name, found in rows.items():
            if len(found) != len(parts[name]):
                raise ValueError(
                    f"features of {name} hold a structure twice: they can't be matched with those of others"
                )
        refused = {key for part in parts.values() for r in part.refused for key in (r.material_id, r.structure_hash)}
        kept = [key for key in keys[names[0]] if all(key in found for found in rows.values())]
        everywhere = set(kept)
        lost = [key for found in keys.values() for key in found if key not in everywhere]
        if any(key[0] not in refused and key[1] not in refused for key in lost):
            raise ValueError(f"features of {' and '.join(names)} are not of the same structures")
        parts = {name: part[[rows[name][key] for key in kept]] for name, part in parts.items()}
        first = parts[names[0]]
    for name, part in parts.items():
        same_weights = (part.weights is None) == (first.weights is None) and (
            part.weights is None or first.weights is None or np.allclose(part.weights, first.weights)
        )
        if not np.array_equal(part.n_atoms, first.n_atoms) or not same_weights:
            raise ValueError(f"features of {name} and {names[0]} differ in their sites: they are of other structures")
    return dict(parts)
