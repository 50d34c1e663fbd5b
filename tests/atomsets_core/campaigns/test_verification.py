"""What a repair may remove: what this campaign's own files made, in places that its owner names; nothing on hearsay."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from atomsets_core.campaigns.last_run import Standing, remember
from atomsets_core.campaigns.layout import ASKED
from atomsets_core.campaigns.verification import repair, verify
from atomsets_core.features.shards import discard, shard_key, verify_shard, write_shard
from atomsets_core.parents.base import Features
from atomsets_core.storage.store import StorageError, Store, seal
from atomsets_flows.cli import app

DIGEST = "0123456789abcdef"


def features_of(names):
    n = len(names)
    return Features(
        material_id=np.array(names, dtype=object),
        structure_hash=np.array([f"{i:032x}" for i in range(n)], dtype=object),
        formula=np.array(["NaCl"] * n, dtype=object),
        n_atoms=np.full(n, 2),
        sites={"V0": np.arange(4.0 * n, dtype=np.float32).reshape(-1, 2)},
        structure={},
        digest=DIGEST,
        refused=(),
        flagged={},
    )


def write(features, names=("one", "two")):
    made = features_of(list(names))
    return write_shard(features, "megnet", shard_key(list(made.structure_hash), DIGEST, ["V0"]), made, ["V0"])


@pytest.fixture
def shared(tmp_path):
    """A feature store of somebody, with a shard and a file that is none of ours."""
    store = Store(tmp_path / "shared")
    write(store)
    store.write(f"megnet-{DIGEST}/notes.json", b"my notes on megnet")
    return store


def received(tmp_path, shards=(), **sections):
    """A folder as its sender sealed it: its campaign.json names whatever they like."""
    store = Store(tmp_path / "received")
    store.write_json(ASKED, sections)
    seal(store, ASKED)
    if shards:
        remember(store, Standing(1, "2026-01-01", {}, {}, dict.fromkeys(shards, 1), "", ""))
    return store


def damage(store, name):
    store.local(name).write_bytes(b"damaged")


def test_a_received_folder_removes_nothing_of_a_store_that_it_names(tmp_path, shared):
    store = received(tmp_path, features={"store": shared.root})
    before = {name: shared.read(name) for name in shared.all_names(".")}
    repair(store, verify(store))
    repair(store, verify(store), shared.root)  # not even where the user agrees: none of it is the campaign's
    assert {name: shared.read(name) for name in shared.all_names(".")} == before


def test_its_own_shards_in_a_shared_store_go_when_the_store_is_named_again(tmp_path, shared):
    mine, other = write(shared), write(shared, ("three",))
    store = received(tmp_path, [mine.file], features={"store": shared.root})
    damage(shared, mine.file)
    damage(shared, other.file)
    found = verify(store)
    assert {finding.file for finding in found.findings} >= {shared.url(mine.file), shared.url(other.file)}
    for named in (None, str(tmp_path / "elsewhere")):
        with pytest.raises(StorageError, match=f"name that store again, --store {shared.root}"):
            repair(store, found, named)
    assert shared.exists(mine.file)
    repair(store, found, os.path.relpath(shared.root))
    assert not shared.exists(mine.file)
    assert not shared.exists(mine.manifest)
    assert shared.exists(other.file)


def test_nothing_behind_a_link_is_removed(tmp_path):
    outside = Store(tmp_path / "outside")
    name = f"models/{'0' * 16}/model.safetensors"
    outside.write(f"{'0' * 16}/model.safetensors", b"somebody's")
    store = received(tmp_path, features={"store": None})
    store.write(f"checksums/{name}.sha256", f"{'0' * 64}  {name}\n".encode())
    store.local("models").symlink_to(outside.root)
    with pytest.raises(StorageError, match="behind a link that leads out of the folder"):
        repair(store, verify(store))
    assert outside.read(f"{'0' * 16}/model.safetensors") == b"somebody's"


def test_features_behind_a_link_are_a_shared_store(tmp_path, shared):
    store = received(tmp_path)
    store.local("features").symlink_to(shared.root)
    found = verify(store)
    assert not found.own
    repair(store, found)
    assert shared.exists(f"megnet-{DIGEST}/notes.json")


def test_a_shard_that_was_made_again_meanwhile_stays(tmp_path, shared):
    """Campaign B seals it between A's look and A's removal."""
    mine = write(shared)
    store = received(tmp_path, [mine.file], features={"store": shared.root})
    damage(shared, mine.file)
    found = verify(store)
    write(shared)
    repair(store, found, shared.root)
    verify_shard(shared, mine)
    damage(shared, mine.file)
    write(shared)
    discard(shared, mine)
    verify_shard(shared, mine)


def test_a_store_that_cannot_be_written_is_said(tmp_path, shared, monkeypatch):
    mine = write(shared)
    store = received(tmp_path, [mine.file], features={"store": shared.root})
    damage(shared, mine.file)
    found = verify(store)

    def read_only(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(found.features._fs, "rm_file", read_only)
    with pytest.raises(StorageError, match="can't be removed: Read-only file system"):
        repair(store, found, shared.root)


def test_a_store_that_was_moved_meanwhile_stops_a_repair(tmp_path, shared):
    mine = write(shared)
    store = received(tmp_path, [mine.file], features={"store": shared.root})
    damage(shared, mine.file)
    found = verify(store)
    shutil.move(shared.root, tmp_path / "moved")
    with pytest.raises(StorageError, match="is gone: it was moved or removed meanwhile"):
        repair(store, found, shared.root)
    assert not (tmp_path / "shared").exists()


def test_what_a_received_folder_would_start_is_shown_and_asked_for(tmp_path):
    mark = tmp_path / "mark"
    slurm = {"prologue": [f"touch {mark}"], "partition": "main"}
    store = received(
        tmp_path,
        name="sent",
        training={"source": "embedded:elastic", "target": "K_VRH"},
        candidates={"source": "embedded:flla"},
        cluster={"kind": "slurm", "memory_per_worker": "1GB", "slurm": slurm},
        features={"store": str(tmp_path / "theirs")},
    )
    before = sorted(store.all_names(".", hidden=True))
    done = CliRunner().invoke(app, ["verify", store.root, "--repair"])
    said = done.stderr.replace("\n", " ")
    assert done.exit_code == 2, done.output
    assert f"cluster.slurm.prologue = ['touch {mark}']" in said
    assert "cluster.kind = slurm" in said
    assert f"features.store = {tmp_path / 'theirs'}" in said
    assert "say --as-named" in said
    assert not mark.exists()
    assert sorted(set(store.all_names(".", hidden=True)) - {".lock"}) == before
    assert json.loads(store.read(ASKED))["name"] == "sent"
