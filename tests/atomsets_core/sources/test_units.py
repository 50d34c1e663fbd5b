"""Units as people write them: slips of the keyboard are read, marks and ratios behind a name are no units."""

from __future__ import annotations

import pytest

from atomsets_core.sources.units import factor, is_unit, name_and_unit


@pytest.mark.parametrize(
    ("one", "other", "scale"),
    [
        ("W/mK", "W/(m K)", 1.0),
        ("W/m-K", "W/(m K)", 1.0),
        ("Wm-1K-1", "W/m.K", 1.0),
        ("W m$^{-1}$ K$^{-1}$", "W/m/K", 1.0),
        ("µW/cmK2", "W/(m K^2)", 1e-4),
        ("Gpa", "GPa", 1.0),
        ("GPA", "kbar", 10.0),
        ("ev", "meV", 1000.0),
        ("eV/A", "eV/Å", 1.0),
        ("ohm-cm", "Ω cm", 1.0),
        ("MPa m^1/2", "MPa√m", 1.0),
        ("Rydberg", "eV", 13.605693),
        ("Hartree", "Ry", 2.0),
        ("eV", "GPa", None),
    ],
)
def test_one_unit_in_another(one: str, other: str, scale: float | None):
    assert factor(one, other) == (None if scale is None else pytest.approx(scale, rel=1e-6))


@pytest.mark.parametrize("text", ["1e-6/K", "10^-6 K^-1", "-", "1", "none", "this work", "Ref. 3", "log10(GPa)"])
def test_what_is_none(text: str):
    assert not is_unit(text)


@pytest.mark.parametrize(
    ("column", "name", "unit"),
    [
        ("K (GPa)", "K", "GPa"),
        ("K (in GPa)", "K", "GPa"),
        ("K {GPa}", "K", "GPa"),
        ("gap (eV), PBE", "gap, PBE", "eV"),
        ("Band gap (eV) HSE", "Band gap HSE", "eV"),
        ("band_gap_eV", "band_gap", "eV"),
        ("e_form_eV_per_atom", "e_form", "eV/atom"),
        ("K_VRH", "K_VRH", ""),
        ("K_TPa_inv", "K_TPa_inv", ""),
        ("Name (a)", "Name (a)", ""),
        ("ratio (B/G)", "ratio (B/G)", ""),
        ("G (this work)", "G (this work)", ""),
    ],
)
def test_a_column_with_its_unit(column: str, name: str, unit: str):
    assert name_and_unit(column) == (name, unit)
