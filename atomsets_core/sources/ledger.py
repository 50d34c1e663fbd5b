"""The failure ledger: one row for each structure or label that could not be used."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from atomsets_core.structures import Refusal

LEDGER = ("dataset", "material_id", "stage", "reason", "structure_hash")


def ledger_table(rows: Iterable[tuple[str, Refusal]]) -> pa.Table:
    """The failure ledger: one row for each structure or label that could not be used.

    Args:
        rows: data set ("training" or "candidates") and refusal.
    """
    records = [(dataset, r.material_id, r.stage, r.reason, r.structure_hash) for dataset, r in rows]
    columns = zip(*records, strict=True) if records else ([] for _ in LEDGER)
    return pa.table({name: pa.array(list(column), pa.string()) for name, column in zip(LEDGER, columns, strict=True)})
