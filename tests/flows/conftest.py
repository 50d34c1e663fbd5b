"""A real Prefect server on a database of its own, for all tests of flows."""

import pytest

from tests.forks import forked_workers as forks


@pytest.fixture(scope="session", autouse=True)
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.fixture(scope="module")
def forked_workers():
    """Dask workers are forks of a process that has imported what they need.

    For tests that need no worker whose environment is that of the test.
    """
    with forks():
        yield
