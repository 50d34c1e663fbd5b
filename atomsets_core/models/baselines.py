"""What AtomSets must beat: ridge and random forest on statistics of the composition, as in Magpie.

Ward et al., npj Comput. Mater. 2, 16028 (2016), with the element properties that pymatgen carries.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pymatgen.core import Composition, Element
from sklearn.base import RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ELEMENT_PROPERTIES = (
    "Z",
    "row",
    "group",
    "atomic_mass",
    "X",
    "atomic_radius",
    "mendeleev_no",
    "melting_point",
    "boiling_point",
    "molar_volume",
    "ionization_energy",
    "electron_affinity",
    "thermal_conductivity",
    "n_s",
    "n_p",
    "n_d",
    "n_f",
)


@lru_cache(maxsize=1)
def element_table() -> npt.NDArray[np.float64]:
    """(119, properties): row Z holds the properties of element Z; gaps are filled with the median."""
    table = np.full((119, len(ELEMENT_PROPERTIES)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for z in range(1, 119):
            for column, name in enumerate(ELEMENT_PROPERTIES):
                # Heavy and short-lived elements lack some of them.
                with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
                    table[z, column] = _element_property(Element.from_Z(z), name)
    return np.where(np.isfinite(table), table, np.nanmedian(table, axis=0))


def _element_property(element: Element, name: str) -> float:
    if not name.startswith("n_"):
        return float(getattr(element, name))
    # "[Ar].3d6.4s2": electrons beyond the noble-gas core.
    shells = element.electronic_structure.split("]")[-1].strip(".").split(".")
    return float(sum(int(shell[2:]) for shell in shells if shell[1] == name[2]))


def composition_statistics(formulas: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n, 6 x properties + 4): see `_statistics`."""
    table = element_table()
    return np.array([_statistics(formula, table) for formula in formulas]).reshape(-1, 6 * table.shape[1] + 4)


def _statistics(formula: str, table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Six statistics of each property, the number of elements, and the 2-, 3- and 5-norm of the fractions."""
    # Sorted, so that of two most abundant elements the lighter counts, however the formula is written.
    composition = sorted((element.Z, part) for element, part in Composition(formula).fractional_composition.items())
    numbers = np.array([z for z, _ in composition])
    fractions = np.array([part for _, part in composition])
    values = table[numbers]
    mean = fractions @ values
    low, high = values.min(axis=0), values.max(axis=0)
    deviation = fractions @ np.abs(values - mean)
    norms = [len(numbers), *(float((fractions**p).sum() ** (1 / p)) for p in (2, 3, 5))]
    return np.concatenate([mean, deviation, low, high, high - low, values[fractions.argmax()], norms])


def ridge() -> RegressorMixin:
    """Ridge regression on standardised columns, its strength chosen by leave-one-out on the training rows."""
    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 4, 13)))


def random_forest(seed: int) -> RegressorMixin:
    """Random forest of 300 trees, a third of the columns tried at each split."""
    return RandomForestRegressor(n_estimators=300, max_features=1 / 3, random_state=seed, n_jobs=1)
