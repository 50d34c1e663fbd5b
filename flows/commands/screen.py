"""`atomsets screen`: run a campaign, or what is missing of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from atomsets_flows.commands.terminal import check_writable, console, fail, start_server, watched
from atomsets_flows.server import quiet_environment

if TYPE_CHECKING:
    from atomsets_flows.campaign import Estimate


FIRST = 5
"""Candidates of the shortlist that are printed."""


def screen(
    campaign: Annotated[
        Path | None,
        typer.Argument(
            help="Campaign file (TOML), or formulas for the second embedded campaign; without one the first runs."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder or URL of the campaign; by default campaigns/NAME.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override an option: section.key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON line on stdout.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it may take; do nothing.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of the flow.")] = False,
) -> None:
    """Run a screening campaign, or what is missing of it.

    Examples:
      atomsets screen
      atomsets screen formulas
      atomsets screen my.toml --dry-run
      atomsets screen my.toml --out runs/my --set objective.shortlist=50
    """
    quiet_environment(verbose)
    if dry_run:
        foretell(campaign, set_ or [], out, as_json)
        return
    server = start_server(out or "campaigns/any")
    from atomsets_core.storage import StorageError, Store
    from atomsets_flows.campaign import CampaignError, JointCampaign, read_any
    from atomsets_flows.runs import screen as flow
    from atomsets_flows.runs import screen_jointly, without_server

    try:
        asked = read_any(campaign, set_)
        target = out or f"campaigns/{asked.name}"
        check_writable(target)
    except (CampaignError, StorageError) as error:
        fail(2, str(error))
    console.print(f"campaign [bold]{asked.name}[/] in {target}", highlight=False)
    server.join()
    started = time.time()
    with watched(verbose):
        try:
            summary = screen_jointly(asked, target) if isinstance(asked, JointCampaign) else flow(asked, target)
        except Exception as error:
            done = without_server(Store(target), started, error)
            if done is None:
                raise
            summary = done
    show(summary, target)
    if as_json:
        print(json.dumps({**summary, "out": target}))


def foretell(campaign: Path | None, changes: list[str], out: str | None, as_json: bool) -> None:
    """Print what a campaign would do."""
    from atomsets_core.sources import SourceError, SourceUnavailableError
    from atomsets_core.storage import StorageError
    from atomsets_flows.campaign import CampaignError, JointCampaign, estimate, estimate_together, read_any, told
    from atomsets_flows.commands.status import duration
    from atomsets_flows.server import quiet_warnings

    quiet_warnings()
    try:
        asked = read_any(campaign, changes)
        target = out or f"campaigns/{asked.name}"
        with nothing_left(target):
            check_writable(target)
        if isinstance(asked, JointCampaign):
            foretell_together(estimate_together(asked, target), as_json)
            return
        found = estimate(asked, target)
    except SourceUnavailableError as error:
        fail(1, str(error))
    except (CampaignError, SourceError, StorageError) as error:
        fail(2, str(error))
    except ValueError as error:  # of the training: a run ends as any that fails
        fail(1, str(error))
    for line in told(found, duration):
        console.print(line, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))


def foretell_together(found: Mapping[str, Estimate], as_json: bool) -> None:
    """Print what a campaign of several properties would do."""
    from atomsets_flows.campaign import told
    from atomsets_flows.commands.status import duration

    for name, one in found.items():
        console.print(f"[bold]{name}[/]", highlight=False)
        for line in told(one, duration)[:-1]:
            console.print(f"  {line}", highlight=False, soft_wrap=True)
    if all(one.seconds is not None for one in found.values()):
        seconds = sum(one.seconds or 0.0 for one in found.values())
        console.print(f"all properties: about {duration(seconds)}", highlight=False)
    console.print("nothing was written", highlight=False)
    if as_json:
        print(json.dumps({name: dataclasses.asdict(one) for name, one in found.items()}))


@contextmanager
def nothing_left(target: str) -> Iterator[None]:
    """Remove the folders that the block makes on the way to a folder, as far as they are empty."""
    missing = (
        [] if "://" in target else [place for place in (Path(target), *Path(target).parents) if not place.exists()]
    )
    try:
        yield
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


def show(summary: dict[str, Any], target: str) -> None:
    """Print what came out, on stderr."""
    if "properties" in summary:
        show_together(summary, target)
        return
    from atomsets_core.campaigns import RANKING_CSV, REPORT
    from atomsets_core.report import (
        CLASS_SHORT,
        NO_BETTER,
        class_hidden,
        discovery_rows,
        discovery_sentences,
        scale_name,
    )
    from atomsets_flows.runs import headlines

    for line in headlines(summary):
        console.print(escape(line), highlight=False, soft_wrap=True)
    show_first(summary, target)
    if summary["discovery"]:
        found, of_class = summary["discovery"], "class" in summary
        console.print(
            f"simulated discovery: {class_hidden(summary)}"
            if of_class
            else f"simulated discovery: the {found['n_hidden']} best values hidden in a pool of {found['n_pool']}, "
            f"mean of {len(found['files'])} seeds; errors in {escape(scale_name(summary))}, out of and in the training "
            "range",
            highlight=False,
            soft_wrap=True,
        )
        # Short enough for a terminal of 80 columns; the report has them in full.
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        numbers = ("model", "R-prec.", "enrich.", "MAE out", "MAE in", "bias out", "Spearman")
        for name in CLASS_SHORT if of_class else numbers:
            table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
        for row in discovery_rows(summary):
            table.add_row(row[0], row[1].partition(" ")[0], *row[2:7])
        console.print(table)
        for line in discovery_sentences(summary):
            console.print(escape(line), highlight=False, soft_wrap=True)
        choice = summary["choice"]
        console.print(f"so the campaign uses {choice['head']}, ranked by {choice['acquisition']}", highlight=False)
        if not choice["better_than_random"]:
            console.print(f"[bold red]{NO_BETTER}[/]", highlight=False, soft_wrap=True)
    tell_changes(summary, target)
    done, total = summary["done"], summary["seconds"]["total"]
    work = {
        "shards made": done["shards_made"],
        "models trained": done["models_trained"],
        "discoveries simulated": done["discoveries_simulated"],
        "shards predicted": done["shards_predicted"],
    }
    told = ", ".join(f"{n} {what}" for what, n in work.items() if n) or "nothing was missing"
    console.print(f"{told}; {total:.0f} s", highlight=False, soft_wrap=True)
    console.print(f"report: {target}/{REPORT}   ranking: {target}/{RANKING_CSV}", highlight=False, soft_wrap=True)


def show_first(summary: dict[str, Any], target: str) -> None:
    """Print the first of the shortlist as the table on the server has it, on stderr."""
    from atomsets_core.report import artifact_rows, called, chosen_rows, probability_of, read_crystals
    from atomsets_core.storage import Store

    store = Store(target)
    rows = artifact_rows(summary, chosen_rows(store, FIRST, False), read_crystals(store))
    if not rows:
        return
    what = probability_of(summary) if "class" in summary else called(summary)
    console.print(f"first of the shortlist, {escape(what)}:", highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    names = [name for name in rows[0] if name not in ("rank", "remark")]
    for name in names:
        table.add_column(escape(name), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(escape(str(row.get(name, ""))) for name in names))
    console.print(table)


def show_together(summary: dict[str, Any], target: str) -> None:
    """Print what a campaign of several properties came to, on stderr."""
    from atomsets_core.campaigns import RANKING_CSV, REPORT
    from atomsets_core.report import joint_sentences

    for line in joint_sentences(summary):
        console.print(escape(line), highlight=False, soft_wrap=True)
    done: Counter[str] = Counter()
    for counts in summary["done"].values():
        done.update({name: n for name, n in counts.items() if not name.startswith("pulled")})
    told = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in done.items() if n) or "nothing was missing"
    console.print(f"{told}; {summary['seconds']['total']:.0f} s", highlight=False, soft_wrap=True)
    console.print(f"report: {target}/{REPORT}   ranking: {target}/{RANKING_CSV}", highlight=False, soft_wrap=True)


def tell_changes(summary: dict[str, Any], target: str) -> None:
    """Print what changed since the last run, if this one did anything and there was one before."""
    from atomsets_core.campaigns import read_changes
    from atomsets_core.report import change_sentences
    from atomsets_core.storage import Store

    found = read_changes(Store(target))
    if "rank" in summary["seconds"] and found and found["latest"]["against"] is not None:
        for text in change_sentences(found["latest"]):
            console.print(text, highlight=False, soft_wrap=True, markup=False)
