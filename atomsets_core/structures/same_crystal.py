"""Whether two structures are the same crystal, whatever cell they are written in: the matcher and its tolerances.

One rule for all who ask (duplicates of a source, candidates that the training data hold, substituted candidates): the
same reduced formula, the same space group, about the same volume an atom, and primitive cells that pymatgen's
StructureMatcher lays on each other. The matcher alone, with its wide tolerances, takes a distorted phase for the one it
distorts; the space group keeps them apart, and the volume one crystal at two pressures. Mirror images, which differ
in handedness and in no property that is learned here, are one crystal.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import spglib
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from atomsets_core.structures.batch import Structures


@dataclass(frozen=True)
class Tolerances:
    """How unlike two structures of one formula may be and still be the same crystal.

    Attributes:
        symprec: Angstrom by which sites may miss a symmetry operation that counts for the space group. Loose, so that
            relaxations of one crystal keep one space group; a distortion by more than this is another crystal.
        volume_ratio: volumes an atom further apart than this are different crystals (another pressure, another phase).
        length: by what share the cell's edges may differ, the volumes made equal (the matcher's ltol).
        angle: degrees by which the cell's angles may differ (the matcher's angle_tol).
        site: how far sites may lie apart, as a share of (volume an atom)^(1/3) (the matcher's stol).
        most_atoms: primitive cells of more atoms aren't compared, since one pair can take minutes: they are like none.
    """

    symprec: float = 0.1
    volume_ratio: float = 1.2
    length: float = 0.2
    angle: float = 5.0
    site: float = 0.3
    most_atoms: int = 200

    def matcher(self) -> StructureMatcher:
        """Compares primitive cells within these tolerances, volumes made equal."""
        return StructureMatcher(ltol=self.length, stol=self.site, angle_tol=self.angle, primitive_cell=False)


TOLERANCES = Tolerances()
"""Those that hold everywhere."""

_MIRRORED = {78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180, 213: 212}
"""Second -> first of each pair of space groups that are mirror images of each other."""


@dataclass(frozen=True)
class Same:
    """What is the same crystal as what.

    Attributes:
        of: (n,) int64, row of the one that is kept; the own row where that is this one.
        not_compared: rows that were left alone, because they are too large or the time was up.
    """

    of: npt.NDArray[np.int64]
    not_compared: tuple[int, ...] = ()


def same_crystal(
    structures: Structures,
    order: npt.NDArray[np.int64] | None = None,
    *,
    seconds: float = 600.0,
    tolerances: Tolerances = TOLERANCES,
) -> Same:
    """For each structure the first one in `order` that is the same crystal.

    Args:
        structures: n of them.
        order: (n,) rows, those to be kept first.
        seconds: that comparing may take; it is looked at between pairs.
        tolerances: within which two are the same.
    """
    order = np.arange(len(structures)) if order is None else order
    deadline = time.monotonic() + seconds
    of = np.arange(len(structures), dtype=np.int64)
    groups: dict[str, list[int]] = defaultdict(list)
    for row in order.tolist():
        groups[structures.formulas[row]].append(row)
    left_out: list[int] = []
    for rows in groups.values():
        if len(rows) > 1:
            known = KnownCrystals(tolerances)
            for row in rows:
                if time.monotonic() > deadline:
                    left_out.append(row)
                    continue
                crystal = prepare(structures, row, tolerances)
                if crystal is None:
                    left_out.append(row)
                    continue
                match = known.find(crystal)
                of[row] = row if match is None else match
                if match is None:
                    known.add(crystal)
    return Same(of, tuple(sorted(left_out)))


@dataclass(frozen=True)
class Prepared:
    """A crystal ready to be compared.

    Attributes:
        row: what it is called.
        structures: a batch of one.
        space_group: number, of mirror images that of the first; 0 where none was found.
        volume: cubic Angstrom an atom.
    """

    row: int
    structures: Structures
    space_group: int
    volume: float

    @cached_property
    def primitive(self) -> Structure:
        """Its primitive cell, made when there is something to compare it with."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.structures.to_pymatgen()[0].get_primitive_structure()


def prepare(structures: Structures, row: int, tolerances: Tolerances = TOLERANCES) -> Prepared | None:
    """One structure of a batch; None where it is too large to be compared."""
    one = structures.take([row])
    number, size = _symmetry(one, tolerances.symprec)
    if size > tolerances.most_atoms:
        return None
    number = _MIRRORED.get(number, number)
    return Prepared(row, one, number, abs(float(np.linalg.det(one.lattice[0]))) / int(one.n_atoms[0]))


def _symmetry(one: Structures, symprec: float) -> tuple[int, int]:
    """International number of the space group (0: none found) and atoms in the primitive cell, by spglib."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cell: Any = (one.lattice[0], one.frac, one.numbers)
            found = spglib.get_symmetry_dataset(cell, symprec=symprec)
        except Exception:  # newer versions raise where older ones gave None
            found = None
    if found is None:
        return 0, int(one.n_atoms[0])
    return int(found.number), len(np.unique(found.mapping_to_primitive))


@dataclass
class KnownCrystals:
    """Crystals of one formula.

    Attributes:
        tolerances: within which another is the same.
    """

    tolerances: Tolerances = TOLERANCES
    _by_space_group: dict[int, list[Prepared]] = field(default_factory=lambda: defaultdict(list))

    @cached_property
    def _matcher(self) -> StructureMatcher:
        return self.tolerances.matcher()

    def add(self, crystal: Prepared) -> None:
        """Put one more in."""
        self._by_space_group[crystal.space_group].append(crystal)

    def find(self, crystal: Prepared) -> int | None:
        """Row of the first that is the same crystal."""
        for other in self._by_space_group[crystal.space_group]:
            # Cheap differences first: the matcher tries many lattices for each pair. Its own scaling would hide the
            # volume.
            small, large = sorted((crystal.volume, other.volume))
            if large > self.tolerances.volume_ratio * small or len(crystal.primitive) != len(other.primitive):
                continue
            if self._matcher.fit(crystal.primitive, other.primitive):
                return other.row
        return None


class CrystalsByFormula:
    """The crystals of a batch, each prepared once, when the first of its formula is asked for."""

    def __init__(self, structures: Structures) -> None:
        """Look at the formulas only.

        Args:
            structures: n of them.
        """
        self.structures = structures
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row, formula in enumerate(structures.formulas):
            self._rows[formula].append(row)
        self._known: dict[str, KnownCrystals] = {}

    def of(self, formula: str) -> KnownCrystals:
        """Those of a reduced formula, by their rows; too large ones are left out. More may be added to them."""
        if formula not in self._known:
            self._known[formula] = KnownCrystals()
            for row in self._rows.get(formula, ()):
                if (crystal := prepare(self.structures, row)) is not None:
                    self._known[formula].add(crystal)
        return self._known[formula]

    def find(self, structures: Structures, row: int) -> int | None:
        """Row of the first that is the same crystal as one of another batch."""
        formula = str(structures.formulas[row])
        if formula not in self._rows or (crystal := prepare(structures, row)) is None:
            return None
        return self.of(formula).find(crystal)
