"""A table of structures copied into a store a block at a time, so that it never is in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.base import Pulled, PulledFile, SourceError, Watcher
from atomsets_core.sources.blocks import is_table, read_blocks
from atomsets_core.sources.catalogue import OWN, Catalogue, write_catalogue
from atomsets_core.sources.files.contents import sha256_of
from atomsets_core.sources.materials_project.pull import pull_materials_project
from atomsets_core.sources.materials_project.query import MaterialsQuery
from atomsets_core.sources.pull import MATERIALS_PROJECT, pull
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal


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
    columns = catalogue.columns(name for name in catalogue.schema.names if name not in OWN)
    return Pulled(catalogue, columns, file.refused, file.provenance)


def copy_table(store: Store, target: str, source: str, id_column: str) -> PulledFile:
    """What `pull` reads of a Parquet file with columns lattice, Z and frac, written as `pull_into` writes it.

    Raises:
        SourceError: the columns don't hold structures, or there are no rows.
        StorageError: the file can't be written.
    """
    n_seen, blocks = read_blocks(source, id_column, columns=True)
    if not n_seen:
        raise SourceError(f"{source}: it holds no structures")
    mixed = "occupancy" in pq.read_schema(source).names
    refused: list[Refusal] = []

    def tables() -> Iterator[pa.Table]:
        for block in blocks:
            refused.extend(block.refused)
            table = block.structures.to_arrow(occupancy=mixed)
            for column, values in zip(block.columns.schema, block.columns.columns, strict=True):
                table = table.append_column(column, values)
            yield table

    n = write_catalogue(store, target, tables())
    place = Path(source)
    provenance = {"name": place.name, "path": source, "files": 1, "sha256": sha256_of(place)}
    store.write_json(target.removesuffix(".parquet") + ".json", provenance)
    return PulledFile(target, n, refused, provenance, {})


ROW_GROUP = 4096
"""Structures in a part of a file that can be read by itself."""


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
) -> PulledFile:
    """Everything a source holds, as a Parquet file with its provenance as JSON beside it.

    Args:
        store: of the file.
        target: name of the file, ending in .parquet.
        source: as in `pull`, or "mp": the Materials Project, which never is in memory as a whole.
        labels: as in `pull`.
        id_column: as in `pull`.
        query: of the Materials Project; all of it without one.
        watch: is told how far a pull is.
        pages: folder of the store for what has come of a pull that isn't finished.
        options: further arguments of `pull`.

    Raises:
        SourceError: the source can't be read at all.
        StorageError: the file can't be written.
    """
    if source == MATERIALS_PROJECT:
        if labels:
            raise SourceError("labels go with files; for the Materials Project name the numbers in query.fields")
        return pull_materials_project(query or MaterialsQuery(), store, target, watch, pages)
    if query is not None:
        raise SourceError(f"a query goes with the source {MATERIALS_PROJECT!r}, not with {source!r}")
    if labels is None and is_table(source):
        return copy_table(store, target, source, id_column)
    pulled = pull(source, labels=labels, id_column=id_column, **(options or {}))
    store.write_table(target, pulled.to_arrow(), row_group_size=ROW_GROUP)
    store.write_json(target.removesuffix(".parquet") + ".json", pulled.provenance)
    return PulledFile(target, len(pulled.structures), pulled.refused, pulled.provenance, {})
