"""Layouts in which data sets are handed out: a table beside a zip of CIFs, and what generators of crystals write."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path

SALT = Structure(Lattice.from_parameters(4, 4.2, 4.4, 60, 65, 70), ["Na", "Cl"], [[0, 0, 0], [0.4, 0.5, 0.6]])
MGO = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
IDS = ("00002b5c2a", "12345e6789")  # hexadecimal, and one that looks like a number

SUMMARY = (
    ",Composition,MaterialId,Reduced Formula,Elements,NSites,Volume,Density,Space Group Number,"
    "Formation Energy Per Atom,Bandgap\n"
    "0,Na1Cl1,00002b5c2a,NaCl,\"['Na', 'Cl']\",2,70.1,2.1,1,-2.1,5.0\n"
    "1,Mg1O1,12345e6789,MgO,\"['Mg', 'O']\",2,74.1,3.6,221,-3.0,\n"
)
"""Columns of GNoME's stable_materials_summary.csv, some of them left out."""


@pytest.mark.parametrize(
    ("name", "members", "id_column", "ids"),
    [
        ("by_id", IDS, "material_id", [f"by_id/{name}" for name in IDS]),
        (
            "by_reduced_formula",
            ("NaCl", "MgO"),
            "Reduced Formula",
            ["by_reduced_formula/MgO", "by_reduced_formula/NaCl"],
        ),
    ],
)
def test_a_summary_beside_a_zip_of_cifs_as_gnome_has_them(tmp_path, name, members, id_column, ids):
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
        for member, structure in zip(members, (SALT, MGO), strict=True):
            archive.writestr(f"{name}/{member}.CIF", structure.to(fmt="cif"))
    (tmp_path / "stable_materials_summary.csv").write_text(SUMMARY)
    labels = tmp_path / "stable_materials_summary.csv"
    pulled = read_path(tmp_path / f"{name}.zip", labels=labels, id_column=id_column)
    assert not pulled.refused
    assert list(pulled.structures.material_id) == ids
    energy = dict(zip(pulled.structures.formulas, pulled.columns["Formation Energy Per Atom"], strict=True))
    assert energy == {"NaCl": -2.1, "MgO": -3.0}
    if name == "by_id":  # and as a folder that holds both
        pulled = read_path(tmp_path)
        assert not pulled.refused
        assert list(pulled.columns["Formation Energy Per Atom"]) == [-2.1, -3.0]
    else:
        with pytest.raises(SourceError, match="'Reduced Formula' names 2 of them: give it as id_column"):
            read_path(tmp_path / f"{name}.zip", labels=labels)


def test_what_mattergen_writes(tmp_path):
    ase_io = pytest.importorskip("ase.io")
    frames = [structure.to_ase_atoms() for structure in (SALT, MGO)]
    ase_io.write(tmp_path / "generated_crystals.extxyz", frames, format="extxyz")
    with zipfile.ZipFile(tmp_path / "generated_crystals_cif.zip", "w") as archive:
        for number, structure in enumerate((SALT, MGO)):
            archive.writestr(f"gen_{number}.cif", structure.to(fmt="cif"))
    cifs = read_path(tmp_path / "generated_crystals_cif.zip")
    lines = read_path(tmp_path / "generated_crystals.extxyz")
    assert list(cifs.structures.material_id) == ["gen_0", "gen_1"]
    assert list(lines.structures.material_id) == ["generated_crystals-0", "generated_crystals-1"]
    for pulled in (cifs, lines):
        assert not pulled.refused
        for found, structure in zip(pulled.structures.to_pymatgen(), (SALT, MGO), strict=True):
            np.testing.assert_allclose(found.lattice.parameters, structure.lattice.parameters, atol=1e-6)
            np.testing.assert_allclose(found.distance_matrix, structure.distance_matrix, atol=1e-6)


def test_a_response_that_the_models_of_optimade_write(tmp_path):
    optimade = pytest.importorskip("optimade.adapters")
    row = optimade.Structure.ingest_from(SALT) if hasattr(optimade.Structure, "ingest_from") else None
    if row is None:
        pytest.skip("this version of optimade makes none of pymatgen's structures")
    attributes = row.attributes if hasattr(row, "attributes") else row
    text = '{"data": [{"type": "structures", "id": "x-1", "attributes": ' + attributes.model_dump_json() + "}]}"
    (tmp_path / "response.json").write_text(text)
    pulled = read_path(tmp_path / "response.json")
    assert list(pulled.structures.material_id) == ["x-1"]
    np.testing.assert_allclose(pulled.structures.lattice[0], SALT.lattice.matrix, atol=1e-6)
