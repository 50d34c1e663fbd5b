"""Scales of a POSCAR: a factor, a volume, or three factors, for direct and Cartesian positions alike."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.files.poscar import read_poscar

MGO = Structure(Lattice([[2.1, 2.1, 0], [2.1, 0, 2.1], [0.3, 2.2, 2.0]]), ["Mg", "O"], [[0, 0, 0], [0.4, 0.5, 0.6]])


def poscar(scale: str, cell: np.ndarray, positions: np.ndarray, kind: str, selective: bool = False) -> str:
    lines = ["MgO", scale, *(" ".join(map(repr, map(float, row))) for row in cell), "Mg O", "1 1"]
    lines += ["Selective dynamics"] if selective else []
    end = " T T F" if selective else ""
    return "\n".join([*lines, kind, *(" ".join(map(repr, map(float, row))) + end for row in positions)]) + "\n"


def assert_same(structure: Structure) -> None:
    np.testing.assert_allclose(structure.lattice.matrix, MGO.lattice.matrix, atol=1e-10)
    np.testing.assert_allclose(structure.cart_coords, MGO.cart_coords, atol=1e-10)


@pytest.mark.parametrize("kind", ["Direct", "Cartesian", "cart", "K"])
@pytest.mark.parametrize("selective", [False, True])
@pytest.mark.parametrize("scale", ["1.0", "2.0", "volume", "three"])
def test_every_scale_gives_the_same_crystal(kind, selective, scale):
    factor = {"1.0": 1.0, "2.0": 2.0, "volume": 1.7, "three": np.array([1.5, 0.5, 2.0])}[scale]
    text = {"volume": f"-{MGO.volume!r}", "three": "1.5 0.5 2.0"}.get(scale, scale)
    positions = MGO.frac_coords if kind == "Direct" else MGO.cart_coords / factor
    assert_same(read_poscar(poscar(text, MGO.lattice.matrix / factor, positions, kind, selective)))


def test_a_volume_keeps_the_bond_of_rock_salt():
    text = "x\n-40.0\n1 0 0\n0 1 0\n0 0 1\nMg O\n1 1\nCartesian\n0 0 0\n.5 .5 .5\n"
    structure = read_poscar(text)
    assert structure.volume == pytest.approx(40)
    assert structure.get_distance(0, 1) == pytest.approx(40 ** (1 / 3) * np.sqrt(3) / 2)  # 2.96 Angstrom


@pytest.mark.parametrize("scale", ["0", "nan", "inf", "1 2", "-1 -1 -1", "abc", ""])
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match="not a readable POSCAR"):
        read_poscar(poscar(scale, MGO.lattice.matrix, MGO.frac_coords, "Direct"))
