"""`atomsets automations`: rules on the Prefect server that send a message when something happens, or nothing does."""

from __future__ import annotations

from typing import Annotated

import typer

automations_app = typer.Typer(help="Messages when a run fails, nothing is heard, or the ranking has a new candidate.")


@automations_app.command()
def install(
    names: Annotated[
        list[str] | None, typer.Argument(help="failure, silence, top-ten or a file; those three where none is named.")
    ] = None,
    notify: Annotated[
        str | None, typer.Option(help="Block that messages go through, TYPE/NAME, e.g. slack-webhook/materials.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Send nothing: firing shows in the event feed alone.")] = False,
) -> None:
    """Install automations, or bring those of the same name up to date.

    Examples:
      atomsets automations install --notify slack-webhook/materials
      atomsets automations install top-ten --notify custom-webhook/lab
    """
    from atomsets_flows.commands.terminal import console, fail
    from atomsets_flows.server import AutomationError, DeploymentError, install_all, paths, quiet_environment

    quiet_environment(verbose=True)
    if (notify is None) != quiet:
        fail(2, "give --notify TYPE/NAME, a notification block of the server, or --quiet for no messages")
    try:
        for line in install_all(paths(names or []), notify):
            console.print(line, highlight=False, soft_wrap=True)
    except (AutomationError, DeploymentError, ConnectionError) as error:
        fail(2, str(error))


@automations_app.command()
def remove() -> None:
    """Remove the three automations of deployments/automations."""
    from atomsets_flows.commands.terminal import console, fail
    from atomsets_flows.server import AutomationError, DeploymentError, paths, quiet_environment, remove_all

    quiet_environment(verbose=True)
    try:
        console.print(f"{remove_all(paths([]))} removed", highlight=False)
    except (AutomationError, DeploymentError, ConnectionError) as error:
        fail(2, str(error))
