"""From labels to a trained model: of any source in one process, or of a campaign's store on a worker."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atomsets_core.campaigns import CARD, CHECKPOINT, LABELLED, OUT_OF_FOLD, model_files, read_frozen
from atomsets_core.features import SHARD_SIZE, AnyStore, featurize
from atomsets_core.jobs.model_card import campaign_card
from atomsets_core.jobs.structures import finite_table
from atomsets_core.models import (
    AUTO,
    AtomSetsClassifier,
    Checkpoint,
    Model,
    Progress,
    StoredCheckpoint,
    Trained,
    regressor_of,
)
from atomsets_core.parents import resolve_device
from atomsets_core.sources import (
    RULES,
    Catalogue,
    Pulled,
    SourceError,
    label_values,
    read,
    settled_labels,
    sizes_differ,
    usable_classes,
    usable_labels,
)
from atomsets_core.storage import Store, prediction_units, seal, with_units
from atomsets_core.structures import Compositions, Refusal
from atomsets_core.transforms import listed_transforms


def train_on(
    pulled: Pulled,
    target: str | Sequence[str],
    model: Model,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    store: Store | None = None,
    featurized: Callable[[int, int], None] | None = None,
    repeats: str = RULES[0],
) -> Trained:
    """Fit a model to columns of a source.

    Features lie in shards, of `store` or else of a temporary folder, so that those of all structures never have to fit
    into memory.

    Args:
        pulled: structures or compositions, and columns; see `open_source` for structures that stay in their file.
        target: column to learn, or several.
        model: unfitted.
        progress: called after each epoch.
        checkpoint: where to keep an unfinished training.
        store: feature store; features it lacks are made, a shard at a time, and stay there.
        featurized: called after each shard with the number of structures done and the number there was to do.
        repeats: what becomes of labels of one content that differ, see `settle`; for regression on one column.

    Raises:
        SourceError: a column is missing or has no usable value, or the parent can take no structure.
        ValueError: too few values for the folds and intervals asked for.
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    sizes = pulled.structures.lines if isinstance(pulled.structures, Catalogue) else pulled.structures
    notes = sizes_differ(pulled.provenance, names, sizes.n_atoms)
    if len(names) == 1 and not isinstance(model, AtomSetsClassifier):
        scale = listed_transforms(model.transform, 1)[0].name
        settled = settled_labels(pulled, names[0], scale, repeats, pulled.structures)
        usable, values, unlabelled = settled.usable, settled.values, settled.refused
        notes += settled.notes
    else:
        usable, values, unlabelled = labels_of(pulled, names, model)
    structures, values = pulled.structures.take(np.flatnonzero(usable)), values[usable]
    if isinstance(structures, Catalogue) and (model.features == AUTO or len(structures) <= SHARD_SIZE):
        structures = structures.structures()
    # What is not chosen by trying depends on the kind of the input alone.
    shown = read(structures.take(np.arange(1))) if isinstance(structures, Catalogue) else structures
    spec = model.choose_features(shown, values[: len(shown)])
    with contextlib.ExitStack() as stack:
        if store is None and len(structures) > SHARD_SIZE and not isinstance(structures, Compositions):
            store = Store(stack.enter_context(tempfile.TemporaryDirectory(prefix="atomsets-")))
        features = featurize(structures, spec, store, featurized)
        if not len(features):
            reason = features.refused[0].reason
            raise SourceError(f"the parent can take none of the {len(structures)} structures: {reason}")
        row = {name: i for i, name in enumerate(structures.material_id)}
        kept = values[[row[name] for name in features.material_id]]
        model.fit(features, kept, progress=progress, checkpoint=checkpoint)
    return Trained(model, features, names, kept, [*pulled.refused, *unlabelled, *features.refused], notes)


def labels_of(
    pulled: Pulled, targets: Sequence[str], model: Model
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any], list[Refusal]]:
    """Which rows can be learned from, the labels of all rows, and a refusal for each other row.

    Args:
        pulled: n rows.
        targets: columns; with several a row needs a value in one of them.
        model: whose transform or task says what is a label.

    Returns:
        (n,) bool; (n,) or (n, targets) labels, NaN where there is none; refusals.

    Raises:
        SourceError: a column that isn't there or holds nothing usable.
        ValueError: several targets for a classifier.
    """
    if isinstance(model, AtomSetsClassifier):
        if len(targets) > 1:
            raise ValueError(f"a classifier learns one column, not {len(targets)}: train one model for each")
        return usable_classes(pulled, targets[0])
    transforms = [model.transform] * len(targets) if isinstance(model.transform, str) else list(model.transform)
    found = [usable_labels(pulled, name, how) for name, how in zip(targets, transforms, strict=True)]
    columns = [
        np.where(usable, label_values(pulled, name), np.nan) for name, (usable, _) in zip(targets, found, strict=True)
    ]
    if len(targets) == 1:
        return found[0][0], columns[0], found[0][1]
    usable = np.any([mask for mask, _ in found], axis=0)
    lost = set(pulled.structures.material_id[~usable])
    return usable, np.stack(columns, axis=1), [refusal for refusal in found[0][1] if refusal.material_id in lost]


def read_labelled(store: Store) -> tuple[pa.Table, np.ndarray]:
    """The training table and its values, (n,) float64, in the unit of the target."""
    table = store.read_table(LABELLED)
    return table, table["value"].to_numpy()


def train_model(
    store: Store,
    features: AnyStore,
    parameters: Mapping[str, Any],
    folder: str,
    about: Mapping[str, Any],
    frozen: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Train a model on the labelled structures; save it, its out-of-fold predictions and its card in `folder`.

    Args:
        store: of the campaign.
        features: of the labelled structures.
        parameters: of `models.regressor_of`.
        folder: of the model.
        about: kept with the model; see `campaign_card`.
        frozen: folder of the model whose folds are kept, and their digest; a first model cuts its own.

    Returns:
        training rows, seconds, last loss (None of a head without networks), device.
    """
    started = time.perf_counter()
    table, values = read_labelled(store)
    model = regressor_of(parameters)
    checkpoint = StoredCheckpoint(store, f"{folder}/{CHECKPOINT}")
    fold = None
    if frozen is not None:
        fold = read_frozen(store, *frozen).assign(table["formula"].to_pylist())
    found = features.find(table["structure_hash"].to_pylist())
    model.fit(found, values, checkpoint=checkpoint, fold=fold)
    out_of_fold = table.append_column("fold", pa.array(model.fold_, pa.int32()))
    if model.oof_ is not None:
        for column, found_values in model.oof_.columns().items():
            out_of_fold = out_of_fold.append_column(column, pa.array(found_values))
    unit = str(about.get("unit", ""))
    units = prediction_units(unit, scale=listed_transforms(model.transform, 1)[0].applied_to(unit))
    store.write_table(f"{folder}/{OUT_OF_FOLD}", with_units(finite_table(out_of_fold), units))
    store.write(f"{folder}/{CARD}", campaign_card(model, values, about).encode())
    # The configuration is written last: a folder with it is complete.
    model.save(store, folder, dict(about))
    seal(store, *model_files(folder))
    checkpoint.remove()
    return {
        "n_train": len(values),
        "seconds": time.perf_counter() - started,
        "loss": model.losses_[-1] if model.losses_ else None,
        "device": str(resolve_device(model.device)),
    }
