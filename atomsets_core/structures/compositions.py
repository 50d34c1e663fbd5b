"""Compositions as columns: the elements of a material and their fractions, without a structure.

To everything after it a composition is a structure whose sites are its elements, each weighing its fraction. Formula
strings, pymatgen Compositions and structures (disordered ones too) can be made one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pymatgen.core import Composition, Element, Structure

from atomsets_core.storage import with_units
from atomsets_core.structures.batch import (
    FRACTIONS,
    LARGEST_ATOMIC_NUMBER,
    IntArray,
    Refusal,
    Structures,
    formula_of,
    list_array,
    ragged_rows,
)
from atomsets_core.structures.formulas import parse_formula, plain_amounts

Formula = str | Composition | Structure
"""What a composition can be made of."""


@dataclass(frozen=True)
class Compositions:
    """A batch of compositions.

    Attributes:
        material_id: (n,) object array of str, the identifiers.
        n_elements: (n,) int64, elements of each composition.
        numbers: (n_elements.sum(),) int64, atomic numbers in ascending order, composition after composition.
        fractions: (n_elements.sum(),) float64, atomic fractions; those of a composition add up to 1.
    """

    material_id: npt.NDArray[np.object_]
    n_elements: IntArray
    numbers: IntArray
    fractions: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        n, total = len(self.material_id), int(self.n_elements.sum()) if len(self.n_elements) else 0
        shapes = (self.n_elements.shape, self.numbers.shape, self.fractions.shape)
        if shapes != ((n,), (total,), (total,)):
            raise ValueError(f"inconsistent batch of {n} compositions and {total} elements: shapes {shapes}")

    def __len__(self) -> int:
        return len(self.material_id)

    @property
    def n_atoms(self) -> IntArray:
        """(n,) int64: rows of each composition, under the name that structures and features have for it."""
        return self.n_elements

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """(n_elements.sum(),) float32: the fractions, under the name that structures have for it."""
        return self.fractions.astype(np.float32)

    @cached_property
    def offsets(self) -> IntArray:
        """(n + 1,) int64: elements of composition i are rows offsets[i]:offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.n_elements)]).astype(np.int64)

    @cached_property
    def hashes(self) -> npt.NDArray[np.object_]:
        """(n,) str, 32 hex digits: content hash of elements and fractions (1e-9)."""
        fractions = np.round(self.fractions * 1e9).astype(np.int64)
        out = np.empty(len(self), dtype=object)
        for i, (start, stop) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            digest = hashlib.blake2b(b"composition", digest_size=16)
            digest.update(self.numbers[start:stop].astype(np.int64).tobytes())
            digest.update(fractions[start:stop].tobytes())
            out[i] = digest.hexdigest()
        return out

    @cached_property
    def formulas(self) -> npt.NDArray[np.object_]:
        """(n,) str: reduced formulas, e.g. "Fe2O3", or fractions where no whole numbers fit."""
        out = np.empty(len(self), dtype=object)
        for i, (start, stop) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            out[i] = formula_of(self.numbers[start:stop].tolist(), self.fractions[start:stop].tolist())
        return out

    def holds(self, number: int) -> npt.NDArray[np.bool_]:
        """(n,) whether a composition has this element, given by its atomic number."""
        found = np.zeros(len(self), dtype=bool)
        found[np.repeat(np.arange(len(self)), self.n_elements)[self.numbers == number]] = True
        return found

    @property
    def elements(self) -> list[int]:
        """Atomic numbers of all elements there are, ascending."""
        return [int(number) for number in np.unique(self.numbers)]

    def take(self, indices: Sequence[int] | IntArray | npt.NDArray[np.bool_]) -> Compositions:
        """The compositions at these positions, in this order (positions, also from the end, or a boolean mask)."""
        chosen = np.asarray(indices)
        positions = np.arange(len(self))[chosen if chosen.dtype == bool else chosen.astype(np.int64)]
        rows = ragged_rows(self.offsets, positions)
        return Compositions(
            self.material_id[positions], self.n_elements[positions], self.numbers[rows], self.fractions[rows]
        )

    @staticmethod
    def concat(parts: Sequence[Compositions]) -> Compositions:
        """One batch after the other."""
        if not parts:
            return _batch([], [])
        return Compositions(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("material_id", "n_elements", "numbers", "fractions")
            )
        )

    @staticmethod
    def of(structures: Structures) -> Compositions:
        """What the structures are made of, partial occupancies counted."""
        owner = np.repeat(np.arange(len(structures)), structures.n_atoms)
        key, which = np.unique(owner * 256 + structures.numbers, return_inverse=True)
        amounts = np.bincount(which, structures.occupancy, minlength=len(key)).astype(np.float64)
        of_structure, numbers = key // 256, key % 256
        total = np.bincount(of_structure, amounts, minlength=len(structures))
        counts = np.bincount(of_structure, minlength=len(structures)).astype(np.int64)
        return Compositions(structures.material_id, counts, numbers.astype(np.int64), amounts / total[of_structure])

    def to_arrow(self) -> pa.Table:
        """Columns material_id, formula, n_elements, structure_hash, Z (uint8) and atomic_fraction (float64)."""
        table = pa.table(
            {
                "material_id": pa.array(self.material_id, pa.string()),
                "formula": pa.array(self.formulas, pa.string()),
                "n_elements": pa.array(self.n_elements, pa.int32()),
                "structure_hash": pa.array(self.hashes, pa.string()),
                "Z": list_array(self.numbers, self.offsets, pa.uint8()),
                FRACTIONS: list_array(self.fractions, self.offsets, pa.float64()),
            }
        )
        return with_units(table, {FRACTIONS: "1", "n_elements": "1", "Z": "1"})

    @staticmethod
    def from_arrow(table: pa.Table) -> Compositions:
        """The compositions of a table as `to_arrow` makes it; other columns are passed over.

        Raises:
            KeyError: a column is missing.
        """
        numbers, fractions = table["Z"], table[FRACTIONS]
        counts = np.array([len(row) for row in numbers], dtype=np.int64)
        return Compositions(
            np.array(table["material_id"].to_pylist(), dtype=object),
            counts,
            np.array([z for row in numbers.to_pylist() for z in row], dtype=np.int64),
            np.array([x for row in fractions.to_pylist() for x in row], dtype=np.float64),
        )


def from_formulas(items: Iterable[Any], ids: Sequence[str] | None = None) -> tuple[Compositions, list[Refusal]]:
    """A batch of those items that have a composition, and a refusal for each other one.

    Args:
        items: formula strings (amounts may be fractions: "Fe0.62C0.00095"), pymatgen Compositions or Structures.
        ids: identifiers; by default the position, as "0", "1", ...

    Returns:
        The accepted compositions in order, and the refusals.
    """
    names, found, refusals = [], [], []
    for position, item in enumerate(items):
        name = str(ids[position]) if ids is not None else str(position)
        try:
            found.append(amounts_of(item))
            names.append(name)
        except ValueError as error:
            refusals.append(Refusal(name, "parse", str(error)))
    return _batch(names, found), refusals


def as_compositions(
    items: Compositions | Structures | Iterable[Formula], ids: Sequence[str] | None = None
) -> Compositions:
    """A batch from anything that has a composition; all of it must be usable.

    Raises:
        ValueError: one of them is no composition; the message names it and says why.
    """
    if isinstance(items, Compositions):
        return items
    if isinstance(items, Structures):
        return Compositions.of(items)
    batch, refusals = from_formulas(items, ids)
    if refusals:
        raise ValueError(f"composition {refusals[0].material_id}: {refusals[0].reason}")
    return batch


def amounts_of(item: Any) -> dict[int, float]:
    """Atomic number -> amount in the formula as it is written, of anything that `from_formulas` takes.

    Raises:
        ValueError: it is no composition; the message says why.
    """
    if isinstance(item, Structure):
        item = item.composition
    if isinstance(item, str):
        if (plain := plain_amounts(item)) is not None:
            return plain
        item = parse_formula(item)
    if not isinstance(item, Composition):
        missing = item is None or item != item
        raise ValueError("no formula" if missing else f"not a composition but a {type(item).__name__}")
    amounts: dict[int, float] = {}
    for specie, amount in item.items():
        element = getattr(specie, "element", specie)
        if not np.isfinite(amount):  # first: pymatgen can't write it down
            raise ValueError(f"the amount of {getattr(specie, 'symbol', str(specie))} is {amount}")
        if not isinstance(element, Element) or not 1 <= element.Z <= LARGEST_ATOMIC_NUMBER:
            raise ValueError(f"unknown element {getattr(specie, 'symbol', str(specie))!r} in {item.formula!r}")
        if not amount > 0:
            raise ValueError(f"the amount of {element.symbol} is {amount}")
        amounts[element.Z] = amounts.get(element.Z, 0.0) + float(amount)
    if not amounts:
        raise ValueError("it holds no element")
    return amounts


def _batch(names: Sequence[str], found: Sequence[dict[int, float]]) -> Compositions:
    numbers: list[int] = []
    fractions: list[float] = []
    for amounts in found:
        order = sorted(amounts)
        values = [amounts[z] for z in order]
        # numpy adds up eight and more in another order, by which contents are known
        total = sum(values) if len(values) < 8 else float(np.array(values).sum())
        numbers += order
        fractions += [value / total for value in values]
    return Compositions(
        np.array(names, dtype=object),
        np.array([len(amounts) for amounts in found], dtype=np.int64),
        np.array(numbers, dtype=np.int64),
        np.array(fractions, dtype=np.float64),
    )
