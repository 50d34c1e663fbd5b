"""The processes of a campaign one by one, so that each can be killed: Prefect server, scheduler, worker, flow.

They are forks of a process that has imported everything (see `tests/forks.py`), so that a run takes seconds; what they
do is what `prefect server start`, `dask scheduler`, `dask worker` and `atomsets screen` do, over TCP, on databases and
folders of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.forks import check_preloaded, fork_server

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0
"""Seconds after which a process that should have ended is said to hang."""


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Rig:
    """Processes of one Prefect server and one Dask cluster; a context manager.

    Attributes:
        place: folder of databases and logs.
        n_workers: Dask workers.
    """

    place: Path
    n_workers: int = 1
    port: int = field(default_factory=free_port)
    dask_port: int = field(default_factory=free_port)
    server: BaseProcess | None = None
    scheduler: BaseProcess | None = None
    workers: list[BaseProcess] = field(default_factory=list)
    flows: list[BaseProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = fork_server()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.address = f"tcp://127.0.0.1:{self.dask_port}"

    def __enter__(self) -> Rig:
        self.place.mkdir(parents=True, exist_ok=True)
        self.ensure()
        return self

    def __exit__(self, *error: object) -> None:
        for process in (*self.flows, *self.workers, self.scheduler, self.server):
            if process is not None and process.is_alive():
                process.kill()
                process.join()

    def ensure(self) -> None:
        """Start what does not run."""
        if self.server is None or not self.server.is_alive():
            self.server = self._start("server", _serve, self.port, str(self.place / "prefect"))
            until(lambda: _healthy(self.api), "the Prefect server")
        if self.scheduler is None or not self.scheduler.is_alive():
            for worker in self.workers:
                worker.kill()
                worker.join()
            self.workers = []
            self.scheduler = self._start("scheduler", serve_scheduler, self.dask_port)
            until(lambda: _listening(self.dask_port), "the scheduler")
        self.workers = [worker for worker in self.workers if worker.is_alive()]
        while len(self.workers) < self.n_workers:
            self.workers.append(self._start("worker", serve_worker, self.address))

    def flow(self, campaign: dict[str, Any], out: Path, jumps: int = 0) -> BaseProcess:
        """Start a run of a campaign on this cluster; its clock jumps where `jumps`, a seed, is not 0."""
        raw = {**campaign, "cluster": {**campaign["cluster"], "kind": "address", "address": self.address}}
        raw["cluster"].pop("workers", None)
        process = self._start("flow", _run, raw, str(out), self.api, str(self.place / "prefect"), jumps)
        self.flows.append(process)
        return process

    def finish(self, campaign: dict[str, Any], out: Path) -> None:
        """Run a campaign to its end.

        Raises:
            RuntimeError: it failed or hangs.
        """
        self.ensure()
        process = self.flow(campaign, out)
        process.join(PATIENCE)
        if process.is_alive():
            raise RuntimeError(f"a plain run did not end within {PATIENCE:.0f} s")
        if process.exitcode:
            raise RuntimeError(f"a plain run failed: {self.said('flow')}")

    def said(self, name: str) -> str:
        """The last lines of a process."""
        return (self.place / f"{name}.log").read_text(errors="replace")[-1500:]

    def _start(self, name: str, target: Callable[..., None], *args: Any) -> BaseProcess:
        with _paths():
            process = self.context.Process(target=logged, args=(str(self.place / f"{name}.log"), target, *args))
            process.start()
        return process


@contextlib.contextmanager
def _paths() -> Iterator[None]:
    """The fork server finds the packages of this tree, wherever it is started."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def until(ready: Callable[[], bool], what: str) -> None:
    """Wait for something.

    Raises:
        RuntimeError: it takes longer than `PATIENCE`.
    """
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not start")
        time.sleep(0.05)


def _healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except OSError:
        return False


def _listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def logged(log: str, target: Callable[..., None], *args: Any) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        check_preloaded()
        target(*args)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _serve(port: int, home: str) -> None:
    from prefect.settings import PREFECT_HOME, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    Path(home).mkdir(exist_ok=True)
    database = f"sqlite+aiosqlite:///{home}/prefect.db"
    with temporary_settings({PREFECT_HOME: home, PREFECT_SERVER_DATABASE_CONNECTION_URL: database}):
        import uvicorn
        from prefect.server.api.server import create_app

        uvicorn.run(create_app(ephemeral=True), host="127.0.0.1", port=port, log_level="error", lifespan="on")


def serve_scheduler(port: int) -> None:
    import dask
    from distributed import Scheduler

    from atomsets_tasks.clusters import SCHEDULER

    async def serve() -> None:
        with dask.config.set(SCHEDULER):
            async with Scheduler(host="127.0.0.1", port=port, dashboard=False) as scheduler:
                await scheduler.finished()

    asyncio.run(serve())


def serve_worker(address: str) -> None:
    from distributed import Worker

    async def serve() -> None:
        async with Worker(address, nthreads=1, death_timeout=60, dashboard=False) as worker:
            await worker.finished()

    asyncio.run(serve())


def _run(raw: dict[str, Any], out: str, api: str, home: str, jumps: int) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from atomsets_flows.campaign.sections import Campaign
    from atomsets_flows.runs.screen import screen

    if jumps:
        _jump(jumps)
    with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: home}):
        screen(Campaign.model_validate(raw), out)


def _jump(seed: int) -> None:
    """Let this process's clock go forward by a day or back by two seconds twice a second, as if somebody set it.

    Not back by more: Dask holds messages until the clock has passed a moment it noted (`distributed.batched`), so a
    clock that is set back stops a run for as long.
    """
    steps = random.Random(seed).choices([86_400.0, 0.0, -2.0], k=2000)  # noqa: S311
    offsets = list(itertools.accumulate(steps))
    real, started = time.time, time.monotonic()
    time.time = lambda: real() + offsets[min(int(2 * (time.monotonic() - started)), 1999)]
