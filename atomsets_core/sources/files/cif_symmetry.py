"""The symmetry of a CIF that lists no operations: which setting its symbol means is decided by what else it states.

A symbol or number often stands for several settings: two origins, two axes of a rhombohedral lattice, the choices of
axes of a monoclinic one. Each is tried. It must leave the cell what it is, and give the formula, the number of formula
units, the density and the multiplicities that the file states, without atoms on top of each other. One crystal must
remain; where two do, or none, the file is refused with a sentence that names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pymatgen.core import Composition, Element, Lattice, Structure
from scipy.spatial import cKDTree

from atomsets_core.sources.base import Crystal, reason_of
from atomsets_core.sources.files.cif_sites import UNKNOWN, as_atoms, stated_composition
from atomsets_core.sources.files.space_groups import (
    Operations,
    Setting,
    by_hall,
    by_number,
    by_symbol,
    fits_choice,
    keeps_metric,
)
from atomsets_core.structures import neighbours, radii

LISTED = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
"""Tags of symmetry operations, of which pymatgen also knows spellings with an underscore behind."""

_SYMBOL_TAG = re.compile(r"_(?:symmetry_)?space_group[_.]name_h[-_]m(?:_(?:alt|full|ref))?_?")
_HALL_TAG = re.compile(r"_(?:symmetry_)?space_group[_.]name_hall_?")
_NUMBER_TAG = re.compile(r"_(?:symmetry_int_tables_number|space_group[_.]it_number|symmetry_group_it_number)_?")
_CODE_TAG = re.compile(r"_space_group[_.]it_coordinate_system_code_?")

_EMPTY_LIST = re.compile(
    rf"(?:^\s*loop_\s+)?^\s*(?:{'|'.join(LISTED)})_?\s+['\"]?[?.]['\"]?[ \t]*$", re.MULTILINE | re.IGNORECASE
)

_TOO_NEAR = 0.6
"""Share of the sum of two covalent radii: no bond of 51,149 crystals of the Materials Project is shorter. A reading
with a shorter one is not what the file means if another has none."""

Reading = Structure | Crystal
Reader = Callable[[str], Reading]


@dataclass(frozen=True)
class Stated:
    """What a file says that tells readings apart.

    Attributes:
        name: of its space group, for messages.
        settings: what that may mean.
        by_symbol: a symbol was given, which has a usual axis; a number has none.
        formula: its formula sum.
        units: formula units in the cell.
        density: g / cm^3.
        frac: (n, 3) coordinates of the sites listed, NaN where they can't be read.
        multiplicities: of those sites; empty where they aren't given.
    """

    name: str
    settings: tuple[Setting, ...]
    by_symbol: bool
    formula: Composition | None
    units: float | None
    density: float | None
    frac: npt.NDArray[np.float64]
    multiplicities: tuple[int, ...]


def operations_listed(data: Mapping[str, Any]) -> bool:
    """Whether a block lists symmetry operations, magnetic ones included."""
    for tag, value in data.items():
        lowered = tag.lower()
        if "xyz" in lowered and ("symop" in lowered or "equiv_pos" in lowered or "equiv.pos" in lowered):
            texts = [value] if isinstance(value, str) else value
            if any(str(text).strip().strip("'\"") not in UNKNOWN for text in texts):
                return True
    return False


def names_more_symmetry(values: Mapping[str, str]) -> bool:
    """Whether single values of a block name another space group than P 1.

    Args:
        values: tag -> value.
    """
    for tag, value in values.items():
        lowered = tag.lower()
        if lowered.startswith(("_symmetry_", "_space_group_")):
            text = _unquoted(value).replace(" ", "").lower()
            if text in UNKNOWN:
                continue
            if _SYMBOL_TAG.fullmatch(lowered) or _HALL_TAG.fullmatch(lowered):
                if text != "p1":
                    return True
            elif _NUMBER_TAG.fullmatch(lowered) and text != "1":
                return True
    return False


FILLED = 0.5
"""Angstrom within which an image of a site counts as listed: cells that were relaxed keep the name of their group."""


def check_whole(data: Mapping[str, Any], structure: Structure) -> None:
    """Whether all sites of the cell are listed where x, y, z is the only operation and another space group is named.

    Such a file lists its whole cell, or the operations that make it of the listed sites got lost. In the first case
    the operations of its group lead from listed sites to listed sites.

    Args:
        data: tags and values of the block.
        structure: what is read of it.

    Raises:
        ValueError: no setting of the group that is named leads to listed sites alone.
    """
    try:
        settings, name, _ = _named_settings(data)
    except ValueError:
        return
    fitting = [one for one in settings if keeps_metric(one.operations.rotations, structure.lattice.matrix)]
    if not fitting or any(len(one.operations.rotations) == 1 for one in fitting):
        return
    tree = cKDTree(_in_cell(structure.frac_coords), boxsize=1)
    shortest = float(min(structure.lattice.abc))
    for setting in _without_repeats(fitting):
        operations = setting.operations
        images = np.einsum("oij,nj->oni", operations.rotations, structure.frac_coords)
        images = (images + operations.translations[:, None]).reshape(-1, 3)
        if (tree.query(_in_cell(images))[0] * shortest < FILLED).all():
            return
    raise ValueError(
        f"it names the space group {name} and lists x, y, z alone, but not all of the sites that this group makes: "
        "list its operations, or name P 1"
    )


def read_without_operations(block: str, data: Mapping[str, Any], lattice: Lattice, read: Reader) -> Reading:
    """The one crystal that a block can mean.

    Args:
        block: its text.
        data: its tags and values.
        lattice: its cell.
        read: from a block that lists operations to the crystal; raises ValueError where it can't be.

    Raises:
        ValueError: none, or more than one, agrees with what the block states.
    """
    stated = _stated(data)
    _check_volume(data, lattice)
    fitting = [one for one in stated.settings if keeps_metric(one.operations.rotations, lattice.matrix)]
    if not fitting:
        lengths = ", ".join(f"{length:g}" for length in lattice.abc)
        angles = ", ".join(f"{angle:g}" for angle in lattice.angles)
        raise ValueError(f"the cell contradicts the space group {stated.name}: lengths {lengths}, angles {angles}")
    text = _EMPTY_LIST.sub("", block)
    readings: list[tuple[Setting, Reading]] = []
    wrong: list[str] = []
    for setting in _without_repeats(fitting):
        try:
            reading = read(f"{text}\n{_as_loop(setting)}")
        except ValueError as error:
            wrong.append(f"{setting.name}: {reason_of(error)}")
            continue
        if reason := _disagreement(reading, setting.operations, stated):
            wrong.append(f"{setting.name} {reason}")
        else:
            readings.append((setting, reading))
    if not readings:
        raise ValueError(_none_agrees(stated, wrong))
    return _only_one(readings, stated)


def _none_agrees(stated: Stated, wrong: Sequence[str]) -> str:
    if len(stated.settings) == 1 and len(wrong) == 1 and not wrong[0].startswith(f"{stated.settings[0].name} "):
        return wrong[0].partition(": ")[2]  # what is wrong has nothing to do with the choice of a setting
    if not stated.name:
        return f"no symmetry is stated, and without any it {wrong[0].removeprefix(stated.settings[0].name).strip(': ')}"
    return f"no reading of {stated.name} agrees with the file: {'; '.join(wrong[:2])}"


def _as_loop(setting: Setting) -> str:
    return "\n".join(["loop_", LISTED[0], *(f"'{text}'" for text in setting.operations.as_xyz())]) + "\n"


def _without_repeats(settings: Sequence[Setting]) -> list[Setting]:
    """One setting for each Hall symbol, the usual ones first."""
    ordered = sorted(settings, key=lambda setting: not _is_usual(setting))
    return list({setting.hall: setting for setting in reversed(ordered)}.values())[::-1]


def _is_usual(setting: Setting) -> bool:
    """Whether a monoclinic symbol means this setting in a cell of right angles: that with the unique axis b."""
    return 3 <= setting.number <= 15 and setting.choice.lstrip("-").startswith("b")


def _only_one(readings: Sequence[tuple[Setting, Reading]], stated: Stated) -> Reading:
    """The reading that remains, where they are one crystal or a convention says which is meant."""
    distinct: list[tuple[Setting, Reading]] = []
    for setting, reading in readings:
        if not any(_are_same(reading, other) for _, other in distinct):
            distinct.append((setting, reading))
    if len(distinct) > 1:  # atoms too near each other for any known bond: not what was meant, if another has none
        apart = [(setting, reading) for setting, reading in distinct if not _too_near(reading)]
        distinct = apart or distinct
    if len(distinct) > 1 and stated.by_symbol:
        usual = [(setting, reading) for setting, reading in distinct if _is_usual(setting)]
        distinct = usual if len(usual) == 1 else distinct
    if len(distinct) == 1:
        return distinct[0][1]
    names = [f"{setting.name} ({_contents(reading)})" for setting, reading in distinct]
    told = " or ".join(names[:2]) + (f" or {len(names) - 2} more" if len(names) > 2 else "")
    raise ValueError(f"{stated.name} may be {told}, and nothing else says which: list the symmetry operations")


def _stated(data: Mapping[str, Any]) -> Stated:
    """What the block says.

    Raises:
        ValueError: its space group isn't known, or it names two.
    """
    settings, name, from_symbol = _named_settings(data)
    multiplicities = _column(data, "_atom_site_symmetry_multiplicity")
    whole = np.isfinite(multiplicities).all() and (multiplicities > 0).all()
    return Stated(
        name,
        settings,
        from_symbol,
        stated_composition(data),
        _single(data, "_cell_formula_units_z"),
        _single(data, "_exptl_crystal_density_diffrn"),
        np.stack([_column(data, f"_atom_site_fract_{axis}") for axis in "xyz"], axis=1),
        tuple(int(value) for value in multiplicities) if whole else (),
    )


def _named_settings(data: Mapping[str, Any]) -> tuple[tuple[Setting, ...], str, bool]:
    """The settings that every symbol, number and code of a block allows, what it calls them, and if by a symbol."""
    symbols = _texts(data, _SYMBOL_TAG)
    halls, numbers, codes = _texts(data, _HALL_TAG), _texts(data, _NUMBER_TAG), _texts(data, _CODE_TAG)
    allowed: list[tuple[str, tuple[Setting, ...]]] = []
    for text in halls:
        if found := by_hall(text):
            allowed.append((text, found))
        elif not symbols:
            raise ValueError(f"the Hall symbol {text!r} isn't known and no symmetry operations are listed")
    exact = bool(allowed)
    for text in symbols:
        found = by_symbol(text) or by_hall(text) or (by_number(int(text)) if text.isdecimal() else ())
        if found:
            allowed.append((text, found))
        elif not exact:
            bare = re.sub(r"[\s_]", "", text)
            raise ValueError(f"the space group {bare!r} isn't known and no symmetry operations are listed")
    for text in numbers:
        if re.fullmatch(r"\d+(\.0*)?", text) and 1 <= int(float(text)) <= 230:
            allowed.append((f"number {int(float(text))}", by_number(int(float(text)))))
    if not allowed:
        return by_number(1), "", True
    first_name, settings = allowed[0]
    for name, found in allowed[1:]:
        common = tuple(setting for setting in settings if setting in found)
        if not common and settings[0].number:  # one that was worked out can't be compared with the tables
            raise ValueError(f"it names two space groups or settings, {first_name} and {name}, and lists no operations")
        settings = common or settings
    for code in codes:
        fitting = tuple(setting for setting in settings if fits_choice(setting, code))
        if not fitting and any(fits_choice(setting, code) for setting in by_number(settings[0].number)):
            raise ValueError(f"it names two settings, {first_name} and {code}, and lists no symmetry operations")
        settings = fitting or settings
    return settings, first_name, bool(symbols or halls)


def _texts(data: Mapping[str, Any], tag: re.Pattern[str]) -> list[str]:
    found = [_unquoted(str(value)) for name, value in data.items() if tag.fullmatch(name.lower())]
    return [text for text in dict.fromkeys(found) if text not in UNKNOWN]


def _unquoted(text: str) -> str:
    """Without quotes around it; a Hall symbol may end in one."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1].strip() if quoted else text


def _column(data: Mapping[str, Any], tag: str) -> npt.NDArray[np.float64]:
    """Numbers of a column of a loop, without their uncertainties; NaN where there is none."""
    values = data.get(tag, [])
    return np.array([_number(text) for text in (values if isinstance(values, list) else [values])], dtype=np.float64)


def _single(data: Mapping[str, Any], tag: str) -> float | None:
    value = next((str(value) for name, value in data.items() if name.lower() == tag), "")
    number = _number(value)
    return number if np.isfinite(number) and number > 0 else None


def _number(text: str) -> float:
    try:
        return float(re.sub(r"\(.*", "", text).strip().strip("'\""))
    except ValueError:
        return float("nan")


def _check_volume(data: Mapping[str, Any], lattice: Lattice) -> None:
    volume = _single(data, "_cell_volume")
    if volume is not None and abs(lattice.volume / volume - 1) > 0.03:
        raise ValueError(
            f"the cell has {lattice.volume:.4g} cubic Angstrom, the file states {volume:g}: its axes aren't those of "
            "its sites, or a number is wrong"
        )


def _composition(reading: Reading) -> Composition:
    if isinstance(reading, Structure):
        return as_atoms(reading.composition)
    numbers, counts = np.unique(reading.numbers, return_counts=True)
    return as_atoms(Composition({_symbol(number): int(count) for number, count in zip(numbers, counts, strict=True)}))


def _symbol(number: int) -> str:
    return Element.from_Z(int(number)).symbol


def _contents(reading: Reading) -> str:
    return _composition(reading).formula.replace(" ", "")


def _volume(reading: Reading) -> float:
    matrix = reading.lattice.matrix if isinstance(reading, Structure) else reading.lattice
    return abs(float(np.linalg.det(matrix)))


def _disagreement(reading: Reading, operations: Operations, stated: Stated) -> str:
    """What a reading has that the file denies; "" where nothing."""
    found = _composition(reading)
    if _expected_atoms(stated):
        if not any(abs(found.num_atoms / expected - 1) <= 0.05 for expected in _expected_atoms(stated)):
            return f"gives {_contents(reading)}, the file states Z = {stated.units:g} of {stated.formula}"
    elif stated.density is not None:
        density = 1.66053907 * float(found.weight) / _volume(reading)
        if abs(density / stated.density - 1) > 0.05:
            return f"gives {_contents(reading)} and {density:.3g} g/cm3, the file states {stated.density:g}"
    given = np.array(stated.multiplicities)
    if len(given) == len(stated.frac) and np.isfinite(stated.frac).all():
        sizes = orbit_sizes(stated.frac, operations)
        # SHELX once wrote the order of the site's symmetry under this name.
        if (given != sizes).any() and (given * sizes != len(operations.rotations)).any():
            row = int(np.argmax(given != sizes))
            return f"puts {sizes[row]} atoms on a site whose multiplicity is stated as {given[row]}"
    return ""


def _expected_atoms(stated: Stated) -> list[float]:
    """How many atoms the cell may have: Z times the formula, or the formula where it is the whole cell's.

    The latter is how pymatgen writes CIFs: 'Na4 Cl4' with Z = 4.
    """
    if stated.formula is None or stated.units is None:
        return []
    whole = all(abs(amount / stated.units % 1) < 1e-6 for amount in stated.formula.values())
    return [stated.units * stated.formula.num_atoms, *([stated.formula.num_atoms] if whole else [])]


def orbit_sizes(frac: npt.NDArray[np.float64], operations: Operations) -> npt.NDArray[np.int64]:
    """(n,) how many different places the operations make of each of (n, 3) fractional coordinates."""
    thirds = np.round(frac * 3) / 3
    frac = np.where(np.abs(frac - thirds) < 2e-4, thirds, frac)
    sizes = []
    for place in frac:
        images = operations.rotations @ place + operations.translations
        apart = images[:, None] - images[None]
        apart -= np.round(apart)
        sizes.append(round(len(images) / int((np.abs(apart).max(axis=2) < 1e-3)[0].sum())))
    return np.array(sizes, dtype=np.int64)


def _too_near(reading: Reading) -> bool:
    """Whether two fully occupied sites are nearer than any bond is; hydrogen's places are too often bad to tell."""
    if isinstance(reading, Structure):
        if not reading.is_ordered:
            return False
        cell, numbers, frac = reading.lattice.matrix, np.array(reading.atomic_numbers), reading.frac_coords
    else:
        cell, numbers, frac = reading.lattice, reading.numbers, reading.frac
    sizes = _TOO_NEAR * radii(numbers)
    centre, neighbour, distance = neighbours(cell, frac, 2 * float(sizes.max()))
    heavy = (numbers[centre] > 1) & (numbers[neighbour] > 1)
    return bool((heavy & (distance < sizes[centre] + sizes[neighbour])).any())


def _are_same(first: Reading, second: Reading) -> bool:
    """Whether two readings are the same crystal: the same sites, perhaps all of them shifted."""
    one, other = _as_structure(first), _as_structure(second)
    if len(one) != len(other) or not one.composition.almost_equals(other.composition):
        return False
    kinds = [site.species for site in one], [site.species for site in other]
    rarest = min(set(kinds[0]), key=kinds[0].count)
    tree = cKDTree(_in_cell(other.frac_coords), boxsize=1)
    start = one.frac_coords[kinds[0].index(rarest)]
    targets = [other.frac_coords[i] for i, kind in enumerate(kinds[1]) if kind == rarest]
    return any(
        (distances < 1e-3).all() and all(kinds[0][i] == kinds[1][int(j)] for i, j in enumerate(nearest))
        for distances, nearest in (tree.query(_in_cell(one.frac_coords + target - start)) for target in targets)
    )


def _in_cell(frac: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    wrapped = frac % 1.0
    wrapped[wrapped >= 1] = 0  # -1e-17 % 1 is 1 in float64
    return np.asarray(wrapped)


def _as_structure(reading: Reading) -> Structure:
    if isinstance(reading, Structure):
        return reading
    return Structure(reading.lattice, [_symbol(number) for number in reading.numbers], reading.frac)
