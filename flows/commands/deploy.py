"""`atomsets deploy`: the deployments of a file, and the work pool they go to, on a Prefect server."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """What a run becomes."""

    process = "process"
    docker = "docker"
    kubernetes = "kubernetes"


def deploy(
    names: Annotated[list[str] | None, typer.Argument(help="Deployments; all of the file where none is named.")] = None,
    file: Annotated[Path | None, typer.Option(help="File of deployments; by default deployments/prefect.yaml.")] = None,
    kind: Annotated[
        Kind, typer.Option(help="Of the work pool, if it has to be made: what a run becomes.")
    ] = Kind.process,
    template: Annotated[
        Path | None, typer.Option(help="Job template of the pool; by default deployments/pools/KIND.json.")
    ] = None,
) -> None:
    """Make the work pool where there is none, and call `prefect deploy`.

    The server is that of PREFECT_API_URL. Then start a worker: ATOMSETS_HOME=$PWD prefect worker start --pool atomsets

    Examples:
      atomsets deploy
      atomsets deploy weekly nightly --kind kubernetes --template my-pool.json
    """
    from atomsets_flows.commands.terminal import console, fail
    from atomsets_flows.server import FILE, POOL, DeploymentError, chosen, folder, quiet_environment, read

    quiet_environment(verbose=True)
    path = file or folder() / FILE.name
    try:
        asked = chosen(read(path), names or [])
        pools = {deployment.get("work_pool", {}).get("name", POOL) for deployment in asked}
        for pool in sorted(pools):
            made = _make_pool(pool, kind, template or folder() / "pools" / f"{kind}.json")
            console.print(f"work pool {pool} ({made})", highlight=False)
    except (DeploymentError, ConnectionError) as error:
        fail(2, str(error))
    selection = [word for name in names or [] for word in ("--name", name)] or ["--all"]
    command = ["deploy", *selection, "--prefect-file", str(path)]
    code = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "prefect", "--no-prompt", *command], check=False, stdin=subprocess.DEVNULL
    ).returncode
    if code:
        fail(1, f"`prefect {' '.join(command)}` ended with {code}")


def _make_pool(name: str, kind: Kind, template: Path) -> str:
    """Make a work pool unless there is one; its kind.

    Raises:
        ConnectionError: no server, or it refuses.
        DeploymentError: the template can't be used.
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    from atomsets_flows.server import DeploymentError, read_yaml, server

    with server() as client:
        try:
            return f"of type {client.read_work_pool(name).type}, was there"
        except ObjectNotFound:
            pass
        jobs = read_yaml(template)  # JSON is YAML
        if not isinstance(jobs, dict) or set(jobs) != {"job_configuration", "variables"}:
            raise DeploymentError(f"{template}: a job template has job_configuration and variables")
        client.create_work_pool(WorkPoolCreate(name=name, type=str(kind), base_job_template=jobs))
    return f"of type {kind}, made from {template}"
