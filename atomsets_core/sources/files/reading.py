"""Structures from files: one file of any usual format, a folder or zip of such, a CSV that names them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from atomsets_core.sources.base import Pulled, SourceError, without_duplicates
from atomsets_core.sources.entries import pulled_from_entries, reason_of, with_numbers
from atomsets_core.sources.files.contents import StructureFile, sha256_of, sha256_of_all
from atomsets_core.sources.files.formats import (
    CSV,
    KNOWN,
    ZIP,
    file_on_disk,
    format_called,
    kind_and_stem,
    read_csv,
    read_file,
)
from atomsets_core.sources.files.label_tables import join_labels
from atomsets_core.sources.files.listing import Listing, list_folder, list_zip
from atomsets_core.sources.files.parallel import FILE, FanOut, parse_all
from atomsets_core.structures import Refusal


def read_path(
    path: str | Path,
    *,
    id_column: str = "material_id",
    labels: str | Path | None = None,
    fan_out: FanOut | None = None,
) -> Pulled:
    """Structures, and the columns beside them, from whatever file or folder holds them.

    Read are, each also with .gz behind its name where that is usual:

    - Parquet with columns lattice, Z and frac (see `from_arrow`), or with a column `structure` of dicts, JSON or CIF;
    - pymatgen JSON: a Structure dict, a list of them, a dict id -> Structure dict, records with a key `structure`,
      and pandas tables of such in the orients split (matbench), records, columns and table;
    - CIF, POSCAR, extended XYZ, ASE databases (SQLite or JSON): one structure for each block, frame or row, its
      key-value pairs as columns;
    - CSV with a column file, cif, path or structure that names a structure file (relative to the CSV) or holds CIF;
    - a folder or zip of those, folders in folders and zips in folders included. Files of other kinds in it are
      passed over, hidden ones too. A single CSV among structure files holds labels.

    An identifier is what the file itself calls the structure (`id_column`, or material_id, mp_id, mbid, id), else
    the file's relative name without extension, with `-0`, `-1`, ... behind it where it holds several; rows of a
    Parquet file read by itself are then called by their number.

    Args:
        path: file or folder.
        id_column: name of the column of identifiers.
        labels: a CSV with one row for each structure, joined as `join_labels` says.
        fan_out: where the files of a folder or zip are parsed; see `parse_all`.

    Returns:
        All entries, each either accepted or refused: what can't be read of a folder is refused by file name, what
        was read and is no usable crystal by identifier. `provenance` holds name, path, number of files and their
        sha256 (of a folder: of the sorted names with the sha256 of each).

    Raises:
        SourceError: the path doesn't exist, is of an unknown kind or holds no entries at all, or all that it holds
            is one table that can't be read.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise SourceError(f"{path}: there is no such file or folder; check the spelling")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of everything; what matters comes back as a refusal
        pulled = _read_place(place, id_column, labels, fan_out)
    if not pulled.n_seen:
        raise SourceError(f"{path}: it holds no structures; read are {KNOWN}")
    return replace(
        pulled, provenance={"name": place.name or place.resolve().name, "path": str(path), **pulled.provenance}
    )


def _read_place(place: Path, id_column: str, labels: str | Path | None, fan_out: FanOut | None) -> Pulled:
    if place.is_dir():
        return _read_collection(list_folder(place), place, id_column, labels, fan_out)
    if not place.is_file():
        raise SourceError(f"{place}: neither a file nor a folder")
    file = file_on_disk(place, lone=True)
    if not file.kind:
        raise SourceError(f"{place}: unknown kind of file {place.suffix!r}; read are {KNOWN}")
    if file.kind != ZIP:
        return _read_lone(file, place, id_column, labels)
    try:
        listing = list_zip(place)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"{place}: {reason_of(error, 'not a readable zip')}; pack it again") from error
    return _read_collection(listing, place, id_column, labels, fan_out)


def _read_collection(
    listing: Listing, place: Path, id_column: str, labels: str | Path | None, fan_out: FanOut | None
) -> Pulled:
    tables = [file for file in listing.files if file.kind == CSV.name]
    sources = [file for file in listing.files if file.kind != CSV.name]
    own_labels = None
    if not sources:
        sources, tables = tables, []
    elif labels is None:
        top = [file for file in tables if "/" not in file.name] or tables
        own_labels = top[0] if len(top) == 1 else None
    if not sources and not listing.refused:
        raise SourceError(f"{place}: there are no structure files in it; read are {KNOWN}")
    parsed = parse_all(sources, id_column, fan_out)
    pulled = replace(parsed.pulled, refused=[*listing.refused, *parsed.pulled.refused])
    pulled = without_duplicates(pulled)
    names = list(pulled.columns[FILE])
    pulled = replace(pulled, columns=with_numbers(pulled.columns.drop(columns=FILE)))
    read = list(sources)
    provenance: dict[str, Any] = {"files": len(sources)}
    if labels is not None:
        pulled = _with_labels(pulled, names, labels, id_column)
    elif own_labels is not None:
        table = _label_table(own_labels.content, f"{place}/{own_labels.name}")
        pulled = join_labels(pulled, names, table, own_labels.name, id_column)
        provenance["labels"] = own_labels.name
        read.append(own_labels)
    provenance["sha256"] = sha256_of_all(read, parsed.digests) if place.is_dir() else sha256_of(place)
    ignored = len(listing.ignored) + len(tables) - (own_labels is not None)
    if ignored:
        provenance["ignored"] = ignored
    return replace(pulled, provenance=provenance | pulled.provenance)


def _read_lone(file: StructureFile, place: Path, id_column: str, labels: str | Path | None) -> Pulled:
    try:
        found = read_file(file, id_column)
        pulled = without_duplicates(found if isinstance(found, Pulled) else pulled_from_entries(found))
    except Exception as error:
        if not format_called(file.kind).single:
            raise SourceError(f"{place}: {reason_of(error)}") from error
        pulled = pulled_from_entries([Refusal(file.name, "parse", reason_of(error))])
    if labels is not None:
        pulled = _with_labels(pulled, [file.name] * len(pulled.structures), labels, id_column)
    return replace(pulled, provenance={"files": 1, "sha256": sha256_of(place), **pulled.provenance})


def _with_labels(pulled: Pulled, names: list[str], labels: str | Path, id_column: str) -> Pulled:
    place = Path(labels).expanduser()
    if not place.is_file() or kind_and_stem(place.name)[0] != CSV.name:
        wrong = "isn't one" if place.exists() else "doesn't exist"
        raise SourceError(f"{labels}: labels are read from a CSV file, and this {wrong}")
    table = _label_table(file_on_disk(place).content, str(labels))
    joined = join_labels(pulled, names, table, place.name, id_column)
    return replace(joined, provenance={**joined.provenance, "labels": place.name, "labels_sha256": sha256_of(place)})


def _label_table(content: Callable[[], bytes], where: str) -> pd.DataFrame:
    try:
        return read_csv(content())
    except Exception as error:
        raise SourceError(f"{where}: {reason_of(error, 'not a readable CSV')}") from error
