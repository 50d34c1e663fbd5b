"""Pull labelled structures and candidates into the campaign's store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core.campaigns import PAGES, provenance_name, structures_name
from atomsets_core.sources import MATERIALS_PROJECT, MaterialsQuery, PulledFile, Watcher, deduplicate_file, pull_into
from atomsets_core.storage import Store
from atomsets_tasks import client


@task(task_run_name="pull {dataset} from {source}", cache_policy=NO_CACHE)
def pull_source(
    dataset: str,
    source: str,
    labels: str | None,
    id_column: str,
    store: Store,
    query: MaterialsQuery | None = None,
    watch: Watcher | None = None,
    options: Mapping[str, Any] | None = None,
    same: Sequence[str] = ("id",),
    prefer: str | None = None,
) -> PulledFile:
    """Read a source and keep what it gave as structures/<dataset>.parquet.

    Pages of a database lie in structures/pages until the next pull, which fetches only what is missing or has changed.
    The files of a folder or zip are parsed by the workers of the cluster, where there is one.

    Args:
        dataset: "training" or "candidates".
        source: see `atomsets_core.sources.pull.pull`.
        labels: CSV of labels that are joined to the structures.
        id_column: column of identifiers.
        store: of the campaign.
        query: of the Materials Project.
        watch: is told how far it is.
        options: further arguments of `pull`.
        same: what makes two entries one, see `deduplicate`.
        prefer: column by which one of them is kept: that with the lowest value.
    """
    more = dict(options or {})
    if source != MATERIALS_PROJECT and client.connected():
        more["fan_out"] = client.fan_out
    pulled = pull_into(
        store,
        structures_name(dataset),
        source,
        labels=labels,
        id_column=id_column,
        query=query,
        watch=watch,
        pages=PAGES,
        options=more,
    )
    kept = deduplicate_file(store, pulled, same, prefer=prefer)
    if kept.provenance != pulled.provenance:
        store.write_json(provenance_name(dataset), kept.provenance)
    get_run_logger().info(
        "%s: %d structures, %d entries refused, from %s", dataset, kept.structures, len(kept.refused), source
    )
    return kept
