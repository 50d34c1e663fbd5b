"""Clusters that can be started: processes on this machine, SLURM jobs, Kubernetes pods.

Workers have one thread each, also inside numpy and torch: two of them on two cores do more than one with two threads,
and one that dies takes only its own shard with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import LocalCluster

ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # Dask has workers give every freed array back to the system, which then has to clear the pages of the next one:
    # a quarter more time for features. 512 MB may stay, and arrays below 32 MB come from there.
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}
"""Environment of a worker, when it starts."""

SCHEDULER = {
    # Two deaths of workers make a piece of work suspect; it is then looked at structure by structure.
    "distributed.scheduler.allowed-failures": 1,
    # A worker holds nothing but what it works on, so that its death blames nothing else.
    "distributed.scheduler.worker-saturation": 1.0,
}
"""Settings of the schedulers that are started here."""


PRELOAD = "atomsets_core.jobs.structures"
"""What a worker imports before it takes work, so that no time limit counts the import."""


class ClusterError(Exception):
    """A cluster that can't be started or used; the message says why and what to do."""


def start_local(workers: int | None, memory_per_worker: str) -> LocalCluster:
    """Worker processes on this machine.

    Args:
        workers: how many; None for one on each core this process may use.
        memory_per_worker: at 95 % of which a worker is restarted, e.g. "4GB"; "auto" shares the memory out.
    """
    # A worker that died is started again by its nanny. Dask would give the two up for good when that takes longer than
    # 15 s, as it does on a busy machine, and it reads this setting then, not now.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"})
    with dask.config.set({**SCHEDULER, "distributed.nanny.pre-spawn-environ": ENVIRONMENT}):
        return LocalCluster(
            n_workers=workers or len(os.sched_getaffinity(0)),
            threads_per_worker=1,
            processes=True,
            memory_limit=memory_per_worker,
            dashboard_address="127.0.0.1:0",
            preload=[PRELOAD],
        )


def start_slurm(workers: int, min_workers: int | None, memory_per_worker: str, **options: Any) -> Any:
    """Workers in SLURM jobs, which the scheduler in this process submits with sbatch.

    Args:
        workers: as many as there may be.
        min_workers: as many as there are when nothing is to do; None for always `workers`.
        memory_per_worker: e.g. "4GB".
        options: see `slurm_cluster`.

    Raises:
        ClusterError: dask-jobqueue is not installed, an option doesn't fit, or there is no sbatch here.
    """
    if not shutil.which("sbatch"):
        raise ClusterError("no sbatch on this machine: start the campaign on a node that can submit SLURM jobs")
    cluster = slurm_cluster(memory_per_worker, **options)
    # Adaptive also where the number is fixed: only then are jobs that ended replaced.
    cluster.adapt(minimum=workers if min_workers is None else min_workers, maximum=workers)
    return cluster


def slurm_cluster(
    memory_per_worker: str,
    *,
    partition: str | None,
    account: str | None,
    walltime: str,
    workers_per_job: int,
    gpus_per_job: int,
    interface: str | None,
    log_directory: str | None,
    prologue: Sequence[str],
    directives: Sequence[str],
    python: str | None,
) -> Any:
    """A cluster without workers yet, that knows how to submit jobs.

    A worker stops by itself a few minutes before its job's wall time ends, each at another moment, and hands its work
    back: otherwise SLURM would kill it in the middle of a shard. What then is missing is submitted anew.

    Args:
        memory_per_worker: e.g. "4GB".
        partition: sbatch -p.
        account: sbatch -A.
        walltime: of a job, hours:minutes:seconds.
        workers_per_job: worker processes, each on a core of its own.
        gpus_per_job: graphics cards; a worker of such a job takes network work alone, one of them on each card.
        interface: network interface, e.g. "ib0".
        log_directory: of the jobs.
        prologue: shell lines before the worker starts, e.g. "module load cuda".
        directives: more lines behind #SBATCH.
        python: interpreter on the nodes.

    Raises:
        ClusterError: dask-jobqueue is not installed, or an option doesn't fit.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ClusterError("SLURM clusters need dask-jobqueue: pip install 'atomsets-screening[slurm]'") from error
    if gpus_per_job and workers_per_job != 1:
        raise ClusterError("a job with graphics cards has one worker: set workers_per_job = 1, gpus_per_job = 1")
    seconds = wall_seconds(walltime)
    stagger = min(240, seconds // 20)
    lifetime = ["--lifetime", f"{seconds - 2 * stagger}s", "--lifetime-stagger", f"{stagger}s"]
    resources = ["--resources", f"GPU={gpus_per_job}"] if gpus_per_job else []
    with dask.config.set(SCHEDULER):
        return SLURMCluster(
            cores=workers_per_job,
            processes=workers_per_job,
            memory=f"{workers_per_job * _bytes(memory_per_worker)}B",
            queue=partition,
            account=account,
            walltime=walltime,
            interface=interface,
            log_directory=log_directory,
            python=python,
            worker_extra_args=["--preload", PRELOAD, *lifetime, *resources],
            job_extra_directives=[*([f"--gres=gpu:{gpus_per_job}"] if gpus_per_job else []), *directives],
            job_script_prologue=[*(f"export {name}={value}" for name, value in ENVIRONMENT.items()), *prologue],
            scheduler_options={"dashboard_address": ":0"},
        )


def start_kubernetes(workers: int, min_workers: int | None, memory_per_worker: str, **options: Any) -> Any:
    """Workers in pods, by the Dask operator that runs in the Kubernetes cluster.

    Args:
        workers: pods, or as many as there may be.
        min_workers: pods when nothing is to do; None for always `workers`.
        memory_per_worker: of a pod, e.g. "4GB".
        options: see `kubernetes_spec`, and `namespace`.

    Raises:
        ClusterError: dask-kubernetes is not installed.
    """
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise ClusterError("Kubernetes needs dask-kubernetes: pip install 'atomsets-screening[kubernetes]'") from error
    namespace = options.pop("namespace")
    spec = kubernetes_spec(workers, memory_per_worker, **options)
    cluster = KubeCluster(namespace=namespace, custom_cluster_spec=spec, quiet=True)
    if min_workers is not None:
        cluster.adapt(minimum=min_workers, maximum=workers)
    return cluster


def kubernetes_spec(
    workers: int,
    memory_per_worker: str,
    *,
    name: str,
    image: str,
    cpu_per_worker: float,
    gpus_per_worker: int,
    environment: Mapping[str, str],
    volume_claim: str | None,
    mount: str,
    env_from: str | None = None,
) -> dict[str, Any]:
    """The DaskCluster resource: a scheduler, and pods of one worker with one thread each.

    Args:
        workers: pods.
        memory_per_worker: request and limit of a pod, e.g. "4GB".
        name: of the cluster.
        image: of scheduler and workers: atomsets-screening with what the parent needs, the same version as here.
        cpu_per_worker: request and limit of a pod.
        gpus_per_worker: graphics cards of a pod; such workers take network work alone.
        environment: of scheduler and workers; no keys, which anyone who reads the resource would see.
        volume_claim: persistent volume that holds the campaign's folder, for one that is not in an object store.
        mount: where the volume is mounted; the same path as here.
        env_from: Kubernetes Secret whose entries become variables of scheduler and workers.

    Raises:
        ClusterError: dask-kubernetes is not installed.
    """
    try:
        from dask_kubernetes.operator import make_cluster_spec
    except ImportError as error:
        raise ClusterError("Kubernetes needs dask-kubernetes: pip install 'atomsets-screening[kubernetes]'") from error
    size = {"cpu": f"{cpu_per_worker:g}", "memory": str(_bytes(memory_per_worker))}
    if gpus_per_worker:
        size["nvidia.com/gpu"] = str(gpus_per_worker)
    command = ["dask", "worker", "--nthreads", "1", "--memory-limit", size["memory"], "--preload", PRELOAD]
    if gpus_per_worker:
        command += ["--resources", f"GPU={gpus_per_worker}"]
    spec: dict[str, Any] = make_cluster_spec(
        name=name,
        image=image,
        n_workers=workers,
        env={**ENVIRONMENT, **{_variable(key): str(value) for key, value in SCHEDULER.items()}, **environment},
        resources={"requests": size, "limits": size},
        worker_command=command,
    )
    # The scheduler needs no card, and little else.
    spec["spec"]["scheduler"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1", "memory": "2Gi"}}
    if env_from:
        for part in ("scheduler", "worker"):
            spec["spec"][part]["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": env_from}}]
    if volume_claim:
        pod = spec["spec"]["worker"]["spec"]
        pod["volumes"] = [{"name": "campaign", "persistentVolumeClaim": {"claimName": volume_claim}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "campaign", "mountPath": mount}]
    return spec


def wall_seconds(text: str) -> int:
    """Seconds of a wall time as SLURM writes it: minutes, minutes:seconds, hours:minutes:seconds, with days- before.

    Raises:
        ValueError: it is none of those.
    """
    days, dash, rest = text.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        if dash:
            hours, minutes, seconds = [*parts, 0, 0][:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:
            hours, (minutes, seconds) = 0, [*parts, 0][:2]
        total = ((int(days if dash else 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    except ValueError:
        total = 0
    if total <= 0 or rest.count(":") > 2:
        raise ValueError(f"a wall time is written hours:minutes:seconds, not {text!r}")
    return total


def _bytes(text: str) -> int:
    if text == "auto":
        raise ClusterError("memory_per_worker is needed for a cluster that is asked for memory, e.g. 4GB")
    return int(parse_bytes(text))


def _variable(key: str) -> str:
    """Environment variable that sets a key of Dask's configuration."""
    return "DASK_" + key.upper().replace(".", "__").replace("-", "_")
