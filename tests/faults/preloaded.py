"""What every process of a campaign imports; a fork server that has it starts them in no time."""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

import torch

torch.set_num_threads(1)

import distributed  # noqa: E402, F401
import atomsets_flows.runs.screen  # noqa: E402, F401
import uvicorn  # noqa: E402, F401
from prefect.server.api import server  # noqa: E402, F401

from atomsets_core.parents.registry import load_parent  # noqa: E402

load_parent("megnet")
