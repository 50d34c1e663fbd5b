"""Columns of classes: which rows have one, and which each is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.columns import find_column
from atomsets_core.structures import Refusal


def usable_classes(pulled: Pulled, target: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.object_], list[Refusal]]:
    """Which rows have a class to learn from, the classes, and a refusal for each other row.

    Whole numbers count as classes whether they are written 1 or 1.0.

    Args:
        pulled: n structures and their columns.
        target: column of the classes.

    Returns:
        (n,) bool which can be used, (n,) the classes as int, bool or str, None where there is none, and the refusals.

    Raises:
        SourceError: there is no such column, or not two classes in it.
    """
    column = find_column(pulled.columns.columns, target)
    if column is None:
        raise SourceError(
            f"no column {target!r} in {pulled.provenance.get('name', 'the source')}; there are {list(pulled.columns)}"
        )
    raw = pulled.columns[column]
    missing = raw.isna().to_numpy(dtype=bool)
    values = np.array([None] * len(raw), dtype=object)
    for row in np.flatnonzero(~missing):
        value = raw.iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        values[row] = int(value) if isinstance(value, float) and value.is_integer() else value
    if len({value for value in values if value is not None}) < 2:
        raise SourceError(f"{target!r} does not hold two classes")
    refused = [
        Refusal(
            str(pulled.structures.material_id[i]), "label", f"{target} is missing", str(pulled.structures.hashes[i])
        )
        for i in np.flatnonzero(missing)
    ]
    return ~missing, values, refused
