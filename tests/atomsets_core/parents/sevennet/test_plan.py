"""Every path of a layer has a place of its own among weights, couplings and messages."""

import itertools

import numpy as np
import pytest

from atomsets_core.parents.sevennet.plan import PAD, plan

KINDS = [(lmax, lmax * reads, lmax * makes) for lmax, reads, makes in itertools.product((2, 3), (0, 1), (0, 1))]


@pytest.mark.parametrize(("lmax", "reads", "makes"), KINDS)
def test_places_fill_what_there_is_once(lmax, reads, makes):
    what = plan(lmax, reads, makes)
    weights, turns = np.zeros(what.columns, int), np.zeros(what.turns, int)
    messages = [np.zeros(width, int) for width in what.widths]
    for path in what.paths:
        assert abs(path.l1 - path.l2) <= path.l3 <= path.l1 + path.l2
        weights[path.weight : path.weight + path.channels] += 1
        messages[path.l3][path.column : path.column + path.channels] += 1
        if path.l2 > 0:
            first, size = what.blocks[path.l2]
            stop = path.turn + path.rows * (2 * path.l1 + 1)
            assert first <= path.turn < stop <= first + size
            turns[path.turn : stop] += 1
    assert (weights == 1).all()
    assert all((columns == 1).all() for columns in messages)
    assert turns.max(initial=0) <= 1
    assert all(first % PAD == size % PAD == 0 for first, size in what.blocks.values())


def test_sizes_of_the_published_networks():
    """SevenNet-0 makes 51 rows of messages a bond in its middle layers, l3i5 156."""
    assert [plan(2, 2, 2).columns, plan(3, 3, 3).columns] == [3 * 128 + 6 * 64 + 6 * 32, 4 * 128 + 9 * 64 + 21 * 32]
    assert [sum(path.rows for path in plan(lmax, lmax, lmax).paths) for lmax in (2, 3)] == [51, 156]
