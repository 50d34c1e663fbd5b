"""From the blocks of a source to shards to be made: every content once, and an account of everything that came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources import Block
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal, Structures, from_arrow, regrouped


@dataclass
class Intake:
    """What came in so far. Holds 16 bytes of each content and a line of each entry, never a structure for long.

    Attributes:
        size: structures in a shard.
        content: content hashes that came, 16 bytes each.
        duplicates: structures whose content had come before.
        refused: entries that could not be read.
    """

    size: int
    content: set[bytes] = field(default_factory=set)
    duplicates: int = 0
    refused: list[Refusal] = field(default_factory=list)
    _lines: list[pa.RecordBatch] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Entries that came."""
        return len(self.content) + self.duplicates + len(self.refused)

    def shards(self, blocks: Iterable[Block]) -> Iterator[Structures]:
        """The structures that came for the first time, in order, `size` at a time."""
        return regrouped(map(self._taken_in, blocks), self.size)

    def _taken_in(self, block: Block) -> Structures:
        self.refused += block.refused
        return self._first_of_each(block.structures)

    def _first_of_each(self, structures: Structures) -> Structures:
        new = np.empty(len(structures), dtype=bool)
        for i, digest in enumerate(structures.hashes):
            key = bytes.fromhex(digest)
            new[i] = key not in self.content
            self.content.add(key)
        self.duplicates += int((~new).sum())
        columns = [
            pa.array(structures.material_id, pa.string()),
            pa.array(structures.hashes, pa.string()),
            pa.array(structures.n_atoms, pa.int32()),
            pa.array(~new),
        ]
        self._lines.append(pa.record_batch(columns, names=["material_id", "structure_hash", "n_atoms", "duplicate"]))
        return structures.take(np.flatnonzero(new))

    def index(self) -> pa.Table:
        """material_id, structure_hash, n_atoms, duplicate of every structure that could be read, in order.

        The hash says in which shard its features are; duplicates share them.
        """
        schema = pa.schema(
            [
                ("material_id", pa.string()),
                ("structure_hash", pa.string()),
                ("n_atoms", pa.int32()),
                ("duplicate", pa.bool_()),
            ]
        )
        return pa.Table.from_batches(self._lines, schema)


def write_queue(store: Store, name: str, groups: Iterable[Structures]) -> list[list[str]]:
    """Write the structures that wait for features, one Parquet row group for each shard to be made.

    Returns:
        The content hashes of each group.
    """
    hashes = []
    with store.replacing(name) as file:
        writer: pq.ParquetWriter | None = None
        try:
            for group in groups:
                table = group.to_arrow(occupancy=True)
                writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
                writer.write_table(table, row_group_size=len(group))
                hashes.append([str(h) for h in group.hashes])
        finally:
            if writer is not None:
                writer.close()
    return hashes


def read_queued(store: Store, queue: str, group: int) -> Structures:
    """The structures of one row group of the queue."""
    with store.open(queue) as file:
        table = pq.ParquetFile(file).read_row_group(group)
    return from_arrow(table)[0]
