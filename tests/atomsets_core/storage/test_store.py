"""A file is whole or not there, and what went wrong is said in words a user can act on."""

from __future__ import annotations

import errno
import io
import os
import pickle
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from atomsets_core.storage.store import StorageError, Store, csv_text

TABLE = pa.table({"x": np.arange(2000.0), "name": [str(i) for i in range(2000)]})


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}/campaign")
    return Store(tmp_path / "campaign" if request.param == "local" else f"memory://{uuid.uuid4().hex}/campaign")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_bytes_json_and_tables_come_back(store: Store):
    store.write("a/b.bin", b"\x00\xff")
    store.write_json("c.json", {"z": 1, "a": [1.5, None, "\u00c5"]})
    written = store.write_table("t.parquet", TABLE)
    assert store.read("a/b.bin") == b"\x00\xff"
    assert list(store.read_json("c.json").items()) == [("z", 1), ("a", [1.5, None, "\u00c5"])]
    assert store.read_table("t.parquet").equals(TABLE)
    assert store.read_table("t.parquet", columns=["x"]).column_names == ["x"]
    assert store.read("t.parquet") == written
    with store.open("a/b.bin") as file:
        file.seek(1)
        assert file.read() == b"\xff"


def test_a_later_write_replaces_and_remove_is_idempotent(store: Store):
    store.write("a", b"first, longer")
    store.write("a", b"second")
    assert store.read("a") == b"second"
    store.remove("a")
    store.remove("a")
    assert not store.exists("a")


def test_a_store_goes_to_another_process_as_its_path(store: Store):
    store.write("a", b"1")
    assert pickle.dumps(store).find(b"fsspec") == -1
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"  # noqa: S301


def test_names_are_the_files_of_one_folder_sorted(store: Store):
    for name in ("f/b.json", "f/a.json", "f/a.parquet", "f/.hidden.json", "f/deeper/c.json", "g/d.json"):
        store.write(name, b"1")
    assert store.names("f") == ["f/a.json", "f/a.parquet", "f/b.json"]
    assert store.names("f", ".json") == ["f/a.json", "f/b.json"]
    assert store.names("nowhere") == []


def test_a_missing_file_is_named(store: Store):
    for read in (store.read, store.read_json, store.read_table):
        with pytest.raises(StorageError, match=r"campaign/folder/file\.x does not exist"):
            read("folder/file.x")


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"\xff\xfe\x00", b"not json"])
def test_damaged_json_is_named(store: Store, data: bytes):
    store.write("f/c.json", data)
    with pytest.raises(StorageError, match=r"campaign/f/c\.json is damaged: not JSON .* Delete it and run again"):
        store.read_json("f/c.json")


def test_not_a_number_never_gets_into_json(store: Store):
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write_json("c.json", {"x": float("nan")})
    assert not store.exists("c.json")


def test_parquet_cut_at_any_place_is_named(store: Store):
    data = store.write_table("t.parquet", TABLE)
    for length in (0, 1, 4, 100, len(data) // 2, len(data) - 1):
        store.write("t.parquet", data[:length])
        with pytest.raises(StorageError, match=r"campaign/t\.parquet is damaged: .* Delete it and run again"):
            store.read_table("t.parquet")


def test_a_flipped_bit_in_a_parquet_footer_is_named_or_harmless(store: Store):
    data = store.write_table("t.parquet", TABLE)
    damaged = 0
    for position in range(len(data) - 500, len(data), 4):
        store.write("t.parquet", data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        try:
            store.read_table("t.parquet")
        except StorageError as error:
            damaged += 1
            assert "t.parquet is damaged" in str(error)  # noqa: PT017
    assert damaged > 25


FAILURES = {"flush": (os, "fsync"), "rename": (Path, "replace")}


@pytest.mark.parametrize("step", FAILURES)
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: bytes | None
):
    store = Store(tmp_path)
    if before is not None:
        store.write("f/a.bin", before)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*FAILURES[step], full)
        with pytest.raises(StorageError, match=r"f/a\.bin can't be written: no space left on the device"):
            store.write("f/a.bin", b"new")
    assert files(tmp_path) == ([] if before is None else ["f/a.bin"])
    if before is not None:
        assert store.read("f/a.bin") == before
    store.write("f/a.bin", b"new")
    assert store.read("f/a.bin") == b"new"


def test_a_kill_in_mid_write_leaves_no_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).write("a.bin", b"new")
    assert files(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_no_permission_says_to_choose_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def denied(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(StorageError, match=rf"{os.strerror(code)}\. Choose a folder you may write to with --out"):
        Store(tmp_path).write("a", b"1")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_says_to_choose_another(tmp_path: Path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    store = Store(tmp_path / "campaign")
    with pytest.raises(StorageError, match="Permission denied"):
        store.write("a", b"1")
    with pytest.raises(StorageError, match="Choose a folder you may write to with --out"), store.lock():
        pass


def test_a_file_where_a_folder_is_needed_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "deeper"):
        store = Store(root)
        with pytest.raises(StorageError, match="a file stands where a folder is needed"):
            store.write("a", b"1")
        with pytest.raises(StorageError, match="a file stands where a folder is needed"), store.lock():
            pass


def test_a_folder_where_a_file_is_needed_is_said(tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="can't be read: Is a directory"):
        Store(tmp_path).read("a")
    with pytest.raises(StorageError, match="can't be written: Is a directory"):
        Store(tmp_path).write("a", b"1")
    assert files(tmp_path) == []


HOLD = """
import sys
from atomsets_core.storage.store import Store
with Store(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["finished", "killed"])
def test_the_lock_of_another_process_is_respected_and_goes_with_it(tmp_path: Path, end: str):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"another run is at work in {tmp_path}"), Store(tmp_path).lock():
            pass
        if end == "killed":
            other.kill()
    with Store(tmp_path).lock():
        pass


def test_a_lock_is_released_when_the_run_fails(tmp_path: Path):
    with pytest.raises(RuntimeError), Store(tmp_path).lock():
        raise RuntimeError
    with Store(tmp_path).lock():
        pass


def test_a_store_elsewhere_has_no_local_path():
    store = Store("memory://nowhere")
    with pytest.raises(StorageError, match="memory://nowhere is not a local folder"):
        store.local("a")
    with store.lock(), store.lock():
        pass


def test_paths_with_spaces_and_signs_work(tmp_path: Path):
    store = Store(tmp_path / "my run #1 (100%)")
    store.write("\u00c5/a b.bin", b"1")
    assert store.names("\u00c5") == ["\u00c5/a b.bin"]
    assert store.local("\u00c5/a b.bin").read_bytes() == b"1"
    assert Path(store.url("\u00c5/a b.bin")) == store.local("\u00c5/a b.bin")


@pytest.mark.parametrize("name", ["/model.json", "../model.json", "a/../../b"])
def test_a_name_never_leaves_the_store(tmp_path, name):
    store = Store(tmp_path / "store")
    with pytest.raises(ValueError, match="is not a name within"):
        store.write(name, b"")
    assert store.url("./model.json") == store.url("model.json")


def test_a_file_written_piece_by_piece_is_whole_or_as_it_was(store: Store):
    with store.replacing("t/big.bin") as file:
        file.write(b"one ")
        assert not store.exists("t/big.bin")
        file.write(b"two")
    assert store.read("t/big.bin") == b"one two"

    def fail() -> None:
        with store.replacing("t/big.bin") as file:
            file.write(b"three")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.read("t/big.bin") == b"one two"
    assert store.names("t") == ["t/big.bin"]


def test_no_cell_of_a_csv_is_a_formula():
    """A spreadsheet runs what begins with = + - @; numbers stay numbers, and what is harmless stays as it was."""
    frame = pd.DataFrame(
        {
            "material_id": ["=cmd|' /C calc'!A0", "+1+1", "@SUM(A1)", "-2+3", "\tx", "-1.5", "mp-1"],
            "=evil": [-1.5, 2.0, 3.0, float("nan"), 5.0, 6.0, 7.0],
            "shortlist": [True, False] * 3 + [True],
        }
    )
    lines = csv_text(frame).splitlines()
    assert lines[0] == "material_id,'=evil,shortlist"
    back = pd.read_csv(io.StringIO(csv_text(frame)))
    assert list(back["material_id"]) == ["'=cmd|' /C calc'!A0", "'+1+1", "'@SUM(A1)", "'-2+3", "'\tx", "-1.5", "mp-1"]
    np.testing.assert_array_equal(back["'=evil"], frame["=evil"])
    harmless = pd.DataFrame({"a": ["x", None], "b": [1.0, float("nan")]})
    assert csv_text(harmless, header=False) == harmless.to_csv(index=False, float_format="%.6g", header=False)
