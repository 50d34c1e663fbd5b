"""Structures from files: one file of any usual format, a folder or zip of such, a CSV that names them."""

from __future__ import annotations

import gzip
import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from atomsets_core.sources.base import Pulled, SourceError, without_duplicates
from atomsets_core.sources.entries import (
    Entry,
    StructureFile,
    default_ids,
    one_line,
    pulled_from_entries,
    reason_of,
    split_id,
)
from atomsets_core.sources.formats import KNOWN, kind_and_stem, read_file, structure_from
from atomsets_core.sources.labels import FILE_COLUMNS, join_labels, read_csv
from atomsets_core.structures import Refusal, Structures

LARGEST_MEMBER = 200_000_000  # bytes of one zip member, decompressed
LARGEST_ARCHIVE = 4_000_000_000  # bytes of all members together
_ONE_STRUCTURE = ("cif", "poscar")
_PIECE = 1 << 16


def read_path(path: str | Path, *, id_column: str = "material_id", labels: str | Path | None = None) -> Pulled:
    """Structures, and the columns beside them, from whatever file or folder holds them.

    Read are, each also with .gz behind its name where that is usual:

    - Parquet with columns lattice, Z and frac (see `from_arrow`), or with a column `structure` of dicts, JSON or CIF;
    - pymatgen JSON: a Structure dict, a list of them, a dict id -> Structure dict, records with a key `structure`,
      and pandas tables of such in the orients split (matbench), records, columns and table;
    - CIF, POSCAR, extended XYZ, ASE databases;
    - CSV with a column file, cif, path or structure that names a structure file (relative to the CSV) or holds CIF;
    - a folder or zip of those. Files of other kinds in it are passed over, hidden ones too. A single CSV among
      structure files holds labels.

    An identifier is what the file itself calls the structure (`id_column`, or material_id, mp_id, mbid, id), else
    the file's relative name without extension, with `-0`, `-1`, ... behind it where it holds several; rows of a
    Parquet file read by itself are then called by their number.

    Args:
        path: file or folder.
        id_column: name of the column of identifiers.
        labels: a CSV with one row for each structure, joined as `join_labels` says.

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
        pulled = _read_place(place, id_column, labels)
    if not pulled.n_seen:
        raise SourceError(f"{path}: it holds no structures; read are {KNOWN}")
    return replace(
        pulled, provenance={"name": place.name or place.resolve().name, "path": str(path), **pulled.provenance}
    )


def _read_place(place: Path, id_column: str, labels: str | Path | None) -> Pulled:
    if place.is_dir():
        return _read_collection(_folder_listing(place), place, id_column, labels)
    kind, stem = kind_and_stem(place.name)
    if not kind:
        raise SourceError(f"{place}: unknown kind of file {place.suffix!r}; read are {KNOWN}")
    if kind != "zip":
        file = StructureFile(place.name, stem, partial(_disk_content, place), place, lone=True)
        return _read_lone(file, place, kind, id_column, labels)
    try:
        with zipfile.ZipFile(place) as archive:
            return _read_collection(_zip_listing(archive), place, id_column, labels)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"{place}: {reason_of(error, 'not a readable zip')}; pack it again") from error


@dataclass
class _Listing:
    """What lies in a folder or archive.

    Attributes:
        files: files to read with their formats, sorted by name.
        refused: files that are not even opened.
        ignored: names of files of unknown formats.
    """

    files: list[tuple[StructureFile, str]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def add(self, name: str, content: Callable[[], bytes], path: Path | None = None) -> None:
        """Sort one file in; hidden ones are left out."""
        if any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts):
            return
        kind, stem = kind_and_stem(name)
        if kind == "zip":
            self.refused.append(Refusal(name, "parse", "a zip inside of another source isn't read: give it by itself"))
        elif kind:
            self.files.append((StructureFile(name, stem, content, path), kind))
        else:
            self.ignored.append(name)


def _folder_listing(place: Path) -> _Listing:
    listing = _Listing()
    found = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    for name, path in sorted(found.items()):
        listing.add(name, partial(_disk_content, path), path)
    return listing


def _disk_content(path: Path) -> bytes:
    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as stream:
            return stream.read()
    return path.read_bytes()


def _zip_listing(archive: zipfile.ZipFile) -> _Listing:
    listing, spent = _Listing(), [0]
    for member in sorted(archive.infolist(), key=lambda info: info.filename):
        name = member.filename.replace("\\", "/")
        if member.is_dir():
            continue
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
            listing.refused.append(Refusal(one_line(name), "parse", "its name points outside of the zip"))
        else:
            listing.add(name, partial(_member_content, archive, member, spent))
    return listing


def _member_content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, spent: list[int]) -> bytes:
    """Bytes of a member, never more than the limits whatever its header says; `spent` counts those of all."""
    if member.flag_bits & 1:
        raise ValueError("it is encrypted: pack it again without a password")
    # the other methods of zipfile decompress a whole piece at once, however large it gets
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("its compression isn't read: pack it with plain deflate")
    with archive.open(member) as stream:
        if member.filename.lower().endswith(".gz"):
            with gzip.open(stream) as inner:
                return _bounded(inner, spent)
        return _bounded(stream, spent)


def _bounded(stream: Any, spent: list[int]) -> bytes:
    pieces = io.BytesIO()
    while piece := stream.read(_PIECE):
        pieces.write(piece)
        spent[0] += len(piece)
        if pieces.tell() > LARGEST_MEMBER:
            raise ValueError(f"it decompresses to more than {LARGEST_MEMBER // 1_000_000} MB")
        if spent[0] > LARGEST_ARCHIVE:
            raise ValueError(f"the zip decompresses to more than {LARGEST_ARCHIVE // 1_000_000} MB: unpack it first")
    return pieces.getvalue()


def _read_collection(listing: _Listing, place: Path, id_column: str, labels: str | Path | None) -> Pulled:
    tables = [file for file, kind in listing.files if kind == "csv"]
    sources = [(file, kind) for file, kind in listing.files if kind != "csv"]
    own_labels = None
    if not sources:
        sources, tables = [(file, "csv") for file in tables], []
    elif labels is None:
        top = [file for file in tables if "/" not in file.name] or tables
        own_labels = top[0] if len(top) == 1 else None
    if not sources and not listing.refused:
        raise SourceError(f"{place}: there are no structure files in it; read are {KNOWN}")
    pulled, names = _read_all(sources, listing.refused, id_column)
    read = [file for file, _ in sources]
    provenance: dict[str, Any] = {"files": len(sources)}
    if labels is not None:
        pulled = _with_labels(pulled, names, labels, id_column)
    elif own_labels is not None:
        table = _label_table(own_labels.content, f"{place}/{own_labels.name}")
        pulled = join_labels(pulled, names, table, own_labels.name, id_column)
        provenance["labels"] = own_labels.name
        read.append(own_labels)
    provenance["sha256"] = _sha256_of_all(read) if place.is_dir() else _sha256(place)
    ignored = len(listing.ignored) + len(tables) - (own_labels is not None)
    if ignored:
        provenance["ignored"] = ignored
    return replace(pulled, provenance=provenance | pulled.provenance)


def _read_all(
    files: list[tuple[StructureFile, str]], refused: list[Refusal], id_column: str
) -> tuple[Pulled, list[str]]:
    """All files as one batch without repeated identifiers, and the name of each structure's file."""
    file_column = "\0file"  # the name travels as a column, so that it stays in step when duplicates go
    structures, columns, refused = [], [], list(refused)
    for file, kind in files:
        try:
            part = _read_one(file, kind, id_column)
        except Exception as error:  # a parser's; one bad file must not cost the others
            refused.append(Refusal(file.name, "parse", reason_of(error)))
            continue
        refused += part.refused
        if len(part.structures):
            structures.append(part.structures)
            columns.append(part.columns.assign(**{file_column: file.name}))
    frame = pd.concat(columns, ignore_index=True) if columns else pd.DataFrame({file_column: []})
    pulled = without_duplicates(Pulled(Structures.concat(structures), frame, refused))
    return replace(pulled, columns=pulled.columns.drop(columns=file_column)), list(pulled.columns[file_column])


def _read_lone(file: StructureFile, place: Path, kind: str, id_column: str, labels: str | Path | None) -> Pulled:
    try:
        pulled = without_duplicates(_read_one(file, kind, id_column))
    except Exception as error:
        if kind not in _ONE_STRUCTURE:
            raise SourceError(f"{place}: {reason_of(error)}") from error
        pulled = pulled_from_entries([Refusal(file.name, "parse", reason_of(error))])
    if labels is not None:
        pulled = _with_labels(pulled, [file.name] * len(pulled.structures), labels, id_column)
    return replace(pulled, provenance={"files": 1, "sha256": _sha256(place), **pulled.provenance})


def _read_one(file: StructureFile, kind: str, id_column: str) -> Pulled:
    return _read_csv_source(file, id_column) if kind == "csv" else read_file(file, kind, id_column)


def _with_labels(pulled: Pulled, names: list[str], labels: str | Path, id_column: str) -> Pulled:
    place = Path(labels).expanduser()
    if not place.is_file() or kind_and_stem(place.name)[0] != "csv":
        wrong = "isn't one" if place.exists() else "doesn't exist"
        raise SourceError(f"{labels}: labels are read from a CSV file, and this {wrong}")
    joined = join_labels(pulled, names, _label_table(partial(_disk_content, place), str(labels)), place.name, id_column)
    return replace(joined, provenance={**joined.provenance, "labels": place.name, "labels_sha256": _sha256(place)})


def _label_table(content: Callable[[], bytes], where: str) -> pd.DataFrame:
    try:
        return read_csv(content())
    except Exception as error:
        raise SourceError(f"{where}: {reason_of(error, 'not a readable CSV')}") from error


def _read_csv_source(file: StructureFile, id_column: str) -> Pulled:
    """A CSV whose rows name a structure file each, or hold the text of a CIF."""
    table = read_csv(file.content())
    column = next((name for name in FILE_COLUMNS if name in table.columns), None)
    if column is None:
        wanted = f"a structure is needed: a column {', '.join(FILE_COLUMNS)} that names a structure file"
        if {"formula", "composition"} & {name.lower() for name in table.columns}:
            wanted += " (compositions alone have no structures to screen; atomsets train and predict take them)"
        raise SourceError(f"{wanted}; found {', '.join(table.columns)}")
    records = table.drop(columns=column).to_dict("records")
    split = [split_id({str(name): value for name, value in record.items()}, id_column) for record in records]
    references = [None if pd.isna(value) else str(value).strip() for value in table[column]]
    own_names = [kind_and_stem(name)[1] if name and not _is_text(name) else None for name in references]
    ids = default_ids([inside or name for (inside, _), name in zip(split, own_names, strict=True)], file.stem)
    found: list[Entry | Refusal] = []
    for material_id, reference, (_, columns) in zip(ids, references, split, strict=True):
        try:
            found.append(Entry(material_id, _referenced(reference, file), columns))
        except Exception as error:
            found.append(Refusal(material_id, "parse", reason_of(error)))
    return pulled_from_entries(found)


def _referenced(reference: str | None, file: StructureFile) -> Any:
    """The one structure a row of a CSV means."""
    if not reference:
        raise ValueError("the row names no structure file")
    if _is_text(reference):
        return structure_from(reference)
    if file.path is None:
        raise ValueError("a CSV inside a zip can't name files: unpack it first")
    kind, stem = kind_and_stem(reference)
    place = file.path.parent / Path(reference).expanduser()
    if not place.is_file():
        raise ValueError(f"there is no file {reference}")
    if kind in ("", "zip", "csv"):
        raise ValueError(f"{reference} is of no kind that holds a structure")
    pulled = read_file(StructureFile(reference, stem, lambda: _disk_content(place), place), kind, "")
    if pulled.n_seen != 1:
        raise ValueError(f"{reference} holds {pulled.n_seen} structures, one is needed")
    if pulled.refused:
        raise ValueError(pulled.refused[0].reason)
    return pulled.structures.to_pymatgen()[0]


def _is_text(reference: str) -> bool:
    """Whether a cell holds a structure itself instead of the name of a file."""
    return "\n" in reference or reference.startswith("{")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_of_all(files: list[StructureFile]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        try:
            content = _sha256(file.path) if file.path else ""
        except OSError:  # refused already
            content = "unreadable"
        digest.update(f"{file.name}\t{content}\n".encode())
    return digest.hexdigest()
