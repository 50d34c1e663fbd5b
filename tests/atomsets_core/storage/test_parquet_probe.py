"""Parquet that ends the process which reads it is refused by this one, which goes on."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.pull import is_table, pull
from atomsets_core.storage import parquet_probe
from tests.fuzz.malformed import table

READ_BARE = """
import sys, pyarrow.parquet as pq
from atomsets_core.storage.memory import check_parquet
with pq.ParquetFile(sys.argv[1]) as file:
    check_parquet(file, 1 << 20)
    file.read()
"""


@pytest.fixture(scope="module")
def deadly(tmp_path_factory) -> Path:
    """One bit of the footer flipped, so that PyArrow aborts."""
    good, place = table(), tmp_path_factory.mktemp("deadly")
    length = int.from_bytes(good[-8:-4], "little")
    path, answer = place / "a.parquet", ""
    for at in range(len(good) - 8 - length, len(good) - 8):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            parquet_probe.probe_file(path)
        except ValueError as error:
            answer = str(error)
            break
    if not answer:
        pytest.skip("this PyArrow outlives every such file")
    assert answer == parquet_probe.DIED
    done = subprocess.run([sys.executable, "-c", READ_BARE, str(path)], capture_output=True, check=False)
    assert done.returncode < 0, done.stderr
    return path


def test_a_file_alone(deadly):
    with pytest.raises(SourceError, match="ends the process that reads it"):
        read_path(deadly)
    with pytest.raises(SourceError, match="ends the process that reads it"):
        pull(str(deadly), compositions=True)
    assert not is_table(str(deadly))


def test_beside_good_ones_and_in_a_zip(deadly, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(deadly, "bad.parquet")
        archive.writestr("good.parquet", table())
    pulled = read_path(tmp_path / "all.zip")
    assert sorted(pulled.structures.material_id) == ["a", "b"]
    ((refusal),) = pulled.refused
    assert (refusal.material_id, refusal.stage) == ("bad.parquet", "parse")
    assert "ends the process" in refusal.reason


def test_a_good_file_is_probed_once_until_it_changes(tmp_path, monkeypatch):
    asked = []
    probe = parquet_probe._Probe()
    monkeypatch.setattr(probe, "_ask", lambda request, _content: asked.append(request))
    path = tmp_path / "good.parquet"
    path.write_bytes(table())
    probe.file(path)
    probe.file(path)
    assert len(asked) == 1
    path.write_bytes(table(material_id=["c", "d"]))
    probe.file(path)
    assert len(asked) == 2


def test_the_process_may_have_gone(tmp_path):
    probe = parquet_probe._Probe()
    probe.content(table())
    assert probe._process is not None
    probe._process.stdin.close()  # as if it had waited long enough
    assert probe._process.wait() == 0
    probe.content(table())
    probe._stop()


def test_nothing_is_imported_from_the_folder_we_are_in(tmp_path, monkeypatch):
    for name in ("json", "pyarrow", "contextlib", "atomsets_core"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    probe = parquet_probe._Probe()
    probe.content(table())
    probe._stop()
    assert not (tmp_path / "ran").exists()
