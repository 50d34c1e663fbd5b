"""Shards come back as they were, are found by content, and a damaged one is named."""

import json
from dataclasses import replace

import numpy as np
import pytest

from atomsets_core.features import shards
from atomsets_core.features import shards as shards_module
from atomsets_core.features.shards import (  # fmt: skip
    ShardError,
    folder,
    locate,
    read_shard,
    shard_key,
    verify_shard,
    write_shard,
)
from atomsets_core.features.stored import FeatureStore
from atomsets_core.storage.store import StorageError, Store
from atomsets_core.structures.batch import Refusal

LEVELS = ["V0", "V3", "v"]


@pytest.fixture(scope="module")
def features(elastic, megnet):
    return megnet.featurize(elastic.structures.take(np.arange(40)), LEVELS)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features")


def write(store, features):
    return write_shard(
        store, "megnet", shard_key(list(features.structure_hash), features.digest, LEVELS), features, LEVELS
    )


def entries_of(store, features, levels=()):
    return list(FeatureStore(store, "megnet", features.digest, levels).entries())


def path_of(store, entry):
    return store.local(f"{folder('megnet', entry.digest)}/{entry.key}.parquet")


def test_round_trip(store, features):
    entry = write(store, features)
    assert entries_of(store, features) == [entry]
    found = read_shard(store, entry)
    for name in ("material_id", "structure_hash", "formula", "n_atoms"):
        np.testing.assert_array_equal(getattr(found, name), getattr(features, name))
    for level in ("V0", "V3"):
        np.testing.assert_array_equal(found.sites[level], features.sites[level])
    np.testing.assert_array_equal(found.structure["v"], features.structure["v"])
    assert list(read_shard(store, entry, ["V0"]).sites) == ["V0"]
    with pytest.raises(KeyError, match="no level 'V1'"):
        read_shard(store, entry, ["V1"])


@pytest.mark.parametrize("rows", [[5], [39, 0, 5, 5], [], list(range(30)), [1, 1, 1]])
def test_some_rows_are_those_of_the_whole(store, features, rows, monkeypatch):
    monkeypatch.setattr(shards, "BATCH", 7)
    entry = write(store, replace(features, weights=np.arange(features.n_atoms.sum(), dtype=np.float32)))
    chosen = np.array(rows, dtype=np.int64)
    found, whole = read_shard(store, entry, LEVELS, chosen), read_shard(store, entry, LEVELS)[chosen]
    for name in ("material_id", "structure_hash", "formula", "n_atoms", "weights"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    for level in LEVELS:
        np.testing.assert_array_equal(
            {**found.sites, **found.structure}[level], {**whole.sites, **whole.structure}[level]
        )
    assert (found.refused, found.flagged) == (whole.refused, whole.flagged)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "gone"])
def test_a_damaged_shard_is_named(store, features, damage):
    entry = write(store, features)
    path = path_of(store, entry)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:-7], "emptied": b"", "gone": b""}.get(damage, b""))
    if damage == "flipped":
        path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    if damage == "gone":
        path.unlink()
    with pytest.raises(ShardError, match=entry.key):
        read_shard(store, entry)
    assert [found.key for found, _ in shards_module.damaged_shards(store, [entry])] == [entry.key]


def test_a_shard_without_its_entry_does_not_exist(store, features):
    entry = write(store, features)
    store.local(f"{folder('megnet', entry.digest)}/{entry.key}.json").unlink()
    assert entries_of(store, features) == []


def test_a_damaged_or_newer_entry_counts_as_absent(store, features):
    entry = write(store, features)
    path = store.local(f"{folder('megnet', entry.digest)}/{entry.key}.json")
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert entries_of(store, features) == []
    path.write_text(json.dumps({**json.loads(whole), "schema_version": 99}))
    assert entries_of(store, features) == []
    path.write_text(whole)
    assert entries_of(store, features) == [entry]


def test_no_entry_when_the_shard_can_not_be_written(store, features, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        write(store, features)
    assert entries_of(store, features) == []
    assert not [path for path in store.local(folder("megnet", features.digest)).iterdir() if "tmp" in path.name]


def test_nan_features_are_never_stored(store, features):
    broken = features[:5]
    broken.sites["V0"][0, 0] = np.nan
    with pytest.raises(ValueError, match="V0 .* NaN"):
        write(store, broken)


def test_key_follows_content_and_not_identifiers(features):
    hashes = list(features.structure_hash)
    key = shard_key(hashes, "d", LEVELS)
    assert key == shard_key(hashes, "d", LEVELS[::-1])
    assert key != shard_key(hashes[::-1], "d", LEVELS)
    assert key != shard_key(hashes, "e", LEVELS)
    assert key != shard_key(hashes, "d", LEVELS[:2])


def test_refusals_are_kept_with_the_shard(store, features):
    refused = (Refusal("x", "featurize", "isolated atom", "f" * 32),)
    entry = write(store, replace(features, refused=refused))
    asked = ["f" * 32, features.structure_hash[0], "0" * 32, "f" * 32]
    located = locate([entry], LEVELS, asked)
    assert located.refused == {"f" * 32: "isolated atom"}
    assert list(located.missing) == [False, False, True, False]
    assert list(located.found) == [False, True, False, False]
    assert located.row[1] == 0


def test_the_first_shard_by_key_counts_whatever_the_order_of_the_manifest(store, features):
    entries = [write(store, part) for part in (features[:20], features[10:])]
    hashes = [*features.structure_hash, features.structure_hash[15]]
    first = min(entries, key=lambda entry: entry.key)
    for manifest in (entries, entries[::-1]):
        located = locate(manifest, LEVELS, hashes)
        assert located.found.all()
        for h, shard, row in zip(hashes, located.shard, located.row, strict=True):
            entry = first if h in first.hashes else next(e for e in entries if h in e.hashes)
            assert located.entries[shard].key == entry.key
            assert entry.hashes[row] == h


def test_gather_takes_rows_from_several_shards_in_the_order_asked(store, features):
    entries = [write(store, part) for part in (features[:15], features[15:])]
    order = [30, 2, 17, 2]
    where = FeatureStore(store, "megnet", features.digest, ("V3",))
    found = where.find(list(features.structure_hash[order])).load()
    np.testing.assert_array_equal(found.sites["V3"], features[order].sites["V3"])
    store.remove(entries[1].manifest)
    with pytest.raises(KeyError, match="have no features"):
        where.find(list(features.structure_hash[order]))


def test_a_shard_in_an_object_store(features):
    store = Store("memory://shards-test")
    entry = write(store, features)
    assert verify_shard(store, entry)
    np.testing.assert_array_equal(read_shard(store, entry).sites["V3"], features.sites["V3"])


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("megnet", "megnet-d1"),
        ("/home/me/parents/mine", "mine-d1"),
        ("parents/mine 2/", "mine_2-d1"),
        ("../..", "parent-d1"),
    ],
)
def test_the_shards_of_a_parent_that_is_a_path_stay_within_the_store(parent, expected):
    assert folder(parent, "d1") == expected
