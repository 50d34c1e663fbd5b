"""What every parent promises, whatever network is inside."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.operations import SymmOp

from atomsets_core.parents import element_tables
from atomsets_core.parents.base import element_levels, split_levels
from atomsets_core.parents.registry import is_parent, load_parent, parent_names
from atomsets_core.parents.trained import read_parent
from atomsets_core.structures.batch import empty_structures
from atomsets_core.structures.compositions import as_compositions
from atomsets_core.structures.reading import as_structures

TOLERANCE = 3e-5
"""Of the largest number of a level; float32 sums in another order differ by less."""


TRAINED = "trained here"
# Products in bfloat16 depend on the size of the batch, stiffness is a difference of float32 energies, and the parent of
# compositions sees no coordinates: they have tests of their own. One-hot elements are no network.
TABLES = {*element_tables.NAMES, "elements", "composition"}
NETWORKS = [name for name in parent_names() if name not in TABLES and not name.endswith(("-bf16", "-response"))]


@pytest.fixture(scope="module", params=[*NETWORKS, TRAINED])
def parent(request):
    try:
        name = request.getfixturevalue("trained_parent") if request.param == TRAINED else request.param
        return load_parent(name)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def module(parent):
    return sys.modules[type(parent).__module__]


@pytest.fixture(scope="module")
def weights(parent, module):
    if parent.name not in parent_names():
        return read_parent(parent.name)[0]
    return module.read_weights(parent.network) if hasattr(parent, "network") else module.read_weights()


def load_again(parent):
    """From its files, without the cache."""
    return load_parent.__wrapped__(parent.name)


@pytest.fixture(scope="module")
def crystals():
    """A molecular solid, a layered one, a metal with one atom, a perovskite, and a cell without symmetry."""
    rng = np.random.default_rng(3)
    jittered = Structure.from_spacegroup(
        "Pnma",
        Lattice.orthorhombic(5.5, 7.7, 5.4),
        ["Ca", "Ti", "O"],
        [[0.03, 0.25, 0.99], [0, 0, 0.5], [0.5, 0.25, 0.08]],
    )
    jittered.perturb(0.15, seed=4)
    random = Structure(
        Lattice.from_parameters(5.1, 6.3, 7.2, 81, 97, 112),
        ["Li", "Fe", "P", "O", "O"],
        np.array([[0, 0, 0], [0.5, 0.4, 0.1], [0.1, 0.5, 0.6], [0.6, 0.9, 0.5], [0.3, 0.2, 0.8]])
        + rng.uniform(-0.03, 0.03, (5, 3)),
    )
    return {
        "ice": Structure(Lattice.cubic(4.4), ["O", "H", "H"], [[0.5, 0.5, 0.5], [0.65, 0.62, 0.5], [0.35, 0.62, 0.5]]),
        "MoS2": Structure(
            Lattice.hexagonal(3.16, 12.3),
            ["Mo", "Mo", "S", "S", "S", "S"],
            [[1 / 3, 2 / 3, z] for z in (0.25,)]
            + [[2 / 3, 1 / 3, 0.75]]
            + [[1 / 3, 2 / 3, 0.621], [1 / 3, 2 / 3, 0.879], [2 / 3, 1 / 3, 0.121], [2 / 3, 1 / 3, 0.379]],
        ),
        "Cu": Structure(Lattice.from_parameters(2.55, 2.55, 2.55, 60, 60, 60), ["Cu"], [[0, 0, 0]]),
        "perovskite": jittered,
        "random": random,
    }


def featurize(parent, *structures, levels=None):
    features = parent.featurize(as_structures(list(structures)), levels)
    assert not features.refused
    return features


def assert_close(found, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max(initial=0)))


def assert_same(parent, found, expected, order=slice(None)):
    for level in parent.site_levels:
        assert_close(found.sites[level], expected.sites[level][order])
    for level in parent.structure_levels:
        assert_close(found.structure[level], expected.structure[level])


def test_it_says_what_it_is(parent, crystals):
    assert is_parent(parent.name)
    assert re.fullmatch(r"[0-9a-f]{16}", parent.digest)
    assert parent.default_levels
    assert set(parent.default_levels) <= set(parent.site_levels)
    assert not set(parent.site_levels) & set(parent.structure_levels)
    structures = as_structures(list(crystals.values()), list(crystals))
    features = parent.featurize(structures)
    assert not features.refused
    assert list(features.material_id) == list(crystals)
    assert list(features.structure_hash) == list(structures.hashes)
    assert features.digest == parent.digest
    assert {level: values.shape for level, values in features.sites.items()} == {
        level: (structures.n_atoms.sum(), width) for level, width in parent.site_levels.items()
    }
    assert {level: values.shape for level, values in features.structure.items()} == {
        level: (len(crystals), width) for level, width in parent.structure_levels.items()
    }
    for values in (*features.sites.values(), *features.structure.values()):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_levels_tell_sites_apart(parent, crystals):
    """A level that is the same for every site of a disordered cell would be useless, and a sign of a mistake."""
    features = featurize(parent, crystals["perovskite"])
    oxygen = [i for i, site in enumerate(crystals["perovskite"]) if site.species_string == "O"]
    for values in list(features.sites.values())[1:]:
        assert (np.ptp(values[oxygen], axis=0) > 1e-3).any()


@pytest.mark.parametrize("name", ["ice", "MoS2", "Cu", "perovskite", "random"])
def test_order_origin_and_orientation_do_not_matter(parent, crystals, name):
    structure = crystals[name]
    order = np.random.default_rng(1).permutation(len(structure))
    other = Structure.from_sites([structure[i] for i in order])
    other.translate_sites(range(len(other)), [0.137, -0.41, 7.3], frac_coords=True, to_unit_cell=False)
    other.apply_operation(SymmOp.from_axis_angle_and_translation([1, 2, 3], 47.0))
    assert_same(parent, featurize(parent, other), featurize(parent, structure), order)


@pytest.mark.parametrize("name", ["ice", "MoS2", "Cu", "perovskite", "random"])
@pytest.mark.parametrize("cell", [[[2, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 1, 0], [0, 1, 0], [-1, 0, 1]]])
def test_choice_of_cell_does_not_matter(parent, crystals, name, cell):
    one = featurize(parent, crystals[name])
    other = crystals[name].copy()
    other.add_site_property("origin", list(range(len(other))))
    other.make_supercell(cell)
    found = featurize(parent, other)
    for level in parent.site_levels:
        assert_close(found.sites[level], one.sites[level][other.site_properties["origin"]])
    for level in parent.structure_levels:
        assert_close(found.structure[level], one.structure[level])


def test_equivalent_sites_are_equal(parent, crystals):
    features = featurize(parent, crystals["MoS2"])
    for values in features.sites.values():
        assert_close(values[[1, 3, 4, 5]], values[[0, 2, 2, 2]])


def test_partial_occupancy_has_no_graph_but_elements(parent, crystals):
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.75, "Ni": 0.25}], [[0, 0, 0]])
    gap = Structure(Lattice.cubic(3.6), [{"Cu": 0.5}], [[0, 0, 0]])
    batch = as_structures([alloy, crystals["Cu"], gap], ["alloy", "Cu", "gap"])
    features = parent.featurize(batch)
    assert list(features.material_id) == ["Cu"]
    assert {r.material_id: r.reason.partition(" (")[0] for r in features.refused} == dict.fromkeys(
        ["alloy", "gap"], "partial occupancy"
    )
    for level in element_levels(parent):
        found = parent.featurize(batch, [level])
        assert not found.refused
        np.testing.assert_allclose(found.weights, [0.75, 0.25, 1, 0.5])
        np.testing.assert_array_equal(found.sites[level][0], features.sites[level][0])


def test_a_composition_has_the_levels_of_its_elements_and_no_others(parent, crystals):
    formulas = as_compositions(["MoS2", "CuNi3"])
    for level in element_levels(parent):
        found = parent.featurize(formulas, [level])
        assert list(found.formula) == ["MoS2", "CuNi3"]
        np.testing.assert_allclose(found.weights, [2 / 3, 1 / 3, 0.75, 0.25], rtol=1e-6)
        of_crystal = featurize(parent, crystals["MoS2"], levels=[level]).sites[level]
        np.testing.assert_array_equal(found.sites[level][:2], of_crystal[[2, 0]])
    with pytest.raises(ValueError, match=f"{parent.name}:.* needs coordinates"):
        parent.featurize(formulas)


def test_company_does_not_matter(parent, module, elastic, monkeypatch):
    structures = elastic.structures.take(np.arange(0, 600, 40))
    together = parent.featurize(structures)
    alone = [parent.featurize(structures.take([i])) for i in range(len(structures))]
    monkeypatch.setattr(module, "MAX_BONDS", 2000)
    in_batches = parent.featurize(structures)
    for level in parent.site_levels:
        assert_close(np.concatenate([one.sites[level] for one in alone]), together.sites[level], 1e-5)
        assert_close(in_batches.sites[level], together.sites[level], 1e-5)
    for level in parent.structure_levels:
        assert_close(np.concatenate([one.structure[level] for one in alone]), together.structure[level], 1e-5)
        assert_close(in_batches.structure[level], together.structure[level], 1e-5)


def test_the_same_twice(parent, crystals):
    first, second = featurize(parent, *crystals.values()), featurize(parent, *crystals.values())
    for level in parent.site_levels:
        np.testing.assert_array_equal(first.sites[level], second.sites[level])


def test_only_what_was_asked_for(parent, crystals):
    everything = featurize(parent, *crystals.values())
    levels = [*parent.site_levels, *parent.structure_levels]
    for wanted in [[level] for level in levels] + [levels[::-1], [levels[-1], levels[0]], []]:
        features = featurize(parent, *crystals.values(), levels=wanted)
        on_sites, on_structures = split_levels(parent, wanted)
        assert set(features.sites) == set(on_sites)
        assert set(features.structure) == set(on_structures)
        assert len(features) == len(crystals)
        for level in on_sites:
            assert_close(features.sites[level], everything.sites[level], 1e-6)
        for level in on_structures:
            assert_close(features.structure[level], everything.structure[level], 1e-6)


def test_refusals_name_the_reason_and_spare_the_rest(parent, crystals):
    bad = {
        "heavy": Structure(Lattice.cubic(4.0), ["Cm", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "lonely": Structure(Lattice.cubic(20.0), ["He"], [[0, 0, 0]]),
        "half lonely": Structure(Lattice.cubic(25.0), ["H", "H", "Xe"], [[0, 0, 0], [0.03, 0, 0], [0.5, 0.5, 0.5]]),
        "overlapping": Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.01]]),
        "squeezed": Structure(Lattice.cubic(0.6), ["Fe"], [[0, 0, 0]]),
    }
    good = {key: crystals[key] for key in ("ice", "random")}
    named = {"heavy": bad["heavy"], "ice": good["ice"], **bad, "random": good["random"]}
    structures = as_structures(list(named.values()), list(named))
    features = parent.featurize(structures)
    assert list(features.material_id) == list(good)
    assert_same(parent, features, featurize(parent, *good.values()))
    refused = {refusal.material_id: refusal for refusal in features.refused}
    assert set(refused) == set(bad)
    assert all(refusal.stage == "featurize" for refusal in refused.values())
    hashes = dict(zip(structures.material_id, structures.hashes, strict=True))
    assert all(refusal.structure_hash == hashes[name] for name, refusal in refused.items())
    assert "Cm (atomic number 96)" in refused["heavy"].reason
    assert "isolated" in refused["lonely"].reason
    assert "site 2 has no neighbour" in refused["half lonely"].reason
    assert "overlapping atoms: sites" in refused["overlapping"].reason
    assert "overlapping atoms" in refused["squeezed"].reason


@pytest.mark.parametrize("element", ["Po", "At", "Rn", "Fr", "Ra"])
def test_an_element_without_training_data_never_passes_silently(parent, element):
    features = parent.featurize(as_structures([Structure(Lattice.cubic(3.3), [element], [[0, 0, 0]])]))
    if len(features):
        assert features.flagged == {features.structure_hash[0]: f"{parent.name} never saw {element} in training"}
    else:
        assert element in features.refused[0].reason


def test_digest_is_stable_and_follows_the_weights(parent, weights):
    assert load_again(parent).digest == parent.digest
    # A parent that was trained here has a cutoff of its own, and there are two networks of one kind.
    own = {} if parent.name in parent_names() else {"cutoff": parent.cutoff}
    own |= {"network": parent.network} if hasattr(parent, "network") else {}
    assert type(parent)(weights, **own).digest == parent.digest
    name = next(name for name, values in sorted(weights.items()) if values.size > 10 and values.std() > 0)
    changed = weights[name].copy()
    changed.flat[0] += np.float32(1e-3)
    assert type(parent)({**weights, name: changed}, **own).digest != parent.digest


def test_code_version_is_part_of_the_digest(parent, module, monkeypatch):
    monkeypatch.setattr(module, "CODE_VERSION", "another")
    assert load_again(parent).digest != parent.digest


def test_unknown_level_is_an_error_that_names_those_there_are(parent, crystals):
    with pytest.raises(
        ValueError, match=f"parent {parent.name} has no level 'V99'; it has .*{parent.default_levels[0]}"
    ):
        parent.featurize(as_structures([crystals["Cu"]]), ["V99"])


def test_nothing_in_nothing_out(parent):
    features = parent.featurize(empty_structures())
    assert len(features) == 0
    assert {level: values.shape for level, values in features.sites.items()} == {
        level: (0, width) for level, width in parent.site_levels.items()
    }


def test_missing_package_is_named_with_what_to_install(parent, module, monkeypatch):
    if parent.name not in parent_names():
        pytest.skip("its weights are files of the user, not of a package")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    reader = sys.modules[module.read_weights.__module__]
    with pytest.raises(FileNotFoundError, match="which is not installed: pip install"):
        parent.network.file() if hasattr(parent, "network") else reader.weights_file()


def test_networks_are_read_without_importing_their_packages():
    code = (
        "import sys; from atomsets_core.parents import load_parent, parent_names\n"
        "for name in parent_names():\n"
        "    try: load_parent(name)\n"
        "    except FileNotFoundError: pass\n"
        "print(sorted({'maml', 'chgnet', 'sevenn', 'e3nn', 'ase', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_installed_packages_can_bring_parents(monkeypatch):
    """Workers are other processes, where nothing was registered; entry points are found there too."""
    entry = importlib.metadata.EntryPoint(
        "megnet-again", "atomsets_core.parents.megnet.parent:load", "atomsets_core.parents"
    )
    monkeypatch.setattr(
        "atomsets_core.parents.registry.entry_points",
        lambda **which: importlib.metadata.EntryPoints([entry]).select(**which),
    )
    load_parent.cache_clear()
    try:
        assert "megnet-again" in parent_names()
        assert load_parent("megnet-again").digest == load_parent("megnet").digest
    finally:
        load_parent.cache_clear()
