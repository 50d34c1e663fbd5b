"""Which numbers of the Materials Project can become columns, where they stand in its documents, and their units."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

AVERAGES = ("voigt", "reuss", "vrh")
SUMMARY, ELASTICITY, DIELECTRIC = "summary", "elasticity", "dielectric"

_NUMBERS: dict[str, dict[str, str]] = {
    SUMMARY: {
        "nsites": "",
        "nelements": "",
        "volume": "cubic Angstrom",
        "density": "g/cm³",
        "density_atomic": "cubic Angstrom/atom",
        "symmetry.number": "",
        "uncorrected_energy_per_atom": "eV/atom",
        "energy_per_atom": "eV/atom",
        "formation_energy_per_atom": "eV/atom",
        "energy_above_hull": "eV/atom",
        "equilibrium_reaction_energy_per_atom": "eV/atom",
        "band_gap": "eV",
        "cbm": "eV",
        "vbm": "eV",
        "efermi": "eV",
        "dos_energy_up": "eV",
        "dos_energy_down": "eV",
        "total_magnetization": "µB",
        "total_magnetization_normalized_vol": "µB/cubic Angstrom",
        "total_magnetization_normalized_formula_units": "µB/formula unit",
        "num_magnetic_sites": "",
        "num_unique_magnetic_sites": "",
        "universal_anisotropy": "",
        "homogeneous_poisson": "",
        "e_total": "",
        "e_ionic": "",
        "e_electronic": "",
        "n": "",
        "e_ij_max": "C/m²",
        "weighted_surface_energy_EV_PER_ANG2": "eV/square Angstrom",
        "weighted_surface_energy": "J/m²",
        "weighted_work_function": "eV",
        "surface_anisotropy": "",
        "shape_factor": "",
        **{f"{kind}_modulus.{average}": "GPa" for kind in ("bulk", "shear") for average in AVERAGES},
    },
    ELASTICITY: {
        **{f"{kind}_modulus.{average}": "GPa" for kind in ("bulk", "shear") for average in AVERAGES},
        "young_modulus": "Pa",
        "universal_anisotropy": "",
        "homogeneous_poisson": "",
        "debye_temperature": "K",
        "sound_velocity.transverse": "m/s",
        "sound_velocity.longitudinal": "m/s",
        "thermal_conductivity.clarke": "W/(m K)",
        "thermal_conductivity.cahill": "W/(m K)",
    },
    DIELECTRIC: {"e_total": "", "e_ionic": "", "e_electronic": "", "n": ""},
}

_FLAGS = ("is_stable", "is_gap_direct", "is_metal", "is_magnetic", "has_reconstructed", "theoretical")

_ALIASES = {
    **{f"k_{average}": f"bulk_modulus.{average}" for average in AVERAGES},
    **{f"g_{average}": f"shear_modulus.{average}" for average in AVERAGES},
    "spacegroup_number": "symmetry.number",
    "formation_energy": "formation_energy_per_atom",
}
"""The names that searches of the Materials Project's own client use."""


@dataclass(frozen=True)
class Column:
    """A column of the pulled table.

    Attributes:
        name: as it was asked for, and as the table calls it.
        endpoint: "summary", "elasticity" or "dielectric".
        path: keys that lead to the number in a document of that endpoint.
        unit: of the number, "" for a pure number or a flag.
        is_flag: whether it holds true and false.
    """

    name: str
    endpoint: str
    path: tuple[str, ...]
    unit: str
    is_flag: bool


def known_fields() -> list[str]:
    """Every name that `column` takes, aliases left out."""
    names = [*_NUMBERS[SUMMARY], *_FLAGS]
    return names + [f"{endpoint}.{name}" for endpoint in (ELASTICITY, DIELECTRIC) for name in _NUMBERS[endpoint]]


def column(name: str) -> Column:
    """What a field is.

    Args:
        name: of a number or flag in the summary, e.g. "band_gap" or "bulk_modulus.vrh" (also "k_vrh"), or after
            "elasticity." or "dielectric." one of those endpoints, e.g. "elasticity.k_vrh".

    Raises:
        ValueError: there is no such number; the message names the nearest.
    """
    endpoint, dot, inside = name.partition(".")
    if not dot or endpoint not in (ELASTICITY, DIELECTRIC):
        endpoint, inside = SUMMARY, name
    inside = _ALIASES.get(inside, inside)
    is_flag = endpoint == SUMMARY and inside in _FLAGS
    if not is_flag and inside not in _NUMBERS[endpoint]:
        close = difflib.get_close_matches(name, [*known_fields(), *_ALIASES], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "docs/materials-project.md lists them"
        raise ValueError(f"the Materials Project has no number {name!r}; {hint}")
    return Column(name, endpoint, tuple(inside.split(".")), _NUMBERS[endpoint].get(inside, ""), is_flag)


def is_field(name: str) -> bool:
    """Whether `column` takes the name."""
    try:
        column(name)
    except ValueError:
        return False
    return True


def top_level(columns: Iterable[Column]) -> list[str]:
    """The keys of a document that hold these columns, for the `_fields` of a request."""
    return list(dict.fromkeys(column.path[0] for column in columns))
