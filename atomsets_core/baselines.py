"""What AtomSets must beat: ridge and random forest on statistics of the composition, as in Magpie.

Ward et al., npj Comput. Mater. 2, 16028 (2016), with the element properties that pymatgen carries.
"""

from __future__ import annotations

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
STATISTICS = ("mean", "deviation", "minimum", "maximum", "range", "of the most abundant")


@lru_cache(maxsize=1)
def element_table() -> npt.NDArray[np.float64]:
    """(119, properties): row Z holds the properties of element Z; gaps are filled with the median."""
    table = np.full((119, len(ELEMENT_PROPERTIES)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for z in range(1, 119):
            element = Element.from_Z(z)
            shells = dict.fromkeys("spdf", 0)
            for _, orbital, electrons in element.full_electronic_structure[-6:]:
                shells[orbital[0]] += electrons
            for column, name in enumerate(ELEMENT_PROPERTIES):
                try:
                    value = shells[name[2]] if name.startswith("n_") else getattr(element, name)
                    table[z, column] = float(value) if value is not None else np.nan
                except (TypeError, ValueError, AttributeError):
                    continue
    return np.where(np.isfinite(table), table, np.nanmedian(table, axis=0))


def composition_statistics(formulas: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n, properties x statistics + 4): statistics of the element properties, number of elements, norms of fractions."""
    table = element_table()
    return np.array([_statistics(formula, table) for formula in formulas])


def _statistics(formula: str, table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    composition = Composition(formula).fractional_composition
    numbers = np.array([element.Z for element in composition.elements])
    fractions = np.array(list(composition.values()))
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
