"""Clusters that can be started: processes on this machine, SLURM jobs, Kubernetes pods.

Workers have one thread each, also inside numpy and torch: two of them on two cores do more than one with two threads,
and one that dies takes only its own shard with it.

Whoever may speak to a scheduler or a worker runs code there. So those that are started here speak TLS with a
certificate that is made for the run and that nobody else has, and their web pages, which know no password, are closed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import LocalCluster, Nanny
from distributed.security import Security

ENVIRONMENT = {
    # No file of the folder that it starts in is taken for a module, whatever its name.
    "PYTHONSAFEPATH": "1",
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


NO_PAGES = {
    "distributed.scheduler.preload": ["atomsets_tasks.clusters"],
    "distributed.scheduler.http.routes": [],
}
"""More of those whose web pages nobody needs, see `dask_setup`; those of a pod are asked whether it lives."""

PRELOAD = "atomsets_core.jobs.structures"
"""What a worker imports before it takes work, so that no time limit counts the import."""


HERE = "atomsets_tasks.clusters"
"""This module, which schedulers and workers preload for `dask_setup`."""

CERTIFICATES = ".atomsets-tls-"
"""Beginning of the name of a folder with the certificate of a run; host and process follow."""


class ClusterError(Exception):
    """A cluster that can't be started or used; the message says why and what to do."""


@dataclass(frozen=True)
class Running:
    """A scheduler that runs already.

    Attributes:
        address: e.g. tls://host:8786.
        security: certificates to reach it with; None where it wants none.
    """

    address: str
    security: Security | None = None


def running(address: str, ca: str | None = None, certificate: str | None = None, key: str | None = None) -> Running:
    """A scheduler that runs already, and the files to reach it with.

    Args:
        address: of it.
        ca: file of the authority that signed its certificate.
        certificate: file of one's own, signed by the same.
        key: file of its key; None where it stands in the file of the certificate.

    Raises:
        ClusterError: a file can't be read, or is no certificate.
    """
    if ca is None or certificate is None:
        return Running(address)
    key = key or certificate
    for name in (ca, certificate, key):
        if not os.access(name, os.R_OK):
            raise ClusterError(f"{name} can't be read: cluster.tls names the certificates of the scheduler's owner")
    security = Security(
        require_encryption=True,
        tls_ca_file=ca,
        **{f"tls_{role}_{what}": file for role in ROLES for what, file in (("cert", certificate), ("key", key))},
    )
    try:
        security.get_connection_args("client")
    except (OSError, ValueError) as error:
        raise ClusterError(f"the certificates in cluster.tls can't be used ({certificate}): {error}") from error
    return Running(address, security)


ROLES = ("client", "scheduler", "worker")


def dask_setup(server: Any) -> None:
    """Close the web page of a scheduler or worker that preloads this module: it asks nobody for a password."""
    if getattr(server, "http_server", None) is not None:
        server.http_server.stop()


def certificate_for_a_run() -> tuple[str, str]:
    """A certificate that vouches for itself, and its key, both as PEM.

    It is valid from yesterday on, since clocks of nodes differ, and for a year, since nobody has it after the run.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "atomsets-run")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _security(certificate: str, key: str) -> Security:
    """Security of a run whose parts all have the one certificate: PEM, or names of files."""
    parts = {f"tls_{role}_{what}": value for role in ROLES for what, value in (("cert", certificate), ("key", key))}
    return Security(require_encryption=True, tls_ca_file=certificate, **parts)


def _shared_certificate(folder: Path) -> tuple[tempfile.TemporaryDirectory[str], Security]:
    """The same in files that only their owner can read; they go when the object that is given back does.

    Raises:
        ClusterError: they can't be written.
    """
    start = f"{CERTIFICATES}{socket.gethostname()}-"
    try:
        for left in folder.glob(f"{start}*"):
            process = left.name.removeprefix(start).partition("-")[0]
            if process.isdigit() and not Path(f"/proc/{process}").exists():  # its run was killed
                shutil.rmtree(left, ignore_errors=True)
        place = tempfile.TemporaryDirectory(prefix=f"{start}{os.getpid()}-", dir=folder, ignore_cleanup_errors=True)
        paths = []
        for name, text in zip(("run.crt", "run.key"), certificate_for_a_run(), strict=True):
            path = Path(place.name, name)
            path.touch(mode=0o600)
            path.write_text(text)
            paths.append(str(path))
    except OSError as error:
        raise ClusterError(
            f"the certificate of the run can't be written to {folder} ({error}): set cluster.slurm.shared_folder to a "
            "folder that the nodes see and that can be written"
        ) from error
    return place, _security(*paths)


class _Nanny(Nanny):
    """Keeps a worker process, whose environment is `ENVIRONMENT`.

    Dask has a setting for it, which is the process's: another thread may set it back before the worker is there, and
    workers that take the place of lost ones are made after it went.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pre_spawn_env = {**self.pre_spawn_env, **ENVIRONMENT}


def start_local(workers: int | None, memory_per_worker: str) -> LocalCluster:
    """Worker processes on this machine.

    Args:
        workers: how many; None for one on each core this process may use.
        memory_per_worker: at 95 % of which a worker is restarted, e.g. "4GB"; "auto" shares the memory out.
    """
    # A worker that died is started again by its nanny. Dask would give the two up for good when that takes longer than
    # 15 s, as it does on a busy machine, and it reads this setting then, not now.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"})
    with dask.config.set({**SCHEDULER, **NO_PAGES}):
        return LocalCluster(
            worker_class=_Nanny,
            n_workers=workers or len(os.sched_getaffinity(0)),
            threads_per_worker=1,
            processes=True,
            memory_limit=memory_per_worker,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            security=_security(*certificate_for_a_run()),
            preload=[PRELOAD, HERE],
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
    try:
        _ask_slurm(cluster.job_script())
    except ClusterError:
        cluster.close()
        raise
    # Adaptive also where the number is fixed: only then are jobs that ended replaced.
    cluster.adapt(minimum=workers if min_workers is None else min_workers, maximum=workers)
    cluster.why_waiting = partial(_why_jobs_wait, cluster)
    return cluster


def _why_jobs_wait(cluster: Any, seconds: float) -> str:
    """Why no worker is there after so many seconds, as SLURM tells it, and what to do."""
    ids = [str(job.job_id) for job in list(cluster.workers.values()) if getattr(job, "job_id", None)]
    told = ""
    if ids:
        command = ["squeue", "--noheader", "--format=%T %r", f"--jobs={','.join(ids)}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        told = "; ".join(f"{n} {line}" for line, n in Counter(done.stdout.splitlines()).items())
    where = f"SLURM says of its jobs: {told}" if told else "SLURM knows none of its jobs: see their logs, or `sacct`"
    return (
        f"no worker has come for {seconds:.0f} s; {where}. `squeue --me --start` tells when; less memory_per_worker, "
        "fewer workers_per_job, a shorter walltime or another partition start sooner. Ctrl-C stops the run and its "
        "jobs: what is finished is kept"
    )


def _ask_slurm(script: str) -> None:
    """Have SLURM look at a job without taking it.

    Raises:
        ClusterError: it would refuse it, for a partition that doesn't exist for instance.
    """
    command = ["sbatch", "--test-only"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"sbatch ended with {done.returncode}"
        raise ClusterError(
            f"SLURM refuses the jobs of this campaign ({words}): see cluster.slurm and cluster.memory_per_worker; "
            "`sinfo` lists partitions and what their nodes have"
        )


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
    shared_folder: str | None = None,
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
        shared_folder: that the nodes see too, for the certificate of the run; None for the home.

    Raises:
        ClusterError: dask-jobqueue is not installed, an option doesn't fit, or the folder can't be written.
    """
    try:
        with handlers_kept():
            from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ClusterError("SLURM clusters need dask-jobqueue: pip install 'atomsets-screening[slurm]'") from error
    if gpus_per_job and workers_per_job != 1:
        raise ClusterError("a job with graphics cards has one worker: set workers_per_job = 1, gpus_per_job = 1")
    seconds = wall_seconds(walltime)
    stagger = min(240, seconds // 20)
    lifetime = ["--lifetime", f"{seconds - 2 * stagger}s", "--lifetime-stagger", f"{stagger}s"]
    resources = ["--resources", f"GPU={gpus_per_job}"] if gpus_per_job else []
    certificates, security = _shared_certificate(Path(shared_folder or "~").expanduser())
    with dask.config.set({**SCHEDULER, **NO_PAGES}):
        made: Any = SLURMCluster(
            cores=workers_per_job,
            processes=workers_per_job,
            memory=f"{workers_per_job * _bytes(memory_per_worker)}B",
            queue=partition,
            account=account,
            walltime=walltime,
            interface=interface,
            log_directory=log_directory,
            python=python,
            security=security,
            worker_extra_args=["--no-dashboard", "--preload", PRELOAD, "--preload", HERE, *lifetime, *resources],
            job_extra_directives=[*([f"--gres=gpu:{gpus_per_job}"] if gpus_per_job else []), *directives],
            job_script_prologue=[*(f"export {name}={value}" for name, value in ENVIRONMENT.items()), *prologue],
            scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        )
    made.certificates = certificates  # there as long as it is
    return made


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Leave the handling of signals as it is while something is imported that would change it.

    dask-jobqueue's import takes Ctrl-C for itself, and fails outside the main thread, where Python allows no such
    thing.
    """
    importing, change = threading.get_ident(), signal.signal

    def leave(number: Any, handler: Any) -> Any:
        return signal.getsignal(number) if threading.get_ident() == importing else change(number, handler)

    signal.signal = leave  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = change


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
        with handlers_kept():
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
