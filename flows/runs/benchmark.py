"""The benchmark flow: features once, then every fold by itself; what the result file holds is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from atomsets_core.features import FeatureStore, parse_features
from atomsets_core.jobs import VARIANTS, available, lacking, specifications, union
from atomsets_core.sources import Dataset, SourceError, load_dataset
from atomsets_core.storage import StorageError, Store
from atomsets_flows.campaign import Cluster
from atomsets_flows.runs.progress import Stage, note
from atomsets_tasks import connect, prepare, run_fold

PIECE = 256
"""Structures featurised by one call of a worker."""


@flow(name="benchmark", flow_run_name="benchmark {task}", task_runner=ThreadPoolTaskRunner(max_workers=32))  # type: ignore[arg-type]
def benchmark(
    task: str,
    data: str,
    out: str,
    variant: str = "auto",
    folds: list[int] | None = None,
    seed: int = 0,
    features: str = "benchmarks/features",
    workers: int | None = None,
    address: str | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Run the folds of a task that the result file lacks.

    Args:
        task: one of `matbench.TASKS`.
        data: folder of the data.
        out: result file, JSON.
        variant: one of `VARIANTS` of jobs/benchmark.py.
        folds: which; by default all.
        seed: of everything random but the official folds.
        features: store of the features, shared by all tasks and variants.
        workers: processes; by default one a core.
        address: of a running Dask scheduler instead.
        limit: train on so many rows of each training part, for learning curves; by default on all.

    Returns:
        The content of the result file.

    Raises:
        SourceError: no such task, variant, fold or file.
        StorageError: the result file can't be written, or is of another run.
    """
    if variant not in VARIANTS:
        raise SourceError(f"no variant {variant!r}; there are {', '.join(VARIANTS)}")
    dataset = load_dataset(task, Path(data))
    if not VARIANTS[variant].fits(dataset.task):
        raise SourceError(f"{variant} can't be run on {task}: it needs structures or does no classes")
    every = list(range(len(dataset.folds)))
    if unknown := set(folds or []) - set(every):
        raise SourceError(f"{task} has no fold {min(unknown)}; it has {', '.join(map(str, every))}")
    store, name = Store(Path(out).parent), Path(out).name
    result = _open(store, name, dataset, variant, seed, limit)
    todo = [fold for fold in folds or every if str(fold) not in result["folds"]]
    place = (str(Path(data).absolute()), str(Path(features).absolute()) if "://" not in features else features)
    where = Cluster(kind="address" if address else "local", address=address, workers=workers)  # type: ignore[call-arg]
    with connect(where.start):
        if todo:
            result["feature_cpu_seconds"] += _prepare(dataset, variant, *place)
        stage = Stage(f"{variant} folds", task, len(todo))
        for done in as_completed([run_fold.submit(task, *place, variant, fold, seed, limit) for fold in todo]):
            fold = done.result()
            result["folds"][str(fold["fold"])] = fold
            store.write_json(name, _summed(result, dataset))
            stage.advance()
    return _summed(result, dataset)


def _prepare(dataset: Dataset, variant: str, data: str, features: str) -> float:
    """Make the features that are missing; the CPU seconds it took."""
    names = specifications(variant, dataset.task, len(dataset))
    if not names:
        return 0.0
    names, unavailable = available(names)
    for name, reason in unavailable.items():
        note(f"{name} is left out: {reason}")
    spec = parse_features(union(names))
    # The store is asked once, not by every piece: with a large task that takes longer than the task.
    pieces = [
        (where, start, min(start + PIECE, len(dataset)))
        for parent in spec.parents
        for where in [FeatureStore.of(Store(features), parent, spec.needed(parent))]
        for missing in [lacking(dataset, where)]
        for start in range(0, len(dataset), PIECE)
        if missing[start : start + PIECE].any()
    ]
    stage = Stage("features", dataset.task.name, len(pieces))
    futures = [prepare.submit(dataset.task.name, data, *piece) for piece in pieces]
    seconds = 0.0
    for future in as_completed(futures):
        seconds += future.result()["cpu_seconds"]
        stage.advance()
    return seconds


def _open(store: Store, name: str, dataset: Dataset, variant: str, seed: int, limit: int | None) -> dict[str, Any]:
    """The result file as it is, or a new one.

    Raises:
        StorageError: it is of another task, variant, seed, data file or recipe.
    """
    task = dataset.task
    identity = {
        "task": task.name,
        "variant": variant,
        "seed": seed,
        "train_rows": limit,
        "recipe_version": VARIANTS[variant].version(task),
        "data_sha256": dataset.sha256,
    }
    new: dict[str, Any] = {
        **identity,
        "title": VARIANTS[variant].title,
        "metric": task.metric,
        "unit": task.unit,
        "rows": len(dataset),
        "rows_official": task.n_official,
        "command": f"atomsets benchmark {task.name} --data DIR --variant {variant} --seed {seed} --out FILE"
        + (f" --train-rows {limit}" if limit else ""),
        "feature_cpu_seconds": 0.0,
        "folds": {},
    }
    if not store.exists(name):
        return new
    found = store.read_json(name)
    for key, value in identity.items():
        if found.get(key) != value:
            raise StorageError(
                f"{store.url(name)} is a result of {key} {found.get(key)!r}, not {value!r}: name another file by --out"
            )
    return {**new, **found}


def _summed(result: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """With mean and standard deviation of every score over the folds, and the CPU time."""
    folds = {key: result["folds"][key] for key in sorted(result["folds"], key=int)}
    scores = (
        {name: [fold["scores"][name] for fold in folds.values()] for name in next(iter(folds.values()))["scores"]}
        if folds
        else {}
    )
    return {
        **{key: value for key, value in result.items() if key != "folds"},
        "complete": len(folds) == len(dataset.folds) and result["train_rows"] is None,
        "whole": dataset.whole,
        "mean": {name: float(np.mean(values)) for name, values in scores.items()},
        "std": {name: float(np.std(values)) for name, values in scores.items()},
        "unseen": _unseen(folds),
        "cpu_seconds": round(result["feature_cpu_seconds"] + sum(fold["cpu_seconds"] for fold in folds.values()), 1),
        "folds": folds,
    }


def _unseen(folds: dict[str, Any]) -> dict[str, Any]:
    """Test rows whose composition no parent was trained on, and the mean of every score on them over the folds."""
    known = [fold for fold in folds.values() if fold.get("scores_unseen")]
    if not known:
        return {}
    mean = {name: float(np.mean([fold["scores_unseen"][name] for fold in known])) for name in known[0]["scores_unseen"]}
    return {"rows": sum(fold["n_unseen"] for fold in known), "mean": mean}
