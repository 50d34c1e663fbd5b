"""Feature shards, the unit of work: structures queued for them, and Parquet files with columns, codec and manifest.

An `Intake` cuts the blocks of a source into shards to be made: every content once, with an account of all that came.

A feature store holds, in a folder for each parent, `<key>.parquet` and its manifest entry `<key>.json`. The entry is
written only after the shard is safely on the disk and carries its sha256, its size, its rows and the structures the
parent refused; a shard without a matching entry does not exist. Entries are files of their own instead of lines of one
file, so that workers, campaigns and object stores need no shared pen and nothing can be cut off in the middle.

The key is made from the structure hashes, the levels and the parent's digest, never from identifiers: two campaigns
over the same structures share their shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.parents import Features
from atomsets_core.sources import Block
from atomsets_core.storage import (
    Digests,
    HashIndex,
    StorageError,
    Store,
    check_parquet,
)
from atomsets_core.structures import (
    COMPOSITIONS,
    Compositions,
    IntArray,
    Refusal,
    Structures,
    from_arrow,
    kind_of_table,
    list_array,
    regrouped,
)

SCHEMA_VERSION = 1

ROW_GROUP = 1024

WEIGHTS = "site_weight"
"""Column of the occupancies, in shards that have disordered structures."""

BATCH = 64
"""Rows decoded at a time where only some are wanted."""


@dataclass
class Intake:
    """What came in so far. Holds 16 bytes of each content and a line of each entry, never a structure for long.

    Attributes:
        size: structures in a shard.
        content: content hashes that came, 16 bytes each.
        duplicates: structures whose content had come before.
        refused: entries that could not be read.
    """

    size: int
    content: set[bytes] = field(default_factory=set)
    duplicates: int = 0
    refused: list[Refusal] = field(default_factory=list)
    _lines: list[pa.RecordBatch] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Entries that came."""
        return len(self.content) + self.duplicates + len(self.refused)

    def shards(self, blocks: Iterable[Block]) -> Iterator[Structures]:
        """The structures that came for the first time, in order, `size` at a time."""
        return regrouped(map(self._taken_in, blocks), self.size)

    def _taken_in(self, block: Block) -> Structures:
        self.refused += block.refused
        return self._first_of_each(block.structures)

    def _first_of_each(self, structures: Structures) -> Structures:
        new = np.empty(len(structures), dtype=bool)
        for i, digest in enumerate(structures.hashes):
            key = bytes.fromhex(digest)
            new[i] = key not in self.content
            self.content.add(key)
        self.duplicates += int((~new).sum())
        columns = [
            pa.array(structures.material_id, pa.string()),
            pa.array(structures.hashes, pa.string()),
            pa.array(structures.n_atoms, pa.int32()),
            pa.array(~new),
        ]
        self._lines.append(pa.record_batch(columns, names=["material_id", "structure_hash", "n_atoms", "duplicate"]))
        return structures.take(np.flatnonzero(new))

    def index(self) -> pa.Table:
        """material_id, structure_hash, n_atoms, duplicate of every structure that could be read, in order.

        The hash says in which shard its features are; duplicates share them.
        """
        schema = pa.schema(
            [
                ("material_id", pa.string()),
                ("structure_hash", pa.string()),
                ("n_atoms", pa.int32()),
                ("duplicate", pa.bool_()),
            ]
        )
        return pa.Table.from_batches(self._lines, schema)


def write_queue(store: Store, name: str, groups: Iterable[Structures | Compositions]) -> list[list[str]]:
    """Write the structures or compositions that wait for features, one Parquet row group for each shard to be made.

    Returns:
        The content hashes of each group.
    """
    hashes = []
    with store.replacing(name) as file:
        writer: pq.ParquetWriter | None = None
        try:
            for group in groups:
                table = group.to_arrow(occupancy=True) if isinstance(group, Structures) else group.to_arrow()
                writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
                writer.write_table(table, row_group_size=len(group))
                hashes.append([str(h) for h in group.hashes])
        finally:
            if writer is not None:
                writer.close()
    return hashes


def read_queued(store: Store, queue: str, group: int) -> Structures | Compositions:
    """The structures or compositions of one row group of the queue."""
    with store.open(queue) as file:
        table = pq.ParquetFile(file).read_row_group(group)
    if kind_of_table(table.column_names) == COMPOSITIONS:
        return Compositions.from_arrow(table)
    return from_arrow(table)[0]


class ShardError(StorageError):
    """A shard that is not what its manifest entry says; the message names the file."""


@dataclass(frozen=True)
class ShardEntry:
    """Manifest entry of one shard.

    Attributes:
        key: name of the shard without its ending.
        sha256: of the Parquet file.
        size: of the Parquet file, bytes.
        rows: structures in it.
        hashes: their content hashes, in order.
        refused: structure hash -> reason, for structures the parent can't take.
        flagged: structure hash -> remark.
        parent: name of the parent.
        digest: of the parent.
        levels: feature levels in the shard.
        schema_version: of the Parquet layout.
        sites: of all rows.
        bonds: directed, of all rows; 0 where the parent doesn't count them or needed none.
    """

    key: str
    sha256: str
    size: int
    rows: int
    hashes: tuple[str, ...]
    refused: dict[str, str]
    flagged: dict[str, str]
    parent: str
    digest: str
    levels: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION
    sites: int = 0
    bonds: int = 0

    @property
    def file(self) -> str:
        """Name of the Parquet file within the feature store."""
        return f"{folder(self.parent, self.digest)}/{self.key}.parquet"

    @property
    def manifest(self) -> str:
        """Name of the file that holds this entry."""
        return f"{folder(self.parent, self.digest)}/{self.key}.json"


def shard_key(hashes: Sequence[str], digest: str, levels: Sequence[str]) -> str:
    """32 hex digits from what is asked (structures in order, levels) and of whom (the parent's digest)."""
    # Levels in any order are the same question, structures in another order another shard.
    text = json.dumps([SCHEMA_VERSION, digest, sorted(levels), list(hashes)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def folder(parent: str, digest: str) -> str:
    """Folder of one parent's shards within a feature store; of a parent that is a path, named after its last part."""
    name = re.sub(r"[^\w.-]+", "_", parent.rstrip("/").rsplit("/", 1)[-1]).lstrip(".")
    return f"{name or 'parent'}-{digest}"


def write_shard(store: Store, parent: str, key: str, features: Features, levels: Sequence[str]) -> ShardEntry:
    """Write a shard and, once it is on the disk, its manifest entry.

    Raises:
        StorageError: it can't be written; no entry is left behind.
        ValueError: a feature is NaN or infinite.
    """
    for level, values in {**features.sites, **features.structure}.items():
        if not np.isfinite(values).all():
            raise ValueError(f"level {level} of shard {key} has a NaN or infinite feature")
    with store.guarded():
        data = store.write_table(
            f"{folder(parent, features.digest)}/{key}.parquet",
            to_arrow(features, parent),
            row_group_size=ROW_GROUP,
            **_written(features),
        )
        entry = ShardEntry(
            key=key,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            rows=len(features),
            hashes=tuple(features.structure_hash),
            refused={refusal.structure_hash: refusal.reason for refusal in features.refused},
            flagged=features.flagged,
            parent=parent,
            digest=features.digest,
            levels=tuple(levels),
            sites=int(features.n_atoms.sum()),
            bonds=features.bonds,
        )
        body = asdict(entry)
        store.write_json(entry.manifest, {**body, "checksum": _checksum(body)})
    return entry


def _written(features: Features) -> dict[str, Any]:
    """How Parquet is written."""
    # No dictionary: float32 features hardly ever repeat. What compresses is their bytes in separate streams (see
    # `encodings`), where signs and exponents are alike; zstd 9 takes 2.5 times as long as 3 for a hundredth of the size
    # (docs/speed.md).
    return {"compression_level": 3, "use_dictionary": False, "column_encoding": encodings(features)}


def size_of(features: Features, parent: str) -> int:
    """Bytes of a shard of these features."""
    sink = io.BytesIO()
    pq.write_table(to_arrow(features, parent), sink, compression="zstd", **_written(features))
    return sink.tell()


def entries_in(store: Store, where: str) -> Iterator[ShardEntry]:
    """All entries of a folder that can be read, by key, also those that this version does not use."""
    for name in store.names(where, ".json"):
        try:
            entry = _entry(store.read_json(name), name.rsplit("/", 1)[-1].removesuffix(".json"))
        except (StorageError, TypeError, KeyError):
            continue
        if folder(entry.parent, entry.digest) == where:
            yield entry


def find_entry(store: Store, where: str, key: str) -> ShardEntry | None:
    """One entry of a folder; None where the shard has not been made."""
    name = f"{where}/{key}.json"
    if not store.exists(name):
        return None
    try:
        return _entry(store.read_json(name), key)
    except (StorageError, TypeError, KeyError):
        return None


def _checksum(body: dict) -> str:
    """Checksum of an entry, so that one that was changed counts as absent."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _entry(raw: object, key: str) -> ShardEntry:
    """The entry in a JSON file; those written before there were checksums have none.

    Raises:
        KeyError: it is no entry, that of another shard, or was changed; TypeError likewise.
    """
    if not isinstance(raw, dict) or raw.get("key") != key:
        raise KeyError("key")
    checksum = raw.pop("checksum", None)
    if checksum is not None and checksum != _checksum(raw):
        raise KeyError("checksum")
    if not all(isinstance(text, str) for name in ("hashes", "levels", "refused", "flagged") for text in raw[name]):
        raise TypeError("hashes")
    return ShardEntry(**{**raw, "hashes": tuple(raw["hashes"]), "levels": tuple(raw["levels"])})


@dataclass(frozen=True)
class Located:
    """Where the features of n structures are.

    Attributes:
        entries: shards that hold some of them, by key; `hashes` of each is left empty.
        shard: (n,) which of them holds a structure; -1 where none does.
        row: (n,) where in that shard.
        refused: structure hash -> reason, for those that no shard holds and the parent can't take.
        missing: (n,) those that nobody has featurised.
    """

    entries: tuple[ShardEntry, ...]
    shard: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    refused: dict[str, str]
    missing: npt.NDArray[np.bool_]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """(n,) those that have features."""
        return self.shard >= 0


def locate(entries: Iterable[ShardEntry], levels: Sequence[str], hashes: Sequence[str] | Digests) -> Located:
    """Where the features of some structures are; the first shard by key that holds one counts.

    Args:
        entries: the manifest of one parent; they may come one by one, and in any order.
        levels: that are needed.
        hashes: (n,) of the structures, or `digests` of them; one may come twice.
    """
    index = HashIndex(hashes)
    light: list[ShardEntry] = []
    shard = np.full(len(index), -1, dtype=np.int64)
    row = np.full(len(index), -1, dtype=np.int64)
    reasons: dict[str, str] = {}
    for entry in entries:
        if not set(levels) <= set(entry.levels):
            continue
        wanted = index.find(entry.refused) >= 0
        reasons.update({h: why for (h, why), mine in zip(entry.refused.items(), wanted, strict=True) if mine})
        at = index.find(entry.hashes)
        here = np.flatnonzero(at >= 0)
        earlier = np.array([known.key < entry.key for known in light] + [False])  # the last is of -1: none yet
        here = here[~earlier[shard[at[here]]]]
        if len(here):
            shard[at[here]], row[at[here]] = len(light), here
            light.append(replace(entry, hashes=()))
    used = np.unique(shard[shard >= 0])
    order = sorted(used.tolist(), key=lambda k: light[k].key)
    renumbered = np.full(len(light) + 1, -1, dtype=np.int64)
    renumbered[order] = np.arange(len(order))
    shard = renumbered[shard][index.inverse]
    refused = {h: reason for h, reason in reasons.items() if shard[index.first[index.find([h])[0]]] < 0}
    missing = shard < 0
    for h in refused:
        missing[index.inverse == index.find([h])[0]] = False
    return Located(tuple(light[k] for k in order), shard, row[index.inverse], refused, missing)


def verify_shard(store: Store, entry: ShardEntry) -> bytes:
    """The bytes of a shard, checked against its entry.

    Raises:
        ShardError: the file is missing, short, or changed; the message names it.
    """
    name = entry.file
    try:
        size = store.size(name)
        if size != entry.size:
            raise ShardError(f"shard {store.url(name)} is damaged: {size} bytes instead of {entry.size}")
        data = store.read(name)
    except ShardError:
        raise
    except StorageError as error:
        raise ShardError(f"shard {store.url(name)} is gone though the manifest lists it") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ShardError(f"shard {store.url(name)} is damaged: its sha256 is not the manifest's")
    return data


def read_shard(
    store: Store, entry: ShardEntry, levels: Sequence[str] | None = None, rows: IntArray | None = None
) -> Features:
    """A verified shard as features; `material_id` is the structure hash, since shards know no identifiers.

    Args:
        store: of the shard.
        entry: of the manifest.
        levels: to be read; all by default.
        rows: these alone, in this order, without the memory of the others; rows may repeat. All by default.

    Raises:
        ShardError: the file is missing or damaged; the message names it.
        KeyError: a level that the shard doesn't hold.
    """
    data, levels = verify_shard(store, entry), entry.levels if levels is None else levels
    # From half the rows on the whole shard is at most twice what is wanted.
    if rows is None or 2 * len(rows) > entry.rows:
        features = _from_arrow(data, entry, levels, None)
        return features if rows is None else features[rows]
    wanted, places = np.unique(rows, return_inverse=True)
    return _from_arrow(data, entry, levels, wanted)[places]


def discard(store: Store, entry: ShardEntry) -> None:
    """Remove a shard that is damaged, its manifest entry first, unless it has been made again since somebody looked."""
    remove_faulty(store, (entry.manifest, entry.file))


def remove_faulty(store: Store, names: Sequence[str]) -> bool:
    """Remove files of one shard that were found faulty, unless it is whole now: campaigns share their shards.

    Returns:
        Whether they were removed.

    Raises:
        StorageError: they can't be removed, or the store is gone.
    """
    where, _, file = names[0].partition("/")
    with store.guarded(alone=True):
        entry = find_entry(store, where, file.rsplit(".", 1)[0])
        if entry is not None and not damaged_shards(store, [entry]):
            return False
        for name in names:
            store.remove(name)
    return True


def to_arrow(features: Features, parent: str) -> pa.Table:
    """The table of a shard: a row for each structure, each level as a flat list of its numbers."""
    columns = {
        "material_id": pa.array(features.material_id, pa.string()),
        "structure_hash": pa.array(features.structure_hash, pa.string()),
        "formula": pa.array(features.formula, pa.string()),
        "n_atoms": pa.array(features.n_atoms, pa.int32()),
    }
    if features.weights is not None:
        columns[WEIGHTS] = list_array(features.weights, features.offsets, pa.float32())
    for level, values in features.sites.items():
        # One flat list a structure, the width in the metadata: a list of lists would carry an offset for each site.
        columns[level] = list_array(values.reshape(-1), features.offsets * values.shape[1], pa.float32())
    for level, values in features.structure.items():
        width = values.shape[1]
        columns[level] = list_array(values.reshape(-1), width * np.arange(len(features) + 1), pa.float32())
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "parent": parent,
        "digest": features.digest,
        "site_levels": {level: values.shape[1] for level, values in features.sites.items()},
        "structure_levels": {level: values.shape[1] for level, values in features.structure.items()},
        "dtype": "float32",
    }
    return pa.table(columns).replace_schema_metadata({"atomsets": json.dumps(metadata)})


def encodings(features: Features) -> dict[str, str]:
    """Column -> Parquet encoding: floats compress best with their bytes in separate streams."""
    return {f"{level}.list.element": "BYTE_STREAM_SPLIT" for level in [*features.sites, *features.structure]}


def _some(file: pq.ParquetFile, columns: list[str], rows: IntArray) -> pa.Table:
    """These rows, ascending, of the file."""
    # Rows can't be skipped within a compressed page, but what isn't wanted is dropped a batch at a time.
    parts, start = [], 0
    for batch in file.iter_batches(BATCH, columns=columns, use_threads=False):
        first, last = np.searchsorted(rows, [start, start + len(batch)])
        parts.append(batch.take(pa.array(rows[first:last] - start)))
        start += len(batch)
    return pa.Table.from_batches(parts)


def _from_arrow(data: bytes, entry: ShardEntry, levels: Sequence[str], rows: IntArray | None) -> Features:
    """The features of all rows, or of some, ascending."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        metadata = json.loads(file.schema_arrow.metadata[b"atomsets"])
        check_parquet(file, len(data))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ShardError(f"shard {entry.key} is no shard of ours: {error}") from error
    missing = [level for level in levels if level not in file.schema_arrow.names]
    if missing:
        raise KeyError(f"shard {entry.key} holds no level {missing[0]!r}; it has {', '.join(entry.levels)}")
    weights = [WEIGHTS] if WEIGHTS in file.schema_arrow.names else []
    columns = ["material_id", "structure_hash", "formula", "n_atoms", *weights, *levels]
    table = file.read(columns=columns) if rows is None else _some(file, columns, rows)

    def values(level: str, width: int) -> np.ndarray:
        column = table[level].combine_chunks()
        flat = (
            pa.concat_arrays([c.flatten() for c in column.chunks])
            if isinstance(column, pa.ChunkedArray)
            else column.flatten()
        )
        return flat.to_numpy(zero_copy_only=False).reshape(-1, width)

    def strings(name: str) -> np.ndarray:
        return np.array(table[name].to_pylist(), dtype=object)

    sites, structure = metadata["site_levels"], metadata["structure_levels"]
    return Features(
        material_id=strings("material_id"),
        structure_hash=strings("structure_hash"),
        formula=strings("formula"),
        n_atoms=table["n_atoms"].to_numpy().astype(np.int64),
        sites={level: values(level, sites[level]) for level in levels if level in sites},
        structure={level: values(level, structure[level]) for level in levels if level in structure},
        digest=metadata["digest"],
        weights=values(WEIGHTS, 1)[:, 0] if weights else None,
        refused=tuple(Refusal("", "featurize", reason, h) for h, reason in entry.refused.items()),
        flagged=entry.flagged,
    )


def counts_of(entry: ShardEntry) -> dict[str, int]:
    """What a shard holds, in numbers."""
    return {"rows": entry.rows, "refused": len(entry.refused), "sites": entry.sites, "bonds": entry.bonds}


def damaged_shards(store: Store, entries: Iterable[ShardEntry]) -> list[tuple[ShardEntry, str]]:
    """The shards that are not what the manifest says, and what is wrong with each."""
    found = []
    for entry in entries:
        try:
            verify_shard(store, entry)
        except StorageError as error:
            found.append((entry, str(error)))
    return found
