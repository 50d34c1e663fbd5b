"""`atomsets predict`: a saved model applied to structures or compositions."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from atomsets_flows.commands.terminal import (
    Decimal,
    IdColumn,
    Separator,
    Sheet,
    console,
    fail,
    peak_memory,
    tell_notes,
    tell_refused,
)
from atomsets_flows.server import quiet_warnings

LISTED = 1000
"""Entries without a prediction that --json lists at most; the ledger has them all."""


def predict(
    model: Annotated[str, typer.Argument(help="Folder of a saved model.")],
    out: Annotated[Path, typer.Option(help="File to write, .csv or .parquet.")],
    structures: Annotated[
        str | None,
        typer.Argument(
            help="Structures or compositions: a file or folder, or embedded:flla; by default all of the feature store."
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Feature store: features it has are read, those it lacks are made and kept.")
    ] = None,
    id_column: IdColumn = "material_id",
    separator: Separator = "",
    decimal: Decimal = "",
    sheet: Sheet = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print counts, and what has no prediction, as one JSON line on stdout.")
    ] = False,
) -> None:
    """Apply a saved model to structures or compositions.

    What has no prediction is in a ledger beside the predictions, predictions.failures.parquet for predictions.csv: one
    row for each entry, with the reason.

    Examples:
      atomsets predict models/k my-structures/ --out predictions.csv
      atomsets predict models/k --store features --out predictions.parquet
      atomsets predict models/yield_strength alloys.csv --out predictions.csv
    """
    from atomsets_core.jobs import predictions, stored_predictions, write_predictions
    from atomsets_core.models import load_model, read_config
    from atomsets_core.sources import SourceError, TableOptions, ledger_table, open_source
    from atomsets_core.storage import StorageError, Store

    quiet_warnings()
    if out.suffix not in (".csv", ".parquet"):
        fail(2, f"--out {out}: the name must end in .csv or .parquet")
    if structures is None and store is None:
        fail(2, "name the structures, or a feature store with --store")
    try:
        loaded = load_model(Store(model), ".")
        targets = tuple(read_config(Store(model), ".")["about"].get("targets", ()))
        features_store = Store(store) if store else None
        with TemporaryDirectory(prefix="atomsets-") as scratch:
            if structures is not None:
                table = TableOptions(separator, decimal, sheet)
                pulled = open_source(structures, Store(scratch), id_column=id_column, table=table, compositions=True)
                tell_notes(pulled.provenance)
                blocks = predictions(pulled, loaded, features_store, targets)
            elif features_store is not None:
                blocks = stored_predictions(features_store, loaded, targets)
            written = write_predictions(blocks, Store(out.parent), out.name)
            ledger = f"{out.stem}.failures.parquet"
            Store(out.parent).write_table(
                ledger, ledger_table([("candidates", refusal) for refusal in written.refused])
            )
    except (SourceError, StorageError, ValueError, FileNotFoundError) as error:
        fail(2, str(error))
    console.print(
        f"{written.predicted} predictions in {out}, {written.inside} inside the domain of the model; at most "
        f"{peak_memory() / 1000:.1f} GB of memory",
        highlight=False,
        soft_wrap=True,
    )
    if written.no_bulk:
        console.print(
            f"{written.no_bulk} of them are for molecules, slabs or wires, no bulk crystals: column matter",
            highlight=False,
        )
    refused = written.refused
    tell_refused(refused)
    if refused:
        console.print(f"all of them, with reasons, are in {out.parent / ledger}", highlight=False, soft_wrap=True)
    if as_json:
        counts = {
            "predicted": written.predicted,
            "no_bulk": written.no_bulk,
            "failed": len(refused),
            "out": str(out),
            "ledger": str(out.parent / ledger),
        }
        failures = [{"material_id": r.material_id, "stage": r.stage, "reason": r.reason} for r in refused[:LISTED]]
        print(json.dumps({**counts, "peak_memory_mb": peak_memory(), "failures": failures}))
