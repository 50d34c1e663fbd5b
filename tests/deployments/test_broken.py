"""What breaks while a campaign runs: a Dask worker is killed, the Prefect server goes away and comes back."""

import json
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from tests.deployments.servers import ROOT, end, free_port, until
from tests.faults.rig import logged, serve_scheduler, serve_worker
from tests.forks import fork_server
from tests.materials_project_server.running import DATA

CAMPAIGN = """
name = "broken"
[training]
source = "{folder}/training.parquet"
target = "K_VRH"
unit = "GPa"
transform = "log10"
[candidates]
source = "{folder}/candidates.parquet"
[objective]
shortlist = 5
[features]
shard_size = 16
[model]
members = 2
folds = 2
epochs = 5
phi = [16]
rho = [16]
[discovery]
seeds = 0
[cluster]
address = "{address}"
"""
N_CANDIDATES = 640


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    elastic = pq.read_table(DATA / "elastic_tensor_2015.parquet")
    pq.write_table(elastic.slice(0, 60), folder / "training.parquet")
    pq.write_table(elastic.slice(60, N_CANDIDATES).drop_columns(["K_VRH"]), folder / "candidates.parquet")
    return folder


@pytest.fixture
def dask(tmp_path, prefect_with_deployments):
    """A scheduler and two workers, processes that know of each other by its address alone; address and workers."""
    address = f"tcp://127.0.0.1:{free_port()}"
    log, context = str(tmp_path / "dask.log"), fork_server()
    works = [(serve_scheduler, int(address.rpartition(":")[2])), (serve_worker, address), (serve_worker, address)]
    processes = [context.Process(target=logged, args=(log, *work)) for work in works]
    for process in processes:
        process.start()
    try:
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.join()


def start(prefect, inputs, address, out):
    """`atomsets screen` on these workers, in a process of its own."""
    (inputs / "broken.toml").write_text(CAMPAIGN.format(folder=inputs, address=address))
    command = [
        sys.executable,
        "-m",
        "atomsets_flows.cli",
        "screen",
        str(inputs / "broken.toml"),
        "--out",
        str(out),
        "--json",
    ]
    return subprocess.Popen(
        command, env=prefect.environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def shards(out):
    return list(out.glob("features/**/*.parquet"))


def finish(process):
    told, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return json.loads(told.splitlines()[-1]), errors


def test_a_dask_worker_is_killed(prefect_with_deployments, inputs, dask, tmp_path):
    """Its shard is made by the other one, and nothing is missing in the end."""
    address, workers = dask
    out = tmp_path / "out"
    process = start(prefect_with_deployments, inputs, address, out)
    try:
        until(lambda: len(shards(out)) >= 8 or process.poll() is not None, 400, "the first shards")
        assert process.poll() is None, process.communicate()[1]
        workers[0].kill()
        workers[0].join()
        at_the_kill = len(shards(out))
        summary, _ = finish(process)
    finally:
        end(process, signal.SIGKILL)
    made = summary["done"]["shards_made"]
    assert at_the_kill < made, "it was killed too late to mean anything"
    assert summary["counts"]["candidates"]["failed"] == 0
    assert summary["counts"]["candidates"]["ranked"] + summary["counts"]["candidates"]["filtered"] == N_CANDIDATES
    assert workers[1].is_alive()


def test_the_prefect_server_goes_away_and_comes_back(prefect_with_deployments, inputs, dask, tmp_path):
    """The run goes on while it is away, and the server knows in the end that it was completed."""
    address, _ = dask
    prefect, out = prefect_with_deployments, tmp_path / "out"
    process = start(prefect, inputs, address, out)
    try:
        # Beyond the four of the training: those of the candidates are under way, between two stages a run waits.
        until(lambda: len(shards(out)) >= 6 or process.poll() is not None, 400, "the first shards")
        assert process.poll() is None, process.communicate()[1]
        prefect.stop_server(signal.SIGKILL)
        before = len(shards(out))
        until(lambda: len(shards(out)) > before or process.poll() is not None, 200, "another shard")
        assert process.poll() is None, process.communicate()[1]
        # Held while the server starts, which takes longer than the rest of the run: it is to be back before the end.
        process.send_signal(signal.SIGSTOP)
        prefect.start_server()
        process.send_signal(signal.SIGCONT)
        summary, _ = finish(process)
    finally:
        end(process, signal.SIGKILL)
        if prefect.server.poll() is not None:
            prefect.start_server()
    assert summary["counts"]["candidates"]["failed"] == 0
    with prefect.client() as client:
        body = {"flow_runs": {"name": {"like_": "broken 20"}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
        (run,) = client.request("POST", "/flow_runs/filter", json=body).json()
        assert run["state"]["type"] == "COMPLETED", run["state"]
        found = client.request("POST", "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert "broken-shortlist" in {artifact["key"] for artifact in found.json()}


def test_the_worker_takes_runs_again_after_that(prefect_with_deployments):
    """It wasn't restarted with the server."""
    assert prefect_with_deployments.worker.poll() is None
    with prefect_with_deployments.client() as client:

        def is_online():
            return [w for w in client.request("POST", "/work_pools/atomsets/workers/filter", json={}).json()
                    if w["status"] == "ONLINE"]  # fmt: skip

        assert until(is_online, 200, "the worker's heartbeat")
