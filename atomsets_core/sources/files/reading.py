"""Which files a folder or zip holds, and structures and labels from them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from atomsets_core.sources.base import (
    Pulled,
    SourceError,
    StructureFile,
    one_line,
    pulled_from_entries,
    reason_of,
    without_duplicates,
)
from atomsets_core.sources.columns import ENERGY, PER_CELL, read_columns, with_energies
from atomsets_core.sources.files.formats import (
    FROM_ASE,
    HEAD,
    KNOWN,
    TABLES,
    ZIP,
    NoSuchColumnError,
    bears_sign,
    file_on_disk,
    format_called,
    head_of,
    kind_and_stem,
    read_file,
    read_table_file,
)
from atomsets_core.sources.files.label_tables import join_labels
from atomsets_core.sources.files.parallel import FILE, FanOut, parse_all
from atomsets_core.sources.files.text_tables import FOUND_OUT, OLD_BOOKS, TableOptions, TextTable
from atomsets_core.sources.identifiers import DEFAULT, TOGETHER
from atomsets_core.storage import most_of_member, sha256_of
from atomsets_core.structures import Refusal


def read_path(
    path: str | Path,
    *,
    id_column: str = "material_id",
    labels: str | Path | None = None,
    fan_out: FanOut | None = None,
    table: TableOptions = FOUND_OUT,
) -> Pulled:
    """Structures, and the columns beside them, from whatever file or folder holds them.

    Read are, each also with .gz behind its name where that is usual:

    - Parquet with columns lattice, Z and frac (see `from_arrow`), or with a column `structure` of dicts, JSON or CIF;
    - pymatgen JSON: a Structure dict, a list of them, a dict id -> Structure dict, records with a key `structure`,
      and pandas tables of such in the orients split (matbench), records, columns and table;
    - CIF, POSCAR, XDATCAR, extended XYZ, ASE databases (SQLite, LMDB or JSON): one structure for each block, frame or
      row, its key-value pairs as columns;
    - files of other programs with one structure each, see docs/sources.md;
    - CSV with a column file, cif, path or structure that names a structure file (relative to the CSV) or holds CIF;
    - a folder or zip of those, folders in folders and zips in folders included. Files of other kinds in it are
      passed over, hidden ones too. A single CSV among structure files holds labels.

    An identifier is what the file itself calls the structure (`id_column`, or material_id, mp_id, mbid, id), else
    the file's relative name without extension, with `-0`, `-1`, ... behind it where it holds several; rows of a
    Parquet file read by itself are then called by their number.

    Args:
        path: file or folder.
        id_column: name of the column of identifiers, or of several with commas between them.
        labels: a table with one row for each structure, joined as `join_labels` says.
        fan_out: where the files of a folder or zip are parsed; see `parse_all`.
        table: how tables are read, where that isn't to be found out.

    Returns:
        All entries, each either accepted or refused: what can't be read of a folder is refused by file name, what
        was read and is no usable crystal by identifier. `provenance` holds name, path, number of files and their
        sha256 (of a folder: of the sorted names with the sha256 of each).

    Raises:
        SourceError: the path doesn't exist, is of an unknown kind or holds no entries at all, or all that it holds
            is one table that can't be read.
    """
    if str(path).startswith("file://"):
        path = unquote(urlsplit(str(path)).path)
    place = Path(path).expanduser()
    if "://" in str(path) and not place.exists():
        raise SourceError(
            f"{path}: sources are files of this machine, mp, embedded:NAME or optimade:URL: download it first, and "
            "give its path"
        )
    if not place.exists():
        raise SourceError(f"{path}: there is no such file or folder; check the spelling")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of everything; what matters comes back as a refusal
        pulled = _read_place(place, id_column, labels, fan_out, table)
    if not pulled.n_seen:
        raise SourceError(f"{path}: it holds no structures; read are {KNOWN}")
    return replace(
        pulled, provenance={"name": place.name or place.resolve().name, "path": str(path), **pulled.provenance}
    )


def _read_place(
    place: Path, id_column: str, labels: str | Path | None, fan_out: FanOut | None, table: TableOptions
) -> Pulled:
    if place.is_dir():
        return _read_collection(list_folder(place), place, id_column, labels, fan_out, table)
    if not place.is_file():
        raise SourceError(f"{place}: neither a file nor a folder")
    file = replace(file_on_disk(place, lone=True), table=table)
    if not file.kind and place.suffix.lower() in OLD_BOOKS:
        raise SourceError(f"{place}: of spreadsheets .xlsx are read: save it as .xlsx or .csv")
    if not file.kind:
        raise SourceError(f"{place}: unknown kind of file {place.suffix!r}; read are {KNOWN}")
    if file.kind != ZIP:
        return _read_lone(file, place, id_column, labels)
    try:
        listing = list_zip(place)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"{place}: {reason_of(error, 'not a readable zip')}; pack it again") from error
    return _read_collection(listing, place, id_column, labels, fan_out, table)


def _read_collection(
    listing: Listing,
    place: Path,
    id_column: str,
    labels: str | Path | None,
    fan_out: FanOut | None,
    options: TableOptions,
) -> Pulled:
    tables = [replace(file, table=options) for file in listing.files if file.kind in TABLES]
    sources = [file for file in listing.files if file.kind not in TABLES]
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
    read_beside = read_columns(pulled.columns.drop(columns=FILE))
    beside = read_beside.frame.assign(**{FILE: pulled.columns[FILE]})
    pulled = without_duplicates(replace(pulled, columns=beside, provenance=read_beside.told(pulled.provenance)))
    names = list(pulled.columns[FILE])
    pulled = replace(pulled, columns=pulled.columns.drop(columns=FILE))
    pulled = _with_energies(pulled, {file.kind for file in sources})
    read = list(sources)
    provenance: dict[str, Any] = {"files": len(sources)}
    if labels is not None:
        pulled = _with_labels(pulled, names, labels, id_column, options)
    elif own_labels is not None:
        table = _label_table(own_labels, f"{place}/{own_labels.name}")
        pulled = join_labels(pulled, names, table, own_labels.name, id_column)
        provenance["labels"] = own_labels.name
        read.append(own_labels)
    provenance["sha256"] = _sha256_of_all(read, parsed.digests) if place.is_dir() else sha256_of(place)
    ignored = len(listing.ignored) + len(tables) - (own_labels is not None)
    if ignored:
        provenance["ignored"] = ignored
    return replace(pulled, provenance=provenance | pulled.provenance)


def _sha256_of_all(files: list[StructureFile], digests: Mapping[Path, str]) -> str:
    """Digest of the sorted names and of the digest of each file; those in a zip count with the zip's.

    Args:
        files: that were read.
        digests: as far as they are known.
    """
    digest = hashlib.sha256()
    known = dict(digests)
    for file in sorted(files, key=lambda file: file.name):
        if file.path not in known:
            try:
                known[file.path] = sha256_of(file.path)
            except OSError:  # refused already
                known[file.path] = "unreadable"
        digest.update(f"{file.name}\t{known[file.path]}\n".encode())
    return digest.hexdigest()


def _read_lone(file: StructureFile, place: Path, id_column: str, labels: str | Path | None) -> Pulled:
    if labels is None and (wrong := _lacks(file, id_column)):
        raise SourceError(f"{place}: {wrong}")
    try:
        try:
            found = read_file(file, id_column)
        except NoSuchColumnError:
            if labels is None:
                raise
            found = read_file(file, DEFAULT)  # the column is one of the labels
        pulled = without_duplicates(found if isinstance(found, Pulled) else pulled_from_entries(found))
    except Exception as error:
        if not format_called(file.kind).single:
            raise SourceError(f"{place}: {reason_of(error)}") from error
        pulled = pulled_from_entries([Refusal(file.name, "parse", reason_of(error))])
    pulled = _with_energies(pulled, {file.kind})
    if labels is not None:
        pulled = _with_labels(pulled, [file.name] * len(pulled.structures), labels, id_column, file.table)
    return replace(pulled, provenance={"files": 1, "sha256": sha256_of(place), **pulled.provenance})


_WITH_KEYS = ("pymatgen JSON", "JSON lines", "extended XYZ")
"""Formats of which each record has its own keys."""


def _lacks(file: StructureFile, id_column: str) -> str:
    """A sentence where a key of identifiers was asked for that nothing in a file of records has; "" else."""
    if id_column in ("", DEFAULT) or file.kind not in _WITH_KEYS:
        return ""
    try:
        content = file.content()
    except (OSError, ValueError):  # said where it is read
        return ""
    for name in map(str.strip, id_column.split(TOGETHER)):
        key = name.rpartition(".")[2]
        if key.encode() not in content and json.dumps(key).encode()[1:-1] not in content:
            return f"no column {name!r} for the identifiers (id_column): no record has it"
    return ""


def _with_energies(pulled: Pulled, kinds: set[str]) -> Pulled:
    """Say of the energies of ASE's calculators what they are."""
    if ENERGY not in pulled.columns or PER_CELL in pulled.provenance or not kinds & set(FROM_ASE):
        return pulled
    return replace(pulled, provenance=with_energies(pulled.provenance, corrected=True))


def _with_labels(pulled: Pulled, names: list[str], labels: str | Path, id_column: str, options: TableOptions) -> Pulled:
    table, name, digest = read_labels(labels, options)
    joined = join_labels(pulled, names, table, name, id_column)
    return replace(joined, provenance={**joined.provenance, "labels": name, "labels_sha256": digest})


def read_labels(labels: str | Path, options: TableOptions) -> tuple[TextTable, str, str]:
    """A table of labels, what messages call it, and its sha256.

    Raises:
        SourceError: it doesn't exist, or is no table.
    """
    place = Path(labels).expanduser()
    file = replace(file_on_disk(place, lone=True), table=options) if place.is_file() else None
    if file is None or file.kind not in TABLES:
        wrong = "isn't one" if place.exists() else "doesn't exist"
        raise SourceError(f"{labels}: labels are read from a CSV file or a spreadsheet, and this {wrong}")
    return (
        _label_table(file, str(labels)),
        place.name,
        sha256_of(place),
    )


def _label_table(file: StructureFile, where: str) -> TextTable:
    try:
        return read_table_file(file)
    except Exception as error:
        raise SourceError(f"{where}: {reason_of(error)}") from error


LARGEST_ARCHIVE = 4_000_000_000  # bytes of all members of a zip together


@dataclass
class Listing:
    """What lies in a folder or archive.

    Attributes:
        files: files to read, sorted by name.
        refused: files that are not even opened.
        ignored: names of files of unknown formats.
    """

    files: list[StructureFile] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def refuse(self, name: str, reason: str) -> None:
        """A file that is not opened."""
        self.refused.append(Refusal(one_line(name), "parse", reason))

    def extend(self, other: Listing) -> None:
        """What lies in an archive within the folder."""
        self.files += other.files
        self.refused += other.refused
        self.ignored += other.ignored


def list_folder(place: Path) -> Listing:
    """All files below a folder, those in zips included; hidden ones are left out.

    Links to files are read, whatever they point to. Links to folders are refused, since they may lead in circles.
    """
    listing = Listing()
    for name, path, is_link_to_folder in sorted(_walk(place)):
        if _hidden(name):
            continue
        kind, stem = kind_and_stem(name)
        if is_link_to_folder:
            listing.refuse(name, "a link to a folder isn't followed: give that folder by itself")
            continue
        try:
            status = path.stat()
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            listing.refuse(name, "it is a link to a file that doesn't exist" if gone else reason_of(error))
            continue
        if not stat.S_ISREG(status.st_mode):
            listing.refuse(name, "it is no regular file")
        elif kind == ZIP:
            try:
                listing.extend(list_zip(path, f"{name}/"))
            except (zipfile.BadZipFile, OSError) as error:
                listing.refuse(name, reason_of(error, "not a readable zip"))
        elif kind and bears_sign(name, kind, partial(head_of, path)):
            listing.files.append(StructureFile(name, kind, stem, path, size=status.st_size))
        else:
            listing.ignored.append(name)
    listing.files.sort(key=lambda file: file.name)
    return listing


def _walk(place: Path) -> Iterator[tuple[str, Path, bool]]:
    """Relative name and path of every file, and of every link to a folder."""
    for folder, folders, files in os.walk(place):  # doesn't follow links to folders
        here = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            yield (here / name).relative_to(place).as_posix(), here / name, False
        for name in folders:
            if (here / name).is_symlink():
                yield (here / name).relative_to(place).as_posix(), here / name, True


def _head_of_member(place: Path, member: zipfile.ZipInfo) -> bytes:
    try:
        with zipfile.ZipFile(place) as archive, archive.open(member) as file:
            return file.read(HEAD)
    except Exception:  # whatever a damaged member raises: it is refused where it is read
        return b""


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def list_zip(place: Path, prefix: str = "") -> Listing:
    """All members of a zip whose names stay inside of it.

    Args:
        place: of the zip.
        prefix: put before the names of the members.

    Raises:
        zipfile.BadZipFile: it is none.
        OSError: it can't be read.
    """
    listing, total = Listing(), 0
    try:
        with zipfile.ZipFile(place) as archive:
            members = sorted(archive.infolist(), key=lambda info: info.filename)
    except (zipfile.BadZipFile, OSError):
        raise
    except Exception as error:  # zipfile raises whatever its reading of a damaged directory raises
        raise zipfile.BadZipFile(f"damaged: {error}") from error
    for member in members:
        name = member.filename.replace("\\", "/")
        if not name:
            listing.refuse(prefix + "?", "a file without a name")
            continue
        if member.is_dir():
            continue
        kind, stem = kind_and_stem(name)
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
            listing.refuse(prefix + name, "its name points outside of the zip")
        elif _hidden(name):
            continue
        elif stat.S_ISLNK(member.external_attr >> 16):
            listing.refuse(prefix + name, "it is a link, and those are not followed in a zip")
        elif kind == ZIP:
            listing.refuse(prefix + name, "a zip inside of a zip isn't read: unpack the outer one")
        elif not kind or not bears_sign(name, kind, partial(_head_of_member, place, member)):
            listing.ignored.append(prefix + name)
        else:
            total += most_of_member(member)
            if total > LARGEST_ARCHIVE:
                listing.refuse(
                    prefix + name,
                    f"the zip decompresses to more than {LARGEST_ARCHIVE // 1_000_000} MB: unpack it first",
                )
                continue
            listing.files.append(
                StructureFile(prefix + name, kind, prefix + stem, place, member.filename, member.compress_size)
            )
    return listing
