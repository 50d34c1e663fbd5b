"""Files parsed on Dask workers: the same as here, and a file that kills a worker costs only itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from atomsets_core.sources.files import parallel
from atomsets_core.sources.files.parallel import Chunk, Parsed, WorkerLostError, parse_chunk
from atomsets_core.sources.files.reading import read_path
from atomsets_tasks import client
from atomsets_tasks.clusters import SCHEDULER, start_local
from tests.forks import forked_workers


def parse_with_accidents(chunk: Chunk) -> Parsed:
    """A parser that kills its process at the name of a file."""
    for file in chunk.files:
        if file.name == "deadly.cif":
            os._exit(3)
    return parse_chunk(chunk)


def test_workers_of_a_cluster_parse_a_folder_and_survive_it(tmp_path: Path, elastic, monkeypatch):
    batch = elastic.structures.take(np.arange(24))
    for structure, name in zip(batch.to_pymatgen(), batch.material_id, strict=True):
        structure.to(tmp_path / f"{name}.cif")
    (tmp_path / "broken.cif").write_text("data_x")
    monkeypatch.setattr(parallel, "FILES_PER_CHUNK", 8)
    here = read_path(tmp_path)
    with (
        forked_workers(),
        mock.patch.dict(SCHEDULER, {"distributed.scheduler.allowed-failures": 0}),
        client.connect(lambda: start_local(2, "auto")),
    ):
        there = read_path(tmp_path, fan_out=client.fan_out)
        assert list(there.structures.hashes) == list(here.structures.hashes)
        assert (there.refused, there.provenance) == (here.refused, here.provenance)

        (tmp_path / "deadly.cif").write_text((tmp_path / "mp-101.cif").read_text())
        monkeypatch.setattr(parallel, "parse_chunk", parse_with_accidents)
        hurt = read_path(tmp_path, fan_out=client.fan_out)
    assert list(hurt.structures.hashes) == list(here.structures.hashes)
    said = {refusal.material_id: refusal.reason for refusal in hurt.refused}
    assert set(said) == {"broken.cif", "deadly.cif"}
    assert "died" in said["deadly.cif"]
    assert not client.connected()


def test_work_that_never_ends_is_given_up_and_the_cluster_goes_on():
    with forked_workers(), client.connect(lambda: start_local(1, "auto")):
        first = client.run(os.getpid)
        with pytest.raises(WorkerLostError, match="took more than 3 s"):
            client.run(time.sleep, 900, limit=3)
        assert client.run(os.getpid) != first
