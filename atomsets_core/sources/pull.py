"""Everything a source holds, by its address: in memory, into a file of a store, or block by block.

Only Parquet with columns lattice, Z and frac can be read in blocks, so that a file of any size takes the memory of one
block; any other source is read whole and then cut.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.base import Pulled, PulledFile, SourceError, Watcher
from atomsets_core.sources.catalogue import Catalogue, write_catalogue
from atomsets_core.sources.columns import REPEATED
from atomsets_core.sources.embedded import DATASETS, load_dataset
from atomsets_core.sources.files.formats import PARQUET
from atomsets_core.sources.files.formula_tables import read_compositions
from atomsets_core.sources.files.parallel import FanOut, Processes
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.files.text_tables import FOUND_OUT, TableOptions
from atomsets_core.sources.identifiers import id_columns, lacking, row_ids
from atomsets_core.sources.materials_project.pull import pull_materials_project
from atomsets_core.sources.materials_project.query import MaterialsQuery
from atomsets_core.sources.optimade import pull_optimade
from atomsets_core.sources.repeats import as_text, differences
from atomsets_core.storage import Digests, Store, check_parquet, position, probe_file, sha256_of
from atomsets_core.structures import (
    COMPOSITIONS,
    STRUCTURE_COLUMNS,
    Compositions,
    Refusal,
    Structures,
    empty_structures,
    from_arrow,
    without_overlaps,
)

if TYPE_CHECKING:
    from atomsets_core.sources.generation import Generation
    from atomsets_core.sources.substitution import Options

MATERIALS_PROJECT = "mp"

AS_THEY_COME = "entries"
"""What `pull_into` keeps of a source unless it is told otherwise: its structures, or formulas where it has no more."""

GENERATE = "generate"
"""Scheme of sources that are made of nothing but what is asked for."""

BLOCK = 2048
"""Entries in a block."""

NEVER_WHOLE = 1 << 60
"""Bytes that a table may take which is never in memory as a whole."""

MADE = ("material_id", "structure_hash", "n_atoms", "formula")
"""Columns that are made of the structures, whatever a file says."""

ROW_GROUP = 4096
"""Structures in a part of a file that can be read by itself."""


def pull(
    source: str,
    *,
    labels: str | Path | None = None,
    id_column: str = "material_id",
    table: TableOptions = FOUND_OUT,
    compositions: bool = False,
    generation: Generation | None = None,
    workers: int | None = None,
    fan_out: FanOut | None = None,
    optimade_filter: str = "",
    optimade_fields: Sequence[str] = (),
    substitution: Options | None = None,
) -> Pulled:
    """Everything a source holds.

    Args:
        source: "embedded:elastic", "embedded:flla", "optimade:" and the URL of a provider (see `pull_optimade`), the
            path of a file or folder (see `read_path`), "substitute:" and any of those: candidates made of its
            structures (see `atomsets_core.sources.substitution.substitute`), or "generate:" (see `generate`).
        labels: table with more columns, for a source of structures alone.
        id_column: column of the identifiers, for a file that has one; several with commas between them.
        table: how tables are read, where that isn't to be found out.
        compositions: take what holds formulas without structures too: a table (see `read_compositions`) and what is
            generated.
        generation: which compositions are generated.
        workers: processes that parse the files of a folder or zip; by default this one does.
        fan_out: parses them elsewhere, see `atomsets_core.sources.files.parallel.parse_all`.
        optimade_filter: what is asked of an OPTIMADE provider; everything without one.
        optimade_fields: its properties that become columns.
        substitution: which candidates are made.

    Raises:
        SourceError: the source can't be read at all.
    """
    scheme, _, name = source.partition(":")
    if scheme == "embedded":
        return load_dataset(name)
    if scheme == "optimade":
        return pull_optimade(name, optimade_filter, optimade_fields)
    if scheme == "substitute":
        from atomsets_core.sources.substitution import substitute  # takes a second to import

        prototypes = pull(
            name,
            labels=labels,
            id_column=id_column,
            table=table,
            workers=workers,
            fan_out=fan_out,
            optimade_filter=optimade_filter,
            optimade_fields=optimade_fields,
        )
        return substitute(prototypes, substitution)
    if scheme == GENERATE:
        if not compositions:
            raise SourceError(f"{source}: generated are formulas, and structures are needed here")
        from atomsets_core.sources.generation import Generation, generate

        asked = generation or Generation()
        return generate(replace(asked, elements=re.findall(r"[^\s,-]+", name)) if name.strip() else asked)
    if source == MATERIALS_PROJECT:
        raise SourceError(
            "the Materials Project is pulled into a folder first, so that nothing that came is lost: `atomsets pull mp "
            "--out DIR`, with --labels for values of your own, then give DIR/structures.parquet. A campaign takes mp "
            "as its source directly"
        )
    # A folder is never a table, and is not to be looked at twice.
    if compositions and labels is None and Path(source).expanduser().is_file():
        found = read_compositions(source, id_column, table)
        if found is not None:
            return found
    if workers is not None and fan_out is None:
        with Processes(workers) as processes:
            return read_path(source, id_column=id_column, labels=labels, fan_out=processes, table=table)
    return read_path(source, id_column=id_column, labels=labels, fan_out=fan_out, table=table)


def holds_formulas(source: str, labels: str | None = None, table: TableOptions = FOUND_OUT) -> bool:
    """Whether a source holds formulas and no structures; one that can't be read is left to `pull` to describe.

    Args:
        source: as in `pull`, or "mp".
        labels: as in `pull`; they are joined to structures.
        table: how tables are read.
    """
    scheme, _, name = source.partition(":")
    if scheme == GENERATE:
        return True
    if scheme == "embedded":
        return name in DATASETS and DATASETS[name].formulas
    if labels is not None or not Path(source).expanduser().is_file():
        return False
    try:
        return read_compositions(source, options=table) is not None
    except SourceError:
        return False


def pull_into(
    store: Store,
    target: str,
    source: str,
    *,
    labels: str | Path | None = None,
    id_column: str = "material_id",
    query: MaterialsQuery | None = None,
    watch: Watcher | None = None,
    pages: str = "pages",
    options: Mapping[str, Any] | None = None,
    take: str = AS_THEY_COME,
) -> PulledFile:
    """Everything a source holds, as a Parquet file with its provenance as JSON beside it.

    Args:
        store: of the file.
        target: name of the file, ending in .parquet.
        source: as in `pull`, or "mp": the Materials Project, which never is in memory as a whole.
        labels: as in `pull`; for the Materials Project the table also says which entries are pulled.
        id_column: as in `pull`.
        query: of the Materials Project; all of it without one, or all that `labels` names.
        watch: is told how far a pull is.
        pages: folder of the store for what has come of a pull that isn't finished.
        options: further arguments of `pull`.
        take: "compositions" keeps of structures what they are made of, and no more.

    Raises:
        SourceError: the source can't be read at all.
        StorageError: the file can't be written.
    """
    file = _pull_into(store, target, source, labels, id_column, query, watch, pages, options)
    return _without_structures(store, file) if take == COMPOSITIONS else file


def _without_structures(store: Store, file: PulledFile) -> PulledFile:
    """The same file with compositions in place of its structures."""
    catalogue = Catalogue.open(store, file.name)
    if catalogue.kind == COMPOSITIONS:
        return file
    beside = [name for name in catalogue.schema.names if name not in catalogue.own]

    def tables() -> Iterator[pa.Table]:
        yield _beside(Compositions.of(empty_structures()).to_arrow(), catalogue.schema.empty_table().select(beside))
        for _, structures, columns in catalogue.blocks(beside):
            yield _beside(Compositions.of(structures).to_arrow(), columns)

    write_catalogue(store, file.name, tables())
    return file


def _beside(own: pa.Table, columns: pa.Table) -> pa.Table:
    for field_, values in zip(columns.schema, columns.columns, strict=True):
        if field_.name not in own.column_names:
            own = own.append_column(field_, values)
    return own


def _pull_into(
    store: Store,
    target: str,
    source: str,
    labels: str | Path | None,
    id_column: str,
    query: MaterialsQuery | None,
    watch: Watcher | None,
    pages: str,
    options: Mapping[str, Any] | None,
) -> PulledFile:
    if source == MATERIALS_PROJECT:
        if labels:
            from atomsets_core.sources.materials_project.labels import pull_labelled

            how = (options or {}).get("table", FOUND_OUT)
            asked = query or MaterialsQuery()
            return pull_labelled(asked, store, target, str(labels), id_column, how, watch, pages)
        return pull_materials_project(query or MaterialsQuery(), store, target, watch, pages)
    if query is not None:
        raise SourceError(f"a query goes with the source {MATERIALS_PROJECT!r}, not with {source!r}")
    if labels is None and is_table(source):
        return copy_table(store, target, source, id_column, sound=True)
    pulled = _sound(pull(source, labels=labels, id_column=id_column, **(options or {})))
    store.write_table(target, pulled.to_arrow(), row_group_size=ROW_GROUP)
    store.write_json(target.removesuffix(".parquet") + ".json", pulled.provenance)
    return PulledFile(target, len(pulled.structures), pulled.refused, pulled.provenance, {})


def _sound(pulled: Pulled) -> Pulled:
    """What no parent refuses for atoms on top of each other, so that a file that was pulled can be predicted."""
    if isinstance(pulled.structures, Compositions):
        return pulled
    kept, refused = without_overlaps(pulled.structures)
    if not refused:
        return pulled
    columns = pulled.columns.iloc[kept].reset_index(drop=True)
    return Pulled(pulled.structures.take(kept), columns, [*pulled.refused, *refused], pulled.provenance)


def open_source(source: str, scratch: Store, **options: Any) -> Pulled[Any]:
    """What `pull` gives; of a Parquet file with columns lattice, Z and frac the structures stay in a file.

    Args:
        source: see `pull`.
        scratch: where that file may be written.
        options: further arguments of `pull`.

    Returns:
        `structures` is a `Catalogue` for such a file.

    Raises:
        SourceError: see `pull`.
    """
    if options.get("labels") is not None or not is_table(source):
        return pull(source, **options)
    file = copy_table(scratch, "structures.parquet", source, options.get("id_column", "material_id"))
    catalogue = Catalogue.open(scratch, file.name)
    columns = catalogue.columns(name for name in catalogue.schema.names if name not in catalogue.own)
    return Pulled(catalogue, columns, file.refused, file.provenance)


def copy_table(store: Store, target: str, source: str, id_column: str, *, sound: bool = False) -> PulledFile:
    """What `pull` reads of a Parquet file with columns lattice, Z and frac, written as `pull_into` writes it.

    Args:
        store: of the file.
        target: its name.
        source: the Parquet file.
        id_column: of identifiers.
        sound: refuse structures with atoms on top of each other.

    Raises:
        SourceError: the columns don't hold structures, or there are no rows.
        StorageError: the file can't be written.
    """
    n_seen, blocks = read_blocks(source, id_column, columns=True)
    if not n_seen:
        raise SourceError(f"{source}: it holds no structures")
    mixed = "occupancy" in pq.read_schema(source).names
    refused: list[Refusal] = []
    later: list[dict[str, Any]] = []

    def tables() -> Iterator[pa.Table]:
        for block in blocks:
            refused.extend(block.refused)
            later.extend(block.later)
            structures, beside = block.structures, block.columns
            kept, overlapping = without_overlaps(structures) if sound else (np.arange(len(structures)), [])
            if overlapping:
                refused.extend(overlapping)
                structures, beside = structures.take(kept), beside.take(kept) if beside.num_columns else beside
            table = structures.to_arrow(occupancy=mixed)
            for column, values in zip(beside.schema, beside.columns, strict=True):
                table = table.append_column(column, values)
            yield table

    n = write_catalogue(store, target, tables())
    if later:
        _write_later(store, target, later)
    place = Path(source)
    provenance = {"name": place.name, "path": source, "files": 1, "sha256": sha256_of(place)}
    store.write_json(target.removesuffix(".parquet") + ".json", provenance)
    return PulledFile(target, n, refused, provenance, {})


def _write_later(store: Store, target: str, later: Sequence[Mapping[str, Any]]) -> None:
    """Write a file anew with what later rows of its identifiers hold otherwise, in the column `REPEATED`."""
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in later:
        by_name[str(row["material_id"])].append(row)

    def tables() -> Iterator[pa.Table]:
        with store.open(target) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(BLOCK):
                table = pa.Table.from_batches([batch])
                beside = table.drop_columns([name for name in STRUCTURE_COLUMNS if name in table.column_names])
                cells = table[REPEATED].to_pylist() if REPEATED in table.column_names else [None] * len(table)
                for place, name in enumerate(table["material_id"].to_pylist()):
                    if name in by_name:
                        first = beside.slice(place, 1).to_pylist()[0]
                        same = [row for row in by_name[name] if row["structure_hash"] == first["structure_hash"]]
                        cells[place] = as_text(differences(first, row) for row in same) or cells[place]
                kept = table.drop_columns([REPEATED]) if REPEATED in table.column_names else table
                yield kept.append_column(REPEATED, pa.array(cells, pa.string()))

    write_catalogue(store, target, tables())


@dataclass(frozen=True)
class Block:
    """Some entries of a source, in its order.

    Attributes:
        structures: those that could be read.
        refused: one row for each other one.
        columns: further columns of those that could be read; none unless they were asked for.
        later: material_id, structure_hash and those columns of entries whose identifier came before.
    """

    structures: Structures
    refused: list[Refusal]
    columns: pa.Table = field(default_factory=lambda: pa.table({}))
    later: list[dict[str, Any]] = field(default_factory=list)


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
        if wrong := lacking(pq.read_schema(source).names, id_column):
            raise SourceError(f"{source}: {wrong}")
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
    used = id_columns(names, id_column)
    own = [name for name in (*STRUCTURE_COLUMNS, "occupancy") if name in names]
    identify = set(used) if len(used) == 1 else set()
    other = [name for name in names if name not in {*own, *identify, *MADE}] if with_columns else []
    seen, first = Seen(), 0
    for batch in file.iter_batches(size, columns=list(dict.fromkeys([*used, *own, *other]))):
        present = row_ids([batch.column(name).to_pylist() for name in used], len(batch))
        ids = [str(first + i) if name is None else name for i, name in enumerate(present)]
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
        columns_of = pa.Table.from_batches([batch.select(other)]) if other else pa.table({})
        beside = columns_of.take(rows[new]) if other else columns_of
        later = columns_of.take(rows[~new]).to_pylist() if other else []
        for row, again in zip(later, np.flatnonzero(~new), strict=False):
            row |= {"material_id": str(structures.material_id[again]), "structure_hash": str(structures.hashes[again])}
        yield Block(structures.take(np.flatnonzero(new)), [*refused, *repeated], beside, later)


def _cut(structures: Structures, refused: list[Refusal], size: int) -> Iterator[Block]:
    yield Block(empty_structures(), refused)
    for start in range(0, len(structures), size):
        yield Block(structures.take(np.arange(start, min(start + size, len(structures)))), [])
