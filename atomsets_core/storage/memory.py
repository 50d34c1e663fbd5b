"""Memory within bounds: what files from elsewhere may take, what this process holds, an index that takes little.

A zip of some kilobytes can decompress to terabytes, a Parquet file of that size announce billions of equal values, a
JSON file arrays of any size. What a file says of itself is checked before anything is allocated, and what then comes is
counted; what would take more than a file of its size reasonably holds is refused. Files of safetensors need no check
here: their library compares what they announce with what they hold before it allocates anything.
"""

from __future__ import annotations

import bz2
import contextlib
import ctypes
import gc
import gzip
import io
import itertools
import lzma
import math
import resource
import sys
import zipfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

IntArray = npt.NDArray[np.int64]

Digests = npt.NDArray[np.bytes_]

_DIGEST = np.dtype("S16")

LARGEST_FILE = 4_000_000_000
"""Bytes of a file on the disk, decompressed."""

LARGEST_MEMBER = 200_000_000
"""Bytes of one zip member, decompressed."""

LARGEST_TABLE = 8_000_000_000
"""Bytes of a table in memory."""

LARGEST_RATIO = 250
"""Decompressed to compressed bytes; text seldom gets beyond 50, bombs reach 1,000."""

ALWAYS_ALLOWED = 16_000_000
"""Bytes up to which the ratio doesn't matter."""

LARGEST_PIECE = 1_000_000_000
"""Bytes that the texts of the rows read at once can take at worst."""

_PIECE = 1 << 16

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


def file_content(path: Path, member: str = "") -> bytes:
    """The bytes of a file, or of a member of the zip that it is; decompressed where the name says that they aren't.

    Raises:
        ValueError: there are more of them than the limits allow, or the zip member can't be read.
        OSError: the file can't be read.
    """
    if member:
        return _member_content(_archive(path, path.stat().st_mtime_ns), member)
    size = path.stat().st_size
    if opened := _opener(path.name):
        with opened(path) as stream:
            return _bounded(stream, size, LARGEST_FILE)
    if size > LARGEST_FILE:
        raise ValueError(f"it is larger than {LARGEST_FILE // 1_000_000} MB: split it")
    return path.read_bytes()


COMPRESSED = (".gz", ".bz2", ".xz")
"""Ends of the names of files that are decompressed as they are read."""


def _opener(name: str) -> Callable[[Any], Any] | None:
    """What opens a compressed file; None for one that isn't."""
    openers: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return next((openers[end] for end in COMPRESSED if name.lower().endswith(end)), None)


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
        if opened := _opener(name):
            with opened(stream) as inner:
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


def most_of_member(member: zipfile.ZipInfo) -> int:
    """Bytes that a member of a zip can give: no more than its header states, nor than its compression allows."""
    return min(member.file_size, LARGEST_RATIO * member.compress_size + ALWAYS_ALLOWED)


def check_parquet(file: pq.ParquetFile, size: int, largest: int | None = None) -> int:
    """How many rows of a Parquet file can be read at once.

    Args:
        file: opened.
        size: of the file, bytes.
        largest: bytes it may take in memory; by default `LARGEST_TABLE`.

    Raises:
        ValueError: by its own account it decompresses or decodes to more than is reasonable.
    """
    largest = LARGEST_TABLE if largest is None else largest
    decoded = decompressed = longest = 0
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            width = _WIDTHS.get(column.physical_type) or file.metadata.schema.column(number).length
            decoded += max(column.num_values, 0) * width
            decompressed += max(column.total_uncompressed_size, 0)
            if column.physical_type == "BYTE_ARRAY":
                longest = max(longest, column.total_uncompressed_size)
    if decompressed > max(ALWAYS_ALLOWED, LARGEST_RATIO * size):
        raise ValueError(f"it decompresses to more than {LARGEST_RATIO} times its size, as no structures do")
    if max(decoded, decompressed) > largest:
        raise ValueError(f"it decodes to {max(decoded, decompressed) // 1_000_000} MB, {largest // 1_000_000} are read")
    return max(1, min(1 << 16, LARGEST_PIECE // max(longest, 1)))


def read_parquet(source: Any, size: int, columns: list[str] | None = None, largest: int | None = None) -> pa.Table:
    """A Parquet file, piece by piece until it is read or is too large.

    Args:
        source: path or file that pyarrow takes.
        size: of the file, bytes.
        columns: to be read; all by default.
        largest: see `check_parquet`.

    Raises:
        ValueError: it is too large in memory.
        pa.ArrowException: it isn't Parquet, or damaged; OSError likewise.
    """
    largest = LARGEST_TABLE if largest is None else largest
    with pq.ParquetFile(source) as file:
        if missing := set(columns or ()) - set(file.schema_arrow.names):
            raise pa.ArrowInvalid(f"there is no column {min(missing)}")
        rows = check_parquet(file, size, largest)
        if rows >= min(file.metadata.num_rows, 1 << 16) and not _has_texts(file):
            return file.read(columns=columns)
        pieces, held = [], 0
        for batch in file.iter_batches(rows, columns=columns):
            pieces.append(batch)
            held += batch.nbytes
            if held > largest:
                raise ValueError(f"it decodes to more than {largest // 1_000_000} MB")
        # the schema of the read columns only: of no rows there are no batches
        schema = pieces[0].schema if pieces else file.read(columns=columns).schema
        return pa.Table.from_batches(pieces, schema.with_metadata(file.schema_arrow.metadata))


def _has_texts(file: pq.ParquetFile) -> bool:
    schema = file.metadata.schema
    return any(schema.column(i).physical_type == "BYTE_ARRAY" for i in range(len(schema)))


def check_arrays(value: Any) -> None:
    """Refuse ASE's JSON where it announces an array larger than what it holds, which ASE would allocate.

    Raises:
        ValueError: it does.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            for name in ("__ndarray__", "__complex_ndarray__"):
                if name in item:
                    _check_array(item[name])


def _check_array(array: Any) -> None:
    try:
        shape, kind, data = array
        size = math.prod(int(length) for length in shape)
        held = len(data)
    except (TypeError, ValueError) as error:
        raise ValueError("it holds an array that is none") from error
    if not isinstance(kind, str) or size not in (held, held / 2) or kind.startswith(("O", "object")):
        raise ValueError(f"it announces an array of {size} numbers and holds {held}")


def peak_mb() -> float:
    """Most resident memory of this process, MB.

    Linux says it itself; `getrusage`, which others have, begins with the figure of the process that forked this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def release() -> None:
    """Give back to the system what young cycles hold and what the allocators of Arrow and the C library keep."""
    gc.collect(1)
    pa.default_memory_pool().release_unused()
    if (library := _c_library()) is not None:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _c_library() -> Any:
    """The C library where it has glibc's malloc_trim, else None."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.malloc_trim.argtypes, library.malloc_trim.restype = [ctypes.c_size_t], ctypes.c_int
        return library
    return None


class HashIndex:
    """Positions of content hashes.

    Args:
        hashes: (n,) 32 hex digits each, or `digests` of them; one may come twice.

    Attributes:
        first: (m,) where each of the m different ones came first.
        inverse: (n,) number from 0 to m - 1 of each hash; equal hashes have the same.
    """

    def __init__(self, hashes: Iterable[str] | Digests) -> None:
        self._sorted, first, inverse = np.unique(digests(hashes), return_index=True, return_inverse=True)
        self.first: IntArray = first.astype(np.int64)
        self.inverse: IntArray = inverse.astype(np.int64)

    def __len__(self) -> int:
        """Number of different hashes."""
        return len(self._sorted)

    def find(self, hashes: Iterable[str] | Digests) -> IntArray:
        """(k,) number of each of these k hashes; -1 for those that are not in the index."""
        return position(digests(hashes), self._sorted)


def position(wanted: Digests, among: Digests) -> IntArray:
    """(n,) where each of them is in a sorted array; -1 for those that are not in it."""
    if not len(among):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return np.where(among[at] == wanted, at, -1)


def digests(hashes: Iterable[str] | Digests) -> Digests:
    """(n,) hashes of 32 hex digits as 16 bytes each.

    The length is fixed, so that numpy's cutting of closing zero bytes makes no two of them equal.
    """
    if isinstance(hashes, np.ndarray) and hashes.dtype == _DIGEST:
        return hashes
    # Some at a time, since each is a string object for as long as it is joined.
    texts, parts = iter(hashes), []
    while part := "".join(itertools.islice(texts, 4096)):
        parts.append(bytes.fromhex(part))
    return np.frombuffer(b"".join(parts), dtype=_DIGEST)
