"""What every process of a campaign imports; a fork server that has it starts them in no time."""

import os

# As on the workers, and before libraries look at it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

import torch  # noqa: E402

torch.set_num_threads(1)
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # the first one imports a thousand modules

import distributed  # noqa: E402, F401
import numpy as np  # noqa: E402
import plotly.io  # noqa: E402, F401
import prefect.flow_engine  # noqa: E402, F401
import uvicorn  # noqa: E402, F401
from prefect.server.api import server  # noqa: E402, F401

from atomsets_core.discovery import choice  # noqa: E402, F401
from atomsets_core.jobs import rank, simulate, structures, train  # noqa: E402, F401
from atomsets_core.parents.registry import load_parent  # noqa: E402
from atomsets_core.structures import Structures  # noqa: E402
from atomsets_flows.runs import screen  # noqa: E402, F401

# Its compiled loops are read from the disk with the first structure.
salt = Structures(
    np.array(["salt"], dtype=object), 4.0 * np.eye(3)[None], np.array([2]), np.array([11, 17]), np.eye(3)[:2] / 2
)
load_parent("megnet").featurize(salt)
