"""Shards of several parents as one: what all of them have, and what is predicted from at once."""

import numpy as np
import pytest

from atomsets_core.features.making import featurize_into
from atomsets_core.features.several import JointStore, open_features, together
from atomsets_core.features.specification import parse_features
from atomsets_core.features.stored import FeatureStore, Piece
from atomsets_core.storage.store import Store

SPEC = "megnet:V0+V1,amount"


@pytest.fixture(scope="module")
def twenty(elastic):
    return elastic.structures.take(np.arange(20))


@pytest.fixture
def half(twenty, tmp_path):
    """Shards of 20 structures by one parent, in two shards, and of the later 14 by the other."""
    joint = open_features(Store(tmp_path), SPEC)
    megnet, amount = joint.parts
    for rows in (np.arange(10), np.arange(10, 20)):
        featurize_into(megnet, twenty.take(rows))
    featurize_into(amount, twenty.take(np.arange(6, 20)))
    return joint


def test_of_one_parent_it_is_the_store_of_that(tmp_path):
    assert isinstance(open_features(Store(tmp_path), "megnet:V0", "megnet:V1+V0"), FeatureStore)
    assert open_features(Store(tmp_path), "megnet:V0", "megnet:V1+V0").levels == ("V0", "V1")


def test_what_one_parent_lacks_is_missing(half, twenty):
    located = half.locate(list(twenty.hashes))
    assert located.found.tolist() == [False] * 6 + [True] * 14
    assert located.missing.tolist() == [True] * 6 + [False] * 14
    with pytest.raises(KeyError, match="6 structures have no features"):
        half.find(list(twenty.hashes))


def test_a_piece_holds_what_both_have_as_they_have_it(half, twenty):
    found = together([part.locate(list(twenty.hashes)) for part in half.parts])
    first, second = sorted(found.pieces, key=lambda piece: piece.shard.rows + piece.shard.sites)
    read = [half.read(piece) for piece in (first, second)]
    assert sorted(map(len, read)) == [4, 10]
    assert {h for part in read for h in part.structure_hash} == set(twenty.hashes[6:])
    memory = parse_features(SPEC).featurize(twenty)
    row = {h: i for i, h in enumerate(memory.structure_hash)}
    for part in read:
        expected = memory[[row[h] for h in part.structure_hash]]
        for level in half.levels:
            side = "sites" if level in part.sites else "structure"
            np.testing.assert_array_equal(getattr(part, side)[level], getattr(expected, side)[level])
    assert {entry.parent for entry in found.entries} == {"megnet", "amount"}


def test_the_key_of_a_piece_changes_with_what_stands_beside_it(half, twenty):
    before = together([part.locate(list(twenty.hashes)) for part in half.parts])
    featurize_into(half.parts[1], twenty)  # the six that were missing
    after = together([part.locate(list(twenty.hashes)) for part in half.parts])
    keys = [{piece.key for piece in found.pieces} for found in (before, after)]
    assert len(keys[0] & keys[1]) == 1  # of the shard that was whole before
    alone = Piece(after.pieces[0].shard)
    assert alone.key == alone.shard.key


def test_a_refusal_of_one_parent_is_one_of_all(half, twenty):
    of_parts = [part.locate(list(twenty.hashes)) for part in half.parts]
    h = twenty.hashes[0]
    of_parts[1].refused[h] = "too large"
    of_parts[1].missing[0] = False
    found = together(of_parts)
    assert not found.found[0]
    assert not found.located.missing[0]
    assert found.located.refused == {h: "too large"}


def test_digest_and_levels_name_every_parent(tmp_path):
    joint = open_features(Store(tmp_path), SPEC)
    assert isinstance(joint, JointStore)
    assert joint.levels == ("megnet:V0", "megnet:V1", "amount:fraction", "amount:log")
    swapped = open_features(Store(tmp_path), "amount,megnet:V1")
    assert swapped.digest == joint.digest
    assert joint.digest != joint.parts[0].digest
