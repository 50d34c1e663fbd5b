"""Postgres, a Prefect server on it, and a worker: real ones, each a process that can be stopped and started."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "tests:as-good-as-none"  # noqa: S105
"""Of the server, as compose.yaml and the Kubernetes manifests have it."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(true: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for something; what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
    return found


def end(process: subprocess.Popen[Any], how: int = signal.SIGTERM) -> None:
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def postgres(folder: Path) -> Iterator[str | None]:
    """A Postgres of this machine's packages on an empty cluster; its URL, or None where there is none."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not programs:
        yield None
        return
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            yield None
            return
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    # not below pytest's folder, which only its owner may enter
    cluster = Path(f"/tmp/atomsets-postgres-{os.getpid()}")  # noqa: S108
    port = free_port()
    server = None
    try:
        cluster.mkdir(mode=0o700)
        if identity:
            os.chown(cluster, identity["user"], identity["group"])
        options = ["--pgdata", cluster, "--username=prefect", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        made = subprocess.run(
            [programs[-1].with_name("initdb"), *options], cwd="/", capture_output=True, check=False, **identity
        )
        if made.returncode == 0:
            settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
            command = [programs[-1], "-D", cluster, *(word for setting in settings for word in ("-c", setting))]
            log = (folder / "postgres.log").open("w")
            server = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **identity)
            ready = [programs[-1].with_name("pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
            until(lambda: subprocess.run(ready, check=False).returncode == 0, 60, "Postgres")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres" if server else None
    finally:
        if server:
            end(server, signal.SIGINT)
        shutil.rmtree(cluster, ignore_errors=True)


@dataclass
class Prefect:
    """A Prefect server and one worker.

    Attributes:
        folder: of logs, and as `home` the one that campaigns lie in.
        database: URL of it.
        port: of the server.
        password: user:password that it wants; empty for none.
    """

    folder: Path
    database: str
    port: int = field(default_factory=free_port)
    password: str = PASSWORD
    server: subprocess.Popen[Any] | None = None
    worker: subprocess.Popen[Any] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self, **more: str) -> dict[str, str]:
        """Of everything that talks to the server; no key of the Materials Project is in it."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "MP_", "PMG_", "ATOMSETS_"))
        }
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.url,
            **({"PREFECT_API_AUTH_STRING": self.password} if self.password else {}),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            **more,
        }

    def start_server(self) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        environment = self.environment(
            **({"PREFECT_SERVER_API_AUTH_STRING": self.password} if self.password else {}),
            PREFECT_API_DATABASE_CONNECTION_URL=self.database,
            PREFECT_SERVER_UI_API_URL="/api",
            PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT="false",
            # rules on silence are looked at more often, so that a test needn't wait
            PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY="PT1S",
        )
        log = (self.folder / "server.log").open("a")
        self.server = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)
        until(self._answers, 240, "the Prefect server")

    def stop_server(self, how: int = signal.SIGTERM) -> None:
        assert self.server is not None
        end(self.server, how)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2):  # noqa: S310
                return True
        except OSError:
            return False

    def start_worker(self, **environment: str) -> None:
        self.home.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "atomsets", "--name", "tests"]
        log = (self.folder / "worker.log").open("a")
        self.worker = subprocess.Popen(
            command,
            env=self.environment(ATOMSETS_HOME=str(self.home), PREFECT_WORKER_QUERY_SECONDS="1", **environment),
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, from the root of the repository."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            env=self.environment(**environment),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def client(self) -> Any:
        """A client of the API, for a `with` block."""
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self.url, auth_string=self.password or None)

    def close(self) -> None:
        for process in (self.worker, self.server):
            if process is not None:  # a worker that is asked to takes half a minute to end
                end(process, signal.SIGKILL)
