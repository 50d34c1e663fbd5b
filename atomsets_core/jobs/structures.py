"""What a campaign does with structures: decide which are learned from and ranked, then shard by shard what workers do.

A shard is a stretch of the queue, whose features are made, or a file of features, for whose rows predictions are made.
Arguments and results of its work are stores, names, keys and small numbers, never arrays, so that any scheduler can
carry them, and it may be called again at any time: what is already there is kept.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pymatgen.core import Element

from atomsets_core.features import AnyStore, FeatureStore, Piece, counts_of, read_queued
from atomsets_core.models import load_regressor, read_config
from atomsets_core.parents import load_parent, resolve_device
from atomsets_core.sources import (
    RULES,
    Catalogue,
    Lines,
    Pulled,
    PulledFile,
    SourceError,
    check_both,
    class_labels,
    crystal_keys,
    filter_reasons,
    seen_lines,
    settle_classes,
    settled_labels,
    sizes_differ,
    unit_of,
    unread_filters,
)
from atomsets_core.storage import Store, peak_mb, prediction_units, seal, with_units
from atomsets_core.structures import COMPOSITIONS, STRUCTURES, Compositions, Refusal, Structures
from atomsets_core.transforms import listed_transforms

Material = Lines | Structures | Compositions

FAILED = "\0failed"
"""Stands for candidates that failed where others were filtered."""


@dataclass(frozen=True)
class Selection:
    """What a campaign works on.

    Attributes:
        training: structures, or compositions, with a usable label.
        values: (len(training),) their labels.
        candidates: structures, or compositions, that passed every filter.
        filtered: reason -> number of candidates it left out.
        refused: ("training" or "candidates", refusal) so far.
        notes: what the user should know of the labels, in sentences.
        seen: candidates that are in the training data and pass every other filter: material_id, structure_hash, the
            label as `value`, and `reason`; empty where they are not looked for.
        classes: class -> labelled rows, the wanted one first; empty where labels are numbers.
    """

    training: Catalogue
    values: npt.NDArray[np.float64]
    candidates: Catalogue
    filtered: dict[str, int]
    refused: list[tuple[str, Refusal]]
    notes: list[str] = field(default_factory=list)
    seen: pd.DataFrame = field(default_factory=pd.DataFrame)
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Labelled:
    """The structures that are learned from.

    Attributes:
        structures: with a usable label.
        values: (len(structures),) their labels; of classes 1 for the wanted one and 0 for the others.
        refused: one row for each other entry.
        notes: what the user should know of the labels, in sentences.
        classes: class -> labelled rows, the wanted one first; empty where labels are numbers.
    """

    structures: Catalogue
    values: npt.NDArray[np.float64]
    refused: list[Refusal]
    notes: list[str]
    classes: dict[str, int] = field(default_factory=dict)


def select(
    store: Store,
    training: PulledFile,
    candidates: PulledFile,
    target: str,
    transform: str,
    bounds: Mapping[str, tuple[float | None, float | None]],
    exclude_elements: Sequence[str],
    only_elements: Sequence[str],
    exclude_seen: bool,
    repeats: str = RULES[0],
    unit: str = "",
    wanted: bool | float | str | None = None,
    spare: bool = False,
) -> Selection:
    """Usable labels of the training data; candidates that pass the filters and are not in the training data.

    Args:
        store: of the campaign.
        training: what the source of the labels gave.
        candidates: what the source of the candidates gave.
        target: column of the labels.
        transform: which labels are usable depends on it.
        bounds: column -> lowest and highest value that pass; also n_atoms and n_elements.
        exclude_elements: that a candidate must not hold.
        only_elements: that a candidate may hold; all where none is named.
        exclude_seen: leave out what is in the training data.
        repeats: what becomes of labels of one content that differ, see `settle`.
        unit: of the target, as the campaign has it.
        wanted: the class whose rows are told from all others, where labels are classes.
        spare: where nothing else is left, what is in the training data is ranked after all.

    Raises:
        SourceError: no label or no candidate is left, and the message counts the reasons; or a unit that the source of
            the labels contradicts.
    """
    units = [] if wanted is not None else agreed_units(training.provenance, candidates.provenance, target, unit)
    known = with_labels(store, training, target, transform, repeats, wanted)
    labelled = known.structures
    offered = Catalogue.open(store, candidates.name)
    notes = [*units, *known.notes, *agreed_kinds(labelled.lines, offered.lines)]
    columns = [name for name in bounds if name not in ("n_atoms", "n_elements")]
    beside = offered.pulled(columns, _name(candidates))
    unread = unread_filters(beside, columns)
    reasons = filter_reasons(beside, bounds, exclude_elements, only_elements)
    reasons[list(unread)] = FAILED
    seen = pd.DataFrame()
    if exclude_seen:
        passing = np.flatnonzero(reasons == "")
        reasons[passing], which = seen_lines(offered.take(passing), labelled)
        seen = _seen(offered.take(passing[which >= 0]), reasons[passing[which >= 0]], known.values[which[which >= 0]])
        if spare and not (reasons == "").any():
            reasons[passing[which >= 0]] = ""
    kept = np.flatnonzero(reasons == "")
    filtered = Counter(str(reason) for reason in reasons if reason not in ("", FAILED))
    if not len(kept):
        raise none_left(candidates.n_seen, filtered, list(unread.values()))
    return Selection(
        training=labelled,
        values=known.values,
        candidates=offered.take(kept),
        filtered=dict(filtered.most_common()),
        notes=notes,
        seen=seen,
        classes=known.classes,
        refused=[
            *(("training", refusal) for refusal in [*training.refused, *known.refused]),
            *(("candidates", refusal) for refusal in [*candidates.refused, *unread.values()]),
        ],
    )


def _seen(candidates: Catalogue, reasons: npt.NDArray[np.object_], values: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Candidates that are in the training data, as `Selection.seen` has them."""
    lines = candidates.lines
    columns = {"material_id": lines.material_id, "structure_hash": lines.hashes, "value": values, "reason": reasons}
    return pd.DataFrame(columns)


def none_left(n: int, reasons: Mapping[str, int], unread: Sequence[Refusal]) -> SourceError:
    """What is said where no candidate passes.

    Args:
        n: candidates there were.
        reasons: why they don't -> how many.
        unread: those of which it isn't known.
    """
    filtered = {reason: count for reason, count in reasons.items() if reason not in ("", FAILED)}
    why = filtered or (unread[0].reason if unread else "none could be used")
    return SourceError(f"no candidate is left of {n}: {why}")


def agreed_kinds(training: Material, candidates: Material) -> list[str]:
    """A sentence where structures are ranked by labels of formulas.

    Args:
        training: what is learned from.
        candidates: what is to be ranked, filtered or not.

    Raises:
        SourceError: labels of structures and candidates that are formulas; or labels of formulas whose elements no
            candidate has any of.
    """
    kinds = kind_of(training), kind_of(candidates)
    if kinds == (STRUCTURES, COMPOSITIONS):
        raise SourceError(
            "the labels are of structures and the candidates are formulas, which have no structure to predict from: "
            f'set training.take = "{COMPOSITIONS}" to learn from the compositions of the labelled structures, or give '
            "structures as candidates"
        )
    if kinds[0] == STRUCTURES or not len(candidates):
        return []
    known, offered = training.elements, candidates.elements
    if not set(known) & set(offered):
        of_labels, of_others = (", ".join(Element.from_Z(z).symbol for z in found[:10]) for found in (known, offered))
        raise SourceError(
            f"no candidate holds an element that any label is of: labels are of {of_labels}, candidates of {of_others}"
        )
    if kinds[1] == COMPOSITIONS:
        return []
    return [
        "the labels are of formulas and the candidates are structures: each is ranked by its composition alone, so "
        "crystals of one composition are predicted the same"
    ]


def kind_of(materials: Material) -> str:
    """What they are: "structures" or "compositions"."""
    if isinstance(materials, Lines):
        return materials.kind
    return COMPOSITIONS if isinstance(materials, Compositions) else STRUCTURES


def agreed_units(training: Mapping[str, Any], candidates: Mapping[str, Any], target: str, unit: str) -> list[str]:
    """A sentence where candidates hold the target in another unit than it is learned in.

    Args:
        training: provenance of the labels.
        candidates: provenance of the candidates.
        target: column of the labels.
        unit: as the campaign has it.

    Raises:
        SourceError: the source of the labels says another unit than the campaign.
    """
    try:
        learned = unit_of(training, [target], unit)
    except ValueError as error:
        raise SourceError(str(error)) from None
    try:
        unit_of(candidates, [target], learned)
    except ValueError:
        offered = unit_of(candidates, [target], "")
        return [f"candidates hold {target} in {offered}, and it is learned in {learned}: predictions are in {learned}"]
    return []


def with_labels(
    store: Store,
    training: PulledFile,
    target: str,
    transform: str,
    repeats: str = RULES[0],
    wanted: bool | float | str | None = None,
) -> Labelled:
    """The structures with a usable label.

    Args:
        store: of the campaign.
        training: what the source of the labels gave.
        target: column of the labels.
        transform: which labels are usable depends on it.
        repeats: what becomes of labels of one content that differ, see `settle` and `settle_classes`.
        wanted: the class whose rows are told from all others, where labels are classes.

    Raises:
        SourceError: no label is left, or see `class_labels`.
    """
    known = Catalogue.open(store, training.name)
    named = known.pulled([target], _name(training))
    if wanted is not None:
        return _of_class(known, named, target, repeats, wanted)
    # what tells labels of one material apart may stand in any column
    beside = partial(known.columns, [name for name in known.schema.names if name not in known.own])
    labels = settled_labels(named, target, transform, repeats, known, beside)
    of_cells = known.kind == STRUCTURES
    told = sizes_differ(training.provenance, [target], known.lines.n_atoms) if of_cells else []
    kept = known.take(labels.usable)
    return Labelled(kept, labels.values[labels.usable], labels.refused, [*told, *labels.notes])


def _of_class(known: Catalogue, named: Pulled[Any], target: str, repeats: str, wanted: bool | float | str) -> Labelled:
    """The structures with a class, and whether it is the wanted one."""
    found = class_labels(named, target, wanted)
    keys = crystal_keys(known, found.usable, found.values)
    settled = settle_classes(known.material_id, known.hashes, found.usable, found.values, target, repeats, keys)
    refused, notes = [*found.refused, *settled.refused], [*found.notes, *settled.notes]
    left, values = known.take(settled.usable), found.values[settled.usable]
    check_both(left.material_id, left.lines.formulas, values, target, next(iter(found.counts)))
    return Labelled(left, values, refused, notes, found.counts)


def _name(file: PulledFile) -> str:
    return str(file.provenance.get("name", "the source"))


def featurize_shard(
    store: Store, queue: str, group: int, features: FeatureStore, key: str, rows: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Featurise one row group of the queue, or rows first to last (exclusive) of it, into a shard.

    Args:
        store: of the queue.
        queue: name of the file, see `write_queue`.
        group: of the queue.
        features: where the shard is to be.
        key: of the shard.
        rows: first and last (exclusive) of the group; all by default.

    Returns:
        rows, refused, sites, bonds, seconds, used (seconds of processor time), and the worker's host, pid and peak_mb.
    """
    started, used = time.perf_counter(), time.process_time()
    structures = read_queued(store, queue, group)
    if rows is not None:
        structures = structures.take(np.arange(*rows))
    network = load_parent(features.parent, str(resolve_device("auto")))
    entry = features.write(key, network.featurize(structures, features.levels))
    return {
        **counts_of(entry),
        "seconds": time.perf_counter() - started,
        "used": time.process_time() - used,
        "host": platform.node(),
        "pid": os.getpid(),
        "peak_mb": peak_mb(),
    }


def refuse_structure(
    store: Store, queue: str, group: int, features: FeatureStore, key: str, row: int, reason: str
) -> dict[str, int]:
    """Write a shard without rows that says why one structure of the queue has no features."""
    structures = read_queued(store, queue, group).take(np.array([row]))
    nothing = load_parent(features.parent).featurize(structures.take(np.empty(0, dtype=np.int64)), features.levels)
    refusal = Refusal(str(structures.material_id[0]), "featurize", reason, str(structures.hashes[0]))
    return counts_of(features.write(key, replace(nothing, refused=(refusal,))))


def try_parent(parent: str, levels: Sequence[str]) -> None:
    """Featurise rock salt: what fails at this fails for its own reasons, not for the structures'."""
    cell = 2.82 * np.array([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    frac = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    salt = Structures(np.array(["NaCl"], dtype=object), cell, np.array([2]), np.array([11, 17]), frac)
    load_parent(parent, str(resolve_device("auto"))).featurize(salt, levels)


def predict_shard(store: Store, features: AnyStore, piece: Piece, folder: str, name: str) -> dict[str, Any]:
    """Apply a saved model to every structure of a shard; write the predictions as Parquet.

    Args:
        store: of the campaign.
        features: the shard's.
        piece: the shard, and those of other parents beside it.
        folder: of the model, which needs the levels of `features`.
        name: of the file.

    Returns:
        rows, seconds.
    """
    started = time.perf_counter()
    model = load_regressor(store, folder)
    found = features.read(piece)
    prediction = model.predict_distribution(found)
    columns: dict[str, Any] = {"structure_hash": pa.array(found.structure_hash, pa.string())}
    columns |= {column: pa.array(values) for column, values in prediction.columns().items()}
    columns["remark"] = pa.array([found.flagged.get(h, "") for h in found.structure_hash], pa.string())
    unit = str(read_config(store, folder)["about"].get("unit", ""))
    units = prediction_units(unit, scale=listed_transforms(model.transform, 1)[0].applied_to(unit))
    store.write_table(name, with_units(finite_table(pa.table(columns)), units))
    seal(store, name)
    return {"rows": len(found), "seconds": time.perf_counter() - started}


def finite_table(table: pa.Table) -> pa.Table:
    """The table, once it is certain that every number in it is one.

    Raises:
        ValueError: a NaN or infinity, with the column and the structure it belongs to.
    """
    for name in table.column_names:
        values = table[name]
        if not pa.types.is_floating(values.type):
            continue
        missing = ~np.isfinite(values.to_numpy())
        # A model of too few rows gives no intervals at all.
        if missing.any() and not (name in ("lower", "upper") and np.isnan(values.to_numpy()).all()):
            row = int(np.flatnonzero(~np.isfinite(values.to_numpy()))[0])
            raise ValueError(f"{name} of structure {table['structure_hash'][row]} is {values[row]}: not a number")
    return table
