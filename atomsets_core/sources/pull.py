"""Everything a source holds, by its address; the table of which kinds of sources there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.embedded import load_dataset
from atomsets_core.sources.files.formula_tables import read_compositions
from atomsets_core.sources.files.parallel import FanOut, Processes
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.optimade import pull_optimade

if TYPE_CHECKING:
    from atomsets_core.sources.substitution import Options

MATERIALS_PROJECT = "mp"


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
            structures (see `atomsets_core.sources.substitution.substitute`).
        labels: CSV with more columns, for a source of structures alone.
        id_column: column of the identifiers, for a file that has one.
        compositions: take a table of formulas without structures too (see `read_compositions`).
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
