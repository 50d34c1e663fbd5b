"""`atomsets discover`: how well each model finds what it has never seen, on data where the answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table


def discover(
    campaign: Annotated[
        Path | None, typer.Argument(help="Campaign file whose training data are used; without one the embedded data.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder or URL; by default discoveries/NAME.")] = None,
    target: Annotated[str | None, typer.Option(help="Columns, comma-separated; by default the campaign's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Repeats of each head.")] = 10,
    heads: Annotated[list[str] | None, typer.Option("--head", help="Only this head; may be repeated.")] = None,
    parents: Annotated[list[str] | None, typer.Option("--parent", help="Only features of this parent.")] = None,
    rows: Annotated[int | None, typer.Option(min=50, help="At most so many rows, chosen at random.")] = None,
    polymorphs: Annotated[
        bool,
        typer.Option(help="Also learn from rows whose formula is in the pool, which tells a little of the answer."),
    ] = False,
    search: Annotated[int, typer.Option(min=0, max=100, help="Also play each sequential search so many times.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override an option: quantile=0.05, search.batch=50, ...")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Local worker processes; by default one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line, last on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of the flow.")] = False,
) -> None:
    """Hide the best values, train every head on the rest, and see which one finds them.

    The same command goes on where a run was stopped; --target, --seeds and --head add what is missing.

    Examples:
      atomsets discover
      atomsets discover my.toml --search 5
      atomsets discover --target K_VRH --seeds 3 --set quantile=0.05
    """
    from atomsets_flows.commands.terminal import check_writable, fail, start_server, watched
    from atomsets_flows.server import quiet_environment

    quiet_environment(verbose)
    server = start_server(out or "discoveries/any")
    from atomsets_core.storage import StorageError
    from atomsets_flows.campaign import CampaignError
    from atomsets_flows.runs import discover as flow

    changes: dict[str, Any] = {"seeds": seeds, "heads": heads or [], "parents": parents or [], "rows": rows}
    changes |= {"strict": not polymorphs, "workers": workers, "search": {"seeds": search}}
    try:
        asked = read(campaign, target, changes, set_ or [])
        folder = out or f"discoveries/{asked.name}"
        check_writable(folder)
    except (CampaignError, StorageError) as error:
        fail(2, str(error))
    server.join()
    with watched(verbose):
        result = flow(asked, folder)
    show(result, folder)
    if as_json:
        print(json.dumps({**result, "out": folder}))


def read(campaign: Path | None, target: str | None, changes: dict[str, Any], overrides: list[str]):  # type: ignore[no-untyped-def]
    """What is asked, from a campaign file, the options of the command and `key=value` overrides.

    Raises:
        CampaignError: a file or value that can't be used; the message says what to change.
    """
    import tomllib

    from pydantic import ValidationError

    from atomsets_flows.campaign import CampaignError, read_campaign
    from atomsets_flows.runs import Asked

    raw: dict[str, Any] = dict(changes)
    if campaign is not None:
        described = read_campaign(campaign)
        if described.objective.goal not in ("maximize", "minimize"):
            of_class = described.wanted is not None
            instead = "; that of a class is part of `atomsets screen`" if of_class else ""
            raise CampaignError(f"{campaign}: a simulated discovery needs the goal maximize or minimize{instead}")
        training = described.training
        raw |= {"name": described.name, "source": training.source, "labels": training.labels}
        raw |= {"id_column": training.id_column, "targets": [training.target], "unit": training.unit}
        raw |= {"separator": training.separator, "decimal": training.decimal, "sheet": training.sheet}
        raw |= {"transform": training.transform, "goal": described.objective.goal}
        raw |= {"quantile": described.discovery.quantile, "pool_share": described.discovery.pool_share}
        raw |= {"features": described.features.store, "cluster": described.cluster}
    if target is not None:
        raw["targets"] = [name.strip() for name in target.split(",")]
    for text in overrides:
        key, equals, value = text.partition("=")
        section, _, inner = key.strip().partition(".")
        if not equals:
            raise CampaignError(f"--set {text}: write it as key=value")
        try:
            parsed = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()
        if inner:
            raw[section] = {**raw.get(section, {}), inner: parsed}
        else:
            raw[section] = parsed
    try:
        return Asked.model_validate(raw)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise CampaignError("\n".join(told)) from error


SHORT = ("head", "n", "R-precision", "best by", "MAE out", "MAE in", "bias out", "Spearman", "90% out")
"""Columns of the table in a terminal."""


def show(result: dict[str, Any], folder: str) -> None:
    """Print the tables on stdout."""
    from rich.console import Console

    from atomsets_core.campaigns import REPORT
    from atomsets_core.report import search_sentence, sentence, table_rows

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    for told in result["targets"].values():
        console.print(f"\n[bold]{told['target']}[/]: {sentence(result, told)}", highlight=False, soft_wrap=True)
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for name in SHORT:
            table.add_column(name, justify="left" if name == "head" else "right", no_wrap=True)
        for row in table_rows(told):
            # A terminal has no room for the error's interval and the last columns; the report has all.
            table.add_row(*row[:4], row[4].partition(" ")[0], *row[5:9])
        console.print(table)
        if told["search"]:
            console.print(search_sentence(told), highlight=False, soft_wrap=True)
    console.print(f"\n{result['seconds']:.0f} s. report: {folder}/{REPORT}   numbers: {folder}/discovery.json")
