"""Pull labelled structures and candidates into the campaign's store."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core.sources import MATERIALS_PROJECT, MaterialsQuery, Pulled, Watcher, pull, pull_into, read_pulled
from atomsets_core.storage import Store


@task(task_run_name="pull {dataset} from {source}", cache_policy=NO_CACHE)
def pull_source(
    dataset: str,
    source: str,
    labels: str | None,
    id_column: str,
    store: Store,
    query: MaterialsQuery | None = None,
    watch: Watcher | None = None,
) -> Pulled:
    """Read a source and keep what it gave as structures/<dataset>.parquet.

    Pages of a database lie in structures/pages until the next pull, which fetches only what is missing or has changed.
    """
    target = f"structures/{dataset}.parquet"
    if source == MATERIALS_PROJECT:
        file = pull_into(store, target, source, labels=labels, query=query, watch=watch)
        pulled = read_pulled(store, file)
    else:
        pulled = pull(source, labels=labels, id_column=id_column)
        store.write_table(target, pulled.to_arrow())
        store.write_json(f"structures/{dataset}.json", pulled.provenance)
    get_run_logger().info(
        "%s: %d structures, %d entries refused, from %s", dataset, len(pulled.structures), len(pulled.refused), source
    )
    return pulled
