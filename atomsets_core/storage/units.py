"""Units of what is stored: beside every column of a Parquet file, in its schema's metadata under `unit:<column>`."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

STRUCTURE = {"lattice": "Angstrom", "frac": "lattice vectors", "occupancy": "1", "n_atoms": "1", "Z": "1"}
"""Units of the columns of a structure; "1" is a pure number."""

NONE = "1"


def prediction_units(unit: str, *, scale: str) -> dict[str, str]:
    """Column -> unit for labels, predictions and rankings.

    Args:
        unit: of the target.
        scale: unit of the scale that the model works on, e.g. "log10(GPa)" (see `transforms.Transform.applied_to`).
    """
    return {
        **dict.fromkeys(("value", "predicted", "lower", "upper"), unit),
        **dict.fromkeys(("mean", "std", "score"), scale),
        "distance": "standard deviations of the training features",
        "e_above_hull": "eV/atom",
        "n_atoms": NONE,
    }


def with_units(table: pa.Table, units: Mapping[str, str]) -> pa.Table:
    """The table with the units of those of its columns that have one."""
    metadata = {f"unit:{name}": units[name] for name in table.column_names if name in units}
    kept = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return table.replace_schema_metadata({**kept, **metadata})


def units_of(table: pa.Table | pa.Schema) -> dict[str, str]:
    """Column -> unit, as far as the table says."""
    schema = table.schema if isinstance(table, pa.Table) else table
    found = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    return {key.removeprefix("unit:"): value for key, value in found.items() if key.startswith("unit:")}
