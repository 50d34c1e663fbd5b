"""What a run depends on and what it left, as digests: equal ones mean that another run would change nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atomsets_core.storage import StorageError, Store
from atomsets_core.structures import FRACTIONS, Refusal

STRUCTURE = ("lattice", "Z", "frac", "occupancy", FRACTIONS)
"""Columns that the structure's hash stands for."""

BATCH = 8192
"""Rows in memory at once."""

PIECE = 1 << 22


def digest(*parts: Any) -> str:
    """32 hex digits of JSON values."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def table_digest(store: Store, name: str) -> str:
    """32 hex digits of what a Parquet file of structures says, however it was cut, compressed or typed.

    The order of the rows counts. Of the structures the column structure_hash counts, numbers to the last bit.

    Raises:
        StorageError: there is no such file, or it is damaged.
    """
    hashers: dict[str, Any] = {}
    try:
        with store.open(name) as file:
            parquet = pq.ParquetFile(file)
            wanted = sorted(column for column in parquet.schema_arrow.names if column not in STRUCTURE)
            for batch in parquet.iter_batches(batch_size=BATCH, columns=wanted):
                for column in wanted:
                    hasher = hashers.setdefault(column, hashlib.sha256())
                    _feed(hasher, batch.column(batch.schema.get_field_index(column)))
            rows = parquet.metadata.num_rows
    except FileNotFoundError as error:
        raise StorageError(f"{store.url(name)} does not exist") from error
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{store.url(name)} is damaged: {error}. Delete it and run again") from error
    return digest(rows, {column: hasher.hexdigest() for column, hasher in hashers.items()})


def _feed(hasher: Any, values: pa.Array) -> None:
    """Give a column's values to a hasher, the same bytes however the column is cut into batches."""
    kind = values.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        # one NaN for all kinds of missing
        hasher.update(np.where(np.isnan(numbers), np.nan, numbers).tobytes())
        return
    texts = [None if text is None else str(text) for text in values.to_pylist()]
    hasher.update("".join("\0" if text is None else f"{len(text)}:{text}" for text in texts).encode())


def refusals_digest(refused: Iterable[Refusal]) -> str:
    """32 hex digits of what could not be used and why."""
    return digest([[r.material_id, r.stage, r.reason, r.structure_hash] for r in refused])


def record(store: Store, name: str) -> dict[str, Any]:
    """Size and sha256 of a file.

    Raises:
        StorageError: there is none, or it can't be read.
    """
    hasher, size = hashlib.sha256(), 0
    try:
        with store.open(name) as file:
            while piece := file.read(PIECE):
                hasher.update(piece)
                size += len(piece)
    except FileNotFoundError as error:
        raise StorageError(f"{store.url(name)} does not exist") from error
    except OSError as error:
        raise StorageError(f"{store.url(name)} can't be read: {error.strerror or error}") from error
    return {"size": size, "sha256": hasher.hexdigest()}


def unsound(store: Store, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with files that were recorded: one sentence for each that is gone or not what it was."""
    wrong = []
    for name, expected in records.items():
        try:
            if store.size(name) != expected["size"] or record(store, name) != dict(expected):
                wrong.append(f"{name} is not what the last run left")
        except StorageError:
            wrong.append(f"{name} is gone")
    return wrong


def lost(store: Store, sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with files of which the sizes were recorded, from listings alone: shards, too many to be read."""
    folders = {name.rpartition("/")[0] for name in sizes}
    there = {name: size for folder in sorted(folders) for name, size in store.sizes(folder).items()}
    gone = [name for name in sizes if name not in there]
    changed = [name for name, size in sizes.items() if there.get(name, size) != size]
    return [f"{name} is gone" for name in gone] + [f"{name} has another size" for name in changed]


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the parts that are not what they were, in the order of `now`; parts that are no more come last."""
    changed = [name for name, value in now.items() if before.get(name) != value]
    return changed + [name for name in before if name not in now]
