"""`atomsets train`: a model from labelled structures or compositions."""

from __future__ import annotations

import ast
import json
import time
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from atomsets_core.transforms import NONE, find_transform, purposes
from atomsets_flows.commands.terminal import (
    Bars,
    Decimal,
    IdColumn,
    Separator,
    Sheet,
    check_writable,
    console,
    fail,
    peak_memory,
    tell_notes,
    tell_refused,
)
from atomsets_flows.server import quiet_warnings


def train(
    structures: Annotated[
        str, typer.Argument(help="Labelled structures or compositions: a file or folder, or embedded:elastic.")
    ],
    target: Annotated[list[str], typer.Option(help="Column of the values to learn; give it again for more targets.")],
    out: Annotated[str | None, typer.Option(help="Folder of the model; by default models/TARGET.")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Parents and levels, e.g. megnet:V0+V1,chgnet:site or mat2vec,amount; auto to choose by inner "
            "validation; by default what suits structures or compositions."
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="regression or classification.")] = "regression",
    labels: Annotated[
        str | None, typer.Option(help="CSV or spreadsheet with the values, for structures that come alone.")
    ] = None,
    id_column: IdColumn = "material_id",
    separator: Separator = "",
    decimal: Decimal = "",
    sheet: Sheet = "",
    repeats: Annotated[
        str,
        typer.Option(help="Of values of one structure that differ, learn the median, mean, latest, drop or keep all."),
    ] = "median",
    unit: Annotated[str, typer.Option(help="Unit of the values; by default what the source says.")] = "",
    transform: Annotated[str, typer.Option(help=f"{NONE.name}, or {purposes()}.")] = NONE.name,
    seed: Annotated[int, typer.Option(help="Of folds, initial weights and order.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other parameter of the estimator, e.g. members=5.")
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="Share of the rows to hold out and score, in a training of its own, before the last.")
    ] = 0.0,
    discovery: Annotated[
        int, typer.Option(help="Simulated discoveries to score the model beyond the training range; a training each.")
    ] = 0,
    goal: Annotated[str, typer.Option(help="maximize or minimize, for --discovery.")] = "maximize",
    store: Annotated[
        str | None, typer.Option(help="Feature store: features it has are read, those it lacks are made and kept.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON line on stdout.")] = False,
) -> None:
    """Train a model on structures or compositions with a column of values, and save it.

    A training that is stopped goes on from its last checkpoint when the same command is given again.

    Examples:
      atomsets train embedded:elastic --target K_VRH --unit GPa --transform log10 --out models/k
      atomsets train steels.csv --target yield_strength --unit MPa
      atomsets train metals.csv --target is_metal --task classification --holdout 0.1
    """
    from atomsets_core.campaigns import CHECKPOINT
    from atomsets_core.discovery import discovery_check
    from atomsets_core.jobs import save_trained, train_on
    from atomsets_core.models import TASKS, AtomSetsRegressor, StoredCheckpoint, held_out_check
    from atomsets_core.sources import SourceError, TableOptions, open_source, unit_of
    from atomsets_core.storage import StorageError, Store

    started = time.perf_counter()
    quiet_warnings()
    folder = out or f"models/{'-'.join(target)}"
    if task not in TASKS:
        fail(2, f"--task {task}: there are {', '.join(TASKS)}")
    if (discovery or goal != "maximize") and (task != "regression" or len(target) > 1):
        fail(2, "--discovery is for regression on one target")
    try:
        checkpoint = StoredCheckpoint(Store(folder), CHECKPOINT)
        model = TASKS[task](features, seed=seed, **_parameters(TASKS[task], set_ or []))
        if isinstance(model, AtomSetsRegressor):
            model.set_params(transform=transform)
        elif not find_transform(transform).plain:
            fail(2, "--transform is for regression")
        check_writable(folder)
        table = TableOptions(separator, decimal, sheet)
        with Bars() as bars, TemporaryDirectory(prefix="atomsets-") as scratch:
            pulled = open_source(
                structures, Store(scratch), labels=labels, id_column=id_column, table=table, compositions=True
            )
            tell_notes(pulled.provenance)
            unit = unit_of(pulled.provenance, target, unit)
            features_store = Store(store) if store else None
            trained = train_on(pulled, target, model, bars.epoch, checkpoint, features_store, bars.featurized, repeats)
            for said in trained.notes:
                bars.note(said)
            checks: dict[str, Any] = {}
            if holdout:
                bars.note(f"training once more, without {holdout:.0%} of the rows")
                checks["held_out"] = held_out_check(model, trained.features, trained.values, holdout, seed)
            if discovery and isinstance(model, AtomSetsRegressor):
                bars.note(f"simulating {discovery} discoveries")
                checks["discovery"] = discovery_check(model, trained.features, trained.values, goal, discovery)
        about = save_trained(trained, Store(folder), ".", unit, pulled.provenance, checks)
        checkpoint.remove()
    except (SourceError, StorageError, ValueError, FileNotFoundError) as error:
        fail(2, str(error))
    seconds = time.perf_counter() - started
    console.print(
        f"learned from {model.n_train_} of {pulled.n_seen} entries with {model.spec_} in {seconds:.0f} s and at most "
        f"{peak_memory() / 1000:.1f} GB of memory; the model and its card are in {folder}",
        highlight=False,
        soft_wrap=True,
    )
    for line in _told(about, unit, transform):
        console.print(line, highlight=False, soft_wrap=True)
    tell_refused(trained.refused)
    if as_json:
        done = {"n_train": model.n_train_, "features": str(model.spec_), "out": folder}
        cost = {"seconds": round(seconds, 2), "peak_memory_mb": peak_memory()}
        print(json.dumps({**done, **cost, **about["scores_out_of_fold"], **checks}))


def _parameters(kind: type, items: list[str]) -> dict[str, Any]:
    """Estimator parameters from name=value texts."""
    known = [name for name in kind().get_params() if name not in ("features", "seed", "transform")]
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or name not in known:
            raise ValueError(f"--set {item}: write it as name=value; there are {', '.join(known)}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = tuple(text.split("+")) if name == "pooling" else text
        found[name] = (value,) if name in ("phi", "rho") and isinstance(value, int) else value
    return found


def _told(about: dict[str, Any], unit: str, transform: str) -> list[str]:
    """The scores as lines."""
    asked = find_transform(transform)
    scale = asked.step or asked.of(unit) or "unit of the target"
    lines = []
    for title, scores in (("out of fold", about["scores_out_of_fold"]), ("held out", about.get("held_out"))):
        if not scores:
            continue
        for name, found in scores.get("targets", {"": scores}).items():
            where = f"{title}{f', {name}' if name else ''}{_rows(found)}"
            if "mae" in found:
                fit = "" if found["r2"] is None else f", R² {found['r2']:.3f}"
                covered = found["coverage"]
                inside = (
                    "too few labels to tell how many lie inside their interval"
                    if covered is None
                    else f"{covered:.1%} of values inside their interval"
                )
                lines.append(f"{where}: error {found['mae']:.4g} {scale}{fit}; {inside}")
            else:
                area = f", ROC-AUC {found['roc_auc']:.3f}" if "roc_auc" in found else ""
                lines.append(
                    f"{where}: accuracy {found['accuracy']:.1%}{area}, log loss {found['log_loss']:.4f}, calibration "
                    f"error {found['calibration_error']:.3f}"
                )
    for row in about.get("discovery", {}).get("heads", [])[:1]:
        lines.append(
            f"beyond the training range: {row['r_precision']:.3f} of the best values found among as many, "
            f"error {row['mae_outside']:.4g} outside, {row['mae_inside']:.4g} inside"
        )
    return lines


def _rows(scores: dict[str, Any]) -> str:
    return f" ({scores['n_test']} rows)" if "n_test" in scores else ""
