"""From a source to a saved model and from a saved model to predictions, in one process, without a campaign."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from atomsets_core import metrics
from atomsets_core.estimators import AtomSetsRegressor, transform_target
from atomsets_core.features import Features
from atomsets_core.labels import ledger_table, usable_labels
from atomsets_core.sources import Pulled, SourceError
from atomsets_core.specification import parse_features
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal
from atomsets_core.training import Checkpoint, Progress, resolve_device

PACKAGES = ("torch", "numpy", "scikit-learn", "pymatgen", "maml")

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
    features: Features
    values: np.ndarray
    refused: list[Refusal]


def train_on(
    pulled: Pulled,
    target: str,
    model: AtomSetsRegressor,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Fit a model to a column of a source.

    Args:
        pulled: structures and columns.
        target: column to learn.
        model: unfitted.
        progress: called after each epoch.
        checkpoint: where to keep an unfinished training.

    Raises:
        SourceError: the column is missing or has no usable value, or the parent can take no structure.
        ValueError: too few values for the folds and intervals asked for.
    """
    usable, unlabelled = usable_labels(pulled, target, model.transform)
    structures = pulled.structures.take(np.flatnonzero(usable))
    values = pd.to_numeric(pulled.columns[target], errors="coerce").to_numpy(dtype=np.float64)[usable]
    features = featurize(structures, model.features)
    if not len(features):
        raise SourceError(f"the parent can take none of the {len(structures)} structures: {features.refused[0].reason}")
    label = dict(zip(structures.material_id, values, strict=True))
    kept = np.array([label[name] for name in features.material_id])
    model.fit(features, kept, progress=progress, checkpoint=checkpoint)
    return Trained(model, features, kept, [*pulled.refused, *unlabelled, *features.refused])


def featurize(structures: Any, spec: str) -> Features:
    """Features of a batch at the levels of a specification such as "megnet:V0+V1"."""
    return parse_features(spec).featurize(structures, str(resolve_device("auto")))


def predict_on(pulled: Pulled, model: AtomSetsRegressor) -> tuple[pd.DataFrame, list[Refusal]]:
    """Predictions for every structure of a source that the parent can take.

    Returns:
        material_id, formula, predicted, lower, upper (unit of the target), std (on the model's scale), in_domain,
        distance, remark, in the order of the source; and every entry without a prediction.
    """
    features = featurize(pulled.structures, model.features)
    prediction = model.predict_distribution(features)
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
            "remark": [features.flagged.get(h, "") for h in features.structure_hash],
        }
    )
    return frame, [*pulled.refused, *features.refused]


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
        "overlap": " ".join(dict.fromkeys(OVERLAP.get(name, "") for name in parse_features(model.features).parents)),
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
