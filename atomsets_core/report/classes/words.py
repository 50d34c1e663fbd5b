"""Scores of probabilities as words: the same on the command line, in artifacts and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atomsets_core.report.words import (
    NONE,
    listed,
    number,
    number_header,
    number_rows,
    number_sentences,
    percent,
    title_of,
)


def class_of(summary: Mapping[str, Any]) -> str:
    """What the wanted class is called, e.g. "metal", "is_metal" where it is true, "n = 2" of numbers."""
    wanted, target = str(summary["class"]["wanted"]), title_of(summary)
    if wanted in ("true", "false"):
        return target if wanted == "true" else f"not {target}"
    return f"{target} = {wanted}" if wanted.lstrip("-").isdigit() else wanted


def probability_of(summary: Mapping[str, Any]) -> str:
    """What is predicted, e.g. "probability of being metal"."""
    return f"probability of being {class_of(summary)}"


def known_class(summary: Mapping[str, Any], value: float) -> str:
    """A label as text: the wanted class, or that it isn't it."""
    return class_of(summary) if value > 0.5 else f"not {class_of(summary)}"


def counts_of(summary: Mapping[str, Any]) -> str:
    """How many labels there are of each class, e.g. "metal (312) and insulator (869)"."""
    return listed([f"{name} ({n:,})" for name, n in summary["class"]["counts"].items()])


def class_scores(summary: Mapping[str, Any]) -> str:
    """How good the probabilities are, out of fold, in a line."""
    model = summary["model"]
    right = model["confusion"]
    return (
        f"out of fold: ROC-AUC {number(model['roc_auc'])}, balanced accuracy {percent(model['balanced_accuracy'], 1)}, "
        f"Brier score {number(model['brier'])}, calibration error {number(model['calibration_error'], 2)}; at 0.5 "
        f"{right['true_positive']:,} of {right['true_positive'] + right['false_negative']:,} {class_of(summary)} are "
        f"found and {right['false_positive']:,} of {right['false_positive'] + right['true_negative']:,} others "
        "mistaken for it"
    )


HEADER = (
    "model",
    "R-precision",
    "enrichment",
    "ROC-AUC",
    "Brier score",
    "log loss",
    "calibration error",
    "mean probability of the hidden",
    "of the others",
)
"""Columns of the table of the simulated discovery."""

CLASS_SHORT = ("model", "R-prec.", "enrich.", "ROC-AUC", "Brier", "log loss", "calib.")
"""The same in a terminal of 80 columns, as far as they fit."""


def discovery_header(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Column names for `discovery_rows`, of numbers with the unit of the errors."""
    return HEADER if "class" in summary else number_header(summary)


def discovery_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table of the simulated discovery of a campaign as text, one row for each head."""
    if "class" not in summary:
        return number_rows(summary)
    names = ("roc_auc", "brier", "log_loss", "calibration_error", "probability_hidden", "probability_others")
    found = []
    for row in summary["discovery"]["heads"]:
        precision = f"{row['r_precision']:.3f}" + (f" ± {row['r_precision_se']:.3f}" if row["r_precision_se"] else "")
        others = ("" if row.get(name) is None else f"{row[name]:.3f}" for name in names)
        found.append((row["head"], precision, f"{row['enrichment']:.2f}", *others))
    return found


def class_hidden(summary: Mapping[str, Any]) -> str:
    """What the simulated discovery hid, as the beginning of a sentence."""
    found = summary["discovery"]
    return (
        f"{found['n_hidden']:,} members of the class from one part of composition space hidden in a pool of "
        f"{found['n_pool']:,}, nothing like them in the training data, {len(found['files'])} times elsewhere"
    )


def discovery_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What intervals or probabilities of the model that is used were worth on what was hidden; none where unknown."""
    if "class" not in summary:
        return number_sentences(summary)
    heads = {row["head"]: row for row in (summary["discovery"] or {}).get("heads", [])}
    row = heads.get((summary.get("choice") or {}).get("head"))
    if row is None or row.get("brier") is None:
        return []
    return [
        f"Where no training row was alike, {row['head']} gave the hidden members of the class a mean probability of "
        f"{number(row['probability_hidden'], 2)} and the others {number(row['probability_others'], 2)}; the "
        f"calibration error there is {number(row['calibration_error'], 2)}, {_out_of_fold(summary)} out of fold."
    ]


def _out_of_fold(summary: Mapping[str, Any]) -> str:
    value = summary["model"].get("calibration_error")
    return NONE if value is None else number(value, 2)
