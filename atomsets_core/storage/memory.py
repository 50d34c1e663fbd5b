"""Much in little memory: an index of content hashes, what this process has held, giving back what is free."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import resource
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


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


IntArray = npt.NDArray[np.int64]

Digests = npt.NDArray[np.bytes_]

_DIGEST = np.dtype("S16")


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
