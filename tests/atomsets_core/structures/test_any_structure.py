"""Whatever a structure is: features that are numbers, or a reason; never a crash, never one row too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomsets_core.features.shards import read_shard, shard_key, write_shard
from atomsets_core.storage.store import Store
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.reading import lattice_vectors, validate

LEVELS = ("V0", "V1", "V3", "v")
SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

ANY_FLOAT = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1e-300, 1e300, np.nan, np.inf])
CELLS = st.one_of(
    st.lists(ANY_FLOAT, min_size=9, max_size=9).map(lambda x: np.array(x).reshape(3, 3)),
    st.tuples(*[st.floats(0.5, 60)] * 3, *[st.floats(0.5, 179.5)] * 3).map(lambda p: lattice_vectors(np.array([p]))[0]),
)
SPECIES = st.integers(-2, 125)
FRACTIONS = ANY_FLOAT | st.floats(-2, 2)


@st.composite
def batches(draw) -> Structures:
    n = draw(st.integers(1, 3))
    counts = [draw(st.integers(0, 6)) for _ in range(n)]
    total = sum(counts)
    cells = [draw(CELLS) for _ in range(n)]
    numbers = draw(st.lists(SPECIES, min_size=total, max_size=total))
    frac = draw(st.lists(FRACTIONS, min_size=3 * total, max_size=3 * total))
    ids = np.array([f"m{i}" for i in range(n)], dtype=object)
    return Structures(
        ids, np.array(cells), np.array(counts), np.array(numbers, dtype=np.int64), np.array(frac).reshape(-1, 3)
    )


def featurized(megnet, batch: Structures):
    """Features of those that are crystals, and name -> reason of all others."""
    usable, refused = validate(batch)
    features = megnet.featurize(usable, LEVELS)
    reasons = {refusal.material_id: refusal.reason for refusal in (*refused, *features.refused)}
    return features, reasons


@SOME
@given(batch=batches())
def test_any_batch_gives_numbers_or_a_reason_for_each(megnet, batch):
    features, reasons = featurized(megnet, batch)
    assert sorted([*features.material_id, *reasons]) == sorted(batch.material_id)
    assert all(reason and "\n" not in reason for reason in reasons.values())
    for values in (*features.sites.values(), *features.structure.values()):
        assert np.isfinite(values).all()
        assert values.dtype == np.float32


def one(cell, n: int, spacing: float | None = None) -> Structures:
    """Iron and oxygen, n sites on a grid of the cell."""
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side) / side] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n]
    numbers = np.where(np.arange(n) % 2, 8, 26)
    return Structures(np.array(["m"], dtype=object), np.array([cell]), np.array([n]), numbers, grid)


@pytest.mark.parametrize("n", [1, 600])
def test_one_site_and_six_hundred(megnet, n):
    side = 2.6 * np.ceil(n ** (1 / 3))
    features, reasons = featurized(megnet, one(side * np.eye(3), n))
    assert not reasons
    assert features.n_atoms.tolist() == [n]
    assert np.isfinite(features.sites["V3"]).all()


THIN = np.diag([2.5, 2.5, 60.0])
FLAT = np.array([[20.0, 0, 0], [0, 20.0, 0], [0, 0, 1.2]])
SKEWED = np.array([[3.0, 0, 0], [40.0, 3.0, 0], [-55.0, 70.0, 3.0]])


@pytest.mark.parametrize("cell", [THIN, FLAT, SKEWED], ids=["thin", "flat", "skewed"])
def test_thin_flat_and_skewed_cells(megnet, cell):
    features, reasons = featurized(megnet, one(cell, 2))
    assert len(features) + len(reasons) == 1
    for values in features.sites.values():
        assert np.isfinite(values).all()


def test_a_skewed_cell_has_the_features_of_the_same_lattice_described_well(megnet):
    plain = one(3.0 * np.eye(3), 1)
    skewed = one(3.0 * np.array([[1, 0, 0], [7, 1, 0], [-9, 5, 1]]), 1)
    for level in ("V1", "V3"):
        np.testing.assert_allclose(
            megnet.featurize(skewed, [level]).sites[level], megnet.featurize(plain, [level]).sites[level], atol=1e-4
        )


def test_nothing_but_numbers_gets_into_a_shard(megnet, tmp_path):
    features = megnet.featurize(one(3.0 * np.eye(3), 1), ["V1"])
    store, key = Store(tmp_path), shard_key(list(features.structure_hash), features.digest, ["V1"])
    for wrong in (np.nan, np.inf):
        features.sites["V1"][0, 0] = wrong
        with pytest.raises(ValueError, match="NaN or infinite"):
            write_shard(store, "megnet", key, features, ["V1"])
    assert not list(tmp_path.rglob("*.*"))
    features.sites["V1"][0, 0] = np.finfo(np.float32).max
    entry = write_shard(store, "megnet", key, features, ["V1"])
    assert read_shard(store, entry).sites["V1"][0, 0] == np.finfo(np.float32).max
