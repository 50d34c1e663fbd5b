"""What every source hands over: entries of files as one batch with columns, and a reason for each it could not use."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pymatgen.core import Structure

from atomsets_core.sources.columns import read_columns
from atomsets_core.sources.files.text_tables import FOUND_OUT, TableOptions
from atomsets_core.sources.repeats import differences, duplicate_reason, with_repeated
from atomsets_core.storage import file_content
from atomsets_core.structures import STRUCTURE_COLUMNS, Refusal, Structures, from_arrow, from_pymatgen, validate

LONGEST_REASON = 200
_BLOCK = 1024  # entries that are held as objects at the same time


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
class StructureFile:
    """One file to read, on a disk or inside a zip; small enough to be sent to a worker.

    Attributes:
        name: relative name with "/" between folders; what refusals and default identifiers are made of.
        kind: name of its format, see `atomsets_core.sources.files.formats.FORMATS`.
        stem: the name without the extension of its format.
        path: where the file lies on a disk, or the zip that holds it.
        member: its name inside the zip; "" on a disk.
        size: bytes, as stored.
        lone: it was asked for by itself, so no other file's identifiers can collide with its own.
        table: how it is read where it is a table.
    """

    name: str
    kind: str
    stem: str
    path: Path
    member: str = ""
    size: int = 0
    lone: bool = False
    table: TableOptions = FOUND_OUT

    def content(self) -> bytes:
        """The bytes, decompressed.

        Raises:
            ValueError: there are more of them than the limits allow, or the zip member can't be read.
            OSError: the file can't be read.
        """
        return file_content(self.path, self.member)

    def text(self) -> str:
        """The content as text; bytes that aren't UTF-8 (names in comments, mostly) are replaced."""
        return self.content().decode("utf-8-sig", errors="replace")


@dataclass(frozen=True)
class Crystal:
    """An ordered, periodic structure as bare numbers, for readers that need no pymatgen object.

    Attributes:
        lattice: (3, 3) float64, rows are the lattice vectors in Angstrom.
        numbers: (n,) int64, atomic numbers.
        frac: (n, 3) float64, fractional coordinates.
    """

    lattice: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    frac: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """One structure that could be parsed.

    Attributes:
        material_id: its identifier.
        structure: the pymatgen Structure, or its bare numbers.
        columns: what stood beside it; only numbers, strings, booleans and None become columns.
    """

    material_id: str
    structure: Structure | Crystal
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pulled(Generic[Batch]):
    """What a source gave.

    Attributes:
        structures: (n) accepted structures, each identifier once; compositions from a source that holds only those.
        columns: n rows, the labels and other data of the source beside the structures, under the source's names.
        refused: one row for each entry that was not accepted.
        provenance: name, citation, licence, sha256, units, and notes on how it was read, as far as the source knows
            them.
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
    """The first entry of each identifier; each later one becomes a refusal, with its values beside the first.

    What a later entry of the same content holds otherwise stands in the column `repeated` of the first, see
    `atomsets_core.sources.repeats`.
    """
    first: dict[str, int] = {}
    repeated = []
    for row, name in enumerate(pulled.structures.material_id):
        if first.setdefault(name, row) != row:
            repeated.append(row)
    if not repeated:
        return pulled
    names, hashes = pulled.structures.material_id, pulled.structures.hashes
    refused, later = [], defaultdict[int, list[Mapping[str, Any]]](list)
    for row in repeated:
        kept_row = first[names[row]]
        same = bool(hashes[row] == hashes[kept_row])
        own, other = (pulled.columns.iloc[place].to_dict() for place in (kept_row, row))
        differing = differences(own, other) if same else {}
        later[kept_row].append(differing)
        refused.append(Refusal(str(names[row]), "pull", duplicate_reason(differing, same), str(hashes[row])))
    kept = np.setdiff1d(np.arange(len(pulled.structures)), repeated)
    return Pulled(
        pulled.structures.take(kept),
        with_repeated(pulled.columns, later).iloc[kept].reset_index(drop=True),
        [*pulled.refused, *refused],
        pulled.provenance,
    )


def pulled_from_entries(found: Iterable[Entry | Refusal], *, convert: bool = True) -> Pulled:
    """One batch of the entries that describe an ordered, periodic crystal, and a refusal for each other one.

    Entries are taken as they come and turned into columns in blocks, so that a reader that yields them one by one
    never holds the structures of a large file as objects.

    Args:
        found: what was read.
        convert: make numbers of text columns, see `read_columns`; not for a part of what is to be one table.
    """
    parts, refused, rows = [], [], []
    iterator = iter(found)
    while block := list(itertools.islice(iterator, _BLOCK)):
        batch, columns, rejected = _batch(block)
        parts.append(batch)
        rows += columns
        refused += rejected
    frame = pd.DataFrame(rows, index=range(len(rows)))
    if not convert:
        return Pulled(Structures.concat(parts), frame, refused)
    read = read_columns(frame)
    return Pulled(Structures.concat(parts), read.frame, refused, read.told({}))


def _batch(block: Sequence[Entry | Refusal]) -> tuple[Structures, list[dict[str, Any]], list[Refusal]]:
    """Structures in the order of the block, the columns of each, and the refusals."""
    refused = [item for item in block if isinstance(item, Refusal)]
    entries = []
    for item in block:
        if isinstance(item, Refusal):
            continue
        if isinstance(item.structure, Structure) and not all(item.structure.lattice.pbc):
            refused.append(Refusal(item.material_id, "parse", "not periodic in all three directions"))
        else:
            entries.append(item)
    # identifiers may repeat within a file, positions don't
    bare = [i for i, entry in enumerate(entries) if isinstance(entry.structure, Crystal)]
    others = [i for i, entry in enumerate(entries) if not isinstance(entry.structure, Crystal)]
    made, rejected = from_pymatgen([entries[i].structure for i in others], [str(i) for i in others])
    joined, more = _from_crystals([entries[i].structure for i in bare], bare)  # type: ignore[misc]
    batch = Structures.concat([made, joined])
    positions = np.array([int(name) for name in batch.material_id], dtype=np.int64)
    batch = batch.take(np.argsort(positions))
    kept = [entries[i] for i in np.sort(positions)]
    batch = replace(batch, material_id=np.array([entry.material_id for entry in kept], dtype=object))
    refused += [
        replace(refusal, material_id=entries[int(refusal.material_id)].material_id, reason=one_line(refusal.reason))
        for refusal in sorted([*rejected, *more], key=lambda refusal: int(refusal.material_id))
    ]
    rows = [{name: value for name, value in entry.columns.items() if np.isscalar(value)} for entry in kept]
    return batch, rows, refused


def _from_crystals(crystals: Sequence[Crystal], positions: Sequence[int]) -> tuple[Structures, list[Refusal]]:
    if not crystals:
        return Structures.concat([]), []
    return validate(
        Structures(
            np.array([str(position) for position in positions], dtype=object),
            np.array([crystal.lattice for crystal in crystals], dtype=np.float64),
            np.array([len(crystal.numbers) for crystal in crystals], dtype=np.int64),
            np.concatenate([crystal.numbers for crystal in crystals]).astype(np.int64),
            np.concatenate([crystal.frac for crystal in crystals]).reshape(-1, 3),
        )
    )


def default_id(name: str | None, stem: str, position: int, n: int) -> str:
    """The identifier where there is any, else `stem` for an only entry and `stem-0`, `stem-1`, ... for n of them."""
    return name or (stem if n == 1 else f"{stem}-{position}")


def reason_of(error: Exception, what: str = "") -> str:
    """What an exception of a parser says, as one sentence of at most 200 characters.

    Args:
        error: the exception.
        what: how the sentence begins, e.g. "not a readable CIF".
    """
    if isinstance(error, KeyError) and error.args:
        text = f"{error.args[0]!r} is missing"
    elif isinstance(error, IndexError):
        text = "it ends too early, or a line of it is incomplete"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error) or type(error).__name__
    return one_line(f"{what}: {text}" if what else text)


def one_line(text: str) -> str:
    """The text on one line, cut at 200 characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
