"""Crystal structures as columns: a ragged batch that goes to and from Parquet without an object a structure.

Everything downstream (graphs, parents, shards, sources) works on `Structures`; pymatgen objects appear only at
the edge, where people hand them in.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pymatgen.core import Composition, Element, Lattice, Structure

from atomsets_core.storage import STRUCTURE, with_units

FloatArray = npt.NDArray[np.floating[Any]]

IntArray = npt.NDArray[np.integer[Any]]

STRUCTURE_COLUMNS = ("lattice", "Z", "frac")


@dataclass(frozen=True)
class Refusal:
    """One structure or label that could not be used: a row of the failure ledger.

    Attributes:
        material_id: identifier of the structure in its source.
        stage: where it was refused: "pull", "parse", "validate", "label", "featurize", ...
        reason: one sentence that says what is wrong.
        structure_hash: content hash where the structure could be read, else "".
    """

    material_id: str
    stage: str
    reason: str
    structure_hash: str = ""


@dataclass(frozen=True)
class Structures:
    """A batch of periodic crystal structures.

    A site with partial occupancy is one row for each element on it. Such structures have a composition but no graph:
    levels of the element alone are all that can be computed of them.

    Attributes:
        material_id: (n,) object array of str, the identifiers.
        lattice: (n, 3, 3) float64, rows are the lattice vectors a, b, c in Angstrom.
        n_atoms: (n,) int64, sites of each structure.
        numbers: (n_atoms.sum(),) int64, atomic numbers, structure after structure.
        frac: (n_atoms.sum(), 3) float64, fractional coordinates.
        occupancy: (n_atoms.sum(),) float64, share of the site that the element has; None where all are 1.
    """

    material_id: npt.NDArray[np.object_]
    lattice: FloatArray
    n_atoms: IntArray
    numbers: IntArray
    frac: FloatArray
    occupancy: FloatArray | None = None

    def __post_init__(self) -> None:
        n, total = len(self.material_id), int(self.n_atoms.sum()) if len(self.n_atoms) else 0
        shapes = (self.lattice.shape, self.n_atoms.shape, self.numbers.shape, self.frac.shape)
        if shapes != ((n, 3, 3), (n,), (total,), (total, 3)):
            raise ValueError(f"inconsistent batch of {n} structures and {total} sites: shapes {shapes}")
        if self.occupancy is not None and self.occupancy.shape != (total,):
            raise ValueError(f"{len(self.occupancy)} occupancies for {total} sites")

    def __len__(self) -> int:
        return len(self.material_id)

    @cached_property
    def offsets(self) -> IntArray:
        """(n + 1,) int64: sites of structure i are rows offsets[i]:offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    @property
    def shares(self) -> FloatArray:
        """(n_atoms.sum(),) float64: the occupancies, 1 where none are given."""
        return np.ones(len(self.numbers)) if self.occupancy is None else self.occupancy

    @cached_property
    def disordered(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a structure has a site with partial occupancy."""
        found = np.zeros(len(self), dtype=bool)
        if self.occupancy is not None:
            owner = np.repeat(np.arange(len(self)), self.n_atoms)
            found[owner[self.occupancy != 1]] = True
        return found

    @property
    def weights(self) -> npt.NDArray[np.float32] | None:
        """(n_atoms.sum(),) float32 weight of each row in its structure; None where all are 1."""
        return self.shares.astype(np.float32) if self.disordered.any() else None

    @cached_property
    def hashes(self) -> npt.NDArray[np.object_]:
        """(n,) str, 32 hex digits: content hash of lattice and sites (1e-6 Angstrom, 1e-6 fractional).

        Two structures with the same hash have the same sites in the same order in the same cell; the identifier
        plays no part. Equivalent descriptions of one crystal (another cell, another order) hash differently.
        """
        with np.errstate(invalid="ignore"):
            cell = np.round(np.nan_to_num(self.lattice) * 1e6).astype(np.int64)
            frac = np.round(np.nan_to_num(self.frac) * 1e6).astype(np.int64) % 1_000_000
        # Bytes of all structures at once: an array of each one's own costs more than its hash.
        cells, numbers, places = cell.tobytes(), self.numbers.astype(np.int64).tobytes(), frac.tobytes()
        disordered = set(np.flatnonzero(self.disordered).tolist())
        out = np.empty(len(self), dtype=object)
        for i, (start, stop) in enumerate(itertools.pairwise(self.offsets.tolist())):
            text = cells[72 * i : 72 * i + 72] + numbers[8 * start : 8 * stop] + places[24 * start : 24 * stop]
            if i in disordered:
                text += np.round(self.shares[start:stop] * 1e6).astype(np.int64).tobytes()
            out[i] = hashlib.blake2b(text, digest_size=16).hexdigest()
        return out

    @cached_property
    def formulas(self) -> npt.NDArray[np.object_]:
        """(n,) str: reduced formulas, e.g. "Fe2O3"."""
        out = np.empty(len(self), dtype=object)
        owner = np.repeat(np.arange(len(self)), self.n_atoms)
        # Atoms of each element of each structure, element after element, structure after structure.
        keys, counts = np.unique(owner * 256 + np.clip(self.numbers, 0, 255), return_counts=True)
        starts = np.searchsorted(keys, np.arange(len(self) + 1) * 256).tolist()
        elements, amounts = (keys % 256).tolist(), counts.tolist()
        for i, (start, stop) in enumerate(itertools.pairwise(starts)):
            amount = amounts[start:stop]
            divisor = math.gcd(*amount)
            out[i] = reduced_formula(tuple(elements[start:stop]), tuple([count // divisor for count in amount]))
        for row in np.flatnonzero(self.disordered):
            rows = slice(self.offsets[row], self.offsets[row + 1])
            present, which = np.unique(self.numbers[rows], return_inverse=True)
            out[row] = formula_of(present.tolist(), np.bincount(which, self.shares[rows]).tolist())
        return out

    @property
    def n_elements(self) -> IntArray:
        """(n,) different elements of each structure."""
        owner = np.repeat(np.arange(len(self)), self.n_atoms)
        pairs = np.unique(np.column_stack([owner, self.numbers]), axis=0)
        return np.bincount(pairs[:, 0], minlength=len(self)).astype(np.int64)

    def holds(self, number: int) -> npt.NDArray[np.bool_]:
        """(n,) whether a structure has this element, given by its atomic number."""
        out = np.zeros(len(self), dtype=bool)
        out[np.repeat(np.arange(len(self)), self.n_atoms)[self.numbers == number]] = True
        return out

    @property
    def elements(self) -> list[int]:
        """Atomic numbers of all elements there are, ascending."""
        return [int(number) for number in np.unique(self.numbers)]

    def take(self, indices: Sequence[int] | IntArray) -> Structures:
        """The structures at these positions, in this order (positions, also from the end, or a boolean mask)."""
        chosen = np.asarray(indices)
        positions = np.arange(len(self))[chosen if chosen.dtype == bool else chosen.astype(np.int64)]
        rows = ragged_rows(self.offsets, positions)
        return Structures(
            self.material_id[positions],
            self.lattice[positions],
            self.n_atoms[positions],
            self.numbers[rows],
            self.frac[rows],
            None if self.occupancy is None else self.occupancy[rows],
        )

    @staticmethod
    def concat(parts: Sequence[Structures]) -> Structures:
        """One batch after the other."""
        if not parts:
            return empty_structures()
        mixed = any(part.occupancy is not None for part in parts)
        return Structures(
            np.concatenate([part.material_id for part in parts]),
            np.concatenate([part.lattice for part in parts]),
            np.concatenate([part.n_atoms for part in parts]),
            np.concatenate([part.numbers for part in parts]),
            np.concatenate([part.frac for part in parts]),
            np.concatenate([part.shares for part in parts]) if mixed else None,
        )

    def to_pymatgen(self) -> list[Structure]:
        """One pymatgen Structure each."""
        return [
            self._disordered_structure(i)
            if self.disordered[i]
            else Structure(Lattice(cell), self.numbers[start:stop].tolist(), self.frac[start:stop])
            for i, (cell, start, stop) in enumerate(zip(self.lattice, self.offsets[:-1], self.offsets[1:], strict=True))
        ]

    def _disordered_structure(self, i: int) -> Structure:
        rows = slice(self.offsets[i], self.offsets[i + 1])
        sites: dict[tuple[float, ...], dict[Element, float]] = {}
        for z, place, share in zip(self.numbers[rows], self.frac[rows], self.shares[rows], strict=True):
            on_site = sites.setdefault(tuple(place), {})
            on_site[Element.from_Z(int(z))] = on_site.get(Element.from_Z(int(z)), 0.0) + float(share)
        return Structure(Lattice(self.lattice[i]), list(sites.values()), list(sites))

    def to_arrow(self, occupancy: bool = False) -> pa.Table:
        """Columns material_id, formula, n_atoms, structure_hash, lattice (9 float64), Z (uint8), frac (3 n float64).

        With partial occupancy, or where it is asked for, also occupancy (n float64).
        """
        offsets = self.offsets
        written = occupancy or self.disordered.any()
        shares = {"occupancy": list_array(self.shares, offsets, pa.float64())} if written else {}
        table = pa.table(
            {
                "material_id": pa.array(self.material_id, pa.string()),
                "formula": pa.array(self.formulas, pa.string()),
                "n_atoms": pa.array(self.n_atoms, pa.int32()),
                "structure_hash": pa.array(self.hashes, pa.string()),
                "lattice": list_array(self.lattice.reshape(-1), 9 * np.arange(len(self) + 1), pa.float64()),
                "Z": list_array(self.numbers, offsets, pa.uint8()),
                "frac": list_array(self.frac.reshape(-1), 3 * offsets, pa.float64()),
                **shares,
            }
        )
        return with_units(table, STRUCTURE)


STRUCTURES, COMPOSITIONS = "structures", "compositions"
"""The kinds of materials that tables of this package hold."""

FRACTIONS = "atomic_fraction"
"""Column of the atomic fractions in tables of compositions; tables of structures have none of this name."""


def kind_of_table(names: Iterable[str]) -> str:
    """What a table of this package with columns of these names holds: `STRUCTURES` or `COMPOSITIONS`."""
    present = set(names)
    return COMPOSITIONS if FRACTIONS in present and "lattice" not in present else STRUCTURES


class Groupable(Protocol):
    """What `regrouped` needs of structures or compositions."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def take(self, indices: IntArray) -> Any:
        """Those at these positions."""
        ...

    @staticmethod
    def concat(parts: Sequence[Any]) -> Any:
        """One batch after the other."""
        ...


Group = TypeVar("Group", bound=Groupable)


def regrouped(parts: Iterable[Group], size: int) -> Iterator[Group]:
    """The structures or compositions of all parts in order, `size` at a time; the last group may be smaller."""
    waiting: list[Group] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) < size:
            continue
        joined = part.concat(waiting)
        full = len(joined) // size * size
        for start in range(0, full, size):
            yield joined.take(np.arange(start, start + size))
        waiting = [joined.take(np.arange(full, len(joined)))]
    if waiting and len(rest := waiting[0].concat(waiting)):
        yield rest


def empty_structures() -> Structures:
    """A batch of none."""
    return Structures(
        np.empty(0, dtype=object),
        np.empty((0, 3, 3)),
        np.empty(0, dtype=np.int64),
        np.empty(0, dtype=np.int64),
        np.empty((0, 3)),
    )


def ragged_rows(offsets: IntArray, indices: IntArray) -> IntArray:
    """Row numbers of the ragged items at `indices`, item after item.

    Args:
        offsets: (n + 1,) where item i holds rows offsets[i]:offsets[i + 1].
        indices: (m,) items wanted.

    Returns:
        (sum of the lengths,) int64.
    """
    lengths = offsets[indices + 1] - offsets[indices]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(offsets[indices] - (ends - lengths), lengths)


def list_array(values: npt.NDArray[Any], offsets: IntArray, kind: pa.DataType) -> pa.LargeListArray:
    """An Arrow large_list column from flat values and (n + 1,) offsets."""
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values).cast(kind))


LARGEST_ATOMIC_NUMBER = 118

LARGEST_MULTIPLE = 24
"""Fractional amounts that become whole when multiplied by a number up to this are written as whole numbers."""


def formula_of(elements: Sequence[int], amounts: Sequence[float]) -> str:
    """Reduced formula of any amounts, e.g. "FeCo" of 0.5 and 0.5, "Fe0.9901C0.0099" where no whole numbers fit.

    Args:
        elements: atomic numbers, each once.
        amounts: positive, on any scale.
    """
    total = sum(amounts)
    for multiple in range(1, LARGEST_MULTIPLE + 1):
        counts = [amount * multiple for amount in amounts]
        if all(abs(count - round(count)) < 1e-6 * multiple and round(count) for count in counts):
            whole = [round(count) for count in counts]
            divisor = math.gcd(*whole)
            return reduced_formula(tuple(elements), tuple(count // divisor for count in whole))
    known = _electronegativity()
    # Noble gases have no electronegativity; they go last.
    order = sorted(
        zip(elements, amounts, strict=True), key=lambda item: (known[item[0]][0] != known[item[0]][0], known[item[0]])
    )
    return "".join(f"{known[z][1]}{amount / total:.6g}" for z, amount in order)


@lru_cache(maxsize=4096)
def reduced_formula(elements: tuple[int, ...], counts: tuple[int, ...]) -> str:
    """Pymatgen's reduced formula, in a twentieth of its time for the usual case."""
    if not elements or min(elements) < 1 or max(elements) > LARGEST_ATOMIC_NUMBER:
        return "?"
    places, symbols, values, without = _by_electronegativity()
    if not without.isdisjoint(elements) or (len(elements) < 3 and max(counts) == 1):
        # Noble gases have no electronegativity to sort by; O2, Na2O2 and their like are exceptions.
        return _composition(elements, counts).reduced_formula
    order = sorted([(places[z], count) for z, count in zip(elements, counts, strict=True)])
    anion = ""
    if len(order) > 2:
        (last, n_last), (before, n_before) = order[-1], order[-2]
        if values[last] - values[before] < 1.65 and (groups := math.gcd(n_last, n_before)) > 1:
            anion = f"({_written(symbols, [(before, n_before // groups), (last, n_last // groups)])}){groups}"
            order = order[:-2]
    return _written(symbols, order) + anion


def _composition(elements: Sequence[int], counts: Sequence[int]) -> Composition:
    return Composition({Element.from_Z(z): count for z, count in zip(elements, counts, strict=True)})


def _written(symbols: Sequence[str], order: Sequence[tuple[int, int]]) -> str:
    return "".join([f"{symbols[place]}{count}" if count > 1 else symbols[place] for place, count in order])


@lru_cache(maxsize=1)
def _by_electronegativity() -> tuple[list[int], list[str], list[float], frozenset[int]]:
    """Elements in the order of electronegativity and symbol.

    Returns:
        The place of each atomic number, symbol and electronegativity at each place, and the atomic numbers without one.
    """
    known = _electronegativity()
    without = frozenset(z for z in range(1, len(known)) if known[z][0] != known[z][0])
    order = sorted((z for z in range(1, len(known)) if z not in without), key=lambda z: known[z])
    places = [0] * len(known)
    for place, z in enumerate(order):
        places[z] = place
    return places, [known[z][1] for z in order], [known[z][0] for z in order], without


@lru_cache(maxsize=1)
def _electronegativity() -> list[tuple[float, str]]:
    """Pauling's value (NaN where there is none) and symbol of each element, by atomic number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        elements = [Element.from_Z(z) for z in range(1, LARGEST_ATOMIC_NUMBER + 1)]
        return [(0.0, "?"), *((float(element.X), element.symbol) for element in elements)]
