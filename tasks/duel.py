"""Compare the model in use with its challenger, on the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_core.features import AnyStore
from atomsets_core.storage import Store
from atomsets_tasks import client
from atomsets_tasks.retries import RETRY


@task(task_run_name="{champion} against {challenger} on frozen folds", cache_policy=NO_CACHE, **RETRY)
def duel_on_folds(store: Store, features: AnyStore, champion: str, challenger: str, name: str) -> dict[str, Any]:
    """Compare two models on frozen folds, on a worker; see `atomsets_core.jobs.duel.duel_on_folds`."""
    return client.run(jobs.duel_on_folds, store, features, champion, challenger, name, heavy=True)


@task(task_run_name="{champion} in simulated discovery, seed {seed}", cache_policy=NO_CACHE, **RETRY)
def simulate_champion(
    store: Store,
    features: AnyStore,
    parameters: Mapping[str, Any],
    champion: str,
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Try the champion's recipe on today's labels; see `atomsets_core.jobs.duel.simulate_champion`."""
    return client.run(jobs.simulate_champion, store, features, parameters, champion, options, seed, name, heavy=True)
