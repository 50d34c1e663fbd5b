"""The entries: structures from a Parquet file, numbers beside them, and what a release of the database changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from emmet.core.mpid import AlphaID
from pymatgen.core import Element, Lattice

GNOME = "gnome_r2scan_statics"
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
_SYMBOLS = ["", *(Element.from_Z(z).symbol for z in range(1, 119))]
_ID_COLUMNS = ("material_id", "mp", "mp_id")
_STRUCTURE = ("lattice", "Z", "frac", "formula")
_RENAMED = {"e_above_hull": "energy_above_hull"}


class Database:
    """All entries as columns; documents are made when they are asked for.

    Args:
        path: Parquet with an identifier (material_id or mp), lattice (9 or 6 numbers), Z, frac and numeric columns.
        alpha_ids: send identifiers in letters, as newer releases do.
    """

    def __init__(self, path: Path, version: str = "2026.10.01", alpha_ids: bool = False) -> None:
        table = pq.read_table(path)
        id_column = next(name for name in _ID_COLUMNS if name in table.column_names)
        self.ids: list[str] = table[id_column].to_pylist()
        self.row_of = {name: row for row, name in enumerate(self.ids)}
        self._lattice, self._z, self._frac = (
            pc.cast(table[name], kind).combine_chunks()
            for name, kind in (
                ("lattice", pa.large_list(pa.float64())),
                ("Z", pa.large_list(pa.uint8())),
                ("frac", pa.large_list(pa.float32() if _is_single(table, "frac") else pa.float64())),
            )
        )
        formulas = table["formula"].to_pylist() if "formula" in table.column_names else [""] * len(self.ids)
        self.formulas = np.array(formulas, dtype=object)
        n = len(self.ids)
        offsets = self._z.offsets.to_numpy()
        self.holds = np.zeros((n, 119), dtype=bool)
        self.holds[np.repeat(np.arange(n), np.diff(offsets)), self._z.values.to_numpy()] = True
        self.numbers: dict[str, np.ndarray] = {
            _RENAMED.get(name, name): table[name].to_numpy().astype(float)
            for name in table.column_names
            if name not in (*_STRUCTURE, id_column) and _is_number(table.schema.field(name).type)
        }
        self.numbers["nsites"] = np.diff(offsets).astype(float)
        self.numbers["nelements"] = self.holds.sum(axis=1).astype(float)
        if "energy_above_hull" in self.numbers:
            self.numbers["is_stable"] = (self.numbers["energy_above_hull"] <= 1e-8).astype(float)
        # what these files don't hold: every third entry counts as theoretical
        self.numbers["theoretical"] = (np.arange(n) % 3 == 0).astype(float)
        self.order = np.array(sorted(range(n), key=self.ids.__getitem__))
        self.sides: dict[str, dict[int, dict[str, Any]]] = {"elasticity": {}, "dielectric": {}}
        self._first, self._limit = (version, alpha_ids), len(self.ids)
        self._shifted: dict[str, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """As it was in the beginning."""
        self.version, self.alpha_ids = self._first
        self.numbers |= self._shifted
        self._shifted.clear()
        self.dates = True
        n = len(self.ids)
        self.deprecated = np.zeros(n, dtype=bool)
        self.hidden = np.arange(n) >= self._limit
        self.gnome = np.zeros(n, dtype=bool)
        self.scale = np.ones(n)
        self.updated = np.zeros(n, dtype=int)

    def limit(self, n: int) -> None:
        """Hide all but the first so many, for a later release or for ever."""
        self._limit = n
        self.reset()

    def shift(self, name: str, by: float) -> None:
        """Add to a column, until the next reset."""
        self._shifted.setdefault(name, self.numbers[name])
        self.numbers[name] = self.numbers[name] + by

    def add_side(self, endpoint: str, path: Path) -> None:
        """Documents of the elasticity or dielectric endpoint from the columns of a file like the one of structures."""
        table = pq.read_table(path)
        id_column = next(name for name in _ID_COLUMNS if name in table.column_names)
        make = _elasticity if endpoint == "elasticity" else _dielectric
        for record in table.drop_columns([n for n in _STRUCTURE if n in table.column_names]).to_pylist():
            row = self.row_of.get(record[id_column])
            if row is not None:
                self.sides[endpoint][row] = make(record)

    def release(self, version: str, **changes: Sequence[str]) -> None:
        """A new version of the database.

        Args:
            version: its name.
            changes: identifiers under show, hide, change (another cell), deprecate, restore.
        """
        self.version = version
        rows = {what: [self.row_of[name] for name in names] for what, names in changes.items()}
        day = int(self.updated.max()) + 1
        self.hidden[rows.get("show", [])] = False
        self.hidden[rows.get("hide", [])] = True
        self.scale[rows.get("change", [])] *= 1.01
        self.deprecated[rows.get("deprecate", [])] = True
        self.deprecated[rows.get("restore", [])] = False
        for what in ("show", "change", "deprecate", "restore"):
            self.updated[rows.get(what, [])] = day

    def search(self, endpoint: str, asked: dict[str, str]) -> np.ndarray:
        """Rows that match, in the order of the identifiers where that is asked for."""
        n = len(self.ids)
        mask = ~self.hidden
        if endpoint != "summary":
            has = np.zeros(n, dtype=bool)
            has[list(self.sides[endpoint])] = True
            mask &= has & ~self.deprecated
        else:
            # as on the real server, deprecated entries come only to those who ask for them
            mask &= self.deprecated if asked.get("deprecated", "False") == "True" else ~self.deprecated
        if "material_ids" in asked:
            chosen = np.zeros(n, dtype=bool)
            chosen[
                [self.row_of[name] for name in map(spelled, asked["material_ids"].split(",")) if name in self.row_of]
            ] = True
            mask &= chosen
        if "formula" in asked:
            mask &= np.isin(self.formulas, asked["formula"].split(","))
        for symbol in filter(None, asked.get("elements", "").split(",")):
            mask &= self.holds[:, Element(symbol).Z]
        for symbol in filter(None, asked.get("exclude_elements", "").split(",")):
            mask &= ~self.holds[:, Element(symbol).Z]
        if asked.get("chemsys"):
            mask &= np.logical_or.reduce([self._system(system) for system in asked["chemsys"].split(",")])
        if asked.get("batch_id_not_eq") == GNOME:
            mask &= ~self.gnome
        for prop in filter(None, asked.get("has_props", "").split(",")):
            has = np.zeros(n, dtype=bool)
            has[list(self.sides.get(prop, {}))] = True
            mask &= has
        for flag in ("is_stable", "theoretical"):
            if flag in asked:
                mask &= self._number(flag) == (asked[flag] == "True")
        for key, value in asked.items():
            match = re.fullmatch(r"([a-z]\w*)_(min|max)", key)
            if match:
                values = self._number(match.group(1))
                mask &= values >= float(value) if match.group(2) == "min" else values <= float(value)
        return self.order[mask[self.order]] if asked.get("_sort_fields") == "material_id" else np.flatnonzero(mask)

    def _number(self, name: str) -> np.ndarray:
        return self.numbers.get(name, np.full(len(self.ids), np.nan))

    def _system(self, system: str) -> np.ndarray:
        symbols = system.split("-")
        mask = self.holds.sum(axis=1) == len(symbols)
        for symbol in symbols:
            if symbol != "*":
                mask &= self.holds[:, Element(symbol).Z]
        return mask

    def documents(self, endpoint: str, rows: Iterable[int], fields: set[str]) -> list[dict[str, Any]]:
        """Documents with these fields only, as the real server projects them."""
        return [self._document(endpoint, int(row), fields) for row in rows]

    def _document(self, endpoint: str, row: int, fields: set[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "material_id" in fields:
            found["material_id"] = str(AlphaID(self.ids[row])) if self.alpha_ids else self.ids[row]
        if "last_updated" in fields and self.dates:
            when = FIRST_DAY + timedelta(days=int(self.updated[row]), seconds=row % 86_400)
            found["last_updated"] = {"$date": f"{when:%Y-%m-%dT%H:%M:%S}.000Z"}
        if endpoint != "summary":
            return found | {name: value for name, value in self.sides[endpoint][row].items() if name in fields}
        if "structure" in fields:
            found["structure"] = self.structure(row)
        if "deprecated" in fields:
            found["deprecated"] = bool(self.deprecated[row])
        for name in fields & self.numbers.keys():
            value = float(self.numbers[name][row])
            found[name] = bool(value) if name in ("is_stable", "theoretical") else None if value != value else value
        for name in ("bulk_modulus", "shear_modulus"):
            if name in fields:
                found[name] = self.sides["elasticity"].get(row, {}).get(name)
        return found

    def structure(self, row: int) -> dict[str, Any]:
        """A structure as pymatgen writes it."""
        cell = np.array(self._lattice[row].as_py())
        matrix = cell.reshape(3, 3) if len(cell) == 9 else Lattice.from_parameters(*cell).matrix
        matrix = matrix * self.scale[row]
        frac = np.asarray(self._frac[row].values, dtype=float).reshape(-1, 3)
        numbers = self._z[row].values.to_pylist()
        sites = [
            {
                "species": [{"element": _SYMBOLS[z], "occu": 1}],
                "abc": abc,
                "properties": {"magmom": 0.0},
                "label": _SYMBOLS[z],
                "xyz": xyz,
            }
            for z, abc, xyz in zip(numbers, frac.tolist(), (frac @ matrix).tolist(), strict=True)
        ]
        lengths = np.linalg.norm(matrix, axis=1)
        return {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": 0,
            "lattice": {
                "matrix": matrix.tolist(),
                "pbc": [True, True, True],
                **dict(zip("abc", lengths.tolist(), strict=True)),
                "volume": float(abs(np.linalg.det(matrix))),
            },
            "properties": {},
            "sites": sites,
        }


def spelled(name: str) -> str:
    """An identifier in numbers where it has some, whatever way it was asked for."""
    try:
        return str(AlphaID(name).string)
    except (ValueError, KeyError):
        return name


def _elasticity(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "bulk_modulus": {name: record.get(f"K_{key}") for name, key in _AVERAGES},
        "shear_modulus": {name: record.get(f"G_{key}") for name, key in _AVERAGES},
        "universal_anisotropy": record.get("elastic_anisotropy"),
        "homogeneous_poisson": record.get("poisson_ratio"),
    }


_AVERAGES = (("voigt", "Voigt"), ("reuss", "Reuss"), ("vrh", "VRH"))


def _dielectric(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in ("e_total", "e_ionic", "e_electronic", "n")}


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_single(table: pa.Table, name: str) -> bool:
    return bool(table.schema.field(name).type.value_type == pa.float32())
