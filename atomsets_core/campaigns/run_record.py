"""The record of a run: what it changed against the last one, in one JSON value, and one line of it for the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from atomsets_core.campaigns import changes, drift, outcomes
from atomsets_core.campaigns.last_run import Standing, last_ranking, read_ranking
from atomsets_core.campaigns.layout import CONFRONTED, OUT_OF_FOLD, RANKING
from atomsets_core.storage import StorageError, Store
from atomsets_core.structures import COMPOSITIONS
from atomsets_core.transforms import transform_target


@dataclass(frozen=True)
class Run:
    """What a run has to say for itself before it is compared.

    Attributes:
        number: from 1.
        finished: ISO 8601.
        model: folder of the model that predicted.
        summary: content of summary.json.
        failed: identifier -> reason, of the candidates that could not be used.
        why: reasons for which it was not the same as the last one.
        duel: what became of a challenger: "champion", "challenger", "promote", "why"; empty without one.
    """

    number: int
    finished: str
    model: str
    summary: Mapping[str, Any]
    failed: Mapping[str, str] = field(default_factory=dict)
    why: Sequence[str] = ()
    duel: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """A run held against the last one.

    Attributes:
        record: JSON, what changes.json calls "latest".
        line: JSON, one line of the history.
        confronted: all predictions whose values are known by now.
        top: rows of the ranking that are new among the first ten.
    """

    record: dict[str, Any]
    line: dict[str, Any]
    confronted: pa.Table
    top: list[dict[str, Any]]


def compare_runs(store: Store, standing: Standing | None, run: Run, labelled: pa.Table) -> Compared:
    """Compare the ranking that lies in the store with that of the last run.

    Args:
        store: of the campaign, with ranking.parquet as it is now.
        standing: what the last run left; None in a first one.
        run: this one.
        labelled: material_id, structure_hash, formula and value of everything that is labelled now.

    Raises:
        StorageError: a file of this run can't be read.
    """
    transform, model = run.summary["transform"], run.summary["model"]

    def on_scale(values: Any) -> Any:
        return transform_target(values, transform)

    now, before = read_ranking(store, RANKING), last_ranking(store, standing)
    # Rows of tables of formulas are often just numbered: what a formula is, its composition says.
    by = (
        ("formula",) if COMPOSITIONS in run.summary.get("materials", {}).values() else ("material_id", "structure_hash")
    )
    known = dict(zip(labelled[by[0]].to_pylist(), labelled["value"].to_pylist(), strict=True))
    if by == ("formula",) and before is not None:
        pairs = zip(before["material_id"].to_pylist(), before["formula"].to_pylist(), strict=True)
        known = {name: known[formula] for name, formula in pairs if formula in known}
    already, fresh, diff, drifted = _read_confronted(store, run.number), outcomes.none(), None, None
    if before is not None and standing is not None:
        diff = changes.compare(before, now, known, run.failed, on_scale)
        drifted = drift.candidate_drift(now, changes.newcomers(before, now), on_scale)
        learned = training_rows(store, standing.model)
        fresh = outcomes.confront(before, labelled, learned, already, run=run.number, model=standing.model, by=by)
    confronted = outcomes.append(already, fresh)
    of_class = "class" in run.summary
    scored = {
        name: outcomes.class_scores(part, model["log_loss"])
        if of_class
        else outcomes.scores(part, model["coverage"], model["mae"], on_scale)
        for name, part in (("now", fresh), ("all", confronted))
    }
    record = {
        "run": run.number,
        "finished": run.finished,
        "against": standing.run if standing is not None and before is not None else None,
        "why": list(run.why),
        "campaign": run.summary["campaign"],
        "target": run.summary["target"],
        "unit": run.summary["unit"],
        "transform": transform,
        **({"class": run.summary["class"]} if of_class else {}),
        "model": {"folder": run.model, "before": standing.model if standing else None},
        "duel": dict(run.duel) or None,
        "labels": label_changes(labelled, training_rows(store, run.model)),
        "ranked": now.num_rows,
        **(diff or {"candidates": None, "shortlist": None, "top": None, "predictions": None}),
        "drift": drifted,
        "confronted": {
            **scored,
            "coverage_asked": model["coverage"],
            "rows": outcomes.rows_of(fresh, on_scale, of_class=of_class),
        },
    }
    return Compared(record, line_of(record, now), confronted, changes.entered_top(before, now))


def _read_confronted(store: Store, run: int) -> pa.Table:
    """Predictions that earlier runs confronted; those of a run of this number were of one that was cut off."""
    if not store.exists(CONFRONTED):
        return outcomes.none()
    try:
        table = store.read_table(CONFRONTED).cast(outcomes.SCHEMA)
    except (StorageError, pa.ArrowInvalid, ValueError):
        return outcomes.none()
    return table.filter(pc.less(table["run"], run))


def training_rows(store: Store, folder: str) -> pa.Table:
    """material_id, structure_hash, formula and value of what a model learned from; nothing where that is lost."""
    names = ["material_id", "structure_hash", "formula", "value"]
    try:
        return store.read_table(f"{folder}/{OUT_OF_FOLD}", columns=names)
    except StorageError:
        texts = {name: pa.array([], pa.string()) for name in names[:-1]}
        return pa.table({**texts, "value": pa.array([], pa.float64())})


def label_changes(labelled: pa.Table, learned: pa.Table) -> dict[str, int]:
    """How the labels of today differ from those a model learned from.

    Returns:
        now, learned_from, new (structures it didn't know), changed (another value), withdrawn.
    """
    names, known = _each_once(labelled), _each_once(learned)
    place = pc.fill_null(pc.index_in(names, value_set=known), -1).to_numpy(zero_copy_only=False)
    kept = place >= 0
    values, then = labelled["value"].to_numpy(), learned["value"].to_numpy()
    gone = pc.invert(pc.is_in(known, value_set=names))
    return {
        "now": labelled.num_rows,
        "learned_from": learned.num_rows,
        "new": int((~kept).sum()),
        "changed": int((values[kept] != then[place[kept]]).sum()),
        "withdrawn": int(pc.sum(gone).as_py() or 0),
    }


def _each_once(labels: pa.Table) -> pa.Array:
    """(n,) the content of each label, and which of its labels in the order of their values that is."""
    frame = pd.DataFrame({"name": labels["structure_hash"].to_pylist(), "value": labels["value"].to_numpy()})
    place = frame.sort_values("value", kind="stable").groupby("name").cumcount().sort_index()
    return pa.array([f"{name} {k}" for name, k in zip(frame["name"], place, strict=True)], pa.string())


def line_of(record: Mapping[str, Any], now: pa.Table) -> dict[str, Any]:
    """One line of the history: what a table or a figure over many runs needs."""
    candidates, drifted = record["candidates"] or {}, record["drift"] or {}
    quantities = drifted.get("quantities") or {}
    every = record["confronted"]["all"]
    outside = ~now["in_domain"].to_numpy(zero_copy_only=False).astype(bool)
    return {
        "run": record["run"],
        "finished": record["finished"],
        "model": record["model"]["folder"],
        "labels": record["labels"]["now"],
        "ranked": record["ranked"],
        "new": candidates.get("new"),
        "gone": candidates.get("gone"),
        "entered_shortlist": record["shortlist"]["counts"]["entered"] if record["shortlist"] else None,
        "outside_domain": float(np.mean(outside)) if len(outside) else None,
        "outside_domain_new": (drifted.get("outside_domain") or {}).get("new"),
        "psi": max((found["psi"] for found in quantities.values()), default=None),
        "shifted": sorted(name for name, found in quantities.items() if found["shifted"]),
        "confronted": record["confronted"]["now"]["n"],
        "confronted_all": every["n"],
        "coverage_all": every["coverage"],
        "mae_all": every["mae"],
        "first": first_of(now),
    }


def first_of(now: pa.Table) -> dict[str, Any] | None:
    """The first of a ranking."""
    if not now.num_rows:
        return None
    row = now.slice(0, 1).to_pylist()[0]
    return {name: row[name] for name in ("material_id", "formula", "predicted")}
