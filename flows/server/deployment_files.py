"""deployments/prefect.yaml and deployments/automations, read for the commands that serve, deploy and install them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

FILE = Path("deployments/prefect.yaml")
POOL = "atomsets"


class DeploymentError(Exception):
    """A file of deployments that can't be used; the message says what to change."""


def folder() -> Path:
    """The folder `deployments` of the working directory, or the one that was installed."""
    if FILE.is_file():
        return FILE.parent
    beside = Path(str(resources.files("atomsets_flows"))).parent
    installed = beside / "atomsets_deployments"
    return installed if installed.is_dir() else beside / FILE.parent


def read(path: Path | None = None) -> list[dict[str, Any]]:
    """The deployments of a file as Prefect takes them.

    Raises:
        DeploymentError: there is no such file, it isn't YAML, or it holds no deployments.
    """
    path = path or folder() / FILE.name
    raw = read_yaml(path)
    found = raw.get("deployments") if isinstance(raw, dict) else None
    if not found:
        raise DeploymentError(f"{path}: no deployments in it")
    return list(found)


def read_yaml(path: Path) -> Any:
    """A YAML file.

    Raises:
        DeploymentError: it doesn't exist or isn't YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise DeploymentError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise DeploymentError(f"{path}: not YAML: {error}") from error


def chosen(deployments: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Those of these names; all where none is named.

    Raises:
        DeploymentError: there is none of that name.
    """
    known = [deployment["name"] for deployment in deployments]
    for name in names:
        if name not in known:
            raise DeploymentError(f"no deployment {name!r}; there are {', '.join(known)}")
    return [deployment for deployment in deployments if not names or deployment["name"] in names]


@contextmanager
def server() -> Iterator[Any]:
    """A client of the Prefect server of PREFECT_API_URL.

    Raises:
        ConnectionError: none is named, none answers, or it doesn't let one in; also for what happens inside.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise ConnectionError("no Prefect server: set PREFECT_API_URL, e.g. to http://127.0.0.1:4200/api")
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            raise ConnectionError(f"{url} wants a password: set PREFECT_API_AUTH_STRING to user:password") from error
        raise ConnectionError(f"{url} refused a request: {error.response.text}") from error
    except httpx.HTTPError as error:
        raise ConnectionError(f"no Prefect server answers at {url}: {error}") from error


def runner_deployment(raw: dict[str, Any], scheduled: bool) -> Any:
    """A deployment to be served by this process; the work pool doesn't matter then.

    Args:
        raw: as in the file.
        scheduled: with its schedules; else it waits for a click.

    Raises:
        DeploymentError: parameters that the flow doesn't take.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.deployments.runner import EntrypointType
    from prefect.exceptions import ParameterTypeError
    from prefect.flows import load_flow_from_entrypoint
    from prefect.schedules import Cron

    flow: Any = load_flow_from_entrypoint(raw["entrypoint"], use_placeholder_flow=False)
    try:
        flow.validate_parameters(raw.get("parameters", {}))
    except ParameterTypeError as error:
        raise DeploymentError(f"deployment {raw['name']}: {error}") from error
    limit = raw.get("concurrency_limit")
    schedules = [
        Cron(item["cron"], timezone=item.get("timezone", "UTC"), active=item.get("active", True))
        for item in raw.get("schedules", [])
    ]
    return flow.to_deployment(
        raw["name"],
        description=raw.get("description"),
        tags=raw.get("tags"),
        parameters=raw.get("parameters"),
        schedules=schedules if scheduled else None,
        concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
