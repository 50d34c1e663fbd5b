"""A Materials Project on this machine, and a pull from it."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomsets_core.sources.materials_project.pull import pull_materials_project
from atomsets_core.sources.materials_project.query import MaterialsQuery
from atomsets_core.storage.store import Store
from tests.materials_project_server.running import DATA, KEY, QUICK, running


@pytest.fixture(scope="session")
def dielectric(tmp_path_factory) -> Path:
    """Refractive indices for some of the entries: made up, as no such data come with the package."""
    ids = pq.read_table(DATA / "flla_2015.parquet", columns=["material_id"])["material_id"].to_pylist()[::7]
    path = tmp_path_factory.mktemp("dielectric") / "dielectric.parquet"
    n = 1.5 + np.arange(len(ids)) / len(ids)
    columns = {"material_id": ids, "n": n, "e_electronic": n**2, "e_ionic": n, "e_total": n**2 + n}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="session")
def _server(dielectric):
    options = ["--elasticity", str(DATA / "elastic_tensor_2015.parquet"), "--dielectric", str(dielectric)]
    with running(DATA / "flla_2015.parquet", *options, "--limit", "400") as server:
        yield server


@pytest.fixture
def server(_server, monkeypatch):
    """The server as new, 400 structures, and the environment that leads to it."""
    _server.reset()
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("MP_API_ENDPOINT", _server.url)
    return _server


@pytest.fixture(scope="session")
def original():
    """The structures that the server has."""
    return pq.read_table(DATA / "flla_2015.parquet").slice(0, 400)


@pytest.fixture
def pull(tmp_path):
    """Pull into the test's folder; what is pulled again goes on there."""

    def run(watch=None, **options):
        query = MaterialsQuery(**{**QUICK, **options})
        return pull_materials_project(query, Store(tmp_path / "out"), "structures.parquet", watch, "structures/pages")

    return run


@pytest.fixture
def pulled_table(tmp_path):
    """The file that the last pull wrote."""
    return lambda: pq.read_table(io.BytesIO((tmp_path / "out" / "structures.parquet").read_bytes()))
