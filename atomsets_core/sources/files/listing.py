"""What lies in a folder or zip, and the bytes of each file of it, never more of them than is reasonable."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from atomsets_core.sources.entries import one_line, reason_of
from atomsets_core.structures import Refusal

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".contcar": "poscar",
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".db": "ase database",
    ".csv": "csv",
    ".zip": "zip",
}
_NEVER_COMPRESSED = ("parquet", "ase database", "zip")
KNOWN = "Parquet, pymatgen JSON, CIF, POSCAR, extended XYZ, an ASE database, CSV, or a folder or zip of those"

LARGEST_FILE = 4_000_000_000  # bytes of a file on the disk, decompressed
LARGEST_MEMBER = 200_000_000  # bytes of one zip member, decompressed
LARGEST_ARCHIVE = 4_000_000_000  # bytes of all members together
LARGEST_RATIO = 250  # decompressed to compressed bytes; text seldom gets beyond 50, bombs reach 1,000
_ALWAYS_ALLOWED = 16_000_000  # bytes up to which the ratio doesn't matter
_PIECE = 1 << 16


def kind_and_stem(name: str) -> tuple[str, str]:
    """Format of a file by its name ("" where unknown), and the name without the format's extension."""
    compressed = name.lower().endswith(".gz")
    plain = name[:-3] if compressed else name
    path = PurePosixPath(plain)
    kind = SUFFIXES.get(path.suffix.lower(), "")
    if kind and not (compressed and kind in _NEVER_COMPRESSED):
        return kind, plain[: -len(path.suffix)]
    if path.name.upper().startswith(("POSCAR", "CONTCAR")):
        return "poscar", plain
    return "", name


@dataclass(frozen=True)
class StructureFile:
    """One file to read, on a disk or inside a zip; small enough to be sent to a worker.

    Attributes:
        name: relative name with "/" between folders; what refusals and default identifiers are made of.
        kind: its format, see `SUFFIXES`.
        stem: the name without the extension of its format.
        path: where the file lies on a disk, or the zip that holds it.
        member: its name inside the zip; "" on a disk.
        size: bytes, as stored.
        lone: it was asked for by itself, so no other file's identifiers can collide with its own.
    """

    name: str
    kind: str
    stem: str
    path: Path
    member: str = ""
    size: int = 0
    lone: bool = False

    def content(self) -> bytes:
        """The bytes, decompressed.

        Raises:
            ValueError: there are more of them than the limits allow, or the zip member can't be read.
            OSError: the file can't be read.
        """
        if self.member:
            return _member_content(_archive(self.path, self.path.stat().st_mtime_ns), self.member)
        size = self.path.stat().st_size
        if self.path.name.lower().endswith(".gz"):
            with gzip.open(self.path) as stream:
                return _bounded(stream, size, LARGEST_FILE)
        if size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE // 1_000_000} MB: split it")
        return self.path.read_bytes()

    def text(self) -> str:
        """The content as text; bytes that aren't UTF-8 (names in comments, mostly) are replaced."""
        return self.content().decode("utf-8-sig", errors="replace")


def file_on_disk(path: Path, name: str | None = None, *, lone: bool = False) -> StructureFile:
    """A file by its path, called `name` in messages."""
    kind, stem = kind_and_stem(name or path.name)
    return StructureFile(name or path.name, kind, stem, path, size=path.stat().st_size, lone=lone)


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
        elif kind == "zip":
            try:
                listing.extend(list_zip(path, f"{name}/"))
            except (zipfile.BadZipFile, OSError) as error:
                listing.refuse(name, reason_of(error, "not a readable zip"))
        elif kind:
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
        elif kind == "zip":
            listing.refuse(prefix + name, "a zip inside of a zip isn't read: unpack the outer one")
        elif not kind:
            listing.ignored.append(prefix + name)
        else:
            # a member can't give more than its header states, nor more than its compression allows
            total += min(member.file_size, LARGEST_RATIO * member.compress_size + _ALWAYS_ALLOWED)
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


@lru_cache(maxsize=2)
def _archive(path: Path, _mtime: int) -> zipfile.ZipFile:
    # kept open: reading the table of contents anew for each of 100,000 members takes hours
    return zipfile.ZipFile(path)


def _member_content(archive: zipfile.ZipFile, name: str) -> bytes:
    """Bytes of a member, never more than the limits whatever its header says."""
    member = archive.getinfo(name)
    if member.flag_bits & 1:
        raise ValueError("it is encrypted: pack it again without a password")
    # the other methods of zipfile decompress a whole piece at once, however large it gets
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("its compression isn't read: pack it with plain deflate")
    with archive.open(member) as stream:
        if name.lower().endswith(".gz"):
            with gzip.open(stream) as inner:
                return _bounded(inner, member.compress_size, LARGEST_MEMBER)
        return _bounded(stream, member.compress_size, LARGEST_MEMBER)


def _bounded(stream: Any, compressed: int, largest: int) -> bytes:
    pieces = io.BytesIO()
    while piece := stream.read(_PIECE):
        pieces.write(piece)
        size = pieces.tell()
        if size > largest:
            raise ValueError(f"it decompresses to more than {largest // 1_000_000} MB")
        if size > _ALWAYS_ALLOWED and size > LARGEST_RATIO * compressed:
            raise ValueError(f"it decompresses to more than {LARGEST_RATIO} times its size, as no structures do")
    return pieces.getvalue()


def sha256_of(path: Path) -> str:
    """Digest of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_all(files: list[StructureFile], digests: Mapping[Path, str]) -> str:
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
