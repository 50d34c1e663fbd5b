"""Bring what is stored of a database up to date, without making anything of it."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core.campaigns import PAGES, ahead_name
from atomsets_core.sources import MATERIALS_PROJECT, MaterialsQuery, Watcher, pull_into
from atomsets_core.storage import Store


@task(task_run_name="pull {dataset} from the Materials Project", cache_policy=NO_CACHE)
def refresh(dataset: str, store: Store, query: MaterialsQuery | None, watch: Watcher | None = None) -> dict[str, Any]:
    """Fetch what is new or has changed into structures/pages, where the campaign's own pull finds it.

    Args:
        dataset: "training" or "candidates".
        store: of the campaign.
        query: of the campaign, so that its pages are the same ones.
        watch: is told how far it is.

    Returns:
        Counts of the pull, with the version of the database.
    """
    # The file that the last screening was made from stays as it is: what it ranked is compared with it.
    target = ahead_name(dataset)
    try:
        pulled = pull_into(store, target, MATERIALS_PROJECT, query=query, watch=watch, pages=PAGES)
    finally:
        store.remove(target)
        store.remove(target.removesuffix(".parquet") + ".json")
    version = pulled.provenance.get("db_version")
    get_run_logger().info(
        "%s: %d structures in version %s; %d new, %d changed, %d fetched",
        dataset, pulled.structures, version,
        *(pulled.counts.get(name, 0) for name in ("new", "changed", "fetched")),
    )  # fmt: skip
    return {"structures": pulled.structures, "db_version": version, **pulled.counts}
