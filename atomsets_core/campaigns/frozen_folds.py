"""Folds that never change, so that a model of today and one of next year are judged on the same held-out rows.

The first model of a campaign cuts its training data into folds, rows of one formula together. That cut is frozen: its
out-of-fold table says which formula lies where, and the registry keeps a digest of it. A formula that comes later goes
to the fold its hash says, so no row ever changes its fold, whatever comes or goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomsets_core.campaigns.fingerprint import digest
from atomsets_core.campaigns.layout import OUT_OF_FOLD
from atomsets_core.storage import StorageError, Store


@dataclass(frozen=True)
class FrozenFolds:
    """Which fold each formula lies in.

    Attributes:
        n: folds.
        of: formula -> fold, of the formulas that the first model knew.
    """

    n: int
    of: dict[str, int]

    @property
    def digest(self) -> str:
        """32 hex digits of the cut."""
        return digest(self.n, self.of)

    def assign(self, formulas: Sequence[str]) -> npt.NDArray[np.int64]:
        """(n,) fold of each row; where all have one formula, rows in their order go to one fold after the other."""
        if len(set(formulas)) == 1:
            return np.arange(len(formulas)) % self.n
        return np.array([self.of.get(str(f), _by_hash(str(f), self.n)) for f in formulas], dtype=np.int64)


def _by_hash(formula: str, n: int) -> int:
    return int.from_bytes(hashlib.blake2b(formula.encode(), digest_size=8).digest(), "big") % n


def freeze(store: Store, folder: str) -> FrozenFolds:
    """The folds of a model, from its out-of-fold predictions.

    Raises:
        StorageError: the model has no out-of-fold predictions, or was trained without folds.
    """
    table = store.read_table(f"{folder}/{OUT_OF_FOLD}", columns=["formula", "fold"])
    folds = table["fold"].to_numpy()
    if not len(folds) or folds.min() < 0:
        raise StorageError(f"{store.url(folder)}: the model was trained without folds, so none can be kept")
    of = dict(zip(table["formula"].to_pylist(), folds.tolist(), strict=True))
    return FrozenFolds(int(folds.max()) + 1, of)


def read_frozen(store: Store, folder: str, expected: str) -> FrozenFolds:
    """The folds that were frozen when a model was appointed.

    Raises:
        StorageError: they are lost, or not those.
    """
    found = freeze(store, folder)
    if found.digest != expected:
        raise StorageError(
            f"{store.url(folder)}/{OUT_OF_FOLD} was changed: the folds all models are judged by are lost. Start "
            "anew in another folder"
        )
    return found
