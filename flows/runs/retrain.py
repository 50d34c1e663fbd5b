"""The retraining flow: a challenger learns from today's labels, and takes over if it is better than the champion.

The screening flow predicts with whoever is champion then. docs/standing-campaigns.md has the rules.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from atomsets_core.campaigns import LABELLED, Entry, label_changes, short, training_rows
from atomsets_core.jobs import with_labels
from atomsets_core.report import models_table
from atomsets_core.storage import Store
from atomsets_flows.campaign import Campaign, needed, provided
from atomsets_flows.runs.progress import note, publish, slug
from atomsets_flows.runs.screen import IN_FLIGHT, CampaignRun, run_name
from atomsets_flows.runs.states import APPOINTED, KEPT, NOTHING_NEW, PROMOTED, ended
from atomsets_tasks import connect


@flow(name="retrain", flow_run_name=run_name, task_runner=ThreadPoolTaskRunner(max_workers=IN_FLIGHT))  # type: ignore[arg-type]
def retrain(campaign: Campaign, out: str | None = None) -> dict[str, Any]:
    """Train a challenger on today's labels; it replaces the champion if it is better in both comparisons.

    Args:
        campaign: see flows/campaign/sections.py; the same as of the screening flow.
        out: folder or URL of the campaign; by default campaigns/<name>.

    Returns:
        "outcome" (the name of the state it ends in), "why", "champion" (folder of who is champion now), "challenger"
        (folder, or None), "labels" (how they differ from those the champion of before learned from), "seconds".

    Raises:
        SourceError: a source or column that doesn't fit; the message says what to change.
        StorageError: the folder can't be written, or another run is at work in it.
    """
    store = Store(out or f"campaigns/{campaign.name}")
    with provided(needed(campaign, store.root)), store.lock():
        return _retrain(CampaignRun(campaign, store))


def _retrain(run: CampaignRun) -> dict[str, Any]:
    started = time.perf_counter()
    training = run.campaign.training
    with connect(run.campaign.cluster.start, note):
        labelled = with_labels(
            run.store, run.pull("training"), training.target, training.transform, training.repeats, run.campaign.wanted
        )
        for said in labelled.notes:
            note(said)
        _, learning, _ = run.learn_from(labelled.structures, labelled.values)
        champion, decided = run.champions.current, len(run.champions.registry.log)
        found: Mapping[str, Any] = {"challenger": None}
        if champion is None or not run.champions.is_sound(champion):
            run.wait("simulate discovery", run.champions.submit(learning))
            model = run.champions.settle(learning)
            outcome, why = APPOINTED, f"{short(model.folder)} is the first model of the campaign as it is defined now"
        elif champion.data == learning.data:
            outcome, why = NOTHING_NEW, f"{short(champion.folder)} learned from the very labels of today"
        else:
            run.wait("simulate discovery", learning.submit_discoveries())
            found = run.champions.challenge(learning)
            outcome, why = (PROMOTED if found["promote"] else KEPT), found["why"]
            if len(run.champions.registry.log) == decided:
                outcome, why = NOTHING_NEW, f"decided before: {why}"
    now = run.champions.current
    assert now is not None  # noqa: S101  # appointed above if there was none
    result = {
        "campaign": run.campaign.name,
        "outcome": outcome,
        "why": why,
        "champion": now.folder,
        "challenger": found["challenger"],
        "labels": _labels(run.store, champion),
        "seconds": round(time.perf_counter() - started, 1),
    }
    _show(run, result)
    return ended(outcome, why, result)


def _labels(store: Store, champion: Entry | None) -> dict[str, int] | None:
    """How today's labels differ from those the champion of before learned from."""
    if champion is None:
        return None
    return label_changes(store.read_table(LABELLED), training_rows(store, champion.folder))


def _show(run: CampaignRun, result: Mapping[str, Any]) -> None:
    get_run_logger().info("%s: %s", result["outcome"], result["why"])
    registry, name = run.champions.registry, run.campaign.name
    text = f"# {name}: {result['outcome']}\n\n{result['why']}\n\n{models_table(registry, run.champions.definition)}"
    publish(create_markdown_artifact, text, key=f"{slug(name)}-models", description=f"Models of {name}")
