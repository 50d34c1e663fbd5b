"""The small saved models of the present format that tests/ keeps for good, and what they predict.

    python scripts/build_saved_models.py [NAME ...]

Writes tests/data/models/v<FORMAT_VERSION>-*, all of them or those named; run it once when `FORMAT_VERSION` is raised,
for a new kind with its names alone, and never for an older version: those files are what people have on their disks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from atomsets_core.models import (
    CLASS_HEADS,
    FORMAT_VERSION,
    HEADS,
    AtomSetsClassifier,
    AtomSetsRegressor,
    ClassProbability,
    HeadRegressor,
)
from atomsets_core.sources import load_elastic
from atomsets_core.storage import Store

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "data" / "models"
SMALL: dict[str, Any] = {"phi": (8,), "rho": (8,), "members": 4, "folds": 2, "epochs": 15, "batch_size": 8}
NEW_FORMULAS = ["NaCl", "Fe2O3", "Fe0.62C0.000953Ni0.379047", "GaAs"]


def models() -> dict[str, tuple[Any, Any, Any, Any]]:
    """Name -> unfitted model, inputs and labels to learn from, inputs to predict for."""
    elastic = load_elastic()
    structures, new = elastic.structures.take(np.arange(60)), elastic.structures.take(np.arange(60, 80))
    moduli = elastic.columns[["K_VRH", "G_VRH"]].to_numpy()[:60]
    gaps = moduli.copy()
    gaps[::7, 0], gaps[3::7, 1] = np.nan, np.nan
    formulas = [str(formula) for formula in structures.formulas]
    stiff = np.where(moduli[:, 0] > np.median(moduli[:, 0]), "stiff", "soft")
    third = np.digitize(moduli[:, 0], np.quantile(moduli[:, 0], [1 / 3, 2 / 3]))
    mixed = AtomSetsRegressor(
        "megnet:V0+each(f1)+mean(V1),chgnet:a0", pooling=("mean", "set2set"), set2set_hidden=4, **SMALL
    )
    few = slice(0, 16)  # so that the trees of a forest are small
    heads = {
        head_name(head): (
            HeadRegressor("megnet:V0", head=head, transform="log10", coverage=0.8, **SMALL),
            formulas[few],
            moduli[few, 0],
            NEW_FORMULAS,
        )
        for head in HEADS
    }
    heads |= {
        head_name(head).replace("head-", "class-"): (
            ClassProbability("megnet:V0", head=head, **SMALL),
            formulas[few],
            (moduli[few, 0] > np.median(moduli[few, 0])).astype(float),
            NEW_FORMULAS,
        )
        for head in CLASS_HEADS
    }
    balanced = AtomSetsClassifier("megnet:V0", class_weight="balanced", **SMALL)
    return {
        "regressor": (AtomSetsRegressor("megnet:V0+V1", transform="log10", **SMALL), structures, moduli[:, 0], new),
        "targets": (AtomSetsRegressor("megnet:V1", transform="log10", **SMALL), structures, gaps, new),
        "parents": (mixed, structures, moduli[:, 0], new),
        "composition": (
            AtomSetsRegressor("megnet:V0,amount", pooling=("mean", "max"), alpha=0.5, transform="log10", **SMALL),
            formulas,
            moduli[:, 0],
            NEW_FORMULAS,
        ),
        "classifier": (balanced, formulas, stiff, NEW_FORMULAS),
        "classes": (AtomSetsClassifier("megnet:V1", calibration="isotonic", **SMALL), structures, third, new),
        **heads,
    }


def head_name(head: str) -> str:
    """What the folder of a head is called."""
    return "head-" + head.lower().replace(", ", "-").replace(" + ", "-").replace(" ", "-")


def main() -> None:
    """Train, save, and keep the predictions."""
    store = Store(FOLDER)
    for name, (model, inputs, labels, new) in models().items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        folder = f"v{FORMAT_VERSION}-{name}"
        model.fit(inputs, labels).save(store, folder, {"target": "K_VRH", "unit": "GPa"})
        result = model.predict_distribution(new)
        expected = {field: getattr(result, field).tolist() for field in vars(result)}
        (FOLDER / folder / "expected.json").write_text(json.dumps(expected) + "\n")
        size = sum(path.stat().st_size for path in (FOLDER / folder).iterdir())
        print(f"{folder}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
