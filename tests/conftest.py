"""What several tests share."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# As on the workers; two threads on two busy cores wait for each other. The same for whatever the tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before prefect is imported anywhere: no console noise, no analytics.
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"

LONGEST = (
    "deployments", "faults/test_faults.py", "flows/runs/test_screen.py", "test_examples.py", "flows/test_cli.py",
    "flows/runs/test_featurize.py", "flows/runs/test_memory.py", "tasks/test_clusters_slurm.py", "test_wheel.py",
    "faults/test_neighbours.py", "tasks/test_client_isolate.py", "flows/runs/test_object_store.py",
    "flows/runs/test_discover.py", "atomsets_core/sources/files/test_parallel.py", "test_cases.py",
    "flows/runs/test_benchmark.py", "tasks/test_fan_out.py", "test_docs.py", "flows/commands/test_pull.py",
)  # fmt: skip
"""What takes longest of tests/, the longest first; a folder stays together, for its tests share a server."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process is alone with it at the end; all else keeps its order."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(part_of(item.nodeid), len(order)))


def part_of(nodeid: str) -> str:
    """What goes to one process as a whole, below tests/: a file, or a folder that is in `LONGEST`."""
    file = nodeid.split("::", 1)[0].removeprefix("tests/")
    return next((name for name in LONGEST if file.startswith(f"{name}/")), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile` by `part_of`, in the order of the collection and not by the number of tests."""
    from xdist.scheduler import LoadFileScheduling

    if config.getvalue("dist") != "loadfile":
        return None

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return part_of(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _modules_from_here():
    """Take back what a command does to its process: the servers of the tests are modules of the working directory."""
    os.environ.pop("PYTHONSAFEPATH", None)
    yield
    os.environ.pop("PYTHONSAFEPATH", None)


@pytest.fixture(scope="session")
def data() -> Path:
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference numbers that are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("the shared reference data is not here")
    return SHARED


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A tab of a real browser, the same for all tests."""
    from tests.browser import NAMES, find, opened

    path = find()
    if path is None:
        pytest.skip(f"no browser is installed (one of {', '.join(NAMES)}; Debian: apt-get install chromium)")
    with opened(path, tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="session")
def s3_environment():
    """Environment variables that lead to an S3 server with one empty bucket."""
    from tests.s3_server import serving_s3

    with serving_s3() as environment:
        yield environment


@pytest.fixture
def s3(s3_environment, monkeypatch):
    """URL of the bucket, with the environment set."""
    from tests.s3_server import BUCKET

    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}"


@pytest.fixture(scope="session")
def megnet():
    from atomsets_core.parents.registry import load_parent

    return load_parent("megnet")


@pytest.fixture(scope="session")
def elastic():
    from atomsets_core.sources.embedded import load_elastic

    return load_elastic()


@pytest.fixture(scope="session")
def elastic_features(elastic, megnet):
    """MEGNet site levels of the first 200 elastic tensors' structures, and their bulk moduli."""
    structures = elastic.structures.take(np.arange(200))
    return megnet.featurize(structures, ["V0", "V1", "V2", "V3"]), elastic.columns["K_VRH"].to_numpy()[:200]


@pytest.fixture(scope="session")
def trained_parent(tmp_path_factory):
    """Path of a small parent, trained for a few epochs on 120 embedded structures."""
    from atomsets_core.jobs.train_parent import parent_data, train_parent
    from atomsets_core.models.megnet_regressor import MEGNetRegressor
    from atomsets_core.sources.base import Pulled
    from atomsets_core.sources.embedded import load_flla
    from atomsets_core.storage.store import Store

    everything = load_flla()
    rows = np.arange(0, 3900, 32)[:120]
    pulled = Pulled(
        everything.structures.take(rows),
        everything.columns.iloc[rows].reset_index(drop=True),
        provenance=everything.provenance,
    )
    target = "formation_energy_per_atom"
    model = MEGNetRegressor(cutoff=4.0, epochs=8, batch_size=16)
    data = parent_data(pulled, target, cutoff=4.0, resolution=1e-3)
    folder = tmp_path_factory.mktemp("parents") / "small"
    train_parent(data, model, Store(folder), target=target, unit="eV/atom", provenance=pulled.provenance)
    return str(folder)
