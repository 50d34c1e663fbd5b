"""Structures of a source in blocks, so that a file of any size takes the memory of one block.

Only Parquet with columns lattice, Z and frac can be read so; any other source is read whole and then cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.entries import ID_NAMES
from atomsets_core.sources.files.formats import PARQUET
from atomsets_core.sources.pull import pull
from atomsets_core.storage import Digests, check_parquet, position, probe_file
from atomsets_core.structures import STRUCTURE_COLUMNS, Refusal, Structures, empty_structures, from_arrow

BLOCK = 2048
"""Entries in a block."""

NEVER_WHOLE = 1 << 60
"""Bytes that a table may take which is never in memory as a whole."""

MADE = ("material_id", "structure_hash", "n_atoms", "formula")
"""Columns that are made of the structures, whatever a file says."""


@dataclass(frozen=True)
class Block:
    """Some entries of a source, in its order.

    Attributes:
        structures: those that could be read.
        refused: one row for each other one.
        columns: further columns of those that could be read; none unless they were asked for.
    """

    structures: Structures
    refused: list[Refusal]
    columns: pa.Table = field(default_factory=lambda: pa.table({}))


@dataclass
class Seen:
    """Which texts came before: 16 bytes each, in sorted arrays of which each is longer than twice the next.

    So there are no more arrays than the logarithm of the texts, and remembering n texts takes n log n steps.

    Attributes:
        known: (k,) ascending digests each.
    """

    known: list[Digests] = field(default_factory=list)

    def new(self, texts: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
        """(n,) whether each text comes for the first time; remembers them all."""
        keys = np.array([hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts], dtype="S16")
        out = np.zeros(len(keys), dtype=bool)
        own, first = np.unique(keys, return_index=True)
        for known in self.known:
            fresh = position(own, known) < 0
            own, first = own[fresh], first[fresh]
        out[first] = True
        self.known.append(own)
        while len(self.known) > 1 and len(self.known[-2]) <= 2 * len(self.known[-1]):
            self.known[-2:] = [np.sort(np.concatenate(self.known[-2:]))]
        return out


def read_blocks(
    source: str, id_column: str = "material_id", size: int = BLOCK, columns: bool = False
) -> tuple[int, Iterator[Block]]:
    """A source in blocks; an identifier that came before is refused, as `pull` does.

    Args:
        source: see `pull`.
        id_column: of identifiers.
        size: entries in a block.
        columns: hand over the columns beside the structures too; of a table alone, see `is_table`.

    Returns:
        Number of entries the source holds, and its blocks.

    Raises:
        SourceError: the source can't be read at all.
    """
    if is_table(source):
        # buffered, since whoever wrote it may have put everything into one part
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
        try:
            most = check_parquet(file, Path(source).stat().st_size, largest=NEVER_WHOLE)
        except ValueError as error:
            raise SourceError(f"{source}: {error}") from error
        return file.metadata.num_rows, _table_blocks(file, id_column, min(size, most), columns)
    pulled = pull(source, id_column=id_column)
    return pulled.n_seen, _cut(pulled.structures, pulled.refused, size)


def is_table(source: str) -> bool:
    """Whether the source is a Parquet file with structure columns; a damaged one is left to `pull` to describe."""
    path = Path(source)
    if path.suffix.lower() not in PARQUET.suffixes or not path.is_file():
        return False
    try:
        probe_file(path)
        return set(STRUCTURE_COLUMNS) <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError):
        return False


def _table_blocks(file: pq.ParquetFile, id_column: str, size: int, with_columns: bool) -> Iterator[Block]:
    names = file.schema_arrow.names
    used = next((name for name in (id_column, *ID_NAMES) if name in names), "")
    own = [name for name in (*STRUCTURE_COLUMNS, "occupancy") if name in names]
    other = [name for name in names if name not in {*own, used, *MADE}] if with_columns else []
    seen, first = Seen(), 0
    for batch in file.iter_batches(size, columns=[*([used] if used else []), *own, *other]):
        present = batch.column(used).to_pylist() if used else [None] * len(batch)
        ids = [str(first + i) if name is None else str(name) for i, name in enumerate(present)]
        first += len(batch)
        columns = {name: batch.column(name) for name in own}
        try:
            structures, rows, refused = from_arrow(pa.table({"material_id": pa.array(ids, pa.string()), **columns}))
        except (ValueError, pa.ArrowException) as error:
            raise SourceError(f"lattice, Z and frac must be lists of numbers: {error}") from error
        new = seen.new(structures.material_id)
        repeated = [
            Refusal(str(name), "pull", "duplicate id: an earlier entry has it too, and that one was kept")
            for name in structures.material_id[~new]
        ]
        beside = pa.Table.from_batches([batch.select(other)]).take(rows[new]) if other else pa.table({})
        yield Block(structures.take(np.flatnonzero(new)), [*refused, *repeated], beside)


def _cut(structures: Structures, refused: list[Refusal], size: int) -> Iterator[Block]:
    yield Block(empty_structures(), refused)
    for start in range(0, len(structures), size):
        yield Block(structures.take(np.arange(start, min(start + size, len(structures)))), [])
