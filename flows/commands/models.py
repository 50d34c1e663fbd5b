"""`atomsets models`: which models a campaign has, which one answers, and going back."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from atomsets_flows.commands.terminal import console, fail, store_at

models_app = typer.Typer(help="Which models a campaign has and which one it predicts with.", no_args_is_help=True)

Folder = Annotated[str, typer.Argument(help="Folder or URL of the campaign.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line on stdout.")]


@models_app.command("list")
def list_models(folder: Folder, as_json: AsJson = False) -> None:
    """Show every model of a campaign: champions, challengers, those set aside.

    Examples:
      atomsets models list campaigns/incompressible
    """
    from dataclasses import asdict

    from atomsets_core.report import MODELS, model_rows

    registry = _read(folder)
    if not registry.entries:
        fail(1, f"{folder}: no model yet: run `atomsets screen` or `atomsets retrain`")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in MODELS:
        table.add_column(name, no_wrap=name != MODELS[-1])
    for row in model_rows(registry):
        table.add_row(*row)
    console.print(table)
    for event in registry.log[-5:]:
        other = f" (other: {event.other})" if event.other else ""
        console.print(f"{event.at[:16]}  {event.what}: {event.model}{other}", highlight=False, soft_wrap=True)
    if as_json:
        models = [asdict(entry) for entry in registry.entries.values()]
        print(json.dumps({"champions": registry.champions, "models": models}))


@models_app.command()
def promote(
    folder: Folder,
    model: Annotated[str, typer.Argument(help="Its name, or the beginning of it.")],
    as_json: AsJson = False,
) -> None:
    """Make a model the champion, whatever the comparison said. The next screen predicts with it.

    Examples:
      atomsets models promote campaigns/incompressible 3f2a
    """
    _change(folder, as_json, lambda registry: registry.promote(registry.find(model), "by hand"))


@models_app.command()
def rollback(folder: Folder, as_json: AsJson = False) -> None:
    """Go back to the champion before this one, which is set aside. The next screen predicts with the old one.

    Examples:
      atomsets models rollback campaigns/incompressible
    """

    def go_back(registry: Any) -> Any:
        from atomsets_core.campaigns import RegistryError, read_standing
        from atomsets_core.storage import Store

        if not registry.log:
            raise RegistryError("there is no champion to go back from")
        # of the campaign as the last run had it, else as it was decided on last
        last = read_standing(Store(folder))
        entry = registry.entries.get(last.model) if last else None
        return registry.go_back(entry.definition if entry else registry.log[-1].definition, "by hand")

    _change(folder, as_json, go_back)


def _read(folder: str) -> Any:
    from atomsets_core.campaigns import read_registry
    from atomsets_core.storage import StorageError, Store

    try:
        return read_registry(Store(folder))
    except StorageError as error:
        fail(2, str(error))


def _change(folder: str, as_json: bool, change: Any) -> None:
    """Change the registry while no run is at work; print who is champion now."""
    from atomsets_core.campaigns import REGISTRY, RegistryError, read_registry, write_registry
    from atomsets_core.storage import StorageError

    store = store_at(folder)
    try:
        if not store.exists(REGISTRY):
            fail(2, f"{folder}: no campaign with models")
        with store.lock():
            registry = change(read_registry(store))
            write_registry(store, registry)
    except (RegistryError, StorageError) as error:
        fail(2, str(error))
    event = registry.log[-1]
    console.print(f"champion is {event.model}, instead of {event.other}", highlight=False, soft_wrap=True)
    console.print("the next `atomsets screen` predicts with it", highlight=False)
    if as_json:
        print(json.dumps({"champion": event.model, "instead_of": event.other}))
