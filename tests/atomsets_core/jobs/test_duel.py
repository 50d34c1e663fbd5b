"""Any head can be champion or challenger: trained, saved, asked on frozen folds and in a simulated discovery."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.campaigns.frozen_folds import freeze
from atomsets_core.campaigns.layout import CARD, LABELLED, OUT_OF_FOLD
from atomsets_core.discovery.choice import recipes
from atomsets_core.jobs.duel import duel_on_folds, simulate_champion
from atomsets_core.jobs.train import train_model
from atomsets_core.models.trained import load_regressor
from atomsets_core.storage.store import Store

PARAMETERS = {
    "features": "megnet:V0", "transform": "none", "members": 2, "folds": 2, "epochs": 2, "phi": [4], "rho": [4],
    "coverage": 0.8, "seed": 0,
}  # fmt: skip
OPTIONS = {"goal": "maximize", "quantile": 0.15, "pool_share": 0.3, "kappa": 0.5}
ABOUT = {"campaign": "c", "target": "K", "unit": "GPa", "training_source": "s", "training_data_sha256": "0"}


@pytest.fixture(scope="module")
def duelled(compounds, tmp_path_factory):
    """A store with a random forest as champion and AtomSets as challenger, and what came of it."""
    store = Store(tmp_path_factory.mktemp("duel"))
    values = np.random.default_rng(0).normal(size=len(compounds))
    names = {"material_id": compounds.material_id, "formula": compounds.formula}
    hashes = pa.array(list(compounds.structure_hash), pa.string())
    columns = {name: pa.array(list(column), pa.string()) for name, column in names.items()}
    store.write_table(LABELLED, pa.table({**columns, "structure_hash": hashes, "value": values}))
    found = recipes(PARAMETERS)
    forest = found["random forest, composition"]
    done = train_model(store, compounds, forest, "models/champion", ABOUT)
    frozen = freeze(store, "models/champion")
    train_model(store, compounds, found["AtomSets"], "models/challenger", ABOUT, ("models/champion", frozen.digest))
    duel_on_folds(store, compounds, "models/champion", "models/challenger", "folds.json")
    simulate_champion(store, compounds, forest, "models/champion", OPTIONS, 0, "discovery.json")
    return store, done, values


def test_a_forest_is_trained_with_a_card_and_its_out_of_fold_predictions(duelled):
    store, done, values = duelled
    assert done["n_train"] == len(values)
    assert done["loss"] is None
    assert load_regressor(store, "models/champion").head == "random forest, composition"
    card = store.read(f"models/champion/{CARD}").decode()
    assert "The head random forest, composition, fitted once without each of 2 folds, for regression" in card
    table = store.read_table(f"models/champion/{OUT_OF_FOLD}").to_pandas()
    assert np.isfinite(table[["predicted", "lower", "upper", "std"]].to_numpy()).all()


def test_both_are_asked_the_same(duelled):
    store, _, values = duelled
    folds, discovery = store.read_json("folds.json"), store.read_json("discovery.json")
    assert folds["n"] == len(values)
    expected = store.read_table(f"models/champion/{OUT_OF_FOLD}").to_pandas()
    error = np.abs(expected["mean"] - expected["value"]).mean()
    # A row that was learned from is no distance from itself, so the few far ones fade less than in its own folds.
    assert folds["mae_champion"] == pytest.approx(error, rel=1e-3)
    assert 0 <= discovery["acquisition"]["mean"] <= 1
