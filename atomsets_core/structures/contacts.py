"""How near two atoms may come: half the sum of their covalent radii, below which a structure is broken.

Wrong symmetry, wrong units and sites that stand twice put atoms on top of each other, and a network predicts from them
as from any crystal. One distance for all elements can't tell: H-H is 0.74 Angstrom long, and a metal 0.9 Angstrom from
oxygen is as impossible as one at 0.3.
"""

from __future__ import annotations

import numpy as np
from pymatgen.core import Element

from atomsets_core.structures.batch import LARGEST_ATOMIC_NUMBER, FloatArray, IntArray

NEAREST = 0.5
"""Share of the sum of two covalent radii. The shortest bond of 51,149 crystals of the Materials Project is 0.61 of
it, and of 154,925 of today 28 have a shorter one than 0.5, V-O at 0.97 and H-N at 0.47 Angstrom among them:
benchmarks/contacts.py."""

COVALENT_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.73, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06,
    2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.50, 1.42, 1.38, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16,
    2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40,
    2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75,
    1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15, 2.06,
    2.00, 1.96, 1.90, 1.87, 1.80, 1.69,
)  # fmt: skip
"""Angstrom, of hydrogen to curium: Cordero et al., Dalton Trans. 2832 (2008), of sp2 carbon and low-spin metals."""

_RADII = np.full(LARGEST_ATOMIC_NUMBER + 1, COVALENT_RADII[-1])
_RADII[1 : len(COVALENT_RADII) + 1] = COVALENT_RADII


def radii(numbers: IntArray) -> FloatArray:
    """(n,) covalent radii in Angstrom of (n,) atomic numbers, in their shape; those beyond curium have curium's."""
    return np.asarray(_RADII[numbers])


def reach(numbers: IntArray) -> FloatArray:
    """(n,) Angstrom, from (n,) atomic numbers: two atoms nearer than the sum of theirs overlap."""
    return NEAREST * radii(numbers)


def overlapping(first: int, second: int, distance: float, numbers: IntArray) -> str:
    """Why a structure with two atoms so near is refused.

    Args:
        first: one of them, a row of `numbers`.
        second: the other.
        distance: Angstrom.
        numbers: (n,) atomic numbers of the structure.
    """
    pair = numbers[[first, second]]
    names = " and ".join(Element.from_Z(int(number)).symbol for number in pair)
    usual = float(radii(pair).sum())
    return (
        f"overlapping atoms: sites {first} and {second} are {distance:.3f} Angstrom apart ({names}, whose covalent "
        f"radii add up to {usual:.2f})"
    )
