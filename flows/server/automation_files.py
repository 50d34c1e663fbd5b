"""Files of automations onto a Prefect server: what is there under the same name is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from atomsets_flows.server.deployment_files import folder, read_yaml, server


class AutomationError(Exception):
    """An automation that can't be installed; the message says what to change."""


def paths(names: Sequence[str]) -> list[Path]:
    """Files of automations by their names without .yaml, or by their paths; all of the folder where none is named.

    Raises:
        AutomationError: there is none of that name.
    """
    there = {path.stem: path for path in sorted((folder() / "automations").glob("*.yaml"))}
    found = []
    for name in names or there:
        path = there.get(name, Path(name))
        if not path.is_file():
            raise AutomationError(f"no automation {name!r}; there are {', '.join(there)}")
        found.append(path)
    return found


def read(path: Path, block_id: str | None) -> Any:
    """The automation of a file.

    Args:
        path: YAML as `prefect automation create` takes it, but that notifications don't name their block.
        block_id: of the block that messages go through; None for no messages.

    Returns:
        `prefect.events.schemas.automations.AutomationCore`.

    Raises:
        AutomationError: it isn't one.
        DeploymentError: the file can't be read.
    """
    from prefect.events.schemas.automations import AutomationCore
    from pydantic import ValidationError

    raw = read_yaml(path)
    try:
        actions = [dict(action) for action in raw["actions"]]
        for action in actions:
            if action["type"] == "send-notification" and block_id is None:
                action.clear()
                action["type"] = "do-nothing"
            elif action["type"] == "send-notification":
                action.setdefault("block_document_id", block_id)
        return AutomationCore.model_validate({**raw, "actions": actions})
    except (ValidationError, KeyError, TypeError) as error:
        raise AutomationError(f"{path}: no automation: {error}") from error


def install_all(files: Sequence[Path], notify: str | None) -> Iterator[str]:
    """Install automations; a line for each that is.

    Args:
        files: of them.
        notify: TYPE/NAME of the block that messages go through; None for no messages.

    Raises:
        AutomationError: a file or block that can't be used.
        ConnectionError: no server, or it refuses.
    """
    with server() as client:
        block_id = None if notify is None else _find_block(client, notify)
        for path in files:
            automation = read(path, block_id)
            same = client.request("POST", "/automations/filter", json=_named(automation.name)).json()
            body = automation.model_dump(mode="json", exclude={"owner_resource"})
            for old in same[:1]:
                client.request("PUT", "/automations/{id}", path_params={"id": old["id"]}, json=body).raise_for_status()
                yield f"{automation.name}: brought up to date"
            if not same:
                client.request("POST", "/automations/", json=body).raise_for_status()
                yield f"{automation.name}: installed"


def remove_all(files: Sequence[Path]) -> int:
    """Remove the automations of these files from the server; how many there were.

    Raises:
        AutomationError: a file that can't be used.
        ConnectionError: no server, or it refuses.
    """
    with server() as client:
        names = [read(path, None).name for path in files]
        found = [
            old for name in names for old in client.request("POST", "/automations/filter", json=_named(name)).json()
        ]
        for old in found:
            client.request("DELETE", "/automations/{id}", path_params={"id": old["id"]}).raise_for_status()
    return len(found)


def _named(name: str) -> dict[str, Any]:
    return {"automations": {"name": {"any_": [name]}}}


def _find_block(client: Any, notify: str) -> str:
    from prefect.exceptions import ObjectNotFound

    kind, _, name = notify.partition("/")
    try:
        return str(client.read_block_document_by_name(name, kind).id)
    except ObjectNotFound:
        raise AutomationError(
            f"no block {notify}: make it on the page Blocks of the UI, where its address stays secret"
        ) from None
