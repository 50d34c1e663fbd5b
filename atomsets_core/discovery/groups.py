"""What structures have in common: element, chemical system, space group, prototype, neighbourhood, age."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import spglib
from pymatgen.core import Composition, Element
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from atomsets_core.structures import Structures

SYMPREC = 0.1
"""Angstrom within which sites count as symmetry-equivalent; Materials Project crystals are relaxed to about that."""

UNKNOWN = "unknown"
"""Label of a crystal whose symmetry spglib doesn't find."""


def holds_element(formulas: Sequence[str], element: str) -> npt.NDArray[np.bool_]:
    """(n,) whether each formula holds the element.

    Raises:
        ValueError: not the symbol of an element.
    """
    if not Element.is_valid_symbol(element):
        raise ValueError(f"{element!r} is not an element")
    return np.array([element in Composition(str(formula)) for formula in formulas], dtype=bool)


def chemical_systems(formulas: Sequence[str]) -> npt.NDArray[np.object_]:
    """(n,) str, the elements of each formula in alphabetic order, e.g. "Fe-O"."""
    return np.array([Composition(str(formula)).chemical_system for formula in formulas], dtype=object)


def space_groups(structures: Structures, symprec: float = SYMPREC) -> npt.NDArray[np.int64]:
    """(n,) international numbers 1 to 230, 0 where spglib finds none."""
    return np.array([0 if d is None else d.number for d in _datasets(structures, symprec)], dtype=np.int64)


def prototypes(structures: Structures, symprec: float = SYMPREC) -> npt.NDArray[np.object_]:
    """(n,) str, the prototype of each crystal, e.g. "225: 1 m-3m; 1 m-3m" of rock salt, whatever its elements.

    Space group and, for each element, the orbits it occupies: sites in the primitive cell and their site symmetry.
    These are its Wyckoff positions, but for the choice of origin: letters that only differ by it (a and b of rock salt)
    must not make two prototypes of one, so letters play no part. Elements are sorted by what they occupy, which holds
    the anonymous formula.
    """
    names = []
    for row, data in enumerate(_datasets(structures, symprec)):
        if data is None:
            names.append(UNKNOWN)
            continue
        start, stop = structures.offsets[row], structures.offsets[row + 1]
        numbers = structures.numbers[start:stop]
        # Sites of the given cell for one of the primitive cell.
        copies = len(numbers) // len(np.unique(data.mapping_to_primitive))
        occupied: dict[int, list[str]] = {}
        for orbit in np.unique(data.crystallographic_orbits):
            members = np.flatnonzero(data.crystallographic_orbits == orbit)
            symmetry = data.site_symmetry_symbols[members[0]].replace(".", "")
            occupied.setdefault(int(numbers[members[0]]), []).append(f"{len(members) // copies} {symmetry}")
        names.append(f"{data.number}: {'; '.join(sorted(' + '.join(sorted(part)) for part in occupied.values()))}")
    return np.array(names, dtype=object)


def _datasets(structures: Structures, symprec: float) -> list[Any]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row, (start, stop) in enumerate(zip(structures.offsets[:-1], structures.offsets[1:], strict=True)):
            cell: Any = (structures.lattice[row], structures.frac[start:stop], structures.numbers[start:stop])
            try:
                found.append(spglib.get_symmetry_dataset(cell, symprec=symprec))
            except spglib.SpglibError:
                found.append(None)
    return found


def clusters(vectors: npt.NDArray[np.floating], n_clusters: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """(n,) cluster of each row, 0 the largest: k-means on up to 20 principal components of standardised columns.

    Raises:
        ValueError: fewer rows than clusters.
    """
    if len(vectors) < n_clusters:
        raise ValueError(f"{len(vectors)} rows can't make {n_clusters} clusters")
    scale = vectors.std(axis=0, dtype=np.float64)
    standardised = (vectors - vectors.mean(axis=0, dtype=np.float64)) / np.where(scale > 1e-6, scale, 1.0)
    leading = PCA(n_components=min(20, *standardised.shape), svd_solver="full").fit_transform(standardised)
    found = KMeans(n_clusters, n_init=4, random_state=seed).fit_predict(leading)
    place = np.argsort(np.argsort(-np.bincount(found, minlength=n_clusters), kind="stable"), kind="stable")
    return place[found].astype(np.int64)


def id_numbers(material_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,) the last number in each identifier, e.g. 149 of mp-149.

    Raises:
        ValueError: an identifier without one; it is named.
    """
    numbers = []
    for name in material_ids:
        found = re.findall(r"\d+", str(name))
        if not found:
            raise ValueError(f"{name!r} has no number: identifiers such as mp-149 are needed to tell older from newer")
        numbers.append(int(found[-1]))
    return np.array(numbers, dtype=np.int64)
