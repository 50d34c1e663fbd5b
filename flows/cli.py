"""The `atomsets` command.

Progress and messages go to stderr; exit 0 done, 1 the run failed, 2 the request was wrong.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import Annotated, Any

import typer
import typer.core

from atomsets_flows.commands import (
    automations_app,
    benchmark,
    deploy,
    discover,
    export,
    featurize,
    init,
    models_app,
    predict,
    pull,
    report,
    retrain,
    screen,
    serve,
    status,
    train,
    train_parent,
    verify,
)

# Arrow's own allocator keeps what was freed; a process that reads file after file would seem to grow.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

ORDER = (
    "screen", "init", "status", "report", "export", "verify", "retrain", "models", "discover", "train", "predict",
    "pull", "featurize", "benchmark", "train-parent", "serve", "deploy", "automations",
)  # fmt: skip
"""Commands as `atomsets --help` lists them: in the order in which people need them."""


class Ordered(typer.core.TyperGroup):
    """Commands in the order of `ORDER`, others after them; by itself typer puts groups first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="atomsets",
    cls=Ordered,
    help="Screen crystal structures for a property you have a few hundred values of.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


app.command()(screen)
app.command()(init)
app.command()(status)
app.command()(report)
app.command()(export)
app.command()(verify)
app.command()(retrain)
app.add_typer(models_app, name="models")
app.command()(discover)
app.command()(train)
app.command()(predict)
app.command()(pull)
app.command()(featurize)
app.command()(benchmark)
app.command("train-parent")(train_parent)
app.command()(serve)
app.command()(deploy)
app.add_typer(automations_app, name="automations")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("atomsets-screening"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Screen crystal structures for a property you have a few hundred values of.

    Start with `atomsets screen`, which needs nothing, then with `atomsets init` for data of your own; `atomsets COMMAND
    --help` has examples.
    """


def main() -> None:
    """Entry point."""
    no_modules_from_here()
    code = [1]
    # What is registered first is called last: whatever libraries still send or close is over by then.
    atexit.register(_leave, code)
    try:
        app()
    except SystemExit as end:
        code[0] = end.code if isinstance(end.code, int) else int(end.code is not None)
        progress = sys.modules.get("atomsets_flows.runs.progress")
        if progress is not None and progress.server.away:
            # Libraries would try for minutes to send what is left to a server that is gone.
            _leave(code)
        raise


def no_modules_from_here() -> None:
    """Have neither this process nor any that it starts take a file of the working directory for a module.

    A campaign is often started beside files that somebody sent, one of which may be called socket.py.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    if not sys.flags.safe_path and getattr(sys.modules["__main__"], "__spec__", None):  # started with python -m
        del sys.path[0]


def _leave(code: list[int]) -> None:
    """End the process without taking the interpreter down around the threads that libraries leave running.

    Prefect's never end. One that stands in compiled code then is killed in the middle of it, which aborts the process:
    the command had done its work and would end with SIGABRT.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code[0])


if __name__ == "__main__":
    main()
