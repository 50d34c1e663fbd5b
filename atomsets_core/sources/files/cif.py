"""CIF text to structures, with a reason for each block whose sites would not be those the file means.

The parser of pymatgen is forgiving: it leaves out sites whose symbol it can't read, and falls back to P1 or to a
standard setting where it doesn't know the space group. The result is a structure, but not the one in the file, so
`read_cif` refuses what pymatgen only warns of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pymatgen.core import Element, Structure
from pymatgen.io.cif import CifParser

from atomsets_core.sources.entries import Crystal, Entry, default_id, reason_of
from atomsets_core.sources.files.plain_cif import read_plain
from atomsets_core.structures import Refusal

_BLOCK = re.compile(r"^[ \t]*data_", re.MULTILINE | re.IGNORECASE)
_DATABASE_CODE = re.compile(r"^\s*_(?:cod_database_code|database_code_\w+)[ \t]+([\w-]+)\s*$", re.MULTILINE)
_WATER = ("Hw", "Ow")  # names of the two elements in water


def read_cif(text: str, name: str, stem: str) -> list[Entry | Refusal]:
    """The structures of a CIF, one for each block that has a cell or sites.

    Args:
        text: the file.
        name: the file's name, the identifier of a refusal where the file holds one block.
        stem: identifier of the structure; of several, the blocks' database codes (COD, ICSD) where each has its
            own, else `stem-0`, `stem-1`, ...

    Raises:
        ValueError: no block holds a structure.
    """
    blocks = ["data_" + block for block in _BLOCK.split(text)[1:]]
    # blocks of journals and Rietveld programs that hold only text or patterns are no entries
    blocks = [block for block in blocks if "_cell_length_a" in block or "_atom_site_fract_x" in block]
    if not blocks:
        raise ValueError("not a CIF with a structure: no data_ block has a cell or sites")
    codes = _database_codes(blocks)
    ids = [default_id(code, stem, position, len(blocks)) for position, code in enumerate(codes)]
    found: list[Entry | Refusal] = []
    for block, material_id in zip(blocks, ids, strict=True):
        try:
            found.append(Entry(material_id, structure_from_block(block)))
        except Exception as error:  # pymatgen raises whatever its arithmetic or regexes raise
            refused = name if len(blocks) == 1 else material_id
            found.append(Refusal(refused, "parse", reason_of(error, "not a usable CIF")))
    return found


def _database_codes(blocks: list[str]) -> list[str | None]:
    codes = [match.group(1) if (match := _DATABASE_CODE.search(block)) else None for block in blocks]
    return list(codes) if len(blocks) > 1 and len(set(codes) - {None}) == len(blocks) else [None] * len(blocks)


def structure_from_block(block: str) -> Structure | Crystal:
    """The structure of one data block, in the cell of the file.

    Plain blocks go through `read_plain`, all others through pymatgen's parser.

    Raises:
        ValueError: the block can't be parsed, or the sites pymatgen makes of it aren't those the file lists.
    """
    plain = read_plain(block)
    return parsed_by_pymatgen(block) if plain is None else plain


def parsed_by_pymatgen(block: str) -> Structure:
    """The structure of one data block by pymatgen's parser.

    Raises:
        ValueError: the block can't be parsed, or the sites pymatgen makes of it aren't those the file lists.
    """
    try:
        parser = CifParser.from_str(block)
    except Exception as error:
        raise ValueError(reason_of(error, "a table of it is incomplete")) from error
    data = next(iter(parser.as_dict().values()))
    if reason := _no_cell(data) or _unknown_element(data) or _missing_coordinate(data):
        raise ValueError(reason)
    try:
        structure = parser.parse_structures(primitive=False, on_error="raise")[0]
    except ValueError as error:
        cause = error.__cause__
        raise ValueError(reason_of(cause if isinstance(cause, Exception) else error)) from error
    if reason := _not_as_listed(data, structure, parser):
        raise ValueError(reason)
    return structure


def _no_cell(data: Mapping[str, Any]) -> str:
    if {"_symmetry_cell_setting", "_space_group_crystal_system"} & data.keys():
        return ""  # lengths and angles that the system fixes may be left out
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"):
        if f"_cell_{name}" not in data:
            return f"'_cell_{name}' is missing"
    return ""


def _not_as_listed(data: Mapping[str, Any], structure: Structure, parser: CifParser) -> str:
    """Why the structure isn't the one the file lists; "" where it is."""
    said: list[str] = parser.warnings  # type: ignore[attr-defined]
    reason = _unknown_symmetry(data, said) or _lost_sites(data, structure)
    if reason or not structure.is_ordered:
        return reason
    if any("implicit hydrogens" in warning for warning in said):
        return "hydrogen atoms are stated but have no positions"
    disagreement = parser.check(structure) or ""
    if disagreement.startswith(("Missing elements", "Incorrect stoichiometry")):
        return f"the formula and the sites of the file disagree: {disagreement}"
    return ""


def _unknown_element(data: Mapping[str, Any]) -> str:
    """A symbol that pymatgen would cut to its first letter: a vacancy "Va" to vanadium, "Cx" to carbon."""
    symbols = data.get("_atom_site_type_symbol")
    for symbol in symbols or data.get("_atom_site_label", []):
        pattern = r"[A-Za-z]+" if symbols else r"[A-Z][a-z]"  # a label may go on in capitals: OW1, C1A
        match = re.match(pattern, symbol)
        letters = match.group().capitalize() if match else ""
        if (letters or symbols) and not Element.is_valid_symbol(letters) and letters not in _WATER:
            return f"unknown element {symbol!r}"
    return ""


def _missing_coordinate(data: Mapping[str, Any]) -> str:
    for axis in "xyz":
        if any(value.strip().lower() in (".", "?", "nan") for value in data.get(f"_atom_site_fract_{axis}", [])):
            return "a site has no coordinates"
    return ""


def _unknown_symmetry(data: Mapping[str, Any], warnings: list[str]) -> str:
    """A space group that pymatgen replaced by P1 or by the standard setting of its number."""
    listed = any("xyz" in key and ("symop" in key or "equiv_pos" in key) for key in data)
    symbols = [
        re.sub(r"[\s_]", "", str(value))
        for key, value in data.items()
        if key.lower().startswith(("_symmetry_space_group_name", "_space_group_name"))
    ]
    symbols = [symbol for symbol in symbols if symbol not in ("", ".", "?", "P1")]
    to_p1 = any("Defaulting to P1" in warning for warning in warnings)
    by_symbol = any("Spacegroup from" in warning for warning in warnings)
    if to_p1 and listed:
        return "the symmetry operations can't be read"
    if symbols and not listed and not by_symbol:
        return f"the space group {symbols[0]!r} isn't known and no symmetry operations are listed"
    return ""


def _lost_sites(data: Mapping[str, Any], structure: Structure) -> str:
    if not structure.is_ordered:
        return ""  # sites are shared: what the file lists and what became of it can't be compared one by one
    labels = data["_atom_site_label"]
    occupancies = data.get("_atom_site_occupancy", ["1"] * len(labels))
    empty = {label for label, occupancy in zip(labels, occupancies, strict=True) if re.match(r"0?\.?0*$", occupancy)}
    lost = set(labels) - {site.label for site in structure} - empty
    return f"site {min(lost)!r} can't be read" if lost else ""
