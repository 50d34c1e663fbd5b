"""Train the ensemble, and simulate discovery with it, on the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_core.features import FeatureStore
from atomsets_core.storage import Store
from atomsets_tasks import client
from atomsets_tasks.retries import RETRY


@task(task_run_name="train {folder}", cache_policy=NO_CACHE, **RETRY)
def train_model(
    store: Store,
    features: FeatureStore,
    parameters: Mapping[str, Any],
    folder: str,
    about: Mapping[str, Any],
    frozen: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Train the ensemble on a worker; see `atomsets_core.jobs.train.train_model`."""
    done = client.run(jobs.train_model, store, features, parameters, folder, about, frozen, heavy=True, priority=2)
    get_run_logger().info("trained on %d structures in %.0f s (%s)", done["n_train"], done["seconds"], done["device"])
    return done


@task(task_run_name="simulate discovery, seed {seed}", cache_policy=NO_CACHE, **RETRY)
def simulate_discovery(
    store: Store,
    features: FeatureStore,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Play one simulated discovery on a worker; see `atomsets_core.jobs.simulate.simulate_seed`."""
    done = client.run(jobs.simulate_seed, store, features, parameters, options, seed, name, heavy=True)
    get_run_logger().info("simulated discovery %d in %.0f s", seed, done["seconds"])
    return done
