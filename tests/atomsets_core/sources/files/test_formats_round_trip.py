"""There and back: files that ase and pymatgen write, with labels and identifiers, to 1e-6 Angstrom."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pymatgen.core
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.files.reading import read_path

ase = pytest.importorskip("ase")
ase_io, ase_db = pytest.importorskip("ase.io"), pytest.importorskip("ase.db")

WRITTEN_BY = f"ase {ase.__version__}, pymatgen {pymatgen.core.__version__}"

# Cell vectors and places have as many digits as the shortest of these formats keeps.
CRYSTAL = Structure(
    Lattice([[4.1, 0, 0.25], [-1.25, 5.0, 0.5], [0, 0.5, 6.25]]),
    ["Fe", "O", "O"],
    [[0, 0, 0], [0.4, 0.5, 0.6], [0.875, 0.25, 0.125]],
)
POTENTIALS = {"Fe": "Fe.upf", "O": "O.upf"}


def atoms(**info):
    """The crystal with an energy, forces and a stress, as ASE has them."""
    from ase.calculators.singlepoint import SinglePointCalculator

    found = CRYSTAL.to_ase_atoms()
    found.info.update(info)
    found.calc = SinglePointCalculator(
        found, energy=-12.5, forces=np.full((3, 3), 0.1), stress=np.array([0.01, 0.02, 0.03, 0, 0, 0.001])
    )
    return found


def fixed():
    from ase.constraints import FixAtoms

    found = CRYSTAL.to_ase_atoms()
    found.set_constraint(FixAtoms([0]))
    return found


def assert_same(found: Structure) -> None:
    """Lengths, angles and distances, whichever way the axes point."""
    assert [site.specie.symbol for site in found] == ["Fe", "O", "O"], WRITTEN_BY
    np.testing.assert_allclose(found.lattice.parameters, CRYSTAL.lattice.parameters, atol=1e-6, err_msg=WRITTEN_BY)
    np.testing.assert_allclose(found.distance_matrix, CRYSTAL.distance_matrix, atol=1e-6, err_msg=WRITTEN_BY)


def by_ase(**options):
    return lambda path: ase_io.write(path, CRYSTAL.to_ase_atoms(), **options)


def by_pwinput(path: Path) -> None:
    from pymatgen.io.pwscf import PWInput

    PWInput(CRYSTAL, pseudo=POTENTIALS).write_file(str(path))


def by_xdatcar(path: Path) -> None:
    from pymatgen.io.vasp import Xdatcar

    ase_io.write(path, [CRYSTAL.to_ase_atoms()] * 2, format="vasp-xdatcar")
    text = Xdatcar(str(path)).get_str(significant_figures=8)
    path.write_text(text)


def by_poscar(path: Path) -> None:
    from pymatgen.io.vasp import Poscar

    Poscar(CRYSTAL, selective_dynamics=[[True, False, True]] * 3).write_file(path)


def by_database(path: Path) -> None:
    with ase_db.connect(path) as database:
        database.write(atoms(), material_id="x1", gap=1.5)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.pwi", by_ase(format="espresso-in", pseudopotentials=POTENTIALS, crystal_coordinates=True)),
        ("pw.in", by_pwinput),
        ("POSCAR", by_ase(format="vasp")),
        ("CONTCAR.1", by_ase(format="vasp", direct=True)),
        ("a.vasp", lambda path: ase_io.write(path, fixed(), format="vasp")),
        ("POSCAR_selective", by_poscar),
        ("XDATCAR", by_xdatcar),
        ("XDATCAR_ase", by_ase(format="vasp-xdatcar")),
        ("a.cif", by_ase(format="cif")),
        ("b.cif", lambda path: CRYSTAL.to(str(path))),
        ("sym.cif", lambda path: CRYSTAL.to(str(path), symprec=0.01, refine_struct=False)),
        ("a.res", by_ase(format="res")),
        ("a.json", by_ase(format="json")),
        ("a.axsf", by_ase(format="xsf")),
        ("a.xyz", by_ase(format="extxyz")),
        ("a.db", by_database),
        ("b.json", lambda path: CRYSTAL.to(str(path))),
    ],
)
def test_a_crystal_comes_back(tmp_path: Path, name: str, write):
    write(tmp_path / name)
    pulled = read_path(tmp_path / name)
    assert not pulled.refused, WRITTEN_BY
    assert_same(pulled.structures.to_pymatgen()[-1])


def test_labels_and_identifiers_of_extended_xyz_come_back(tmp_path: Path):
    frames = [atoms(material_id=name, gap=gap) for name, gap in (("0012345678", 1.5), ("12345e6789", 2.5))]
    ase_io.write(tmp_path / "a.extxyz", frames)
    pulled = read_path(tmp_path / "a.extxyz")
    assert list(pulled.structures.material_id) == ["0012345678", "12345e6789"]
    assert pulled.columns["gap"].tolist() == [1.5, 2.5]
    assert pulled.columns["energy"].tolist() == [-12.5, -12.5]
    assert pulled.provenance["units"]["energy"] == "eV"
    assert_same(pulled.structures.to_pymatgen()[1])


def test_labels_and_identifiers_of_a_database_come_back(tmp_path: Path):
    by_database(tmp_path / "a.db")
    pulled = read_path(tmp_path / "a.db")
    assert list(pulled.structures.material_id) == ["x1"]
    assert pulled.columns[["gap", "energy"]].iloc[0].tolist() == [1.5, -12.5]
    assert pulled.provenance["units"]["energy"] == "eV"


def test_moments_of_a_magnetic_cif_come_back(tmp_path: Path):
    from pymatgen.io.cif import CifWriter

    magnetic = CRYSTAL.copy()
    magnetic.add_site_property("magmom", [2.0, -0.5, 0.0])
    CifWriter(magnetic, write_magmoms=True).write_file(str(tmp_path / "a.mcif"))
    pulled = read_path(tmp_path / "a.mcif")
    assert_same(pulled.structures.to_pymatgen()[0])
    moments = np.array(json.loads(pulled.columns["moments"].iloc[0]))
    np.testing.assert_allclose(np.linalg.norm(moments, axis=1), [2.0, 0.5, 0.0], atol=1e-6)
    assert pulled.columns["net_moment"].iloc[0] == pytest.approx(1.5, abs=1e-6)


def test_shared_sites_of_a_cif_come_back(tmp_path: Path):
    mixed = Structure(Lattice.cubic(4.2), [{"Mg": 0.5, "Ca": 0.5}, "O"], [[0, 0, 0], [0.5] * 3])
    mixed.to(str(tmp_path / "a.cif"))
    pulled = read_path(tmp_path / "a.cif")
    assert pulled.structures.to_pymatgen()[0].composition == mixed.composition
