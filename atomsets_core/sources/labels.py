"""Labels that can be learned from, numbers or classes, and a reason for each entry without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.structures import Refusal
from atomsets_core.transforms import find_transform


def usable_labels(pulled: Pulled[Any], target: str, transform: str) -> tuple[npt.NDArray[np.bool_], list[Refusal]]:
    """Which structures have a label to learn from, and a refusal for each other one.

    Args:
        pulled: n structures and their columns.
        target: column of the labels.
        transform: of the target, which says what values it accepts.

    Returns:
        (n,) bool which can be used, and the refusals.

    Raises:
        SourceError: there is no such column, or not one usable label in it.
        ValueError: an unknown transform.
    """
    scale = find_transform(transform)
    if target not in pulled.columns:
        numeric = list(pulled.columns.select_dtypes("number").columns)
        raise SourceError(
            f"no column {target!r} in {pulled.provenance.get('name', 'the source')}; numeric are {numeric}"
        )
    raw = pulled.columns[target]
    values = pd.to_numeric(raw, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    missing = raw.isna().to_numpy()
    refused = []
    usable = np.isfinite(values) & scale.accepts(values)
    for row in np.flatnonzero(~usable):
        value = raw.iloc[row]
        if missing[row]:
            reason = f"{target} is missing"
        elif np.isnan(values[row]):
            reason = f"{target} is not a number: {str(value)[:60]!r}"
        elif np.isinf(values[row]):
            reason = f"{target} is infinite"
        else:
            reason = f"{target} is {values[row]:g}: {scale.name} needs a {scale.needed} value"
        refused.append(
            Refusal(str(pulled.structures.material_id[row]), "label", reason, str(pulled.structures.hashes[row]))
        )
    if not usable.any():
        raise SourceError(
            f"none of the {len(values)} values of {target!r} can be learned from: {refused[0].reason}"
            if refused
            else f"no structure with a value of {target!r}"
        )
    return usable, refused


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
    if target not in pulled.columns:
        raise SourceError(
            f"no column {target!r} in {pulled.provenance.get('name', 'the source')}; there are {list(pulled.columns)}"
        )
    raw = pulled.columns[target]
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
