"""A fast reader of plain CIFs: one cell, ordered sites with element symbols, symmetry operations as x, y, z.

That is what databases and programs write. It makes of such a block what pymatgen's parser makes of it, site by site
and in the same order, in a twentieth of the time. Everything else it leaves to that parser: `read_plain` gives None
wherever it would have to interpret, round, guess or complain.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pymatgen.core import Element
from pymatgen.core.operations import SymmOp
from scipy.spatial import cKDTree

from atomsets_core.sources.entries import Crystal
from atomsets_core.structures import LARGEST_ATOMIC_NUMBER

_CELL = tuple(f"_cell_{name}" for name in (
    "length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma",
))  # fmt: skip
_FRACT = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
# what changes the meaning of the sites beyond a plain list of them
_UNUSUAL = ("\n;", "_moment", "magn", "_attached_hydrogens", "_oxidation_number", "_eof", "_cell_modulation",
            "global_", "save_", "stop_")  # fmt: skip
_HASH_BEHIND = re.compile(r"^[^#\n]*[^#\s][^#\n]*#", re.MULTILINE)
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_QUOTED = re.compile(r"""'([^'"]*)'(?!\S)|"([^'"]*)"(?!\S)|([^'"\s]\S*)""")
_FORMULA_PART = re.compile(r"([A-Z][a-z]?)(\d*)")
_NEAR = 2e-4  # of sites; pymatgen takes those within 1e-4 for one, so that closer ones are left to it
_GRID = 1_000_000
_THINNEST = 0.011  # Angstrom; pymatgen refuses cells thinner than 0.01
_MOST_SITES = 20_000

Table = dict[str, list[str]]


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
    operations = [columns[name] for name in _OPERATIONS if name in columns]
    named = [name for name in values.keys() | columns.keys() if name.rstrip("_") in _OPERATIONS]
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
    sites = _expand(_ideal(frac), symmetry)
    if sites is None:
        return None
    frac, owner = sites
    if not _as_stated(values, numbers[owner]):
        return None
    by_electronegativity = np.argsort(order[owner], kind="stable")
    return Crystal(cell, numbers[owner][by_electronegativity], frac[by_electronegativity])


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
    if not 0 < n * n_operations <= _MOST_SITES or not np.array_equal(symmetry[0], np.eye(4)):
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
    return np.asarray(np.abs(difference, out=difference).max(axis=2))


def _touching(sites: npt.NDArray[np.float64]) -> bool:
    if len(sites) <= 64:
        return bool(np.triu(_apart(sites, sites) < _NEAR, 1).any())
    wrapped = sites % 1.0
    wrapped[wrapped >= 1] = 0
    return bool(len(cKDTree(wrapped, boxsize=1).query_pairs(_NEAR, p=np.inf)))


def _as_stated(values: dict[str, str], numbers: npt.NDArray[np.int64]) -> bool:
    """Whether the sites have the formula of the file, where it states one."""
    stated = values.get("_chemical_formula_sum", "")
    if not stated:
        return "_chemical_formula_sum" not in values and "_chemical_formula_structural" not in values
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
    ratios = {Fraction(listed[known[symbol][1]], amount) for symbol, amount in counts.items() if amount}
    return len(ratios) == 1 and all(counts.values())
