"""What several tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

# As on the workers; two threads on two busy cores wait for each other.
torch.set_num_threads(1)

# Before prefect is imported anywhere: no console noise, no analytics.
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
def megnet():
    from atomsets_core.parents import load_parent

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
