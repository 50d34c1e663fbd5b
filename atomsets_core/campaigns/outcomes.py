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
from scipy.stats import binomtest

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


def is_inside(confronted: pa.Table) -> npt.NDArray[np.bool_]:
    """(n,) whether the value lies inside its interval."""
    value, lower, upper = (confronted[name].to_numpy() for name in ("value", "lower", "upper"))
    return (value >= lower) & (value <= upper)


def has_interval(confronted: pa.Table) -> npt.NDArray[np.bool_]:
    """(n,) whether the prediction came with an interval; where no training row is like the candidates none does."""
    return np.asarray(~np.isnan(confronted["lower"].to_numpy().astype(np.float64)))


def rows_of(confronted: pa.Table, on_scale: Any = np.asarray, most: int = 50) -> list[dict[str, Any]]:
    """The first confronted predictions as JSON, with their error on the model's scale and whether it was right."""
    some = confronted.slice(0, most)
    rows = some.to_pylist()
    errors = on_scale(some["predicted"].to_numpy()) - on_scale(some["value"].to_numpy())
    return [
        {**row, "error": float(error), "inside": bool(inside) if told else None}
        for row, error, inside, told in zip(rows, errors, is_inside(some), has_interval(some), strict=True)
    ]


def append(already: pa.Table, fresh: pa.Table) -> pa.Table:
    """All confronted predictions, the latest `KEPT` of them."""
    joined = pa.concat_tables([already, fresh])
    return joined.slice(max(0, joined.num_rows - KEPT))


def none() -> pa.Table:
    """No confronted predictions."""
    return SCHEMA.empty_table()
