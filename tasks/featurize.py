"""Featurise one shard on the cluster."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_tasks.isolate import ShardJob, make_shard
from atomsets_tasks.retries import RETRY


@task(task_run_name="featurize shard {number} of {total}", cache_policy=NO_CACHE, **RETRY)
def featurize_shard(number: int, total: int, job: ShardJob) -> dict[str, Any]:
    """Make one shard of features, on a worker; see `atomsets_tasks.isolate.make_shard`."""
    done = make_shard(job)
    logger = get_run_logger()
    logger.info(
        "shard %d of %d: %d structures, %d sites in %.1f s, %d refused",
        number, total, done["rows"], done["sites"], done["seconds"], done["refused"],
    )  # fmt: skip
    for reason, n in done["poison"].items():
        logger.warning("shard %d of %d: %d structures left out: %s", number, total, n, reason)
    return done
