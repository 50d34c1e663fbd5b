"""`atomsets report`: the report of a finished campaign, written anew."""

from __future__ import annotations

from typing import Annotated

import typer

from atomsets_flows.commands.terminal import console, fail, store_at


def report(
    campaign: Annotated[str, typer.Argument(help="Folder or URL of a finished campaign.")],
) -> None:
    """Write the report of a finished campaign anew, without running it: after an upgrade, or when it was lost.

    Examples:
      atomsets report campaigns/incompressible
      atomsets report s3://bucket/campaign
    """
    from atomsets_core.report import write_again
    from atomsets_core.storage import StorageError
    from atomsets_flows.server import quiet_warnings

    quiet_warnings()
    try:
        for path in write_again(store_at(campaign)):
            console.print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)
    except StorageError as error:
        fail(2, str(error))
