"""The pull flow: fetch at night what is new in a campaign's databases, so that the screening finds it there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from atomsets_core.sources import MATERIALS_PROJECT, SourceError
from atomsets_core.storage import BusyError, Store
from atomsets_flows.campaign import Campaign, Candidates, Training, needed, provided
from atomsets_flows.runs.progress import Pulling
from atomsets_tasks import refresh


def _run_name() -> str:
    campaign = flow_run.parameters["campaign"]
    name = campaign["name"] if isinstance(campaign, Mapping) else campaign.name
    return f"pull for {name} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="pull", flow_run_name=_run_name)  # type: ignore[arg-type]
def pull(campaign: Campaign, out: str | None = None) -> dict[str, Any] | State:
    """Bring the stored pages of a campaign's databases up to date; nothing is featurised or ranked.

    Args:
        campaign: whose sources; those that are no database are read when the campaign runs.
        out: folder or URL of the campaign; by default campaigns/<name>.

    Returns:
        Counts of each database; or the state "Campaign at work", when a run holds the folder.

    Raises:
        SourceError: no source of the campaign is a database, or it can't be read.
        StorageError: the folder can't be written.
    """
    target = out or f"campaigns/{campaign.name}"
    sections: dict[str, Training | Candidates] = {"training": campaign.training, "candidates": campaign.candidates}
    databases = {name: section for name, section in sections.items() if section.source == MATERIALS_PROJECT}
    if not databases:
        raise SourceError(
            f"campaign {campaign.name} has no source {MATERIALS_PROJECT!r}: there is nothing to pull ahead"
        )
    store = Store(target)
    counts: dict[str, Any] = {}
    try:
        with provided(needed(campaign, target)), store.lock():
            for name, section in databases.items():
                query = section.materials_query()
                counts[name] = refresh(
                    name, store, query, Pulling(name, campaign.name), section.labels, section.id_column,
                    section.pull_options(),
                )  # fmt: skip
    except BusyError as error:
        get_run_logger().info("%s: it pulls for itself", error)
        return Completed(name="Campaign at work", message=str(error))
    return counts
