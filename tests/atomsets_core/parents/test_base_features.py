"""A batch of features is what its rows are, in any selection and order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atomsets_core.parents.base import Features
from atomsets_core.structures.batch import Refusal


def batch(n: int = 12, seed: int = 0, digest: str = "d") -> Features:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 6, n)
    counts[0] = 1
    total = int(counts.sum())
    return Features(
        material_id=np.array([f"m{seed}-{i}" for i in range(n)], dtype=object),
        structure_hash=np.array([f"h{seed}-{i}" for i in range(n)], dtype=object),
        formula=np.array([f"F{i}" for i in range(n)], dtype=object),
        n_atoms=counts,
        sites={
            "V0": random.normal(size=(total, 4)).astype(np.float32),
            "V1": random.normal(loc=1e3, size=(total, 3)).astype(np.float32),
        },
        structure={"U1": random.normal(size=(n, 2)).astype(np.float32)},
        digest=digest,
        refused=(Refusal(f"r{seed}", "featurize", "isolated atom"),),
        flagged={f"h{seed}-3": "unknown element"},
    )


def rows(features: Features, i: int, level: str) -> np.ndarray:
    return features.sites[level][features.offsets[i] : features.offsets[i + 1]]


@pytest.mark.parametrize("selection", [[3, 0, 3, 11], slice(2, 9, 3), [-1], []])
def test_a_selection_carries_each_structures_own_rows(selection: list[int] | slice):
    whole = batch()
    part = whole[selection]
    wanted = np.arange(12)[selection]
    assert len(part) == len(wanted) == part.shape[0]
    for new, old in enumerate(wanted):
        assert (part.material_id[new], part.formula[new]) == (whole.material_id[old], whole.formula[old])
        assert part.structure_hash[new] == whole.structure_hash[old]
        for level in whole.sites:
            np.testing.assert_array_equal(rows(part, new, level), rows(whole, old, level))
        np.testing.assert_array_equal(part.structure["U1"][new], whole.structure["U1"][old])
    assert part.refused == ()
    assert set(part.flagged) == ({"h0-3"} if 3 in wanted else set())


def test_a_mask_selects_like_its_positions():
    whole = batch()
    mask = np.arange(12) % 3 == 0
    np.testing.assert_array_equal(whole[mask].sites["V0"], whole[np.flatnonzero(mask)].sites["V0"])


def test_one_number_is_not_a_selection():
    with pytest.raises(TypeError, match="select rows with a list"):
        batch()[3]
    with pytest.raises(IndexError):
        batch()[[12]]


def test_concat_undoes_a_split():
    whole = batch()
    joined = Features.concat([whole[:5], whole[5:5], whole[5:]])
    for name in ("material_id", "structure_hash", "formula", "n_atoms"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    for level in whole.sites:
        np.testing.assert_array_equal(joined.sites[level], whole.sites[level])
    np.testing.assert_array_equal(joined.structure["U1"], whole.structure["U1"])
    assert joined.flagged == whole.flagged


def test_concat_keeps_refusals_and_flags_of_all():
    joined = Features.concat([batch(), batch(seed=1)])
    assert [refusal.material_id for refusal in joined.refused] == ["r0", "r1"]
    assert set(joined.flagged) == {"h0-3", "h1-3"}


def test_what_does_not_belong_together_is_not_joined():
    with pytest.raises(ValueError, match=r"two parents .* d, e"):
        Features.concat([batch(), batch(digest="e")])
    with pytest.raises(ValueError, match="different levels"):
        Features.concat([batch(), replace(batch(), structure={})])
    with pytest.raises(ValueError, match="no features to join"):
        Features.concat([])


def test_pooled_is_the_mean_and_deviation_over_the_sites_of_each_structure():
    whole = batch()
    pooled = whole.pooled(["V0", "V1", "U1"])
    assert pooled.dtype == np.float32
    for i in range(len(whole)):
        sites = np.concatenate([rows(whole, i, "V0"), rows(whole, i, "V1")], axis=1).astype(np.float64)
        expected = np.concatenate([sites.mean(axis=0), sites.std(axis=0), whole.structure["U1"][i]])
        np.testing.assert_allclose(pooled[i], expected, rtol=1e-5, atol=1e-6)


def test_pooled_of_one_site_has_no_deviation_and_nothing_is_nan():
    pooled = batch().pooled(["V0", "V1"])
    assert np.isfinite(pooled).all()
    np.testing.assert_array_equal(pooled[0, 7:], 0)


def test_pooled_does_not_depend_on_the_order_of_sites():
    whole = batch()
    random = np.random.default_rng(0)
    order = np.concatenate(
        [
            start + random.permutation(stop - start)
            for start, stop in zip(whole.offsets, whole.offsets[1:], strict=False)
        ]
    )
    shuffled = replace(whole, sites={level: values[order] for level, values in whole.sites.items()})
    np.testing.assert_allclose(shuffled.pooled(["V0", "V1"]), whole.pooled(["V0", "V1"]), rtol=1e-6, atol=1e-6)


def test_pooled_of_a_structure_does_not_depend_on_its_neighbours_in_the_batch():
    whole = batch()
    np.testing.assert_allclose(whole[[4]].pooled(["V0"])[0], whole.pooled(["V0"])[4], rtol=1e-6)


def test_matrices_stand_side_by_side_in_the_order_asked_for():
    whole = batch()
    np.testing.assert_array_equal(whole.site_matrix(["V1", "V0"])[:, :3], whole.sites["V1"])
    np.testing.assert_array_equal(whole.site_matrix(["V1", "V0"])[:, 3:], whole.sites["V0"])
    assert whole.structure_matrix([]).shape == (12, 0)


def test_an_unknown_level_is_named_with_those_there_are():
    with pytest.raises(KeyError, match=r"no site level 'V9' in these features; there are \['V0', 'V1'\]"):
        batch().site_matrix(["V9"])
    with pytest.raises(KeyError, match=r"no structure level 'V9' in these features; there are \['U1'\]"):
        batch().pooled(["V0", "V9"])


def test_levels_with_the_wrong_number_of_rows_are_refused():
    whole = batch()
    with pytest.raises(ValueError, match="site level V0"):
        replace(whole, sites={"V0": whole.sites["V0"][1:]})
    with pytest.raises(ValueError, match="structure level U1: 11 rows for 12 structures"):
        replace(whole, structure={"U1": whole.structure["U1"][1:]})
