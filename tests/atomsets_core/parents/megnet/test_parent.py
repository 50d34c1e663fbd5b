"""MEGNet gives the numbers of the original Keras model, and the symmetries of a crystal."""

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.operations import SymmOp

from atomsets_core.parents.megnet.parent import MEGNet
from atomsets_core.parents.megnet.weights import CUTOFF, read_weights
from atomsets_core.parents.registry import load_parent
from atomsets_core.structures.reading import as_structures

SITES = ("V0", "V1", "V2", "V3")
WHOLE = ("v", "f2", "f1")


def load(path):
    raw = json.loads(path.read_text())
    named = raw if isinstance(raw, dict) and "NaCl" in raw else None
    entries = named.values() if named else raw
    return [Structure(e["lattice"], e["atomic_numbers"], e["frac_coords"]) for e in entries], list(named or [])


@pytest.fixture(scope="module")
def six(data):
    structures, names = load(data / "megnet_structures.json")
    return as_structures(structures, names), np.load(data / "megnet_reference.npz")


def test_six_reference_structures(six, megnet):
    structures, reference = six
    features = megnet.featurize(structures)
    assert not features.refused
    for level in SITES:
        expected = np.concatenate([reference[f"{name}/{level}"] for name in structures.material_id])
        np.testing.assert_allclose(features.sites[level], expected, atol=1e-4)
    for level in WHOLE:
        expected = np.concatenate([reference[f"{name}/{level}"] for name in structures.material_id])
        np.testing.assert_allclose(features.structure[level], expected, atol=1e-4)
    energies = np.concatenate([reference[f"{name}/out"] for name in structures.material_id])
    np.testing.assert_allclose(features.structure["energy"], energies, atol=5e-6)


@pytest.mark.parametrize(
    ("name", "energy"),
    [
        ("NaCl", -2.103912),
        ("Si", -0.018543),
        ("SrTiO3", -3.520047),
        ("Fe_bcc", 0.003792),
        ("TiO2_rutile", -3.485985),
        ("random20", -1.037310),
    ],
)
def test_published_energies(six, megnet, name, energy):
    structures, _ = six
    row = {key.lower().replace("_", ""): i for i, key in enumerate(structures.material_id)}
    found = next(i for key, i in row.items() if key.startswith(name.lower().replace("_", "")[:6]))
    predicted = megnet.featurize(structures.take([found]), ["energy"]).structure["energy"]
    assert predicted[0, 0] == pytest.approx(energy, abs=5e-6)


@pytest.mark.parametrize("group", ["ef", "metal"])
def test_two_hundred_materials_project_structures(shared, megnet, group):
    raw = json.loads((shared / "reference/megnet_structures_200.json").read_text())[group]
    reference = np.load(shared / "reference/megnet_reference_200.npz")
    structures = [Structure(e["lattice"], e["atomic_numbers"], e["frac_coords"]) for e in raw]
    features = megnet.featurize(as_structures(structures))
    for level in SITES:
        np.testing.assert_allclose(features.sites[level], reference[f"{group}/{level}"], atol=1e-4)
    for level in WHOLE:
        np.testing.assert_allclose(features.structure[level], reference[f"{group}/{level}"], atol=1e-4)
    np.testing.assert_allclose(features.structure["energy"], reference[f"{group}/out"], atol=5e-6)


@pytest.fixture(scope="module")
def rutile():
    return Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )


def featurize(megnet, *structures):
    return megnet.featurize(as_structures(list(structures)))


def assert_same(a, b, order=slice(None), tolerance=5e-5):
    for level in SITES:
        np.testing.assert_allclose(a.sites[level], b.sites[level][order], atol=tolerance)
    for level in (*WHOLE, "energy"):
        np.testing.assert_allclose(a.structure[level], b.structure[level], atol=tolerance)


def test_order_of_sites_does_not_matter(rutile, megnet):
    order = [3, 0, 5, 1, 4, 2]
    shuffled = Structure.from_sites([rutile[i] for i in order])
    assert_same(featurize(megnet, shuffled), featurize(megnet, rutile), order)


def test_translation_does_not_matter(rutile, megnet):
    moved = rutile.copy()
    moved.translate_sites(range(len(moved)), [0.137, -0.41, 7.3], frac_coords=True, to_unit_cell=False)
    assert_same(featurize(megnet, moved), featurize(megnet, rutile))


def test_rotation_does_not_matter(rutile, megnet):
    turned = rutile.copy()
    turned.apply_operation(SymmOp.from_axis_angle_and_translation([1, 2, 3], 47.0))
    assert_same(featurize(megnet, turned), featurize(megnet, rutile))


def test_choice_of_cell_does_not_matter(rutile, megnet):
    skewed = rutile.copy()
    skewed.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]], to_unit_cell=True)
    doubled = rutile.copy()
    doubled.make_supercell([2, 1, 1])
    one = featurize(megnet, rutile)
    for other in (skewed, doubled):
        found = featurize(megnet, other)
        for level in WHOLE:
            np.testing.assert_allclose(found.structure[level], one.structure[level], atol=5e-5)
        for element in ("Ti", "O"):
            here = [i for i, site in enumerate(other) if site.species_string == element]
            there = [i for i, site in enumerate(rutile) if site.species_string == element]
            for level in SITES:
                expected = np.broadcast_to(one.sites[level][there[0]], found.sites[level][here].shape)
                np.testing.assert_allclose(found.sites[level][here], expected, atol=5e-5)


def test_batch_size_does_not_matter(elastic, megnet, monkeypatch):
    structures = elastic.structures.take(np.arange(30))
    together = megnet.featurize(structures)
    monkeypatch.setattr("atomsets_core.parents.megnet.parent.MAX_BONDS", 1)
    assert_same(megnet.featurize(structures), together)


@pytest.mark.parametrize("levels", [["V0"], ["V1"], ["V2", "V0"], ["V3"], ["v"], ["f1", "V1"], ["energy"]])
def test_asking_for_less_gives_the_same_numbers(rutile, megnet, levels):
    everything = featurize(megnet, rutile)
    some = megnet.featurize(as_structures([rutile]), levels)
    assert [*some.sites, *some.structure] == sorted(levels, key=lambda level: level not in SITES)
    for level, values in {**some.sites, **some.structure}.items():
        np.testing.assert_allclose(values, {**everything.sites, **everything.structure}[level], atol=1e-6)


def test_refusals_name_the_reason_and_spare_the_rest(rutile, megnet):
    lonely = Structure(Lattice.cubic(20.0), ["He"], [[0, 0, 0]])
    heavy = Structure(Lattice.cubic(4.0), ["Am"], [[0, 0, 0]])
    overlapping = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.01]])
    features = megnet.featurize(
        as_structures([lonely, rutile, heavy, overlapping], ["lonely", "rutile", "heavy", "close"])
    )
    assert list(features.material_id) == ["rutile"]
    reasons = {refusal.material_id: refusal.reason for refusal in features.refused}
    assert f"no neighbour within {CUTOFF:g} Angstrom" in reasons["lonely"]
    assert "atomic number 95" in reasons["heavy"]
    assert "overlapping atoms: sites" in reasons["close"]
    assert_same(features, featurize(megnet, rutile))


def test_untrained_elements_are_flagged(megnet):
    polonium = Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]])
    features = featurize(megnet, polonium)
    assert features.flagged == {features.structure_hash[0]: "megnet never saw Po in training"}


def test_digest_follows_the_weights(megnet):
    weights = dict(read_weights())
    assert MEGNet(weights).digest == megnet.digest
    weights["dense_1/bias"] = weights["dense_1/bias"] + np.float32(1e-6)
    assert MEGNet(weights).digest != megnet.digest


def test_all_weights_are_read():
    assert sum(value.size for value in read_weights().values()) == 167_761


def test_unknown_names_are_refused(megnet, elastic):
    with pytest.raises(ValueError, match="no level 'V7'; it has V0, V1"):
        megnet.featurize(elastic.structures.take([0]), ["V7"])
    with pytest.raises(ValueError, match="no parent named 'nonsense'"):
        load_parent("nonsense")


def test_nothing_in_nothing_out(megnet, elastic):
    features = megnet.featurize(elastic.structures.take([]))
    assert len(features) == 0
    assert features.sites["V3"].shape == (0, 32)
    assert features.structure["v"].shape == (0, 96)
