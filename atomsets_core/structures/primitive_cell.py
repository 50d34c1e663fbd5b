"""Primitive cells, reduced and with their sites sorted by kind, for comparing crystals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import spglib

from atomsets_core.compiled import compiled_module
from atomsets_core.structures.batch import FloatArray, IntArray, Structures

SMALLER = 0.7
"""Factor of the tolerance when the translations found within it are no group; tried up to `TRIES` times."""

TRIES = 8

GOLDEN = 0.5 * (5**0.5 - 1)
"""Multiples of it, taken modulo 1, are spread as evenly as can be."""


@dataclass(frozen=True)
class PrimitiveCell:
    """One cell of a crystal that holds no smaller one.

    Attributes:
        lattice: (3, 3) float64, row vectors, Angstrom; Niggli-reduced.
        frac: (n, 3) float64, sites, kind after kind, the rarest first.
        start: (n_kinds + 1,) int64, first site of each kind.
        sites: each kind and how many there are; a kind is an element, or the elements that share a site.
    """

    lattice: npt.NDArray[np.float64]
    frac: npt.NDArray[np.float64]
    start: npt.NDArray[np.int64]
    sites: tuple[tuple[Any, int], ...]


def primitive_cell(one: Structures, tolerance: float) -> PrimitiveCell:
    """The primitive cell of a structure, its sites at the mean of those that lie on each other.

    Without compiled loops it is spglib's, not reduced; of structures with shared sites it is the cell that is given.

    Args:
        one: a batch of one.
        tolerance: Angstrom by which sites may miss a translation.
    """
    frac, kinds = _sites(one)
    names, kind, count = _numbered(kinds)
    lattice = np.ascontiguousarray(one.lattice[0], dtype=np.float64)
    kernel = compiled_module("structures.primitive_kernel")
    if kernel is None:
        given = lattice, frac, np.arange(len(frac))
        cell, where, rows = given if one.disordered[0] else _by_spglib(one, tolerance)
    else:
        cell, where, rows = _reduced(kernel, lattice, frac, kind, np.flatnonzero(kind == count.argmin()), tolerance)
    by_count = np.argsort(count, kind="stable")
    rank = np.empty_like(by_count)
    rank[by_count] = np.arange(len(names))
    # Within a kind in an order that jumps about: of two crystals that differ, neighbours often fit each other, and
    # sites far apart soon show that the whole doesn't.
    scattered = (np.arange(len(rows)) * GOLDEN) % 1.0
    order = np.lexsort((scattered, rank[kind[rows]]))
    size = np.bincount(rank[kind[rows]], minlength=len(names))
    start = np.zeros(len(names) + 1, dtype=np.int64)
    np.cumsum(size, out=start[1:])
    sites = tuple((names[k], int(n)) for k, n in zip(by_count, size, strict=True))
    return PrimitiveCell(np.ascontiguousarray(cell), np.ascontiguousarray(where[order]), start, sites)


def _reduced(
    kernel: Any, lattice: FloatArray, frac: FloatArray, kind: IntArray, rare: IntArray, tolerance: float
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Niggli-reduced primitive lattice, fractional coordinates in it, and the row each site comes from."""
    basis = np.eye(3)
    where, rows = frac, np.arange(len(frac))
    if len(rare) > 1:
        axis = int(np.linalg.norm(lattice, axis=1).argmax())
        order = np.argsort(frac[:, axis])
        for _ in range(TRIES):
            shift, onto = kernel.translations(lattice, frac, kind, rare, order, axis, tolerance)
            found, is_group = kernel.lattice_of(shift)
            if is_group:
                basis = found
                where, rows = kernel.mean_sites(frac, shift, onto)
                break
            tolerance *= SMALLER
    primitive = basis @ lattice
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reduced: Any = spglib.niggli_reduce(primitive)
        except Exception:  # newer versions raise where older ones gave None
            reduced = None
    cell = primitive if reduced is None else np.asarray(reduced)
    return cell, (where @ lattice) @ np.linalg.inv(cell) % 1.0, rows


def _sites(one: Structures) -> tuple[FloatArray, list[Any]]:
    """Fractional coordinates of the sites within [0, 1), and what is on each."""
    frac = np.ascontiguousarray(one.frac % 1.0 % 1.0)  # -1e-17 % 1 is 1
    if not one.disordered[0]:
        return frac, one.numbers.tolist()
    shared: dict[tuple[float, ...], list[tuple[int, float]]] = {}
    for place, z, share in zip(frac.tolist(), one.numbers.tolist(), one.shares.tolist(), strict=True):
        shared.setdefault(tuple(place), []).append((z, round(share, 6)))
    return np.array(list(shared)), [tuple(sorted(on_site)) for on_site in shared.values()]


def _numbered(kinds: list[Any]) -> tuple[list[Any], IntArray, IntArray]:
    """The different kinds in order, (n,) number of each site's, and sites of each."""
    names = sorted(set(kinds))
    place = {name: i for i, name in enumerate(names)}
    kind = np.array([place[name] for name in kinds], dtype=np.int64)
    return names, kind, np.bincount(kind, minlength=len(names))


def _by_spglib(one: Structures, tolerance: float) -> tuple[FloatArray, FloatArray, IntArray]:
    """A primitive lattice, fractional coordinates in it, and the row of each site; as given where none is found."""
    lattice, frac = one.lattice[0], one.frac
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cell: Any = (lattice, frac, one.numbers)
            found = spglib.get_symmetry_dataset(cell, symprec=tolerance)
        except Exception:  # newer versions raise where older ones gave None
            found = None
    if found is None:
        return lattice, frac, np.arange(len(frac))
    rows = np.unique(found.mapping_to_primitive, return_index=True)[1]
    primitive = np.asarray(found.primitive_lattice)
    return primitive, (frac[rows] @ lattice) @ np.linalg.inv(primitive) % 1.0, rows
