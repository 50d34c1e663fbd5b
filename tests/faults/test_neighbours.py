"""A run on a machine that others use too, in a folder with files of others, with a home that can't be written.

One run of the mini campaign by its command serves several tests: while it works, another user tries every port that one
of its processes listens on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.faults.kills import _is, as_toml
from tests.faults.mini import campaign, write_inputs
from tests.faults.rig import ROOT, free_port

NOBODY = 65534

INTRUDER = """
import asyncio, json, os, sys, urllib.error, urllib.request
from distributed import Scheduler
from distributed.comm import connect
from distributed.security import Security

own = Security.temporary()
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)

async def asks(address, security):
    comm = await connect(address, timeout=3, **(security.get_connection_args("client") if security else {}))
    try:
        await comm.write({"op": "identity", "reply": True})
        await asyncio.wait_for(comm.read(), 3)
    finally:
        comm.abort()

def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=3) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except Exception:
        return 0

async def all_of(port):
    tried = {}
    for kind, security in (("tcp", None), ("tls", own)):
        try:
            await asyncio.wait_for(asks(f"{kind}://127.0.0.1:{port}", security), 8)
            tried[kind] = "came in"
        except Exception as error:
            tried[kind] = type(error).__name__
    for path in ("/", "/status", "/api/flow_runs/count", "/api/artifacts/latest/x", "/info/main/workers.html"):
        tried[path] = await asyncio.to_thread(page, port, path)
    return tried

async def main(ports):
    return dict(zip(ports, await asyncio.gather(*map(all_of, ports))))

print("ready", flush=True)
found = asyncio.run(main(sys.stdin.readline().split()))
print(json.dumps({"uid": os.geteuid(), "ports": found}), flush=True)
"""

OPEN = """
import asyncio
from distributed import Scheduler

async def serve():
    async with Scheduler(host="127.0.0.1", port=PORT, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
        print("ready", flush=True)
        await scheduler.finished()

asyncio.run(serve())
"""
"""A scheduler as it is without certificates: the intruder gets in there, or the test of the others means nothing."""

MARKER = """
import os
with open(os.path.join({place!r}, f"{{__name__}}-{{os.getpid()}}"), "w") as marker:
    marker.write(open("/proc/self/cmdline").read())
raise ImportError("a file of the working directory was taken for a module")
"""

MODULES = ("socket", "ssl", "uvicorn", "distributed", "torch", "numba", "sqlite3", "asyncpg", "psutil", "main", "utils")


@dataclass
class Command:
    """`atomsets screen` on the mini campaign, in a folder of its own.

    Attributes:
        place: working directory of the command.
        listening: port -> addresses that processes of the run listen at.
        intruder: what another user found at these ports.
    """

    place: Path
    process: subprocess.Popen[bytes] | None = None
    listening: dict[int, set[str]] = field(default_factory=dict)
    intruder: dict = field(default_factory=dict)

    def start(self, **environment: str) -> None:
        write_inputs(self.place / "inputs")
        (self.place / "mini.toml").write_text(as_toml(campaign(self.place / "inputs", model={"epochs": 60})))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
        with (self.place / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from atomsets_flows.cli import main; main()", "screen", "mini.toml"]
                if not Path(sys.executable).with_name("atomsets").exists()
                else [Path(sys.executable).with_name("atomsets"), "screen", "mini.toml"],
                cwd=self.place, stdout=log, stderr=log, env={**kept, "DO_NOT_TRACK": "1", **environment},
            )  # fmt: skip

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def until(self, pattern: str, seconds: float = 300.0) -> None:
        """Wait until the campaign has such a file."""
        deadline = time.monotonic() + seconds
        while not next(iter((self.place / "campaigns/mini").glob(pattern)), None):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"no {pattern} within {seconds:g} s: {self.said()}"
            time.sleep(0.05)

    def look(self) -> None:
        """Note where its processes listen."""
        for process in (psutil.Process(self.process.pid), *self.children()):
            try:
                for there in process.net_connections("inet"):
                    if there.status == psutil.CONN_LISTEN:
                        self.listening.setdefault(there.laddr.port, set()).add(there.laddr.ip)
            except psutil.Error:
                continue

    def end(self) -> None:
        if self.process.poll() is None:
            children = self.children()
            self.process.kill()
            psutil.wait_procs(children, timeout=30)

    def said(self) -> str:
        return (self.place / "log").read_text(errors="replace")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A run that has ended, in a folder of traps, whose home could not be written; watched by another user."""
    place = tmp_path_factory.mktemp("neighbours")
    (place / "marks").mkdir(mode=0o777)
    for name in MODULES:
        (place / f"{name}.py").write_text(MARKER.format(place=str(place / "marks")))
    (place / "home").write_text("a file where a folder should be")
    run, port = Command(place), free_port()
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
    opened = subprocess.Popen([sys.executable, "-c", OPEN.replace("PORT", str(port))], **piped)
    intruder = subprocess.Popen([sys.executable, "-c", INTRUDER], **piped)
    try:
        assert [process.stdout.readline().strip() for process in (opened, intruder)] == ["ready", "ready"]
        run.start(PREFECT_HOME=str(place / "home/prefect"))
        run.until("features/*/*.json")  # server, scheduler, nanny and worker are at work
        run.look()
        said, _ = intruder.communicate(" ".join([str(port), *map(str, sorted(run.listening))]) + "\n", timeout=120)
        assert run.process.poll() is None, "the run was over before the intruder was"
        run.intruder = {**json.loads(said), "open": str(port)}
        run.process.wait(300)
        yield run
    finally:
        run.end()
        for process in (opened, intruder):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_nothing_listens_to_other_machines(command):
    assert len(command.listening) >= 4, "server, scheduler, nanny and worker"
    assert set().union(*command.listening.values()) == {"127.0.0.1"}


@pytest.mark.slow
def test_another_user_is_refused_at_every_port(command):
    if os.geteuid() == 0:
        assert command.intruder["uid"] == NOBODY
    tried = dict(command.intruder["ports"])
    assert tried.pop(command.intruder["open"])["tcp"] == "came in", "the intruder doesn't know how to come in"
    pages = 0
    for port, found in tried.items():
        assert "came in" not in (found["tcp"], found["tls"]), f"port {port}: {found}"
        answers = {path: status for path, status in found.items() if path.startswith("/")}
        assert set(answers.values()) <= {0, 401, 404}, f"port {port} shows a page: {found}"
        pages += answers["/api/flow_runs/count"] == 401
    assert pages == 1, f"the Prefect server asks for a password: {tried}"


@pytest.mark.slow
def test_the_run_ends_well_all_the_same(command):
    assert command.process.returncode == 0, command.said()
    assert (command.place / "campaigns/mini/ranking.csv").exists()


@pytest.mark.slow
def test_no_process_takes_a_module_from_the_working_directory(command):
    marks = {mark.name: mark.read_text().replace("\0", " ") for mark in (command.place / "marks").iterdir()}
    assert marks == {}


@pytest.mark.slow
def test_prefect_keeps_its_files_beside_the_campaign_where_the_home_cannot_be_written(command):
    assert (command.place / "campaigns/.prefect/prefect.db").exists()


@pytest.mark.slow
def test_no_certificate_and_no_password_stands_in_a_file_or_a_command_line(command):
    for path in (command.place / "campaigns").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"PRIVATE KEY" not in data, path
            assert b"atomsets:" not in data or path.suffix == ".html", path


@pytest.mark.slow
def test_a_run_whose_server_is_gone_goes_on_without_it(tmp_path):
    run = Command(tmp_path)
    run.start(PREFECT_HOME=str(tmp_path / "prefect"))
    try:
        run.until("features/*/*.json")
        servers = [child for child in run.children() if _is(child, "its server")]
        servers[0].kill()
        killed = time.time()
        run.process.wait(300)
        ended, report = time.time(), tmp_path / "campaigns/mini/standing.json"
        assert run.process.returncode == 0, run.said()
        # From the last that it wrote, since a busy machine stretches the work before.
        assert ended - max(killed, report.stat().st_mtime) < 60, run.said()
        assert "the run goes on without it" in run.said().replace("\n", " ")
        assert "EventsWorker" not in run.said()
    finally:
        run.end()


def test_nowhere_to_keep_prefects_files_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "file/prefect"), "PYTHONPATH": str(ROOT)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "atomsets_flows.cli", "screen", "--out", str(tmp_path / "file/campaign")]
    started = os.times()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    ended = os.times()
    assert done.returncode == 1
    assert "Prefect can keep its files neither in" in done.stderr.replace("\n", " ")
    assert "set PREFECT_HOME" in done.stderr.replace("\n", " ")
    # processor time, which a busy machine doesn't stretch
    assert ended.children_user + ended.children_system - started.children_user - started.children_system < 10
