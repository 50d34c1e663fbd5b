"""What a file announces is checked before it is believed."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomsets_core.models.networks.checkpoints import StoredCheckpoint
from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.pull import pull, read_blocks
from atomsets_core.storage import memory
from atomsets_core.storage.memory import check_arrays, read_parquet
from atomsets_core.storage.store import LARGEST_JSON, StorageError, Store


def constant(path, rows: int, value):
    """A Parquet file of equal values, which takes next to nothing on the disk."""
    with pq.ParquetWriter(path, pa.schema([("x", pa.array([value]).type)])) as writer:
        part = pa.table({"x": pa.array([value] * 20_000)})
        for _ in range(rows // 20_000):
            writer.write_table(part)
    return path


def test_a_small_file_of_endless_numbers_is_refused(tmp_path):
    path = constant(tmp_path / "x.parquet", 2_000_000, 1.5)
    assert path.stat().st_size < 50_000
    with pytest.raises(ValueError, match="decodes to 16 MB, 10 are read"):
        read_parquet(path, path.stat().st_size, largest=10_000_000)
    assert read_parquet(path, path.stat().st_size, largest=20_000_000).num_rows == 2_000_000


def test_a_small_file_of_endless_texts_is_refused_while_it_is_read(tmp_path, monkeypatch):
    path = constant(tmp_path / "x.parquet", 20_000, "a" * 2_000)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(memory, "LARGEST_PIECE", 1_000_000)
    with pytest.raises(ValueError, match="decodes to more than 30 MB"):
        read_parquet(path, path.stat().st_size, largest=30_000_000)


def test_a_file_that_decompresses_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "ALWAYS_ALLOWED", 100_000)
    table = pa.table(
        {"lattice": [[0.0] * 9] * 2, "Z": [[1]] * 2, "frac": [[0.0] * 3] * 2, "text": ["a" * 5_000_000, ""]}
    )
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(SourceError, match="250 times its size"):
        read_path(tmp_path / "bomb.parquet")
    with pytest.raises(SourceError, match="250 times its size"):
        read_blocks(str(tmp_path / "bomb.parquet"))


def test_tables_come_back_as_pyarrow_reads_them(tmp_path):
    table = pa.table({"a": [1.5, None], "t": ["x", None], "l": [[1, 2], []]}).replace_schema_metadata({"k": "v"})
    pq.write_table(table, tmp_path / "t.parquet")
    size = (tmp_path / "t.parquet").stat().st_size
    assert read_parquet(tmp_path / "t.parquet", size).equals(pq.read_table(tmp_path / "t.parquet"), check_metadata=True)
    assert read_parquet(tmp_path / "t.parquet", size, ["l"]).column_names == ["l"]
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    assert read_parquet(tmp_path / "none.parquet", 500).schema.equals(pq.read_schema(tmp_path / "none.parquet"))


def test_compositions_are_not_decompressed_without_end(tmp_path, monkeypatch):
    from atomsets_core.storage import memory

    monkeypatch.setattr(memory, "ALWAYS_ALLOWED", 100_000)
    (tmp_path / "f.csv.gz").write_bytes(gzip.compress(b"formula\n" + b"NaCl\n" * 1_000_000))
    with pytest.raises(SourceError, match="250 times"):
        pull(str(tmp_path / "f.csv.gz"), compositions=True)


@pytest.mark.parametrize(
    "array",
    [[[10**12], "float64", [1]], [[2, -1], "float64", []], [[1], "object", [1]], [[2], "float64", 7], "text", [[1]]],
)
def test_arrays_larger_than_what_is_there_are_refused(array):
    with pytest.raises(ValueError, match="array"):
        check_arrays({"1": {"positions": [{"__ndarray__": array}]}})


def test_arrays_that_are_there_are_not():
    check_arrays({"1": {"positions": {"__ndarray__": [[2, 3], "float64", [0.0] * 6]}, "n": [1, "x", None]}})


def test_a_database_that_announces_a_huge_array_is_refused(tmp_path):
    ase_db = pytest.importorskip("ase.db")
    import sqlite3

    from ase import Atoms

    with ase_db.connect(tmp_path / "a.db") as database:
        database.write(Atoms("Fe", cell=[3] * 3, pbc=True), key_value_pairs={"gap": 1.0})
    bomb = json.dumps({"x": {"__ndarray__": [[10**11], "float64", [0]]}})
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("UPDATE systems SET key_value_pairs = ?", (bomb,))
    with pytest.raises(SourceError, match="announces an array"):
        read_path(tmp_path / "a.db")


def test_json_of_any_size_is_not_read(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(LARGEST_JSON + 1)
    with pytest.raises(StorageError, match="larger than any"):
        Store(tmp_path).read_json("huge.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(StorageError, match="damaged"):
        Store(tmp_path).read_json("deep.json")


@pytest.mark.parametrize("url", ["http://a.b/c", "zip://x::s3://y/z.zip", "github://a:b@c/", "simplecache::file:///x"])
def test_a_store_is_a_folder_or_an_object_store(url):
    with pytest.raises(StorageError, match="no folder or object store"):
        Store(url)


def test_a_damaged_checkpoint_is_none(tmp_path):
    checkpoint = StoredCheckpoint(Store(tmp_path), "c")
    checkpoint.save(b"everything")
    assert checkpoint.load() == b"everything"
    content = bytearray((tmp_path / "c").read_bytes())
    for at in range(len(content)):
        changed = content.copy()
        changed[at] ^= 1
        (tmp_path / "c").write_bytes(changed)
        assert checkpoint.load() is None
    (tmp_path / "c").write_bytes(b"")
    assert checkpoint.load() is None


def test_a_table_of_many_rows_is_read_whole(tmp_path):
    table = pa.table({"x": np.arange(150_000.0), "id": [f"m{i}" for i in range(150_000)]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet", (tmp_path / "t.parquet").stat().st_size).num_rows == 150_000
