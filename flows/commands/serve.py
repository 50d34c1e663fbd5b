"""`atomsets serve`: schedules, UI and runs on a laptop, in one process that is stopped with Ctrl-C."""

from __future__ import annotations

import os
import signal
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

    All users of this machine reach these ports, so both want a password. It is made at the first start, lies in a file
    that you alone can read, and is what the browser asks for; PREFECT_SERVER_API_AUTH_STRING sets another one.

    Examples:
      atomsets serve
      atomsets serve embedded --no-schedules
    """
    from atomsets_flows.commands.terminal import console, fail
    from atomsets_flows.server import (
        DeploymentError,
        HomeError,
        chosen,
        find_home,
        keep_password,
        quiet_environment,
        read,
        runner_deployment,
    )

    try:
        asked = chosen(read(file), names or [])
        os.chdir(home)
    except (DeploymentError, OSError) as error:
        fail(2, str(error))
    quiet_environment(verbose=True)
    password = os.environ.get("PREFECT_API_AUTH_STRING", "")
    with ExitStack() as stack:
        if not os.environ.get("PREFECT_API_URL"):
            try:
                find_home("campaigns")
                password, kept = keep_password()
                stack.enter_context(Server(port))
            except (RuntimeError, HomeError) as error:
                fail(1, str(error))
            if kept:
                console.print(f"password, for the browser: in {kept}", highlight=False, soft_wrap=True)
                console.print(
                    f'for other programs: export PREFECT_API_AUTH_STRING="$(cat {kept})"',
                    highlight=False,
                    soft_wrap=True,
                )
            os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
            console.print(f"server and UI: http://127.0.0.1:{port}", highlight=False)
        if not os.environ.get("ATOMSETS_REPORTS_URL"):
            from atomsets_flows.server import serve_reports

            url = stack.enter_context(serve_reports(Path(), port + 1, password))
            os.environ["ATOMSETS_REPORTS_URL"] = url
            console.print(f"reports: {url}", highlight=False)
        from prefect import serve as prefect_serve

        try:
            deployments = [runner_deployment(raw, schedules) for raw in asked]
        except DeploymentError as error:
            fail(2, str(error))
        prefect_serve(*deployments, limit=at_once)


WATCHED = """
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
{ read -r _ <&3; kill $server && sleep 20 && kill -9 $server; } 2>/dev/null &
watcher=$!
exec 3<&-
wait $server
code=$?
kill $watcher 2>/dev/null
exit $code
"""
"""Runs a program until it ends or the standard input does, which is when the process that holds it is gone."""


class Server(AbstractContextManager["Server"]):
    """A Prefect server in a process of its own, on this machine's loopback alone; it ends with this process.

    From its first moment, and however this process ends: the server is the child of a shell that waits for a pipe to
    close.

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
        shown = {
            "PREFECT_SERVER_UI_API_URL": "/api",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # the newer pages ask an analytics service, whatever the settings say
            "PREFECT_SERVER_UI_V2_ENABLED": "false",
        }
        environment = {**os.environ, **shown}
        self._process = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", WATCHED, "sh", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # so that Ctrl-C ends it after the runs, not before
        )
        deadline = time.monotonic() + 300  # a busy machine
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                self._log.seek(0)
                words = self._log.read().decode(errors="replace").strip().splitlines()
                raise RuntimeError(f"the Prefect server did not start at port {self._port}: {' '.join(words[-1:])}")
            time.sleep(0.2)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/health", timeout=2):
                return True
        except OSError:
            return False
