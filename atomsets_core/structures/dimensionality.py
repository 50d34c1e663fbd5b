"""What kind of matter a cell holds: a bulk crystal, layers, chains or molecules, packed or in vacuum.

Atoms are bonded where they are no farther apart than their covalent radii (Cordero et al., Dalton Trans. 2008, 2832)
and 0.45 Angstrom, as in Jmol; metals reach each other, and large cations their anions, over somewhat more. A bonded
part that comes back to itself through images of the cell in 0, 1, 2 or 3 independent directions is a molecule, chain,
layer or network (Larsen et al., Phys. Rev. Mater. 3, 034003 (2019)); the highest of its parts counts for a structure.
Whether parts are packed or lie in vacuum is seen from the largest sphere between them that reaches into no atom's van
der Waals sphere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache

import numpy as np
import numpy.typing as npt
from pymatgen.core import Element
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

from atomsets_core.structures.batch import LARGEST_ATOMIC_NUMBER, FloatArray, IntArray, Structures
from atomsets_core.structures.graphs import DENSEST, Bonds, find_bonds

MATTER_KINDS = {
    "bulk": "bonds go on in three directions",
    "layered": "layers, packed as in graphite",
    "chains": "chains, packed as in selenium",
    "molecular": "molecules or single atoms, packed as in dry ice",
    "slab": "a layer or slab with vacuum on both sides",
    "wire": "a chain or wire in vacuum",
    "molecule": "a molecule, cluster or atom in vacuum",
    "unknown": "partial occupancy, overlapping atoms, or too large a cell to tell",
}
"""What each word stands for."""

NO_BULK = frozenset({"molecular", "slab", "wire", "molecule"})
"""Those whose stiffness, conductivity and the like aren't those of a crystal held together by strong bonds."""

_PACKED = np.array(["molecular", "chains", "layered", "bulk"], dtype=object)
_IN_VACUUM = np.array(["molecule", "wire", "slab", "bulk"], dtype=object)

BOND_TOLERANCE = 0.45
"""Angstrom by which bonds may be longer than the sum of the covalent radii."""

STRETCH = 1.3
"""Metals, and large cations and anions, are bonded up to so many times the sum of their radii, too.

Such atoms have many neighbours, and none is near (mercury has its next at 1.29 times the sum)."""

VACUUM = 5.0
"""Angstrom, diameter of the smallest empty sphere that is vacuum: an atom as large as xenon (4.3) could rattle in it.

Packed layers, chains and molecules leave less, even where a functional without dispersion has drawn them apart."""

GRID = 1.0
"""Angstrom between the points where an empty sphere is looked for."""

MOST_POINTS = 30_000
"""Points looked at in one cell: the grid of a larger one is coarser."""

MOST_SITES = 3000
"""Larger cells are left alone."""

LONGEST = 2000.0
"""Angstrom; cells longer than this are left alone too, since the search for neighbours takes memory for empty space."""

AT_ONCE = 256
"""Structures whose bonds are gone through together."""


def matter_kinds(structures: Structures) -> npt.NDArray[np.object_]:
    """(n,) str, a word of `MATTER_KINDS` for each structure.

    Takes about a millisecond a structure. Ask `NO_BULK` for those that are no bulk crystals.
    """
    dimensions = dimensionalities(structures)
    words = np.full(len(structures), "unknown", dtype=object)
    known = dimensions >= 0
    words[known] = _PACKED[dimensions[known]]
    for row in np.flatnonzero((dimensions >= 0) & (dimensions < 3)):
        sites = slice(structures.offsets[row], structures.offsets[row + 1])
        if has_vacuum(structures.lattice[row], structures.frac[sites], structures.numbers[sites]):
            words[row] = _IN_VACUUM[dimensions[row]]
    return words


def dimensionalities(structures: Structures) -> npt.NDArray[np.int64]:
    """(n,) int64: directions in which bonds go on without end, 0 to 3; -1 where it can't be told."""
    found = np.full(len(structures), -1, dtype=np.int64)
    usable = np.flatnonzero(~structures.disordered & _is_manageable(structures))
    for start in range(0, len(usable), AT_ONCE):
        rows = usable[start : start + AT_ONCE]
        found[rows] = _of_batch(structures.take(rows))
    return found


def _is_manageable(structures: Structures) -> npt.NDArray[np.bool_]:
    """(n,) whether neighbours can be looked for in bounded time and memory."""
    volume = np.abs(np.linalg.det(structures.lattice))
    longest = np.linalg.norm(structures.lattice, axis=2).max(axis=1, initial=0.0)
    edges = np.abs(structures.lattice).sum(axis=1).prod(axis=1)  # of the box around the cell
    fine = (structures.n_atoms <= MOST_SITES) & (structures.n_atoms <= DENSEST * volume)
    return fine & (longest <= LONGEST) & (edges <= LONGEST**2 * 100.0)


def _of_batch(structures: Structures) -> IntArray:
    """(n,) dimensionality of each, by the bonds of all at once."""
    parts = [
        _bonds(structures.lattice[i], structures.frac[start:stop], structures.numbers[start:stop])
        for i, (start, stop) in enumerate(zip(structures.offsets[:-1], structures.offsets[1:], strict=True))
    ]
    shift = np.repeat(structures.offsets[:-1], [len(part.centre) for part in parts])
    centre = np.concatenate([part.centre for part in parts]) + shift
    neighbour = np.concatenate([part.neighbour for part in parts]) + shift
    image = np.concatenate([part.image for part in parts if part.image is not None])
    component, rank = _ranks(centre, neighbour, image, len(structures.numbers))
    owner = np.repeat(np.arange(len(structures)), structures.n_atoms)
    highest = np.zeros(len(structures), dtype=np.int64)
    np.maximum.at(highest, owner, rank[component])
    return highest


def _bonds(lattice: FloatArray, frac: FloatArray, numbers: IntArray) -> Bonds:
    """The bonds of one structure, with images."""
    elements, which = np.unique(numbers, return_inverse=True)
    longest = _longest_bonds()[np.ix_(elements, elements)]
    near = find_bonds(lattice, frac, float(longest.max()), vectors=True)
    kept = near.distance <= longest[which[near.centre], which[near.neighbour]]
    image = None if near.image is None else near.image[kept]
    return Bonds(near.centre[kept], near.neighbour[kept], near.distance[kept], None, image)


def _ranks(centre: IntArray, neighbour: IntArray, image: IntArray, n: int) -> tuple[IntArray, IntArray]:
    """(n,) component of each atom, and for each component in how many directions it comes back to itself.

    Each atom gets the cell in which a walk along a spanning tree meets it. A bond off the tree that leads to another
    cell than that closes a walk through the crystal; the walks of a component span so many directions.
    """
    pair, first = np.unique(centre * n + neighbour, return_index=True)
    graph = coo_array((np.ones(len(pair)), (pair // n, pair % n)), shape=(n, n)).tocsr()
    count, component = connected_components(graph, directed=False)
    # One atom more, bonded to the first of each component, so that one search reaches all.
    roots = np.unique(component, return_index=True)[1]
    source = np.concatenate([pair // n, np.full(count, n)])
    target = np.concatenate([pair % n, roots])
    joined = coo_array((np.ones(len(source)), (source, target)), shape=(n + 1, n + 1)).tocsr()
    before = breadth_first_order(joined, n, directed=True)[1][:n].astype(np.int64)
    # Cell of each atom relative to the one before it, then to its root by doubling the stride each time.
    cell = np.zeros((n + 1, 3), dtype=np.int64)
    inner = np.flatnonzero(before < n)
    cell[inner] = image[first[np.searchsorted(pair, before[inner] * n + inner)]]
    before = np.append(before, n)
    while (before < n).any():
        cell += cell[before]
        before = before[before]
    walk = (cell[centre] + image - cell[neighbour]).astype(np.float64)
    # The walks w of a component span as many directions as the matrix of sums of w w^T has rank.
    gram = np.zeros((count, 3, 3))
    off = np.flatnonzero(walk.any(axis=1))
    np.add.at(gram, component[centre[off]], walk[off, :, None] * walk[off, None, :])
    return component.astype(np.int64), np.linalg.matrix_rank(gram, hermitian=True)


def has_vacuum(lattice: FloatArray, frac: FloatArray, numbers: IntArray, diameter: float = VACUUM) -> bool:
    """Whether a sphere fits between the van der Waals spheres of the atoms.

    Args:
        lattice: (3, 3) row vectors, Angstrom.
        frac: (n_atoms, 3) fractional coordinates.
        numbers: (n_atoms,) atomic numbers.
        diameter: Angstrom, of the sphere; its centre is looked for on a grid.
    """
    radius = _van_der_waals()[numbers]
    reach = radius.max() + 0.5 * diameter
    spacing = abs(np.linalg.det(lattice)) / np.linalg.norm(
        np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]]), axis=1
    )  # of lattice planes
    points = _grid(lattice) @ lattice
    images = np.floor(reach / spacing).astype(np.int64) + 1
    cells = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in images), indexing="ij"), axis=-1).reshape(-1, 3)
    # The rows of each element at once, the most frequent first: most points are near one of those.
    for element in _by_count(numbers):
        own = frac[numbers == element] % 1.0
        where = (own[None, :, :] + cells[:, None, :]).reshape(-1, 3)
        margin = reach / spacing
        inside = ((where > -margin) & (where < 1.0 + margin)).all(axis=1)
        limit = _van_der_waals()[element] + 0.5 * diameter
        distance, _ = cKDTree(where[inside] @ lattice).query(points, distance_upper_bound=limit)
        points = points[~(distance < limit)]
        if not len(points):
            return False
    return True


def _grid(lattice: FloatArray) -> FloatArray:
    """(m, 3) fractional points about `GRID` apart, at most about `MOST_POINTS`."""
    lengths = np.linalg.norm(lattice, axis=1)
    step = max(GRID, (float(lengths.prod()) / MOST_POINTS) ** (1.0 / 3.0))
    axes = [np.arange(count) / count for count in np.maximum(1, np.ceil(lengths / step)).astype(int)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _by_count(numbers: IntArray) -> Iterable[int]:
    elements, counts = np.unique(numbers, return_counts=True)
    return elements[np.argsort(-counts, kind="stable")].tolist()


@cache
def _longest_bonds() -> npt.NDArray[np.float64]:
    """(119, 119) Angstrom, longest bond between two elements, by their atomic numbers."""
    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius  # here: it is slow to import

    elements = [Element.from_Z(z) for z in range(1, LARGEST_ATOMIC_NUMBER + 1)]
    known = {**CovalentRadius.radius, "Mn": 1.61, "Fe": 1.52, "Co": 1.5}  # of these the high-spin ones
    radius = np.array([0.0, *(known.get(element.symbol, 1.7) for element in elements)])
    metal = np.array([False, *(element.is_metal for element in elements)])
    large = np.array([False, *(e.is_alkali or e.is_alkaline or e.symbol == "Tl" for e in elements)])
    both = radius[:, None] + radius[None, :]
    wide = (metal[:, None] & metal[None, :]) | (large[:, None] & ~metal[None, :]) | (~metal[:, None] & large[None, :])
    return np.where(wide, np.maximum(both + BOND_TOLERANCE, STRETCH * both), both + BOND_TOLERANCE)


@cache
def _van_der_waals() -> npt.NDArray[np.float64]:
    """(119,) Angstrom, van der Waals radii by atomic number; 2.0 where none is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for the last elements there is no radius
        known = [Element.from_Z(z).van_der_waals_radius for z in range(1, LARGEST_ATOMIC_NUMBER + 1)]
    return np.array([0.0, *(2.0 if radius is None or np.isnan(radius) else float(radius) for radius in known)])
