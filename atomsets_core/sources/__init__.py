"""Where structures and labels come from. `pull` reads any of them by its address."""

from pathlib import Path

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.compositions import read_compositions
from atomsets_core.sources.embedded import load_dataset
from atomsets_core.sources.files import read_path


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
    if compositions and labels is None and (found := read_compositions(source, id_column)) is not None:
        return found
    return read_path(source, id_column=id_column, labels=labels)


__all__ = ["Pulled", "SourceError", "pull"]
