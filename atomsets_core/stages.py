"""What a worker does: one function for each kind of work, from files to files.

Arguments and results are paths, keys and small numbers, never arrays, so that any scheduler can carry them. Every
function may be called again at any time: what is already there is kept.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.cards import campaign_card
from atomsets_core.discovery import Design, Rows, answer, scored
from atomsets_core.discovery.choice import campaign_heads
from atomsets_core.estimators import AtomSetsRegressor, transform_target
from atomsets_core.features import Features
from atomsets_core.memory import peak_mb
from atomsets_core.parents import load_parent
from atomsets_core.shards import ShardEntry, read_shard, verify_shard, write_shard
from atomsets_core.standing.folds import read_frozen
from atomsets_core.storage import StorageError, Store
from atomsets_core.stored import StoredFeatures
from atomsets_core.structures import Refusal, Structures, from_arrow
from atomsets_core.training import resolve_device

LABELLED = "structures/labelled.parquet"
"""material_id, structure_hash, formula and value of every training row, in training order."""


def write_queue(store: Store, name: str, groups: Iterable[Structures]) -> list[list[str]]:
    """Write the structures that wait for features, one Parquet row group for each shard to be made.

    Returns:
        The content hashes of each group.
    """
    hashes = []
    with store.replacing(name) as file:
        writer: pq.ParquetWriter | None = None
        try:
            for group in groups:
                table = group.to_arrow(occupancy=True)
                writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
                writer.write_table(table, row_group_size=len(group))
                hashes.append([str(h) for h in group.hashes])
        finally:
            if writer is not None:
                writer.close()
    return hashes


def featurize_shard(
    store_url: str,
    queue: str,
    group: int,
    feature_url: str,
    parent: str,
    levels: Sequence[str],
    key: str,
    rows: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Featurise one row group of the queue, or rows first to last (exclusive) of it, into a shard.

    Returns:
        rows, refused, sites, bonds, seconds, used (seconds of processor time), and the worker's host, pid and peak_mb.
    """
    started, used = time.perf_counter(), time.process_time()
    structures = read_queued(Store(store_url), queue, group)
    if rows is not None:
        structures = structures.take(np.arange(*rows))
    network = load_parent(parent, str(resolve_device("auto")))
    features = network.featurize(structures, levels)
    entry = write_shard(Store(feature_url), parent, key, features, levels)
    return {
        **counts_of(entry),
        "seconds": time.perf_counter() - started,
        "used": time.process_time() - used,
        "host": platform.node(),
        "pid": os.getpid(),
        "peak_mb": peak_mb(),
    }


def read_queued(store: Store, queue: str, group: int) -> Structures:
    """The structures of one row group of the queue."""
    with store.open(queue) as file:
        table = pq.ParquetFile(file).read_row_group(group)
    return from_arrow(table)[0]


def counts_of(entry: ShardEntry) -> dict[str, int]:
    """What a shard holds, in numbers."""
    return {"rows": entry.rows, "refused": len(entry.refused), "sites": entry.sites, "bonds": entry.bonds}


def refuse_structure(
    store_url: str,
    queue: str,
    group: int,
    feature_url: str,
    parent: str,
    levels: Sequence[str],
    key: str,
    row: int,
    reason: str,
) -> dict[str, int]:
    """Write a shard without rows that says why one structure of the queue has no features."""
    structures = read_queued(Store(store_url), queue, group).take(np.array([row]))
    nothing = load_parent(parent).featurize(structures.take(np.empty(0, dtype=np.int64)), levels)
    refusal = Refusal(str(structures.material_id[0]), "featurize", reason, str(structures.hashes[0]))
    return counts_of(write_shard(Store(feature_url), parent, key, replace(nothing, refused=(refusal,)), levels))


def try_parent(parent: str, levels: Sequence[str]) -> None:
    """Featurise rock salt: what fails at this fails for its own reasons, not for the structures'."""
    cell = 2.82 * np.array([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    frac = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    salt = Structures(np.array(["NaCl"], dtype=object), cell, np.array([2]), np.array([11, 17]), frac)
    load_parent(parent, str(resolve_device("auto"))).featurize(salt, levels)


def gather_features(store: Store, parent: str, digest: str, levels: Sequence[str], hashes: Sequence[str]) -> Features:
    """Features of these structures in this order, from the shards that hold them; repeats are allowed.

    Raises:
        KeyError: a structure that no shard holds.
        ShardError: a damaged shard; the message names it.
    """
    return StoredFeatures.find(store, parent, digest, levels, hashes).load()


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of a training as a file of a store."""

    store: Store
    name: str

    def load(self) -> bytes | None:
        """What was saved last."""
        return self.store.read(self.name) if self.store.exists(self.name) else None

    def save(self, data: bytes) -> None:
        """Replace it."""
        self.store.write(self.name, data)

    def remove(self) -> None:
        """The training is over."""
        self.store.remove(self.name)


def read_labelled(store: Store) -> tuple[pa.Table, np.ndarray]:
    """The training table and its values, (n,) float64, in the unit of the target."""
    table = store.read_table(LABELLED)
    return table, table["value"].to_numpy()


def train_model(
    store_url: str,
    feature_url: str,
    parent: str,
    digest: str,
    parameters: Mapping[str, Any],
    folder: str,
    about: Mapping[str, Any],
    frozen: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Train the ensemble on the labelled structures; save it, its out-of-fold predictions and its card in `folder`.

    Args:
        store_url: of the campaign.
        feature_url: of the features.
        parent: see `gather_features`.
        digest: see there.
        parameters: of `AtomSetsRegressor`.
        folder: of the model.
        about: kept with the model; see `cards.campaign_card`.
        frozen: folder of the model whose folds are kept, and their digest; a first model cuts its own.

    Returns:
        training rows, seconds, last loss, device.
    """
    started = time.perf_counter()
    store = Store(store_url)
    table, values = read_labelled(store)
    model = AtomSetsRegressor(**parameters)
    levels = parameters["features"].partition(":")[2].split("+")
    features = StoredFeatures.find(Store(feature_url), parent, digest, levels, table["structure_hash"].to_pylist())
    checkpoint = StoredCheckpoint(store, f"{folder}/checkpoint.safetensors")
    fold = None
    if frozen is not None:
        fold = read_frozen(store, *frozen).assign(table["formula"].to_pylist())
    model.fit(features, values, checkpoint=checkpoint, fold=fold)
    out_of_fold = table.append_column("fold", pa.array(model.fold_, pa.int32()))
    if model.oof_ is not None:
        for name in ("value", "lower", "upper", "mean", "std", "distance", "in_domain"):
            column = "predicted" if name == "value" else name
            out_of_fold = out_of_fold.append_column(column, pa.array(getattr(model.oof_, name)))
    store.write_table(f"{folder}/out_of_fold.parquet", out_of_fold)
    store.write(f"{folder}/MODEL.md", campaign_card(model, values, about).encode())
    # model.json is written last: a folder with it is complete.
    model.save(store, folder, dict(about))
    checkpoint.remove()
    return {
        "n_train": len(values),
        "seconds": time.perf_counter() - started,
        "loss": model.losses_[-1],
        "device": str(resolve_device(model.device)),
    }


def simulate_seed(
    store_url: str,
    feature_url: str,
    parent: str,
    digest: str,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """One simulated discovery on the labelled structures with every head of a campaign, its scores written as JSON.

    Args:
        store_url: of the campaign.
        feature_url: of the features.
        parent: see `gather_features`.
        digest: see there.
        parameters: of the campaign's model.
        options: goal, quantile and pool_share of the `Design`, and kappa of the acquisition ucb.
        seed: of the holdout and of the heads.
        name: of the file.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    store = Store(store_url)
    table, values = read_labelled(store)
    levels = parameters["features"].partition(":")[2].split("+")
    features = gather_features(Store(feature_url), parent, digest, levels, table["structure_hash"].to_pylist())
    target = transform_target(values, parameters["transform"])
    design = Design(options["goal"], options["quantile"], options["pool_share"])
    rows = Rows(features)
    answers = {head: answer(fit, rows, target, design, seed) for head, fit in campaign_heads(parameters).items()}
    found = scored(answers, target, features.formula, design, seed, kappa=options["kappa"])
    store.write_json(name, {**found, "seconds": {head: part["seconds"] for head, part in answers.items()}})
    return {"seconds": time.perf_counter() - started}


def predict_shard(store_url: str, feature_url: str, entry: ShardEntry, folder: str, name: str) -> dict[str, Any]:
    """Apply a saved model to every structure of a shard; write the predictions as Parquet.

    Returns:
        rows, seconds.
    """
    started = time.perf_counter()
    store = Store(store_url)
    model = AtomSetsRegressor.load(store, folder)
    features = read_shard(Store(feature_url), entry, model.spec_.needed(model.spec_.parents[0]))
    prediction = model.predict_distribution(features)
    columns: dict[str, Any] = {"structure_hash": pa.array(features.structure_hash, pa.string())}
    for field in ("value", "lower", "upper", "mean", "std", "distance", "in_domain"):
        columns["predicted" if field == "value" else field] = pa.array(getattr(prediction, field))
    columns["remark"] = pa.array([features.flagged.get(h, "") for h in features.structure_hash], pa.string())
    store.write_table(name, pa.table(columns))
    return {"rows": len(features), "seconds": time.perf_counter() - started}


def damaged_shards(store: Store, entries: Iterable[ShardEntry]) -> list[tuple[ShardEntry, str]]:
    """The shards that are not what the manifest says, and what is wrong with each."""
    found = []
    for entry in entries:
        try:
            verify_shard(store, entry)
        except StorageError as error:
            found.append((entry, str(error)))
    return found
