"""A line of text says what a model sees; several parents stand side by side for each site."""

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from atomsets_core.features.specification import as_batch, parse_features
from atomsets_core.parents.base import Features
from atomsets_core.parents.registry import load_parent
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.compositions import Compositions, as_compositions
from atomsets_core.structures.reading import as_structures


@pytest.fixture(scope="module")
def structures(elastic):
    return elastic.structures.take(np.arange(12))


def test_it_reads_parents_levels_and_functions():
    spec = parse_features("megnet:V0+each(v), chgnet: mean(site) + site ,magpie")
    assert str(spec) == "megnet:V0+each(v),chgnet:mean(site)+site,magpie:vector"
    assert spec.parents == ("megnet", "chgnet", "magpie")
    assert spec.needed("megnet") == ("V0", "v")
    assert spec.needed("chgnet") == ("site",)
    assert not spec.element_only
    assert parse_features("megnet:V0,amount,chgnet:a0+std(a0)").element_only
    assert str(parse_features(str(spec))) == str(spec)
    assert str(parse_features("megnet")) == "megnet:V0+V1+V2+V3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gold:V0", "no parent named 'gold'"),
        ("megnet:V9", "parent megnet has no level 'V9'"),
        ("megnet:", "write them as parent:level"),
        ("", "write them as parent:level"),
        ("megnet:V0,,chgnet", "write them as parent:level"),
        ("megnet:V0+V0", "megnet:V0 is there twice"),
        ("megnet:median(V0)", "no function 'median'; there are mean, std, min, max, each"),
        ("megnet:mean(v)", "v is one vector a structure already"),
        ("megnet:each(V0)", "V0 is one vector a site already"),
        ("megnet:mean(V0", "is no level"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_features(text)


def test_levels_of_several_parents_stand_side_by_side(structures):
    spec = parse_features("megnet:V0+V2+f1,magpie,amount:log")
    features = spec.featurize(structures)
    megnet = load_parent("megnet").featurize(structures, ["V0", "V2", "f1"])
    magpie = load_parent("magpie").featurize(structures)
    np.testing.assert_array_equal(
        spec.site_matrix(features)[:, :-1],
        np.concatenate([megnet.sites["V0"], megnet.sites["V2"], magpie.sites["vector"]], axis=1),
    )
    np.testing.assert_array_equal(spec.structure_matrix(features), megnet.structure["f1"])
    assert set(features.sites) == {"megnet:V0", "megnet:V2", "magpie:vector", "amount:log"}
    assert features.parents == {name: load_parent(name).digest for name in ("megnet", "magpie", "amount")}


def test_a_part_of_joined_features_is_what_the_parent_alone_gives(structures):
    joined = parse_features("megnet:V0+V1,magpie").featurize(structures)
    alone = parse_features("megnet:V1").featurize(structures)
    spec = parse_features("megnet:V1")
    np.testing.assert_array_equal(spec.site_matrix(joined), spec.site_matrix(alone))
    assert spec.digest(joined) == spec.digest(alone) == load_parent("megnet").digest
    with pytest.raises(ValueError, match="no features of chgnet among these, which are of megnet, magpie"):
        parse_features("chgnet:site").site_matrix(joined)
    with pytest.raises(ValueError, match=r"needs features of 2 parents, joined by Features\.join"):
        parse_features("megnet:V1,magpie").site_matrix(alone)


def test_the_joint_digest_follows_every_parent_and_no_order(structures):
    few = structures.take([0])
    digests = {
        parse_features(text).featurize(few).digest for text in ("megnet:V0,magpie", "megnet:V0,cgnf", "megnet:V0")
    }
    assert len(digests) == 3
    assert parse_features("magpie,megnet:V0").featurize(few).digest in digests


def test_statistics_are_weighted_and_structure_levels_reach_each_site(structures):
    batch = as_compositions(["Fe2O3", "NaCl", "Cu"])
    spec = parse_features("magpie:mean(vector)+std(vector)+min(vector)+max(vector)")
    features = spec.featurize(batch)
    assert spec.site_matrix(features).shape == (5, 0)
    mean, std, low, high = np.split(spec.structure_matrix(features), 4, axis=1)
    oxygen, iron = load_parent("magpie").table[8], load_parent("magpie").table[26]
    np.testing.assert_allclose(mean[0], 0.6 * oxygen + 0.4 * iron, rtol=1e-5)
    np.testing.assert_allclose(std[0], np.sqrt(0.24) * np.abs(oxygen - iron), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(low[0], np.minimum(oxygen, iron))
    np.testing.assert_array_equal(high[0], np.maximum(oxygen, iron))
    np.testing.assert_array_equal(std[2], 0)

    spread = parse_features("megnet:each(f1)")
    features = spread.featurize(structures)
    expected = np.repeat(features.structure["f1"], features.n_atoms, axis=0)
    np.testing.assert_array_equal(spread.site_matrix(features), expected)
    assert spread.structure_matrix(features).shape == (12, 0)


def test_what_one_parent_refuses_is_refused(structures):
    thorium = Structure(Lattice.cubic(5), ["Og", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    far = Structure(Lattice.cubic(40), ["Cu"], [[0, 0, 0]])
    batch = Structures.concat([as_structures([thorium, far], ["og", "far"]), structures.take([3, 5])])
    features = parse_features("megnet:V1,magpie,amount").featurize(batch)
    assert list(features.material_id) == list(batch.material_id[2:])
    assert {r.material_id for r in features.refused} == {"og", "far"}
    assert all(r.stage == "featurize" for r in features.refused)
    alone = parse_features("megnet:V1").featurize(batch.take([2, 3]))
    np.testing.assert_array_equal(features.sites["megnet:V1"], alone.sites["V1"])


def test_only_features_of_the_same_structures_are_joined(structures):
    megnet, magpie = (load_parent(name).featurize(structures) for name in ("megnet", "magpie"))
    with pytest.raises(ValueError, match="are not of the same structures"):
        Features.join({"megnet": megnet[:5], "magpie": magpie})
    shuffled = Features.join({"megnet": megnet, "magpie": magpie[::-1]})
    np.testing.assert_array_equal(shuffled.sites["magpie:vector"], magpie.sites["vector"])
    compositions = load_parent("magpie").featurize(Compositions.of(structures))
    with pytest.raises(ValueError, match="are not of the same structures"):
        Features.join({"megnet": megnet, "magpie": compositions})
    with pytest.raises(ValueError, match="no features to join"):
        Features.join({})


def test_flags_and_selections_of_joined_features(structures):
    radon = Structure(Lattice.cubic(4), ["Rn", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    features = parse_features("megnet:V0,amount").featurize(as_structures([*structures.to_pymatgen()[:2], radon]))
    assert list(features.flagged.values()) == ["megnet never saw Rn in training"]
    part = features[[2, 0]]
    assert part.parents == features.parents
    np.testing.assert_array_equal(part.sites["amount:fraction"][:2], [[0.5], [0.5]])
    assert len(part.flagged) == 1


def test_anything_with_a_structure_or_formula_becomes_a_batch(structures):
    crystals = structures.to_pymatgen()[:2]
    assert isinstance(as_batch(crystals), Structures)
    assert isinstance(as_batch(np.array(["NaCl", "MgO"])), Compositions)
    assert isinstance(as_batch([Composition("NaCl"), "MgO", crystals[0]]), Compositions)
    assert as_batch(structures) is structures
    for single in ("NaCl", crystals[0], 3):
        with pytest.raises(ValueError, match="give several structures or formulas, not one"):
            as_batch(single)
    with pytest.raises(ValueError, match="composition 1: not a chemical formula: 'salt'"):
        as_batch(["NaCl", "salt"])


def test_levels_of_very_different_scales_do_not_hide_each_other_when_sites_are_merged(elastic):
    """Magpie's numbers are in the thousands: sites that differ in CHGNet's alone must stay apart."""
    from atomsets_core.models.networks.training_data import TrainingData

    largest = np.argsort(elastic.structures.n_atoms)[-5:]
    structures = elastic.structures.take(largest)
    counts = {}
    for text in ("chgnet:site", "magpie,chgnet:site"):
        spec = parse_features(text)
        features = spec.featurize(structures)
        data = TrainingData.gathered(features, spec.site_matrix, spec.structure_matrix, widths=spec.site_widths)
        counts[text] = len(data.sites)
        assert float(data.weights.sum()) == structures.n_atoms.sum()
    assert counts["magpie,chgnet:site"] == counts["chgnet:site"]
    assert counts["chgnet:site"] < structures.n_atoms.sum()
