"""Scales of a POSCAR: a factor, a volume or three factors, for direct and Cartesian positions; frames of an XDATCAR."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.trajectory import Trajectory

from atomsets_core.sources.files.poscar import read_poscar
from atomsets_core.sources.files.reading import read_path

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


FRAMES = Structure(
    Lattice.from_parameters(4.1, 5.2, 6.3, 80, 95, 105), ["Fe", "O", "O"], [[0, 0, 0], [0.4, 0.5, 0.6], [0.9, 0.3, 0.2]]
)


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("writer", ["ase", "pymatgen"])
def test_each_frame_of_an_xdatcar_is_an_entry_under_its_number(tmp_path, writer, growing):
    frames = [FRAMES.copy() for _ in range(3)]
    for step, frame in enumerate(frames):
        frame.translate_sites([1], [0.01 * step, 0, 0])
        if growing:
            frame.scale_lattice((1 + 0.1 * step) * FRAMES.volume)
    if writer == "ase":
        pytest.importorskip("ase.io").write(
            tmp_path / "XDATCAR", [frame.to_ase_atoms() for frame in frames], format="vasp-xdatcar"
        )
    elif growing:
        pytest.skip("pymatgen writes one cell for all frames")
    else:
        Trajectory.from_structures(frames, constant_lattice=True).write_Xdatcar(tmp_path / "XDATCAR")
    pulled = read_path(tmp_path / "XDATCAR")
    assert not pulled.refused
    numbers = [1, 2, 3] if writer == "ase" else list(pulled.columns["frame"])
    assert list(pulled.structures.material_id) == [f"XDATCAR#{number}" for number in numbers]
    for found, frame in zip(pulled.structures.to_pymatgen(), frames, strict=True):
        np.testing.assert_allclose(found.lattice.abc, frame.lattice.abc, atol=2e-6)
        np.testing.assert_allclose(found.frac_coords, frame.frac_coords, atol=1e-6)


def test_labels_of_frames_are_joined_by_name_or_by_file_and_number(tmp_path):
    text = FRAMES.to(fmt="poscar").splitlines()
    head = "\n".join(text[:7])
    places = "\n".join(text[8:])
    body = "".join(f"\nDirect configuration={number:6d}\n{places}" for number in (10, 20))
    (tmp_path / "XDATCAR").write_text(head + body)
    (tmp_path / "by_name.csv").write_text("id,e\nXDATCAR#20,2.5\nXDATCAR#10,1.5\n")
    (tmp_path / "by_number.csv").write_text("file,frame,e\nXDATCAR,20,2.5\nXDATCAR,10,1.5\n")
    for labels, id_column in (("by_name.csv", "material_id"), ("by_number.csv", "file,frame")):
        pulled = read_path(tmp_path / "XDATCAR", labels=tmp_path / labels, id_column=id_column)
        assert list(pulled.columns["e"]) == [1.5, 2.5]
    (tmp_path / "XDATCAR").write_text((head + body).rsplit("\n", 1)[0])
    pulled = read_path(tmp_path / "XDATCAR")
    assert list(pulled.structures.material_id) == ["XDATCAR#10"]
    assert [(r.material_id, "cut short" in r.reason) for r in pulled.refused] == [("XDATCAR#20", True)]
