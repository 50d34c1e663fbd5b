"""What a run leaves for the next: what it depended on, what it wrote, the ranking it ended with, and the history.

standing.json is written last and names everything else, so a run that is killed anywhere leaves the memory of the one
before: the next run compares with that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atomsets_core.campaigns.fingerprint import BATCH, differences, lost, record, unsound
from atomsets_core.campaigns.layout import (
    CHANGES,
    HISTORY,
    RANKED_BEFORE,
    RANKING,
    STANDING,
    ranking_name,
    record_name,
)
from atomsets_core.storage import StorageError, Store

VERSION = 1

KEPT_RUNS = 60
"""Records of single runs that are kept: more than a year of weeks."""
KEPT_LINES = 400
"""Lines of the history in changes.json, one a run."""

RANKED = (
    "material_id",
    "structure_hash",
    "formula",
    "rank",
    "predicted",
    "lower",
    "upper",
    "distance",
    "n_atoms",
    "in_domain",
    "shortlist",
)
"""Columns of a ranking that the next run needs."""

OF_CELLS = "n_atoms"
"""The one of them that a ranking of formulas lacks."""


@dataclass(frozen=True)
class Standing:
    """What the last finished run knew.

    Attributes:
        run: its number, from 1.
        finished: when, ISO 8601.
        parts: name -> digest of everything its results depend on.
        outputs: name -> size and sha256 of the files it left.
        shards: name -> size of the shards it read, in the feature store.
        ranking: name of the file with what it ranked, see `RANKED`.
        model: folder of the model that predicted.
        whole: whether nothing failed that another try might mend.
    """

    run: int
    finished: str
    parts: dict[str, str]
    outputs: dict[str, dict[str, Any]]
    shards: dict[str, int]
    ranking: str
    model: str
    whole: bool = True
    version: int = field(default=VERSION)

    def news(self, store: Store, features: Store, parts: Mapping[str, str]) -> list[str]:
        """Why another run is needed, one reason each; nothing where it would change nothing."""
        reasons = [f"{name} changed" for name in differences(self.parts, parts)]
        if not self.whole:
            reasons.append("some work failed in the last run")
        return reasons + unsound(store, self.outputs) + lost(features, self.shards)


def read_standing(store: Store) -> Standing | None:
    """What the last run left; None where there was none, or what it left can't be read any more."""
    if not store.exists(STANDING):
        return None
    try:
        found = Standing(**store.read_json(STANDING))
    except (StorageError, TypeError):
        return None
    return found if found.version == VERSION else None


def remember(store: Store, standing: Standing) -> None:
    """Write standing.json; then remove what only older runs needed."""
    store.write_json(STANDING, asdict(standing))
    for name in store.names(HISTORY, ".parquet"):
        if name.startswith(RANKED_BEFORE) and name != standing.ranking:
            store.remove(name)
    for name in store.names(HISTORY, ".json")[:-KEPT_RUNS]:
        store.remove(name)


def recorded(store: Store, names: list[str]) -> dict[str, dict[str, Any]]:
    """Name -> size and sha256 of files that were written."""
    return {name: record(store, name) for name in names}


def keep_ranking(store: Store, run: int, ranking: str = RANKING) -> str:
    """Copy what the next run needs of a ranking, batch by batch; the name of the copy."""
    name = ranking_name(run)
    with store.open(ranking) as source, store.replacing(name) as target:
        parquet = pq.ParquetFile(source)
        columns = [column for column in RANKED if column in parquet.schema_arrow.names]
        schema = pa.schema([parquet.schema_arrow.field(column) for column in columns])
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in parquet.iter_batches(batch_size=BATCH, columns=columns):
                writer.write_table(pa.Table.from_batches([batch]).select(columns).cast(schema))
    return name


def read_ranking(store: Store, name: str) -> pa.Table:
    """Columns `RANKED` of a ranking, in the order of its ranks.

    Raises:
        StorageError: it doesn't exist or is damaged.
    """
    ranks = store.read_table(name, columns=["rank"])["rank"].to_numpy()  # says what is wrong with a file
    with store.open(name) as file:
        there = pq.read_schema(file).names
    table = store.read_table(name, columns=[column for column in RANKED if column in there or column != OF_CELLS])
    return table if (ranks[1:] > ranks[:-1]).all() else table.take(pc.sort_indices(table["rank"]))


def last_ranking(store: Store, standing: Standing | None) -> pa.Table | None:
    """What the last run ranked; None where there was none or it is lost."""
    if standing is None or not store.exists(standing.ranking):
        return None
    try:
        return read_ranking(store, standing.ranking)
    except StorageError:
        return None


def write_changes(store: Store, record: Mapping[str, Any], line: Mapping[str, Any]) -> None:
    """Keep what a run changed: its record by itself, and in changes.json with one line for each run before.

    A run that is made again, because it was killed after this, replaces its record and its line.
    """
    run = int(record["run"])
    store.write_json(record_name(run), dict(record))
    lines = [old for old in read_changes(store).get("history", []) if old["run"] < run]
    store.write_json(CHANGES, {"latest": dict(record), "history": [*lines, dict(line)][-KEPT_LINES:]})


def read_changes(store: Store) -> dict[str, Any]:
    """The content of changes.json: "latest", the record of the last run, and "history", a line for each; or nothing."""
    if not store.exists(CHANGES):
        return {}
    try:
        found = store.read_json(CHANGES)
    except StorageError:
        return {}
    return found if isinstance(found, dict) and "latest" in found else {}


def short(name: str) -> str:
    """A model's folder as people see it: its last part."""
    return name.rpartition("/")[2]
