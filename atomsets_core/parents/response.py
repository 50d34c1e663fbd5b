"""What a parent's energy says of stiffness: its second derivatives, as levels like any other.

CHGNet and SevenNet are interatomic potentials. A set network on their hidden vectors has to learn stiffness from
examples; the curvature of their energy is stiffness, up to the potential's error, which the set network then learns.
All derivatives are central differences of energies, so any parent with an `energy` level will do, and all levels are
invariant: rotations, the choice of the cell and the order of the sites don't matter.

`spring`, a site level, has the three frequencies with which one atom, with its images in all primitive cells, would
swing while all others rest: omega = sqrt(k / m) from the eigenvalues k of its 3 x 3 block of the force constants, in
1/cm, sorted, negative where the curvature is. The first column is the softest direction.

`elastic`, a structure level, has Voigt's bulk and shear moduli with the ions clamped, K = C_iijj / 9 and
G = (3 C_ijij - C_iijj) / 30 (Voigt 1928; both are linear invariants of the elastic tensor), as log10 GPa, the three
principal stresses in GPa, sorted, and log10 of the volume of an atom in cubic Angstrom.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import spglib
from pymatgen.core import Element

from atomsets_core.parents.about import About, levels_about
from atomsets_core.parents.base import Features, Parent, split_levels
from atomsets_core.structures import IntArray, Refusal, Structures, ragged_rows

CODE_VERSION = "1"
"""Part of the digest: raised when the meaning of the numbers below changes."""

SITE_LEVELS = {"spring": 3}
STRUCTURE_LEVELS = {"elastic": 6}

SHIFT = 0.02
"""Angstrom that an atom is moved, in whatever direction: above the rounding of float32 energies, still harmonic."""

STRAIN = 0.01
"""Largest component of a strain."""

SOFTEST = 0.1
"""GPa: moduli below, or negative ones of a crystal that the potential finds unstable, count as this."""

SYMPREC = 1e-3
"""Angstrom, within which two sites count as images of each other."""

COPIES = 1024
"""Changed copies of structures given to the parent at once; bounds the memory."""

WAVENUMBER = 521.4709
"""sqrt(eV / (Angstrom^2 u)) / (2 pi c) in 1/cm (CODATA 2018)."""

GPA = 160.2176634
"""eV/Angstrom^3 in GPa."""

MASSES = np.array([np.nan, *(float(Element.from_Z(z).atomic_mass) for z in range(1, 119))])

FloatArray = npt.NDArray[np.float64]

HALF = math.sqrt(0.5)
# x, y, z and the diagonals between them, each forth and back: enough for a symmetric 3 x 3 block.
DIRECTIONS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, HALF, HALF], [HALF, 0, HALF], [HALF, HALF, 0]])


def strains() -> FloatArray:
    """(7, 3, 3): isotropic; along x, y, z; shears yz, xz, xy. Engineering components of size 1."""
    modes = np.zeros((7, 3, 3))
    modes[0] = np.eye(3)
    for i in range(3):
        modes[1 + i, i, i] = 1.0
        j, k = (i + 1) % 3, (i + 2) % 3
        modes[4 + i, j, k] = modes[4 + i, k, j] = 0.5
    return modes


class Response:
    """Stiffness levels from the energy of another parent.

    Args:
        base: gives energies in eV an atom.
        sites_like: site level of `base` by which equivalent sites are recognised; each kind is moved once.
    """

    def __init__(self, base: Parent, sites_like: str) -> None:
        self.base, self.sites_like = base, sites_like
        self.name = f"{base.name}-response"
        self.digest = hashlib.sha256(f"{self.name} {CODE_VERSION} {base.digest}".encode()).hexdigest()[:16]
        self.site_levels = dict(SITE_LEVELS)
        self.structure_levels = dict(STRUCTURE_LEVELS)
        self.default_levels: tuple[str, ...] = ("spring", "elastic")

    def featurize(self, structures: Structures, levels: Sequence[str] | None = None) -> Features:
        """Features of the structures this parent can take; see `Parent.featurize`."""
        wanted = list(dict.fromkeys(levels)) if levels is not None else [*SITE_LEVELS, *STRUCTURE_LEVELS]
        on_sites, on_structures = split_levels(self, wanted)
        # The images that move with an atom are those of the cell: only the primitive one is a property of the crystal.
        reduced, image = primitive(structures)
        known = self.base.featurize(reduced, [self.sites_like, "energy"])
        taken = _rows_of(reduced, known)
        batch = reduced.take(taken)
        values: dict[str, npt.NDArray[np.float32]] = {}
        good = np.ones(len(batch), dtype=bool)
        if on_sites and len(batch):
            values["spring"] = self._springs(batch, known)
            good &= ~np.isnan(np.add.reduceat(values["spring"].sum(axis=1), batch.offsets[:-1]))
        if on_structures and len(batch):
            values["elastic"] = self._elastic(batch, known)
            good &= ~np.isnan(values["elastic"]).any(axis=1)
        return self._assemble(structures, image, taken, good, values, (on_sites, on_structures), known)

    def _assemble(
        self,
        structures: Structures,
        image: IntArray,
        taken: IntArray,
        good: npt.NDArray[np.bool_],
        values: dict[str, npt.NDArray[np.float32]],
        levels: tuple[Sequence[str], Sequence[str]],
        known: Features,
    ) -> Features:
        """Features of the structures as they were given, from those of their primitive cells.

        Args:
            structures: the request.
            image: (n_sites,) site of the primitive cell that each site is an image of.
            taken: rows of the request that the base parent took.
            good: which of these have all values.
            values: level -> values of the rows taken, on the sites of the primitive cells.
            levels: site levels and structure levels asked for.
            known: what the base parent said of the rows taken.
        """
        kept = structures.take(taken[good])
        reason = f"{self.base.name} has no energy for slightly changed copies of this structure"
        because = dict(zip((r.material_id for r in known.refused), (r.reason for r in known.refused), strict=True))
        lost = np.setdiff1d(np.arange(len(structures)), taken[good])
        refused = tuple(
            Refusal(str(name), "featurize", because.get(str(name), reason), str(structures.hashes[i]))
            for i, name in zip(lost, structures.material_id[lost], strict=True)
        )
        rows = ragged_rows(structures.offsets, taken[good])
        in_primitive = np.repeat(known.offsets[:-1][good], kept.n_atoms) + image[rows]
        flags = dict(zip(known.structure_hash, taken, strict=True))
        return Features(
            material_id=kept.material_id,
            structure_hash=kept.hashes,
            formula=kept.formulas,
            n_atoms=kept.n_atoms,
            sites={
                level: values[level][in_primitive] if len(kept) else np.empty((0, width), dtype=np.float32)
                for level, width in self.site_levels.items()
                if level in levels[0]
            },
            structure={
                level: values[level][good] if len(kept) else np.empty((0, width), dtype=np.float32)
                for level, width in self.structure_levels.items()
                if level in levels[1]
            },
            digest=self.digest,
            refused=refused,
            flagged={str(structures.hashes[flags[key]]): remark for key, remark in known.flagged.items()},
        )

    def _springs(self, batch: Structures, known: Features) -> npt.NDArray[np.float32]:
        """(n_sites, 3) float32, NaN where an energy is missing."""
        like = known.sites[self.sites_like]
        first, kinds = _kinds(like, batch.offsets)
        owner = np.repeat(np.arange(len(batch)), batch.n_atoms)[first]
        inverse = np.linalg.inv(batch.lattice)
        steps = np.concatenate([DIRECTIONS, -DIRECTIONS]) * SHIFT
        energies = np.empty((len(first), len(steps)))
        for part in _pieces(batch.n_atoms[owner] * len(steps)):
            copies = batch.take(np.repeat(owner[part], len(steps)))
            moved = copies.offsets[:-1] + np.repeat(first[part] - batch.offsets[owner[part]], len(steps))
            frac = copies.frac.copy()
            frac[moved] += np.einsum("sx,nxy->nsy", steps, inverse[owner[part]]).reshape(-1, 3)
            energies[part] = self._energies(replace(copies, frac=frac)).reshape(-1, len(steps))
        # Second derivative of the energy of the cell along a unit vector u, eV/A^2:
        # u K u = (E(h u) + E(-h u) - 2 E(0)) / h^2 + O(h^2), times the atoms since energies are those of one atom. They
        # come as float32; in float64 their differences lose nothing more.
        at_rest = known.structure["energy"][owner, 0].astype(np.float64)[:, None]
        curvature = (energies[:, :6] + energies[:, 6:] - 2 * at_rest) / SHIFT**2 * batch.n_atoms[owner][:, None]
        block = np.empty((len(first), 3, 3))
        for i in range(3):
            block[:, i, i] = curvature[:, i]
            j, k = (i + 1) % 3, (i + 2) % 3
            # Along u = (e_j + e_k) / sqrt(2) the curvature is (K_jj + K_kk) / 2 + K_jk.
            block[:, j, k] = block[:, k, j] = curvature[:, 3 + i] - (curvature[:, j] + curvature[:, k]) / 2
        lost = np.isnan(block).any(axis=(1, 2))
        block[lost] = 0.0
        # K is not divided by sqrt(m_i m_j): all others rest, so that there is one mass. Unstable directions are
        # negative.
        k = np.linalg.eigvalsh(block) / MASSES[batch.numbers[first]][:, None]
        frequency = np.sign(k) * np.sqrt(np.abs(k)) * WAVENUMBER
        frequency[lost] = np.nan
        return frequency[kinds].astype(np.float32)

    def _elastic(self, batch: Structures, known: Features) -> npt.NDArray[np.float32]:
        """(n, 6) float32, NaN where an energy is missing."""
        modes = np.concatenate([strains(), -strains()]) * STRAIN
        energies = np.empty((len(batch), len(modes)))
        for part in _pieces(batch.n_atoms * len(modes)):
            copies = batch.take(np.repeat(part, len(modes)))
            # Rows are lattice vectors: a' = a (1 + e). Fractional coordinates stay, so the ions are clamped.
            lattice = np.einsum("nij,mjk->nmik", batch.lattice[part], np.eye(3) + modes).reshape(-1, 3, 3)
            energies[part] = self._energies(replace(copies, lattice=lattice)).reshape(-1, len(modes))
        at_rest = known.structure["energy"][:, :1].astype(np.float64)
        volume = np.abs(np.linalg.det(batch.lattice)) / batch.n_atoms
        # E / V = sigma : e + e : C : e / 2. Central differences give sigma and C apart. e is the linear strain, so
        # where there is stress the second ones also hold sigma : e^2, which vanishes at the potential's own minimum.
        second = (energies[:, :7] + energies[:, 7:] - 2 * at_rest) / STRAIN**2 / volume[:, None] * GPA
        first = (energies[:, :7] - energies[:, 7:]) / (2 * STRAIN) / volume[:, None] * GPA
        # Isotropic: e : C : e = C_iijj, summed over i and j. Shears have e_jk = e_kj = 1/2, so that e : C : e = C_jkjk,
        # of which C_ijij has each twice.
        c_iijj = second[:, 0]
        c_ijij = second[:, 1:4].sum(axis=1) + 2 * second[:, 4:7].sum(axis=1)
        moduli = np.column_stack([c_iijj / 9, (3 * c_ijij - c_iijj) / 30])
        lost = np.isnan(first).any(axis=1)
        stress = np.zeros((len(batch), 3, 3))
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            stress[:, i, i] = np.where(lost, 0.0, first[:, 1 + i])
            stress[:, j, k] = stress[:, k, j] = np.where(lost, 0.0, first[:, 4 + i])
        out = np.column_stack(
            [np.log10(np.maximum(moduli, SOFTEST)), np.linalg.eigvalsh(stress), np.log10(volume)[:, None]]
        )
        out[lost] = np.nan
        return out.astype(np.float32)

    def _energies(self, copies: Structures) -> FloatArray:
        """(n,) eV an atom, NaN where the parent refuses."""
        names = np.array([str(i) for i in range(len(copies))], dtype=object)
        found = self.base.featurize(replace(copies, material_id=names), ["energy"])
        out = np.full(len(copies), np.nan)
        out[found.material_id.astype(np.int64)] = found.structure["energy"][:, 0]
        return out


def primitive(structures: Structures) -> tuple[Structures, IntArray]:
    """The primitive cells of structures, and (n_sites,) int64 the site there that each site is an image of.

    Sites count from 0 in each cell. A cell that is primitive already stays as it is.
    """
    lattices, counts, kept, fracs = structures.lattice.copy(), structures.n_atoms.copy(), [], []
    image = np.concatenate([np.arange(n) for n in structures.n_atoms]) if len(structures) else np.empty(0, np.int64)
    for i, (start, stop) in enumerate(zip(structures.offsets[:-1], structures.offsets[1:], strict=True)):
        frac, numbers = structures.frac[start:stop], structures.numbers[start:stop]
        first = np.arange(stop - start)
        # A cell that repeats has its rarest element more than once.
        if np.unique(numbers, return_counts=True)[1].min() > 1:
            cell = (structures.lattice[i].tolist(), frac.tolist(), numbers.tolist())
            found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
            if found is not None and len(set(found.mapping_to_primitive)) < len(numbers):
                _, first, image[start:stop] = np.unique(
                    found.mapping_to_primitive, return_index=True, return_inverse=True
                )
                lattices[i] = found.primitive_lattice
                frac = frac[first] @ structures.lattice[i] @ np.linalg.inv(lattices[i])
        counts[i] = len(first)
        kept.append(start + first)
        fracs.append(frac)
    sites = np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)
    reduced = replace(
        structures,
        lattice=lattices,
        n_atoms=counts,
        numbers=structures.numbers[sites],
        frac=np.concatenate(fracs) if fracs else structures.frac,
        occupancy=None if structures.occupancy is None else structures.occupancy[sites],
    )
    return reduced, image


def _rows_of(structures: Structures, features: Features) -> IntArray:
    """Positions of the structures that have features, which stand in the same order."""
    rows, wanted = [], 0
    for i, key in enumerate(structures.hashes):
        if wanted < len(features) and features.structure_hash[wanted] == key:
            rows.append(i)
            wanted += 1
    return np.array(rows, dtype=np.int64)


def _kinds(values: npt.NDArray[np.float32], offsets: IntArray) -> tuple[IntArray, IntArray]:
    """First site of each kind of equivalent sites of a structure, and the kind of each site.

    Sites are of one kind when two random projections of their standardised vectors agree to 1e-3 of a deviation.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    scale = values.std(axis=0, dtype=np.float64)
    scale[~(scale > 1e-6)] = 1.0
    # Alike sites differ by rounding only; unlike ones hardly ever agree in two random directions.
    directions = np.random.default_rng(0).normal(size=(values.shape[1], 2))
    directions /= np.linalg.norm(directions, axis=0) * scale[:, None]
    keys = np.round((values - values.mean(axis=0)) @ directions * 1e3).astype(np.int64)
    _, first, kinds = np.unique(np.column_stack([owner, keys]), axis=0, return_index=True, return_inverse=True)
    return first, kinds.reshape(-1)


def _pieces(sites: IntArray) -> Iterator[IntArray]:
    """Consecutive positions, cut where the copies' sites reach a bound."""
    which = (np.cumsum(sites) - sites) // (8 * COPIES)
    for number in np.unique(which):
        yield np.flatnonzero(which == number)


SITES_LIKE = {"chgnet": "site", "sevennet": "s1", "sevennet-l3i5": "s1"}
"""Parents with a response, and the site level by which their equivalent sites are recognised."""


def about_response(base: About) -> About:
    """What the response of a parent is: the work of those who made the parent, with other levels."""
    return replace(
        base,
        title=f"{base.title} response",
        described=f"second derivatives of the energy of {base.described}",
        levels=levels_about(
            SITE_LEVELS,
            STRUCTURE_LEVELS,
            {
                "spring": "frequencies, 1/cm, with which the atom would swing alone along its three axes",
                "elastic": "decadic logarithms of bulk and shear modulus with clamped ions (GPa), principal stresses "
                "(GPa), decadic logarithm of the volume of an atom (Å³)",
            },
            of_elements=(),
        ),
    )
