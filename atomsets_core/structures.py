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
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pymatgen.core import Element, Lattice, Structure

from atomsets_core.formulas import LARGEST_ATOMIC_NUMBER, formula_of, reduced_formula
from atomsets_core.units import STRUCTURE, with_units

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
        numbers = self.numbers.astype(np.int64)
        out = np.empty(len(self), dtype=object)
        for i, (start, stop) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            digest = hashlib.blake2b(cell[i].tobytes(), digest_size=16)
            digest.update(numbers[start:stop].tobytes())
            digest.update(frac[start:stop].tobytes())
            if self.disordered[i]:
                digest.update(np.round(self.shares[start:stop] * 1e6).astype(np.int64).tobytes())
            out[i] = digest.hexdigest()
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


def regrouped(parts: Iterable[Structures], size: int) -> Iterator[Structures]:
    """The structures of all parts in order, `size` at a time; the last group may be smaller."""
    waiting: list[Structures] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) < size:
            continue
        joined = Structures.concat(waiting)
        full = len(joined) // size * size
        for start in range(0, full, size):
            yield joined.take(np.arange(start, start + size))
        waiting = [joined.take(np.arange(full, len(joined)))]
    rest = Structures.concat(waiting)
    if len(rest):
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


def as_structures(items: Structures | Iterable[Structure], ids: Sequence[str] | None = None) -> Structures:
    """A batch from pymatgen structures, all of which must be usable.

    Raises:
        ValueError: one of them can't be represented or fails `validate`; the message names it and says why.
    """
    if isinstance(items, Structures):
        return items
    batch, refusals = from_pymatgen(items, ids)
    if refusals:
        raise ValueError(f"structure {refusals[0].material_id}: {refusals[0].reason}")
    return batch


def from_pymatgen(items: Iterable[Any], ids: Sequence[str] | None = None) -> tuple[Structures, list[Refusal]]:
    """A batch of those pymatgen structures that can be represented, and a refusal for each other one.

    Args:
        items: pymatgen Structure objects; anything else is refused with its type named.
        ids: identifiers; by default the position, as "0", "1", ...

    Returns:
        The accepted structures in order, and the refusals.
    """
    names, cells, counts, numbers, fracs = [], [], [], [], []
    shares: list[float] = []
    refusals = []
    for position, item in enumerate(items):
        name = str(ids[position]) if ids is not None else str(position)
        reason = _unrepresentable(item)
        if reason:
            refusals.append(Refusal(name, "parse", reason))
            continue
        names.append(name)
        cells.append(item.lattice.matrix)
        if item.is_ordered:
            counts.append(len(item))
            numbers.extend(item.atomic_numbers)
            shares.extend([1.0] * len(item))
            fracs.append(item.frac_coords)
            continue
        rows = [(site.frac_coords, specie.Z, share) for site in item for specie, share in site.species.items()]
        counts.append(len(rows))
        numbers.extend(z for _, z, _ in rows)
        shares.extend(share for _, _, share in rows)
        fracs.append(np.array([place for place, _, _ in rows]))
    if not names:
        return empty_structures(), refusals
    batch = Structures(
        np.array(names, dtype=object),
        np.array(cells, dtype=np.float64),
        np.array(counts, dtype=np.int64),
        np.array(numbers, dtype=np.int64),
        np.concatenate(fracs).astype(np.float64),
        np.array(shares) if any(share != 1 for share in shares) else None,
    )
    accepted, more = validate(batch)
    return accepted, refusals + more


def _unrepresentable(item: Any) -> str:
    """Why a pymatgen object can't become columns; "" when it can."""
    if not isinstance(item, Structure):
        return f"not a crystal structure but a {type(item).__name__}"
    if not len(item):
        return "it has no sites"
    for site in item:
        if not len(site.species):
            return "a site has no element"
        for specie in site.species:
            if not isinstance(getattr(specie, "element", specie), Element):
                return f"unknown element {site.species_string!r}"
    return ""


def partial_occupancy(structures: Structures, i: int) -> str:
    """Why a disordered structure has no graph."""
    rows = slice(structures.offsets[i], structures.offsets[i + 1])
    row = int(np.argmax(structures.shares[rows] != 1))
    symbol, share = Element.from_Z(int(structures.numbers[rows][row])).symbol, structures.shares[rows][row]
    return f"partial occupancy ({symbol}:{share:.3g}): only ordered structures have a graph"


def from_arrow(table: pa.Table, id_column: str = "material_id") -> tuple[Structures, IntArray, list[Refusal]]:
    """A batch from a table with columns lattice, Z and frac.

    Args:
        table: `lattice` holds 9 numbers (row vectors) or 6 (a, b, c in Angstrom, alpha, beta, gamma in degrees); `Z`
             the atomic numbers; `frac` the fractional coordinates, flattened; `occupancy`, where it is there, a share
             for each site.
        id_column: column of the identifiers; without it the position is the identifier.

    Returns:
        The accepted structures, their row numbers in the table, and a refusal for each other row.

    Raises:
        ValueError: a column is missing or has the wrong type.
    """
    missing = [name for name in STRUCTURE_COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(f"no column {missing[0]!r}: structures need lattice, Z and frac; found {table.column_names}")
    n = table.num_rows
    raw = table[id_column].to_pylist() if id_column in table.column_names else range(n)
    names = np.array([f"row {i}" if name is None else str(name) for i, name in enumerate(raw)], dtype=object)
    flat: dict[str, FloatArray] = {}
    lengths: dict[str, IntArray] = {}
    read = [*STRUCTURE_COLUMNS, *(["occupancy"] if _has_lists(table, "occupancy") else [])]
    for name in read:
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise ValueError(f"column {name!r} holds {column.type}, not lists of numbers")
        lengths[name] = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
        try:
            # unsafe: a whole number too long for a float is refused below, not an error of the whole table
            values = pc.list_flatten(column).cast(pa.float64(), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"column {name!r} holds {column.type}, not lists of numbers") from error
        flat[name] = np.asarray(pc.fill_null(values, np.nan), dtype=np.float64)

    starts = {name: np.concatenate([[0], np.cumsum(lengths[name])]).astype(np.int64) for name in read}
    per_cell, sites = lengths["lattice"], lengths["Z"]
    site_row = np.repeat(np.arange(n), sites)
    with np.errstate(invalid="ignore"):
        whole = np.asarray((np.abs(flat["Z"]) < 1e6) & (flat["Z"] % 1 == 0))
    reasons: dict[int, str] = {i: f"no {id_column}" for i, name in enumerate(raw) if name is None}
    for row in np.flatnonzero((per_cell != 6) & (per_cell != 9)):
        reasons.setdefault(int(row), f"lattice has {per_cell[row]} numbers, 6 or 9 are needed")
    for row in np.flatnonzero(sites == 0):
        reasons.setdefault(int(row), "it has no sites")
    for row in np.flatnonzero(lengths["frac"] != 3 * sites):
        reasons.setdefault(
            int(row), f"{lengths['frac'][row]} coordinates for {sites[row]} sites, {3 * sites[row]} are needed"
        )
    if "occupancy" in flat:
        _check_occupancy(flat["occupancy"], lengths["occupancy"], sites, reasons)
    for site in np.flatnonzero(~whole):
        number = flat["Z"][site]
        reasons.setdefault(
            int(site_row[site]),
            "an atomic number is missing" if np.isnan(number) else f"unknown element: atomic number {number:g}",
        )

    good = np.array([row for row in range(n) if row not in reasons], dtype=np.int64)
    cells = np.empty((len(good), 3, 3))
    nine = per_cell[good] == 9
    cells[nine] = flat["lattice"][ragged_rows(starts["lattice"], good[nine])].reshape(-1, 3, 3)
    cells[~nine] = lattice_vectors(flat["lattice"][ragged_rows(starts["lattice"], good[~nine])].reshape(-1, 6))
    batch = Structures(
        names[good],
        cells,
        sites[good],
        flat["Z"][ragged_rows(starts["Z"], good)].astype(np.int64),
        flat["frac"][ragged_rows(starts["frac"], good)].reshape(-1, 3),
        flat["occupancy"][ragged_rows(starts["occupancy"], good)] if "occupancy" in flat else None,
    )
    refusals = [Refusal(str(names[row]), "parse", reason) for row, reason in sorted(reasons.items())]
    mask, more = _check(batch)
    kept = np.flatnonzero(mask)
    return batch.take(kept), good[kept], refusals + more


def _has_lists(table: pa.Table, name: str) -> bool:
    kind = table.schema.field(name).type if name in table.column_names else pa.null()
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _check_occupancy(shares: FloatArray, lengths: IntArray, sites: IntArray, reasons: dict[int, str]) -> None:
    """A reason for each row whose occupancies are not one number above 0 and up to 1 for each site."""
    for row in np.flatnonzero(lengths != sites):
        reasons.setdefault(int(row), f"{lengths[row]} occupancies for {sites[row]} sites")
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for entry in np.flatnonzero(~((shares > 0) & (shares <= 1))):
        reasons.setdefault(int(owner[entry]), f"an occupancy is {shares[entry]:g}; it must be above 0 and up to 1")


def lattice_vectors(parameters: FloatArray) -> FloatArray:
    """Row vectors from cell parameters, in pymatgen's convention (c along z, a in the xz plane).

    Args:
        parameters: (n, 6): a, b, c in Angstrom and alpha, beta, gamma in degrees.

    Returns:
        (n, 3, 3) float64, NaN where a length is negative or the angles can't close a cell.
    """
    smallest, largest = np.array([0, 0, 0, 1e-9, 1e-9, 1e-9]), np.array([np.inf] * 3 + [180 - 1e-9] * 3)
    possible = np.all((parameters >= smallest) & (parameters <= largest), axis=1, keepdims=True)
    parameters = np.where(possible, parameters, np.nan)
    lengths, angles = parameters[:, :3], np.radians(parameters[:, 3:])
    cos, sin = np.cos(angles), np.sin(angles)
    with np.errstate(invalid="ignore", divide="ignore"):
        cos_gamma_star = (cos[:, 0] * cos[:, 1] - cos[:, 2]) / (sin[:, 0] * sin[:, 1])
        gamma_star = np.arccos(np.where(np.abs(cos_gamma_star) <= 1 + 1e-9, np.clip(cos_gamma_star, -1, 1), np.nan))
    zero = np.zeros(len(parameters))
    a = np.stack([lengths[:, 0] * sin[:, 1], zero, lengths[:, 0] * cos[:, 1]], axis=1)
    b = np.stack(
        [
            -lengths[:, 1] * sin[:, 0] * np.cos(gamma_star),
            lengths[:, 1] * sin[:, 0] * np.sin(gamma_star),
            lengths[:, 1] * cos[:, 0],
        ],
        axis=1,
    )
    c = np.stack([zero, zero, lengths[:, 2]], axis=1)
    return np.stack([a, b, c], axis=1)


def validate(batch: Structures) -> tuple[Structures, list[Refusal]]:
    """The structures that describe a crystal, and one reason for each that doesn't.

    Refused are: NaN or infinite lattice or coordinates, a cell without volume, an atomic number outside 1..118.
    """
    mask, refusals = _check(batch)
    return (batch if mask.all() else batch.take(np.flatnonzero(mask))), refusals


def _check(batch: Structures) -> tuple[npt.NDArray[np.bool_], list[Refusal]]:
    n = len(batch)
    owner = np.repeat(np.arange(n), batch.n_atoms)
    with np.errstate(invalid="ignore", over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = np.abs(np.linalg.det(np.nan_to_num(batch.lattice, posinf=0, neginf=0)))
        size = np.prod(np.linalg.norm(batch.lattice, axis=2), axis=1)
    bad_cell = ~np.asarray(np.isfinite(batch.lattice).all(axis=(1, 2)))
    flat_cell = ~bad_cell & ~(volume > 1e-6 * size)
    bad_site = np.zeros(n, dtype=bool)
    bad_site[owner[~np.isfinite(batch.frac).all(axis=1)]] = True
    wrong = np.asarray((batch.numbers < 1) | (batch.numbers > LARGEST_ATOMIC_NUMBER))
    bad_element = np.zeros(n, dtype=bool)
    bad_element[owner[wrong]] = True
    no_sites = batch.n_atoms == 0
    refusals = []
    for i in np.flatnonzero(bad_cell | flat_cell | bad_site | bad_element | no_sites):
        if no_sites[i]:
            reason = "it has no sites"
        elif bad_cell[i]:
            reason = "the lattice has a NaN or infinite entry, a negative length, or angles that close no cell"
        elif flat_cell[i]:
            reason = f"the cell has no volume ({volume[i]:.3g} cubic Angstrom)"
        elif bad_site[i]:
            reason = "a coordinate is NaN or infinite"
        else:
            sites = batch.numbers[batch.offsets[i] : batch.offsets[i + 1]]
            reason = f"unknown element: atomic number {int(sites[(sites < 1) | (sites > LARGEST_ATOMIC_NUMBER)][0])}"
        refusals.append(Refusal(str(batch.material_id[i]), "validate", reason))
    return ~(bad_cell | flat_cell | bad_site | bad_element | no_sites), refusals
