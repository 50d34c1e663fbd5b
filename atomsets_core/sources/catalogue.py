"""A data set in a file: in memory are a line of each structure and the columns that are asked for.

A line takes some 90 bytes, a structure some thousands. Lines can be forgotten and are read again when they are needed,
so that a campaign over half a million candidates needs hardly more memory than one over a few thousand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Element

from atomsets_core.sources.base import Pulled
from atomsets_core.sources.columns import REPEATED, UNREAD
from atomsets_core.storage import Digests, StorageError, Store, digests
from atomsets_core.structures import (
    COMPOSITIONS,
    FRACTIONS,
    STRUCTURE_COLUMNS,
    STRUCTURES,
    Compositions,
    IntArray,
    Structures,
    from_arrow,
    kind_of_table,
    regrouped,
)

BLOCK = 4096
"""Structures read at a time."""

OWN = ("material_id", "structure_hash", "formula", "n_atoms", *STRUCTURE_COLUMNS, "occupancy", FRACTIONS)

Texts: TypeAlias = Any
"""(n,) strings in Arrow's layout, `pandas.arrays.ArrowStringArray`, without an object for each."""

_SYMBOL = re.compile(r"[A-Z][a-z]?")


@dataclass(frozen=True)
class Lines:
    """What a campaign knows of each structure without reading it.

    Attributes:
        material_id: (n,) identifiers.
        hashes: (n,) content hashes.
        formulas: (n,) reduced formulas.
        n_atoms: (n,) int64, sites; of compositions their elements, which stand for sites.
        kind: "structures" or "compositions".
    """

    material_id: Texts
    hashes: Texts
    formulas: Texts
    n_atoms: IntArray
    kind: str = STRUCTURES

    def __len__(self) -> int:
        return len(self.n_atoms)

    def take(self, rows: IntArray) -> Lines:
        """The lines at these positions."""
        return Lines(self.material_id[rows], self.hashes[rows], self.formulas[rows], self.n_atoms[rows], self.kind)

    @cached_property
    def _elements(self) -> tuple[IntArray, list[frozenset[str]]]:
        codes, formulas = pd.factorize(self.formulas)
        return codes, [frozenset(_SYMBOL.findall(formula)) for formula in formulas]

    @property
    def n_elements(self) -> IntArray:
        """(n,) different elements of each structure."""
        codes, sets = self._elements
        return np.array([len(elements) for elements in sets], dtype=np.int64)[codes]

    def holds(self, number: int) -> npt.NDArray[np.bool_]:
        """(n,) whether a structure has this element, given by its atomic number."""
        symbol = Element.from_Z(number).symbol
        codes, sets = self._elements
        return np.array([symbol in elements for elements in sets], dtype=bool)[codes]

    @property
    def elements(self) -> list[int]:
        """Atomic numbers of all elements there are, ascending."""
        symbols = frozenset[str]().union(*self._elements[1])
        return sorted(Element(symbol).Z for symbol in symbols)


@dataclass(frozen=True)
class Catalogue:
    """Some structures of a Parquet file as `write_catalogue` and `pull_into` leave it.

    Attributes:
        store: where the file lies.
        name: of the file.
        rows: (n,) their rows in the file, ascending.
    """

    store: Store
    name: str
    rows: IntArray
    _kept: list[Lines] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def open(cls, store: Store, name: str) -> Catalogue:
        """All structures of a file.

        Raises:
            StorageError: it doesn't exist or isn't Parquet.
        """
        lines = _read_lines(store, name)
        return cls(store, name, np.arange(len(lines)), [lines])

    @property
    def lines(self) -> Lines:
        """Lines of these structures; read when they are needed and kept until they are forgotten.

        Raises:
            StorageError: the file doesn't exist any more or is damaged.
        """
        if not self._kept:
            self._kept.append(_read_lines(self.store, self.name, self.rows))
        return self._kept[0]

    def digests(self) -> Digests:
        """(n,) content hashes as 16 bytes each, without the lines.

        Raises:
            StorageError: the file doesn't exist any more or is damaged.
        """
        return digests(_column(self.store, self.name, "structure_hash", self.rows))

    def forget(self) -> None:
        """Free the memory of the lines, for as long as nobody asks for them."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def material_id(self) -> Texts:
        """(n,) identifiers."""
        return self.lines.material_id

    @property
    def hashes(self) -> Texts:
        """(n,) content hashes."""
        return self.lines.hashes

    def take(self, positions: IntArray | npt.NDArray[np.bool_]) -> Catalogue:
        """Those at these positions, ascending, or where a mask is true."""
        chosen = np.arange(len(self))[positions]
        if len(chosen) == len(self):
            return self
        return replace(self, rows=self.rows[chosen], _kept=[lines.take(chosen) for lines in self._kept])

    @cached_property
    def schema(self) -> pa.Schema:
        """Schema of the file."""
        with self.store.open(self.name) as file:
            return pq.read_schema(file)

    @property
    def kind(self) -> str:
        """What the file holds, "structures" or "compositions"."""
        return kind_of_table(self.schema.names)

    @property
    def own(self) -> frozenset[str]:
        """Columns of the file that are made of the materials themselves, whatever a source has beside them."""
        return frozenset((*OWN, "n_elements") if self.kind == COMPOSITIONS else OWN)

    def columns(self, names: Iterable[str]) -> pd.DataFrame:
        """(n rows) columns of the source; those that it lacks are left out."""
        wanted = [name for name in dict.fromkeys(names) if name in self.schema.names]
        if not wanted:
            return pd.DataFrame(index=range(len(self)))
        table = self.store.read_table(self.name, wanted)
        return table.take(self.rows).to_pandas().reset_index(drop=True)

    def pulled(self, names: Iterable[str], source: str) -> Pulled[Lines]:
        """The lines with these columns; with all columns where one of them is missing, so that a message can list them.

        Args:
            names: of columns.
            source: what a message calls the data.
        """
        wanted = [*names, *(name for name in (UNREAD, REPEATED) if name in self.schema.names)]
        if not set(wanted) <= set(self.schema.names):
            wanted = [name for name in self.schema.names if name not in self.own]
        return Pulled(self.lines, self.columns(wanted), provenance={"name": source})

    def blocks(self, columns: Sequence[str] = ()) -> Iterator[tuple[IntArray, Any, pa.Table]]:
        """(k,) int64 positions, structures or compositions, and further columns, a block after the other.

        Raises:
            StorageError: the file holds something else than it did when it was opened.
        """
        needed = ("material_id", *STRUCTURE_COLUMNS, "occupancy", *([FRACTIONS] if self.kind == COMPOSITIONS else []))
        names = [name for name in needed if name in self.schema.names]
        with self.store.open(self.name) as stream:
            file = pq.ParquetFile(stream)
            sizes = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
            ends = np.cumsum(sizes)
            groups = [
                k for k, (end, size) in enumerate(zip(ends, sizes, strict=True)) if self._between(end - size, end).size
            ]
            row = 0
            for k in groups:
                row = int(ends[k] - sizes[k])
                for batch in file.iter_batches(BLOCK, row_groups=[k], columns=[*names, *columns]):
                    positions = self._between(row, row + len(batch))
                    if positions.size:
                        table = pa.Table.from_batches([batch]).take(self.rows[positions] - row)
                        yield positions, self._structures(table.select(names)), table.select(list(columns))
                    row += len(batch)

    def _between(self, start: int, stop: int) -> IntArray:
        """Positions whose rows lie from start to before stop."""
        first, last = np.searchsorted(self.rows, [start, stop])
        return np.arange(first, last)

    def _structures(self, table: pa.Table) -> Structures | Compositions:
        if self.kind == COMPOSITIONS:
            return Compositions.from_arrow(table)
        structures, _, refused = from_arrow(table)
        if refused:
            raise StorageError(
                f"{self.store.url(self.name)} is damaged: {refused[0].material_id}: {refused[0].reason}. Delete it and "
                "run again"
            )
        return structures

    def structures(self) -> Any:
        """All of them in memory, as `Structures` or `Compositions`."""
        kind = Compositions if self.kind == COMPOSITIONS else Structures
        return kind.concat([structures for _, structures, _ in self.blocks()])

    def groups(self, size: int) -> Iterator[Any]:
        """The structures or compositions in order, `size` at a time."""
        return regrouped((block for _, block, _ in self.blocks()), size)


def _read_lines(store: Store, name: str, rows: IntArray | None = None) -> Lines:
    identifiers = _column(store, name, "material_id", rows)  # first, since it says what is wrong with a file
    with store.open(name) as file:
        kind = kind_of_table(pq.read_schema(file).names)
    sites = "n_elements" if kind == COMPOSITIONS else "n_atoms"
    n_atoms = store.read_table(name, [sites])[sites].to_numpy().astype(np.int64)
    return Lines(
        identifiers,
        _column(store, name, "structure_hash", rows),
        _column(store, name, "formula", rows),
        n_atoms if rows is None else n_atoms[rows],
        kind,
    )


def _column(store: Store, name: str, column: str, rows: IntArray | None) -> Texts:
    """One column of texts; one at a time, since it is held twice while its pieces become one."""
    texts = store.read_table(name, [column])[column]
    if rows is not None and len(rows) < len(texts):
        texts = texts.take(pa.array(rows))
    return pd.array(texts.combine_chunks(), dtype="str")


def read(structures: Structures | Catalogue) -> Any:
    """In memory, if they aren't yet."""
    return structures.structures() if isinstance(structures, Catalogue) else structures


def write_catalogue(store: Store, name: str, tables: Iterable[pa.Table]) -> int:
    """Write a file block by block; the rows written.

    Args:
        store: of the file.
        name: of the file.
        tables: all of one schema, one at least, as `Pulled.to_arrow` makes them.

    Raises:
        StorageError: it can't be written.
    """
    n = 0
    with store.replacing(name) as file:
        writer: pq.ParquetWriter | None = None
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
                writer.write_table(table, row_group_size=BLOCK)
                n += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    return n


def rewrite(catalogue: Catalogue, name: str | None = None) -> None:
    """Write the file with the catalogue's rows alone."""

    def kept() -> Iterator[pa.Table]:
        with catalogue.store.open(catalogue.name) as stream:
            row = 0
            for batch in pq.ParquetFile(stream).iter_batches(BLOCK):
                first, last = np.searchsorted(catalogue.rows, [row, row + len(batch)])
                table = pa.Table.from_batches([batch])
                yield cast(pa.Table, table.take(catalogue.rows[first:last] - row))
                row += len(batch)

    write_catalogue(catalogue.store, name or catalogue.name, kept())
