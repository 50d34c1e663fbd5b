"""One file to read, on a disk or in a zip, and its bytes, never more of them than is reasonable."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

LARGEST_FILE = 4_000_000_000  # bytes of a file on the disk, decompressed
LARGEST_MEMBER = 200_000_000  # bytes of one zip member, decompressed
LARGEST_RATIO = 250  # decompressed to compressed bytes; text seldom gets beyond 50, bombs reach 1,000
ALWAYS_ALLOWED = 16_000_000  # bytes up to which the ratio doesn't matter
_PIECE = 1 << 16


@dataclass(frozen=True)
class StructureFile:
    """One file to read, on a disk or inside a zip; small enough to be sent to a worker.

    Attributes:
        name: relative name with "/" between folders; what refusals and default identifiers are made of.
        kind: name of its format, see `atomsets_core.sources.files.formats.FORMATS`.
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
        if size > ALWAYS_ALLOWED and size > LARGEST_RATIO * compressed:
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
