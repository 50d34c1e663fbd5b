"""The section of the campaign file on the cluster: its kind, workers, memory, and how long a shard may take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import Field, field_validator, model_validator

from atomsets_flows.campaign.base import DISTANT_WORKERS, Section
from atomsets_tasks import running, start_kubernetes, start_local, start_slurm, wall_seconds


class Slurm(Section):
    """Jobs that hold the workers of a SLURM cluster."""

    partition: str | None = Field(None, description="Partition, sbatch -p.")
    account: str | None = Field(None, description="Account, sbatch -A.")
    walltime: str = Field("04:00:00", description="Of a job, hours:minutes:seconds; workers leave before it ends.")
    workers_per_job: Annotated[int, Field(ge=1)] = Field(1, description="Workers in a job, each on its own core.")
    gpus_per_job: Annotated[int, Field(ge=0, le=1)] = Field(
        0, description="1 for jobs with a graphics card, which take network work alone, one worker a card."
    )
    interface: str | None = Field(None, description="Network interface of the workers, e.g. ib0.")
    log_directory: str | None = Field(None, description="Folder of the logs of the jobs.")
    prologue: list[str] = Field(default_factory=list, description="Shell lines before a worker, e.g. module load cuda.")
    directives: list[str] = Field(default_factory=list, description="More of what stands behind #SBATCH.")
    python: str | None = Field(None, description="Interpreter on the nodes; by default the one that runs the campaign.")
    shared_folder: str | None = Field(
        None, description="Folder that the nodes see too, for the certificate of the run; by default the home."
    )

    @field_validator("walltime")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        wall_seconds(text)
        return text

    @model_validator(mode="after")
    def _one_worker_a_card(self) -> Slurm:
        if self.gpus_per_job and self.workers_per_job > 1:
            raise ValueError("with gpus_per_job = 1 a job has one worker: workers_per_job = 1")
        return self


class Kubernetes(Section):
    """Pods that hold the workers, made by the Dask operator."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")] = Field(
        "atomsets", description="Of the Dask cluster: lower case letters, digits and dashes."
    )
    namespace: str = Field("default", description="Namespace of the pods.")
    image: str = Field("", description="Container image with atomsets-screening and its parents; needed.")
    cpu_per_worker: Annotated[float, Field(gt=0)] = Field(1.0, description="Cores that a pod asks for and gets.")
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = Field(
        0, description="1 for pods with a graphics card, which take network work alone."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of all pods, but for keys, e.g. AWS_ENDPOINT_URL."
    )
    env_from: str | None = Field(
        None, description="Kubernetes Secret whose entries all pods have as variables, e.g. keys of an object store."
    )
    volume_claim: str | None = Field(
        None, description="Persistent volume claim with the campaign's folder, for one outside object stores."
    )
    mount: str = Field("/campaigns", description="Where pods see that volume; the same path as in --out.")


class Tls(Section):
    """Certificates of a Dask scheduler that runs already; PEM files of this machine."""

    ca: str | None = Field(None, description="File of the authority that signed all of them.")
    certificate: str | None = Field(None, description="File of the campaign's own certificate.")
    key: str | None = Field(None, description="File of its key; by default it stands in the certificate's.")

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.ca is None) != (self.certificate is None) or (self.key is not None and self.certificate is None):
            raise ValueError("ca and certificate go together: give both files, and key where it is another one")
        return self


class Cluster(Section):
    """Where the work runs."""

    kind: Literal["local", "address", "slurm", "kubernetes"] = Field(
        "local", description="Processes here, a running Dask scheduler, SLURM jobs, or Kubernetes pods."
    )
    address: str | None = Field(
        None, description="Of a running Dask scheduler, e.g. tls://host:8786; makes the kind address."
    )
    workers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Workers, of one thread each; by default one for each core this process may use, else 4."
    )
    min_workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Workers that stay when there is little to do (SLURM, Kubernetes); by default all."
    )
    memory_per_worker: str = Field(
        "auto", description="Limit at which a worker is restarted, e.g. 4GB; jobs and pods ask for as much."
    )
    shard_timeout: Annotated[float, Field(gt=0)] | None = Field(
        1800.0, description="Seconds a shard may take before it is tried elsewhere and then cut to find what hangs."
    )
    tls: Tls = Tls()  # type: ignore[call-arg]
    slurm: Slurm = Slurm()  # type: ignore[call-arg]
    kubernetes: Kubernetes = Kubernetes()  # type: ignore[call-arg]

    @model_validator(mode="before")
    @classmethod
    def _address_is_a_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("address") and "kind" not in values:
            return {**values, "kind": "address"}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Cluster:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("address goes with the kind address, and that kind needs it")
        if (self.tls.ca is not None) != (self.address or "").startswith("tls://"):
            raise ValueError("an address that begins with tls:// needs the certificates in cluster.tls, no other does")
        if self.min_workers is not None and self.kind not in ("slurm", "kubernetes"):
            raise ValueError(f"min_workers is for slurm and kubernetes, not for the kind {self.kind}")
        if self.min_workers is not None and self.min_workers > (self.workers or DISTANT_WORKERS):
            raise ValueError(f"min_workers = {self.min_workers} is above workers = {self.workers or DISTANT_WORKERS}")
        if self.kind in ("slurm", "kubernetes") and self.memory_per_worker == "auto":
            raise ValueError(f"memory_per_worker is needed for {self.kind}, e.g. 4GB")
        if self.kind == "kubernetes" and not self.kubernetes.image:
            raise ValueError("kubernetes.image is needed: a container image with atomsets-screening")
        if self.memory_per_worker != "auto":
            try:
                parse_bytes(self.memory_per_worker)
            except ValueError as error:
                raise ValueError(f"memory_per_worker = {self.memory_per_worker!r}: write it like 4GB") from error
        return self

    def start(self) -> Any:
        """The cluster, started, or the address of the one that runs; for `atomsets_tasks.client.connect`."""
        if self.kind == "address":
            return running(self.address or "", self.tls.ca, self.tls.certificate, self.tls.key)
        if self.kind == "local":
            return start_local(self.workers, self.memory_per_worker)
        size = (self.workers or DISTANT_WORKERS, self.min_workers, self.memory_per_worker)
        if self.kind == "slurm":
            return start_slurm(*size, **self.slurm.model_dump())
        return start_kubernetes(*size, **self.kubernetes.model_dump())
