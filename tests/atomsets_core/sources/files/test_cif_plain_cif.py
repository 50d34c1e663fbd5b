"""The fast reader makes of a plain CIF what pymatgen makes of it, and leaves everything else to pymatgen."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from atomsets_core.sources.base import Entry, pulled_from_entries
from atomsets_core.sources.embedded import load_elastic, load_flla
from atomsets_core.sources.files.cif import parsed_by_pymatgen, read_plain


def block(structure, **options) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return "data_" + structure.to(fmt="cif", **options).split("data_", 1)[1]


def hash_of(crystal) -> str:
    (only,) = pulled_from_entries([Entry("x", crystal)]).structures.hashes
    return only


@pytest.mark.parametrize(
    ("load", "n", "symprec"), [(load_elastic, 60, None), (load_flla, 60, None), (load_flla, 40, 0.01)]
)
def test_embedded_structures_are_read_as_by_pymatgen(load, n, symprec):
    structures = load().structures
    chosen = structures.take(np.random.default_rng(1).choice(len(structures), n, replace=False)).to_pymatgen()
    for structure in chosen:
        text = block(structure, **({"symprec": symprec} if symprec else {}))
        plain = read_plain(text)
        assert plain is not None, text
        assert hash_of(plain) == hash_of(parsed_by_pymatgen(text))


PLAIN = """data_Fe
_cell_length_a 2.87(1)
_cell_length_b 2.87
_cell_length_c 2.87
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_chemical_formula_sum 'Fe2'
loop_
 _symmetry_equiv_pos_as_xyz
 'x, y, z'
 'x+1/2, y+1/2, z+1/2'
loop_
 _atom_site_label
 _atom_site_type_symbol
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
 Fe1 Fe 0 0 0 1
"""


def test_uncertainties_and_symmetry_are_understood():
    crystal = read_plain(PLAIN)
    assert crystal is not None
    assert crystal.numbers.tolist() == [26, 26]
    assert crystal.lattice[0, 0] == pytest.approx(2.87)
    assert hash_of(crystal) == hash_of(parsed_by_pymatgen(PLAIN))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Fe1 Fe 0 0 0 1", "Fe1 Fe 0 0 0 0.5"),
        ("Fe1 Fe 0 0 0 1", "Fe1 Fe3+ 0 0 0 1"),
        ("Fe1 Fe 0 0 0 1", "Fe1 D 0 0 0 1"),
        ("Fe1 Fe 0 0 0 1", "Fe1 Fe ? 0 0 1"),
        ("Fe1 Fe 0 0 0 1", "Fe1 Fe 0 0 0"),
        ("Fe1 Fe 0 0 0 1", "Fe1 Fe 0 0 0 1\n Fe2 Fe 0.5 0.5 0.5 1"),
        ("Fe1 Fe 0 0 0 1", "Fe1 Fe 0 0 0 1 # a comment"),
        ("Fe1 Fe 0 0 0 1", "Fe1 Fe 0.25004 0.25 0.25 1"),
        ("'x, y, z'", "'x, y'"),
        ("'x, y, z'", "'2x, y, z'"),
        ("'x, y, z'", "'-x, y, z'"),
        ("_symmetry_equiv_pos_as_xyz", "_symmetry_equiv_pos_other"),
        ("'Fe2'", "'Fe2 O'"),
        ("'Fe2'", "\n;Fe2\n;"),
        ("'Fe2'", "Fe2é"),
        ("_cell_length_b 2.87", "_cell_length_b 0.001"),
        ("_cell_length_b 2.87", "_cell_length_b nan"),
        ("_cell_angle_beta 90", "_cell_angle_beta 200"),
        ("_cell_angle_beta 90\n", ""),
        ("_cell_angle_beta 90", "_cell_angle_beta 90\n_cell_angle_beta 91"),
        ("loop_\n _atom_site_label", "loop_\n _atom_site_attached_hydrogens\n 1\nloop_\n _atom_site_label"),
    ],
)
def test_what_is_unusual_is_left_to_pymatgen(old, new):
    assert old in PLAIN
    crystal = read_plain(PLAIN.replace(old, new, 1))
    if new == "Fe1 Fe 0.25004 0.25 0.25 1":  # two sites well apart: plain after all
        assert crystal is not None
        assert len(crystal.numbers) == 2
    else:
        assert crystal is None
