"""CIF files: a fast reader for plain ones, pymatgen for all others.

The parser of pymatgen is forgiving: it leaves out sites whose symbol it can't read, and falls back to P1 or to a
standard setting where it doesn't know the space group. The result is a structure, but not the one in the file, so
`read_cif` makes the list of sites (`cif_sites`) and the symmetry (`cif_symmetry`) plain before pymatgen sees them, and
refuses what pymatgen only warns of.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pymatgen.core import Element, Structure
from pymatgen.core.operations import SymmOp
from pymatgen.io.cif import CifParser
from scipy.spatial import cKDTree

from atomsets_core.sources.base import Crystal, Entry, default_id, reason_of
from atomsets_core.sources.files.cif_sites import (
    UNKNOWN,
    Data,
    check_implicit_hydrogen,
    check_kind,
    formula_disagreement,
    prepare_sites,
    with_shared_hydrogen,
)
from atomsets_core.sources.files.cif_symmetry import (
    LISTED,
    check_whole,
    names_more_symmetry,
    operations_listed,
    read_without_operations,
)
from atomsets_core.sources.files.space_groups import keeps_metric
from atomsets_core.structures import LARGEST_ATOMIC_NUMBER, Refusal

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
    blocks = ["data_" + block for block in _BLOCK.split(_with_usual_tags(text))[1:]]
    # blocks of journals and Rietveld programs that hold only text or patterns are no entries
    blocks = [block for block in blocks if "_cell_length_a" in block or "_atom_site_fract_x" in block]
    if not blocks:
        raise ValueError("not a CIF with a structure: no data_ block has a cell or sites")
    codes = _database_codes(blocks)
    ids = [default_id(code, stem, position, len(blocks)) for position, code in enumerate(codes)]
    found: list[Entry | Refusal] = []
    for block, material_id in zip(blocks, ids, strict=True):
        try:
            structure = structure_from_block(block)
            beside = structure.properties if isinstance(structure, Structure) else {}
            found.append(Entry(material_id, structure, beside))
        except Exception as error:  # pymatgen raises whatever its arithmetic or regexes raise
            refused = name if len(blocks) == 1 else material_id
            found.append(Refusal(refused, "parse", reason_of(error, "not a usable CIF")))
    return found


_DOTTED = re.compile(
    r"^([ \t]*_(?:cell|atom_site|symmetry|symmetry_equiv|space_group|space_group_symop|chemical_formula))\.(?!aniso)",
    re.MULTILINE | re.IGNORECASE,
)
_TAG = re.compile(
    r"^[ \t]*_(?:cell_(?:length|angle|volume|formula)|atom_site_(?!aniso|moment|[bu]_|cartn))\w+",
    re.MULTILINE | re.IGNORECASE,
)


def _with_usual_tags(text: str) -> str:
    """Tags as pymatgen looks for them: CIF takes capitals for small letters, and later dictionaries write a dot."""
    if "_cell_length_a" in text and "_atom_site_fract_x" in text:
        return text
    text = _DOTTED.sub(r"\1_", text)
    text = _TAG.sub(lambda found: found.group().lower(), text)
    return text.replace("_cell_formula_units_z", "_cell_formula_units_Z")


def _database_codes(blocks: list[str]) -> list[str | None]:
    codes = [match.group(1) if (match := _DATABASE_CODE.search(block)) else None for block in blocks]
    return list(codes) if len(blocks) > 1 and len(set(codes) - {None}) == len(blocks) else [None] * len(blocks)


def structure_from_block(block: str) -> Structure | Crystal:
    """The structure of one data block, in the cell of the file.

    Plain blocks go through `read_plain`, all others through pymatgen's parser; which operations are meant where none
    are listed is for `atomsets_core.sources.files.cif_symmetry`.

    Raises:
        ValueError: the block can't be parsed, or the sites that would come of it aren't those the file lists.
    """
    plain = read_plain(block)
    return plain if plain is not None else _read_parsed(block)


def _read_parsed(block: str) -> Structure | Crystal:
    parser, data = _parsed(block)
    if operations_listed(data):
        structure = _structure_of(parser, data)
        if len(parser.symmetry_operations) == 1:
            check_whole(data, structure)
        return structure
    lattice = parser.get_lattice(data)  # type: ignore[arg-type]  # of the block it needs what it holds
    if lattice is None:
        raise ValueError("its cell can't be read")
    return read_without_operations(block, data, lattice, _read_listed)


def _read_listed(block: str) -> Structure | Crystal:
    plain = read_plain(block)
    return plain if plain is not None else parsed_by_pymatgen(block)


def parsed_by_pymatgen(block: str) -> Structure:
    """The structure of one data block that lists its operations, by pymatgen's parser.

    Raises:
        ValueError: the block can't be parsed, or the sites pymatgen makes of it aren't those the file lists.
    """
    parser, data = _parsed(block)
    if not operations_listed(data):  # of a broken block, the last text of which never ends
        raise ValueError("the symmetry operations can't be read")
    return _structure_of(parser, data)


def _parsed(block: str) -> tuple[CifParser, Data]:
    """The parser of pymatgen, and the block as it holds it, with a list of sites that are atoms."""
    try:
        parser = CifParser.from_str(block)
    except Exception as error:
        raise ValueError(reason_of(error, "a table of it is incomplete")) from error
    held = next(iter(parser._cif.data.values()))  # type: ignore[attr-defined]  # what it makes structures of
    check_kind(held.data)
    if reason := _no_cell(held.data):
        raise ValueError(reason)
    prepare_sites(held.data, next((loop for loop in held.loops if "_atom_site_label" in loop), ()))
    return parser, held.data


def _structure_of(parser: CifParser, data: Data) -> Structure:
    try:
        structure = parser.parse_structures(primitive=False, on_error="raise")[0]
    except ValueError as error:
        cause = error.__cause__
        raise ValueError(reason_of(cause if isinstance(cause, Exception) else error)) from error
    rotations = np.array([operation.rotation_matrix for operation in parser.symmetry_operations])
    if not keeps_metric(rotations, structure.lattice.matrix):
        raise ValueError("the symmetry operations contradict the cell: they would change its lengths or angles")
    structure = with_shared_hydrogen(structure, data)
    if reason := _not_as_listed(data, structure, parser):
        raise ValueError(reason)
    if "_atom_site_moment_label" in data:
        from atomsets_core.sources.files.magnetic_cif import moment_columns

        structure.properties = moment_columns(structure, data, parser.symmetry_operations)
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
    if any("Defaulting to P1" in warning for warning in said):
        return "the symmetry operations can't be read"
    if reason := _lost_sites(data, structure):
        return reason
    check_implicit_hydrogen(data)
    if not structure.is_ordered:
        disagreement = formula_disagreement(structure, data)
    else:
        disagreement = parser.check(structure) or ""
        if not disagreement.startswith(("Missing elements", "Incorrect stoichiometry")):
            return ""
    return f"the formula and the sites of the file disagree: {disagreement}" if disagreement else ""


def _lost_sites(data: Mapping[str, Any], structure: Structure) -> str:
    if not structure.is_ordered:
        return ""  # sites are shared: what the file lists and what became of it can't be compared one by one
    lost = set(data["_atom_site_label"]) - {site.label for site in structure}
    return f"site {min(lost)!r} can't be read" if lost else ""


_CELL = tuple(f"_cell_{name}" for name in (
    "length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma",
))  # fmt: skip

_FRACT = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")

# what changes the meaning of the sites beyond a plain list of them
_UNUSUAL = ("\n;", "_moment", "magn", "_attached_hydrogens", "_oxidation_number", "_eof", "_cell_modulation",
            "_wave_vector", "_ssg_", "_fourier", "_subsystem", "_displace_", "global_", "save_", "stop_")  # fmt: skip

_HASH_BEHIND = re.compile(r"^[^#\n]*[^#\s][^#\n]*#", re.MULTILINE)

_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)

_QUOTED = re.compile(r"""'([^'"]*)'(?!\S)|"([^'"]*)"(?!\S)|([^'"\s]\S*)""")

_FORMULA_PART = re.compile(r"([A-Z][a-z]?)(\d*)")

_NEAR = 2e-4  # of sites; pymatgen takes those within 1e-4 for one, so that closer ones are left to it

_GRID = 1_000_000

_IDENTITY = np.eye(4)

_THINNEST = 0.011  # Angstrom; pymatgen refuses cells thinner than 0.01

_MOST_SITES = 20_000

Table = dict[str, list[str]]


def _says_p1(values: Mapping[str, str]) -> bool:
    """Whether all that a block says of symmetry is P 1 and number 1, as most writers of files without symmetry do."""
    said = [value for tag, value in values.items() if tag.lower().startswith(("_symmetry_", "_space_group_"))]
    return all("".join(value.split()).strip("'\"").lower() in ("p1", "1") for value in said)


def read_plain(block: str) -> Crystal | None:
    """The structure of one data block, or None where the block isn't plain."""
    lowered = block.lower()
    if not block.isascii() or any(word in lowered for word in _UNUSUAL):
        return None
    if "#" in block and _HASH_BEHIND.search(block):  # a comment behind a value, or a part of one
        return None
    tables = _tables(block)
    if tables is None:
        return None
    values, columns = tables
    symbols = columns.get("_atom_site_type_symbol")
    operations = [columns[name] for name in LISTED if name in columns]
    named = [name for name in values.keys() | columns.keys() if name.rstrip("_") in LISTED]
    if _has_alternatives(columns):
        return None
    if symbols is None or "_atom_site_label" not in columns or len(operations) != 1 or len(named) != 1:
        return None
    try:
        cell = _lattice(*[_number(values[name]) for name in _CELL])
        frac = np.array([_numbers(columns[name]) for name in _FRACT]).T
        occupancies = set(_numbers(columns.get("_atom_site_occupancy", ["1"])))
        found = [_known_elements()[symbol] for symbol in symbols]
        symmetry = np.array([_operation(text) for text in operations[0]])
    except (KeyError, ValueError):
        return None
    if cell is None or occupancies != {1.0} or not np.isfinite(frac).all():
        return None
    order, numbers = np.array(found).T
    if len(symmetry) > 1 and not keeps_metric(symmetry[:, :3, :3], cell):
        return None
    if len(symmetry) == 1 and not _says_p1(values) and names_more_symmetry(values):
        return None
    sites = _expand(_ideal(frac), symmetry)
    if sites is None:
        return None
    frac, owner = sites
    if not _as_stated(values, numbers[owner]):
        return None
    by_electronegativity = np.argsort(order[owner], kind="stable")
    return Crystal(cell, numbers[owner][by_electronegativity], frac[by_electronegativity])


def _has_alternatives(columns: Table) -> bool:
    """Whether some sites aren't atoms, or exclude others."""
    flags, groups = columns.get("_atom_site_calc_flag", []), columns.get("_atom_site_disorder_group", [])
    return any(flag.lower().startswith("dum") for flag in flags) or any(group not in UNKNOWN for group in groups)


def _tables(block: str) -> tuple[dict[str, str], Table] | None:
    """Single values and columns of loops, by name; None where a line isn't as simple as those of a plain CIF."""
    values: dict[str, str] = {}
    columns: Table = {}
    heads: list[str] = []
    in_head = False
    lines = iter(_COMMENT.sub("", block).splitlines())
    next(lines)  # data_...
    for raw in lines:
        line = raw.strip()
        if not line:
            continue
        if line[0] == "_":
            parts = line.split(None, 1)
            name = parts[0]
            if name in values or name in columns:
                return None
            if in_head:
                if len(parts) > 1:
                    return None
                heads.append(name)
                columns[name] = []
                continue
            if len(parts) == 1:
                return None
            tokens = _tokens(parts[1])
            if len(tokens) != 1:
                return None
            values[name], heads = tokens[0], []
        elif line == "loop_":
            heads, in_head = [], True
        elif heads:
            in_head = False
            tokens = _tokens(line)
            if len(tokens) != len(heads):
                return None
            for name, token in zip(heads, tokens, strict=True):
                columns[name].append(token)
        else:
            return None
    return values, columns


def _tokens(line: str) -> list[str]:
    if "'" not in line and '"' not in line:
        return line.split()
    found = _QUOTED.findall(line)
    tokens = [single or double or bare for single, double, bare in found]
    # what the pattern passed over is a quote inside of a word or one that never closes
    quotes = sum(2 for single, double, bare in found if not bare)
    return tokens if line.count("'") + line.count('"') == quotes else []


def _number(text: str) -> float:
    """A number, without the uncertainty behind it.

    Raises:
        ValueError: it is none.
    """
    return float(text if "(" not in text else text[: text.index("(")])


def _numbers(texts: list[str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError:
        return [_number(text) for text in texts]


@lru_cache(maxsize=1)
def _known_elements() -> dict[str, tuple[int, int]]:
    """Symbol -> place in the order of electronegativity (as pymatgen sorts sites) and atomic number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        elements = [Element.from_Z(z) for z in range(1, LARGEST_ATOMIC_NUMBER + 1)]
        known = sorted((float(element.X), element.symbol, element.Z) for element in elements if element.X == element.X)
    return {symbol: (place, z) for place, (_, symbol, z) in enumerate(known)}


@lru_cache(maxsize=4096)
def _operation(text: str) -> npt.NDArray[np.float64]:
    """(4, 4) affine matrix of "x, -y, z+1/2".

    Raises:
        ValueError: it isn't of this kind.
    """
    if not re.fullmatch(r"[-+xyzXYZ0-9/., ]+", text) or text.count(",") != 2:
        raise ValueError(text)
    matrix = np.asarray(SymmOp.from_xyz_str(text).affine_matrix, dtype=np.float64)
    if abs(abs(np.linalg.det(matrix[:3, :3])) - 1) > 1e-9:
        raise ValueError(text)
    return matrix


def _ideal(frac: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0.3333 and 0.6667 mean thirds; the tolerance is pymatgen's."""
    frac = frac.copy()
    for third in (1 / 3, 2 / 3):
        frac[np.abs(frac / third - 1) <= 1e-4] = third
    return frac


def _lattice(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> npt.NDArray[np.float64] | None:
    """(3, 3) row vectors as `lattice_vectors` gives them; None where they close no cell, or one too thin."""
    angles = (math.radians(alpha), math.radians(beta), math.radians(gamma))
    (cos_alpha, cos_beta, cos_gamma) = map(math.cos, angles)
    (sin_alpha, sin_beta, _) = map(math.sin, angles)
    if not (min(a, b, c) > 0 and min(sin_alpha, sin_beta) > 1e-9 and max(a, b, c) < math.inf):
        return None
    cos_gamma_star = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)
    if not abs(cos_gamma_star) < 1:
        return None
    sin_gamma_star = math.sqrt(1 - cos_gamma_star * cos_gamma_star)
    volume = a * b * c * sin_alpha * sin_beta * sin_gamma_star
    faces = (b * c * sin_alpha, a * c * sin_beta, a * b * abs(math.sin(angles[2])))
    if not volume > _THINNEST * max(faces):
        return None
    first = (a * sin_beta, 0.0, a * cos_beta)
    gamma_star = math.acos(cos_gamma_star)
    second = (-b * sin_alpha * math.cos(gamma_star), b * sin_alpha * math.sin(gamma_star), b * cos_alpha)
    return np.array([first, second, (0.0, 0.0, c)])


def _expand(
    frac: npt.NDArray[np.float64], symmetry: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]] | None:
    """All sites of the cell, and the listed site each comes from; None where two may be one."""
    n, n_operations = len(frac), len(symmetry)
    if not 0 < n * n_operations <= _MOST_SITES or not (symmetry[0] == _IDENTITY).all():
        return None
    images = np.einsum("oij,nj->noi", symmetry[:, :3, :3], frac) + symmetry[None, :, :3, 3]
    images -= np.floor(images)
    if n_operations == 1:
        sites, owner = images[:, 0], np.arange(n)
    else:
        whole = np.round(images * _GRID).astype(np.int64) % _GRID
        keys = (whole[..., 0] * _GRID + whole[..., 1]) * _GRID + whole[..., 2]
        kept = []
        for own, key in zip(images, keys, strict=True):
            _, first, counts = np.unique(key, return_index=True, return_counts=True)
            if (counts != counts[0]).any():  # images of one site coincide equally often, or rounding has split them
                return None
            kept.append(own[np.sort(first)])
        sites, owner = np.concatenate(kept), np.repeat(np.arange(n), [len(own) for own in kept])
    return None if _touching(sites) else (sites, owner)


def _apart(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, m) largest difference of a fractional coordinate, across the borders of the cell too."""
    difference = first[:, None] - second[None]
    difference -= np.round(difference)
    np.abs(difference, out=difference)
    return np.maximum(np.maximum(difference[..., 0], difference[..., 1]), difference[..., 2])


def _touching(sites: npt.NDArray[np.float64]) -> bool:
    if len(sites) <= 64:
        # Every site is as near as that to itself.
        return int(np.count_nonzero(_apart(sites, sites) < _NEAR)) > len(sites)
    wrapped = sites % 1.0
    wrapped[wrapped >= 1] = 0
    return bool(len(cKDTree(wrapped, boxsize=1).query_pairs(_NEAR, p=np.inf)))


def _as_stated(values: dict[str, str], numbers: npt.NDArray[np.int64]) -> bool:
    """Whether the sites have the formula of the file, where it states one."""
    stated = values.get("_chemical_formula_sum", "")
    if not stated:
        return not any(f"_chemical_formula_{kind}" in values for kind in ("sum", "structural", "moiety"))
    counts: dict[str, int] = {}
    for part in stated.split():
        match = _FORMULA_PART.fullmatch(part)
        if not match or match[1] in counts:
            return False
        counts[match[1]] = int(match[2] or 1)
    known = _known_elements()
    if not counts.keys() <= known.keys():
        return False
    listed = Counter(numbers.tolist())
    if {known[symbol][1] for symbol in counts} != set(listed):
        return False
    pairs = [(listed[known[symbol][1]], amount) for symbol, amount in counts.items()]
    n, stated_n = pairs[0]
    return all(amount and found * stated_n == n * amount for found, amount in pairs)
