"""The reference OPTIMADE server as a process of its own, with its test data and some entries of ours."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

# As in the configuration that the library tests itself with.
CONFIGURATION = {
    "page_limit_max": 20,
    "insert_test_data": True,
    "provider_fields": {"structures": ["band_gap", {"name": "chemsys", "type": "string", "description": "elements"}]},
    "aliases": {
        "structures": {
            "id": "task_id",
            "immutable_id": "_id",
            "chemical_formula_descriptive": "pretty_formula",
            "chemical_formula_reduced": "pretty_formula",
            "chemical_formula_anonymous": "formula_anonymous",
        }
    },
    "length_aliases": {"structures": {"chemsys": "nelements"}},
}


@pytest.fixture(scope="session")
def optimade_server(tmp_path_factory) -> Iterator[str]:
    """Base URL of the reference server of optimade-python-tools."""
    pytest.importorskip("optimade.server.config")
    place = tmp_path_factory.mktemp("optimade")
    (place / "config.json").write_text(json.dumps({**CONFIGURATION, "log_dir": str(place / "logs")}))
    yield from _serve(place, {"OPTIMADE_CONFIG_FILE": str(place / "config.json")})


def _serve(place: Path, settings: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "optimade.server.main:app", "--port", str(port), "--log-level", "error"]
    with (place / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log, cwd=place)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/v1/info", timeout=5).close()  # noqa: S310
                break
            except OSError:
                if server.poll() is not None:
                    break
                time.sleep(0.2)
        else:
            raise RuntimeError("it did not start in a minute")
        if server.poll() is not None:
            raise RuntimeError(f"the reference server did not start: {(place / 'server.log').read_text()[-2000:]}")
        yield url
    finally:
        server.terminate()
        server.wait(20)
