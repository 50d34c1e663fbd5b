"""From the blocks of a source to shards to be made: every content once, and an account of everything that came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from atomsets_core.sources.blocks import Block
from atomsets_core.structures import Refusal, Structures, regrouped


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
