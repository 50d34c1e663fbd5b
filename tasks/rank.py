"""Join the predictions of all shards, score, rank and pick the shortlist."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_core.features import FeatureStore
from atomsets_core.jobs import Ranking, Wish
from atomsets_core.sources import Catalogue
from atomsets_core.storage import Store


@task(task_run_name="rank", cache_policy=NO_CACHE)
def rank(
    store: Store,
    predictions: Sequence[str],
    candidates: Catalogue,
    wish: Wish,
    transform: str,
    unit: str,
    features: FeatureStore,
) -> Ranking:
    """Rank all candidates and write the results; see `atomsets_core.jobs.rank`."""
    done = jobs.rank(store, predictions, candidates, wish, transform, unit, features)
    get_run_logger().info("ranked %d candidates, first is %s", done.n_ranked, done.first)
    return done
