"""Magnetic CIFs: atoms by the magnetic operations and centrings, and the moment that each atom has."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from atomsets_core.sources.base import Pulled
from atomsets_core.sources.files.reading import read_path


def magnetic(cell: str, operations: list[str], sites: list[str], moments: list[str], centrings: list[str] = ()) -> str:
    """A block as MAGNDATA has them: dotted names, operations with the sign of time behind them."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in zip(names, cell.split(), strict=True))]
    for kind, listed in (("operation", operations), ("centering", centrings or ["x,y,z,+1"])):
        lines += ["loop_", f"_space_group_symop_magn_{kind}.id", f"_space_group_symop_magn_{kind}.xyz"]
        lines += [f"{number} {text}" for number, text in enumerate(listed, 1)]
    lines += ["loop_", *(f"_atom_site_{name}" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))]
    lines += [*sites, "loop_", "_atom_site_moment.label", *(f"_atom_site_moment.crystalaxis_{axis}" for axis in "xyz")]
    return "\n".join([*lines, *moments]) + "\n"


def read(tmp_path, text: str) -> tuple[Pulled, np.ndarray]:
    (tmp_path / "x.mcif").write_text(text)
    pulled = read_path(tmp_path / "x.mcif")
    assert not pulled.refused, pulled.refused
    return pulled, np.array(json.loads(pulled.columns["moments"][0]))


def test_a_centring_that_reverses_time_gives_an_atom_and_turns_its_moment(tmp_path):
    text = magnetic(
        "2.9 2.9 2.9 90 90 90",
        ["x,y,z,+1", "-x,-y,-z,+1"],
        ["Cr1 Cr 0 0 0"],
        ["Cr1 0 0 0.59(2)"],
        ["x,y,z,+1", "x+1/2,y+1/2,z+1/2,-1"],
    )
    pulled, moments = read(tmp_path, text)
    np.testing.assert_allclose(pulled.structures.frac, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-9)
    np.testing.assert_allclose(moments, [[0, 0, 0.59], [0, 0, -0.59]], atol=1e-6)
    assert pulled.columns["max_moment"][0] == pytest.approx(0.59)
    assert pulled.columns["net_moment"][0] == pytest.approx(0.0)


def test_moments_turn_with_the_axes_of_an_oblique_cell(tmp_path):
    text = magnetic(
        "5 5 6 90 90 120",
        ["x,y,z,+1", "-y,x-y,z,+1", "-x+y,-x,z,+1"],
        ["Mn1 Mn 0.4 0 0", "O1 O 0 0 0.3"],
        ["Mn1 2 0 1"],
    )
    pulled, moments = read(tmp_path, text)
    assert list(pulled.structures.formulas) == ["Mn3O"]
    sites = pulled.structures.to_pymatgen()[0]
    for site, moment in zip(sites, moments, strict=True):
        if site.specie.symbol == "Mn":  # from the threefold axis outwards, two Bohr magnetons long
            outwards = site.coords[:2] if np.linalg.norm(site.coords[:2]) < 2.5 else None
            assert np.linalg.norm(moment[:2]) == pytest.approx(2.0, abs=1e-5)
            assert moment[2] == pytest.approx(1.0, abs=1e-5)
            if outwards is not None:
                np.testing.assert_allclose(moment[:2] / 2, outwards / np.linalg.norm(outwards), atol=1e-4)
        else:
            np.testing.assert_allclose(moment, 0.0, atol=1e-9)
    assert pulled.columns["net_moment"][0] == pytest.approx(3.0, abs=1e-5)


def test_a_mirror_keeps_the_part_of_a_moment_along_its_axis_and_turns_the_others(tmp_path):
    text = magnetic("4 5 6 90 90 90", ["x,y,z,+1", "x,y,-z,+1"], ["Fe1 Fe 0 0 0.2"], ["Fe1 1 2 3"])
    _, moments = read(tmp_path, text)
    np.testing.assert_allclose(moments, [[1, 2, 3], [-1, -2, 3]], atol=1e-6)


def test_what_pymatgen_writes_of_collinear_moments_is_read(tmp_path):
    structure = Structure(
        Lattice.from_parameters(4.1, 5.2, 6.3, 80, 95, 105),
        ["Mn", "Mn", "O"],
        [[0.1, 0.2, 0.3], [0.6, 0.7, 0.8], [0.3, 0.9, 0.5]],
        site_properties={"magmom": [[0.3, 1.0, 2.0], [0.0, -1.5, 0.5], [0.0, 0.0, 0.0]]},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = str(CifWriter(structure, write_magmoms=True))
    pulled, moments = read(tmp_path, text)
    found = pulled.structures.to_pymatgen()[0]
    np.testing.assert_allclose(found.lattice.parameters, structure.lattice.parameters, atol=1e-6)
    np.testing.assert_allclose(found.frac_coords, structure.frac_coords, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(moments, axis=1), [np.sqrt(5.09), np.sqrt(2.5), 0], atol=1e-5)
    assert moments[0] @ moments[1] == pytest.approx(1.0 * -1.5 + 2.0 * 0.5, abs=1e-5)


def test_moments_that_are_no_numbers_cost_no_atoms(tmp_path):
    text = magnetic("4 5 6 90 90 90", ["x,y,z,+1"], ["Fe1 Fe 0 0 0.2"], ["Fe1 1 2 3"])
    (tmp_path / "x.mcif").write_text(text.replace("crystalaxis_x", "spherical_r"))
    pulled = read_path(tmp_path / "x.mcif")
    assert len(pulled.structures) == 1 or "moment" in pulled.refused[0].reason
