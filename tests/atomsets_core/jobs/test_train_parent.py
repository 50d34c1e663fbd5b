"""A parent trained here is a parent: saved, found by its path, used by AtomSets, and the same after a kill."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomsets_core.jobs.train_parent import CHECKPOINT, parent_data, train_parent
from atomsets_core.models.megnet_regressor import MEGNetRegressor
from atomsets_core.models.networks.graph_network import MEGNetNetwork
from atomsets_core.models.networks.graph_set import build_graphs
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.parents.megnet.parent import MEGNet
from atomsets_core.parents.registry import is_parent, load_parent, parent_names, register_parent
from atomsets_core.parents.trained import about_folder, load_folder, read_parent
from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.embedded import load_flla
from atomsets_core.storage.store import StorageError, Store
from atomsets_core.structures.reading import as_structures

TARGET = "formation_energy_per_atom"


def some(rows, **columns):
    everything = load_flla()
    frame = everything.columns.iloc[rows].reset_index(drop=True).assign(**columns)
    return Pulled(everything.structures.take(rows), frame, provenance={**everything.provenance, "path": "/here"})


@pytest.fixture(scope="module")
def pulled():
    rows = np.arange(0, 3900, 65)
    return some(rows, split=np.where(np.arange(60) % 6 == 0, "test", np.where(np.arange(60) % 6 == 1, "val", "train")))


def run(pulled, folder, **options):
    data = parent_data(pulled, TARGET, cutoff=4.0, resolution=1e-3)
    model = MEGNetRegressor(cutoff=4.0, **{"epochs": 3, "batch_size": 16, **options})
    return data, train_parent(data, model, Store(folder), target=TARGET, unit="eV/atom", provenance=pulled.provenance)


@pytest.fixture(scope="module")
def made(pulled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    return folder, *run(pulled, folder)


def test_the_card_says_what_it_is(made, pulled):
    folder, data, card = made
    assert sorted(p.name for p in folder.iterdir()) == ["failures.parquet", "parent.json", "parent.safetensors"]
    assert json.loads((folder / "parent.json").read_text()) == card
    assert (card["n_train"], card["n_validation"], card["n_test"]) == (40, 10, 10)
    assert card["split"] == "column 'split' of the source"
    assert card["digest"] == load_parent(str(folder)).digest
    assert card["data"]["licence"] == "CC BY 4.0, Materials Project"
    assert "path" not in card["data"]
    seen = {z for i in np.flatnonzero(data.part == "train") for z in data.structures.take([i]).numbers}
    assert set(card["elements"]) == seen
    assert len(card["history"]["loss"]) == 3
    assert "40 values of formation_energy_per_atom (embedded:flla)" in about_folder(str(folder)).overlap


def test_its_errors_are_those_of_what_is_loaded(made):
    folder, data, card = made
    for part in ("validation", "test"):
        rows = np.flatnonzero(data.part == part)
        found = load_parent(str(folder)).featurize(data.structures.take(rows), ["energy"]).structure["energy"][:, 0]
        assert card["metrics"][part]["mae"] == pytest.approx(np.abs(found - data.values[rows]).mean(), rel=1e-6)
        assert card["metrics"][part]["n"] == 10


def test_the_test_part_touches_nothing(pulled, made, tmp_path):
    changed = pulled.columns.copy()
    changed.loc[pulled.columns["split"] == "test", TARGET] = 1e3
    _, card = run(Pulled(pulled.structures, changed, provenance=pulled.provenance), tmp_path)
    assert card["digest"] == made[2]["digest"]
    assert card["metrics"]["test"]["mae"] > 900


def test_saved_weights_give_the_trained_network(made):
    """The compiled parent, with the target's scale in its last layer, is the network that was trained."""
    folder, data, _ = made
    weights, _ = read_parent(str(folder))
    network = MEGNetNetwork(weights)
    graphs = build_graphs(data.structures, 4.0, resolution=0)
    with torch.no_grad():
        levels = network.levels(graphs.batch(np.arange(len(graphs))))
    parent = load_parent(str(folder))
    assert parent.compiled
    features = parent.featurize(data.structures)
    rows = graphs.site + np.repeat(np.cumsum(graphs.n_atoms) - graphs.n_atoms, graphs.n_sites)
    for level in parent.site_levels:
        np.testing.assert_allclose(features.sites[level], levels[level].numpy()[rows], atol=1e-4)
    for level in parent.structure_levels:
        np.testing.assert_allclose(features.structure[level], levels[level].numpy(), atol=1e-4)
    plain = MEGNet(weights, compiled=False, cutoff=4.0).featurize(data.structures, ["energy"])
    np.testing.assert_allclose(plain.structure["energy"], features.structure["energy"], atol=5e-6)


class KilledError(Exception):
    pass


def test_killed_and_run_again_it_ends_the_same(pulled, made, tmp_path, monkeypatch):
    monkeypatch.setattr("atomsets_core.models.megnet_regressor.CHECKPOINT_SECONDS", 0.0)
    write, count = Store.write, 0

    def dying(self, name, data):
        nonlocal count
        write(self, name, data)
        count += name == CHECKPOINT
        if name == CHECKPOINT and count == 5:
            raise KilledError

    monkeypatch.setattr(Store, "write", dying)
    with pytest.raises(KilledError):
        run(pulled, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]
    assert not is_parent(str(tmp_path))
    _, card = run(pulled, tmp_path)
    # Three steps an epoch, three epochs, none saved after the last: five before the kill, three after it.
    assert count == 8
    assert card["digest"] == made[2]["digest"]
    assert card["history"] == made[2]["history"]
    assert not (tmp_path / CHECKPOINT).exists()


def test_atomsets_learns_on_its_features(trained_parent, elastic):
    structures, y = elastic.structures.take(np.arange(60)), elastic.columns["K_VRH"].to_numpy()[:60]
    model = AtomSetsRegressor(f"{trained_parent}:V0+V1+V2+V3", members=2, folds=2, epochs=30, transform="log10")
    model.fit(structures, y)
    error = np.abs(model.oof_.mean - np.log10(y)).mean()
    assert error < 0.9 * np.abs(np.log10(y) - np.log10(y).mean()).mean()
    assert model.digest_ == load_parent(trained_parent).digest


def test_it_is_found_by_path_and_by_a_registered_name(trained_parent):
    assert is_parent(trained_parent)
    assert load_parent(trained_parent).name == trained_parent
    register_parent("mine", lambda device: load_folder(trained_parent, device, name="mine"))
    try:
        assert "mine" in parent_names()
        assert load_parent("mine").digest == load_parent(trained_parent).digest
    finally:
        from atomsets_core.parents.registry import _REGISTERED

        del _REGISTERED["mine"]
        load_parent.cache_clear()


def test_fine_tuning_goes_on_from_it(trained_parent, elastic):
    structures, y = elastic.structures.take(np.arange(20)), elastic.columns["K_VRH"].to_numpy()[:20]
    model = MEGNetRegressor(trained_parent, frozen_blocks=1, epochs=1, transform="log10").fit(structures, y)
    assert model.cutoff_ == 4.0
    weights, _ = read_parent(trained_parent)
    np.testing.assert_array_equal(
        model.networks_[0].weights["embedding_1/embeddings"], weights["embedding_1/embeddings"]
    )


def test_elements_it_never_saw_are_flagged(made):
    folder, _, card = made
    z = next(z for z in range(3, 95) if z not in card["elements"])
    lattice = Lattice.from_parameters(2.9, 2.9, 2.9, 60, 60, 60)
    features = load_parent(str(folder)).featurize(as_structures([Structure(lattice, [z], [[0, 0, 0]])]), ["V1"])
    assert "never saw" in next(iter(features.flagged.values()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "parent.safetensors").unlink(), "does not exist"),
        (lambda f: (f / "parent.safetensors").write_bytes(b"x" * 100), "damaged: it is not the file"),
        (
            lambda f: exchange(f, (f / "parent.safetensors").read_bytes()[:-4]),
            r"parent\.safetensors is damaged \(.*covered",
        ),
        (lambda f: (f / "parent.json").write_text("{"), "not JSON"),
        (lambda f: (f / "parent.json").write_text("{}"), "not the card of a parent"),
        (lambda f: edit(f, format_version=7), "format 7 can't be read"),
    ],
)
def test_a_damaged_parent_is_refused(made, tmp_path, damage, message):
    folder = Path(shutil.copytree(made[0], tmp_path / "p"))
    damage(folder)
    with pytest.raises(StorageError, match=message):
        load_folder(str(folder))


def exchange(folder, weights):
    (folder / "parent.safetensors").write_bytes(weights)
    edit(folder, sha256=hashlib.sha256(weights).hexdigest())


def edit(folder, **change):
    card = json.loads((folder / "parent.json").read_text())
    (folder / "parent.json").write_text(json.dumps({**card, **change}))


def test_a_random_split_keeps_formulas_together(pulled):
    whole = Pulled(pulled.structures, pulled.columns.drop(columns="split"), provenance=pulled.provenance)
    doubled = Pulled(
        whole.structures.take(np.tile(np.arange(60), 2)), pd.concat([whole.columns] * 2, ignore_index=True)
    )
    doubled.structures.material_id[:] = [f"s{i}" for i in range(120)]
    data = parent_data(doubled, TARGET, cutoff=4.0, resolution=1e-3, seed=4)
    assert "seed 4" in data.split
    of = {}
    for formula, part in zip(data.structures.formulas, data.part, strict=True):
        of.setdefault(formula, set()).add(part)
    assert all(len(parts) == 1 for parts in of.values())
    assert {part for parts in of.values() for part in parts} == {"train", "validation", "test"}


def test_what_cannot_be_used_is_in_the_ledger(pulled):
    columns = pulled.columns.copy()
    columns.loc[3, TARGET] = np.nan
    columns.loc[4, "split"] = "holdout"
    numbers = pulled.structures.numbers.copy()
    numbers[pulled.structures.offsets[8]] = 96
    structures = type(pulled.structures)(
        pulled.structures.material_id,
        pulled.structures.lattice,
        pulled.structures.n_atoms,
        numbers,
        pulled.structures.frac,
    )
    data = parent_data(Pulled(structures, columns), TARGET, cutoff=4.0, resolution=1e-3)
    assert len(data.structures) == len(data.graphs) == len(data.values) == len(data.part) == 57
    assert {r.material_id: r.stage for r in data.refused} == {
        structures.material_id[3]: "label",
        structures.material_id[4]: "label",
        structures.material_id[8]: "featurize",
    }


def test_requests_that_make_no_sense(pulled, tmp_path):
    with pytest.raises(SourceError, match="no column 'energy'"):
        parent_data(pulled, "energy", cutoff=4.0, resolution=1e-3)
    with pytest.raises(SourceError, match="no column 'fold' for the split"):
        parent_data(pulled, TARGET, cutoff=4.0, resolution=1e-3, split_column="fold")
    with pytest.raises(ValueError, match="within 5 Angstrom at most"):
        parent_data(pulled, TARGET, cutoff=6.0, resolution=1e-3)
    only = Pulled(pulled.structures, pulled.columns.assign(split="test"))
    with pytest.raises(SourceError, match="no structure to train on"):
        parent_data(only, TARGET, cutoff=4.0, resolution=1e-3)
    with pytest.raises(ValueError, match="a parent is one network"):
        run(pulled, tmp_path, members=2)
