"""Hashes found by their bytes, and texts that came before."""

from __future__ import annotations

import numpy as np

from atomsets_core.sources.pull import Seen
from atomsets_core.storage.memory import HashIndex, digests

HASHES = ["00" * 16, "ff" * 16, "0a" + "00" * 15, "ff" * 16, "0a" * 15 + "00"]


def test_digests_of_strings_are_those_of_bytes():
    found = digests(HASHES)
    assert [bytes(d).ljust(16, b"\0").hex() for d in found] == HASHES
    assert digests(found) is found
    for given in (HASHES, found, iter(HASHES)):
        index = HashIndex(given)
        assert len(index) == 4
        assert sorted(index.first) == [0, 1, 2, 4]
        np.testing.assert_array_equal(index.find(HASHES), index.inverse)
        np.testing.assert_array_equal(index.find(["0b" * 16]), [-1])
    assert list(HashIndex([]).find(found)) == [-1] * 5


def test_texts_that_came_before_are_known_across_blocks():
    rng = np.random.default_rng(0)
    seen, known = Seen(), set()
    for size in (1, 7, 0, 300, 300, 5, 5, 1000, 3):
        texts = np.array([f"mp-{i}" for i in rng.integers(0, 900, size)], dtype=object)
        expected = []
        for text in texts:
            expected.append(text not in known)
            known.add(text)
        assert list(seen.new(texts)) == expected
    assert sum(map(len, seen.known)) == len(known)
    assert len(seen.known) < 9
