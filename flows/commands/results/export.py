"""`atomsets export`: the best candidates of a campaign as files that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from atomsets_flows.commands.terminal import console, fail, store_at

ENDINGS = {"cif": "-cifs", "poscar": "-poscars", "xyz": ".xyz", "json": ".json", "csv": ".csv"}
"""How the name of what is written ends, unless --out names it."""


def export(
    campaign: Annotated[str, typer.Argument(help="Folder or URL of a finished campaign.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="How many candidates, best first; the whole shortlist without it.")
    ] = None,
    kind: Annotated[str, typer.Option("--format", help="cif, poscar, xyz (extended), json or csv.")] = "cif",
    out: Annotated[
        Path | None, typer.Option(help="Folder (cif, poscar) or file to write; by default CAMPAIGN-top-N here.")
    ] = None,
    ranking: Annotated[
        bool, typer.Option("--ranking", help="Count in the whole ranking instead of the shortlist.")
    ] = False,
    conventional: Annotated[
        bool, typer.Option("--conventional", help="The conventional cell instead of the one that was ranked.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON line on stdout.")] = False,
) -> None:
    """Write the best candidates of a campaign as CIF, POSCAR, extended XYZ, JSON or CSV.

    Examples:
      atomsets export campaigns/incompressible --top 20
      atomsets export campaigns/incompressible --top 5 --format poscar --out relax
      atomsets export campaigns/incompressible --top 200 --ranking --format csv
    """
    from atomsets_core.report import ExportError
    from atomsets_core.report import export as write
    from atomsets_core.storage import StorageError
    from atomsets_flows.server import quiet_warnings

    quiet_warnings()
    store = store_at(campaign)
    name = campaign.rstrip("/").rpartition("/")[2] or "campaign"
    target = out or Path(f"{name}{f'-top-{top}' if top else ''}{ENDINGS.get(kind, '')}")
    try:
        done = write(store, target, kind, top=top, whole_ranking=ranking, conventional=conventional)
    except (ExportError, StorageError) as error:
        fail(2, str(error))
    except OSError as error:
        fail(2, f"{target} can't be written: {error.strerror or error}; name another place with --out")
    console.print(f"{done.n} candidates in {target}", highlight=False, soft_wrap=True, markup=False)
    if top is not None and done.n + len(done.left_out) < top and not ranking:
        console.print(
            f"the shortlist holds {done.n + len(done.left_out)}: --ranking goes on in the whole ranking, "
            "--set objective.shortlist=N makes a longer one",
            highlight=False,
            soft_wrap=True,
        )
    for what, why in done.left_out.items():
        console.print(f"left out: {what}: {why}", highlight=False, soft_wrap=True, markup=False)
    if as_json:
        print(
            json.dumps(
                {"out": str(target), "n": done.n, "files": list(map(str, done.files)), "left_out": done.left_out}
            )
        )
