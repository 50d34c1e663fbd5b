"""Apply the model to one shard on the cluster."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_core.features import FeatureStore, ShardEntry
from atomsets_core.storage import Store
from atomsets_tasks import client
from atomsets_tasks.retries import RETRY


@task(task_run_name="predict shard {number} of {total}", cache_policy=NO_CACHE, **RETRY)
def predict_shard(
    number: int, total: int, store: Store, features: FeatureStore, entry: ShardEntry, folder: str, name: str
) -> dict[str, Any]:
    """Predict for the structures of one shard; see `atomsets_core.jobs.predict.predict_shard`."""
    done = client.run(jobs.predict_shard, store, features, entry, folder, name, heavy=True, priority=1)
    get_run_logger().info("shard %d of %d: %d predictions in %.1f s", number, total, done["rows"], done["seconds"])
    return done
