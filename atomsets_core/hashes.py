"""Content hashes looked up by the hundred thousand: 16 bytes each instead of a string object."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class HashIndex:
    """Positions of content hashes.

    Args:
        hashes: (n,) 32 hex digits each; one may come twice.

    Attributes:
        first: (m,) where each of the m different ones came first.
        inverse: (n,) number from 0 to m - 1 of each hash; equal hashes have the same.
    """

    def __init__(self, hashes: Iterable[str]) -> None:
        self._sorted, first, inverse = np.unique(_digests(hashes), return_index=True, return_inverse=True)
        self.first: IntArray = first.astype(np.int64)
        self.inverse: IntArray = inverse.astype(np.int64)

    def __len__(self) -> int:
        """Different ones."""
        return len(self._sorted)

    def find(self, hashes: Iterable[str]) -> IntArray:
        """Number of each of these hashes; -1 for those that are not in the index."""
        wanted = _digests(hashes)
        if not len(self._sorted):
            return np.full(len(wanted), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(self._sorted[at] == wanted, at, -1)


def _digests(hashes: Iterable[str]) -> npt.NDArray[np.bytes_]:
    # Some at a time, since each is a string object for as long as it is joined.
    texts, parts = iter(hashes), []
    while part := "".join(itertools.islice(texts, 4096)):
        parts.append(bytes.fromhex(part))
    # Fixed length, so numpy's cutting of closing zero bytes makes no two of them equal.
    return np.frombuffer(b"".join(parts), dtype="S16")
