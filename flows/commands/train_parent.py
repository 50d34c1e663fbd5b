"""`atomsets train-parent`: a parent of your own, MEGNet trained on a large set of structures."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def train_parent(
    structures: Annotated[str, typer.Argument(help="Labelled structures: a file or folder, or embedded:flla.")],
    target: Annotated[str, typer.Option(help="Column to learn: a formation energy in eV/atom, or the like.")],
    out: Annotated[str, typer.Option(help="Folder of the parent; its path is its name.")],
    labels: Annotated[str | None, typer.Option(help="CSV with the values, for structures that come alone.")] = None,
    id_column: Annotated[str, typer.Option(help="Column of the identifiers, for a file that has one.")] = "material_id",
    split_column: Annotated[
        str | None, typer.Option(help="Column that says train, val or test; by default split, or 80:10:10 at random.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Unit of the values.")] = "eV/atom",
    init: Annotated[str, typer.Option(help="random; or megnet or a parent's folder, to go on from.")] = "random",
    cutoff: Annotated[float | None, typer.Option(help="Neighbour radius, Angstrom, at most 5.")] = None,
    resolution: Annotated[float, typer.Option(min=0.0, help="Distances are rounded to this, Angstrom.")] = 1e-3,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="At the top of the schedule.")] = 2e-3,
    loss: Annotated[str, typer.Option(help="absolute, log_cosh or squared.")] = "absolute",
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without improvement.")] = None,
    seed: Annotated[int, typer.Option(help="Of initial weights, order and a random split.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as one JSON line on stdout.")] = False,
) -> None:
    """Train a parent and save it; killed in the middle, the same command goes on where it was.

    The folder holds parent.safetensors, parent.json (data, errors on the validation and test part, versions) and
    failures.parquet. Its path is a name of a parent wherever one is asked for.

    Examples:
      atomsets train-parent many.parquet --target formation_energy_per_atom --out parents/mine
      atomsets train embedded:elastic --target K_VRH --features parents/mine:V0+V1+V2+V3 --out models/k
    """
    from atomsets_core.jobs import parent_data
    from atomsets_core.jobs import train_parent as work
    from atomsets_core.models import MEGNetRegressor
    from atomsets_core.sources import SourceError, pull
    from atomsets_core.storage import StorageError, Store
    from atomsets_flows.commands.terminal import check_writable, console, fail, peak_memory
    from atomsets_flows.server import quiet_warnings

    quiet_warnings()
    started = time.perf_counter()
    model = MEGNetRegressor(
        init,
        head="new" if init == "random" else "keep",
        cutoff=cutoff,
        resolution=resolution,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        loss=loss,
        patience=patience,
        seed=seed,
        device=device,
    )
    try:
        check_writable(out)
        pulled = pull(structures, labels=labels, id_column=id_column)
        data = parent_data(
            pulled,
            target,
            cutoff=model.resolved_cutoff(),
            resolution=resolution,
            split_column=split_column,
            seed=seed,
        )
        console.print(
            f"{len(data.graphs)} of {pulled.n_seen} structures; bonds after merging what is alike: "
            f"{data.graphs.n_bonds.mean():.0f} a structure, {data.graphs.nbytes / 1e6:.0f} MB",
            highlight=False,
            soft_wrap=True,
        )
        columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
            bar = bars.add_task("epochs", total=epochs)

            def tell(epoch: int, _of: int, loss: float) -> None:
                bars.update(bar, completed=epoch, description=f"epochs, loss {loss:.4g}")
                if not console.is_terminal:
                    spent = time.perf_counter() - started
                    console.print(f"epoch {epoch}: loss {loss:.4g} after {spent:.0f} s", highlight=False)

            card = work(data, model, Store(out), target=target, unit=unit, provenance=pulled.provenance, progress=tell)
    except (SourceError, StorageError, ValueError) as error:
        fail(2, str(error))
    except KeyboardInterrupt:
        fail(1, "stopped. Run the same command again to go on where it was")
    for part, scores in card["metrics"].items():
        console.print(
            f"{part}: mean absolute error {scores['mae']:.4g} {unit} on {scores['n']} structures "
            f"(the training mean: {scores['mae_of_mean']:.4g})",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"parent {card['digest']} in {out}; {len(data.refused)} entries not used; "
        f"{time.perf_counter() - started:.0f} s, {peak_memory()} MB",
        highlight=False,
        soft_wrap=True,
    )
    if as_json:
        print(json.dumps({**card, "peak_memory_mb": peak_memory(), "out": out}))
