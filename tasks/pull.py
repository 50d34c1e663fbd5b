"""Pull labelled structures and candidates into the campaign's store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core.deduplication import deduplicate
from atomsets_core.sources import Pulled, pull
from atomsets_core.storage import Store
from tasks import cluster


@task(task_run_name="pull {dataset} from {source}", cache_policy=NO_CACHE)
def pull_source(
    dataset: str,
    source: str,
    labels: str | None,
    id_column: str,
    store: Store,
    options: Mapping[str, Any] | None = None,
    same: Sequence[str] = ("id",),
    prefer: str | None = None,
) -> Pulled:
    """Read a source and keep what it gave as structures/<dataset>.parquet.

    The files of a folder or zip are parsed by the workers of the cluster, where there is one.

    Args:
        dataset: "training" or "candidates".
        source: see `atomsets_core.sources.pull`.
        labels: see there.
        id_column: see there.
        store: of the campaign.
        options: further arguments of `pull`.
        same: what makes two entries one, see `deduplicate`.
        prefer: column by which one of them is kept, see there.
    """
    fan_out = cluster.fan_out if cluster.connected() else None
    pulled = pull(source, labels=labels, id_column=id_column, fan_out=fan_out, **(options or {}))
    pulled = deduplicate(pulled, same, prefer=prefer)
    store.write_table(f"structures/{dataset}.parquet", pulled.to_arrow())
    store.write_json(f"structures/{dataset}.json", pulled.provenance)
    get_run_logger().info(
        "%s: %d structures, %d entries refused, from %s", dataset, len(pulled.structures), len(pulled.refused), source
    )
    return pulled
