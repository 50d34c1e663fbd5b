"""`atomsets status`: how far a campaign is, and what came out."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from atomsets_flows.commands.terminal import console, fail, store_at
from atomsets_flows.runs import Status, read_status

NEXT = {
    "failed": "the last run failed; what is finished is kept: run the same command again to go on",
    "stopped": "the last run was stopped: run the same command again to go on",
    "killed": "the last run was killed: run the same command again to go on",
}


def status(
    folder: Annotated[str, typer.Argument(help="Folder or URL of a campaign.")],
    once: Annotated[
        bool, typer.Option("--once", help="Show it once instead of following a run until it ends.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON line on stdout.")] = False,
) -> None:
    """Show how far a campaign is: stages, rates, time left. Follows a run until it ends.

    Examples:
      atomsets status campaigns/incompressible
      atomsets status s3://bucket/campaign --once
      atomsets status campaigns/incompressible --json
    """
    from atomsets_core.campaigns import REPORT, SUMMARY
    from atomsets_core.storage import StorageError

    store = store_at(folder)
    try:
        found = read_status(store)
        if found.state == "new":
            fail(
                2,
                f"{folder}: no campaign ran here. Name the folder that `atomsets screen` wrote (campaigns/NAME unless "
                f"--out said otherwise), or start one: atomsets screen CAMPAIGN.toml --out {folder}",
            )
        if as_json:
            print(json.dumps(dataclasses.asdict(found)))
            return
        if found.state == "running" and not once:
            with Live(shown(found), console=console, refresh_per_second=2) as live:
                while found.state == "running":
                    time.sleep(1.0)
                    found = read_status(store)
                    live.update(shown(found))
        else:
            console.print(shown(found))
        if found.state == "done" and store.exists(SUMMARY):
            from atomsets_core.report import joint_sentences
            from atomsets_flows.runs import headlines

            summary = store.read_json(SUMMARY)
            for line in joint_sentences(summary) if "properties" in summary else headlines(summary):
                console.print(line, highlight=False, soft_wrap=True)
            console.print(f"report: {store.url(REPORT)}", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        return
    except StorageError as error:
        fail(2, str(error))
    if found.state in NEXT:
        console.print(NEXT[found.state].format(folder=folder), highlight=False, soft_wrap=True)


def shown(found: Status) -> RenderableType:
    """Stages as a table, with rates and time left."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("stage", "done", "rate", "left"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for row in found.rows:
        left = "" if row.left is None else "done" if row.done >= row.total else duration(row.left)
        rate = "" if row.rate is None else f"{row.rate:.1f}/s" if row.rate >= 1 else f"{60 * row.rate:.1f}/min"
        table.add_row(row.stage, f"{row.done:,} of {row.total:,}", rate, left)
    notes = [Text(f"note: {note}", style="yellow") for note in found.notes]
    return Group(Text(f"{found.state}, {duration(found.seconds)}"), table, *notes)


def duration(seconds: float) -> str:
    """A time as one says it: 12 s, 4 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
