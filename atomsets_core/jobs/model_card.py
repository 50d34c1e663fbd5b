"""The folder of a model by itself: its files, the out-of-fold predictions, and a card for people."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.campaigns import CARD, FAILURES
from atomsets_core.models import (
    NETWORKS,
    AtomSetsClassifier,
    AtomSetsRegressor,
    ClassProbability,
    HeadRegressor,
    Model,
    Trained,
    out_of_fold_scores,
)
from atomsets_core.parents import about_parent, carrier_versions
from atomsets_core.sources import ledger_table
from atomsets_core.storage import Store, csv_text
from atomsets_core.transforms import listed_transforms

HIDDEN_CLASS = ("r_precision", "enrichment", "roc_auc", "brier")
"""Scores of a hidden class that a card shows."""

PACKAGES = ("torch", "numpy", "scikit-learn", "pymatgen")
"""Whose versions a card names, besides those that carry its parents' weights."""


def save_trained(
    trained: Trained,
    store: Store,
    folder: str,
    unit: str,
    source: Mapping[str, Any],
    checks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a model folder: model.safetensors, model.json, MODEL.md, out_of_fold.csv, failures.parquet.

    Args:
        trained: by `train_on`.
        store: where.
        folder: within the store.
        unit: of the target.
        source: provenance of the data.
        checks: "held_out" and "discovery", as far as they were made.

    Returns:
        What model.json keeps under "about".
    """
    model = trained.model
    about = {
        "targets": list(trained.targets),
        "unit": unit,
        "source": dict(source),
        "training_rows_sha256": rows_digest(trained),
        "scores_out_of_fold": out_of_fold_scores(model, trained.values, trained.targets) if model.oof_ else {},
        **{name: value for name, value in (checks or {}).items() if value},
        "entries_not_used": len(trained.refused),
        "overlap": _overlap(model),
        "licence": source.get("licence", ""),
        "versions": _versions(model),
    }
    if model.oof_ is not None:
        store.write(f"{folder}/out_of_fold.csv", csv_text(_out_of_fold(trained)).encode())
    store.write_table(f"{folder}/{FAILURES}", ledger_table(("training", refusal) for refusal in trained.refused))
    store.write(f"{folder}/{CARD}", model_card(model, about).encode())
    model.save(store, folder, about)
    return about


def campaign_card(model: AtomSetsRegressor, values: npt.NDArray[np.float64], about: Mapping[str, Any]) -> str:
    """The card of a campaign's model, just trained.

    Args:
        model: fitted.
        values: (n,) what it was fitted to.
        about: target, unit, training_source, training_data_sha256; "discovery" (see `model_card`) where there is one.
    """
    told = {
        "campaign": about.get("campaign", ""),
        "targets": [about["target"]],
        "unit": about["unit"],
        "source": {"name": about["training_source"]},
        "training_rows_sha256": about["training_data_sha256"],
        "scores_out_of_fold": out_of_fold_scores(model, values) if model.oof_ is not None else {},
        "discovery": about.get("discovery"),
        "class": about.get("class"),
        "overlap": _overlap(model),
        "versions": _versions(model),
    }
    return model_card(model, told)


def rows_digest(trained: Trained) -> str:
    """sha256 over the structures and labels that were learned from, in their order."""
    digest = hashlib.sha256("\n".join(map(str, trained.features.structure_hash)).encode())
    values = np.asarray(trained.values)
    digest.update(values.astype(np.float64).tobytes() if values.dtype.kind == "f" else str(values.tolist()).encode())
    return digest.hexdigest()


def _overlap(model: Model) -> str:
    """What the training of its parents shares with the user's, each sentence once."""
    return " ".join(dict.fromkeys(about_parent(name).overlap for name in model.spec_.parents))


def _versions(model: Model) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("atomsets-screening", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a copy of the source
            continue
    return {**found, **carrier_versions(model.spec_.parents)}


def _out_of_fold(trained: Trained) -> pd.DataFrame:
    """One row for each training row."""
    model, features = trained.model, trained.features
    columns: dict[str, Any] = {"material_id": features.material_id, "formula": features.formula}
    if isinstance(model, AtomSetsClassifier):
        if model.oof_ is None:
            return pd.DataFrame(columns)
        columns |= {"value": trained.values, "predicted": model.oof_.label}
        columns |= {f"p_{name}": p for name, p in zip(model.classes_.tolist(), model.oof_.probability.T, strict=True)}
    elif model.oof_ is not None:
        named = [""] if model.n_targets_ is None else [f"_{name}" for name in trained.targets]
        arrays = {
            "value": trained.values,
            "predicted": model.oof_.value,
            "lower": model.oof_.lower,
            "upper": model.oof_.upper,
        }
        for what, array in arrays.items():
            columns |= {f"{what}{name}": x for name, x in zip(named, np.atleast_2d(array.T), strict=True)}
    if model.oof_ is not None:
        columns["in_domain"] = model.oof_.in_domain
    columns["fold"] = model.fold_
    return pd.DataFrame(columns)


def model_card(model: Model, about: Mapping[str, Any]) -> str:
    """What a model is, for people: data, recipe, scores, limits."""
    source, unit = about["source"], about["unit"]
    shown = ("name", "title", "citation", "licence", "sha256")
    options = model.options_
    unused = about.get("entries_not_used")
    left_out = "" if unused is None else f"; {unused} entries could not be used ({FAILURES})"
    lines = [
        f"# {', '.join(about['targets'])}"
        + (f": probability of {about['class']}" if about.get("class") else f" ({unit or 'no unit'})"),
        "",
        f"{_what(model)} for {model.task} on `{model.spec_}` (parent digest "
        f"{model.digest_}), trained on {model.n_train_} structures{left_out}.",
        "",
        "## Data",
        "",
        *(f"- {name}: {source[name]}" for name in shown if source.get(name)),
        f"- rows learned from, in order: sha256 {about['training_rows_sha256']}",
        "",
        "## Parents",
        "",
        *parent_lines(model.parents_),
    ]
    if model.choice_ is not None:
        lines += ["", "## Chosen by inner validation", "", *_choice_lines(model.choice_.report)]
    if about["scores_out_of_fold"]:
        lines += ["", f"## Scores, out of fold ({int(model.fold_.max()) + 1} folds, rows of one formula together)", ""]
        lines += _score_lines(model, about["scores_out_of_fold"], unit)
    if about.get("held_out"):
        found = about["held_out"]
        lines += [
            "",
            f"## Scores on {found['n_test']} rows held out, after training on the other {found['n_train']}",
            "",
        ]
        lines += _score_lines(model, found, unit)
    if about.get("discovery"):
        lines += ["", *_discovery_lines(about["discovery"])]
    lines += ["", "## Limits", "", _limits(model, about), ""]
    versions = ", ".join(f"{name} {text}" for name, text in about["versions"].items())
    lines += [f"Seed {options.seed}; {versions}.", ""]
    return "\n".join(lines)


def _what(model: Model) -> str:
    options = model.options_
    networks = isinstance(model, ClassProbability) and model.head == NETWORKS
    if isinstance(model, HeadRegressor) and not networks:
        return f"The head {options.head}, fitted once without each of {model.groups_} folds,"
    return f"An ensemble of {options.members} AtomSets networks"


def parent_lines(digests: Mapping[str, str]) -> list[str]:
    """What stands in a card of each parent: what to cite, under which licence it comes, and what it has seen.

    Args:
        digests: parent -> digest of the features that the model was trained on.
    """
    lines = []
    for name, digest in digests.items():
        told = about_parent(name)
        lines += [
            f"- {told.title} (`{name}`, digest {digest}), trained on {told.trained_on}",
            *(
                f"    - cite: {source.citation}{f', doi {source.doi}' if source.doi else ''}"
                for source in told.references
            ),
            *([] if told.references else [f"    - nothing to cite: {told.uncited}"]),
            f"    - licence: {told.licence}{f'; weights of the package {told.package}' if told.package else ''}",
            f"    - {told.overlap}",
        ]
    return lines


def _limits(model: Model, about: Mapping[str, Any]) -> str:
    what = "Probabilities" if isinstance(model, AtomSetsClassifier | ClassProbability) else "Intervals"
    text = f"{what} hold for structures like those it was trained on; `in_domain` says which are."
    if about.get("discovery"):
        return text
    if about.get("campaign"):
        return (
            f"{text} Its campaign simulates no discovery: how well it finds values beyond the training range is open."
        )
    return (
        f"{text} Nothing here tells how well it finds values beyond the training range: train with --discovery, or run "
        "`atomsets screen`, for a simulated discovery."
    )


def _choice_lines(report: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in report:
        options = ", ".join(f"{name} = {value}" for name, value in row.get("parameters", {}).items())
        error = row.get("error")
        said = f"error {error:.4g}" if error is not None else str(row.get("reason", "not usable"))
        lines.append(f"- `{row['features']}`{f' ({options})' if options else ''}: {said}")
    return lines


def _score_lines(model: Model, scores: Mapping[str, Any], unit: str) -> list[str]:
    if isinstance(model, AtomSetsClassifier):
        area = f", ROC-AUC {scores['roc_auc']:.3f}" if "roc_auc" in scores else ""
        return [
            f"- accuracy {scores['accuracy']:.1%}{area}",
            f"- log loss {scores['log_loss']:.4f}, expected calibration error {scores['calibration_error']:.3f}",
        ]
    if isinstance(model, ClassProbability):
        found = scores["confusion"]
        area = "" if scores["roc_auc"] is None else f"ROC-AUC {scores['roc_auc']:.3f}, "
        return [
            f"- {area}balanced accuracy {scores['balanced_accuracy']:.1%}; {scores['share']:.1%} of the rows are of "
            "the class",
            f"- Brier score {scores['brier']:.4f}, log loss {scores['log_loss']:.4f}, expected calibration error "
            f"{scores['calibration_error']:.3f}",
            f"- at 0.5: {found['true_positive']} of the class found and {found['false_negative']} missed, "
            f"{found['true_negative']} others told apart and {found['false_positive']} mistaken for it",
        ]
    if "targets" in scores:
        return [
            f"- {name}: mean absolute error {s['mae_in_unit']:.4g} {unit}, R² {_shown(s['r2'], '.3f')}, "
            f"{_shown(s['coverage'], '.1%')} inside"
            for name, s in scores["targets"].items()
        ]
    scale = listed_transforms(model.options_.transform, 1)[0].of(unit) or "unit of the target"
    return [
        f"- mean absolute error {scores['mae']:.4g} {scale} ({scores['mae_in_unit']:.4g} {unit})",
        f"- root mean squared error {scores['rmse']:.4g} {scale}, R² {_shown(scores['r2'], '.3f')}",
        f"- {scores['coverage']:.1%} of the values inside their {model.options_.coverage:.0%} interval"
        if scores["coverage"] is not None
        else f"- the labels are too few to tell how many of them lie inside a {model.options_.coverage:.0%} interval",
    ]


def _shown(score: float | None, form: str) -> str:
    """A score as text; a dash for one that isn't defined."""
    return "-" if score is None else format(score, form)


def _discovery_lines(found: Mapping[str, Any]) -> list[str]:
    if "brier" in found["heads"][0]:
        return _hidden_class_lines(found)
    lines = [
        f"## Beyond the training range: simulated discovery, mean of {found['seeds']} seeds",
        "",
        f"The {found['n_hidden']} best values hidden in a pool of {found['n_pool']}; errors on the model's scale.",
        "",
        "| model | found among the first | times random | error out of range | in range |",
        "|---|---|---|---|---|",
    ]
    for row in found["heads"]:
        cells = [row[name] for name in ("r_precision", "enrichment", "mae_outside", "mae_inside")]
        texts = ["" if x is None else f"{x:.3f}" for x in cells]
        lines.append(f"| {row['head']} | {' | '.join(texts)} |")
    return lines


def _hidden_class_lines(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"## In chemistry it has never seen: simulated discovery, mean of {found['seeds']} seeds",
        "",
        f"{found['n_hidden']} members of the class from one part of composition space hidden in a pool of "
        f"{found['n_pool']}, each seed elsewhere, with nothing from there in the training.",
        "",
        "| model | found among the first | times random | ROC-AUC | Brier score |",
        "|---|---|---|---|---|",
    ]
    for row in found["heads"]:
        texts = ["" if row[name] is None else f"{row[name]:.3f}" for name in HIDDEN_CLASS]
        lines.append(f"| {row['head']} | {' | '.join(texts)} |")
    return lines
