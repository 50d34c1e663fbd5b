"""Whether two structures are the same crystal, whatever cell and order of atoms they are written in."""

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

VOLUME_RATIO = 1.2
"""Volumes per atom further apart than this are taken for different crystals (another pressure, another phase)."""

SYMPREC = 0.1
"""Angstrom; loose, so that relaxations of one crystal keep one space group."""

MOST_ATOMS = 200
"""Larger primitive cells aren't compared: one pair can take minutes."""


@dataclass(frozen=True)
class Same:
    """What is the same crystal as what.

    Attributes:
        of: (n,) int64, row of the one that is kept; the own row where that is this one.
        not_compared: rows that were left alone, because they are too large or the time was up.
    """

    of: npt.NDArray[np.int64]
    not_compared: tuple[int, ...] = ()


def same_crystal(structures: Structures, order: npt.NDArray[np.int64] | None = None, *, seconds: float = 600.0) -> Same:
    """For each structure the first one in `order` that is the same crystal.

    Args:
        structures: n of them.
        order: (n,) rows, those to be kept first.
        seconds: that comparing may take; it is looked at between pairs.
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
            known = KnownCrystals()
            for row in rows:
                if time.monotonic() > deadline:
                    left_out.append(row)
                    continue
                crystal = prepare(structures, row)
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
        space_group: number at `SYMPREC`; 0 where none was found.
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


def prepare(structures: Structures, row: int) -> Prepared | None:
    """One structure of a batch; None where it is too large to be compared."""
    one = structures.take([row])
    number, size = _symmetry(one)
    if size > MOST_ATOMS:
        return None
    return Prepared(row, one, number, abs(float(np.linalg.det(one.lattice[0]))) / int(one.n_atoms[0]))


def _symmetry(one: Structures) -> tuple[int, int]:
    """International number of the space group (0: none found) and atoms in the primitive cell, by spglib."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cell: Any = (one.lattice[0], one.frac, one.numbers)
            found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
        except Exception:  # newer versions raise where older ones gave None
            found = None
    if found is None:
        return 0, int(one.n_atoms[0])
    return int(found.number), len(np.unique(found.mapping_to_primitive))


@dataclass
class KnownCrystals:
    """Crystals of one formula, none like another.

    Attributes:
        volume_ratio: volumes per atom further apart than this are different crystals.
        matcher: compares primitive cells.
    """

    volume_ratio: float = VOLUME_RATIO
    matcher: StructureMatcher = field(default_factory=lambda: StructureMatcher(primitive_cell=False))
    _by_space_group: dict[int, list[Prepared]] = field(default_factory=lambda: defaultdict(list))

    def add(self, crystal: Prepared) -> None:
        """Put one more in."""
        self._by_space_group[crystal.space_group].append(crystal)

    def find(self, crystal: Prepared) -> int | None:
        """Row of the first that is the same crystal."""
        for other in self._by_space_group[crystal.space_group]:
            # Cheap differences first: the matcher tries many lattices for each pair. Its own scaling would hide the
            # volume.
            small, large = sorted((crystal.volume, other.volume))
            if large > self.volume_ratio * small or len(crystal.primitive) != len(other.primitive):
                continue
            if self.matcher.fit(crystal.primitive, other.primitive):
                return other.row
        return None
