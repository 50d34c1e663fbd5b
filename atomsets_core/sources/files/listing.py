"""What lies in a folder or zip: the files to read, those that are refused, and those of unknown formats."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from atomsets_core.sources.entries import one_line, reason_of
from atomsets_core.sources.files.contents import ALWAYS_ALLOWED, LARGEST_RATIO, StructureFile
from atomsets_core.sources.files.formats import ZIP, kind_and_stem
from atomsets_core.structures import Refusal

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
        elif kind == ZIP:
            listing.refuse(prefix + name, "a zip inside of a zip isn't read: unpack the outer one")
        elif not kind:
            listing.ignored.append(prefix + name)
        else:
            # a member can't give more than its header states, nor more than its compression allows
            total += min(member.file_size, LARGEST_RATIO * member.compress_size + ALWAYS_ALLOWED)
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
