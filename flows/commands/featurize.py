"""`atomsets featurize`: features of any source, into a store that campaigns can share."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from atomsets_flows.commands.terminal import check_writable, console, fail


def featurize(
    structures: Annotated[str, typer.Argument(help="Structures: a file or folder, or embedded:flla.")],
    out: Annotated[str, typer.Option(help="Folder or URL of the feature store.")],
    parent: Annotated[str, typer.Option(help="Pretrained network.")] = "megnet",
    levels: Annotated[str, typer.Option(help="Its levels, e.g. V0+V1; by default those it is best with.")] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; by default one for each core.")] = None,
    memory: Annotated[str, typer.Option(help="Limit at which a worker is restarted, e.g. 3GB.")] = "auto",
    address: Annotated[str | None, typer.Option(help="Of a running Dask scheduler, instead of processes here.")] = None,
    campaign: Annotated[
        str | None, typer.Option(help="Campaign file whose section cluster says where the work runs.")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, max=8192, help="Structures in a shard, the unit of work.")] = 1024,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a shard may take on a worker.")] = 1800.0,
    id_column: Annotated[str, typer.Option(help="Column of the identifiers, for a file that has one.")] = "material_id",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON line on stdout.")] = False,
) -> None:
    """Make the features of structures, or what is missing of them.

    Killed in the middle, the same command goes on where it was. A structure that the network can't take, that kills
    its worker or that doesn't end gets a line in failures.parquet; the others go on.

    Examples:
      atomsets featurize structures.parquet --out features
      atomsets featurize cifs/ --out features --parent chgnet --workers 4
    """
    from atomsets_core.sources import SourceError
    from atomsets_core.storage import StorageError
    from atomsets_flows.campaign import CampaignError, Cluster, read_campaign
    from atomsets_flows.runs import featurize as work
    from atomsets_flows.server import quiet_warnings
    from atomsets_tasks import ClusterError

    quiet_warnings()
    try:
        if campaign:
            where = read_campaign(campaign).cluster
        else:
            kind: Literal["address", "local"] = "address" if address else "local"
            where = Cluster(
                kind=kind, address=address, workers=workers, memory_per_worker=memory, shard_timeout=timeout
            )  # type: ignore[call-arg]
        check_writable(out)
        columns = (TextColumn("structures"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
            bar = bars.add_task("structures", total=None)
            summary = work(
                structures,
                out,
                parent,
                [level for level in levels.replace(",", "+").split("+") if level],
                where=where,
                shard_size=shard_size,
                id_column=id_column,
                progress=lambda done, total: bars.update(bar, completed=done, total=total),
            )
    except (SourceError, StorageError, CampaignError, ClusterError, ValueError, FileNotFoundError) as error:
        fail(2, str(error))
    except KeyboardInterrupt:
        fail(1, "stopped. Run the same command again to go on where it was")
    except Exception as error:
        fail(1, f"{error or type(error).__name__}\nWhat is finished is kept: run the same command again to go on.")
    for line in told(summary, out):
        console.print(line, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({**summary, "out": out}))


def told(summary: dict[str, Any], out: str) -> list[str]:
    """What came out, in a few lines."""
    from atomsets_core.campaigns import FAILURES

    rate = summary["structures_per_second"]
    return [
        f"{summary['seen']:,} entries = {summary['featurized']:,} featurised + {summary['refused']:,} refused + "
        f"{summary['duplicates']:,} duplicates; {summary['sites']:,} sites, {summary['bonds']:,} bonds",
        f"{summary['shards']} shards, {summary['bytes'] / 1e6:,.0f} MB, {summary['shards_made']} made now in "
        f"{summary['seconds']['total']:.0f} s" + (f", {rate:,.0f} structures/s" if rate else ""),
        f"features: {out}   reasons of refusals: {out}/{FAILURES}",
    ]
