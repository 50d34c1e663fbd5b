"""The temporary server of a command ends with it, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROGRAM = """
from atomsets_flows.server.temporary import quiet_environment, start_early
quiet_environment(False)
start_early().join()
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_server_that_still_starts_ends_with_the_process_that_is_killed(tmp_path):
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    environment.pop("PREFECT_API_URL", None)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, cwd=Path(__file__).parents[3])
    server = None
    try:
        server = wait_for(lambda: servers_of(process.pid), 60.0)[0]
        assert wait_for(lambda: watched(server.pid), 5.0), "nobody watches the server while it starts"
        process.send_signal(signal.SIGKILL)
        process.wait()
        server.wait(30.0)
    finally:
        process.kill()
        process.wait()
        if server is not None and server.is_running():
            server.kill()


def wait_for(found, seconds):
    until = time.monotonic() + seconds
    while not (there := found()) and time.monotonic() < until:
        time.sleep(0.02)
    return there


def servers_of(pid):
    return [child for child in psutil.Process(pid).children() if "uvicorn" in " ".join(child.cmdline())]


def watched(pid):
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] and f"kill {pid}" in " ".join(process.info["cmdline"]):
            return True
    return False
