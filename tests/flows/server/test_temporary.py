"""The temporary server of a command ends with it, however that ends."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from atomsets_flows.server.temporary import KEPT_RUNS, HomeError, find_home, forget_old_runs

PROGRAM = """
from atomsets_flows.server.temporary import quiet_environment, start_early
quiet_environment(False)
start_early().join()
"""


SERVE = """
import sys, time
from atomsets_flows.commands.serve import Server
sys.executable = sys.argv[1]
Server(1).__enter__()
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_of_serve_ends_with_it_from_its_first_moment(tmp_path, how):
    """What stands for the server here only waits, as a server does that is still importing."""
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600\n")
    slow.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(slow)], cwd=Path(__file__).parents[3])
    try:
        assert wait_for((tmp_path / "pid").exists, 60.0)
        server = psutil.Process(int((tmp_path / "pid").read_text()))
        process.send_signal(how)
        process.wait()
        server.wait(10.0)
    finally:
        process.kill()
        process.wait()
        if (tmp_path / "pid").exists() and psutil.pid_exists(pid := int((tmp_path / "pid").read_text())):
            os.kill(pid, signal.SIGKILL)


def test_the_oldest_runs_leave_the_database(tmp_path, monkeypatch):
    monkeypatch.setenv(KEPT_RUNS, "2")
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
        database.executescript(
            """
            CREATE TABLE flow_run (id, created, end_time);
            CREATE TABLE log (flow_run_id); CREATE TABLE artifact (flow_run_id);
            CREATE TABLE artifact_collection (flow_run_id);
            CREATE TABLE events (occurred); CREATE TABLE event_resources (occurred);
            """
        )
        for day in range(1, 6):
            ended = None if day == 2 else "x"  # still at work, or killed
            moment = f"{datetime.now().year + 1}-01-0{day} 00:00:00"
            database.execute("INSERT INTO flow_run VALUES (?, ?, ?)", [day, moment, ended])
            for table, value in (("log", day), ("artifact", day), ("events", moment), ("event_resources", moment)):
                database.execute(f"INSERT INTO {table} VALUES (?)", [value])  # noqa: S608
        database.commit()
        forget_old_runs(tmp_path)
        assert [row[0] for row in database.execute("SELECT id FROM flow_run ORDER BY id")] == [2, 4, 5]
        assert [row[0] for row in database.execute("SELECT flow_run_id FROM log ORDER BY 1")] == [2, 4, 5]
        assert database.execute("SELECT count(*) FROM events").fetchone() == (2,)
        monkeypatch.setenv(KEPT_RUNS, "0")
        forget_old_runs(tmp_path)
        assert database.execute("SELECT count(*) FROM flow_run").fetchone() == (3,)
    forget_old_runs(tmp_path / "nowhere")


def test_a_home_that_is_full_gives_way_to_the_campaigns_folder(tmp_path, monkeypatch):
    from tests.faults.surroundings import CannotMountError, mounted

    monkeypatch.setenv("PREFECT_PROFILES_PATH", "")  # so that it is put back
    monkeypatch.delenv("PREFECT_PROFILES_PATH")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    find_home(str(tmp_path / "campaigns/one"))
    assert os.environ["PREFECT_HOME"] == str(tmp_path)
    try:
        with mounted(tmp_path / "home", "500k") as home:
            (home / "profiles.toml").write_text("")
            monkeypatch.setenv("PREFECT_HOME", str(home))
            find_home(str(tmp_path / "campaigns/one"))
            assert os.environ["PREFECT_HOME"] == str(tmp_path / "campaigns/.prefect")
            assert os.environ["PREFECT_PROFILES_PATH"] == str(home / "profiles.toml")
            monkeypatch.setenv("PREFECT_HOME", str(home))
            with pytest.raises(
                HomeError, match=r"neither in .*home \(No space left on device\) nor in .*set PREFECT_HOME"
            ):
                find_home(str(home / "campaigns/one"))
    except CannotMountError as error:
        pytest.skip(str(error))


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
