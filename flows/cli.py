"""The `atomsets` command.

Progress and messages go to stderr; exit 0 done, 1 the run failed, 2 the request was wrong.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from atomsets_core.structures import Refusal
from flows.commands import train_parent
from flows.commands.benchmark import benchmark
from flows.commands.pull import pull
from flows.server import quiet_environment, quiet_warnings, start_early

app = typer.Typer(
    name="atomsets",
    help="Screen crystal structures for a property you have a few hundred values of.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command()(pull)
console = Console(stderr=True)
app.command("train-parent")(train_parent.train_parent)


@app.callback()
def root() -> None:
    """Screen crystal structures for a property you have a few hundred values of."""


@app.command()
def screen(
    campaign: Annotated[
        Path | None, typer.Argument(help="Campaign file (TOML); without one the embedded campaign runs.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder or URL of the campaign; by default campaigns/NAME.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override an option: section.key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON line on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of the flow.")] = False,
) -> None:
    """Run a screening campaign, or what is missing of it.

    Examples:
      atomsets screen
      atomsets screen my.toml --out runs/my --set objective.shortlist=50
    """
    quiet_environment(verbose)
    server = start_early()
    from atomsets_core.sources import SourceError, SourceUnavailableError
    from atomsets_core.storage import StorageError
    from flows.campaign import CampaignError, read_campaign
    from flows.progress import listening
    from flows.screen import screen as flow

    try:
        asked = read_campaign(campaign, set_)
        target = out or f"campaigns/{asked.name}"
        check_writable(target)
    except (CampaignError, StorageError) as error:
        fail(2, str(error))
    console.print(f"campaign [bold]{asked.name}[/] in {target}", highlight=False)
    server.join()
    try:
        with Bars() as bars, listening(bars):
            summary = flow(asked, target)
    except SourceUnavailableError as error:
        fail(1, str(error))
    except SourceError as error:
        fail(2, str(error))
    except KeyboardInterrupt:
        fail(1, "stopped. Run the same command again to go on where it was")
    except Exception as error:
        if verbose:
            console.print_exception()
        fail(1, f"{error or type(error).__name__}\nWhat is finished is kept: run the same command again to go on.")
    show(summary, target)
    if as_json:
        print(json.dumps({**summary, "out": target}))


@app.command()
def train(
    structures: Annotated[str, typer.Argument(help="Labelled structures: a file or folder, or embedded:elastic.")],
    target: Annotated[str, typer.Option(help="Column of the values to learn.")],
    out: Annotated[str, typer.Option(help="Folder of the model.")],
    features: Annotated[str, typer.Option(help="Parent and levels.")] = "megnet:V0+V1+V2+V3",
    labels: Annotated[str | None, typer.Option(help="CSV with the values, for structures that come alone.")] = None,
    unit: Annotated[str, typer.Option(help="Unit of the values.")] = "",
    transform: Annotated[str, typer.Option(help="none, or log10 for positive values over decades.")] = "none",
    seed: Annotated[int, typer.Option(help="Of folds, initial weights and order.")] = 0,
    store: Annotated[
        str | None, typer.Option(help="Feature store: features it has are read, those it lacks are made and kept.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON line on stdout.")] = False,
) -> None:
    """Train a model on structures with a column of values, and save it.

    A training that is stopped goes on from its last checkpoint when the same command is given again.

    Examples:
      atomsets train embedded:elastic --target K_VRH --unit GPa --transform log10 --out models/k
      atomsets train many.parquet --target formation_energy --store features --out models/e
    """
    from atomsets_core.estimators import AtomSetsRegressor
    from atomsets_core.models import out_of_fold_scores, save_trained, train_on
    from atomsets_core.sources import SourceError, pull
    from atomsets_core.stages import StoredCheckpoint
    from atomsets_core.storage import StorageError, Store

    started = time.perf_counter()
    quiet_warnings()
    checkpoint = StoredCheckpoint(Store(out), "checkpoint.safetensors")
    model = AtomSetsRegressor(features, transform=transform, seed=seed)
    try:
        check_writable(out)
        features_store = Store(store) if store else None
        pulled = pull(structures, labels=labels)
        with Bars() as bars:
            trained = train_on(
                pulled, target, model, bars.epoch, checkpoint, features_store, featurized=bars.featurized
            )
        save_trained(trained, Store(out), ".", target, unit, pulled.provenance)
        checkpoint.remove()
    except (SourceError, StorageError, ValueError) as error:
        fail(2, str(error))
    scores = out_of_fold_scores(model, trained.values)
    seconds = time.perf_counter() - started
    scale = "decades" if transform == "log10" else unit or "unit of the target"
    console.print(
        f"learned from {model.n_train_} of {pulled.n_seen} entries in {seconds:.0f} s with at most "
        f"{peak_memory() / 1000:.1f} GB of memory; out-of-fold error "
        f"{scores['mae']:.4g} {scale}, R² {scores['r2']:.3f}; {scores['coverage']:.1%} of values inside their "
        f"{model.coverage:.0%} interval",
        highlight=False,
        soft_wrap=True,
    )
    tell_refused(trained.refused)
    if as_json:
        print(json.dumps({"n_train": model.n_train_, "seconds": seconds, "peak_memory_mb": peak_memory(), **scores}))


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    out: Annotated[Path, typer.Option(help="File to write, .csv or .parquet.")],
    structures: Annotated[
        str | None,
        typer.Argument(help="Structures: a file or folder, or embedded:flla; without any, all of the feature store."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Feature store: features it has are read, those it lacks are made and kept.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as one JSON line on stdout.")] = False,
) -> None:
    """Apply a saved model to structures.

    Examples:
      atomsets predict models/k my-structures/ --out predictions.csv
      atomsets predict models/k --store features --out predictions.parquet
    """
    from atomsets_core.estimators import AtomSetsRegressor
    from atomsets_core.models import predictions, stored_predictions, write_predictions
    from atomsets_core.sources import SourceError, pull
    from atomsets_core.storage import StorageError, Store

    quiet_warnings()
    if out.suffix not in (".csv", ".parquet"):
        fail(2, f"--out {out}: the name must end in .csv or .parquet")
    if structures is None and store is None:
        fail(2, "name the structures, or a feature store with --store")
    try:
        loaded = AtomSetsRegressor.load(Store(model), ".")
        features_store = Store(store) if store else None
        if structures is not None:
            blocks = predictions(pull(structures), loaded, features_store)
        elif features_store is not None:
            blocks = stored_predictions(features_store, loaded)
        written, inside, refused = write_predictions(blocks, Store(out.parent), out.name)
    except (SourceError, StorageError, ValueError) as error:
        fail(2, str(error))
    console.print(
        f"{written} predictions in {out}, {inside} inside the domain of the model; at most "
        f"{peak_memory() / 1000:.1f} GB of memory",
        highlight=False,
        soft_wrap=True,
    )
    tell_refused(refused)
    if as_json:
        counts = {"predicted": written, "failed": len(refused), "out": str(out)}
        print(json.dumps({**counts, "peak_memory_mb": peak_memory()}))


def tell_refused(refused: Sequence[Refusal]) -> None:
    """Say how many entries could not be used, and why the first few."""
    if refused:
        console.print(f"{len(refused)} entries could not be used:", highlight=False)
        for refusal in refused[:5]:
            console.print(f"  {escape(refusal.material_id)}: {escape(refusal.reason)}", highlight=False, soft_wrap=True)
        if len(refused) > 5:
            console.print(f"  and {len(refused) - 5} more", highlight=False)


def peak_memory() -> int:
    """Largest memory this process had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def check_writable(target: str) -> None:
    """Raise `StorageError` at once if nothing can be written to a campaign's folder."""
    from atomsets_core.storage import Store

    store = Store(target)
    store.write(".writable", b"")
    store.remove(".writable")


def fail(code: int, message: str) -> None:
    """Print what is wrong and leave."""
    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


class Bars:
    """Progress bars on stderr, one for each stage; see `flows.progress.Listener`."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._stages: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def start(self, stage: str, total: int) -> None:
        """A stage begins, or has more steps than was known."""
        if stage in self._stages:
            self._progress.update(self._stages[stage], total=total)
        else:
            self._stages[stage] = self._progress.add_task(stage, total=total)

    def advance(self, stage: str, steps: int = 1) -> None:
        """Steps of it are done."""
        self._progress.advance(self._stages[stage], steps)

    def epoch(self, number: int, total: int, loss: float) -> None:
        """An epoch of a training is over; a training that goes on begins with the number it has reached."""
        self._reach("train", number, total, f"train  loss {loss:.4f}")

    def featurized(self, done: int, total: int) -> None:
        """So many of `total` structures have features now."""
        self._reach("featurize", done, total, "featurize")

    def _reach(self, stage: str, done: int, total: int, text: str) -> None:
        if stage not in self._stages:
            self.start(stage, total)
        self._progress.update(self._stages[stage], completed=done, total=total, description=text)

    def note(self, message: str) -> None:
        """Something that the user should know."""
        console.print(f"[yellow]note:[/] {escape(message)}", highlight=False, soft_wrap=True)


def show(summary: dict[str, Any], target: str) -> None:
    """Print what came out, on stderr."""
    from atomsets_core.wording import discovery_rows, scale_name
    from flows.summary import headlines

    for line in headlines(summary):
        console.print(line, highlight=False, soft_wrap=True)
    if summary["discovery"]:
        found = summary["discovery"]
        console.print(
            f"simulated discovery: the {found['n_hidden']} best values hidden in a pool of {found['n_pool']}, "
            f"mean of {len(found['files'])} seeds; errors in {scale_name(summary)}, out of and in the training range",
            highlight=False,
            soft_wrap=True,
        )
        # Short enough for a terminal of 80 columns; the report has them in full.
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for name in ("model", "R-prec.", "enrich.", "MAE out", "MAE in", "bias out", "Spearman"):
            table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
        for row in discovery_rows(summary):
            table.add_row(row[0], row[1].partition(" ")[0], *row[2:])
        console.print(table)
    done, total = summary["done"], summary["seconds"]["total"]
    work = {
        "shards made": done["shards_made"],
        "models trained": done["models_trained"],
        "discoveries simulated": done["discoveries_simulated"],
        "shards predicted": done["shards_predicted"],
    }
    told = ", ".join(f"{n} {what}" for what, n in work.items() if n) or "nothing was missing"
    console.print(f"{told}; {total:.0f} s", highlight=False)
    console.print(f"report: {target}/report.html   ranking: {target}/ranking.csv", highlight=False, soft_wrap=True)


app.command()(benchmark)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
