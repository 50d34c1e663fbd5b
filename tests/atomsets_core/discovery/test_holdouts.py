"""Holdouts keep what is hidden hidden: disjoint parts, nothing of the hidden kind to learn from, groups on one side."""

from __future__ import annotations

import numpy as np
import pytest

from atomsets_core import discovery
from atomsets_core.discovery.groups import chemical_systems, clusters, prototypes, space_groups
from atomsets_core.discovery.holdouts import Holdout, value_holdout
from atomsets_core.structures.reading import as_structures


def values(n: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize(("goal", "sign"), [("maximize", 1), ("minimize", -1)])
@pytest.mark.parametrize("seed", range(3))
def test_every_hidden_value_is_better_than_every_one_learned_from(goal: str, sign: int, seed: int):
    y = values()
    split = value_holdout(y, goal=goal, quantile=0.1, pool_share=0.2, seed=seed)
    hidden = split.pool[split.hidden]
    rest = np.concatenate([split.train, split.pool[~split.hidden]])
    assert (sign * y[hidden]).min() > (sign * y[rest]).max()
    assert len(hidden) == 20
    assert (~split.hidden).sum() == 36
    assert sorted([*split.train, *split.pool]) == list(range(200))


def test_a_seed_gives_its_holdout_again_and_another_gives_another_with_the_same_hidden():
    y = values()
    one, again, other = (value_holdout(y, seed=seed) for seed in (0, 0, 1))
    for name in ("train", "pool", "hidden"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert set(one.train) != set(other.train)
    assert set(one.pool[one.hidden]) == set(other.pool[other.hidden])


def test_groups_never_straddle_training_and_pool():
    y = values()
    groups = np.array([f"F{i}" for i in np.random.default_rng(1).integers(0, 80, 200)], dtype=object)
    with_groups, without = value_holdout(y, groups=groups), value_holdout(y)
    assert not set(groups[with_groups.train]) & set(groups[with_groups.pool])
    # only training rows are given up for it
    np.testing.assert_array_equal(with_groups.pool, without.pool)
    assert set(with_groups.train) < set(without.train)


def test_values_equal_to_the_boundary_may_stay_but_none_is_better():
    y = np.round(values(), 0)
    split = value_holdout(y)
    assert y[split.pool[split.hidden]].min() >= y[split.train].max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "target"}, "needs the goal maximize or minimize"),
        ({"quantile": 0.001}, "too few to hide"),
        ({"pool_share": 0.0}, "too few to hide"),
        ({"pool_share": 1.0}, "too few to hide"),
        ({"quantile": 1.0}, "too few to hide"),
        ({"groups": np.array(["TiO2"] * 200, dtype=object)}, "0 rows are left to learn from"),
    ],
)
def test_a_holdout_with_an_empty_part_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        value_holdout(values(), **options)


def test_values_beyond_a_threshold_are_hidden():
    y = values()
    for goal, sign in (("maximize", 1), ("minimize", -1)):
        split = discovery.threshold_holdout(y, sign * 1.0, goal=goal)
        assert (sign * y[split.pool[split.hidden]] > 1).all()
        assert (sign * y[split.train] <= 1).all()
        assert (sign * y[split.pool[~split.hidden]] <= 1).all()
    with pytest.raises(ValueError, match="nothing to hide"):
        discovery.threshold_holdout(y, 100.0)


def check(split: Holdout, chosen: np.ndarray) -> None:
    """Every chosen row is hidden, none is learned from, and the parts add up."""
    assert sorted(split.pool[split.hidden]) == list(np.flatnonzero(chosen))
    assert not chosen[split.train].any()
    assert not chosen[split.dropped].any()
    assert sorted([*split.train, *split.pool, *split.dropped]) == list(range(len(chosen)))
    assert split.sizes["n_train"] + split.sizes["n_pool"] + split.sizes["n_dropped"] == len(chosen)
    assert split.sizes["n_hidden"] == chosen.sum()


@pytest.fixture(scope="module")
def crystals(elastic):
    return elastic.structures.take(np.arange(200))


def test_holdouts_by_what_crystals_have_in_common(crystals, elastic_features):
    formulas = crystals.formulas
    vectors = elastic_features[0].pooled(["V0", "V1"])
    groups, kinds = space_groups(crystals), prototypes(crystals)
    number = int(np.bincount(groups).argmax())
    names, counts = np.unique(kinds.astype(str), return_counts=True)
    kind = names[counts.argmax()]
    systems, sizes = np.unique(chemical_systems(formulas).astype(str), return_counts=True)
    system = systems[sizes.argmax()]
    oxygen = np.array(["O" in [e.symbol for e in s.composition] for s in crystals.to_pymatgen()])
    check(discovery.element_holdout(formulas, "O"), oxygen)
    check(discovery.chemical_system_holdout(formulas, system), chemical_systems(formulas) == system)
    check(discovery.space_group_holdout(crystals, number), groups == number)
    check(discovery.prototype_holdout(crystals, kind), kinds == kind)
    for cluster in range(3):
        split = discovery.cluster_holdout(vectors, cluster, n_clusters=6)
        check(split, clusters(vectors, 6) == cluster)
    sizes = np.bincount(clusters(vectors, 6))
    assert (np.diff(sizes) <= 0).all()


def test_the_latest_are_hidden(crystals):
    split = discovery.time_holdout(crystals.material_id, share=0.25)
    number = np.array([int(name.split("-")[1]) for name in crystals.material_id])
    assert number[split.pool[split.hidden]].min() > number[split.train].max()
    assert split.hidden.sum() == 50
    with pytest.raises(ValueError, match="'thing' has no number"):
        discovery.time_holdout(["mp-1", "thing"])


def test_nothing_to_hide_and_no_element_are_named(crystals):
    with pytest.raises(ValueError, match="there are no compounds of Xe among 200"):
        discovery.element_holdout(crystals.formulas, "Xe")
    with pytest.raises(ValueError, match="'Oxygen' is not an element"):
        discovery.element_holdout(crystals.formulas, "Oxygen")


def test_a_prototype_is_of_the_arrangement_not_of_elements_cell_or_origin():
    from pymatgen.core import Lattice, Structure

    salt, other = (
        Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), species, [[0, 0, 0], [0.5, 0.5, 0.5]])
        for a, species in ((5.64, ["Na", "Cl"]), (4.2, ["O", "Mg"]))
    )
    fluorite = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    moved = salt.copy().translate_sites(range(len(salt)), [0.5, 0, 0])
    batch = as_structures([salt, other, salt.get_primitive_structure(), moved, salt * (2, 1, 1), fluorite])
    found = prototypes(batch)
    assert len(set(found[:5])) == 1
    assert found[0] == "225: 1 m-3m; 1 m-3m"
    assert found[5] != found[0]
    assert list(space_groups(batch)) == [225] * 6


def test_groups_stay_on_one_side_of_every_kind_of_holdout(crystals):
    groups = crystals.formulas
    for split in (
        discovery.element_holdout(crystals.formulas, "Si", groups=groups),
        discovery.time_holdout(crystals.material_id, groups=groups),
        discovery.threshold_holdout(values(), 1.0, groups=groups),
    ):
        assert not set(groups[split.train]) & set(groups[split.pool])
        assert set(groups[split.dropped]) <= set(groups[split.pool])
