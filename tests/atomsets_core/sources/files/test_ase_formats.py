"""ASE databases in LMDB, written by their own package, and what is no such file."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from atomsets_core.sources.files.ase_formats import GPA, lmdb_values
from atomsets_core.sources.files.reading import read_path

MADE = Path(__file__).parents[3] / "data" / "formats" / "three.aselmdb"
"""By scripts/build_format_files.py, which states its crystal; versions.json beside it says by what."""


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_a_database_in_lmdb(tmp_path, packed):
    path = MADE
    if packed:
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(MADE, "three.aselmdb")
    pulled = read_path(path)
    assert not pulled.refused
    assert list(pulled.structures.material_id) == ["omat-0", "omat-1", "omat-3"]  # one was deleted
    for structure in pulled.structures.to_pymatgen():
        np.testing.assert_allclose(structure.lattice.matrix, [[4.1, 0, 0.3], [-1.2, 5, 0.9], [0, 0.4, 6.3]], atol=1e-6)
        np.testing.assert_allclose(structure.frac_coords, [[0, 0, 0], [0.4, 0.5, 0.6], [0.9, 0.3, 0.2]], atol=1e-6)
        assert [site.specie.symbol for site in structure] == ["Fe", "O", "O"]
    columns = pulled.columns
    assert list(columns["energy"]) == [-20.0, -21.0, -23.0]
    assert list(columns["gap"]) == [0.5, 1.5, 3.5]
    np.testing.assert_allclose(columns["max_force"], 0.4)
    np.testing.assert_allclose(columns["stress_xy"], 0.05 * GPA)
    assert pulled.provenance["units"]["energy"] == "eV"


def test_a_damaged_database_ends_in_an_error_and_never_beyond_the_file():
    content = MADE.read_bytes()
    good = dict(lmdb_values(content))
    assert {b"1", b"2", b"4", b"nextid", b"deleted_ids"} == set(good)
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            changed[place] = int(rng.integers(256))
        try:
            rows = dict(lmdb_values(bytes(changed)))
        except ValueError:
            continue
        assert sum(map(len, rows.values())) <= len(content)
    with pytest.raises(ValueError, match="not an LMDB file"):
        list(lmdb_values(b"x" * 10_000))
    with pytest.raises(ValueError, match="damaged|not an LMDB"):
        list(lmdb_values(content[:9000]))


def test_pages_that_lead_in_circles_are_refused():
    content = bytearray(MADE.read_bytes())
    newer = max((0, 4096), key=lambda start: struct.unpack_from("<Q", content, start + 144))
    (root,) = struct.unpack_from("<Q", content, newer + 128)
    # the root becomes a page of branches that leads to itself
    struct.pack_into("<HHH", content, root * 4096 + 10, 1, 18, 4096)
    struct.pack_into("<H", content, root * 4096 + 16, 100)
    struct.pack_into("<HHHH", content, root * 4096 + 100, root, 0, 0, 0)
    with pytest.raises(ValueError, match="damaged"):
        list(lmdb_values(bytes(content)))


def one_row(value: bytes) -> bytes:
    """An LMDB file of one row."""
    meta = [
        struct.pack("<QHHHH", number, 0, 8, 0, 0)
        + struct.pack("<IIQQ", 0xBEEFC0DE, 1, 0, 1 << 20)
        + struct.pack("<IHHQQQQQ", 4096, 0, 0, 0, 0, 0, 0, (1 << 64) - 1)
        + struct.pack("<IHHQQQQQ", 0, 0, 1, 0, 1, 0, 1, 2)
        + struct.pack("<QQ", 2, number)
        for number in (0, 1)
    ]
    node = struct.pack("<HHHH", len(value), 0, 0, 1) + b"1" + value
    leaf = struct.pack("<QHHHH", 2, 0, 2, 18, 100) + struct.pack("<H", 100)
    pages = [*(page.ljust(4096, b"\0") for page in meta), (leaf.ljust(100, b"\0") + node).ljust(4096, b"\0")]
    return b"".join(pages)


ROW = {
    "numbers": [11, 17],
    "positions": [[0, 0, 0], [2, 2, 2]],
    "cell": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
    "pbc": [1] * 3,
}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (pickle.dumps({"pos": 1}), "pickled"),
        (b"plain text", "compressed JSON"),
        (zlib.compress(b"[1]"), "JSON object"),
        (zlib.compress(json.dumps({**ROW, "pbc": [1, 1, 0]}).encode()), "not periodic"),
        (zlib.compress(json.dumps({**ROW, "numbers": {"__ndarray__": [[10**12], "int64", []]}}).encode()), "announces"),
        (zlib.compress(b'"' + b" " * 900_000 + b'"', 9), "decompresses"),
    ],
)
def test_rows_that_are_something_else_are_refused_by_name(tmp_path, value, reason):
    (tmp_path / "old.lmdb").write_bytes(one_row(value))
    (refusal,) = read_path(tmp_path / "old.lmdb").refused
    assert refusal.material_id == "old-1"
    assert reason in refusal.reason
    (tmp_path / "good.lmdb").write_bytes(one_row(zlib.compress(json.dumps(ROW).encode())))
    assert list(read_path(tmp_path / "good.lmdb").structures.formulas) == ["NaCl"]
