"""A new parent: MEGNet trained on formation energies (or whatever a large set of structures has), saved as a parent."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.campaigns import FAILURES
from atomsets_core.models import (
    GraphSet,
    MEGNetRegressor,
    Progress,
    StoredCheckpoint,
    build_graphs,
    formula_groups,
    mean_absolute_error,
    root_mean_squared_error,
)
from atomsets_core.parents import CUTOFF, N_ELEMENTS, load_folder, load_parent, save_parent
from atomsets_core.sources import Pulled, SourceError, label_values, ledger_table, usable_labels
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal, Structures
from atomsets_core.transforms import NONE

CHECKPOINT = "unfinished.safetensors"
PACKAGES = ("torch", "numpy", "numba", "pymatgen")

PROVENANCE = ("name", "title", "citation", "doi", "licence", "sha256")
"""What the card repeats of the source."""

PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
"""Words of a split column."""

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Parts of a random split, where there is no column."""


@dataclass(frozen=True)
class ParentData:
    """What a parent is trained on.

    Attributes:
        structures: (n) with a label and a graph.
        graphs: (n) of them.
        values: (n,) labels.
        part: (n,) str: "train", "validation" or "test".
        split: in words, where the parts come from.
        refused: every entry that is not used.
    """

    structures: Structures
    graphs: GraphSet
    values: npt.NDArray[np.float64]
    part: npt.NDArray[np.object_]
    split: str
    refused: list[Refusal]


def parent_data(
    pulled: Pulled, target: str, *, cutoff: float, resolution: float, split_column: str | None = None, seed: int = 0
) -> ParentData:
    """Graphs, labels and parts of a source.

    Args:
        pulled: structures and columns.
        target: column to learn.
        cutoff: neighbour radius, Angstrom, at most that of the published parent.
        resolution: of distances, Angstrom.
        split_column: column that says train, val or test; None takes "split" where there is one, else a random split
            that keeps rows of one reduced formula together.
        seed: of a random split.

    Raises:
        SourceError: no such column, no usable row, or no row to train on.
        ValueError: a cutoff that a parent can't have.
    """
    if not 0.0 < cutoff <= CUTOFF:
        raise ValueError(f"cutoff {cutoff:g}: a parent sees neighbours within {CUTOFF:g} Angstrom at most")
    usable, refused = usable_labels(pulled, target, NONE.name)
    structures = pulled.structures.take(np.flatnonzero(usable))
    columns = pulled.columns[usable].reset_index(drop=True)
    part, split, more = _parts(structures, columns, split_column, seed)
    owner = np.repeat(np.arange(len(structures)), structures.n_atoms)
    heavy = np.unique(owner[structures.numbers >= N_ELEMENTS])
    more += [
        Refusal(str(structures.material_id[i]), "featurize", "megnet covers atomic numbers 1 to 94") for i in heavy
    ]
    fine = np.array([p != "" for p in part], dtype=bool)
    fine[heavy] = False
    chosen = structures.take(np.flatnonzero(fine))
    graphs = build_graphs(chosen, cutoff, resolution=resolution)
    row = {name: i for i, name in enumerate(structures.material_id)}
    kept = np.array([row[name] for name in graphs.material_id], dtype=np.int64)
    refused = [*pulled.refused, *refused, *more, *graphs.refused]
    if not (part[kept] == "train").any():
        raise SourceError(f"no structure to train on: {refused[0].reason if refused else 'the source is empty'}")
    values = label_values(pulled, target)[usable][kept]
    return ParentData(structures.take(kept), graphs.take(np.arange(len(graphs))), values, part[kept], split, refused)


def _parts(
    structures: Structures, columns: pd.DataFrame, split_column: str | None, seed: int
) -> tuple[npt.NDArray[np.object_], str, list[Refusal]]:
    """(n,) part of each row ("" where the column says something else), in words where from, and the refusals."""
    name = split_column or ("split" if "split" in columns.columns else None)
    if name is None:
        group = formula_groups(structures.formulas)
        n_formulas = int(group.max()) + 1
        draw = np.random.default_rng(seed).permutation(n_formulas) / n_formulas
        edges = np.cumsum(list(SHARES.values()))[:-1]
        parts = np.array(list(SHARES), dtype=object)[np.searchsorted(edges, draw, side="right")][group]
        return parts, f"random by reduced formula, 80:10:10, seed {seed}", []
    if name not in columns.columns:
        raise SourceError(f"no column {name!r} for the split; there are {', '.join(map(str, columns.columns))}")
    words = columns[name].astype(str).str.lower()
    parts = words.map(PARTS).fillna("").to_numpy(dtype=object)
    refused = [
        Refusal(str(structures.material_id[i]), "label", f"column {name} says {words[i]!r}, not train, val or test")
        for i in np.flatnonzero(parts == "")
    ]
    return parts, f"column {name!r} of the source", refused


def train_parent(
    data: ParentData,
    model: MEGNetRegressor,
    store: Store,
    *,
    target: str,
    unit: str,
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train, save and judge a parent; after a kill the same call goes on where it was and ends the same.

    The errors are those of the parent as saved and loaded again, on distances that are not rounded.

    Args:
        data: by `parent_data`.
        model: unfitted, with one member; its cutoff and resolution are those of the data.
        store: the folder of the parent.
        target: column it learns.
        unit: of the target.
        provenance: of the source.
        progress: called after each epoch.
        device: of the parent that is judged.

    Returns:
        The card, as in parent.json.

    Raises:
        StorageError: the folder can't be written.
        ValueError: the training diverged, or the model has several members.
    """
    if model.members != 1:
        raise ValueError(f"a parent is one network; the model has {model.members} members")
    validation = data.part == "validation"
    learned = np.flatnonzero(data.part != "test")
    model.fit(
        data.graphs.take(learned),
        data.values[learned],
        progress=progress,
        checkpoint=StoredCheckpoint(store, CHECKPOINT),
        validation=validation[learned],
    )
    (network,), (history,) = model.networks_, model.histories_
    atoms_part = np.repeat(data.part, data.graphs.n_atoms)
    card = {
        "target": target,
        "unit": unit,
        "cutoff": model.cutoff_,
        "elements": np.unique(data.graphs.numbers[atoms_part == "train"]).tolist(),
        **{f"n_{part}": int((data.part == part).sum()) for part in SHARES},
        "n_refused": len(data.refused),
        "split": data.split,
        "recipe": model.get_params(),
        "seed": model.seed,
        "history": {"loss": history.losses, "validation": history.validation, "best_epoch": history.best_epoch},
        "target_mean": model.target_mean_,
        "target_scale": model.target_scale_,
        "seconds": round(history.seconds, 1),
        "data": {key: value for key, value in provenance.items() if key in PROVENANCE},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    weights = network.export(model.target_mean_, model.target_scale_)
    # Without metrics first: they are measured on what a user would load.
    save_parent(store, weights, card)
    card["metrics"] = scores_of(store, data, device)
    card = save_parent(store, weights, card)
    store.write_table(FAILURES, ledger_table(("training", refusal) for refusal in data.refused))
    store.remove(CHECKPOINT)
    load_parent.cache_clear()
    return card


def scores_of(store: Store, data: ParentData, device: str = "cpu") -> dict[str, dict[str, float]]:
    """Errors of a saved parent on the validation and the test part, beside those of the training rows' mean."""
    parent = load_folder(store.root, device)
    mean = float(data.values[data.part == "train"].mean())
    out = {}
    for part in ("validation", "test"):
        rows = np.flatnonzero(data.part == part)
        if not len(rows):
            continue
        features = parent.featurize(data.structures.take(rows), ["energy"])
        truth = dict(zip(data.structures.material_id[rows], data.values[rows], strict=True))
        known = np.array([truth[name] for name in features.material_id])
        found = features.structure["energy"][:, 0].astype(np.float64)
        out[part] = {
            "n": len(known),
            "mae": mean_absolute_error(known, found),
            "rmse": root_mean_squared_error(known, found),
            "mae_of_mean": mean_absolute_error(known, np.full(len(known), mean)),
        }
    return out
