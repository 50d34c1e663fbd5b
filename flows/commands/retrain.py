"""`atomsets retrain`: a challenger learns from today's labels and takes over if it is better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from atomsets_flows.commands.terminal import check_writable, console, fail, start_server, watched
from atomsets_flows.server import quiet_environment


def retrain(
    campaign: Annotated[
        Path | None, typer.Argument(help="Campaign file (TOML); without one the embedded campaign.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder or URL of the campaign; by default campaigns/NAME.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override an option: section.key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON line on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of the flow.")] = False,
) -> None:
    """Train a challenger on today's labels; it replaces the campaign's model if it is better.

    Examples:
      atomsets retrain mine.toml
      atomsets models list campaigns/mine
    """
    quiet_environment(verbose)
    server = start_server(out or "campaigns/any")
    from atomsets_core.campaigns import CARD
    from atomsets_core.storage import StorageError
    from atomsets_flows.campaign import CampaignError, read_campaign
    from atomsets_flows.runs import retrain as flow

    try:
        asked = read_campaign(campaign, set_)
        target = out or f"campaigns/{asked.name}"
        check_writable(target)
    except (CampaignError, StorageError) as error:
        fail(2, str(error))
    server.join()
    with watched(verbose):
        result = flow(asked, target)
    console.print(f"[bold]{result['outcome']}[/]: {result['why']}", highlight=False, soft_wrap=True)
    console.print(f"champion: {target}/{result['champion']}   card: {CARD} in it", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({**result, "out": target}))
