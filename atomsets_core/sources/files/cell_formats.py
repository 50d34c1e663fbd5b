"""Text formats of a cell and its atoms: FHI-aims, XSF, CASTEP, SHELX and phonopy. Each file holds one crystal.

What such a file says beside that (basis sets, constraints, moments, forces of a phonon calculation) is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import yaml
from pymatgen.core import Element, Lattice
from pymatgen.core.operations import SymmOp

from atomsets_core.sources.base import Crystal
from atomsets_core.sources.files.cif_symmetry import orbit_sizes
from atomsets_core.sources.files.records import atomic_number
from atomsets_core.sources.files.space_groups import Operations
from atomsets_core.structures import FloatArray

BOHR = 0.529177210903
"""Angstrom, CODATA 2018."""

LARGEST_YAML = 2_000_000
"""Characters; a parsed YAML takes some hundred bytes for each, and ten seconds in all."""

_UNITS = {
    "ang": 1.0,
    "angstrom": 1.0,
    "bohr": BOHR,
    "a0": BOHR,
    "au": BOHR,
    "nm": 10.0,
    "pm": 0.01,
    "cm": 1e8,
    "m": 1e10,
}


def _crystal(
    lattice: Sequence[Sequence[float]], symbols: Sequence[str], places: FloatArray, *, cartesian: bool
) -> Crystal:
    """A crystal of row vectors (3, 3) in Angstrom and (n, 3) fractional or Cartesian coordinates."""
    cell = np.array(lattice, dtype=np.float64)
    if cell.shape != (3, 3):
        raise ValueError(f"{len(cell)} lattice vectors: a crystal has three")
    if not symbols:
        raise ValueError("it has no sites")
    if not (np.isfinite(cell).all() and abs(np.linalg.det(cell)) > 1e-12):
        raise ValueError("the cell has no volume")
    frac = np.asarray(places @ np.linalg.inv(cell) if cartesian else places, dtype=np.float64)
    return Crystal(cell, np.array([atomic_number(symbol) for symbol in symbols], dtype=np.int64), frac)


def _three(words: Sequence[str]) -> list[float]:
    if len(words) < 3:
        raise ValueError("a line of it is incomplete: three numbers are needed")
    return [float(word.replace("d", "e").replace("D", "e")) for word in words[:3]]


def _element_of(label: str) -> str:
    """The element at the beginning of a species: Fe, Fe1, Fe_up, Fe:1."""
    match = re.match(r"[A-Za-z]{1,2}(?![a-z])", label)
    letters = match.group().capitalize() if match else label
    if not Element.is_valid_symbol(letters) and letters[:1].upper() != letters:
        letters = letters[:1].upper() if re.match(r"[A-Za-z](?![a-z])", label) else letters
    return letters


def read_aims(text: str) -> Crystal:
    """FHI-aims' geometry.in.

    Raises:
        ValueError: it is no crystal.
    """
    lattice, symbols, rows, fractional = [], [], [], []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "lattice_vector":
            lattice.append(_three(words[1:]))
        elif words[0] in ("atom", "atom_frac") and len(words) > 4:
            rows.append(_three(words[1:]))
            symbols.append(_element_of(words[4]))
            fractional.append(words[0] == "atom_frac")
    if len(lattice) != 3:
        raise ValueError(f"{len(lattice)} lattice vectors: a crystal has three")
    places, cell = np.array(rows, dtype=np.float64).reshape(-1, 3), np.array(lattice)
    places[fractional] = places[fractional] @ cell
    return _crystal(lattice, symbols, places, cartesian=True)


def read_xsf(text: str) -> Crystal:
    """XCrySDen's structure files; of an animation the last frame.

    Raises:
        ValueError: it is no crystal.
    """
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    lines = [words for words in lines if words]
    heads = [words[0].upper() for words in lines]
    if (
        any(head in ("MOLECULE", "POLYMER", "SLAB") for head in heads)
        or "PRIMVEC" not in heads
        or "PRIMCOORD" not in heads
    ):
        raise ValueError("not periodic in all three directions: PRIMVEC and PRIMCOORD of a CRYSTAL are needed")
    vectors = len(heads) - 1 - heads[::-1].index("PRIMVEC")
    atoms = len(heads) - 1 - heads[::-1].index("PRIMCOORD")
    n = int(lines[atoms + 1][0])
    listed = lines[atoms + 2 : atoms + 2 + n]
    if not 0 < n == len(listed):
        raise ValueError(f"{n} atoms are announced, {len(listed)} lines follow")
    symbols = [
        Element.from_Z(int(words[0])).symbol if words[0].isdecimal() else _element_of(words[0]) for words in listed
    ]
    places = np.array([_three(words[1:]) for words in listed])
    return _crystal([_three(words) for words in lines[vectors + 1 : vectors + 4]], symbols, places, cartesian=True)


def read_castep_cell(text: str) -> Crystal:
    """CASTEP's .cell.

    Raises:
        ValueError: it is no crystal.
    """
    blocks = {
        match[1].lower(): [line for raw in match[2].splitlines() if (line := re.split(r"[!#;]", raw)[0].strip())]
        for match in re.finditer(r"^\s*%block\s+(\w+)[^\n]*\n(.*?)^\s*%endblock", text, re.I | re.M | re.S)
    }
    if "lattice_cart" in blocks:
        factor, lines = _unit(blocks["lattice_cart"])
        lattice = [[factor * value for value in _three(line.split())] for line in lines[:3]]
    elif "lattice_abc" in blocks:
        factor, lines = _unit(blocks["lattice_abc"])
        lengths, angles = (_three(line.split()) for line in lines[:2])
        lattice = _vectors([factor * length for length in lengths], angles)
    else:
        raise ValueError("no block LATTICE_CART or LATTICE_ABC")
    cartesian = "positions_abs" in blocks
    if not cartesian and "positions_frac" not in blocks:
        raise ValueError("no block POSITIONS_FRAC or POSITIONS_ABS")
    factor, lines = _unit(blocks["positions_abs" if cartesian else "positions_frac"])
    if any("MIXTURE" in line.upper() for line in lines):
        raise ValueError("it has partial occupancies (MIXTURE): only ordered structures have a graph")
    words = [line.split() for line in lines]
    places = (factor if cartesian else 1.0) * np.array([_three(parts[1:]) for parts in words])
    return _crystal(lattice, [_element_of(parts[0]) for parts in words], places, cartesian=cartesian)


def _unit(lines: list[str]) -> tuple[float, list[str]]:
    """Angstrom in the unit that may stand in the first line of a block, and the others."""
    if lines and lines[0].lower() in _UNITS:
        return _UNITS[lines[0].lower()], lines[1:]
    return 1.0, lines


def _vectors(lengths: Sequence[float], angles: Sequence[float]) -> list[list[float]]:
    return [[float(value) for value in row] for row in Lattice.from_parameters(*lengths, *angles).matrix]


def read_phonopy(text: str) -> Crystal:
    """The unit cell of phonopy's YAML files.

    Raises:
        ValueError: it holds none.
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(f"more than {LARGEST_YAML // 1_000_000} MB of YAML: keep the part unit_cell")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError("not readable YAML") from error
    cell = document.get("unit_cell", document) if isinstance(document, dict) else None
    if (
        not isinstance(cell, dict)
        or not isinstance(cell.get("lattice"), list)
        or not isinstance(cell.get("points"), list)
    ):
        raise ValueError("no unit_cell with lattice and points in it")
    units = document.get("physical_unit")
    length = str(units.get("length", "angstrom")).lower() if isinstance(units, dict) else "angstrom"
    if length not in _UNITS:
        raise ValueError(f"lengths in {length!r}, which is no unit that is known")
    try:
        lattice = [[_UNITS[length] * float(value) for value in row] for row in cell["lattice"]]
        places = np.array([[float(value) for value in point["coordinates"]] for point in cell["points"]])
        symbols = [_element_of(str(point["symbol"])) for point in cell["points"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its lattice or points are incomplete") from error
    return _crystal(lattice, symbols, places.reshape(-1, 3), cartesian=False)


# SHELX: symmetry, free variables and occupancies in a shorthand; written as a CIF, which is then read as any other.

_NO_ATOMS = """
TITL CELL ZERR LATT SYMM SFAC UNIT FVAR REM AFIX HKLF END L.S. BOND FMAP PLAN ACTA TEMP SIZE WGHT
CONF HTAB EQIV DFIX DANG SADI SAME SIMU DELU ISOR RIGU FLAT EADP EXYZ PART RESI OMIT TWIN BASF EXTI
SHEL MERG MPLA FREE LIST MORE DISP ANIS DAMP CGLS SWAT HOPE MOLE SUMP BIND CONN BLOC CHIV NEUT FEND
FRAG GRID HFIX LAUE MOVE NCSY NEWS ABIN RTAB SPEC STIR TIME TWST WIGL WPDB XNPD BEDE LONE ANSC ANSR
DEFS
"""
_LATTICES = {
    1: (), 2: ("x+1/2,y+1/2,z+1/2",), 3: ("x+2/3,y+1/3,z+1/3", "x+1/3,y+2/3,z+2/3"),
    4: ("x,y+1/2,z+1/2", "x+1/2,y,z+1/2", "x+1/2,y+1/2,z"),
    5: ("x,y+1/2,z+1/2",), 6: ("x+1/2,y,z+1/2",), 7: ("x+1/2,y+1/2,z",),
}  # fmt: skip


def cif_of_shelx(text: str) -> str:
    """The crystal of a SHELX .res or .ins as the text of a CIF with all its operations.

    Raises:
        ValueError: it is none.
    """
    lines = _shelx_lines(text)
    cell, lattice, symmetry, elements, variables, sites = [], 1, [], [], [1.0], []
    for words in lines:
        name = words[0].upper()
        if name == "CELL":
            cell = [float(word) for word in words[2:8]]
        elif name == "LATT":
            lattice = int(words[1])
        elif name == "SYMM":
            symmetry.append(" ".join(words[1:]).lower().replace(" ", ""))
        elif name == "SFAC":
            elements += [words[1]] if len(words) > 5 and _is_number(words[2]) else words[1:]
        elif name == "FVAR":
            variables = variables[:0] + [float(word) for word in words[1:]]
        elif name in ("HKLF", "END"):
            break
        elif name == "PART" and words[1:] and words[1] != "0":
            raise ValueError("it is disordered (PART): keep one part")
        elif name[:4] not in _NO_ATOMS.split() and len(words) >= 5:
            sites.append((words[0], int(words[1]), [float(word) for word in words[2:6]]))
    if len(cell) != 6 or not elements or not sites:
        raise ValueError("no CELL, SFAC or atoms in it")
    operations = _shelx_operations(lattice, symmetry)
    rows = [_shelx_site(site, elements, variables, operations) for site in sites]
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    tags = [f"_cell_{name} {value!r}" for name, value in zip(names, cell, strict=True)]
    listed = ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{text}'" for text in operations.as_xyz())]
    return "\n".join(["data_x", *tags, *listed, "loop_", *(f"_atom_site_{name}" for name in columns), *rows]) + "\n"


def _shelx_lines(text: str) -> list[list[str]]:
    """The words of each line; "=" at its end goes on with the next."""
    joined = re.sub(r"=[ \t]*\n", " ", text)
    return [words for line in joined.splitlines() if (words := line.split("!")[0].split()) and not line.startswith(" ")]


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"[-+]?\d*\.?\d+", word))


def _shelx_operations(lattice: int, symmetry: Sequence[str]) -> Operations:
    """All operations of LATT and SYMM: centring and inversion with each of those listed, which generate no more."""
    if abs(lattice) not in _LATTICES:
        raise ValueError(f"LATT {lattice} is no lattice type")
    first = [SymmOp.from_xyz_str(text) for text in ("x,y,z", *symmetry)]
    inverted = [SymmOp.from_xyz_str("-x,-y,-z")] if lattice > 0 else []
    second = first + [inversion * one for inversion in inverted for one in first]
    all_of_them = second + [SymmOp.from_xyz_str(shift) * one for shift in _LATTICES[abs(lattice)] for one in second]
    rotations = np.array([np.round(one.rotation_matrix).astype(np.int64) for one in all_of_them])
    return Operations(rotations, np.array([one.translation_vector % 1 for one in all_of_them]))


def _shelx_site(
    site: tuple[str, int, list[float]], elements: Sequence[str], variables: Sequence[float], operations: Operations
) -> str:
    """A row of the list of sites: 10 is added to what isn't refined, occupancies are parts of the site's order."""
    label, kind, numbers = site
    if not 1 <= kind <= len(elements):
        raise ValueError(f"atom {label!r} is of scattering factor {kind}, SFAC lists {len(elements)}")
    place = np.array([value - 10 * math.floor((value + 5) / 10) for value in numbers[:3]])
    share = _shelx_value(numbers[3] if len(numbers) > 3 else 1.0, variables)
    order = len(operations.rotations) / orbit_sizes(place[None], operations)[0]
    whole = share * order
    # AIRSS and some others write 1 for every site, whatever its order.
    occupancy = 1.0 if share > 0.999 or abs(whole - 1) < 0.02 else whole
    return (
        f"{label} {_element_of(elements[kind - 1])} {' '.join(repr(float(value)) for value in place)} {occupancy:.6g}"
    )


def _shelx_value(value: float, variables: Sequence[float]) -> float:
    """A parameter with its free variable: 21.0 is 1.0 times the second, -21.0 is 1.0 times one minus it."""
    number = math.floor((abs(value) + 5) / 10)
    rest = abs(value) - 10 * number
    if number <= 1:
        return rest if number else abs(value)
    if number > len(variables):
        raise ValueError(f"free variable {number} isn't in FVAR")
    return rest * (variables[number - 1] if value > 0 else 1 - variables[number - 1])
