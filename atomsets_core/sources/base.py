"""What every source hands over: structures, the columns beside them, and a reason for each entry it could not use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from atomsets_core.structures import STRUCTURE_COLUMNS, Refusal, from_arrow


class Batchlike(Protocol):
    """What `Pulled` needs of structures, compositions or lines."""

    def __len__(self) -> int:
        """How many there are."""
        ...


Batch = TypeVar("Batch", bound=Batchlike)


class SourceError(Exception):
    """A source that can't be read at all; the message names it and says what to do."""


class SourceUnavailableError(SourceError):
    """A source that can't be read now, but perhaps later; what came of it is kept."""


@dataclass(frozen=True)
class Pulled(Generic[Batch]):
    """What a source gave.

    Attributes:
        structures: (n) accepted structures, each identifier once; compositions from a source that holds only those.
        columns: n rows, the labels and other data of the source beside the structures, under the source's names.
        refused: one row for each entry that was not accepted.
        provenance: name, citation, licence, sha256 and units, as far as the source knows them.
    """

    structures: Batch
    columns: pd.DataFrame
    refused: list[Refusal] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.columns) != len(self.structures):
            raise ValueError(f"{len(self.columns)} rows of columns for {len(self.structures)} structures")

    @property
    def n_seen(self) -> int:
        """Entries the source held, accepted or not."""
        return len(self.structures) + len(self.refused)

    def to_arrow(self) -> pa.Table:
        """The structures' own columns followed by those of the source."""
        table: pa.Table = self.structures.to_arrow()  # type: ignore[attr-defined]  # lines alone have none
        for name in self.columns.columns:
            if name not in table.column_names:
                table = table.append_column(name, pa.Array.from_pandas(self.columns[name]))
        return table


class Watcher(Protocol):
    """Is told how far a pull is."""

    def total(self, n: int) -> None:
        """So many entries are to come, as far as is known; may be told again."""

    def got(self, n: int, before: bool = False) -> None:
        """So many more are here, or were here before this run."""

    def note(self, message: str) -> None:
        """Something that the user should know."""


class Silent:
    """A watcher that says nothing."""

    def total(self, n: int) -> None:
        """Nothing."""

    def got(self, n: int, before: bool = False) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class PulledFile:
    """What a source gave, in a file instead of in memory.

    Attributes:
        name: of the file in its store, Parquet: the structures' own columns, then those of the source.
        structures: rows of the file.
        refused: one row for each entry that was not accepted.
        provenance: as in `Pulled`.
        counts: what the pull did, under the source's words.
    """

    name: str
    structures: int
    refused: list[Refusal]
    provenance: dict[str, Any]
    counts: dict[str, int]

    @property
    def n_seen(self) -> int:
        """Entries the source held, accepted or not."""
        return self.structures + len(self.refused)


def pulled_from_arrow(table: pa.Table, provenance: dict[str, Any], id_column: str = "material_id") -> Pulled:
    """Structures and columns from one table; see `from_arrow` for its layout.

    Raises:
        ValueError: the table holds no structures.
    """
    structures, rows, refused = from_arrow(table, id_column)
    own = {*STRUCTURE_COLUMNS, id_column, "structure_hash", "n_atoms", "formula"}
    columns = table.select([name for name in table.column_names if name not in own]).to_pandas()
    return without_duplicates(Pulled(structures, columns.iloc[rows].reset_index(drop=True), refused, provenance))


def without_duplicates(pulled: Pulled) -> Pulled:
    """The first entry of each identifier; each later one becomes a refusal."""
    first: dict[str, int] = {}
    repeated = []
    for row, name in enumerate(pulled.structures.material_id):
        if first.setdefault(name, row) != row:
            repeated.append(row)
    if not repeated:
        return pulled
    refused = [
        Refusal(
            str(pulled.structures.material_id[row]),
            "pull",
            "duplicate id: an earlier entry has it too, and that one was kept",
            str(pulled.structures.hashes[row]),
        )
        for row in repeated
    ]
    kept = np.setdiff1d(np.arange(len(pulled.structures)), repeated)
    return Pulled(
        pulled.structures.take(kept),
        pulled.columns.iloc[kept].reset_index(drop=True),
        [*pulled.refused, *refused],
        pulled.provenance,
    )
