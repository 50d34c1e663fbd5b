"""Campaigns on a real SLURM of one node, which these tests start where its packages are installed."""

# ruff: noqa: S607  # SLURM's programs lie where the PATH says

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from atomsets_tasks import client
from atomsets_tasks.clusters import CERTIFICATES, ClusterError, handlers_kept, start_slurm
from tests.faults.kills import as_toml
from tests.faults.mini import campaign, write_inputs
from tests.faults.rig import ROOT
from tests.tasks.slurm import missing, slurm

OPTIONS = {
    "partition": "main",
    "account": None,
    "walltime": "00:30:00",
    "workers_per_job": 1,
    "gpus_per_job": 0,
    "interface": None,
    "log_directory": None,
    "prologue": [],
    "directives": [],
    "python": sys.executable,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    pytest.importorskip("dask_jobqueue")
    if why := missing():
        pytest.skip(why)
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def queue(running, monkeypatch):
    for name, value in running.items():
        monkeypatch.setenv(name, value)


def jobs():
    done = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_what_starts_clusters_leaves_signals_alone_in_any_thread():
    """In a process of its own, where nothing is imported yet: dask-jobqueue takes Ctrl-C when it is."""
    pytest.importorskip("dask_jobqueue")
    program = """
import signal, threading
from atomsets_tasks.clusters import handlers_kept
before, failed = {s: signal.getsignal(s) for s in signal.valid_signals()}, []
def work():
    for name in ("dask_jobqueue", "dask_kubernetes.operator"):
        try:
            with handlers_kept():
                __import__(name)
        except ImportError as error:
            assert name not in str(error) or "kubernetes" in name, error
        except Exception as error:
            failed.append(f"{name}: {error}")
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert not failed, failed
assert {s: signal.getsignal(s) for s in signal.valid_signals()} == before
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_threads_set_handlers_meanwhile():
    before = signal.getsignal(signal.SIGUSR2)
    inside, leave = threading.Event(), threading.Event()

    def importing():
        with handlers_kept():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=importing)
    thread.start()
    inside.wait(10)
    try:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    finally:
        leave.set()
        thread.join()
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.slow
def test_a_partition_that_does_not_exist_is_said(queue, tmp_path):
    with pytest.raises(ClusterError, match=r"SLURM refuses.*invalid partition.*sinfo"):
        start_slurm(1, None, "1GB", **{**OPTIONS, "partition": "nowhere"}, shared_folder=str(tmp_path))
    assert jobs() == []


@pytest.mark.slow
def test_jobs_that_wait_are_said_with_what_to_do(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "LONG_WITHOUT", 2.0)
    told, said = [], threading.Event()

    def tell(text):
        told.append(text)
        said.set()

    options = {**OPTIONS, "directives": ["--begin=now+1hour"]}
    with client.connect(lambda: start_slurm(1, None, "1GB", **options, shared_folder=str(tmp_path)), tell):
        client._client()
        assert said.wait(60)
        (folder,) = tmp_path.glob(f"{CERTIFICATES}*")
        assert folder.stat().st_mode & 0o077 == 0
        assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}
    assert "1 PENDING BeginTime" in told[0]
    assert "`squeue --me --start`" in told[0]
    deadline = time.monotonic() + 30
    while jobs() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert jobs() == []


@pytest.mark.slow
def test_a_campaign_runs_in_jobs_and_outlives_one_that_is_cancelled(queue, tmp_path):
    """By its command, which imports dask-jobqueue in the thread of a task; the jobs' workers speak TLS alone."""
    write_inputs(tmp_path / "inputs")
    (tmp_path / "shared").mkdir()
    raw = campaign(tmp_path / "inputs", cluster={"kind": "slurm", "memory_per_worker": "2GB", "workers": 1})
    options = f'[cluster.slurm]\npartition = "main"\nshared_folder = "{tmp_path / "shared"}"\n'
    (tmp_path / "mini.toml").write_text(as_toml(raw) + options)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "atomsets_flows.cli", "screen", str(tmp_path / "mini.toml"), "--out", "out"]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 200
        while not list((tmp_path / "out").glob("features/*/*.json")):
            assert run.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        (first,) = jobs()
        script = subprocess.run(["scontrol", "write", "batch_script", first, "-"], capture_output=True, text=True)
        assert "--tls-key" in script.stdout
        assert "tls://" in script.stdout
        assert "PRIVATE KEY" not in script.stdout
        subprocess.run(["scancel", first], check=True)
        assert run.wait(300) == 0, (tmp_path / "log").read_text()
    finally:
        run.kill()
        run.wait()
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["counts"]["candidates"]["ranked"] == 50
    assert list((tmp_path / "shared").iterdir()) == []
    assert Path(tmp_path / "out/ranking.csv").exists()
