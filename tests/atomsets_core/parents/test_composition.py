"""The parent of compositions knows chemistry, and a composition is the same however it is written."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.parents import composition
from atomsets_core.parents.composition import GAP, HAS_GAP, VOLUME
from atomsets_core.parents.registry import load_parent
from atomsets_core.structures.compositions import Compositions, as_compositions
from atomsets_core.structures.reading import as_structures


@pytest.fixture(scope="module")
def parent():
    return load_parent("composition")


@pytest.fixture(scope="module")
def perovskite():
    return Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    )


def properties(parent, *formulas):
    return parent.featurize(as_compositions(formulas), ["properties"]).structure["properties"]


def test_it_tells_insulators_metals_and_stability(parent):
    salt, oxide, alloy = properties(parent, "NaCl", "MgO", "FeNi")
    assert salt[GAP] > 4
    assert oxide[GAP] > 3
    assert alloy[GAP] < 0.2
    assert salt[HAS_GAP] > 0.9
    assert alloy[HAS_GAP] < 0.1
    # PBE, Materials Project: MgO -3.0 eV/atom; NaCl at 22 A^3/atom takes more than twice the room of MgO.
    assert oxide[0] == pytest.approx(-3.0, abs=0.3)
    assert abs(alloy[0]) < 0.2
    assert salt[VOLUME] / oxide[VOLUME] == pytest.approx(2.4, abs=0.4)


def test_no_gap_is_negative_and_probabilities_are_some(parent, elastic):
    of = parent.featurize(elastic.structures, ["properties"]).structure["properties"]
    assert of[:, GAP].min() >= 0
    assert 0 <= of[:, HAS_GAP].min() < 0.05 < 0.95 < of[:, HAS_GAP].max() <= 1


def test_it_has_learned_the_volume_of_crystals_it_is_shown_nothing_of(parent, elastic):
    structures = elastic.structures
    of = parent.featurize(structures, ["properties"]).structure["properties"]
    volume = np.abs(np.linalg.det(structures.lattice)) / structures.n_atoms
    # Elastic tensors are of the stable phases; the error on held-out compositions is some 4 %.
    assert np.median(np.abs(of[:, VOLUME] / volume - 1)) < 0.05


def test_a_composition_is_the_same_however_it_is_written(parent):
    written = as_compositions(["Fe2O3", "O3Fe2", "Fe4O6", "Fe0.4O0.6"])
    features = parent.featurize(written)
    for values in (*features.structure.values(), features.sites["site"].reshape(4, -1)):
        np.testing.assert_allclose(values, values[:1].repeat(4, axis=0), atol=1e-5)


def test_a_structure_is_what_it_is_made_of(parent, perovskite):
    of_crystal = parent.featurize(as_structures([perovskite]))
    of_formula = parent.featurize(as_compositions(["SrTiO3"]))
    np.testing.assert_allclose(of_crystal.structure["hidden"], of_formula.structure["hidden"], atol=1e-6)
    by_element = dict(zip((8, 22, 38), of_formula.sites["site"], strict=True))
    expected = np.stack([by_element[site.specie.Z] for site in perovskite])
    np.testing.assert_allclose(of_crystal.sites["site"], expected, atol=1e-6)


def test_disordered_and_overlapping_structures_have_a_composition_too(parent):
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.75, "Ni": 0.25}], [[0, 0, 0]])
    broken = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.01]])
    features = parent.featurize(as_structures([alloy, broken]))
    assert not features.refused
    of_formulas = parent.featurize(as_compositions(["Cu3Ni", "NaCl"]))
    np.testing.assert_allclose(features.structure["properties"], of_formulas.structure["properties"], atol=1e-5)


def test_company_in_the_batch_does_not_matter(parent, monkeypatch):
    batch = as_compositions(["Fe", "NaCl", "SrTiO3", "LiFePO4", "Cu", "Ca10P6O26H2"])
    together = parent.featurize(batch)
    monkeypatch.setattr(composition, "BATCH", 2)
    for other in (parent.featurize(batch), *(parent.featurize(batch.take([i])) for i in range(len(batch)))):
        rows = [list(together.material_id).index(name) for name in other.material_id]
        for level, values in other.structure.items():
            np.testing.assert_allclose(values, together.structure[level][rows], atol=1e-5)


def test_what_is_hardly_there_is_hardly_heard(parent):
    pure, traces, some = parent.featurize(as_compositions(["Fe", "Fe0.99999C0.00001", "Fe0.9C0.1"])).structure["hidden"]
    assert np.abs(traces - pure).max() < 0.1 * np.abs(some - pure).max()


def test_elements_it_was_never_shown_are_flagged(parent):
    features = parent.featurize(as_compositions(["NaCl", "Og2O"]))
    assert not features.refused
    assert list(features.flagged) == [features.structure_hash[1]]
    assert "never saw Og in training" in next(iter(features.flagged.values()))


def test_it_knows_what_it_was_trained_on(parent):
    weights = composition.read_weights()
    assert len(weights["keys"]) > 37_000
    seen = parent.has_seen(as_compositions(["SrTiO3", "Ti2Sr2O6", "Fe0.62C0.00095Mn0.37905"]))
    assert seen.tolist()[0] == seen.tolist()[1]
    assert not seen[2]
    shown = parent.has_seen(as_compositions(["NaCl", "MgO", "GaAs", "Si", "SrTiO3", "Al2O3"]))
    assert shown.mean() > 0.5
    assert np.array_equal(composition.keys_of(Compositions.concat([])), np.empty(0, dtype=np.uint32))


def test_the_number_of_weights_is_the_one_in_the_documentation(parent):
    weights = composition.read_weights()
    assert sum(v.size for name, v in weights.items() if name not in {*composition.BESIDE, "mean", "scale"}) == 245_956
