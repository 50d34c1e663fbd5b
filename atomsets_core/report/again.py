"""Write the report of a finished campaign anew, such that the next run takes it for what the last one left."""

from __future__ import annotations

from dataclasses import replace

from atomsets_core.campaigns import (
    REPORT,
    SUMMARY,
    property_folder,
    read_standing,
    recorded,
    remember,
)
from atomsets_core.report.joint.page import write_joint_report
from atomsets_core.report.page import write_report
from atomsets_core.storage import StorageError, Store, seal, unseal


def write_again(store: Store) -> list[str]:
    """Write report.html from the results of the last run; of several properties also the report of each.

    Args:
        store: of a campaign in which no run is at work.

    Returns:
        Paths or URLs of what was written.

    Raises:
        StorageError: no run has finished here, a result is missing or damaged, or another run is at work.
    """
    if not store.exists(SUMMARY):
        raise StorageError(
            f"{store.root} holds no finished campaign ({SUMMARY} is missing): name the folder that `atomsets screen` "
            "wrote, or run it first"
        )
    with store.lock():
        properties = store.read_json(SUMMARY).get("properties", {})
        written = [path for name in properties for path in write_again(Store(store.url(property_folder(name))))]
        unseal(store, REPORT)
        (write_joint_report if properties else write_report)(store)
        seal(store, REPORT)
        standing = read_standing(store)
        if standing is not None and REPORT in standing.outputs:
            remember(store, replace(standing, outputs={**standing.outputs, **recorded(store, [REPORT])}))
    return [*written, store.url(REPORT)]
