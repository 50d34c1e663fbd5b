"""Where structures and labels come from. `pull` reads any of them by its address, `pull_into` into a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomsets_core.sources.base import (
    Pulled,
    PulledFile,
    SourceError,
    SourceUnavailableError,
    Watcher,
)
from atomsets_core.sources.chunks import FanOut, Processes
from atomsets_core.sources.compositions import read_compositions
from atomsets_core.sources.embedded import load_dataset
from atomsets_core.sources.files import read_path
from atomsets_core.sources.materials_project import MaterialsQuery, pull_materials_project
from atomsets_core.sources.optimade import pull_optimade
from atomsets_core.storage import Store

if TYPE_CHECKING:
    from atomsets_core.substitution import Options

MATERIALS_PROJECT = "mp"

ROW_GROUP = 4096
"""Structures in a part of a file that can be read by itself."""


def pull(
    source: str,
    *,
    labels: str | Path | None = None,
    id_column: str = "material_id",
    compositions: bool = False,
    workers: int | None = None,
    fan_out: FanOut | None = None,
    optimade_filter: str = "",
    optimade_fields: Sequence[str] = (),
    substitution: Options | None = None,
) -> Pulled:
    """Everything a source holds.

    Args:
        source: "embedded:elastic", "embedded:flla", "optimade:" and the URL of a provider (see `pull_optimade`), the
            path of a file or folder (see `read_path`), or "substitute:" and any of those: candidates made of its
            structures (see `atomsets_core.substitution.substitute`).
        labels: CSV with more columns, for a source of structures alone.
        id_column: column of the identifiers, for a file that has one.
        compositions: take a table of formulas without structures too (see `read_compositions`).
        workers: processes that parse the files of a folder or zip; by default this one does.
        fan_out: parses them elsewhere, see `atomsets_core.sources.chunks.parse_all`.
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
        from atomsets_core.substitution import substitute  # takes a second to import

        prototypes = pull(
            name,
            labels=labels,
            id_column=id_column,
            workers=workers,
            fan_out=fan_out,
            optimade_filter=optimade_filter,
            optimade_fields=optimade_fields,
        )
        return substitute(prototypes, substitution)
    if source == MATERIALS_PROJECT:
        raise SourceError(
            "the Materials Project is pulled into a folder first, so that nothing that came is lost: `atomsets pull mp "
            "--out DIR`, then give DIR/structures.parquet. A campaign takes mp as its source directly"
        )
    if compositions and labels is None and (found := read_compositions(source, id_column)) is not None:
        return found
    if workers is not None and fan_out is None:
        with Processes(workers) as processes:
            return read_path(source, id_column=id_column, labels=labels, fan_out=processes)
    return read_path(source, id_column=id_column, labels=labels, fan_out=fan_out)


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
    from atomsets_core.sources.stream import copy_table, is_table

    if labels is None and is_table(source):
        return copy_table(store, target, source, id_column)
    pulled = pull(source, labels=labels, id_column=id_column, **(options or {}))
    store.write_table(target, pulled.to_arrow(), row_group_size=ROW_GROUP)
    store.write_json(target.removesuffix(".parquet") + ".json", pulled.provenance)
    return PulledFile(target, len(pulled.structures), pulled.refused, pulled.provenance, {})


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
]
