"""Predictions held against labels that came later: was it right, how far off, inside its interval?

These are the only honest test of a campaign that goes on, and no fair sample: people measure first what was promised
to be good. Each prediction counts once, as it stood in the last run before its label came.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest, norm

from atomsets_core.models import bias, mean_absolute_error

FEW = 10
"""Confronted predictions from which a share is judged."""
LEVEL = 0.05
KEPT = 20_000
"""Confronted predictions that are kept, the latest."""

SCHEMA = pa.schema(
    [
        ("run", pa.int32()),
        ("model", pa.string()),
        ("material_id", pa.string()),
        ("structure_hash", pa.string()),
        ("formula", pa.string()),
        ("rank", pa.int64()),
        ("shortlist", pa.bool_()),
        ("in_domain", pa.bool_()),
        ("predicted", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("value", pa.float64()),
    ]
)


def confront(
    before: pa.Table,
    labelled: pa.Table,
    learned: pa.Table,
    already: pa.Table,
    *,
    run: int,
    model: str,
    by: Sequence[str] = ("material_id", "structure_hash"),
) -> pa.Table:
    """Predictions of the last run whose values are known now.

    Args:
        before: what the last run ranked, columns `RANKED`.
        labelled: material_id, structure_hash and value of everything that is labelled now.
        learned: material_id and structure_hash of what the model had learned from that predicted.
        already: confronted before, columns `SCHEMA`.
        run: number of this run.
        model: folder of the model that predicted.
        by: columns of all of these by which a label finds its prediction, the first that does.

    Returns:
        Columns `SCHEMA`, best rank first.
    """
    fresh = labelled.filter(pc.invert(_either(labelled, learned, by)))
    fresh = fresh.filter(pc.invert(_either(fresh, already, by)))
    place = np.full(fresh.num_rows, -1, dtype=np.int64)
    for name in by:
        place = np.where(place >= 0, place, _places(fresh[name], before[name]))
    rows = np.flatnonzero(place >= 0)
    # two labels of one structure: the first counts
    _, first = np.unique(place[rows], return_index=True)
    rows = rows[first]
    predicted = before.take(pa.array(place[rows]))
    columns = {name: predicted[name] for name in SCHEMA.names if name in predicted.column_names}
    columns["run"] = pa.array(np.full(len(rows), run, dtype=np.int32))
    columns["model"] = pa.array([model] * len(rows), pa.string())
    columns["value"] = fresh["value"].take(pa.array(rows))
    return pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)


def _either(rows: pa.Table, among: pa.Table, by: Sequence[str]) -> pa.ChunkedArray:
    """(n,) whether one of these columns of a row, as identifier or structure, is that of another row."""
    parts = [pc.is_in(rows[name], value_set=among[name].combine_chunks().cast(rows[name].type)) for name in by]
    return reduce(pc.or_, parts)


def _places(names: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    found = pc.index_in(names, value_set=among.combine_chunks())
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def scores(confronted: pa.Table, coverage: float, expected_error: float, on_scale: Any = np.asarray) -> dict[str, Any]:
    """How confronted predictions fared.

    Args:
        confronted: columns `SCHEMA`.
        coverage: share of values meant to lie inside their interval.
        expected_error: mean absolute error out of fold, on the model's scale.
        on_scale: from the unit of the target to the scale of the model.

    Returns:
        JSON: n, inside (count), coverage, coverage_p (chance of as few inside if the intervals were right), mae, bias
        (both on the model's scale, bias negative where values were underestimated), mae_out_of_fold, and "drifted":
        whether fewer lie inside than chance allows; numbers are None where there is nothing, drifted is where there are
        fewer than `FEW`.
    """
    n = confronted.num_rows
    if not n:
        keys = ("coverage", "coverage_p", "mae", "bias", "drifted")
        return {"n": 0, "inside": 0, **dict.fromkeys(keys), "mae_out_of_fold": expected_error}
    value, predicted = (on_scale(confronted[name].to_numpy()) for name in ("value", "predicted"))
    inside, judged = int(is_inside(confronted).sum()), int(has_interval(confronted).sum())
    p = float(binomtest(inside, judged, coverage, alternative="less").pvalue) if judged else None
    return {
        "n": n,
        "inside": inside,
        "coverage": inside / judged if judged else None,
        "coverage_p": p,
        "mae": mean_absolute_error(value, predicted),
        "bias": bias(value, predicted),
        "drifted": bool(p < LEVEL) if p is not None and judged >= FEW else None,
        "mae_out_of_fold": expected_error,
    }


def class_scores(confronted: pa.Table, expected_error: float) -> dict[str, Any]:
    """How confronted probabilities of a class fared.

    Args:
        confronted: columns `SCHEMA`; values are 1 for the class and 0 for others.
        expected_error: log loss out of fold.

    Returns:
        JSON as of `scores`: n, inside and coverage (count and share of those that 0.5 told apart), log_loss,
        log_loss_out_of_fold, bias (mean of probability minus value), coverage_p: chance of as large squared errors if
        the probabilities were right (Spiegelhalter, Stat. Med. 5, 421 (1986)), drifted: whether that is small. What is
        defined for numbers alone is left out: mae is None.
    """
    n = confronted.num_rows
    if not n:
        keys = ("coverage", "coverage_p", "mae", "log_loss", "bias", "drifted")
        return {"n": 0, "inside": 0, **dict.fromkeys(keys), "log_loss_out_of_fold": expected_error}
    value, said = (confronted[name].to_numpy().astype(np.float64) for name in ("value", "predicted"))
    p = np.clip(said, 1e-7, 1.0 - 1e-7)
    right = is_right(confronted)
    # Under the probabilities sum (y - p) (1 - 2 p) has the mean 0 and this variance.
    variance = float(np.sum((1.0 - 2.0 * p) ** 2 * p * (1.0 - p)))
    z = float(np.sum((value - p) * (1.0 - 2.0 * p))) / np.sqrt(variance) if variance > 0 else 0.0
    chance = float(norm.sf(z))
    return {
        "n": n,
        "inside": int(right.sum()),
        "coverage": float(right.mean()),
        "coverage_p": chance,
        "mae": None,
        "log_loss": float(-np.mean(np.log(np.where(value > 0.5, p, 1.0 - p)))),
        "bias": bias(value, said),
        "drifted": bool(chance < LEVEL) if n >= FEW else None,
        "log_loss_out_of_fold": expected_error,
    }


def is_right(confronted: pa.Table) -> npt.NDArray[np.bool_]:
    """(n,) whether a probability was on the side of 0.5 where the value, 1 or 0, turned out to be."""
    value, said = (confronted[name].to_numpy().astype(np.float64) for name in ("value", "predicted"))
    return (said >= 0.5) == (value > 0.5)


def is_inside(confronted: pa.Table) -> npt.NDArray[np.bool_]:
    """(n,) whether the value lies inside its interval."""
    value, lower, upper = (confronted[name].to_numpy() for name in ("value", "lower", "upper"))
    return (value >= lower) & (value <= upper)


def has_interval(confronted: pa.Table) -> npt.NDArray[np.bool_]:
    """(n,) whether the prediction came with an interval; where no training row is like the candidates none does."""
    return np.asarray(~np.isnan(confronted["lower"].to_numpy().astype(np.float64)))


def rows_of(
    confronted: pa.Table, on_scale: Any = np.asarray, most: int = 50, *, of_class: bool = False
) -> list[dict[str, Any]]:
    """The first confronted predictions as JSON, with their error on the model's scale and whether it was right.

    Args:
        confronted: columns `SCHEMA`.
        on_scale: from the unit of the target to the scale of the model.
        most: rows.
        of_class: right is a probability on the side of 0.5 where the value is, and not an interval that holds it.
    """
    some = confronted.slice(0, most)
    rows = some.to_pylist()
    judged = (is_right(some), np.ones(len(rows), bool)) if of_class else (is_inside(some), has_interval(some))
    errors = on_scale(some["predicted"].to_numpy()) - on_scale(some["value"].to_numpy())
    return [
        {**row, "error": float(error), "inside": bool(inside) if told else None}
        for row, error, inside, told in zip(rows, errors, *judged, strict=True)
    ]


def append(already: pa.Table, fresh: pa.Table) -> pa.Table:
    """All confronted predictions, the latest `KEPT` of them."""
    joined = pa.concat_tables([already, fresh])
    return joined.slice(max(0, joined.num_rows - KEPT))


def none() -> pa.Table:
    """No confronted predictions."""
    return SCHEMA.empty_table()
