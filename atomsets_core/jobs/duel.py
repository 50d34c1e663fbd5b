"""Champion against challenger, as a worker compares them: on frozen folds, and in a simulated discovery."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from atomsets_core.campaigns import CHAMPION, OUT_OF_FOLD, on_folds
from atomsets_core.discovery import AtomSetsHead, Estimate, Holdout, Rows, ask, design_of, learnable, scored_by
from atomsets_core.features import AnyStore
from atomsets_core.jobs.train import read_labelled
from atomsets_core.models import FEWEST, ClassProbability, load_regressor, rows_needed
from atomsets_core.storage import Store
from atomsets_core.transforms import transform_target


def duel_on_folds(store: Store, features: AnyStore, champion: str, challenger: str, name: str) -> dict[str, Any]:
    """Compare two models on the folds of the challenger, which are the frozen ones; the result is written as JSON.

    Args:
        store: of the campaign.
        features: of the challenger's training structures.
        champion: folder of the model in use.
        challenger: folder of the model that learned from what is labelled now.
        name: of the file.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    table = store.read_table(f"{challenger}/{OUT_OF_FOLD}")
    model = load_regressor(store, champion)
    stored = features.find(table["structure_hash"].to_pylist())
    said = model.predict_left_out(stored, table["fold"].to_numpy())
    truth = transform_target(table["value"].to_numpy(), model.options_.transform)
    loss = "log_loss" if isinstance(model, ClassProbability) else "mae"
    found = on_folds(truth, said.mean, table["mean"].to_numpy(), table["formula"].to_pylist(), loss=loss)
    store.write_json(name, {"champion": champion, "challenger": challenger, **found})
    return {"seconds": time.perf_counter() - started}


def simulate_champion(
    store: Store,
    features: AnyStore,
    parameters: Mapping[str, Any],
    champion: str,
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """The champion's recipe in a simulated discovery on today's labels, trained on what the champion knew of them.

    Args:
        store: of the campaign.
        features: of the labelled structures.
        parameters: of the champion.
        champion: its folder; its out-of-fold table says what it knew.
        options: see `simulate_seed`.
        seed: of the holdout and of the head.
        name: of the file that is written, JSON: the scores of `simulate.score`, n_hidden, and n_train; n_train alone
            where the champion knew too few rows of the training part to learn from.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    table, values = read_labelled(store)
    hashes = table["structure_hash"].to_pylist()
    rows = Rows(features.find(hashes).load())
    target = transform_target(values, parameters["transform"])
    known = store.read_table(f"{champion}/{OUT_OF_FOLD}", columns=["structure_hash", "value"])
    then = dict(zip(known["structure_hash"].to_pylist(), known["value"].to_pylist(), strict=True))
    design = design_of(options)
    split = design.holdout(target, rows.formula, seed)
    train = np.array([row for row in split.train if hashes[row] in then], dtype=np.int64)
    seen = target.copy()
    seen[train] = transform_target([then[hashes[row]] for row in train], parameters["transform"])
    few = len(train) < max(FEWEST, rows_needed(parameters["coverage"]) + 1)
    if few or (options["goal"] == "class" and not learnable(seen[train], rows.formula[train])):
        store.write_json(name, {"n_train": len(train), "seed": seed})
        return {"seconds": time.perf_counter() - started}
    found: Estimate = ask(
        AtomSetsHead(parameters), rows, seen, Holdout(train, split.pool, split.hidden, split.dropped), seed
    )
    answer = {"mean": found.mean.tolist(), "std": found.std.tolist()}
    result = scored_by(design, {CHAMPION: answer}, target, rows.formula, seed, options["kappa"])
    scores = {key: value for key, value in result["heads"][CHAMPION].items() if key != "hits"}
    store.write_json(name, {**scores, "n_hidden": result["n_hidden"], "n_train": len(train), "seed": seed})
    return {"seconds": time.perf_counter() - started}
