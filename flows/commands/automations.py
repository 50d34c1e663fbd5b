"""`atomsets automations`: rules on the Prefect server that send a message when something happens, or nothing does."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Messages when a run fails, nothing is heard, or the ranking has a new candidate.")


@app.command()
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
    from flows.automations import AutomationError, install_all, paths
    from flows.deployments import DeploymentError
    from flows.server import quiet_environment
    from flows.terminal import console, fail

    quiet_environment(verbose=True)
    if (notify is None) != quiet:
        fail(2, "give --notify TYPE/NAME, a notification block of the server, or --quiet for no messages")
    try:
        for line in install_all(paths(names or []), notify):
            console.print(line, highlight=False, soft_wrap=True)
    except (AutomationError, DeploymentError, ConnectionError) as error:
        fail(2, str(error))


@app.command()
def remove() -> None:
    """Remove the three automations of deployments/automations."""
    from flows.automations import AutomationError, paths, remove_all
    from flows.deployments import DeploymentError
    from flows.server import quiet_environment
    from flows.terminal import console, fail

    quiet_environment(verbose=True)
    try:
        console.print(f"{remove_all(paths([]))} removed", highlight=False)
    except (AutomationError, DeploymentError, ConnectionError) as error:
        fail(2, str(error))
