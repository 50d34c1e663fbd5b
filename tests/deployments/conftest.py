"""One Prefect server, on Postgres where there is one, with all deployments and a worker, for every test here."""

import pytest

from tests.deployments.servers import Prefect, postgres
from tests.materials_project_server.running import DATA, KEY, running


@pytest.fixture(scope="session")
def materials():
    """A Materials Project that shows 600 structures at first, 60 or so of them with an elastic tensor."""
    options = ["--elasticity", str(DATA / "elastic_tensor_2015.parquet"), "--limit", "600"]
    with running(DATA / "flla_2015.parquet", *options) as server:
        yield server


@pytest.fixture(scope="session")
def prefect_with_deployments(tmp_path_factory, materials):
    """Server, work pool, all deployments, and a worker whose key comes from a Secret block."""
    folder = tmp_path_factory.mktemp("prefect")
    with postgres(folder) as url:
        prefect = Prefect(folder, url or f"sqlite+aiosqlite:///{folder}/prefect.db")
        try:
            prefect.start_server()
            made = prefect.run("atomsets_flows.cli", "deploy")
            assert made.returncode == 0, made.stdout + made.stderr
            with prefect.client() as client:
                _keep_key(client)
            prefect.start_worker(MP_API_ENDPOINT=materials.url)
            yield prefect
        finally:
            prefect.close()


def _keep_key(client):
    from prefect.blocks.system import Secret
    from prefect.client.schemas.actions import BlockDocumentCreate

    kind = client.read_block_type_by_slug("secret")
    schema = client.read_block_schema_by_checksum(Secret._calculate_schema_checksum())
    client.create_block_document(
        BlockDocumentCreate(name="mp-api-key", block_type_id=kind.id, block_schema_id=schema.id, data={"value": KEY})
    )
