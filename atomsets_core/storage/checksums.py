"""Checksums of the results of a campaign, so that a file that was cut, changed or exchanged is never taken for one.

Beside a result `predictions/x.parquet` stands `checksums/predictions/x.parquet.sha256`, in the form that `sha256sum
--check` reads. It is written when the result is safely on the disk; a result without one, or with another one, counts
as not there. Feature shards have entries of their own (`atomsets_core.features.shards`), since campaigns share them.
"""

from __future__ import annotations

import hashlib
import re

from atomsets_core.storage.store import StorageError, Store

FOLDER = "checksums"
ENDING = ".sha256"
_LINE = re.compile(rb"([0-9a-f]{64})  (.+)\n")
_PIECE = 1 << 20
_LONGEST = 4096
"""Bytes of a checksum file beyond which it is none."""


def seal(store: Store, *names: str) -> None:
    """Write the checksums of files that are there.

    Raises:
        StorageError: one of them is not, or the checksum can't be written.
    """
    for name in names:
        store.write(_place(name), f"{digest_of(store, name)}  {name}\n".encode())


def unseal(store: Store, *names: str) -> None:
    """Take the checksums away: the files will be written anew."""
    for name in names:
        store.remove(_place(name))


def fault(store: Store, name: str) -> str:
    """What is wrong with a result; "" where it is what was written."""
    if not store.exists(name):
        return "is gone" if store.exists(_place(name)) else "is not there"
    try:
        expected = _expected(store, name)
    except StorageError:
        return "has no checksum: the run that wrote it was stopped, or it was put there by somebody else"
    if expected is None:
        return f"can't be checked: {_place(name)} is damaged"
    try:
        found = digest_of(store, name)
    except StorageError as error:
        return str(error)
    return "" if found == expected else "is damaged or was changed: its sha256 is not the one it was written with"


def sound(store: Store, name: str) -> bool:
    """Whether a result is there and what was written."""
    return not fault(store, name)


def digest_of(store: Store, name: str) -> str:
    """sha256 of a file, read in pieces.

    Raises:
        StorageError: it can't be read.
    """
    digest = hashlib.sha256()
    try:
        with store.open(name) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise StorageError(f"{store.url(name)} can't be read: {error.strerror or error}") from error
    return digest.hexdigest()


def sealed(store: Store) -> list[str]:
    """Names of all results that have a checksum, sorted."""
    prefix = len(FOLDER) + 1
    return [name[prefix : -len(ENDING)] for name in store.all_names(FOLDER) if name.endswith(ENDING)]


def _place(name: str) -> str:
    return f"{FOLDER}/{name}{ENDING}"


def _expected(store: Store, name: str) -> str | None:
    """The digest that stands in the checksum file; None where that is damaged."""
    if store.size(_place(name)) > _LONGEST:
        return None
    match = _LINE.fullmatch(store.read(_place(name)))
    return match[1].decode() if match and match[2] == name.encode() else None
