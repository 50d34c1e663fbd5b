"""A result is what was written, or it counts as not there."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import numpy as np
import pytest

from atomsets_core.campaigns.verification import sweep, verify
from atomsets_core.features.shards import folder, shard_key, write_shard
from atomsets_core.features.stored import FeatureStore
from atomsets_core.parents.base import Features
from atomsets_core.storage.store import StorageError, Store, fault, seal, sealed, sound, unseal

NAME = "predictions/m/k.parquet"


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "campaign" if request.param == "local" else f"memory://{uuid.uuid4().hex}/campaign")


def test_all_names_are_those_of_every_folder(store: Store):
    for name in ("a/b/c.x", "a/.hidden", "d"):
        store.write(name, b"1")
    assert store.all_names(".") == ["a/b/c.x", "d"]
    assert store.all_names(".", hidden=True) == ["a/.hidden", "a/b/c.x", "d"]
    assert store.all_names("a") == ["a/b/c.x"]
    assert store.all_names("nowhere") == []


def test_a_sealed_file_is_sound_until_anything_happens_to_it(store: Store):
    content = bytes(range(256))
    for change in (lambda c: c[:-1], lambda c: c + b"x", lambda _: b"", lambda c: bytes([c[0] ^ 1]) + c[1:]):
        store.write(NAME, content)
        assert "has no checksum" in fault(store, NAME)
        seal(store, NAME)
        assert sound(store, NAME)
        assert sealed(store) == [NAME]
        store.write(NAME, change(content))
        assert "is damaged or was changed" in fault(store, NAME)
        unseal(store, NAME)
    store.write(NAME, content)
    seal(store, NAME)
    store.remove(NAME)
    assert fault(store, NAME) == "is gone"


@pytest.mark.parametrize("text", [b"", b"x", b"0" * 64 + b"  other\n", b"0" * 5000, b"0" * 63 + b"  " + NAME.encode()])
def test_a_damaged_checksum_is_no_checksum(store: Store, text: bytes):
    store.write(NAME, b"1")
    store.write(f"checksums/{NAME}.sha256", text)
    assert "can't be checked" in fault(store, NAME)


def test_checksums_are_those_of_sha256sum(tmp_path: Path):
    store = Store(tmp_path)
    store.write(NAME, b"123")
    seal(store, NAME)
    command = ["sha256sum", "--check", f"checksums/{NAME}.sha256"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    store.write(NAME, b"124")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


@pytest.fixture
def shard(tmp_path: Path):
    text = np.array(["h1", "h2"], dtype=object)
    features = Features(text, text, text, np.array([1, 1]), {"V": np.ones((2, 3), np.float32)}, {}, "d" * 16)
    store, key = Store(tmp_path), shard_key(["h1", "h2"], "d" * 16, ["V"])
    write_shard(store, "p", key, features, ["V"])
    return store, key, tmp_path / folder("p", "d" * 16) / f"{key}.json"


def of_p(store):
    return FeatureStore(store, "p", "d" * 16, ("V",))


def test_any_changed_bit_of_a_manifest_entry_makes_it_absent(shard):
    store, key, path = shard
    assert of_p(store).entry(key) is not None
    content = path.read_bytes()
    for at in range(0, len(content), 3):
        changed = bytearray(content)
        changed[at] ^= 4
        path.write_bytes(changed)
        found = list(of_p(store).entries())
        # White space may change.
        assert not found or json.loads(changed) == json.loads(content)


@pytest.mark.parametrize("raw", ["[]", "7", "null", '{"key": 1}', '{"hashes": 3}', "{" * 5000])
def test_an_entry_that_is_none_is_absent(shard, raw: str):
    store, key, path = shard
    path.write_text(raw)
    assert of_p(store).entry(key) is None
    assert list(of_p(store).entries()) == []


def test_an_entry_speaks_only_of_the_shard_it_is_named_after(shard):
    store, key, path = shard
    for name in ("0" * 32, "../../ranking"):
        raw = json.loads(path.read_text())
        raw.pop("checksum", None)
        path.write_text(json.dumps({**raw, "key": name}))
        assert list(of_p(store).entries()) == []
        path.write_text(json.dumps({**raw, "key": key}))
    assert [entry.key for entry in of_p(store).entries()] == [key]


def test_a_run_sweeps_what_stopped_runs_left_but_not_among_features(tmp_path: Path):
    for name in ("predictions/m/.a.parquet.0123abcd.tmp", "features/p/.b.json.0123abcd.tmp", ".keep", "x.tmp",
                 "structures/queue-training.parquet"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    sweep(Store(tmp_path))
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".b.json.0123abcd.tmp", ".keep", "x.tmp"]


def test_a_folder_without_campaign_is_none(tmp_path: Path):
    with pytest.raises(StorageError, match="holds no campaign"):
        verify(Store(tmp_path))
