"""The flow of a campaign of several properties: the campaign of each, over the same candidates, then one ranking.

The candidates are pulled once. Each property's campaign lies in properties/NAME, whole like any other, so that what it
made is found again, is verified and can be trained anew by itself; the feature store is shared.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pyarrow as pa
from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from atomsets_core.campaigns import (
    ASKED,
    FAILURES,
    FEATURES,
    JOINT_OUTCOME,
    KNOWN,
    RANKING,
    SUMMARY,
    digest,
    property_folder,
    provenance_name,
    refusals_digest,
    structures_name,
    sweep,
    table_digest,
)
from atomsets_core.jobs import (
    COMPUTED,
    Combined,
    Part,
    Selection,
    agreed_kinds,
    agreed_units,
    candidate_column,
    columns_there,
    combine,
    write_structures,
)
from atomsets_core.report import joint_markdown, joint_sentences, shortlist_cells, write_joint_report
from atomsets_core.sources import (
    Catalogue,
    PulledFile,
    SourceError,
    SourceUnavailableError,
    class_labels,
    find_column,
    ledger_table,
    usable_labels,
)
from atomsets_core.storage import Store, digest_of, seal, sound, unseal, with_units
from atomsets_core.structures import Refusal
from atomsets_flows.campaign import JointCampaign, needed, provided
from atomsets_flows.runs.progress import Pulling, note, publish, said_of, slug
from atomsets_flows.runs.screen import IN_FLIGHT, CampaignRun, run_name
from atomsets_flows.runs.states import NOTHING_NEW, WITH_FAILURES, ended
from atomsets_flows.runs.status import recording
from atomsets_flows.runs.summary import PACKAGES, package_version
from atomsets_flows.server import report_url
from atomsets_tasks import connect, pull_source

VERSION = 1
"""Raised when the same results of all properties give another joint ranking."""

IN_TRAINING = "in the training data"
"""How the reason ends for which a candidate counts as known."""


@flow(name="screen together", flow_run_name=run_name, task_runner=ThreadPoolTaskRunner(max_workers=IN_FLIGHT))  # type: ignore[arg-type]
def screen_jointly(campaign: JointCampaign, out: str | None = None) -> dict[str, Any]:
    """Run a campaign of several properties, or what is missing of it.

    Args:
        campaign: what to do; see flows/campaign/joint.py.
        out: folder or URL of the campaign; by default campaigns/<name>.

    Returns:
        The content of summary.json; with nothing new that of the last run, as of one that did no work.

    Raises:
        SourceError: a source, column, filter or limit that doesn't fit; the message says what to change.
        StorageError: the folder can't be written, or another run is at work in it.
    """
    store = Store(out or f"campaigns/{campaign.name}")
    names = {
        name
        for one in campaign.properties
        for name in needed(campaign.campaign_of(one.name, store.url(FEATURES)), store.root)
    }
    with provided(sorted(names)), store.lock(), recording(store):
        return JointRun(campaign, store).screen()


@dataclass
class PropertyRun(CampaignRun):
    """The run of one property's campaign, within that of all.

    Attributes:
        name: of the property.
        shared: store of the whole campaign, where the candidates are.
        offered: the candidates.
        labelled: what the source of the labels gave, once it was asked.
    """

    spares_known: ClassVar[bool] = True

    name: str = ""
    shared: Store | None = None
    offered: PulledFile | None = None
    labelled: PulledFile | None = None

    def cluster(self) -> Any:
        """That of the whole campaign."""
        return nullcontext()

    def pull(self, dataset: str) -> PulledFile:
        """Training data from their source; the candidates are there."""
        if dataset == "training":
            self.labelled = self.labelled or super().pull(dataset)
            return self.labelled
        if self.shared is None or self.offered is None:
            return super().pull(dataset)
        for name in (structures_name(dataset), provenance_name(dataset)):
            copy(self.shared, self.store, name)
        self.done[f"pulled_{dataset}"] = self.offered.n_seen
        return self.offered

    def check(self) -> None:
        """Raise `SourceError` for labels that can't be learned from, before anything is learned for any property."""
        asked, wanted = self.campaign.training, self.campaign.wanted
        self.begin()
        labelled = self.pull("training")
        known = Catalogue.open(self.store, labelled.name)
        if self.shared is not None and self.offered is not None:
            agreed_kinds(known.lines, Catalogue.open(self.shared, self.offered.name).lines)
        names = [name for name in known.schema.names if name not in known.own]
        column = asked.target if wanted is not None else find_column(names, asked.target)
        pulled = known.pulled([column or asked.target], str(labelled.provenance.get("name", "the source")))
        if wanted is not None:
            class_labels(pulled, asked.target, wanted)
            return
        agreed_units(labelled.provenance, {}, asked.target, asked.unit)
        usable_labels(pulled, asked.target, asked.transform)

    def select(self, labelled: PulledFile, offered: PulledFile) -> Selection:
        """What is learned from and what is ranked; what is known already is written down."""
        chosen = super().select(labelled, offered)
        seen = chosen.seen
        table = pa.table(
            {
                "material_id": pa.array(seen["material_id"], pa.string()),
                "structure_hash": pa.array(seen["structure_hash"], pa.string()),
                "value": pa.array(seen["value"], pa.float64()),
                "reason": pa.array(seen["reason"], pa.string()),
            }
        )
        self.store.write_table(KNOWN, with_units(table, {"value": self.campaign.unit}))
        seal(self.store, KNOWN)
        return chosen

    def wait(self, stage: str, futures: list[PrefectFuture], tolerate: bool = False) -> dict[PrefectFuture, Exception]:
        """Wait for tasks; stages bear the name of the property."""
        return super().wait(f"{self.name}: {stage}", futures, tolerate)


@dataclass
class JointRun:
    """One run of a campaign of several properties.

    Attributes:
        campaign: what to do.
        store: of the campaign.
        seconds: of each stage.
        failures: work that failed, as opposed to entries that can't be used, a sentence each.
        done: property -> counts of what was pulled and of what was made.
    """

    campaign: JointCampaign
    store: Store
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    done: dict[str, dict[str, int]] = field(default_factory=dict)

    def screen(self) -> dict[str, Any]:
        """All stages, as far as they are needed; what the flow returns."""
        started = time.perf_counter()
        sweep(self.store)
        self.store.write_json(ASKED, self.campaign.model_dump(mode="json"))
        seal(self.store, ASKED)
        with connect(self.campaign.cluster.start, note):
            with self.timed("pull"):
                offered = self.pull()
                self.check(offered)
            runs = [self.run_of(one.name, offered) for one in self.campaign.properties]
            for run in runs:
                with said_of(run.name), named(run.name), run.store.lock():
                    run.check()
            parts = [self.learn(run) for run in runs]
        key = self.key(offered, parts)
        if self.is_done(key):
            message = "nothing is new since the last run: no work was done"
            get_run_logger().info(message)
            return ended(NOTHING_NEW, message, self.as_it_is())
        unseal(self.store, *JOINT_OUTCOME)
        candidates = Catalogue.open(self.store, offered.name)
        choice = self.campaign.choice
        before = self.last_shortlist()
        with self.timed("rank together"):
            found = combine(
                self.store, candidates, parts, [one.as_goal() for one in self.campaign.objectives],
                how=choice.combine, shortlist=choice.shortlist, outside=choice.outside,
                leave_known=self.campaign.candidates.exclude_seen, units=self.units(offered),
            )  # fmt: skip
        refused = self.ledger(offered, parts, found)
        summary = self.summarize(offered, parts, found, refused, key, started)
        summary["changes"] = shortlist_changes(before, found)
        self.store.write_json(SUMMARY, summary)
        write_structures(self.store, candidates, found.shortlist)
        with self.timed("report"):
            write_joint_report(self.store)
        seal(self.store, *JOINT_OUTCOME)
        self.show(summary, found)
        if self.failures:
            return ended(WITH_FAILURES, "; ".join(self.failures), summary)
        return summary

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Keep the seconds that the block takes."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)

    def pull(self) -> PulledFile:
        """Bring the candidates up to what their source holds now."""
        section = self.campaign.candidates
        pulled = pull_source(
            "candidates", section.source, section.labels, section.id_column, self.store, self.query(),
            Pulling("candidates", self.campaign.name), section.pull_options(), section.deduplicate, section.prefer,
            section.take,
        )  # fmt: skip
        for said in pulled.provenance.get("notes", []):
            note(f"candidates: {said}")
        seal(self.store, structures_name("candidates"), provenance_name("candidates"))
        return pulled

    def query(self) -> Any:
        """What is asked of the Materials Project: the columns of objectives among the fields."""
        section, learned = self.campaign.candidates, {one.name for one in self.campaign.properties}
        query = section.materials_query()
        columns = [one.property for one in self.campaign.objectives if one.property not in {*learned, *COMPUTED}]
        return query if query is None or not columns else query.with_fields(columns)

    def check(self, offered: PulledFile) -> None:
        """Raise `SourceError` for an objective that names neither a property nor a column."""
        learned = {one.name for one in self.campaign.properties}
        catalogue = Catalogue.open(self.store, offered.name)
        for one in self.campaign.objectives:
            if one.property in learned:
                continue
            try:
                candidate_column(catalogue, one.property)
            except SourceError as error:
                raise SourceError(
                    f"objectives: {error}; properties are {', '.join(sorted(learned))}, columns are "
                    f"{', '.join(columns_there(catalogue))}"
                ) from None

    def units(self, offered: PulledFile) -> dict[str, str]:
        """Column of the candidates that is wanted -> its unit, where the source says one."""
        found, units = {}, offered.provenance.get("units", {})
        for one in self.campaign.objectives:
            with suppress(KeyError):
                found[one.property] = str(units[find_column(units, one.property)] or "")
        return found

    def run_of(self, name: str, offered: PulledFile) -> PropertyRun:
        """The run of one property's campaign."""
        asked = self.campaign.campaign_of(name, self.store.url(FEATURES))
        store = Store(self.store.url(property_folder(name)))
        with named(name):
            return PropertyRun(asked, store, name=name, shared=self.store, offered=offered)

    def learn(self, run: PropertyRun) -> Part:
        """Run the campaign of one property, or what is missing of it."""
        asked, name = run.campaign, run.name
        get_run_logger().info("property %s: %s of %s", name, asked.training.target, asked.training.source)
        with self.timed(name), run.store.lock(), said_of(name), named(name):
            run.screen()
        self.done[name] = dict(run.done)
        self.failures += [f"{name}: {failure}" for failure in run.failures]
        return Part(name, run.store, asked.unit, asked.training.transform)

    def key(self, offered: PulledFile, parts: list[Part]) -> str:
        """Digest of everything that the joint ranking depends on."""
        asked = self.campaign.model_dump(mode="json", include={"objectives", "choice"})
        made = [[part.name, *(digest_of(part.store, name) for name in (RANKING, KNOWN, FAILURES))] for part in parts]
        return digest(
            VERSION, asked, self.campaign.candidates.exclude_seen, made, table_digest(self.store, offered.name),
            refusals_digest(offered.refused),
        )  # fmt: skip

    def is_done(self, key: str) -> bool:
        """Whether the results are those of this key, and whole."""
        return (
            all(sound(self.store, name) for name in JOINT_OUTCOME) and self.store.read_json(SUMMARY).get("key") == key
        )

    def as_it_is(self) -> dict[str, Any]:
        """The summary of the last run, as of one that did no work."""
        summary: dict[str, Any] = self.store.read_json(SUMMARY)
        total = round(sum(self.seconds.values()), 3)
        return {**summary, "done": self.done, "seconds": {**self.seconds, "total": total}}

    def last_shortlist(self) -> dict[str, str] | None:
        """Identifier -> formula of the shortlist of the last run; None before the first."""
        if not (self.store.exists(SUMMARY) and self.store.exists(RANKING)):
            return None
        table = self.store.read_table(RANKING, ["material_id", "formula", "shortlist"])
        chosen = table.filter(table["shortlist"])
        return dict(zip(chosen["material_id"].to_pylist(), chosen["formula"].to_pylist(), strict=True))

    def ledger(self, offered: PulledFile, parts: list[Part], found: Combined) -> list[tuple[str, Refusal]]:
        """Everything that could not be used: training rows under the name of their property, candidates once."""
        refused = [("candidates", refusal) for refusal in offered.refused]
        named: dict[str, Refusal] = {}
        known = {(refusal.material_id, refusal.stage, refusal.reason) for refusal in offered.refused}
        for part in parts:
            for row in part.store.read_table(FAILURES).to_pylist():
                refusal = Refusal(row["material_id"], row["stage"], row["reason"], row.get("structure_hash") or "")
                if row["dataset"] == "training":
                    refused.append((f"training of {part.name}", refusal))
                elif (refusal.material_id, refusal.stage, refusal.reason) not in known:
                    named.setdefault(refusal.material_id, refusal)
        for name, reason in found.failed.items():
            named.setdefault(name, Refusal(name, "rank", reason))
        refused += [("candidates", refusal) for refusal in named.values()]
        self.store.write_table(FAILURES, ledger_table(refused))
        return refused

    def summarize(
        self,
        offered: PulledFile,
        parts: list[Part],
        found: Combined,
        refused: list[tuple[str, Refusal]],
        key: str,
        started: float,
    ) -> dict[str, Any]:
        """The summary of a finished run, as JSON values.

        Raises:
            RuntimeError: pulled candidates are not the sum of ranked, filtered and failed ones.
        """
        summaries = {part.name: part.store.read_json(SUMMARY) for part in parts}
        first = summaries[parts[0].name]["counts"]["candidates"]["filtered_by_reason"]
        # The filters are the same for all; who is known to one property is ranked or known here.
        filtered = {reason: n for reason, n in first.items() if not reason.endswith(IN_TRAINING)}
        filtered |= found.filtered
        failed = sum(dataset == "candidates" for dataset, _ in refused)
        counts = {
            "pulled": offered.n_seen,
            "ranked": found.n_ranked,
            "filtered": sum(filtered.values()),
            "failed": failed,
            "filtered_by_reason": filtered,
            "in_domain": found.n_in_domain,
            "some_known": found.n_known,
            "on_front": found.n_front,
            "shortlist": len(found.shortlist),
        }
        if counts["pulled"] != counts["ranked"] + counts["filtered"] + counts["failed"]:
            raise RuntimeError(f"the counts of the candidates don't add up: {counts}")
        return {
            "campaign": self.campaign.name,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "key": key,
            "settings": self.campaign.model_dump(mode="json"),
            "combine": found.combine,
            "counts": {"candidates": counts},
            "properties": {name: _excerpt(summary) for name, summary in summaries.items()},
            "together": {"strategies": found.searches, **found.tried},
            "why_first": found.why_first,
            "units": found.units,
            "done": self.done,
            "seconds": {**self.seconds, "total": round(time.perf_counter() - started, 3)},
            "versions": {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}},
            "machine": {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))},
        }

    def show(self, summary: Mapping[str, Any], found: Combined) -> None:
        """Publish the shortlist, the summary and the report as artifacts."""
        name, title = slug(self.campaign.name), self.campaign.name
        rows = shortlist_cells(summary, found.shortlist)
        publish(create_table_artifact, rows, key=f"{name}-shortlist", description=f"Shortlist of {title}")
        url = report_url(self.store)
        text = joint_markdown(summary, [f"[The whole report]({url})"])
        publish(create_markdown_artifact, text, key=f"{name}-summary", description=f"Summary of {title}")
        publish(create_link_artifact, url, "report", key=f"{name}-report", description=f"Report of {title}")
        for line in joint_sentences(summary):
            get_run_logger().info(line)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Begin what is wrong with a property's campaign with the name of the property."""
    try:
        yield
    except SourceUnavailableError:
        raise
    except SourceError as error:
        raise SourceError(f"{name}: {error}") from error
    except ValueError as error:  # of the training
        raise ValueError(f"{name}: {error}") from error


def copy(source: Store, target: Store, name: str) -> None:
    """Copy a sealed file from one store to another, unless it is there already."""
    if sound(target, name) and digest_of(target, name) == digest_of(source, name):
        return
    with source.open(name) as old, target.replacing(name) as new:
        shutil.copyfileobj(old, new)
    seal(target, name)


def shortlist_changes(before: Mapping[str, str] | None, found: Combined) -> dict[str, Any] | None:
    """Who came to the shortlist and who left it since the last run; None for the first run."""
    if before is None:
        return None
    now = dict(zip(found.shortlist["material_id"], found.shortlist["formula"], strict=True))
    return {
        "entered": [f"{name} {formula}" for name, formula in now.items() if name not in before],
        "left": [f"{name} {formula}" for name, formula in before.items() if name not in now],
    }


def _excerpt(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the joint summary says of one property; its own summary.json has the rest."""
    kept = ("target", "title", "symbol", "unit", "transform", "model", "choice", "intervals")
    return {**{name: summary[name] for name in kept if name in summary}, "training": summary["counts"]["training"]}
