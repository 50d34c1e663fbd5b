"""A trained model with what became of its data, and the way back from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from atomsets_core.features import AnyFeatures
from atomsets_core.models.classifier import AtomSetsClassifier
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.models.saved_models import read_config
from atomsets_core.models.vectors.probability import ClassProbability
from atomsets_core.models.vectors.regressor import HeadRegressor
from atomsets_core.storage import StorageError, Store
from atomsets_core.structures import Refusal

Model = AtomSetsRegressor | AtomSetsClassifier

KINDS: dict[str, type[AtomSetsRegressor] | type[AtomSetsClassifier]] = {
    kind.__name__: kind for kind in (AtomSetsRegressor, AtomSetsClassifier, HeadRegressor, ClassProbability)
}

TASKS: dict[str, type[AtomSetsRegressor] | type[AtomSetsClassifier]] = {
    "regression": AtomSetsRegressor,
    "classification": AtomSetsClassifier,
}


@dataclass(frozen=True)
class Trained:
    """A model with what became of the data it was offered.

    Attributes:
        model: fitted.
        features: of the structures it was trained on.
        targets: names of the columns it learned.
        values: (n) their labels, in the unit of the target; (n, targets) where there are several.
        refused: every entry it could not use.
        notes: what its user should know of the labels, in sentences.
    """

    model: Model
    features: AnyFeatures
    targets: tuple[str, ...]
    values: npt.NDArray[Any]
    refused: list[Refusal]
    notes: list[str] = field(default_factory=list)


def regressor_of(parameters: Mapping[str, Any]) -> AtomSetsRegressor:
    """An unfitted model of numbers from its parameters.

    `ClassProbability` where they say task = "class", `HeadRegressor` where they name a head, else `AtomSetsRegressor`.
    """
    options = dict(parameters)
    if options.pop("task", "number") == "class":
        return ClassProbability(**options)
    return (HeadRegressor if "head" in options else AtomSetsRegressor)(**options)


def load_regressor(store: Store, folder: str) -> AtomSetsRegressor:
    """A saved model of any kind that predicts numbers.

    Raises:
        StorageError: as `load_model`, or a classifier.
    """
    model = load_model(store, folder)
    if not isinstance(model, AtomSetsRegressor):
        raise StorageError(f"{store.url(folder)}: holds a model of the kind {type(model).__name__}, no regressor")
    return model


def load_model(store: Store, folder: str) -> Model:
    """A saved model of any kind.

    Raises:
        StorageError: the files are missing, damaged, of a newer format or of an unknown kind.
    """
    kind = read_config(store, folder).get("kind")
    if kind not in KINDS:
        raise StorageError(f"{store.url(folder)}: holds a model of the unknown kind {kind!r}")
    return KINDS[kind].load(store, folder)
