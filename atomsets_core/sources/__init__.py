"""Where structures and labels come from. `pull` reads any of them by its address, `pull_into` into a file."""

from dataclasses import replace
from pathlib import Path

from atomsets_core.sources.base import (
    Pulled,
    PulledFile,
    SourceError,
    SourceUnavailableError,
    Watcher,
    pulled_from_arrow,
)
from atomsets_core.sources.compositions import read_compositions
from atomsets_core.sources.embedded import load_dataset
from atomsets_core.sources.files import read_path
from atomsets_core.sources.materials_project import MaterialsQuery, pull_materials_project
from atomsets_core.storage import Store

MATERIALS_PROJECT = "mp"


def pull(
    source: str,
    *,
    labels: str | Path | None = None,
    id_column: str = "material_id",
    compositions: bool = False,
) -> Pulled:
    """Everything a source holds.

    Args:
        source: "embedded:elastic", "embedded:flla", or the path of a file or folder (see `read_path`).
        labels: CSV with more columns, for a source of structures alone.
        id_column: column of the identifiers, for a file that has one.
        compositions: take a table of formulas without structures too (see `read_compositions`).

    Raises:
        SourceError: the source can't be read at all.
    """
    scheme, _, name = source.partition(":")
    if scheme == "embedded":
        return load_dataset(name)
    if source == MATERIALS_PROJECT:
        raise SourceError(
            "the Materials Project is pulled into a folder first, so that nothing that came is lost: `atomsets pull mp "
            "--out DIR`, then give DIR/structures.parquet. A campaign takes mp as its source directly"
        )
    if compositions and labels is None and (found := read_compositions(source, id_column)) is not None:
        return found
    return read_path(source, id_column=id_column, labels=labels)


def pull_into(
    store: Store,
    target: str,
    source: str,
    *,
    labels: str | Path | None = None,
    id_column: str = "material_id",
    query: MaterialsQuery | None = None,
    watch: Watcher | None = None,
    pages: str = "structures/pages",
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
    pulled = pull(source, labels=labels, id_column=id_column)
    store.write_table(target, pulled.to_arrow())
    store.write_json(target.removesuffix(".parquet") + ".json", pulled.provenance)
    return PulledFile(target, len(pulled.structures), pulled.refused, pulled.provenance, {})


def read_pulled(store: Store, file: PulledFile) -> Pulled:
    """What `pull_into` wrote, in memory."""
    pulled = pulled_from_arrow(store.read_table(file.name), file.provenance)
    return replace(pulled, refused=[*pulled.refused, *file.refused])


__all__ = [
    "MATERIALS_PROJECT",
    "MaterialsQuery",
    "Pulled",
    "PulledFile",
    "SourceError",
    "SourceUnavailableError",
    "Watcher",
    "pull",
    "pull_into",
    "read_pulled",
]
