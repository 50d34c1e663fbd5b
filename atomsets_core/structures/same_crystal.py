"""Whether two structures are the same crystal, whatever cell they are written in: the rule and its tolerances.

One rule for all who ask (duplicates of a source, candidates that the training data hold, substituted candidates): the
same reduced formula, about the same volume an atom, primitive cells of as many sites that can be laid on each other as
pymatgen's StructureMatcher does it, and the same space group. The matcher alone, with its wide tolerances, takes a
distorted phase for the one it distorts; the space group keeps them apart, and the volume one crystal at two pressures.
What lies on each other much closer than symmetry is looked for is one crystal without asking for its space group, which
takes longest and differs there only where a distortion is just about as large as is looked for. Mirror images, which
differ in handedness and in no property that is learned here, are one crystal.

A crystal is prepared once: its primitive cell first, its space group when one is found that could be the same.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import spglib
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from atomsets_core.compiled import compiled_module
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.primitive_cell import PrimitiveCell, primitive_cell

Progress = Callable[[int, int], None]
"""Is told how many structures are done, and of how many."""

LOG_SECONDS = 10.0
"""Between lines of the log that say how far a comparison is."""


QUICK = 100
"""Sites times sites of the rarest kind up to which cells are laid on each other before space groups are asked for."""


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
        most_atoms: primitive cells of more atoms aren't compared: they are like none.
        most_sites: nor are cells that are written with more sites than this.
    """

    symprec: float = 0.1
    volume_ratio: float = 1.2
    length: float = 0.2
    angle: float = 5.0
    site: float = 0.3
    most_atoms: int = 200
    most_sites: int = 3000

    @property
    def close(self) -> float:
        """Angstrom; where all sites and vectors of the cell lie closer, crystals are the same without a space group.

        A fifth of `symprec`: space groups differ then only where a distortion is just about `symprec`.
        """
        return 0.2 * self.symprec

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
    progress: Progress | None = None,
) -> Same:
    """For each structure the first one in `order` that is the same crystal.

    Args:
        structures: n of them.
        order: (n,) rows, those to be kept first.
        seconds: that comparing may take; it is looked at between structures.
        tolerances: within which two are the same.
        progress: is told, structure by structure, how many of those whose formula comes more than once are done; by
            default the log is told now and then.
    """
    order = np.arange(len(structures)) if order is None else order
    deadline = time.monotonic() + seconds
    of = np.arange(len(structures), dtype=np.int64)
    groups: dict[str, list[int]] = defaultdict(list)
    for row in order.tolist():
        groups[structures.formulas[row]].append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    total, done = sum(map(len, repeated)), 0
    tell = ProgressLog("compared for the same crystal") if progress is None else progress
    left_out: list[int] = []
    for rows in repeated:
        known = KnownCrystals(tolerances)
        for row in rows:
            crystal = prepare(structures, row, tolerances) if time.monotonic() < deadline else None
            if crystal is None:
                left_out.append(row)
            else:
                match = known.find(crystal)
                of[row] = row if match is None else match
                if match is None:
                    known.add(crystal)
            done += 1
            tell(done, total)
    return Same(of, tuple(sorted(left_out)))


class ProgressLog:
    """Writes into the log how far something is, at most every `LOG_SECONDS`; nothing where it is done before."""

    def __init__(self, what: str) -> None:
        """Start the clock.

        Args:
            what: follows the number of structures, e.g. "compared".
        """
        self._what, self._last = what, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Say so, if it is time."""
        if time.monotonic() - self._last >= LOG_SECONDS:
            self._last = time.monotonic()
            logging.getLogger(__name__).info("%d of %d structures %s", done, total, self._what)


@dataclass
class SpaceGroup:
    """The space group of a structure, found when it is asked for.

    Attributes:
        cell: primitive, so that no more sites than needed are looked at.
        symprec: Angstrom.
    """

    cell: PrimitiveCell
    symprec: float

    @cached_property
    def number(self) -> int:
        """International number by spglib, of mirror images that of the first; 0 where none was found."""
        kinds = np.repeat(np.arange(1, len(self.cell.start)), np.diff(self.cell.start))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                cell: Any = (self.cell.lattice, self.cell.frac, kinds)
                found = spglib.get_symmetry_dataset(cell, symprec=self.symprec)
            except Exception:  # newer versions raise where older ones gave None
                found = None
        number = 0 if found is None else int(found.number)
        return _MIRRORED.get(number, number)


@dataclass(frozen=True)
class Prepared:
    """A crystal ready to be compared.

    Attributes:
        row: what it is called.
        structures: a batch of one.
        volume: cubic Angstrom an atom.
        cell: its primitive cell.
        symmetry: its space group, shared by whatever this is renamed to.
    """

    row: int
    structures: Structures
    volume: float
    cell: PrimitiveCell
    symmetry: SpaceGroup

    @property
    def space_group(self) -> int:
        """International number, of mirror images that of the first; 0 where none was found."""
        return self.symmetry.number

    @cached_property
    def primitive(self) -> Structure:
        """Its primitive cell for pymatgen, where there are no compiled loops."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.structures.to_pymatgen()[0].get_primitive_structure()


def prepare(structures: Structures, row: int, tolerances: Tolerances = TOLERANCES) -> Prepared | None:
    """One structure of a batch; None where it is too large to be compared."""
    if structures.n_atoms[row] > tolerances.most_sites:
        return None
    one = _one(structures, row)
    cell = primitive_cell(one, tolerances.symprec)
    if len(cell.frac) > tolerances.most_atoms:
        return None
    volume = abs(float(np.linalg.det(one.lattice[0]))) / int(one.n_atoms[0])
    return Prepared(row, one, volume, cell, SpaceGroup(cell, tolerances.symprec))


def _one(structures: Structures, row: int) -> Structures:
    """A batch of one, without the detours of `take`."""
    sites = slice(int(structures.offsets[row]), int(structures.offsets[row + 1]))
    return Structures(
        structures.material_id[row : row + 1],
        structures.lattice[row : row + 1],
        structures.n_atoms[row : row + 1],
        structures.numbers[sites],
        structures.frac[sites],
        structures.occupancy[sites] if structures.occupancy is not None and structures.disordered[row] else None,
    )


@dataclass
class KnownCrystals:
    """Crystals of one formula.

    Attributes:
        tolerances: within which another is the same.
    """

    tolerances: Tolerances = TOLERANCES
    _crystals: list[Prepared] = field(default_factory=list)

    @cached_property
    def _kernel(self) -> Any:
        return compiled_module("structures.overlay_kernel")

    @cached_property
    def _matcher(self) -> StructureMatcher:
        return self.tolerances.matcher()

    def add(self, crystal: Prepared) -> None:
        """Put one more in."""
        self._crystals.append(crystal)

    def find(self, crystal: Prepared) -> int | None:
        """Row of the first that is the same crystal."""
        ratio = self.tolerances.volume_ratio
        for other in self._crystals:
            # Cheap differences first. The matcher's own scaling would hide the volume.
            if other.volume > ratio * crystal.volume or crystal.volume > ratio * other.volume:
                continue
            if crystal.cell.sites != other.cell.sites:
                continue
            if self._same(crystal, other):
                return other.row
        return None

    def _same(self, crystal: Prepared, other: Prepared) -> bool:
        """Whether primitive cells of the same sites are the same crystal."""
        if self._kernel is None:
            alike = crystal.space_group == other.space_group
            return alike and bool(self._matcher.fit(crystal.primitive, other.primitive))
        if self._overlay(crystal.cell, other.cell, self.tolerances.close):
            return True
        # A pair of small cells is laid on each other in less time than one space group takes; of large ones the space
        # groups, each found once, tell most apart.
        n_trials = int(crystal.cell.start[1]) * len(crystal.cell.frac)
        if n_trials > QUICK and crystal.space_group != other.space_group:
            return False
        return self._overlay(crystal.cell, other.cell, np.inf) and crystal.space_group == other.space_group

    def _overlay(self, one: PrimitiveCell, two: PrimitiveCell, within: float) -> bool:
        """Whether they can be laid on each other within the tolerances, and nothing off by more Angstrom than this."""
        limits = (self.tolerances.length, self.tolerances.angle, self.tolerances.site, within)
        return bool(self._kernel.overlay(one.lattice, one.frac, two.lattice, two.frac, one.start, *limits))


class CrystalsByFormula:
    """The crystals of a batch, each prepared once, when the first of its formula is asked for."""

    def __init__(self, structures: Structures, seconds: float = 600.0) -> None:
        """Look at the formulas only.

        Args:
            structures: n of them.
            seconds: after the first `find` that it compares; `not_compared` counts what came later.
        """
        self.structures = structures
        self.not_compared = 0
        self._seconds = seconds
        self._deadline: float | None = None
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
        """Row of the first that is the same crystal as one of another batch; None also for one that isn't compared."""
        formula = str(structures.formulas[row])
        if formula not in self._rows:
            return None
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        crystal = prepare(structures, row) if time.monotonic() < self._deadline else None
        if crystal is None:
            self.not_compared += 1
            return None
        return self.of(formula).find(crystal)
