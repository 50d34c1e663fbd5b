"""Ask heads and play searches on the cluster."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_tasks import client
from atomsets_tasks.retries import RETRY


@task(task_run_name="features of {parent}", cache_policy=NO_CACHE, **RETRY)
def featurize_rows(store_url: str, parent: str) -> dict[str, Any]:
    """Make what is missing of a parent's features; see `atomsets_core.jobs.discover.featurize_rows`."""
    return client.run(jobs.featurize_rows, store_url, parent)


@task(task_run_name="{target}: {head}, seed {seed}", cache_policy=NO_CACHE, **RETRY)
def answer_one(store_url: str, target: str, head: str, seed: int, name: str, priority: int = 0) -> dict[str, Any]:
    """Ask one head in one simulated discovery; see `atomsets_core.jobs.discover.answer_one`."""
    done = client.run(jobs.answer_one, store_url, target, head, seed, name, heavy=True, priority=priority)
    get_run_logger().info("%s, seed %d: %.1f s", head, seed, done["seconds"])
    return done


@task(task_run_name="{target}: search by {kind} {diversity}, seed {seed}", cache_policy=NO_CACHE, **RETRY)
def search_one(store_url: str, target: str, kind: str, diversity: str, seed: int, name: str) -> dict[str, Any]:
    """Play one sequential discovery; see `atomsets_core.jobs.discover.search_one`."""
    return client.run(jobs.search_one, store_url, target, kind, diversity, seed, name)
