"""`atomsets verify`: is every file of a campaign what it was written as, and is anything missing?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from atomsets_flows.commands.terminal import Bars, console, fail, start_server, store_at

if TYPE_CHECKING:
    from atomsets_core.campaigns import Verification
    from atomsets_core.storage import Store
    from atomsets_flows.campaign import Campaign, JointCampaign


def verify(
    campaign: Annotated[str, typer.Argument(help="Folder or URL of a campaign.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what is damaged and make just that again, as `screen` would.")
    ] = False,
    shared: Annotated[
        str | None,
        typer.Option("--store", help="Feature store outside of the folder that --repair may touch."),
    ] = None,
    as_named: Annotated[
        bool, typer.Option("--as-named", help="Run with the cluster and the commands that the folder's files name.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line on stdout.")] = False,
) -> None:
    """Check every file of a campaign; exit 0 if it is whole, 1 if something is damaged or missing.

    With --repair damaged files are removed and the campaign is run once more, which makes what is missing and nothing
    else, from its sources where structures themselves are damaged. A folder may come from anybody: clusters, commands
    and stores that its campaign.json names are shown and asked for first.

    Examples:
      atomsets verify campaigns/incompressible
      atomsets verify campaigns/incompressible --repair
    """
    from atomsets_core.storage import StorageError

    store = store_at(campaign)
    if store.is_local and not store.local(".").is_dir():
        fail(2, f"{campaign}: there is no such folder")
    try:
        found = _look(store)
    except StorageError as error:
        fail(2, str(error))
    _tell(found, campaign)
    repaired = 0
    if repair and (not found.whole or found.leftovers):
        repaired = len(found.everything)
        _repair(store, found, shared, as_named)
        found = _look(store)
        _tell(found, campaign)
    if as_json:
        print(json.dumps(_as_json(found, repaired)))
    if found.everything:
        raise typer.Exit(1)


def _look(store: Store) -> Verification:
    from atomsets_core.campaigns import verify as check
    from atomsets_core.storage import StorageError

    try:
        with store.lock():
            return check(store)
    except StorageError as error:
        # A folder that can't be written, an archive for instance, can be checked all the same.
        if "can't be written" not in str(error):
            raise
    return check(store)


def _repair(store: Store, found: Verification, shared: str | None, as_named: bool) -> None:
    from atomsets_core.campaigns import ASKED
    from atomsets_core.campaigns import repair as remove
    from atomsets_core.storage import StorageError

    if ASKED in {finding.file for finding in found.everything}:
        fail(1, f"{ASKED} is not what was written: run `atomsets screen` with the campaign file instead")
    asked = _asked(store)
    _ask_for(asked, shared, as_named)
    try:
        with store.lock():
            remove(store, found, shared)
    except StorageError as error:
        fail(1, str(error))
    console.print("damaged files are removed; the campaign runs again for what is missing", highlight=False)
    _run(store, asked)


def _asked(store: Store) -> Campaign | JointCampaign:
    from atomsets_core.campaigns import ASKED
    from atomsets_core.storage import StorageError
    from atomsets_flows.campaign import Campaign, JointCampaign

    try:
        raw = store.read_json(ASKED)
        kind = JointCampaign if isinstance(raw, dict) and "properties" in raw else Campaign
        return kind.model_validate(raw)
    except (StorageError, ValueError) as error:
        fail(1, f"{error}\nRun `atomsets screen` with the campaign file, where its sources are.")


def _ask_for(asked: Campaign | JointCampaign, shared: str | None, as_named: bool) -> None:
    """Show what the folder's campaign would start or write elsewhere, and go on only where the user says so."""
    named = reaches(asked)
    if shared is not None:
        named = [line for line in named if not line.startswith("features.store")]
    if not named or as_named:
        return
    console.print("the campaign.json of this folder names, and a repair would use:", highlight=False)
    for line in named:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if not sys.stdin.isatty():
        fail(
            2,
            "nothing is repaired: say --as-named if that is what you want, or run `atomsets screen` with your own file",
        )
    if not typer.confirm("Use these?", err=True):
        raise typer.Exit(2)


def reaches(asked: Campaign | JointCampaign) -> list[str]:
    """What a campaign starts, reads code or weights from, or writes to, beyond its own folder and local workers."""
    from atomsets_flows.campaign import Campaign

    harmless = {"workers", "min_workers", "memory_per_worker", "shard_timeout"}
    given = asked.cluster.model_dump(mode="json", exclude=harmless, exclude_defaults=True)
    lines = []
    for name, value in given.items():
        options = {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
        lines += [f"cluster.{key} = {entry}" for key, entry in options.items()]
    own = [] if isinstance(asked, Campaign) else [one.features for one in asked.properties if one.features]
    for features in (asked.features, *own):
        if features.store:
            lines.append(f"features.store = {features.store}")
        if "/" in features.parent:
            lines.append(f"features.parent = {features.parent}")
        if "/" in features.specification:
            lines.append(f"features.specification = {features.specification}")
    return list(dict.fromkeys(lines))


def _run(store: Store, asked: Campaign | JointCampaign) -> None:
    from atomsets_flows.server import quiet_environment

    quiet_environment(verbose=False)
    server = start_server(store.root)
    from atomsets_flows.campaign import JointCampaign
    from atomsets_flows.runs import listening, screen, screen_jointly

    server.join()
    try:
        _still_there(store, asked.features.store)
        with Bars() as bars, listening(bars):
            if isinstance(asked, JointCampaign):
                screen_jointly(asked, store.root)
            else:
                screen(asked, store.root)
    except Exception as error:
        fail(
            1, f"{error or type(error).__name__}\nRun `atomsets screen` with the campaign file, where its sources are."
        )


def _still_there(store: Store, shared: str | None) -> None:
    """Stop where a folder was moved meanwhile: a run would make an empty one in its place."""
    from atomsets_core.storage import StorageError, Store

    for place in (store, Store(shared) if shared else store):
        if place.is_local and not place.local(".").is_dir():
            raise StorageError(f"{place.root} is gone: it was moved or removed meanwhile")


def _tell(found: Verification, campaign: str) -> None:
    for finding in found.everything:
        console.print(f"[bold red]{escape(finding.file)}[/] {escape(finding.fault)}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(found.checked.items()) if n)
    console.print(f"checked: {counts}", highlight=False, soft_wrap=True)
    if found.leftovers:
        console.print(f"{len(found.leftovers)} half-written files of stopped runs, which nobody reads", highlight=False)
    if not found.finished:
        console.print(f"{campaign} is not finished: run it again, or verify with --repair", highlight=False)
    elif not found.everything:
        console.print(f"{campaign} is whole", highlight=False)


def _as_json(found: Verification, repaired: int) -> dict[str, Any]:
    return {
        "whole": not found.everything,
        "finished": found.finished,
        "checked": found.checked,
        "findings": [{"file": finding.file, "fault": finding.fault} for finding in found.everything],
        "leftovers": list(found.leftovers),
        "repaired": repaired,
    }
