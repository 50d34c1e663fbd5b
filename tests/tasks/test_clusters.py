"""What SLURM and Kubernetes are asked for (nothing is started), and how workers on this machine are set up."""

import os
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
import torch
import yaml
from distributed import Scheduler, SpecCluster, Worker, get_worker

from atomsets_tasks import client, clusters
from atomsets_tasks.clusters import ClusterError, kubernetes_spec, slurm_cluster, start_local, start_slurm, wall_seconds

SLURM = {
    "partition": "short",
    "account": "mat-42",
    "walltime": "02:00:00",
    "workers_per_job": 4,
    "gpus_per_job": 0,
    "interface": None,
    "log_directory": "logs",
    "prologue": ["module load python"],
    "directives": ["--exclusive"],
    "python": "/sw/bin/python",
}

KUBERNETES = {
    "name": "atomsets",
    "image": "registry.example/atomsets:0.1",
    "cpu_per_worker": 1.0,
    "gpus_per_worker": 0,
    "environment": {"AWS_REGION": "eu-1"},
    "volume_claim": None,
    "mount": "/campaigns",
}


@pytest.fixture
def slurm():
    """The script of a job, and the cluster's scheduler closed afterwards."""
    pytest.importorskip("dask_jobqueue")
    opened = []

    def make(**options):
        opened.append(slurm_cluster("3GB", **{**SLURM, **options}))
        return opened[-1].job_script()

    yield make
    for made in opened:
        made.close()


def test_a_slurm_job_asks_for_what_its_workers_need(slurm):
    lines = slurm().splitlines()
    assert lines[0].startswith("#!")
    for directive in ("-p short", "-A mat-42", "--cpus-per-task=4", "--mem=12G", "-t 02:00:00", "--exclusive"):
        assert f"#SBATCH {directive}" in lines, directive
    assert "export OMP_NUM_THREADS=1" in lines
    assert "module load python" in lines
    command = next(line for line in lines if "dask" in line and "worker" in line and line.startswith("/sw/bin/python"))
    assert "--nthreads 1 " in command
    assert "--nworkers 4 " in command
    # Each leaves between 4 and 12 minutes before the two hours are over.
    assert "--lifetime 6720s --lifetime-stagger 240s" in command
    assert "--resources" not in command
    assert not any("--gres" in line for line in lines)


def test_a_job_with_a_card_has_one_worker_with_the_resource(slurm):
    script = slurm(workers_per_job=1, gpus_per_job=1)
    assert "#SBATCH --gres=gpu:1" in script.splitlines()
    assert "--resources GPU=1" in script
    with pytest.raises(ClusterError, match="workers_per_job = 1"):
        slurm(workers_per_job=2, gpus_per_job=1)


def test_without_sbatch_the_message_says_where_to_start(monkeypatch):
    monkeypatch.setattr(clusters.shutil, "which", lambda _: None)
    with pytest.raises(ClusterError, match="no sbatch on this machine"):
        start_slurm(2, None, "3GB", **SLURM)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 1800), ("01:30", 90), ("02:00:00", 7200), ("1-12", 129600), ("2-01:30:05", 178205)]
)
def test_wall_times_as_slurm_writes_them(text, seconds):
    assert wall_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "two hours", "0", "1:2:3:4", "-5"])
def test_other_wall_times_are_refused(text):
    with pytest.raises(ValueError, match="hours:minutes:seconds"):
        wall_seconds(text)


@pytest.fixture(scope="module")
def valid():
    """Check a resource against the schema that the operator installs in a Kubernetes cluster."""
    operator = pytest.importorskip("dask_kubernetes.operator")
    jsonschema = pytest.importorskip("jsonschema")
    charts = Path(operator.__file__).parent / "deployment" / "helm" / "dask-kubernetes-operator"
    resource = yaml.safe_load((charts / "crds" / "daskcluster.yaml").read_text())
    schema = resource["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def check(spec):
        jsonschema.validate(spec, schema)
        return spec

    return check


def test_pods_ask_for_one_core_and_their_memory(valid):
    spec = valid(kubernetes_spec(8, "3GB", **KUBERNETES))
    worker = spec["spec"]["worker"]
    container = worker["spec"]["containers"][0]
    assert worker["replicas"] == 8
    assert container["image"] == "registry.example/atomsets:0.1"
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "3000000000"}
    assert "--nthreads 1 --memory-limit 3000000000" in " ".join(container["args"])
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["AWS_REGION"] == "eu-1"
    assert environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "1"
    assert "volumes" not in worker["spec"]


def test_only_workers_get_cards_and_the_volume(valid):
    options = {**KUBERNETES, "gpus_per_worker": 1, "volume_claim": "campaigns"}
    spec = valid(kubernetes_spec(1, "30GB", **options))
    pod, scheduler = spec["spec"]["worker"]["spec"], spec["spec"]["scheduler"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "--resources GPU=1" in " ".join(pod["containers"][0]["args"])
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "campaigns"}
    assert pod["containers"][0]["volumeMounts"] == [{"name": "campaign", "mountPath": "/campaigns"}]
    assert "nvidia.com/gpu" not in str(scheduler)


def test_the_schema_would_notice(valid):
    spec = kubernetes_spec(8, "3GB", **KUBERNETES)
    spec["spec"]["worker"]["spec"]["containers"][0]["args"] = "dask worker"
    with pytest.raises(Exception, match="is not of type 'array'"):
        valid(spec)


def test_jobs_and_pods_need_a_size():
    with pytest.raises(ClusterError, match="memory_per_worker is needed"):
        kubernetes_spec(8, "auto", **KUBERNETES)


def where_it_runs():
    return get_worker().name


def test_heavy_work_goes_to_the_workers_with_cards():
    workers = {
        "plain": {"cls": Worker, "options": {"nthreads": 1}},
        "card": {"cls": Worker, "options": {"nthreads": 1, "resources": {"GPU": 1}}},
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": None}}
    with client.connect(lambda: SpecCluster(scheduler=scheduler, workers=workers, silence_logs=50)):
        assert {client.run(where_it_runs, heavy=True) for _ in range(4)} == {"card"}
    with client.connect(lambda: SpecCluster(scheduler=scheduler, workers={"plain": workers["plain"]})):
        assert client.run(where_it_runs, heavy=True) == "plain"


def test_a_local_worker_keeps_freed_memory_whatever_other_threads_set(monkeypatch):
    start = clusters.LocalCluster

    def late(**options):
        with dask.config.set({"distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": "65536"}}):
            return start(**options)

    monkeypatch.setattr(clusters, "LocalCluster", late)
    with client.connect(lambda: start_local(1, "auto")):
        assert client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_") == clusters.ENVIRONMENT["MALLOC_TRIM_THRESHOLD_"]
        assert client.run(os.environ.get, "OMP_NUM_THREADS") == "1"
        assert client.run(torch.get_num_threads) == 1
        assert [worker["nthreads"] for worker in client.workers().values()] == [1]


def test_a_scheduler_that_does_not_answer_is_given_up(monkeypatch):
    asked, clock = [], [0.0]

    def nobody(address, **_options):
        asked.append(address)
        clock[0] += 30.0
        raise OSError("timed out")

    monkeypatch.setattr(client, "Client", nobody)
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with client.connect(lambda: "tcp://nowhere:8786"):
        for _ in range(2):
            with pytest.raises(ConnectionError, match="no Dask scheduler answers at tcp://nowhere:8786"):
                client.run(abs, 1)
        for _ in range(5):
            with pytest.raises(client.SchedulerLostError, match="no Dask scheduler answers"):
                client.run(abs, 1)
    assert asked == ["tcp://nowhere:8786"] * 2
