"""Benchmarks are honest: the labels of the test part change scores, never predictions."""

from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.features.making import featurize_into
from atomsets_core.features.stored import FeatureStore
from atomsets_core.jobs import benchmark
from atomsets_core.jobs.benchmark import VARIANTS, available, lacking, run_fold, score, specifications
from atomsets_core.models import recipe
from atomsets_core.parents import chgnet
from atomsets_core.parents.registry import about_parent, load_parent
from atomsets_core.sources.matbench import TASKS, Dataset
from atomsets_core.storage.store import Store
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.reading import as_structures

METALS, ANIONS = ["Li", "Na", "K", "Mg", "Ca", "Sr", "Zn", "Al", "Ga", "Ti"], ["O", "S", "Se", "F", "Cl"]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few passes: these tests are about who sees what, not about how good it is."""
    monkeypatch.setattr(recipe, "STEPS", 20)
    monkeypatch.setattr(recipe, "FEWEST_EPOCHS", 4)


def dataset(classes: bool) -> Dataset:
    formulas = [f"{m}{k}{x}{n}" for m in METALS for x in ANIONS for k, n in ((1, 1), (1, 2), (2, 3))][:60]
    rng = np.random.default_rng(0)
    y = rng.uniform(1, 5, len(formulas))
    task = TASKS["matbench_glass" if classes else "matbench_steels"]
    rows = rng.permutation(len(formulas))
    return Dataset(
        replace(task, n_official=len(formulas)),
        np.array([f"row-{i}" for i in range(len(formulas))], dtype=object),
        np.array(formulas, dtype=object),
        (y > 3).astype(float) if classes else y,
        ((np.sort(rows[15:]), np.sort(rows[:15])),),
        (tuple(f"row-{i}" for i in np.sort(rows[:15])),),
        "sha",
    )


def shuffled(of: Dataset, part: int) -> Dataset:
    y, rows = of.y.copy(), of.folds[0][part]
    y[rows] = y[rows][::-1]
    return replace(of, y=y)


@pytest.mark.parametrize("classes", [False, True], ids=["values", "classes"])
@pytest.mark.parametrize("variant", ["auto", "AtomSets-V0", "random-forest"])
def test_shuffled_test_labels_change_no_prediction(variant, classes, monkeypatch):
    def run(data: Dataset) -> dict:
        monkeypatch.setattr(benchmark, "load_dataset", lambda *_: data)
        return run_fold("task", "", "", variant, 0, 0)

    original = dataset(classes)
    first, second = run(original), run(shuffled(original, 1))
    assert first["predictions"] == second["predictions"]
    assert first["scores"] != second["scores"]
    assert list(first["predictions"]) == list(original.test_ids[0])
    # The control: labels of the training part do change them.
    assert run(shuffled(original, 0))["predictions"] != first["predictions"]


def test_a_limit_takes_some_of_the_rows_of_a_larger_one(monkeypatch):
    seen = []
    data = dataset(False)
    monkeypatch.setattr(benchmark, "load_dataset", lambda *_: data)

    def fit(_variant, _dataset, _inputs, rows, _seed):
        seen.append(set(rows))
        return benchmark._Fitted(lambda wanted: np.zeros(len(wanted)), {}, {})

    monkeypatch.setattr(benchmark, "_fit", fit)
    for limit in (20, 30, None):
        assert run_fold("task", "", "", "random-forest", 0, 0, limit)["n_test"] == 15
    assert [len(rows) for rows in seen] == [20, 30, 45]
    assert seen[0] < seen[1] < seen[2] == set(data.folds[0][0])


def test_scores_of_classes():
    found = score(TASKS["matbench_glass"], np.array([0.0, 0, 1, 1]), np.array([0.1, 0.6, 0.55, 0.9]))
    assert found["rocauc"] == 0.75  # of four pairs one is the wrong way round
    assert found["rocauc_of_labels"] == 0.75  # all of class 1, half of class 0
    assert found["accuracy"] == 0.75


def test_every_variant_says_what_it_needs():
    for name, variant in VARIANTS.items():
        for task in TASKS.values():
            if variant.fits(task):
                assert bool(specifications(name, task, 100)) == (not task.compositions and name != "random-forest")
    assert not VARIANTS["MLP-v"].fits(TASKS["matbench_glass"])


def test_rows_of_compositions_that_no_parent_saw_are_scored_by_themselves(monkeypatch):
    data = dataset(False)
    monkeypatch.setattr(benchmark, "load_dataset", lambda *_: data)
    found = run_fold("task", "", "", "auto", 0, 0)
    assert about_parent("megnet").package in found["versions"]
    test = data.folds[0][1]
    new = ~benchmark.load_composition().has_seen(benchmark.as_compositions(list(data.inputs[test])))
    assert 0 < found["n_unseen"] == new.sum() < len(test)
    predicted = np.array(list(found["predictions"].values()))
    assert found["scores_unseen"] == score(data.task, data.y[test][new], predicted[new])
    forest = run_fold("task", "", "", "random-forest", 0, 0)
    assert forest["n_unseen"] == 0
    assert "maml" not in forest["versions"], "it has no parent"


def of_structures(elastic) -> Dataset:
    """30 rows, of which the first and the last have no graph."""
    far = as_structures([Structure(Lattice.cubic(40), ["Cu"], [[0, 0, n / 2]]) for n in range(2)], ["far-0", "far-1"])
    structures = Structures.concat([far.take([0]), elastic.structures.take(np.arange(28)), far.take([1])])
    ids = np.array([f"row-{i}" for i in range(30)], dtype=object)
    return Dataset(
        replace(TASKS["matbench_phonons"], n_official=30),
        ids,
        replace(structures, material_id=ids),
        np.r_[50.0, elastic.columns["K_VRH"].to_numpy()[:28], 60.0],
        ((np.arange(20), np.arange(20, 30)),),
        (tuple(ids[20:]),),
        "sha",
    )


def test_only_structures_that_no_shard_knows_are_lacking(elastic, tmp_path):
    data = of_structures(elastic)
    one, two = (FeatureStore.of(Store(str(tmp_path)), "megnet", levels) for levels in (["V1"], ["V1", "V2"]))
    assert lacking(data, one).all()
    featurize_into(one, data.inputs.take(np.arange(10)))
    # The first was refused, which is known now.
    assert lacking(data, one).tolist() == [False] * 10 + [True] * 20
    assert lacking(data, two).all()


def test_what_can_not_be_used_is_named_with_the_package_that_is_missing(monkeypatch):
    load_parent("megnet")
    load_parent.cache_clear()
    chgnet.read_weights.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    usable, missing = available(["megnet:V0+V1", "chgnet:site"])
    about = about_parent("chgnet")
    assert usable == ("megnet:V0+V1",)
    assert list(missing) == ["chgnet:site"]
    assert f"the package {about.package}, which is not installed: pip install {about.install}" in missing["chgnet:site"]


@pytest.mark.parametrize("variant", ["megnet-scratch", "MLP-v"])
def test_structures_without_a_graph_are_predicted_from_their_composition(variant, elastic, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "STEPS_GRAPH", (2, 2))
    monkeypatch.setattr(benchmark, "STEPS_ALONE", 2)
    data = of_structures(elastic)
    monkeypatch.setattr(benchmark, "load_dataset", lambda *_: data)
    found = run_fold("task", "", str(tmp_path), variant, 0, 0)
    assert found["n_fallback"] == 1
    assert list(found["predictions"]) == list(data.ids[20:])
    assert np.isfinite(list(found["predictions"].values())).all()
