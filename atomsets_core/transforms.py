"""The scales a target can be learned on: one entry of `TRANSFORMS` each, and nothing about them anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Transform:
    """A scale that a target can be learned on, with the words for it. All functions take numbers and arrays.

    Attributes:
        name: in options, files and saved models; it never changes.
        forward: values in the unit of the target -> on the scale. Increases.
        inverse: on the scale -> in the unit of the target. Takes every real number and never decreases: the ends of
            intervals go through it, wherever they lie.
        slope: values in the unit of the target -> how much they change for a small step on the scale, divided by it.
        accepts: (n,) values -> (n,) bool, which finite ones can be learned; what it says of others doesn't count.
        needed: what a value must be beside finite, as an adjective, e.g. "positive".
        purpose: what it is for, after its name, e.g. "for positive values that span decades".
        called: what stands before a unit or a target on this scale, e.g. "log10"; empty where it is that of the values.
        step: what a step of 1 is called, where it has a name, e.g. "decades".
        logarithmic: whether equal steps on the scale are equal factors in the unit: then errors are told as factors
            and axes are logarithmic.
        tried: whether features="auto" tries it.
    """

    name: str
    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    accepts: Callable[[Any], npt.NDArray[np.bool_]]
    needed: str = ""
    purpose: str = ""
    called: str = ""
    step: str = ""
    logarithmic: bool = False
    tried: bool = False

    @property
    def plain(self) -> bool:
        """Whether the scale is that of the values themselves."""
        return not self.called

    def of(self, text: str) -> str:
        """A unit or target on this scale in a sentence, e.g. "log10 GPa"; empty for no unit on the plain scale."""
        return f"{self.called} {text}".strip()

    def applied_to(self, text: str) -> str:
        """A unit or target on this scale as a formula, e.g. "log10(GPa)", and "log10(1)" of a pure number."""
        return text if self.plain else f"{self.called}({text or 1})"

    def factor(self, error: float) -> float:
        """How many times too large or small an error on a logarithmic scale is in the unit, 1 or more."""
        return float(self.inverse(abs(error)) / self.inverse(0.0))


NONE = Transform(
    "none",
    forward=lambda value: value,
    inverse=lambda x: x,
    slope=lambda value: np.ones(np.shape(value)),
    accepts=lambda value: np.ones(np.shape(value), dtype=bool),
    tried=True,
)

LOG10 = Transform(
    "log10",
    forward=np.log10,
    inverse=lambda x: 10.0**x,
    slope=lambda value: np.log(10.0) * value,
    accepts=lambda value: np.asarray(value) > 0,
    needed="positive",
    purpose="for positive values that span decades",
    called="log10",
    step="decades",
    logarithmic=True,
    tried=True,
)

TRANSFORMS: Mapping[str, Transform] = MappingProxyType({scale.name: scale for scale in (NONE, LOG10)})
"""Name -> transform. An entry here is all that another one takes."""


def find_transform(name: str) -> Transform:
    """The transform of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in TRANSFORMS:
        raise ValueError(f"no transform {name!r}; there are {', '.join(TRANSFORMS)}")
    return TRANSFORMS[name]


def purposes() -> str:
    """What each transform is for, for the help of an option."""
    return "; ".join(f"{scale.name} {scale.purpose}" for scale in TRANSFORMS.values() if scale.purpose)


def transform_target(y: npt.ArrayLike, transform: str) -> FloatArray:
    """(n,) targets on the scale the model works on.

    Raises:
        ValueError: an unknown transform; a value that is NaN, infinite or none that the transform accepts (its position
            is named).
    """
    scale = find_transform(transform)
    y = np.asarray(y, dtype=np.float64)
    bad = ~(np.isfinite(y) & scale.accepts(y))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"label {first} is {y[first]}: labels must be finite{f' and {scale.needed}' if scale.needed else ''}"
        )
    return np.asarray(scale.forward(y))


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
        return transform_target(values, listed_transforms(transform, 1)[0].name)[:, None]
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"labels must be (n,) or (n, targets), not of shape {values.shape}")
    empty = np.isnan(values).all(axis=1)
    if empty.any():
        raise ValueError(f"row {int(np.flatnonzero(empty)[0])} of the labels has no value at all: leave it out")
    out = np.full(values.shape, np.nan)
    for column, scale in enumerate(listed_transforms(transform, values.shape[1])):
        present = ~np.isnan(values[:, column])
        try:
            out[present, column] = transform_target(values[present, column], scale.name)
        except ValueError as error:
            raise ValueError(f"target {column}: {error}") from error
    return out


def listed_transforms(transform: str | Sequence[str], n_targets: int) -> list[Transform]:
    """The transform of each target.

    Raises:
        ValueError: not as many as there are targets; an unknown one.
    """
    listed = [transform] * n_targets if isinstance(transform, str) else list(transform)
    if len(listed) != n_targets:
        raise ValueError(f"{len(listed)} transforms for {n_targets} targets")
    return [find_transform(name) for name in listed]
