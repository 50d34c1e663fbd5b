"""Features and folds of a benchmark, on the cluster."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_core.features import FeatureStore
from atomsets_tasks import client
from atomsets_tasks.retries import RETRY


@task(task_run_name="features of {features.parent} {start} to {stop}", cache_policy=NO_CACHE, **RETRY)
def prepare(name: str, data: str, features: FeatureStore, start: int, stop: int) -> dict[str, float]:
    """Make features of a stretch of rows, on a worker; see `atomsets_core.jobs.benchmark.prepare`."""
    return client.run(jobs.prepare, name, data, features, start, stop)


@task(task_run_name="{variant} fold {fold}", cache_policy=NO_CACHE, **RETRY)
def run_fold(
    name: str, data: str, store_url: str, variant: str, fold: int, seed: int, limit: int | None = None
) -> dict[str, Any]:
    """Train and score one fold, on a worker; see `atomsets_core.jobs.benchmark.run_fold`."""
    done = client.run(jobs.run_fold, name, data, store_url, variant, fold, seed, limit)
    get_run_logger().info("fold %d of %s: %s in %.0f s", fold, name, done["scores"], done["seconds"])
    return done
