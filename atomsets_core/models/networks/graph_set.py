"""Graphs of a whole training set, built once and kept small: alike sites and bonds stand once, with their shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomsets_core.structures import (
    CrystalGraphs,
    IntArray,
    MergedSites,
    Refusal,
    Structures,
    graph_batches,
    merge_sites,
    ragged_rows,
)

LAYERS = 3
"""Blocks of MEGNet: how far a site sees."""

RESOLUTION = 1e-3
"""Angstrom to which distances are rounded for training, so that twins that rounding has separated are alike again."""

BUILD_BONDS = 2_000_000
"""Directed bonds that are merged together."""

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GraphSet:
    """Graphs of n structures as flat arrays; rows of atoms, bonds and shells count from 0 in each structure.

    Attributes:
        material_id, structure_hash, formula: (n,) object arrays of str, the structures that have a graph.
        cutoff: neighbour radius, Angstrom.
        n_sites: (n,) int64, sites of the structure.
        n_atoms: (n,) int64, sites that are not alike: the atoms of the graph.
        n_bonds: (n,) int64, bonds of these that are not alike.
        n_shells: (n,) int64, different distances.
        site: (n_sites.sum(),) int32, atom that stands for each site.
        numbers: (n_atoms.sum(),) uint8, atomic numbers.
        site_share: (n_atoms.sum(),) share of the structure's sites that an atom stands for.
        bond_share: (n_atoms.sum(),) share of the structure's directed bonds that start at those sites.
        centre, neighbour: (n_bonds.sum(),) int32, atoms; centres ascend.
        shell: (n_bonds.sum(),) int32.
        share: (n_bonds.sum(),) share of its centre's bonds that a bond stands for.
        distance: (n_shells.sum(),) Angstrom.
        refused: structures without a graph, with the reason.
    """

    material_id: npt.NDArray[np.object_]
    structure_hash: npt.NDArray[np.object_]
    formula: npt.NDArray[np.object_]
    cutoff: float
    n_sites: IntArray
    n_atoms: IntArray
    n_bonds: IntArray
    n_shells: IntArray
    site: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.uint8]
    site_share: Float32Array
    bond_share: Float32Array
    centre: npt.NDArray[np.int32]
    neighbour: npt.NDArray[np.int32]
    shell: npt.NDArray[np.int32]
    share: Float32Array
    distance: Float32Array
    refused: tuple[Refusal, ...] = ()

    def __len__(self) -> int:
        return len(self.n_atoms)

    @cached_property
    def _starts(self) -> dict[str, IntArray]:
        counts = {"sites": self.n_sites, "atoms": self.n_atoms, "bonds": self.n_bonds, "shells": self.n_shells}
        return {name: np.concatenate([[0], np.cumsum(count)]).astype(np.int64) for name, count in counts.items()}

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return sum(getattr(self, name).nbytes for names in _RAGGED.values() for name in names)

    def take(self, rows: Sequence[int] | IntArray) -> GraphSet:
        """The graphs at these positions, in this order (positions, also from the end, or a boolean mask)."""
        chosen = np.asarray(rows)
        positions = np.arange(len(self))[chosen if chosen.dtype == bool else chosen.astype(np.int64)]
        arrays = {name: getattr(self, name)[positions] for name in _PER_STRUCTURE}
        for kind, names in _RAGGED.items():
            where = ragged_rows(self._starts[kind], positions)
            arrays.update({name: getattr(self, name)[where] for name in names})
        return GraphSet(cutoff=self.cutoff, **arrays)

    def pieces(self, rows: IntArray, max_bonds: int) -> list[IntArray]:
        """Parts (k,) int64 of the rows in order, cut where one would have more bonds (one structure at least)."""
        bonds, pieces, start, size = self.n_bonds[rows].tolist(), [], 0, 0
        for i, more in enumerate(bonds):
            if i > start and size + more > max_bonds:
                pieces.append(rows[start:i])
                start, size = i, 0
            size += more
        return [*pieces, rows[start:]] if len(rows) else []

    def batch(self, rows: IntArray, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Batch:
        """The graphs at these rows as one graph on a device."""
        atoms, bonds, shells = (ragged_rows(self._starts[kind], rows) for kind in ("atoms", "bonds", "shells"))
        first_atom, first_shell = (np.cumsum(count[rows]) - count[rows] for count in (self.n_atoms, self.n_shells))
        n_bonds = self.n_bonds[rows]
        shift = np.repeat(first_atom, n_bonds)
        centre = self.centre[bonds] + shift
        site_share, bond_share, share = self.site_share[atoms], self.bond_share[atoms], self.share[bonds]

        def number(values: npt.NDArray) -> Tensor:
            return torch.from_numpy(values).to(device, dtype)

        def index(values: npt.NDArray) -> Tensor:
            return torch.from_numpy(values.astype(np.int64, copy=False)).to(device)

        structure = np.arange(len(rows))
        return Batch(
            n=len(rows),
            numbers=index(self.numbers[atoms]),
            structure=index(np.repeat(structure, self.n_atoms[rows])),
            site_share=number(site_share)[:, None],
            bond_share=number(bond_share)[:, None],
            centre=index(centre),
            neighbour=index(self.neighbour[bonds] + shift),
            shell=index(self.shell[bonds] + np.repeat(first_shell, n_bonds)),
            bond_structure=index(np.repeat(structure, n_bonds)),
            share=number(share)[:, None],
            bond_weight=number(bond_share[centre] * share),
            distance=number(self.distance[shells]),
        )


@dataclass(frozen=True)
class Batch:
    """Some graphs of a `GraphSet` as one: its arrays as tensors, rows counted through the batch.

    Attributes:
        n: structures.
        numbers, structure: (n_atoms,) int64.
        site_share, bond_share: (n_atoms, 1).
        centre, neighbour, shell, bond_structure: (n_bonds,) int64.
        share: (n_bonds, 1), of the centre's bonds.
        bond_weight: (n_bonds,), share of the structure's bonds.
        distance: (n_shells,) Angstrom.
    """

    n: int
    numbers: Tensor
    structure: Tensor
    site_share: Tensor
    bond_share: Tensor
    centre: Tensor
    neighbour: Tensor
    shell: Tensor
    bond_structure: Tensor
    share: Tensor
    bond_weight: Tensor
    distance: Tensor


_PER_STRUCTURE = ("material_id", "structure_hash", "formula", "n_sites", "n_atoms", "n_bonds", "n_shells")
_RAGGED = {
    "sites": ("site",),
    "atoms": ("numbers", "site_share", "bond_share"),
    "bonds": ("centre", "neighbour", "shell", "share"),
    "shells": ("distance",),
}


def build_graphs(
    structures: Structures, cutoff: float, *, resolution: float = RESOLUTION, merge: bool = True
) -> GraphSet:
    """Graphs of those structures that have one; the others are in `GraphSet.refused`.

    Args:
        structures: any number; worked through in pieces.
        cutoff: neighbour radius, Angstrom.
        resolution: to which distances are rounded, Angstrom; 0 for not at all.
        merge: False keeps every site and bond (to check that merging changes nothing).
    """
    refused: list[Refusal] = []
    parts: dict[str, list[npt.NDArray]] = {name: [] for names in _RAGGED.values() for name in names}
    counts: dict[str, list[IntArray]] = {name: [] for name in ("n_sites", "n_atoms", "n_bonds", "n_shells")}
    kept: list[IntArray] = []
    for rows, graphs in graph_batches(structures, cutoff, BUILD_BONDS, refused):
        if resolution:
            # In float64, so that the multiples of the resolution are the same float32 whatever they came from.
            rounded = (np.round(graphs.distance.astype(np.float64) / resolution) * resolution).astype(np.float32)
            graphs = CrystalGraphs(
                graphs.numbers, graphs.n_atoms, graphs.n_bonds, graphs.centre, graphs.neighbour, rounded
            )
        merged = merge_sites(graphs, LAYERS) if merge else _as_it_is(graphs)
        arrays, sizes = _compact(graphs, merged)
        kept.append(rows)
        for name, values in arrays.items():
            parts[name].append(values)
        for name, count in sizes.items():
            counts[name].append(count)
    chosen = structures.take(np.concatenate(kept) if kept else np.empty(0, dtype=np.int64))
    whole: dict[str, Any] = {
        name: np.concatenate(values) if values else np.empty(0, _TYPES[name]) for name, values in parts.items()
    }
    lengths: dict[str, Any] = {
        name: np.concatenate(v) if v else np.empty(0, dtype=np.int64) for name, v in counts.items()
    }
    return GraphSet(
        material_id=chosen.material_id,
        structure_hash=chosen.hashes,
        formula=chosen.formulas,
        cutoff=cutoff,
        refused=tuple(refused),
        **lengths,
        **whole,
    )


_TYPES: dict[str, type] = {
    "site": np.int32,
    "numbers": np.uint8,
    "site_share": np.float32,
    "bond_share": np.float32,
    "centre": np.int32,
    "neighbour": np.int32,
    "shell": np.int32,
    "share": np.float32,
    "distance": np.float32,
}


def _as_it_is(graphs: CrystalGraphs) -> MergedSites:
    """Nothing merged."""
    atoms, bonds = np.arange(len(graphs.numbers)), np.arange(len(graphs.centre))
    return MergedSites(atoms, atoms, np.ones_like(atoms), bonds, graphs.neighbour, np.ones_like(bonds))


def _compact(graphs: CrystalGraphs, merged: MergedSites) -> tuple[dict[str, npt.NDArray], dict[str, IntArray]]:
    """The ragged arrays of a `GraphSet` and their lengths for one batch of graphs."""
    n = len(graphs.n_atoms)
    of_site = np.repeat(np.arange(n), graphs.n_atoms)
    of_atom = of_site[merged.one]
    centre = merged.atom[graphs.centre[merged.bond]]
    of_bond = of_atom[centre]
    n_atoms, n_bonds = (np.bincount(owner, minlength=n) for owner in (of_atom, of_bond))
    first_atom = np.cumsum(n_atoms) - n_atoms
    # Bonds of an atom with those that are merged; share = count / coordination.
    coordination = np.bincount(centre, weights=merged.count, minlength=len(merged.one))
    # The bits of positive floats ascend as the floats do.
    # Structure and distance in one integer, so that equal distances of one structure become one shell.
    key = (of_bond.astype(np.uint64) << np.uint64(32)) | graphs.distance[merged.bond].view(np.uint32)
    shells, shell = np.unique(key, return_inverse=True)
    n_shells = np.bincount((shells >> np.uint64(32)).astype(np.int64), minlength=n)
    arrays = {
        "site": merged.atom - first_atom[of_site],
        "numbers": graphs.numbers[merged.one],
        "site_share": merged.size / graphs.n_atoms[of_atom],
        "bond_share": merged.size * coordination / graphs.n_bonds[of_atom],
        "centre": centre - first_atom[of_bond],
        "neighbour": merged.neighbour - first_atom[of_bond],
        "shell": shell - (np.cumsum(n_shells) - n_shells)[of_bond],
        "share": merged.count / coordination[centre],
        "distance": (shells & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32),
    }
    sizes = {"n_sites": graphs.n_atoms, "n_atoms": n_atoms, "n_bonds": n_bonds, "n_shells": n_shells}
    return {name: values.astype(_TYPES[name]) for name, values in arrays.items()}, sizes
