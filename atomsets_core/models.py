"""From a source to a saved model and from a saved model to predictions, in one process, without a campaign."""

from __future__ import annotations

import contextlib
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core import metrics
from atomsets_core.estimators import AtomSetsRegressor, transform_target
from atomsets_core.features import Features
from atomsets_core.labels import ledger_table, usable_labels
from atomsets_core.parents.trained import is_parent_folder, overlap_of
from atomsets_core.sources import Pulled, SourceError
from atomsets_core.specification import parse_features
from atomsets_core.storage import Store
from atomsets_core.stored import SHARD_SIZE, StoredFeatures, featurize_into
from atomsets_core.structures import Refusal, Structures
from atomsets_core.training import Checkpoint, Progress, resolve_device

PACKAGES = ("torch", "numpy", "scikit-learn", "pymatgen", "maml")

PREDICTION_SCHEMA = pa.schema(
    [
        ("material_id", pa.string()),
        ("formula", pa.string()),
        *((name, pa.float64()) for name in ("predicted", "lower", "upper", "std")),
        ("in_domain", pa.bool_()),
        ("distance", pa.float64()),
        ("remark", pa.string()),
    ]
)

OVERLAP = {
    "megnet": "The MEGNet parent was trained on the formation energies of 133,420 Materials Project structures "
    "(mp-2019.4.1). It may have seen these structures, with their formation energies; it never saw any other property. "
    "Scores for formation energy itself would be flattered by that.",
    **dict.fromkeys(
        ("chgnet", "sevennet"),
        "The parent was trained on MPtrj: energies, forces and stresses of 1.58 million relaxation steps of 146,000 "
        "Materials Project structures. It may have seen these structures, with their energies, and never saw any other "
        "property but magnetic moments (CHGNet). Scores for energies would be flattered by that.",
    ),
}
"""What the labels and structures of a parent's training share with the user's, by parent."""


def overlap(parent: str) -> str:
    """The sentence of `OVERLAP` for a parent, or one from the card of a parent that was trained here."""
    return overlap_of(parent) if is_parent_folder(parent) else OVERLAP.get(parent, "")


@dataclass(frozen=True)
class Trained:
    """A model with what became of the data it was offered.

    Attributes:
        model: fitted.
        features: of the structures it was trained on.
        values: (n) their labels, in the unit of the target.
        refused: every entry it could not use.
    """

    model: AtomSetsRegressor
    features: Features | StoredFeatures
    values: np.ndarray
    refused: list[Refusal]


def train_on(
    pulled: Pulled,
    target: str,
    model: AtomSetsRegressor,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    store: Store | None = None,
    featurized: Callable[[int, int], None] | None = None,
) -> Trained:
    """Fit a model to a column of a source.

    Features lie in shards, of `store` or else of a temporary folder, so that those of all structures never have to fit
    into memory.

    Args:
        pulled: structures and columns.
        target: column to learn.
        model: unfitted.
        progress: called after each epoch.
        checkpoint: where to keep an unfinished training.
        store: feature store; features it lacks are made, a shard at a time, and stay there.
        featurized: called after each shard with the number of structures done and the number there was to do.

    Raises:
        SourceError: the column is missing or has no usable value, or the parent can take no structure.
        ValueError: too few values for the folds and intervals asked for.
    """
    usable, unlabelled = usable_labels(pulled, target, model.transform)
    structures = pulled.structures.take(np.flatnonzero(usable))
    values = pd.to_numeric(pulled.columns[target], errors="coerce").to_numpy(dtype=np.float64)[usable]
    with contextlib.ExitStack() as stack:
        if store is None and len(structures) > SHARD_SIZE:
            store = Store(stack.enter_context(tempfile.TemporaryDirectory(prefix="atomsets-")))
        features = featurize(structures, model.features, store, featurized)
        if not len(features):
            reason = features.refused[0].reason
            raise SourceError(f"the parent can take none of the {len(structures)} structures: {reason}")
        label = dict(zip(structures.material_id, values, strict=True))
        kept = np.array([label[name] for name in features.material_id])
        model.fit(features, kept, progress=progress, checkpoint=checkpoint)
    return Trained(model, features, kept, [*pulled.refused, *unlabelled, *features.refused])


def featurize(
    structures: Structures, spec: str, store: Store | None = None, done: Callable[[int, int], None] | None = None
) -> Features | StoredFeatures:
    """Features of a batch at the levels of a specification such as "megnet:V0+V1", in memory or in a store."""
    parsed, device = parse_features(spec), str(resolve_device("auto"))
    if store is None:
        return parsed.featurize(structures, device)
    (name,) = parsed.parents
    return featurize_into(store, name, parsed.needed(name), structures, device, done)


Block = tuple[pd.DataFrame, list[Refusal]]
"""Predictions of some structures, and the entries among them without one."""


def predictions(pulled: Pulled, model: AtomSetsRegressor, store: Store | None = None) -> Iterator[Block]:
    """Predictions for every structure of a source that the parent can take, block by block, in the order of the source.

    Args:
        pulled: structures.
        model: fitted.
        store: feature store; features it lacks are made and stay there.

    Yields:
        material_id, formula, predicted, lower, upper (unit of the target), std (on the model's scale), in_domain,
        distance, remark; and every entry without a prediction.
    """
    yield _table(model, featurize(pulled.structures.take([]), model.features))[0], list(pulled.refused)
    for start in range(0, len(pulled.structures), SHARD_SIZE):
        part = pulled.structures.take(np.arange(start, min(start + SHARD_SIZE, len(pulled.structures))))
        yield _table(model, featurize(part, model.features, store))


def stored_predictions(store: Store, model: AtomSetsRegressor) -> Iterator[Block]:
    """Predictions for every structure of a feature store, shard by shard; identifiers are structure hashes.

    Raises:
        SourceError: the store has no features of the model's levels.
    """
    (name,) = model.spec_.parents
    stored = StoredFeatures.whole(store, name, model.parents_[name], model.spec_.needed(name))
    if not len(stored):
        raise SourceError(f"{store.root}: no shard has the features {model.features}")
    for _, block in stored.blocks():
        yield _table(model, block)


def predict_on(pulled: Pulled, model: AtomSetsRegressor) -> Block:
    """All of `predictions` at once."""
    blocks = list(predictions(pulled, model))
    frame = pd.concat([frame for frame, _ in blocks if len(frame)] or [blocks[0][0]], ignore_index=True)
    return frame, [refusal for _, refused in blocks for refusal in refused]


def _table(model: AtomSetsRegressor, features: Features | StoredFeatures) -> Block:
    prediction = model.predict_distribution(features)
    flagged = features.flagged
    frame = pd.DataFrame(
        {
            "material_id": features.material_id,
            "formula": features.formula,
            "predicted": prediction.value,
            "lower": prediction.lower,
            "upper": prediction.upper,
            "std": prediction.std,
            "in_domain": prediction.in_domain,
            "distance": prediction.distance,
            "remark": [flagged.get(h, "") for h in features.structure_hash],
        }
    )
    return frame, list(features.refused)


def write_predictions(blocks: Iterable[Block], store: Store, name: str) -> tuple[int, int, list[Refusal]]:
    """Write predictions as they come, as CSV or Parquet by the ending of the name; the file appears when all are there.

    Returns:
        Predictions written, how many of them are inside the domain, and the entries without one.
    """
    written, inside, failed = 0, 0, []
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(store.replacing(name))
        parquet: pq.ParquetWriter | None = None
        for number, (frame, refused) in enumerate(blocks):
            if name.endswith(".csv"):
                file.write(frame.to_csv(index=False, float_format="%.6g", header=number == 0).encode())
            else:
                table = pa.Table.from_pandas(frame, schema=PREDICTION_SCHEMA, preserve_index=False)
                if parquet is None:
                    parquet = stack.enter_context(pq.ParquetWriter(file, PREDICTION_SCHEMA, compression="zstd"))
                parquet.write_table(table)
            written, inside = written + len(frame), inside + int(frame["in_domain"].sum())
            failed.extend(refused)
    return written, inside, failed


def out_of_fold_scores(model: AtomSetsRegressor, values: np.ndarray) -> dict[str, float]:
    """Errors of the out-of-fold predictions, on the model's scale and in the unit of the target.

    Raises:
        ValueError: the model was trained without folds.
    """
    if model.oof_ is None:
        raise ValueError("a model trained without folds has no out-of-fold predictions")
    truth = transform_target(values, model.transform)
    return {
        "mae": metrics.mean_absolute_error(truth, model.oof_.mean),
        "rmse": metrics.root_mean_squared_error(truth, model.oof_.mean),
        "r2": metrics.r_squared(truth, model.oof_.mean),
        "mae_in_unit": metrics.mean_absolute_error(values, model.oof_.value),
        "coverage": model.coverage_,
    }


def save_trained(
    trained: Trained, store: Store, folder: str, target: str, unit: str, source: Mapping[str, Any]
) -> None:
    """Write a model folder: model.safetensors, model.json, MODEL.md, out_of_fold.csv, failures.parquet.

    Args:
        trained: by `train_on`.
        store: where.
        folder: within the store.
        target: column it learned.
        unit: of the target.
        source: provenance of the data.
    """
    model = trained.model
    scores = out_of_fold_scores(model, trained.values) if model.oof_ is not None else {}
    about = {
        "target": target,
        "unit": unit,
        "source": dict(source),
        "scores_out_of_fold": scores,
        "entries_not_used": len(trained.refused),
        "overlap": " ".join(dict.fromkeys(overlap(name) for name in parse_features(model.features).parents)),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    if model.oof_ is not None:
        frame = pd.DataFrame(
            {
                "material_id": trained.features.material_id,
                "formula": trained.features.formula,
                "value": trained.values,
                "predicted": model.oof_.value,
                "lower": model.oof_.lower,
                "upper": model.oof_.upper,
                "in_domain": model.oof_.in_domain,
                "fold": model.fold_,
            }
        )
        store.write(f"{folder}/out_of_fold.csv", frame.to_csv(index=False, float_format="%.6g").encode())
    store.write_table(f"{folder}/failures.parquet", ledger_table(("training", refusal) for refusal in trained.refused))
    store.write(f"{folder}/MODEL.md", model_card(model, about).encode())
    model.save(store, folder, about)


def model_card(model: AtomSetsRegressor, about: Mapping[str, Any]) -> str:
    """What a model is, for people: data, recipe, scores, limits."""
    source, scores, unit = about["source"], about["scores_out_of_fold"], about["unit"]
    scale = f"log10 {unit}".strip() if model.transform == "log10" else unit or "unit of the target"
    data = [
        f"{name}: {source[name]}" for name in ("name", "title", "citation", "licence", "sha256") if source.get(name)
    ]
    lines = [
        f"# {about['target']} ({unit or 'no unit'})",
        "",
        f"An ensemble of {model.members} AtomSets networks on `{model.features}` (parent digest {model.digest_}), "
        f"trained on {model.n_train_} structures; {about['entries_not_used']} entries could not be used "
        "(failures.parquet).",
        "",
        "## Data",
        "",
        *(f"- {line}" for line in data),
        f"- {about['overlap']}",
    ]
    if scores:
        lines += [
            "",
            f"## Scores, out of fold ({model.folds} folds, rows of one formula together)",
            "",
            f"- mean absolute error {scores['mae']:.4g} {scale} ({scores['mae_in_unit']:.4g} {unit})",
            f"- root mean squared error {scores['rmse']:.4g} {scale}, R² {scores['r2']:.3f}",
            f"- {scores['coverage']:.1%} of the values inside their {model.coverage:.0%} interval",
        ]
    versions: Sequence[str] = [f"{name} {text}" for name, text in about["versions"].items()]
    lines += [
        "",
        "## Limits",
        "",
        "Intervals hold for structures like those it was trained on; `in_domain` says which are. Nothing here tells "
        "how well it finds values beyond the training range: run `atomsets screen` for a simulated discovery.",
        "",
        f"Seed {model.seed}; {', '.join(versions)}.",
        "",
    ]
    return "\n".join(lines)
