"""Features of several parents in shards are what they are in memory, and as good to learn from."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.features.making import featurize
from atomsets_core.features.stored import JoinedFeatures
from atomsets_core.models import recipe
from atomsets_core.models.auto import AutoAtomSets, head_tables
from atomsets_core.models.baselines import composition_statistics
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.storage.store import Store
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.reading import as_structures

SPEC = "megnet:V0+V1+f1,amount"
SMALL = {"members": 2, "folds": 2, "epochs": 3, "phi": (8,), "rho": (8,), "transform": "log10"}


@pytest.fixture(scope="module")
def both(elastic, tmp_path_factory):
    few = elastic.structures.take(np.arange(30))
    far = as_structures([Structure(Lattice.cubic(40), ["Cu"], [[0, 0, 0]])], ["far"])
    batch = Structures.concat([few.take(np.arange(10)), far, few.take(np.arange(10, 30))])
    return featurize(batch, SPEC), featurize(batch, SPEC, Store(tmp_path_factory.mktemp("store")))


def test_they_are_the_same_in_shards_and_in_memory(both):
    memory, stored = both
    assert isinstance(stored, JoinedFeatures)
    assert (len(stored), stored.shape, stored.digest) == (30, (30,), memory.digest)
    assert [r.material_id for r in stored.refused] == [r.material_id for r in memory.refused] == ["far"]
    loaded = stored.load()
    assert list(stored.material_id) == list(loaded.material_id) == list(memory.material_id)
    for level in memory.sites:
        np.testing.assert_array_equal(loaded.sites[level], memory.sites[level])
    for level in memory.structure:
        np.testing.assert_array_equal(loaded.structure[level], memory.structure[level])
    part = stored[[7, 3]].load()
    np.testing.assert_array_equal(part.sites["megnet:V1"], memory[[7, 3]].sites["megnet:V1"])


def test_a_model_learns_and_predicts_the_same_from_both(both, elastic):
    memory, stored = both
    values = elastic.columns["K_VRH"].to_numpy()[:30]
    first, second = (AtomSetsRegressor(SPEC, **SMALL).fit(features, values) for features in both)
    np.testing.assert_allclose(second.predict(stored), first.predict(memory), rtol=1e-6)
    assert first.parents_ == second.parents_ == memory.parents


def test_the_default_recipe_learns_the_same_from_both(both, elastic, monkeypatch):
    monkeypatch.setattr(recipe, "STEPS", 20)
    monkeypatch.setattr(recipe, "FEWEST_EPOCHS", 4)
    values = elastic.columns["K_VRH"].to_numpy()[:30]
    memory, stored = (AutoAtomSets(features=SPEC, folds=3).fit(features, values) for features in both)
    np.testing.assert_allclose(stored.predict(both[1]), memory.predict(both[0]), rtol=1e-5)
    assert stored.choice_.features == memory.choice_.features
    tables = [head_tables(features, memory.spec_)["everything"] for features in both]
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-5, atol=1e-6)
    amounts = stored.spec_.needed("amount")  # narrow: mean, deviation and extremes of each; MEGNet's levels are wide
    assert tables[0].shape[1] == 119 + composition_statistics(["NaCl"]).shape[1] + 4 * len(amounts)


def test_occupancies_survive_the_shards(tmp_path):
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.75, "Ni": 0.25}], [[0, 0, 0]])
    ordered = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    batch = as_structures([ordered, alloy])
    stored = featurize(batch, "megnet:V0,amount", Store(tmp_path)).load()
    np.testing.assert_allclose(stored.weights, [1, 0.75, 0.25])
    np.testing.assert_allclose(stored.sites["amount:fraction"][:, 0], [1, 0.75, 0.25])
