"""`atomsets serve`: schedules, UI and runs on a laptop, in one process that is stopped with Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Annotated

import typer


def serve(
    names: Annotated[list[str] | None, typer.Argument(help="Deployments; all of the file where none is named.")] = None,
    file: Annotated[Path | None, typer.Option(help="File of deployments; by default deployments/prefect.yaml.")] = None,
    home: Annotated[str, typer.Option(help="Folder in which campaigns/ lies.")] = ".",
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Of the server, where none runs yet.")] = 4200,
    schedules: Annotated[bool, typer.Option(help="Run by schedule; without, only on demand.")] = True,
    at_once: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
) -> None:
    """Serve the deployments from this process: start them in the UI, by schedule or with `prefect deployment run`.

    Without PREFECT_API_URL a server is started too, on 127.0.0.1, and stopped in the end. Reports are shown at the next
    port. While this doesn't run, nothing is run; what is due then is skipped.

    Examples:
      atomsets serve
      atomsets serve embedded --no-schedules
    """
    from atomsets_flows.commands.terminal import console, fail
    from atomsets_flows.server import DeploymentError, chosen, quiet_environment, read, runner_deployment

    try:
        asked = chosen(read(file), names or [])
        os.chdir(home)
    except (DeploymentError, OSError) as error:
        fail(2, str(error))
    quiet_environment(verbose=True)
    with ExitStack() as stack:
        if not os.environ.get("PREFECT_API_URL"):
            try:
                stack.enter_context(Server(port))
            except RuntimeError as error:
                fail(1, str(error))
            os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
            console.print(f"server and UI: http://127.0.0.1:{port}", highlight=False)
        if not os.environ.get("ATOMSETS_REPORTS_URL"):
            from atomsets_flows.server import serve_reports

            url = stack.enter_context(serve_reports(Path(), port + 1))
            os.environ["ATOMSETS_REPORTS_URL"] = url
            console.print(f"reports: {url}", highlight=False)
        from prefect import serve as prefect_serve

        try:
            deployments = [runner_deployment(raw, schedules) for raw in asked]
        except DeploymentError as error:
            fail(2, str(error))
        prefect_serve(*deployments, limit=at_once)


class Server(AbstractContextManager["Server"]):
    """A Prefect server in a process of its own, on this machine's loopback alone.

    Raises:
        RuntimeError: it doesn't come up; the message holds its last words.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the object

    def __enter__(self) -> Server:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        # relative, so that the UI finds the API under whatever name the browser came by
        shown = {"PREFECT_SERVER_UI_API_URL": "/api", "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false"}
        environment = {**os.environ, **shown}
        self._process = subprocess.Popen(  # noqa: S603
            command, env=environment, stdout=subprocess.DEVNULL, stderr=self._log
        )
        deadline = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                self._log.seek(0)
                words = self._log.read().decode(errors="replace").strip().splitlines()
                raise RuntimeError(f"the Prefect server did not start at port {self._port}: {' '.join(words[-1:])}")
            time.sleep(0.2)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/health", timeout=2):
                return True
        except OSError:
            return False
