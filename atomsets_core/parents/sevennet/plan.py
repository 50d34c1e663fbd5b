"""Which path of a SevenNet layer stands where: the order of weights, couplings and messages that the kernel works in.

A path takes an atom's vectors of degree l1 and the harmonics of degree l2 of a bond to a message of degree l3. All of
it follows from the degrees a layer reads and makes, so that the kernel's code is written from it before there are
weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

CHANNELS = {2: (128, 64, 32), 3: (128, 64, 32, 32)}
"""Vectors of degree 0, 1, ... that an atom has, by their highest degree, of the networks the kernel is written for."""

PAD = 32
"""Numbers that a block of couplings is a multiple of: two of the widest vector registers."""


@dataclass(frozen=True)
class Path:
    """One path of a layer.

    Attributes:
        l1: degree of the neighbour's vectors; l2, of the harmonics; l3, of the messages.
        channels: vectors of degree l1.
        weight: first of its `channels` columns among the radial weights.
        turn: first of its (2 l3 + 1) (2 l1 + 1) numbers in the matrices of a bond; those of paths with l2 = 0, which
            only copy, aren't kept.
        column: first of its columns in the messages of degree l3.
    """

    l1: int
    l2: int
    l3: int
    channels: int
    weight: int
    turn: int
    column: int

    @property
    def rows(self) -> int:
        """Components of a message."""
        return 2 * self.l3 + 1


@dataclass(frozen=True)
class Plan:
    """The paths of a layer.

    Attributes:
        lmax: highest degree of the harmonics.
        channels: vectors of each degree that the layer reads.
        paths: in the order of the checkpoint.
        columns: radial weights of a bond.
        turns: numbers in the matrices of a bond, padded.
        blocks: degree of harmonics l2 > 0 -> the first of its numbers in the matrices, and how many, padded.
        widths: columns of the messages of each degree that the layer makes.
    """

    lmax: int
    channels: tuple[int, ...]
    paths: tuple[Path, ...]
    columns: int
    turns: int
    blocks: dict[int, tuple[int, int]]
    widths: tuple[int, ...]

    def atom_size(self, degree: int | None = None) -> int:
        """Numbers of an atom in the degrees below `degree`, or in all."""
        return sum((2 * k + 1) * n for k, n in enumerate(self.channels[:degree]))

    def message_size(self, degree: int | None = None) -> int:
        """Numbers of an atom's messages in the degrees below `degree`, or in all."""
        return sum((2 * k + 1) * n for k, n in enumerate(self.widths[:degree]))

    def coupling_start(self, l2: int) -> int:
        """First number of a block among the couplings, which have 2 l2 + 1 rows of it."""
        return sum((2 * k + 1) * size for k, (_, size) in self.blocks.items() if k < l2)


def degrees(highest_in: int, highest_edge: int, highest_out: int) -> list[tuple[int, int, int]]:
    """(l1, l2, l3) with |l1 - l2| <= l3 <= l1 + l2, in the order of the checkpoint's weights."""
    return [
        (l1, l2, l3)
        for l1 in range(highest_in + 1)
        for l2 in range(highest_edge + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, highest_out) + 1)
    ]


@cache
def plan(lmax: int, highest_in: int, highest_out: int) -> Plan:
    """The paths of a layer that reads degrees to `highest_in` and makes messages of degrees to `highest_out`."""
    channels = CHANNELS[lmax][: highest_in + 1]
    found = degrees(highest_in, lmax, highest_out)
    turn_of, blocks, turns = {}, {}, 0
    for degree in range(1, lmax + 1):
        first = turns
        for l1, l2, l3 in found:
            if l2 == degree:
                turn_of[l1, l2, l3] = turns
                turns += (2 * l1 + 1) * (2 * l3 + 1)
        turns += -turns % PAD
        if turns > first:
            blocks[degree] = first, turns - first
    paths, weight, widths = [], 0, [0] * (highest_out + 1)
    for l1, l2, l3 in found:
        paths.append(Path(l1, l2, l3, channels[l1], weight, turn_of.get((l1, l2, l3), 0), widths[l3]))
        weight += channels[l1]
        widths[l3] += channels[l1]
    return Plan(lmax, channels, tuple(paths), weight, turns, blocks, tuple(widths))
