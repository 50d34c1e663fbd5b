"""The stages of a screening, each as a Prefect task: pull, select, featurize, train, predict, rank.

The work itself is in `atomsets_core.jobs`; here it gets its name, its retries and its place on the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_core.campaigns import PAGES, ahead_name, provenance_name, structures_name
from atomsets_core.features import AnyStore, Piece
from atomsets_core.jobs import Choosing, Ranking, Selection, Wish
from atomsets_core.sources import (
    AS_THEY_COME,
    MATERIALS_PROJECT,
    Catalogue,
    MaterialsQuery,
    PulledFile,
    Watcher,
    deduplicate_file,
    pull_into,
)
from atomsets_core.storage import Store
from atomsets_tasks import client
from atomsets_tasks.client import ShardJob, make_shard
from atomsets_tasks.retries import RETRY


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
    take: str = AS_THEY_COME,
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
        take: "compositions" keeps of structures what they are made of alone.
    """
    more = {**(options or {}), "compositions": True}
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
        take=take,
    )
    kept = deduplicate_file(store, pulled, same, prefer=prefer)
    if kept.provenance != pulled.provenance:
        store.write_json(provenance_name(dataset), kept.provenance)
    get_run_logger().info(
        "%s: %d materials, %d entries refused, from %s", dataset, kept.structures, len(kept.refused), source
    )
    return kept


@task(task_run_name="pull {dataset} from the Materials Project", cache_policy=NO_CACHE)
def refresh(
    dataset: str,
    store: Store,
    query: MaterialsQuery | None,
    watch: Watcher | None = None,
    labels: str | None = None,
    id_column: str = "material_id",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fetch what is new or has changed into structures/pages, where the campaign's own pull finds it.

    Args:
        dataset: "training" or "candidates".
        store: of the campaign.
        query: of the campaign, so that its pages are the same ones.
        watch: is told how far it is.
        labels: CSV of the entries that are pulled.
        id_column: of its identifiers.
        options: further arguments of `pull`.

    Returns:
        Counts of the pull, with the version of the database.
    """
    # The file that the last screening was made from stays as it is: what it ranked is compared with it.
    target = ahead_name(dataset)
    try:
        pulled = pull_into(
            store, target, MATERIALS_PROJECT, labels=labels, id_column=id_column, query=query, watch=watch,
            pages=PAGES, options=options,
        )  # fmt: skip
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


@task(task_run_name="select", cache_policy=NO_CACHE)
def select(
    store: Store,
    training: PulledFile,
    candidates: PulledFile,
    target: str,
    transform: str,
    bounds: Mapping[str, tuple[float | None, float | None]],
    exclude_elements: Sequence[str],
    only_elements: Sequence[str],
    exclude_seen: bool,
    repeats: str = "median",
    unit: str = "",
    wanted: bool | float | str | None = None,
    spare: bool = False,
) -> Selection:
    """Say which labels and candidates are used; see `atomsets_core.jobs.structures`."""
    chosen = jobs.select(
        store, training, candidates, target, transform, bounds, exclude_elements, only_elements, exclude_seen, repeats,
        unit, wanted, spare,
    )  # fmt: skip
    get_run_logger().info(
        "%d labels to learn from, %d candidates to rank, %d filtered out",
        len(chosen.training),
        len(chosen.candidates),
        sum(chosen.filtered.values()),
    )
    return chosen


@task(task_run_name="featurize shard {number} of {total}", cache_policy=NO_CACHE, **RETRY)
def featurize_shard(number: int, total: int, job: ShardJob) -> dict[str, Any]:
    """Make one shard of features, on a worker; see `atomsets_tasks.client.make_shard`."""
    done = make_shard(job)
    logger = get_run_logger()
    logger.info(
        "shard %d of %d: %d structures, %d sites in %.1f s, %d refused",
        number, total, done["rows"], done["sites"], done["seconds"], done["refused"],
    )  # fmt: skip
    for reason, n in done["poison"].items():
        logger.warning("shard %d of %d: %d structures left out: %s", number, total, n, reason)
    return done


@task(task_run_name="price features", cache_policy=NO_CACHE, **RETRY)
def price_features(store: Store, queue: str, specs: Sequence[str]) -> dict[str, dict[str, float]]:
    """Measure on a worker what features cost; see `atomsets_core.jobs.choose.price_features`."""
    return client.run(jobs.price_features, store, queue, specs, heavy=True, priority=1)


@task(task_run_name="choose features", cache_policy=NO_CACHE, **RETRY)
def choose_features(
    store: Store, choosing: Choosing, parameters: Mapping[str, Any], priced: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Choose features on a worker; see `atomsets_core.jobs.choose.choose_features`."""
    done = client.run(jobs.choose_features, store, choosing, parameters, priced, name, heavy=True, priority=2)
    get_run_logger().info("chose %s in %.0f s", done["features"], done["seconds"])
    return done


@task(task_run_name="train {folder}", cache_policy=NO_CACHE, **RETRY)
def train_model(
    store: Store,
    features: AnyStore,
    parameters: Mapping[str, Any],
    folder: str,
    about: Mapping[str, Any],
    frozen: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Train the ensemble on a worker; see `atomsets_core.jobs.train.train_model`."""
    done = client.run(jobs.train_model, store, features, parameters, folder, about, frozen, heavy=True, priority=2)
    get_run_logger().info("trained on %d structures in %.0f s (%s)", done["n_train"], done["seconds"], done["device"])
    return done


@task(task_run_name="simulate discovery, seed {seed}", cache_policy=NO_CACHE, **RETRY)
def simulate_discovery(
    store: Store,
    features: AnyStore,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int,
    name: str,
    choosing: Choosing | None = None,
) -> dict[str, Any]:
    """Play one simulated discovery on a worker; see `atomsets_core.jobs.simulate.simulate_seed`."""
    done = client.run(jobs.simulate_seed, store, features, parameters, options, seed, name, choosing, heavy=True)
    get_run_logger().info("simulated discovery %d in %.0f s", seed, done["seconds"])
    return done


@task(task_run_name="simulate funnel, seed {seed}", cache_policy=NO_CACHE, **RETRY)
def simulate_funnel(
    store: Store,
    cheap: AnyStore,
    dear: AnyStore,
    parameters: tuple[Mapping[str, Any], Mapping[str, Any]],
    options: Mapping[str, Any],
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Ask a cheap and a dear model of the same hidden values, on a worker; see `atomsets_core.jobs.funnel`."""
    return client.run(jobs.simulate_funnel, store, cheap, dear, parameters, options, seed, name, heavy=True)


@task(task_run_name="predict shard {number} of {total}", cache_policy=NO_CACHE, **RETRY)
def predict_shard(
    number: int, total: int, store: Store, features: AnyStore, piece: Piece, folder: str, name: str
) -> dict[str, Any]:
    """Predict for the structures of one shard; see `atomsets_core.jobs.structures.predict_shard`."""
    done = client.run(jobs.predict_shard, store, features, piece, folder, name, heavy=True, priority=1)
    get_run_logger().info("shard %d of %d: %d predictions in %.1f s", number, total, done["rows"], done["seconds"])
    return done


@task(task_run_name="rank", cache_policy=NO_CACHE)
def rank(
    store: Store,
    predictions: Sequence[str],
    candidates: Catalogue,
    wish: Wish,
    transform: str,
    unit: str,
    features: AnyStore,
    model: str,
) -> Ranking:
    """Rank all candidates and write the results; see `atomsets_core.jobs.rank`."""
    done = jobs.rank(store, predictions, candidates, wish, transform, unit, features, model)
    get_run_logger().info("ranked %d candidates, first is %s", done.n_ranked, done.first or "none")
    if done.why_first:
        get_run_logger().warning("the first line lies outside the domain of the training data: %s", done.why_first)
    if done.n_no_bulk:
        get_run_logger().info("%d of the leading candidates are no bulk crystals and are marked", done.n_no_bulk)
    return done
