"""Featurise one shard on the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import stages
from tasks import cluster
from tasks.retries import RETRY


@task(task_run_name="featurize shard {number} of {total}", cache_policy=NO_CACHE, **RETRY)
def featurize_shard(
    number: int,
    total: int,
    store_url: str,
    queue: str,
    group: int,
    feature_url: str,
    parent: str,
    levels: Sequence[str],
    key: str,
) -> dict[str, Any]:
    """See `atomsets_core.stages.featurize_shard`."""
    done = cluster.run(stages.featurize_shard, store_url, queue, group, feature_url, parent, levels, key)
    get_run_logger().info(
        "shard %d of %d: %d structures, %d sites in %.1f s, %d refused",
        number, total, done["rows"], done["sites"], done["seconds"], done["refused"],
    )  # fmt: skip
    return done
