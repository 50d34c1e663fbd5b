"""Content hashes looked up by the hundred thousand: 16 bytes each instead of a string object."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

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
