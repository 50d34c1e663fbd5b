"""Crystals as the field describes them: space group, conventional cell, sites of each element, density; and as CIFs.

Symmetry is found by spglib (Togo and Tanaka, arXiv:1808.01590) within `SYMPREC`, the tolerance that the Materials
Project shows its space groups by.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Element, Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from atomsets_core.structures import MATTER_KINDS

SYMPREC = 0.1
"""Angstrom by which atoms may be off their symmetric places."""

SAME = 5e-3
"""Angstrom within which two lengths of a cell are called one."""

COLUMNS = ("space_group", "space_group_number", "crystal_system")
"""What `with_crystals` adds to a table of candidates."""

SMALL = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class Crystal:
    """What is said of a crystal.

    Attributes:
        symbol: of its space group, as in "P6_3/mmc".
        number: of its space group, 1 to 230.
        system: cubic, hexagonal, trigonal, tetragonal, orthorhombic, monoclinic or triclinic.
        cell: a, b, c of the conventional cell, Angstrom, and its angles, degrees.
        n_conventional: atoms in it.
        n_primitive: atoms in the smallest cell.
        sites: element -> its orbits as multiplicity and Wyckoff letter, as in "4c, 8f"; in the order of the sites.
        density: g/cm3.
        volume: Angstrom cubed an atom.
    """

    symbol: str
    number: int
    system: str
    cell: tuple[float, float, float, float, float, float]
    n_conventional: int
    n_primitive: int
    sites: dict[str, str]
    density: float
    volume: float

    @property
    def group(self) -> str:
        """Space group and crystal system in words, e.g. "P6₃/mmc (194), hexagonal"."""
        return f"{printed(self.symbol)} ({self.number}), {self.system}"


def structure(row: Mapping[str, Any]) -> Structure:
    """The structure of a row of evidence.json; elements on one place with partial occupancies are one site."""
    shares = row.get("occupancy") or [1.0] * len(row["numbers"])
    sites: dict[tuple[float, ...], dict[Element, float]] = {}
    for z, place, share in zip(row["numbers"], row["frac"], shares, strict=True):
        on_site = sites.setdefault(tuple(place), {})
        on_site[Element.from_Z(int(z))] = on_site.get(Element.from_Z(int(z)), 0.0) + float(share)
    return Structure(Lattice(np.array(row["lattice"])), list(sites.values()), list(sites))


def crystal(row: Mapping[str, Any]) -> Crystal | None:
    """What is said of the structure of a row of evidence.json; None of a formula, and where no symmetry is found."""
    if "lattice" not in row:
        return None
    found = structure(row)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            analyzer = SpacegroupAnalyzer(found, symprec=SYMPREC)
            conventional = analyzer.get_refined_structure()
            n_primitive = len(analyzer.find_primitive() or found)
            system = str(analyzer.get_crystal_system())
            symmetry = analyzer.get_symmetry_dataset()
    except Exception:  # spglib and pymatgen raise many kinds of errors where atoms overlap or cells are flat
        return None
    orbits, ratio = symmetry.crystallographic_orbits.tolist(), len(conventional) / len(found)
    return Crystal(
        symbol=str(analyzer.get_space_group_symbol()),
        number=int(analyzer.get_space_group_number()),
        system=system,
        cell=tuple(float(x) for x in conventional.lattice.parameters),  # type: ignore[arg-type]
        n_conventional=len(conventional),
        n_primitive=n_primitive,
        sites=_sites(found, list(symmetry.wyckoffs), orbits, ratio),
        density=float(found.density),
        volume=float(found.volume) / len(found),
    )


def _sites(found: Structure, letters: Sequence[str], orbits: Sequence[int], ratio: float) -> dict[str, str]:
    """Element -> its orbits, e.g. "4c, 8f"; `ratio` is how many times as many sites the conventional cell has."""
    sizes = Counter(int(orbit) for orbit in orbits)
    told: dict[str, list[tuple[str, int]]] = {}
    for first, size in sizes.items():
        symbols = [str(element.symbol) for element in found[first].species.elements]
        for symbol in symbols:
            told.setdefault(symbol, []).append((str(letters[first]), round(size * ratio)))
    return {symbol: ", ".join(f"{n}{letter}" for letter, n in sorted(parts)) for symbol, parts in told.items()}


def crystals(evidence: Mapping[str, Mapping[str, Any]]) -> dict[str, Crystal]:
    """material_id -> what is said of its crystal, of those that have one; some ten milliseconds each."""
    found = {name: crystal(row) for name, row in evidence.items()}
    return {name: one for name, one in found.items() if one is not None}


def with_crystals(rows: pd.DataFrame, found: Mapping[str, Crystal]) -> pd.DataFrame:
    """The same rows with `COLUMNS`; without them where no row has a crystal."""
    known = [found.get(name) for name in rows["material_id"]]
    if not any(known):
        return rows
    return rows.assign(
        space_group=["" if one is None else one.symbol for one in known],
        space_group_number=[float("nan") if one is None else float(one.number) for one in known],
        crystal_system=["" if one is None else one.system for one in known],
    )


def printed(symbol: str) -> str:
    """A space group's symbol with small screw axes and barred inversions: P6_3/mmc is P6₃/mmc, I-43d is I4̅3d."""
    small = re.sub(r"_(\d)", lambda match: match[1].translate(SMALL), str(symbol))
    return re.sub(r"-(\d)", "\\1\N{COMBINING OVERLINE}", small)


def cell_in_words(found: Crystal) -> str:
    """The conventional cell: equal lengths once, angles of 90 degrees together, atoms in it."""
    space = "\N{NO-BREAK SPACE}"
    lengths: list[tuple[str, float]] = []
    for name, length in zip("abc", found.cell[:3], strict=True):
        same = next((i for i, (_, other) in enumerate(lengths) if abs(other - length) < SAME), None)
        if same is None:
            lengths.append((name, length))
        else:
            lengths[same] = (f"{lengths[same][0]}{space}={space}{name}", lengths[same][1])
    angles = dict(zip("αβγ", found.cell[3:], strict=True))
    right = [name for name, angle in angles.items() if abs(angle - 90.0) < 1e-2]
    parts = [f"{name}{space}={space}{length:.3f}{space}Å" for name, length in lengths]
    if right:
        parts.append(f"{f'{space}={space}'.join(right)}{space}={space}90°")
    parts += [f"{name}{space}={space}{angle:.4g}°" for name, angle in angles.items() if name not in right]
    atoms = f"{found.n_conventional}{space}{'atom' if found.n_conventional == 1 else 'atoms'}"
    smaller = f" (primitive: {found.n_primitive})" if found.n_primitive != found.n_conventional else ""
    return f"{', '.join(parts)}; {atoms}{smaller}"


def bonded_in_words(kind: Any) -> str:
    """What kind of matter a cell holds, e.g. "layered: layers, packed as in graphite"; nothing where nobody looked."""
    return f"{kind}: {MATTER_KINDS[kind]}" if kind in MATTER_KINDS and kind != "unknown" else ""


def facts(found: Crystal | None, matter: Any) -> list[tuple[str, str]]:
    """Name and words of what a card says of a crystal, as far as it is known.

    Args:
        found: the crystal, if there is one.
        matter: its kind of matter, a word of `MATTER_KINDS`, where somebody looked.
    """
    bonded = bonded_in_words(matter)
    told = [] if found is None else [
        ("Space group", found.group),
        ("Cell", cell_in_words(found)),
        ("Sites", "; ".join(f"{symbol} {orbits}" for symbol, orbits in found.sites.items())),
        ("Density", f"{found.density:.2f}\N{NO-BREAK SPACE}g/cm³, {found.volume:.1f}\N{NO-BREAK SPACE}Å³ an atom"),
    ]  # fmt: skip
    return [*told, ("Bonds", bonded)] if bonded else told


def cif(row: Mapping[str, Any]) -> str:
    """A CIF of a row of evidence.json as it was ranked: the cell and the sites that the model saw, in P1."""
    return str(CifWriter(structure(row)))


def conventional_cif(row: Mapping[str, Any]) -> str | None:
    """A CIF of the conventional cell with its symmetry operations and one site an orbit; None where none is found."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(CifWriter(structure(row), symprec=SYMPREC))
    except Exception:  # as above
        return None
