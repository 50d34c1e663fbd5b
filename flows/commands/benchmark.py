"""`atomsets benchmark`: a task's official folds, honestly."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from atomsets_flows.commands.terminal import console, fail, start_server, watched


def benchmark(
    task: Annotated[str, typer.Argument(help="matbench_steels, matbench_expt_gap, ..., mp2018_e_form, mp2018_gap.")],
    data: Annotated[str, typer.Option(help="Folder of the data files.")],
    out: Annotated[
        str | None, typer.Option(help="Result file; by default benchmarks/results/accuracy/TASK.VARIANT.json.")
    ] = None,
    variant: Annotated[
        str, typer.Option(help="auto, AtomSets-V0, ..., MLP-f1, random-forest, megnet-scratch.")
    ] = "auto",
    folds: Annotated[str | None, typer.Option(help="Folds to run, e.g. 0,1; by default all.")] = None,
    train_rows: Annotated[
        int | None, typer.Option(min=20, help="Train on so many rows of each training part, for learning curves.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of networks, trees and inner splits.")] = 0,
    features: Annotated[str, typer.Option(help="Store of features, shared by all runs.")] = "benchmarks/features",
    workers: Annotated[int | None, typer.Option(help="Processes; by default one a core.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Dask scheduler instead of local processes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON line on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of the flow.")] = False,
) -> None:
    """Train and score a model on the official folds of a benchmark task; what the result file holds is kept.

    Examples:
      atomsets benchmark matbench_phonons --data data/
      atomsets benchmark matbench_glass --data data/ --variant random-forest --folds 0,1
    """
    from atomsets_flows.server import quiet_environment

    quiet_environment(verbose)
    server = start_server(out or "benchmarks")
    from atomsets_core.storage import StorageError
    from atomsets_flows.runs import benchmark as flow

    try:
        chosen = sorted({int(fold) for fold in folds.split(",")}) if folds else None
    except ValueError:
        fail(2, f"--folds {folds}: write fold numbers with commas, e.g. 0,1")
    target = out or f"benchmarks/results/accuracy/{task}.{variant}{f'.{train_rows}' if train_rows else ''}.json"
    server.join()
    with watched(verbose, (StorageError,), "Finished folds are kept"):
        result = flow(task, data, target, variant, chosen, seed, features, workers, address, train_rows)
    for line in tell(result):
        console.print(line, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({key: value for key, value in result.items() if key != "folds"} | {"out": target}))


def tell(result: dict[str, Any]) -> list[str]:
    """What came out, in a few lines."""
    rows, official = result["rows"], result["rows_official"]
    head = f"{result['task']}, {result['title']}: {len(result['folds'])} folds, {rows} of {official} rows"
    lines = [head if rows == official else f"{head}: not a leaderboard score"]
    unit = f" {result['unit']}" if result["unit"] else ""
    for name, mean in result["mean"].items():
        each = ", ".join(f"{fold['scores'][name]:.4g}" for fold in result["folds"].values())
        lines.append(f"{name} {mean:.4g} ± {result['std'][name]:.2g}{unit if name != 'accuracy' else ''} ({each})")
    return [*lines, f"{result['cpu_seconds']:.0f} s of CPU time, features included where they were made"]
