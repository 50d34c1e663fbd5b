"""Cells of other programs: what they write is read to 1e-6 Angstrom, and the last step of a calculation."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.cell_formats import BOHR, cif_of_shelx, read_aims, read_phonopy, read_xsf
from atomsets_core.sources.files.reading import read_path
from tests.pw_output import PW_START, PW_STEP

ase_io = pytest.importorskip("ase.io")

CRYSTAL = Structure(
    Lattice.from_parameters(4.1, 5.2, 6.3, 80, 95, 105), ["Fe", "O", "O"], [[0, 0, 0], [0.4, 0.5, 0.6], [0.9, 0.3, 0.2]]
)
MADE = Path(__file__).parents[3] / "data" / "formats"
"""By scripts/build_format_files.py; versions.json beside them says by what."""

TESTDATA = Path(ase_io.__file__).parents[1] / "test" / "testdata"


def only(path: Path) -> Structure:
    pulled = read_path(path)
    assert not pulled.refused, pulled.refused
    assert len(pulled.structures) == 1
    return pulled.structures.to_pymatgen()[0]


def assert_same(found: Structure, expected: Structure = CRYSTAL) -> None:
    """Lengths, angles and distances, whichever way the axes point."""
    assert [site.specie.symbol for site in found] == [site.specie.symbol for site in expected]
    np.testing.assert_allclose(found.lattice.parameters, expected.lattice.parameters, atol=1e-6)
    np.testing.assert_allclose(found.distance_matrix, expected.distance_matrix, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("geometry.in", {"format": "aims"}),
        ("geometry.in.next_step", {"format": "aims", "scaled": True}),
        ("x.xsf", {"format": "xsf"}),
        ("x.cell", {"format": "castep-cell", "precision": 10}),
        ("x.cell", {"format": "castep-cell", "positions_frac": True, "precision": 10}),
        ("x.pwi", {"format": "espresso-in", "pseudopotentials": {"Fe": "Fe.upf", "O": "O.upf"}}),
    ],
)
def test_what_ase_writes_is_read(tmp_path, name, written):
    ase_io.write(tmp_path / name, CRYSTAL.to_ase_atoms(), **written)
    assert_same(only(tmp_path / name))


def test_the_last_frame_of_an_animation_is_read(tmp_path):
    moved = CRYSTAL.copy()
    moved.scale_lattice(1.1 * CRYSTAL.volume)
    ase_io.write(tmp_path / "x.xsf", [CRYSTAL.to_ase_atoms(), moved.to_ase_atoms()], format="xsf")
    assert_same(only(tmp_path / "x.xsf"), moved)


def test_slabs_and_molecules_are_no_crystals():
    with pytest.raises(ValueError, match="not periodic"):
        read_xsf("SLAB\nPRIMVEC\n1 0 0\n0 1 0\n0 0 1\nPRIMCOORD\n1 1\n1 0 0 0\n")
    with pytest.raises(ValueError, match="0 lattice vectors"):
        read_aims("atom 0 0 0 H\natom 0 0 0.74 H\n")


def phonopy_yaml(structure: Structure, length: float, unit: str) -> str:
    """The part of phonopy 2.43's phonopy.yaml that holds the cell."""
    rows = [f"  - [ {', '.join(f'{value / length:21.15f}' for value in row)} ]" for row in structure.lattice.matrix]
    points = []
    for site in structure:
        place = ", ".join(f"{value:18.15f}" for value in site.frac_coords)
        points.append(f"  - symbol: {site.specie.symbol} # 1\n    coordinates: [ {place} ]\n    mass: 1.0")
    head = ["phonopy:", '  version: "2.43.1"', "physical_unit:", f'  length: "{unit}"', "unit_cell:", "  lattice:"]
    return "\n".join([*head, *rows, "  points:", *points]) + "\n"


@pytest.mark.parametrize(("unit", "length"), [("angstrom", 1.0), ("au", BOHR)])
def test_the_unit_cell_of_phonopy(tmp_path, unit, length):
    (tmp_path / "phonopy_disp.yaml").write_text(phonopy_yaml(CRYSTAL, length, unit))
    assert_same(only(tmp_path / "phonopy_disp.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "unit_cell: 3",
        "unit_cell: {lattice: [], points: [{symbol: H}]}",
        "- 1",
        "!!python/object:os.system x",
    ],
)
def test_other_yaml_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        read_phonopy(text)


CAESIUM = """TITL CsCl in Pm-3m, and two ways to write occupancies
CELL 0.71073 4.123 4.123 4.123 90 90 90
ZERR 1 0.001 0.001 0.001 0 0 0
LATT 1
SYMM -X, -Y, Z
SYMM -X, Y, -Z
SYMM Z, X, Y
SYMM Y, Z, X
SYMM Z, -X, -Y
SYMM -Z, X, -Y
SYMM -Z, -X, Y
SYMM -Y, Z, -X
SYMM Y, -Z, -X
SYMM -Y, -Z, X
SYMM X, -Y, -Z
SFAC Cs Cl
UNIT 1 1
FVAR 0.5
CS1 1 10.0 10.0 10.0 10.041667 0.02 0.02 =
  0.02 0 0 0
CL1 2 0.5 0.5 0.5 0.041667 0.02
HKLF 4
Q1 1 0.1 0.1 0.1 11.0 0.05
END
"""


def test_shelx_with_its_symmetry_and_orders(tmp_path):
    (tmp_path / "cscl.res").write_text(CAESIUM)
    found = only(tmp_path / "cscl.res")
    assert found.composition.formula == "Cs1 Cl1"
    assert found.get_distance(0, 1) == pytest.approx(4.123 * np.sqrt(3) / 2)


@pytest.mark.parametrize(("lattice", "n"), [(-1, 1), (1, 2), (2, 4), (-2, 2), (4, 8), (-7, 2), (3, 6)])
def test_lattice_types_of_shelx(tmp_path, lattice, n):
    cell = "7 7 9 90 90 120" if abs(lattice) == 3 else "7 7 7 90 90 90"
    text = f"TITL x\nCELL 1 {cell}\nLATT {lattice}\nSFAC Fe\nUNIT 1\nFe1 1 .1 .2 .3 11.0\nEND\n"
    (tmp_path / "x.ins").write_text(text)
    assert len(only(tmp_path / "x.ins")) == n


def test_shared_and_alternative_sites_of_shelx_are_not_lost():
    head = "TITL x\nCELL 1 7 7 7 90 90 90\nLATT -1\nSFAC Fe Co\nUNIT 1 1\nFVAR 1 0.3\n"
    assert " 0.3\n" in cif_of_shelx(f"{head}Fe1 1 0 0 0 21.0\nCo1 2 0 0 0 -21.0\nEND\n")
    with pytest.raises(ValueError, match="PART"):
        cif_of_shelx(f"{head}PART 1\nFe1 1 0 0 0 11.0\nEND\n")
    with pytest.raises(ValueError, match="no CELL"):
        cif_of_shelx("TITL x\nEND\n")


# Outputs that VASP itself wrote, as ASE keeps them for its own tests.


@pytest.mark.skipif(not TESTDATA.is_dir(), reason="ASE is installed without its test data")
@pytest.mark.parametrize(
    ("source", "name"),
    [("vasprun_pstress.xml", "vasprun.xml"), ("vasprun_dfpt.xml", "vasprun.xml"), ("OUTCAR_example_1", "OUTCAR")],
)
def test_outputs_of_vasp(tmp_path, source, name):
    (tmp_path / name).write_bytes((TESTDATA / "vasp" / source).read_bytes())
    pulled = read_path(tmp_path / name)
    assert len(pulled.structures) == 1
    kind = "vasp-out" if name == "OUTCAR" else "vasp-xml"
    expected = ase_io.read(tmp_path / name, format=kind, index=-1)
    found = pulled.structures.to_pymatgen()[0]
    np.testing.assert_allclose(found.lattice.matrix, expected.cell.array, atol=1e-6)
    np.testing.assert_allclose(found.cart_coords, expected.positions, atol=1e-6)
    (row,) = pulled.columns.to_dict("records")
    assert row["energy"] == pytest.approx(expected.get_potential_energy())
    assert row["max_force"] == pytest.approx(np.linalg.norm(expected.get_forces(), axis=1).max())
    if "stress_xx" in row:
        from ase.units import GPa

        assert row["stress_xx"] == pytest.approx(expected.get_stress()[0] / GPa)


def test_an_output_of_quantum_espresso(tmp_path):
    (tmp_path / "scf.pwo").write_text(PW_START)
    found = only(tmp_path / "scf.pwo")
    assert found.composition.formula == "Fe2"
    np.testing.assert_allclose(found.lattice.abc, 10.0, atol=1e-4)
    energy = read_path(tmp_path / "scf.pwo").columns["energy"][0]
    assert energy == pytest.approx(-10 * 13.605693, abs=1e-3)  # eV


def test_the_last_step_of_a_relaxation_by_quantum_espresso(tmp_path):
    (tmp_path / "relax.out").write_text(PW_START + PW_STEP + PW_STEP.partition("CELL_PARAMETERS")[0])
    pulled = read_path(tmp_path / "relax.out")
    assert list(pulled.structures.material_id) == ["relax"]
    found = pulled.structures.to_pymatgen()[0]
    np.testing.assert_allclose(found.lattice.abc, 9.0, atol=1e-6)
    np.testing.assert_allclose(found.cart_coords[1], [4.5, 4.5, 4.6], atol=1e-6)
    (row,) = pulled.columns.to_dict("records")
    rydberg = 13.605693
    assert row["energy"] == pytest.approx(-11 * rydberg, abs=1e-4)  # eV
    assert row["max_force"] == pytest.approx(0.01 * rydberg / BOHR, abs=1e-5)  # eV / Angstrom
    assert row["stress_xx"] == pytest.approx(-1.0, abs=1e-3)  # GPa: a pressure pushes


def printed(name):
    """What pw.x itself wrote, see scripts/build_format_files.py."""
    return gzip.decompress((MADE / name).read_bytes()).decode()


def table(text, after, n):
    """Numbers of the n lines below the last line that has this text."""
    lines = text.rpartition(after)[2].splitlines()[1 : n + 1]
    return np.array([[float(cell) for cell in re.findall(r"-?\d+\.\d+", line)] for line in lines])


def test_a_calculation_by_pw_x(tmp_path):
    found, row = only(MADE / "scf.pwo.gz"), read_path(MADE / "scf.pwo.gz").columns.to_dict("records")[0]
    np.testing.assert_allclose(found.lattice.matrix, [[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0.1]], atol=1e-5)
    np.testing.assert_allclose(found.frac_coords, [[0, 0, 0], [0.26, 0.25, 0.25]], atol=1e-6)
    (energy,) = re.findall(r"^!\s+total energy\s+=\s+(\S+) Ry", printed("scf.pwo.gz"), re.MULTILINE)
    assert row["energy"] == pytest.approx(float(energy) * 13.605693, abs=1e-4)  # eV


def test_a_relaxation_by_pw_x_ends_with_its_last_calculation():
    """pw.x computes the relaxed cell once more, with plane waves of its own; that energy counts, and its forces."""
    text, pulled = printed("vc-relax.pwo.gz"), read_path(MADE / "vc-relax.pwo.gz")
    assert list(pulled.structures.material_id) == ["vc-relax"]
    found, (row,) = pulled.structures.to_pymatgen()[0], pulled.columns.to_dict("records")
    np.testing.assert_allclose(found.lattice.matrix, table(text, "CELL_PARAMETERS (angstrom)", 3), atol=1e-6)
    np.testing.assert_allclose(found.frac_coords, table(text, "ATOMIC_POSITIONS (crystal)", 2), atol=1e-6)
    energies = [float(one) for one in re.findall(r"^!\s+total energy\s+=\s+(\S+) Ry", text, re.MULTILINE)]
    assert energies[-1] < energies[-2] - 1e-3, "another set of plane waves"
    assert row["energy"] == pytest.approx(energies[-1] * 13.605693, abs=1e-4)  # eV
    stress = table(text, "total   stress  (Ry/bohr**3)", 3)[:, 3:]  # kbar, positive where it is pushed
    assert row["stress_xx"] == pytest.approx(-stress[0, 0] / 10, abs=2e-3)  # GPa
    assert row["stress_zz"] == pytest.approx(-stress[2, 2] / 10, abs=2e-3)
    forces = re.findall(r"type\s+1\s+force =\s+(\S+)\s+(\S+)\s+(\S+)", text)[-2:]
    largest = np.linalg.norm(np.array(forces, dtype=float), axis=1).max()
    assert row["max_force"] == pytest.approx(largest * 13.605693 / BOHR, abs=1e-4)  # eV / Angstrom


def test_files_of_pw_x_are_known_by_what_they_say(tmp_path):
    ase_io.write(
        tmp_path / "scf.in", CRYSTAL.to_ase_atoms(), format="espresso-in", pseudopotentials={"Fe": "a", "O": "b"}
    )
    assert_same(only(tmp_path / "scf.in"))
    (tmp_path / "slurm.out").write_text("srun: job 7 queued\n")
    (tmp_path / "in.in").write_text("units metal\natom_style atomic\n")
    ase_io.write(tmp_path / "geometry.in", CRYSTAL.to_ase_atoms(), format="aims")
    pulled = read_path(tmp_path)
    assert not pulled.refused
    assert sorted(pulled.structures.material_id) == ["geometry.in", "scf"]
    assert pulled.provenance["ignored"] == 2
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("scf.in", "slurm.out"):
            archive.write(tmp_path / name, name)
    pulled = read_path(tmp_path / "all.zip")
    assert (list(pulled.structures.material_id), pulled.provenance["ignored"]) == (["scf"], 1)
    with pytest.raises(SourceError, match="unknown kind of file '.out'"):
        read_path(tmp_path / "slurm.out")


def test_a_cell_by_ibrav_says_what_to_write(tmp_path):
    (tmp_path / "si.in").write_text(
        "&system\n ibrav=2, celldm(1)=10.2, nat=1, ntyp=1\n/\nATOMIC_SPECIES\nSi 28 Si.upf\n"
        "ATOMIC_POSITIONS alat\nSi 0 0 0\nK_POINTS gamma\n"
    )
    assert "write ibrav = 0" in read_path(tmp_path / "si.in").refused[0].reason


@pytest.mark.parametrize("name", ["phonopy.yaml", "phonopy_disp.yaml"])
def test_what_phonopy_writes_is_read(name):
    found = only(MADE / name)
    np.testing.assert_allclose(found.lattice.matrix, [[4.1, 0, 0.3], [-1.2, 5, 0.9], [0, 0.4, 6.3]], atol=1e-6)
    np.testing.assert_allclose(found.frac_coords, [[0, 0, 0], [0.4, 0.5, 0.6], [0.9, 0.3, 0.2]], atol=1e-6)
    assert [site.specie.symbol for site in found] == ["Fe", "O", "O"]


def test_what_pymatgen_and_ase_write_of_other_formats_is_read(tmp_path):
    from pymatgen.io.res import ResIO
    from pymatgen.io.xcrysden import XSF

    ResIO.structure_to_file(CRYSTAL, str(tmp_path / "airss.res"))
    (tmp_path / "x.xsf").write_text(XSF(CRYSTAL).to_str())
    ase_io.write(tmp_path / "shelx.res", CRYSTAL.to_ase_atoms(), format="res")
    for name in ("airss.res", "x.xsf", "shelx.res"):
        assert_same(only(tmp_path / name))
