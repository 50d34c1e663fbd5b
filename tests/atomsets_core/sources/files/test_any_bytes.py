"""Whatever lies in a folder: each file gives rows or a reason, and the folder is read to its end."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path
from atomsets_core.storage import memory

IRON = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
TEXTS = {
    "a.cif": IRON.to(fmt="cif"),
    "a.vasp": IRON.to(fmt="poscar"),
    "a.json": json.dumps(IRON.as_dict()),
    "a.xyz": '2\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 gap=1\nFe 0 0 0\nFe 1 1 1\n',
    "a.csv": "id,cif\n1,good.cif\n",
}
BINARY = ("a.parquet", "a.db", "a.zip", "a.cif.gz", "a.json.gz")
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read_beside_a_good_file(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "good.cif").write_text(TEXTS["a.cif"])
        (place / name).write_bytes(content)
        if name.endswith(".csv"):  # labels that join nothing are an error of the whole, in a sentence
            with contextlib.suppress(SourceError):
                read_path(place)
            return
        pulled = read_path(place)
        assert "good" in set(pulled.structures.material_id)
        for refusal in pulled.refused:
            assert refusal.reason
            assert len(refusal.reason) <= 200
            assert "\n" not in refusal.reason
        assert np.isfinite(pulled.structures.lattice).all()
        assert np.isfinite(pulled.structures.frac).all()


@MANY
@given(name=st.sampled_from([*TEXTS, *BINARY]), content=st.binary(max_size=300))
def test_any_bytes_give_a_row_or_a_reason(name, content):
    read_beside_a_good_file(name, content)


@MANY
@given(
    name=st.sampled_from(sorted(TEXTS)),
    start=st.floats(0, 1),
    length=st.integers(0, 40),
    replacement=st.text(alphabet="0123456789.-+eE ;'\"_#?loop\n\t{}[],:FeNaXx()é", max_size=20),
)
def test_any_damage_to_a_good_file_gives_a_row_or_a_reason(name, start, length, replacement):
    text = TEXTS[name]
    at = int(start * len(text))
    read_beside_a_good_file(name, (text[:at] + replacement + text[at + length :]).encode())


def test_zips_in_folders_are_read_and_zips_in_zips_are_not(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("deep/iron.cif", TEXTS["a.cif"])
        archive.writestr("more.zip", b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "pack.zip").write_bytes(inner.getvalue())
    (tmp_path / "broken.zip").write_bytes(b"PK")
    pulled = read_path(tmp_path)
    assert list(pulled.structures.material_id) == ["sub/pack.zip/deep/iron"]
    said = {refusal.material_id: refusal.reason for refusal in pulled.refused}
    assert set(said) == {"sub/pack.zip/more.zip", "broken.zip"}
    assert "unpack the outer one" in said["sub/pack.zip/more.zip"]


def test_links_are_followed_to_files_and_refused_to_folders_and_in_zips(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "iron.cif").write_text(TEXTS["a.cif"])
    place = tmp_path / "place"
    place.mkdir()
    (place / "linked.cif").symlink_to(outside / "iron.cif")
    (place / "dangling.cif").symlink_to(outside / "nothing.cif")
    (place / "circle").symlink_to(place)
    os.mkfifo(place / "pipe.cif")
    with zipfile.ZipFile(place / "pack.zip", "w") as archive:
        info = zipfile.ZipInfo("link.cif")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    pulled = read_path(place)
    said = {refusal.material_id: refusal.reason for refusal in pulled.refused}
    assert list(pulled.structures.material_id) == ["linked"]
    assert set(said) == {"dangling.cif", "circle", "pipe.cif", "pack.zip/link.cif"}
    assert "doesn't exist" in said["dangling.cif"]
    assert "regular" in said["pipe.cif"]


def test_bombs_are_refused_by_their_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "ALWAYS_ALLOWED", 100_000)
    bomb = b" " * 2_000_000
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(bomb))
    with zipfile.ZipFile(tmp_path / "pack.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.json", bomb)
        archive.writestr("iron.json", TEXTS["a.json"])
    pulled = read_path(tmp_path)
    assert list(pulled.structures.material_id) == ["pack.zip/iron"]
    assert {refusal.material_id for refusal in pulled.refused} == {"bomb.json.gz", "pack.zip/bomb.json"}
    assert all("250 times" in refusal.reason for refusal in pulled.refused)


def test_ase_databases_in_json_and_in_zips(tmp_path):
    connect = pytest.importorskip("ase.db").connect
    for kind in ("json", "db"):
        with connect(tmp_path / f"rows.{kind}") as database:
            database.write(IRON.to_ase_atoms(), key_value_pairs={"gap": 0.5, "mp_id": "mp-13"})
            database.write(IRON.to_ase_atoms(), key_value_pairs={"gap": 1.5})
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.write(tmp_path / "rows.db", "rows.db")
    expected = read_path(tmp_path / "rows.db")
    assert list(expected.structures.material_id) == ["mp-13", "rows-2"]
    for name in ("rows.json", "rows.zip"):
        pulled = read_path(tmp_path / name)
        assert list(pulled.structures.material_id) == list(expected.structures.material_id)
        assert list(pulled.structures.hashes) == list(expected.structures.hashes)
        assert list(pulled.columns["gap"]) == [0.5, 1.5]
