"""A screening run as one of many: is anything new, what changed since the last one, and what the next one must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from atomsets_core.campaigns import (
    CONFRONTED,
    LABELLED,
    OUTPUTS,
    SUMMARY,
    VERSION,
    Compared,
    Run,
    Standing,
    compare_runs,
    digest,
    keep_ranking,
    model_files,
    read_changes,
    read_standing,
    recorded,
    refusals_digest,
    remember,
    table_digest,
    write_changes,
)
from atomsets_core.features import SCHEMA_VERSION, AnyStore, ShardEntry
from atomsets_core.models import FORMAT_VERSION, RECIPE_VERSION
from atomsets_core.report import change_sentences, markdown
from atomsets_core.sources import PulledFile
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal
from atomsets_flows.campaign import Campaign
from atomsets_flows.runs.progress import publish, slug
from atomsets_flows.server import report_url
from atomsets_tasks import entered_top_ten

WORK = ("shards_made", "models_trained", "discoveries_simulated", "shards_predicted")
"""What a run counts of its work."""


@dataclass
class Memory:
    """What this run knows of the last one.

    Attributes:
        campaign: what to do.
        store: of the campaign.
        features: of its structures.
    """

    campaign: Campaign
    store: Store
    features: AnyStore

    def __post_init__(self) -> None:
        self.last: Standing | None = read_standing(self.store)
        history = read_changes(self.store).get("history", [])
        before = self.last.run if self.last else (history[-1]["run"] if history else 0)
        self.number = before + 1

    def parts(self, training: PulledFile, candidates: PulledFile, model: str) -> dict[str, str]:
        """Name -> digest of everything that the results of a run depend on.

        Args:
            training: as it was pulled.
            candidates: as they were pulled.
            model: folder of the champion, "" where there is none.
        """
        asked = self.campaign.model_dump(mode="json", exclude={"cluster"})
        return {
            "the campaign": digest(asked),
            "the program": digest(FORMAT_VERSION, RECIPE_VERSION, SCHEMA_VERSION, VERSION, _version()),
            "the parent network": self.features.digest,
            "the training data": _pulled_digest(self.store, training),
            "the candidates": _pulled_digest(self.store, candidates),
            "the model": model,
        }

    def news(self, parts: Mapping[str, str]) -> list[str]:
        """Why this run has work to do, one reason each; nothing where it would change nothing."""
        return ["the first run"] if self.last is None else self.last.news(self.store, self.features.store, parts)

    def summary_as_it_is(self, pulled: Mapping[str, int], seconds: Mapping[str, float]) -> dict[str, Any]:
        """The summary of the last run, as of one that did no work."""
        summary: dict[str, Any] = self.store.read_json(SUMMARY)
        done = {**summary["done"], **dict.fromkeys(WORK, 0), **pulled}
        return {**summary, "done": done, "seconds": {**seconds, "total": round(sum(seconds.values()), 3)}}

    def compare(
        self,
        summary: Mapping[str, Any],
        refused: Sequence[tuple[str, Refusal]],
        why: Sequence[str],
        duel: Mapping[str, Any],
    ) -> Compared:
        """Compare with the last run; keep the record of what changed.

        Args:
            summary: of this run.
            refused: data set and refusal of everything that could not be used.
            why: reasons for which this run had work to do.
            duel: what became of a challenger in this run, see `Champions.challenge`; empty without one.
        """
        failed = {refusal.material_id: refusal.reason for dataset, refusal in refused if dataset == "candidates"}
        labelled = self.store.read_table(LABELLED, columns=["material_id", "structure_hash", "formula", "value"])
        run = Run(self.number, summary["finished"], summary["model"]["folder"], summary, failed, why, duel)
        found = compare_runs(self.store, self.last, run, labelled)
        self.store.write_table(CONFRONTED, found.confronted)
        write_changes(self.store, found.record, found.line)
        return found

    def remember(
        self, summary: Mapping[str, Any], parts: Mapping[str, str], entries: Sequence[ShardEntry], whole: bool
    ) -> None:
        """Write down what the next run must know; the last thing a run writes."""
        model = summary["model"]["folder"]
        ranking = keep_ranking(self.store, self.number)
        discoveries = summary["discovery"]["files"] if summary["discovery"] else []
        names = [*OUTPUTS, LABELLED, CONFRONTED, ranking, *model_files(model), *discoveries]
        sizes = {entry.file: entry.size for entry in entries}
        outputs = recorded(self.store, names)
        number, finished = self.number, summary["finished"]
        remember(self.store, Standing(number, finished, dict(parts), outputs, sizes, ranking, model, whole))

    def show(self, found: Compared) -> None:
        """Publish what changed as an artifact, tell of a new one among the first ten, log the headline."""
        history = read_changes(self.store)["history"]
        publish(
            create_markdown_artifact,
            markdown(found.record, history),
            key=f"{slug(self.campaign.name)}-changes",
            description=f"What changed in run {self.number} of {self.campaign.name}",
        )
        training, report = self.campaign.training, report_url(self.store)
        entered_top_ten(self.campaign.name, found.top, target=training.target, unit=self.campaign.unit, report=report)
        for text in change_sentences(found.record):
            get_run_logger().info(text)


def _pulled_digest(store: Store, pulled: PulledFile) -> str:
    return digest(table_digest(store, pulled.name), refusals_digest(pulled.refused))


def _version() -> str:
    try:
        return version("atomsets-screening")
    except PackageNotFoundError:
        return ""
