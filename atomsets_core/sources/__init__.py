"""Where structures and labels come from. `pull` reads any of them by its address."""

from pathlib import Path

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.chunks import FanOut, Processes
from atomsets_core.sources.embedded import load_dataset
from atomsets_core.sources.files import read_path
from atomsets_core.sources.optimade import pull_optimade


def pull(
    source: str,
    *,
    labels: str | Path | None = None,
    id_column: str = "material_id",
    workers: int | None = None,
    fan_out: FanOut | None = None,
) -> Pulled:
    """Everything a source holds.

    Args:
        source: "embedded:elastic", "embedded:flla", "optimade:" and the URL of a provider (see `pull_optimade`), or
            the path of a file or folder (see `read_path`).
        labels: CSV with more columns, for a source of structures alone.
        id_column: column of the identifiers, for a file that has one.
        workers: processes that parse the files of a folder or zip; by default this one does.
        fan_out: parses them elsewhere, see `atomsets_core.sources.chunks.parse_all`.

    Raises:
        SourceError: the source can't be read at all.
    """
    scheme, _, name = source.partition(":")
    if scheme == "embedded":
        return load_dataset(name)
    if scheme == "optimade":
        return pull_optimade(name)
    if workers is not None and fan_out is None:
        with Processes(workers) as processes:
            return read_path(source, id_column=id_column, labels=labels, fan_out=processes)
    return read_path(source, id_column=id_column, labels=labels, fan_out=fan_out)


__all__ = ["Pulled", "SourceError", "pull"]
