"""Decide what is learned from and what is ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core import jobs
from atomsets_core.jobs import Selection
from atomsets_core.sources import PulledFile
from atomsets_core.storage import Store


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
) -> Selection:
    """Say which labels and candidates are used; see `atomsets_core.jobs.select`."""
    chosen = jobs.select(
        store, training, candidates, target, transform, bounds, exclude_elements, only_elements, exclude_seen
    )
    get_run_logger().info(
        "%d labels to learn from, %d candidates to rank, %d filtered out",
        len(chosen.training),
        len(chosen.candidates),
        sum(chosen.filtered.values()),
    )
    return chosen
