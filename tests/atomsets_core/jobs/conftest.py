"""What several tests share."""

from __future__ import annotations

from dataclasses import fields

import pytest

from atomsets_core.features.making import featurize
from atomsets_core.features.specification import as_batch
from atomsets_core.parents.base import Features

METALS = ("Mg", "Ca", "Sr", "Ba", "Ti", "Zr", "Hf", "V", "Nb", "Ta", "Cr", "Mo", "W", "Mn", "Re")


class InMemory(Features):
    """Features that are found without shards, all of them in one order."""

    def find(self, _hashes):
        return self

    def load(self):
        return self


@pytest.fixture(scope="package")
def compounds():
    """Features of 60 binary compounds, in the place of a store of them."""
    made = featurize(as_batch([f"{metal}{anion}" for metal in METALS for anion in ("O", "S", "N2", "C")]), "megnet:V0")
    return InMemory(**{field.name: getattr(made, field.name) for field in fields(Features)})
