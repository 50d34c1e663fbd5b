"""Structures and columns as databases write them into JSON, JSON lines, tables and cells of tables.

The layout that all others become is a record with a pymatgen dict under "structure" and numbers and text beside it.
Read are also the `atoms` of JARVIS, entries of pymatgen (Alexandria, the Materials Project), structures of OPTIMADE,
the cell, positions and numbers of ASE (OMat24 and others), archives of NOMAD, which are in metres and joules, and a
Python dict or a POSCAR as the text of a cell.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pymatgen.core import Element, Structure

from atomsets_core.sources.base import Crystal
from atomsets_core.sources.files.poscar import read_poscar
from atomsets_core.structures import LARGEST_ATOMIC_NUMBER

MOST_NESTED = 200
"""Numbers of nested dicts that become columns of one record."""

DEEPEST = 3
"""Levels down to which they do: "bulk_modulus.vrh", "elasticity.shear_modulus.vrh"."""

LONGEST_DICT = 400_000
"""Characters of a Python dict that is read: its syntax tree takes a thousand times their memory."""

_OPTIMADE = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")
_OPTIMADE_MORE = (*_OPTIMADE, "species", "nsites", "structure_features", "dimension_types", "nperiodic_dimensions")
_JARVIS = ("lattice_mat", "coords", "elements")
_NUMBERS = ("numbers", "atomic_numbers", "symbols", "species", "elements")


STRUCTURE_KEYS = ("structure", "final_structure", "relaxed_structure", "structure_relaxed", "optimized_structure",
                  "crystal_structure", "crystal", "cif", "cif_string", "cif_text", "cif_str", "poscar", "contcar",
                  "initial_structure", "structure_initial")  # fmt: skip
"""What a structure, or its text, is called in a record; the first counts, so that of a relaxation the end does."""


def structure_key(record: Mapping[str, Any]) -> str | None:
    """The key of a record that holds a structure or the text of one; None where none does."""
    for key in STRUCTURE_KEYS:
        value = record.get(key)
        text = isinstance(value, str) and ("\n" in value.strip() or value.lstrip().startswith("{"))
        if text or (isinstance(value, Mapping) and (_looks_like_structure(value) or is_other_structure(value))):
            return key
    return None


def unwrapped(document: Mapping[str, Any]) -> list[Any] | dict[str, Any] | None:
    """The records of a dict that holds them further inside; None where it holds none.

    Read are a reply with one list of records, whatever it is called; lists of structures and of their labels beside
    each other (MatGL); records by material and calculation (MPtrj); and texts of structures by name.

    Args:
        document: a JSON document that is no structure, record or table itself.
    """
    lists = {
        key: values
        for key, values in document.items()
        if isinstance(values, list) and values and all(_is_record(value) for value in values[:3])
    }
    if len(lists) == 1:
        (records,) = lists.values()
        beside = _lists_beside(document, len(records))
        if not beside or not all(_looks_like_structure(record) for record in records):
            return records
        return [{"structure": s, **{name: values[i] for name, values in beside.items()}} for i, s in enumerate(records)]
    values = list(document.values())
    if values and all(isinstance(value, str) and "\n" in value.strip() for value in values):
        return {name: {"structure": text} for name, text in document.items()}
    if values and all(isinstance(value, dict) and value and all(map(_is_record, value.values())) for value in values):
        return {name: record for inside in values for name, record in inside.items()}
    return None


def _is_record(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return _looks_like_structure(value) or is_other_structure(value) or "structure" in plain_record(value)


def _lists_beside(document: Mapping[str, Any], n: int) -> dict[str, list[Any]]:
    """Lists of n plain values, also a level further down ("labels")."""
    found: dict[str, list[Any]] = {}
    for key, value in document.items():
        inside = value.items() if isinstance(value, Mapping) else [(key, value)]
        for name, values in inside:
            if isinstance(values, list) and len(values) == n and all(map(np.isscalar, values)):
                found[str(name)] = values
    return found


def plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its structure under "structure", and the numbers of nested dicts as columns of their own.

    Of an entry of pymatgen what stands under `data` is put beside the rest; other nested numbers keep their path, as
    "bulk_modulus.vrh". Columns that are there already stay.
    """
    found = dict(record)
    if is_nomad(found):
        return nomad_record(found)
    if "structure" not in found:
        if isinstance(found.get("atoms"), Mapping):
            found["structure"] = found.pop("atoms")
        elif isinstance(found.get("attributes"), Mapping):  # OPTIMADE
            attributes = dict(found.pop("attributes"))
            found = {**attributes, **{key: found[key] for key in ("id",) if key in found}}
        if "structure" not in found and all(name in found for name in _OPTIMADE):
            found["structure"] = {name: found.pop(name) for name in _OPTIMADE_MORE if name in found}
        elif "structure" not in found and (used := _ase_names(found)):
            found["structure"] = {name: found.pop(name) for name in used}
    if isinstance(found.get("_id"), Mapping) and isinstance(found["_id"].get("$oid"), str):  # a dump of MongoDB
        found["_id"] = found["_id"]["$oid"]
    if "structure" not in found and (key := structure_key(found)) is not None:
        found["structure"] = found.pop(key)
    if "structure" not in found:
        return dict(record)
    nested: dict[str, Any] = {}
    for key, value in found.items():
        if (
            key != "structure"
            and isinstance(value, Mapping)
            and not (_looks_like_structure(value) or _is_formula(value))
        ):
            _flatten("" if key == "data" else f"{key}.", value, nested, DEEPEST)
    return {**nested, **found}


def _flatten(prefix: str, value: Mapping[str, Any], into: dict[str, Any], levels: int) -> None:
    for key, inner in value.items():
        if len(into) >= MOST_NESTED or str(key).startswith("@"):
            continue
        if isinstance(inner, Mapping):
            if levels > 1 and not _is_formula(inner) and not _looks_like_structure(inner):
                _flatten(f"{prefix}{key}.", inner, into, levels - 1)
        elif isinstance(inner, (str, int, float, bool)):
            into[f"{prefix}{key}"] = inner


def _looks_like_structure(value: Mapping[str, Any]) -> bool:
    return ("lattice" in value and "sites" in value) or all(name in value for name in _JARVIS)


def _is_formula(value: Mapping[str, Any]) -> bool:
    """Whether the keys are elements: amounts of them, which the structure says better."""
    return bool(value) and value.keys() <= _numbers_by_symbol().keys()


def _ase_names(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a cell, its positions and what stands on them; none where they aren't there."""
    numbers = next((name for name in _NUMBERS if isinstance(value.get(name), (list, tuple))), None)
    if numbers is None or "cell" not in value or "positions" not in value:
        return ()
    return ("cell", "positions", numbers, *(("pbc",) if "pbc" in value else ()))


def is_other_structure(value: Any) -> bool:
    """Whether a dict is a structure that `other_structure` reads."""
    if not isinstance(value, Mapping):
        return False
    return all(key in value for key in _JARVIS) or all(key in value for key in _OPTIMADE) or bool(_ase_names(value))


def other_structure(value: Mapping[str, Any]) -> Crystal:
    """The crystal of a dict for which `is_other_structure` holds.

    Raises:
        ValueError: it can't be one.
    """
    if all(name in value for name in _OPTIMADE):
        from atomsets_core.sources.optimade import crystal_from  # imports an HTTP client

        return crystal_from(value)
    if all(name in value for name in _JARVIS):
        cell, places, names = value["lattice_mat"], value["coords"], value["elements"]
        cartesian = bool(value.get("cartesian", False))
    else:
        used = _ase_names(value)
        cell, places, names, cartesian = value["cell"], value["positions"], value[used[2]], True
        pbc = value.get("pbc", True)
        if not np.all(pbc):
            raise ValueError("not periodic in all three directions")
    matrix, positions = _array(cell, "cell"), _array(places, "coordinates")
    if matrix.shape != (3, 3) or positions.shape != (len(names), 3):
        raise ValueError(f"{len(names)} sites, but coordinates of shape {positions.shape} and a cell {matrix.shape}")
    if not abs(np.linalg.det(matrix)) > 1e-12:
        raise ValueError("the cell has no volume")
    frac = positions @ np.linalg.inv(matrix) if cartesian else positions
    return Crystal(matrix, np.array([atomic_number(name) for name in names], dtype=np.int64), frac)


METRE, JOULE = 1e10, 1 / 1.602176634e-19
"""Angstrom in a metre and eV in a joule, of which NOMAD's archives are made."""


def is_nomad(value: Any) -> bool:
    """Whether a dict is an archive of NOMAD, or an entry of its API with one inside."""
    archive = value.get("archive", value) if isinstance(value, Mapping) else None
    if not isinstance(archive, Mapping):
        return False
    data = archive.get("data")
    return (
        isinstance(archive.get("run"), list)
        or (isinstance(data, Mapping) and isinstance(data.get("model_system"), list))
        or ("archive" in value and "entry_id" in value)
        or ("metadata" in archive and "results" in archive)
    )


def nomad_record(value: Mapping[str, Any]) -> dict[str, Any]:
    """The last system of an archive of NOMAD, with its energy (eV) and largest force (eV / Angstrom) as columns.

    An archive that can't be read keeps its identifier, and its structure is what `structure_from` refuses.
    """
    archive = value.get("archive", value)
    about = archive.get("metadata") if isinstance(archive.get("metadata"), Mapping) else {}
    record: dict[str, Any] = {"entry_id": value.get("entry_id") or about.get("entry_id")}
    try:
        system, calculation = _nomad_last(archive)
        record["structure"] = _nomad_structure(system)
        record |= _nomad_results(calculation)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        record["structure"] = {"@class": "NOMAD archive"}
    return record


def _nomad_last(archive: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The last system that has atoms, and the last calculation (of that system, where it says of which it is)."""
    data = archive.get("data")
    if isinstance(data, Mapping) and data.get("model_system"):  # schemas since 2024
        systems = [system for system in data["model_system"] if system.get("cell") or "positions" in system]
        system = systems[-1]
        outputs = data.get("outputs") or [{}]
        return {**system, **(system["cell"][0] if system.get("cell") else {})}, outputs[-1]
    runs = archive.get("run") or []
    systems = [system["atoms"] for run in runs for system in run.get("system") or [] if system.get("atoms")]
    calculations = [calculation for run in runs for calculation in run.get("calculation") or []]
    if systems:
        last = calculations[-1] if calculations else {}
        named = re.search(r"/system/(\d+)$", str(last.get("system_ref", "")))
        if named and len(runs) == 1:
            return runs[0]["system"][int(named[1])]["atoms"], last
        return systems[-1], last
    structures = archive["results"]["properties"]["structures"]
    return structures.get("structure_original") or structures["structure_conventional"], {}


def _nomad_structure(system: Mapping[str, Any]) -> dict[str, Any]:
    """Cell, positions and elements in ASE's names and Angstrom."""
    states = system.get("particle_states") or system.get("atoms_state") or []
    names = system.get("labels") or system.get("species_at_sites") or [state["chemical_symbol"] for state in states]
    places = system["positions"] if "positions" in system else system["cartesian_site_positions"]
    periodic = system.get("periodic", system.get("periodic_boundary_conditions", [True] * 3))
    return {
        "cell": (METRE * _array(system["lattice_vectors"], "cell")).tolist(),
        "positions": (METRE * _array(places, "coordinates")).tolist(),
        "symbols": list(names),
        "pbc": list(periodic),
    }


def _nomad_results(calculation: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    energies = calculation.get("energy") or (calculation.get("total_energies") or [{}])[-1]
    total = energies.get("total", energies)
    if isinstance(total.get("value"), (int, float)):
        found["energy"] = JOULE * total["value"]
    forces = calculation.get("forces") or (calculation.get("total_forces") or [{}])[-1]
    values = forces.get("total", forces).get("value")
    if values:
        found["max_force"] = float(np.linalg.norm(_array(values, "forces"), axis=1).max()) * JOULE / METRE
    return found


def _array(value: Any, name: str) -> npt.NDArray[np.float64]:
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its {name} isn't made of numbers") from error
    if not np.isfinite(found).all():
        raise ValueError(f"its {name} has an unknown number")
    return found


@lru_cache(maxsize=1)
def _numbers_by_symbol() -> dict[str, int]:
    return {Element.from_Z(z).symbol: z for z in range(1, LARGEST_ATOMIC_NUMBER + 1)}


def atomic_number(name: Any) -> int:
    """Atomic number of a symbol or a number.

    Raises:
        ValueError: it is no element.
    """
    if isinstance(name, str):
        if name.strip() not in _numbers_by_symbol():
            raise ValueError(f"unknown element {name!r}")
        return _numbers_by_symbol()[name.strip()]
    if isinstance(name, (int, np.integer)) or (isinstance(name, float) and name.is_integer()):
        return int(name)
    raise ValueError(f"unknown element {name!r}")


def python_dict(text: str) -> Any:
    """What a Python dict says that stands as text in a table: `str(structure.as_dict())`. Nothing of it is run.

    Raises:
        ValueError: it holds more than plain values, or is too long or too deep.
    """
    if len(text) > LONGEST_DICT:
        raise ValueError(f"a Python dict of {len(text):,} characters: write JSON (json.dumps(structure.as_dict()))")
    depth = most = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        most = max(most, depth)
    try:
        if most > 30:
            raise ValueError("it is nested too deeply")
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(
            "it reads neither as JSON nor as a Python dict of plain values: write json.dumps(structure.as_dict())"
        ) from error


def dict_from_text(text: str) -> Any:
    """The dict that a text starting with "{" holds, as JSON or as Python writes it.

    Raises:
        ValueError: neither can be read.
    """
    try:
        return json.loads(text)
    except ValueError:
        return python_dict(text)


def poscar_from_text(text: str) -> Structure | None:
    """The structure of a text that has the lines of a POSCAR; None where it hasn't."""
    lines = text.strip("\n").splitlines()
    if len(lines) < 7 or "data_" in text:
        return None
    try:
        [float(word) for word in lines[1].split()[:1]]
        rows = [[float(word) for word in line.split()[:3]] for line in lines[2:5]]
    except ValueError:
        return None
    if not lines[1].split() or any(len(row) != 3 for row in rows):
        return None
    return read_poscar(text.strip("\n") + "\n")


def with_structure_columns(table: pa.Table) -> pa.Table:
    """A table with lattice, Z and frac where its columns are ASE's or OPTIMADE's; any other as it is.

    ASE's (OMat24) are a cell, Cartesian positions and elements; OPTIMADE's (LeMaterial) are called as in its
    specification.

    Raises:
        ValueError: the columns don't hold what they are called.
    """
    names = set(table.column_names)
    if "lattice" in names and "frac" in names:
        return table
    if set(_OPTIMADE) <= names:
        used = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")
    elif {"cell", "positions"} <= names and (numbers := next((name for name in _NUMBERS if name in names), None)):
        used = ("cell", "positions", numbers)
    else:
        return table
    cells, places = (_flat(table[name], name) for name in used[:2])
    starts, elements = _elements(table[used[2]], used[2])
    n = table.num_rows
    sites = np.diff(starts)
    lattice: list[npt.NDArray[np.float64]] = []
    frac: list[npt.NDArray[np.float64]] = []
    for row in range(n):
        cell, place = cells[row], places[row]
        fits = len(cell) == 9 and len(place) == 3 * sites[row]
        matrix = cell.reshape(3, 3) if fits else np.zeros((3, 3))
        whole = fits and abs(float(np.linalg.det(matrix))) > 1e-12
        lattice.append(cell)
        frac.append(
            (place.reshape(-1, 3) @ np.linalg.inv(matrix)).ravel() if whole else np.full(3 * sites[row], np.nan)
        )
    made = {
        "lattice": pa.array(lattice, pa.list_(pa.float64())),
        "Z": pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(elements, pa.int64())),
        "frac": pa.array(frac, pa.list_(pa.float64())),
    }
    rest = {name: table[name] for name in table.column_names if name not in used}
    return pa.table({**made, **rest})


def _flat(column: pa.ChunkedArray, name: str) -> list[npt.NDArray[np.float64]]:
    """Numbers of each row of a column of lists of lists."""
    found = []
    for value in column.to_pylist():
        try:
            found.append(np.array(value if value is not None else [], dtype=np.float64).ravel())
        except (TypeError, ValueError) as error:
            raise ValueError(f"column {name!r} holds something else than lists of numbers") from error
    return found


def _elements(column: pa.ChunkedArray, name: str) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Where each row's atomic numbers begin, and all of them; 0 for what is no element."""
    joined = column.combine_chunks()
    joined = pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined
    if not (pa.types.is_list(joined.type) or pa.types.is_large_list(joined.type)):
        raise ValueError(f"column {name!r} holds {joined.type}, not lists of elements")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(joined), 0), dtype=np.int64)
    known = _numbers_by_symbol()
    values = pc.list_flatten(joined).to_pylist()
    numbers = [known.get(value, 0) if isinstance(value, str) else int(value or 0) for value in values]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), numbers
