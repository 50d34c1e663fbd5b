"""What a parent network knows of a batch of structures: site levels and structure levels, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
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
        digest: of the parent that made them.
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
    refused: tuple[Refusal, ...] = ()
    flagged: dict[str, str] = field(default_factory=dict)
    bonds: int = 0

    def __post_init__(self) -> None:
        total = int(self.n_atoms.sum())
        for level, values in self.sites.items():
            if len(values) != total:
                raise ValueError(f"site level {level}: {len(values)} rows for {total} sites")
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
            refused=(),
            bonds=0,
            flagged={h: self.flagged[h] for h in hashes if h in self.flagged},
        )

    def site_matrix(self, levels: Sequence[str]) -> Float32Array:
        """(n_atoms.sum(), width) float32: these site levels side by side.

        Raises:
            KeyError: a level is not among `sites`.
        """
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
        """(n, 2 width) float32: mean and standard deviation over the sites of these levels.

        The plain vector for ridge, neighbours, distances and diversity. Levels of the structure itself are
        appended as they are.
        """
        on_sites = [level for level in levels if level in self.sites]
        on_structures = [level for level in levels if level not in self.sites]
        parts = [self.structure_matrix(on_structures)]
        if on_sites and len(self):
            values = self.site_matrix(on_sites).astype(np.float64)
            counts = self.n_atoms[:, None]
            mean = np.add.reduceat(values, self.offsets[:-1], axis=0) / counts
            deviation = values - np.repeat(mean, self.n_atoms, axis=0)
            variance = np.add.reduceat(deviation**2, self.offsets[:-1], axis=0) / counts
            parts = [mean.astype(np.float32), np.sqrt(variance).astype(np.float32), *parts]
        return np.concatenate(parts, axis=1)

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
            refused=tuple(refusal for part in parts for refusal in part.refused),
            flagged={key: value for part in parts for key, value in part.flagged.items()},
            bonds=sum(part.bonds for part in parts),
        )
