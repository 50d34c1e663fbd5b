"""Which atoms a CIF lists: dummy and empty sites, elements by symbol or label, alternatives, hydrogen without places.

pymatgen cuts a symbol it doesn't know to letters it does ("Si/Al" to silicon), reads the label HO1 as holmium, counts
dummy sites and both of two alternatives as atoms, and drops hydrogen that shares a place with oxygen. What a file lists
is made plain here before pymatgen reads it, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pymatgen.core import Composition, Element, Structure

Data = dict[str, Any]
"""Tags of one data block and their values, text or lists of text, as pymatgen's CifBlock holds them."""

UNKNOWN = ("", ".", "?")

_MODULATED = ("_cell_modulation_dimension", "_cell_wave_vector", "_space_group_ssg", "_cell_subsystem",
              "_atom_site_fourier", "_atom_site_displace_", "_atom_site_occ_fourier")  # fmt: skip

_WATER = {"HW": "H", "OW": "O"}  # names of the two elements in water

_GROUPS = ("OH", "HOH", "WAT", "OHH")
_GROUPS_WITH_NUMBERS = ("H2O", "OH2", "NH4", "NH3", "NO3", "SO4", "PO4", "CO3", "CH3", "CH2")

# An element, and behind it a charge, a number of the site or an oxidation state: Fe3+, O2-, Fe(III), Na_1, Cu*.
_SYMBOL = re.compile(r"([A-Za-z]{1,2})(?:\((?:[IVXivx]+|[-+0-9]+)\)|[-+0-9._'*]*)")
_LETTERS = re.compile(r"[A-Za-z]+")

_MOLECULES = ("CO", "NO", "HO", "PO", "CF", "NP")
"""Groups of atoms that are an element too, in capitals; CU and SN are copper and tin."""

_TWO_ELEMENTS = re.compile(r"([A-Z][a-z]?)\d*\s*[/,+|&-]\s*([A-Z][a-z]?)(?![a-z])")
"""A label of a shared site: Si/Al, La-Sr, Nb,Zr."""

_MISSING_FEW, _MISSING_H = 0.10, 0.05


def check_kind(data: Mapping[str, Any]) -> None:
    """Raise ValueError for a modulated structure, of which a list of sites is only the average."""
    for tag, value in data.items():
        lowered = tag.lower()
        if lowered.startswith("_cell_modulation_dimension") and str(value).strip() in ("0", *UNKNOWN):
            continue
        if lowered.startswith(_MODULATED):
            raise ValueError("a modulated structure: the sites listed are only its average, so it is no crystal here")


def prepare_sites(data: Data, loop: Sequence[str]) -> None:
    """Leave the atoms alone in the list of sites, each with the symbol of its element.

    Args:
        data: of one block; changed in place.
        loop: the tags of its list of sites.

    Raises:
        ValueError: the list doesn't say which atoms there are.
    """
    for axis in "xyz":
        if f"_atom_site_fract_{axis}" not in data:
            raise ValueError(f"'_atom_site_fract_{axis}' is missing")
    if "_atom_site_label" not in data:
        raise ValueError("'_atom_site_label' is missing")
    if not isinstance(data["_atom_site_label"], list):
        return  # one site that isn't in a loop, which pymatgen refuses
    if isinstance(data.get("_atom_site_attached_hydrogens"), list):
        hydrogens = data["_atom_site_attached_hydrogens"]
        data["_atom_site_attached_hydrogens"] = ["0" if text.strip() in UNKNOWN else text for text in hydrogens]
    _drop(data, loop, _dummies(data))
    _read_occupancies(data)
    _drop(data, loop, _empty(data))
    _check_alternatives(data)
    labels = data["_atom_site_label"]
    if "_atom_site_type_symbol" in data:
        for symbol in data["_atom_site_type_symbol"]:
            _check_symbol(symbol)
        data["_atom_site_type_symbol"] = [_in_capitals(symbol, data) for symbol in data["_atom_site_type_symbol"]]
        _deuterium_as_hydrogen(data)
    else:
        elements = _stated_elements(data)
        data["_atom_site_type_symbol"] = [symbol_of_label(label, elements) for label in labels]
    for axis in "xyz":
        if any(value.strip().lower() in ("nan", *UNKNOWN) for value in data[f"_atom_site_fract_{axis}"]):
            raise ValueError("a site has no coordinates")


def _stated_elements(data: Mapping[str, Any]) -> set[str] | None:
    stated = stated_composition(data)
    return {str(element) for element in stated} if stated is not None else None


def _in_capitals(symbol: str, data: Mapping[str, Any]) -> str:
    """A symbol whose second letter is a capital, as some programs write it, where it can mean one element only.

    Raises:
        ValueError: it may be two elements: CO is cobalt, or carbon and oxygen.
    """
    letters = symbol.strip()[:2]
    if not re.fullmatch(r"[A-Z]{2}", letters) or letters in _WATER or not Element.is_valid_symbol(letters[0]):
        return symbol
    elements = _stated_elements(data)
    one, apart = letters.capitalize(), set(letters)
    if not Element.is_valid_symbol(one):
        return symbol
    if letters in _MOLECULES and (elements is None or one not in elements or apart <= elements):
        raise ValueError(f"the symbol {symbol!r} may be {one} or {letters[0]} and {letters[1]}: write {one}")
    return f"{one}{symbol.strip()[2:]}"


def _deuterium_as_hydrogen(data: Data) -> None:
    """Write H for D where both are listed: they are one element, and may share a place."""
    symbols = data["_atom_site_type_symbol"]
    heavy = [row for row, symbol in enumerate(symbols) if re.match(r"D(?![a-z])", symbol)]
    if not heavy or not any(re.match(r"H(?![a-z])", symbol) for symbol in symbols):
        return
    places = list(zip(*(data[f"_atom_site_fract_{axis}"] for axis in "xyz"), strict=True))
    labels = data["_atom_site_label"]
    for row in heavy:  # one place has one label
        shared = [other for other in range(len(symbols)) if other not in heavy and places[other] == places[row]]
        labels[row] = labels[shared[0]] if shared else labels[row]
    data["_atom_site_type_symbol"] = [
        f"H{symbol[1:]}" if row in set(heavy) else symbol for row, symbol in enumerate(symbols)
    ]
    if (stated := stated_composition(data)) is not None:
        data["_chemical_formula_sum"] = " ".join(f"{element}{amount:g}" for element, amount in stated.items())


def _drop(data: Data, loop: Sequence[str], rows: set[int]) -> None:
    """Take rows out of a loop."""
    n = len(data["_atom_site_label"])
    if len(rows) == n and n:
        raise ValueError("every site listed is a dummy or empty")
    for tag in loop if rows else ():
        if isinstance(data.get(tag), list) and len(data[tag]) == n:
            data[tag] = [value for row, value in enumerate(data[tag]) if row not in rows]


def _dummies(data: Mapping[str, Any]) -> set[int]:
    """Rows that mark a place and hold no atom."""
    flags = data.get("_atom_site_calc_flag", [])
    return {row for row, flag in enumerate(flags) if flag.strip().lower() in ("dum", "dummy")}


def _read_occupancies(data: Data) -> None:
    """Write the occupancies that "." stands for."""
    given = data.get("_atom_site_occupancy")
    if not isinstance(given, list):
        return
    for row, text in enumerate(given):
        if text.strip() == "?":
            raise ValueError(f"the occupancy of site {data['_atom_site_label'][row]!r} isn't known: it reads '?'")
    data["_atom_site_occupancy"] = ["1" if text.strip() == "." else text for text in given]


def _empty(data: Mapping[str, Any]) -> set[int]:
    given = data.get("_atom_site_occupancy", [])
    return {row for row, text in enumerate(given) if re.fullmatch(r"\+?0*\.?0*(\(\d+\))?", text.strip())}


def _is_whole(text: str) -> bool:
    try:
        return float(re.sub(r"\(.*", "", text)) > 0.999
    except ValueError:
        return False


def _check_alternatives(data: Mapping[str, Any]) -> None:
    """Raise ValueError where sites exclude each other by their groups alone, and their occupancies don't say so."""
    groups = data.get("_atom_site_disorder_group")
    if not isinstance(groups, list):
        return
    n = len(groups)
    occupancies = data.get("_atom_site_occupancy", ["1"] * n)
    assemblies = data.get("_atom_site_disorder_assembly", ["."] * n)
    whole: dict[str, set[str]] = {}
    for group, assembly, occupancy in zip(groups, assemblies, occupancies, strict=True):
        if group.strip() not in ("0", *UNKNOWN) and _is_whole(occupancy):
            whole.setdefault(assembly.strip(), set()).add(group.strip())
    for found in whole.values():
        if len(found) > 1 or any(group.startswith("-") for group in found):
            raise ValueError(
                f"its sites are alternatives (disorder groups {', '.join(sorted(found))}) but each is listed as fully "
                "occupied: keep one group, or give their occupancies"
            )


def _check_symbol(symbol: str) -> None:
    """Raise ValueError for a symbol that pymatgen would cut: a vacancy "Va" to vanadium, "Si/Al" to silicon."""
    capitals = symbol.strip().upper()
    if capitals in _GROUPS or capitals.startswith(_GROUPS_WITH_NUMBERS):
        raise ValueError(f"unknown element {symbol!r}: a group of atoms, each of which needs its own site")
    match = _SYMBOL.fullmatch(symbol.strip())
    if match and (Element.is_valid_symbol(match[1].capitalize()) or match[1].upper() in _WATER):
        return
    found = [part for part in re.findall(r"[A-Z][a-z]?", symbol) if Element.is_valid_symbol(part)]
    several = ": each element of a shared site needs a row, with its occupancy" if len(found) > 1 else ""
    raise ValueError(f"unknown element {symbol!r}{several if re.search(r'[^A-Za-z]', symbol) else ''}")


def symbol_of_label(label: str, elements: set[str] | None) -> str:
    """The element of a site of which only the label is known.

    Args:
        label: such as "Ca1", "OW1", "HO1".
        elements: those of the formula that the file states, if it does.

    Raises:
        ValueError: it names none, or may name two.
    """
    match = _LETTERS.match(label)
    if not match:
        raise ValueError(f"the label {label!r} names no element, and there is no _atom_site_type_symbol")
    letters = match.group()
    two = _TWO_ELEMENTS.match(label)
    if two and all(Element.is_valid_symbol(name) for name in two.groups()):
        raise ValueError(
            f"the label {label!r} names two elements: each of a shared site needs a row, with its occupancy and "
            "_atom_site_type_symbol"
        )
    if letters.upper() in _GROUPS or label.upper().startswith(_GROUPS_WITH_NUMBERS):
        raise ValueError(f"the label {label!r} is a group of atoms: each needs its own site")
    if letters[:2].upper() in _WATER and (elements is None or _WATER[letters[:2].upper()] in elements):
        return _WATER[letters[:2].upper()]
    long, short = letters[:2].capitalize(), letters[0].upper()
    possible = [name for name in dict.fromkeys((long, short)) if Element.is_valid_symbol(name) and name != "T"]
    if elements is not None:
        possible = [name for name in possible if name in elements or (name == "D" and "H" in elements)]
    elif letters[1:2].islower():
        possible = [name for name in possible if name == long]
    if not possible:
        raise ValueError(f"unknown element {label!r}, and there is no _atom_site_type_symbol")
    if len(possible) > 1 and not letters[1:2].islower():
        raise ValueError(f"the label {label!r} may be {' or '.join(possible)}: add _atom_site_type_symbol")
    return possible[0]


def stated_composition(data: Mapping[str, Any]) -> Composition | None:
    """The formula sum a file states, deuterium as hydrogen; None where there is none that can be read."""
    text = next((str(value) for tag, value in data.items() if tag.lower() == "_chemical_formula_sum"), "")
    try:
        found = Composition(re.sub(r"\(\d*\)", "", text.strip("'\" ")), strict=True) if text.strip(".? '\"") else None
    except Exception:  # whatever pymatgen's regexes raise: a formula with x in it, or none at all
        return None
    return as_atoms(found) if found else None


def as_atoms(composition: Composition) -> Composition:
    """The same amounts without charges, and deuterium as hydrogen."""
    amounts: dict[str, float] = {}
    for species, amount in composition.items():
        symbol = Element.from_Z(species.Z).symbol
        amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
    return Composition(amounts)


def with_shared_hydrogen(structure: Structure, data: Mapping[str, Any]) -> Structure:
    """Hydrogen that shares a place with oxygen, which pymatgen takes for a hydroxyl group and leaves out.

    Raises:
        ValueError: the hydrogen is only stated and has no place.
    """
    hydrogen = structure.site_properties.get("implicit_hydrogens")
    if not hydrogen or not any(hydrogen):
        return structure
    groups = ("Wat", "wat", "O-H")
    listed = any(re.match(r"[HD](?![a-z])", symbol) for symbol in data.get("_atom_site_type_symbol", []))
    if not listed or any(str(symbol).startswith(groups) for symbol in data.get("_atom_site_type_symbol", [])):
        raise ValueError("hydrogen atoms are stated but have no positions")
    species = [
        Composition({**site.species.as_dict(), "H": share}) if share else site.species
        for site, share in zip(structure, hydrogen, strict=True)
    ]
    if any(sum(shares.values()) > 1 + 1e-6 for shares in species):
        raise ValueError("a site has an occupancy above 1")
    return Structure(structure.lattice, species, structure.frac_coords, labels=structure.labels)


def check_implicit_hydrogen(data: Mapping[str, Any]) -> None:
    """Raise ValueError where sites say that hydrogen is attached to them which isn't listed."""
    for text in data.get("_atom_site_attached_hydrogens", []):
        if text.strip() not in ("0", *UNKNOWN):
            raise ValueError("hydrogen atoms are stated but have no positions")
    if _stated_elements(data) is not None:
        return  # the sum is compared with the sites
    listed = any(re.match(r"[HD](?![a-z])", symbol) for symbol in data.get("_atom_site_type_symbol", []))
    for tag in ("_chemical_formula_moiety", "_chemical_formula_structural"):
        if not listed and re.search(r"(?<![A-Za-z])[HD](?![a-z])|(?<=[a-z])H(?![a-z])", str(data.get(tag, ""))):
            raise ValueError(f"{tag} states hydrogen, and no hydrogen atom is listed")


def formula_disagreement(structure: Structure, data: Mapping[str, Any]) -> str:
    """How a crystal with shared sites differs from the formula the file states; "" where it doesn't.

    Occupancies and formulas of such crystals are rounded, each in its way, so that only what can't be rounding counts:
    an element that is missing or too many, or an amount off by a tenth (hydrogen: a twentieth).
    """
    stated = stated_composition(data)
    if stated is None:
        return ""
    found = as_atoms(structure.composition)
    missing = {str(element) for element in stated} ^ {str(element) for element in found}
    if missing:
        return f"{', '.join(sorted(missing))} in one and not in the other"
    ratios = {str(element): found[element] / stated[element] for element in stated}
    usual = float(np.median(list(ratios.values()))) if len(ratios) > 2 else sum(found.values()) / sum(stated.values())
    atoms = usual * sum(stated.values())
    for symbol, ratio in ratios.items():
        off = abs(ratio / usual - 1)
        share = abs(found[symbol] - usual * stated[symbol]) / atoms
        if off > (_MISSING_H if symbol == "H" else _MISSING_FEW) and share > (0.005 if symbol == "H" else 0.02):
            return f"{found[symbol]:.4g} {symbol} in the cell, {usual * stated[symbol]:.4g} by the formula"
    return ""
