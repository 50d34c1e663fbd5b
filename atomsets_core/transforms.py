"""The scales a target can be learned on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TRANSFORMS = ("none", "log10")

FloatArray = npt.NDArray[np.float64]


def transform_target(y: npt.ArrayLike, transform: str) -> FloatArray:
    """(n,) targets on the scale the model works on.

    Raises:
        ValueError: an unknown transform; a NaN, infinite or, under log10, not positive value (its position is named).
    """
    if transform not in TRANSFORMS:
        raise ValueError(f"no transform {transform!r}; there are {', '.join(TRANSFORMS)}")
    y = np.asarray(y, dtype=np.float64)
    bad = ~np.isfinite(y) if transform == "none" else ~(np.isfinite(y) & (y > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"label {first} is {y[first]}: labels must be finite{' and positive' if transform != 'none' else ''}"
        )
    return np.log10(y) if transform == "log10" else y


def transform_targets(y: npt.ArrayLike, transform: str | Sequence[str]) -> FloatArray:
    """(n, targets) on the scale the model works on, NaN where a value is missing.

    Args:
        y: (n,), where nothing may be missing, or (n, targets), where NaN is a missing value.
        transform: one for all targets, or one each.

    Raises:
        ValueError: see `transform_target`; also a row without any value, and other than one or two dimensions.
    """
    values = np.asarray(y, dtype=np.float64)
    if values.ndim == 1:
        return transform_target(values, listed_transforms(transform, 1)[0])[:, None]
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"labels must be (n,) or (n, targets), not of shape {values.shape}")
    empty = np.isnan(values).all(axis=1)
    if empty.any():
        raise ValueError(f"row {int(np.flatnonzero(empty)[0])} of the labels has no value at all: leave it out")
    out = np.full(values.shape, np.nan)
    for column, name in enumerate(listed_transforms(transform, values.shape[1])):
        present = ~np.isnan(values[:, column])
        try:
            out[present, column] = transform_target(values[present, column], name)
        except ValueError as error:
            raise ValueError(f"target {column}: {error}") from error
    return out


def listed_transforms(transform: str | Sequence[str], n_targets: int) -> list[str]:
    """The transform of each target.

    Raises:
        ValueError: not as many as there are targets.
    """
    listed = [transform] * n_targets if isinstance(transform, str) else list(transform)
    if len(listed) != n_targets:
        raise ValueError(f"{len(listed)} transforms for {n_targets} targets")
    return listed
