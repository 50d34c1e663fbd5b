"""What the tests of parents share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Small batches are slower, not faster, with more threads, above all on a machine that has other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
