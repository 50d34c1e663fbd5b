"""Crystals are described as the field does: by space group, conventional cell and sites, and so are their CIFs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.report.candidates.crystals import (
    Crystal,
    bonded_in_words,
    cell_in_words,
    cif,
    conventional_cif,
    crystal,
    crystals,
    printed,
    with_crystals,
)

WURTZITE = Structure.from_spacegroup(
    "P6_3mc", Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]]
)
DIAMOND = Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]]).get_primitive_structure()


def row(found: Structure, **more: object) -> dict:
    """As in evidence.json."""
    return {
        "material_id": "x",
        "lattice": found.lattice.matrix.tolist(),
        "numbers": [site.specie.Z for site in found],
        "frac": found.frac_coords.tolist(),
        "occupancy": None,
        **more,
    }


def described(found: Structure) -> Crystal:
    one = crystal(row(found))
    assert one is not None
    return one


def test_wurtzite_is_hexagonal_with_both_elements_on_2b():
    found = described(WURTZITE)
    assert (found.symbol, found.number, found.system) == ("P6_3mc", 186, "hexagonal")
    assert found.sites == {"Zn": "2b", "O": "2b"}
    assert found.density == pytest.approx(WURTZITE.density)
    assert found.group == "P6₃mc (186), hexagonal"
    assert cell_in_words(found).replace("\N{NO-BREAK SPACE}", " ") == (
        "a = b = 3.250 Å, c = 5.200 Å, α = β = 90°, γ = 120°; 4 atoms"  # noqa: RUF001
    )


def test_a_primitive_cell_is_described_by_the_conventional_one():
    found = described(DIAMOND)
    assert (found.n_primitive, found.n_conventional) == (2, 8)
    assert found.sites == {"C": "8a"}
    np.testing.assert_allclose(found.cell, [3.567] * 3 + [90.0] * 3, atol=1e-3)
    assert found.volume == pytest.approx(3.567**3 / 8)
    # A supercell is the same crystal.
    doubled = DIAMOND.copy()
    doubled.make_supercell([2, 1, 1])
    assert described(doubled).sites == {"C": "8a"}


def test_elements_that_share_a_place_share_its_orbit():
    about = row(DIAMOND) | {"numbers": [14, 32] * 2, "occupancy": [0.5] * 4}
    about["frac"] = [place for place in DIAMOND.frac_coords.tolist() for _ in range(2)]
    found = crystal(about)
    assert found is not None
    assert (found.symbol, found.sites) == ("Fd-3m", {"Si": "8a", "Ge": "8a"})


@pytest.mark.parametrize("found", [WURTZITE, DIAMOND], ids=["wurtzite", "diamond"])
def test_both_cifs_are_the_same_crystal_and_the_conventional_one_says_its_symmetry(found):
    small, large = cif(row(found)), conventional_cif(row(found))
    assert large is not None
    read = [Structure.from_str(text, fmt="cif") for text in (small, large)]
    assert {one.get_space_group_info()[1] for one in read} == {found.get_space_group_info()[1]}
    assert read[0].density == pytest.approx(read[1].density, rel=1e-4)
    assert f"_symmetry_Int_Tables_number   {found.get_space_group_info()[1]}" in large
    assert len(large[large.index("_atom_site_type_symbol") :].splitlines()) == 7 + len(set(found.species))


def test_what_has_no_structure_or_no_symmetry_is_left_alone():
    assert crystal({"material_id": "x", "numbers": [8], "fractions": [1.0]}) is None
    flat = row(DIAMOND) | {"lattice": [[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]]}
    assert crystal(flat) is None
    assert crystals({"x": flat}) == {}


def test_rows_get_the_columns_where_any_has_a_crystal():
    rows = pd.DataFrame({"material_id": ["a", "b"]})
    assert list(with_crystals(rows, {}).columns) == ["material_id"]
    found = with_crystals(rows, {"b": described(WURTZITE)})
    assert found["space_group"].tolist() == ["", "P6_3mc"]
    assert found["space_group_number"].isna().tolist() == [True, False]


def test_symbols_are_printed_as_in_the_tables():
    assert [printed(text) for text in ("P6_3/mmc", "I-43d", "Cmcm")] == [
        "P6₃/mmc",
        "I4\N{COMBINING OVERLINE}3d",
        "Cmcm",
    ]
    assert bonded_in_words("layered") == "layered: layers, packed as in graphite"
    assert bonded_in_words("unknown") == bonded_in_words(None) == ""
