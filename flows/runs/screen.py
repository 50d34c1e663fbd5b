"""The screening flow: pull, select, featurise, train, simulate discovery, predict, rank, report, compare.

What is already in the campaign's folder is not done again: the manifest of the feature store says which structures have
features, and models, simulated discoveries and predictions lie under keys made from everything they depend on. A run
that finds nothing new after the pull ends there, in the state "Nothing new".
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from atomsets_core.campaigns import (
    ASKED,
    FAILURES,
    FEATURES,
    LABELLED,
    OUTCOME,
    SUMMARY,
    predictions_name,
    provenance_name,
    queue_name,
    structures_name,
    sweep,
)
from atomsets_core.features import (
    AnyStore,
    FeatureStore,
    Piece,
    ShardEntry,
    Together,
    damaged_shards,
    discard,
    open_features,
    together,
    write_queue,
)
from atomsets_core.jobs import Ranking, Selection, Wish, write_evidence
from atomsets_core.report import artifact_rows, read_crystals, write_report
from atomsets_core.sources import Catalogue, PulledFile, check_both, class_name, ledger_table
from atomsets_core.storage import (
    HashIndex,
    StorageError,
    Store,
    fault,
    prediction_units,
    release,
    seal,
    sealed,
    sound,
    unseal,
    with_units,
)
from atomsets_core.structures import Refusal
from atomsets_core.transforms import find_transform
from atomsets_flows.campaign import Campaign, needed, provided
from atomsets_flows.runs import figures
from atomsets_flows.runs.champions import Champions, InUse, definition
from atomsets_flows.runs.features import cheap_features, choose, close_look, narrow_candidates
from atomsets_flows.runs.learning import Learning, labels_digest
from atomsets_flows.runs.memory import WORK, Memory
from atomsets_flows.runs.progress import Pulling, Stage, note, publish, slug
from atomsets_flows.runs.states import NOTHING_NEW, WITH_FAILURES, ended
from atomsets_flows.runs.status import recording
from atomsets_flows.runs.summary import markdown, summarize_run
from atomsets_flows.server import report_url
from atomsets_tasks import (
    SchedulerLostError,
    ShardJob,
    connect,
    featurize_shard,
    predict_shard,
    pull_source,
    rank,
    select,
)

IN_FLIGHT = 32
"""Tasks that wait for the cluster at the same time."""


def run_name() -> str:
    """Name of a run: the campaign and the time."""
    campaign = flow_run.parameters["campaign"]
    name = campaign["name"] if isinstance(campaign, Mapping) else campaign.name
    return f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="screen", flow_run_name=run_name, task_runner=ThreadPoolTaskRunner(max_workers=IN_FLIGHT))  # type: ignore[arg-type]
def screen(campaign: Campaign, out: str | None = None) -> dict[str, Any]:
    """Run a screening campaign, or what is missing of it.

    Args:
        campaign: what to do; see flows/campaign/sections.py.
        out: folder or URL of the campaign; by default campaigns/<name>.

    Returns:
        The content of summary.json; with nothing new that of the last run, as of one that did no work.

    Raises:
        SourceError: a source, column or filter that doesn't fit; the message says what to change.
        StorageError: the folder can't be written, or another run is at work in it.
    """
    store = Store(out or f"campaigns/{campaign.name}")
    with provided(needed(campaign, store.root)), store.lock(), recording(store):
        return CampaignRun(campaign, store).screen()


@dataclass
class CampaignRun:
    """One run of a campaign: what its stages share.

    Attributes:
        campaign: what to do.
        store: of the campaign.
        features: of its structures, where they are open all that may be chosen until they are.
        champions: its models.
        seconds: of each stage.
        done: counts of what was pulled and of what was made.
        refused: data set and refusal of everything that could not be used.
        failures: work that failed, as opposed to entries that can't be used, a sentence each.
        whole: nothing failed that another try might mend.
    """

    spares_known: ClassVar[bool] = False
    """Whether candidates that are in the training data are ranked where nothing else is left."""

    campaign: Campaign
    store: Store
    seconds: dict[str, float] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WORK, 0))
    refused: list[tuple[str, Refusal]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    whole: bool = True

    def __post_init__(self) -> None:
        self.campaign = self.campaign.settled()
        options = self.campaign.features
        self.shards = Store(options.store or self.store.url(FEATURES))
        # Where features are to be chosen, all that may be: what the run depends on.
        self.specs = options.specs(options.is_open and self.campaign.of_formulas)
        self.features = open_features(self.shards, *self.specs)
        self.cheap = cheap_features(self)
        self.champions = Champions(self.campaign, self.store, definition(self.campaign, self.features.digest))

    def screen(self) -> dict[str, Any]:
        """All stages, as far as they are needed; what the flow returns."""
        started = time.perf_counter()
        self.begin()
        memory = Memory(self.campaign, self.store, self.features)
        with self.cluster():
            with self.timed("pull"):
                pulled = self.pull("training"), self.pull("candidates")
            with self.timed("look for news"):
                champion = self.champions.current
                parts = memory.parts(*pulled, champion.folder if champion else "")
                if self.cheap is not None:
                    parts["the cheap features"] = self.cheap.digest
                why = memory.news(parts) or self.damage()
            if not why:
                return self.nothing_new(memory)
            unseal(self.store, *OUTCOME)
            with self.timed("select"):
                chosen = self.select(*pulled)
            with self.timed("featurize training"):
                values, learning, learned = self.learn_from(chosen.training, chosen.values, chosen.candidates)
            futures = self.champions.submit(learning)
            model, cut = None, None
            if self.campaign.funnel is not None:
                model = self.settle(futures, learning)
                best = values.min() if self.campaign.objective.goal == "minimize" else values.max()
                with self.timed("funnel"):
                    chosen, cut = narrow_candidates(self, chosen, learning, model, float(best))
            with self.timed("featurize candidates"):
                offered = self.featurize("candidates", chosen.candidates)
            model = model or self.settle(futures, learning)
            with self.timed("predict"):
                predictions = self.predict(model.folder, offered.pieces)
        with self.timed("rank"):
            ranking = self.rank(chosen, predictions, values, model)
        with self.timed("explain"):
            self.explain(chosen, ranking, model.folder)
        self.store.write_table(FAILURES, ledger_table(self.refused))
        summary = summarize_run(
            self.campaign, self.store, model.folder, model.discoveries, chosen, ranking, self.refused,
            features=self.features, done=self.done, seconds=self.seconds, started=started, choice=model.choice,
            labelled=len(values), funnel=None if cut is None else close_look(self.store, cut),
        )  # fmt: skip
        self.store.write_json(SUMMARY, summary)
        with self.timed("compare"):
            changes = memory.compare(summary, self.refused, why, self.champions.outcome)
        with self.timed("report"):
            write_report(self.store)
        seal(self.store, *OUTCOME)
        parts["the model"] = model.folder
        memory.remember(summary, parts, [*learned, *offered.entries], self.whole)
        self.show(summary, ranking)
        memory.show(changes)
        if self.failures:
            return ended(WITH_FAILURES, "; ".join(self.failures), summary)
        return summary

    def settle(self, futures: list[PrefectFuture], learning: Learning) -> InUse:
        """Wait for the simulated discoveries; the model to predict with."""
        with self.timed("simulate discovery"):
            self.wait("simulate discovery", futures)
        with self.timed("train"):
            return self.champions.settle(learning)

    def cluster(self) -> AbstractContextManager[None]:
        """The workers of the run."""
        return connect(self.campaign.cluster.start, note)

    def begin(self) -> None:
        """Clear what stopped runs left half written; keep beside the results what to run again."""
        sweep(self.store)
        self.store.write_json(ASKED, self.campaign.model_dump(mode="json"))
        seal(self.store, ASKED)

    def damage(self) -> list[str]:
        """Results that are not what was written, a sentence each; shards are looked at when they are used."""
        names = {*sealed(self.store), *OUTCOME}
        return [f"{name} {wrong}" for name in sorted(names) if (wrong := fault(self.store, name))]

    def nothing_new(self, memory: Memory) -> dict[str, Any]:
        """End here: everything is as the last run left it."""
        last = memory.last.finished if memory.last else ""
        message = f"nothing is new since the run of {last.replace('T', ' ')}: no work was done"
        get_run_logger().info(message)
        pulled = {name: count for name, count in self.done.items() if name.startswith("pulled")}
        return ended(NOTHING_NEW, message, memory.summary_as_it_is(pulled, self.seconds))

    @contextmanager
    def timed(self, stage: str):  # type: ignore[no-untyped-def]
        """Add the seconds that the block takes to the stage's."""
        start = time.perf_counter()
        yield
        release()
        self.seconds[stage] = round(time.perf_counter() - start, 3)

    def pull(self, dataset: str) -> PulledFile:
        """Bring "training" or "candidates" up to what its source holds now."""
        training, candidates = self.campaign.training, self.campaign.candidates
        section = training if dataset == "training" else candidates
        ranked = dataset == "candidates"
        pulled = pull_source(
            dataset, section.source, section.labels, section.id_column, self.store, section.materials_query(),
            Pulling(dataset, self.campaign.name), section.pull_options(),
            candidates.deduplicate if ranked else ["id"], candidates.prefer if ranked else None, section.take,
        )  # fmt: skip
        for said in pulled.provenance.get("notes", []):
            note(f"{dataset}: {said}")
        seal(self.store, structures_name(dataset), provenance_name(dataset))
        self.done[f"pulled_{dataset}"] = pulled.n_seen
        return pulled

    def select(self, labelled: PulledFile, offered: PulledFile) -> Selection:
        """Choose what is learned from and what is ranked."""
        training, candidates = self.campaign.training, self.campaign.candidates
        chosen = select(
            self.store,
            labelled,
            offered,
            training.target,
            training.transform,
            {name: (bounds.min, bounds.max) for name, bounds in candidates.filters.items()},
            candidates.exclude_elements,
            candidates.only_elements,
            candidates.exclude_seen,
            training.repeats,
            training.unit,
            self.campaign.wanted,
            self.spares_known,
        )
        for said in chosen.notes:
            note(said)
        self.refused.extend(chosen.refused)
        chosen.candidates.forget()
        return chosen

    def learn_from(
        self, labelled: Catalogue, values: np.ndarray, candidates: Catalogue | None = None
    ) -> tuple[np.ndarray, Learning, Sequence[ShardEntry]]:
        """Features of the labelled structures, chosen where the campaign leaves them open.

        Args:
            labelled: n structures or compositions.
            values: (n,) their labels.
            candidates: what will be ranked, as far as that is known.

        Returns:
            (n,) values of those that have features, what is to be learned from them, and the shards that hold them.
        """
        choosing = choose(self, labelled, values, candidates) if self.campaign.features.is_open else None
        dear = self.features
        if self.campaign.funnel is not None:  # both are learned on the same rows
            self.features = open_features(self.shards, self.campaign.features.spec, self.campaign.funnel.features)
        training, values, entries = self.featurize_training(labelled, values)
        self.features = dear
        data = labels_digest(list(training.hashes), values.tolist())
        learning = Learning(self.campaign, self.store, self.features, data, self.wait, self.done, choosing)
        return values, learning, entries

    def featurize_training(
        self, labelled: Catalogue, values: np.ndarray
    ) -> tuple[Any, np.ndarray, Sequence[ShardEntry]]:
        """Features of the labelled structures; those a parent can't take leave the training data.

        Returns:
            Lines of those that stay, (n,) their values, and the shards that hold them.
        """
        located = self.featurize("training", labelled)
        kept = located.found
        training, values = labelled.lines.take(np.flatnonzero(kept)), values[kept]
        if self.campaign.wanted is not None:  # those that the parent refused may have been all of a class
            chosen = class_name(self.campaign.wanted)
            check_both(training.material_id, training.formulas, values, self.campaign.training.target, chosen)
        # By content, not by the place in the source: the same rows in another order are the same folds, seeds and sums.
        order = np.lexsort((training.material_id.astype(str), values, training.hashes.astype(str)))
        training, values = training.take(order), values[order]
        table = pa.table(
            {
                "material_id": pa.array(training.material_id),
                "structure_hash": pa.array(training.hashes),
                "formula": pa.array(training.formulas),
                "value": values,
            }
        )
        unit, scale = self.campaign.unit, find_transform(self.campaign.training.transform)
        units = prediction_units(unit, scale=scale.applied_to(unit))
        self.store.write_table(LABELLED, with_units(table, units))
        seal(self.store, LABELLED)
        return training, values, located.entries

    def featurize(self, dataset: str, structures: Catalogue, features: AnyStore | None = None) -> Together:
        """Make the shards that are missing.

        Args:
            dataset: "training" or "candidates".
            structures: of it.
            features: that they are to have; those of the campaign without.

        Returns:
            Where the features of each structure are; those that have none are in the ledger.
        """
        hashes, why = structures.digests(), dict[str, str]()
        lost, parts = np.zeros(len(structures), dtype=bool), []
        of_parents = (features or self.features).parts
        for part in of_parents:
            located = part.locate(hashes)
            missing = located.missing.copy()
            for entry, reason in damaged_shards(part.store, located.entries):
                note(f"{reason}: it is made again")
                discard(part.store, entry)
                missing |= located.shard == located.entries.index(entry)
            missing &= ~lost  # what one parent can't take needs nothing of the next
            if missing.any():
                first = np.intersect1d(HashIndex(hashes).first, np.flatnonzero(missing))
                by = f" by {part.parent}" if len(of_parents) > 1 or features is not None else ""
                why |= self._make_shards(dataset, structures.take(first), part, f"featurize {dataset}{by}")
                located = part.locate(hashes)
            lost |= ~located.found
            parts.append(located)
        found = together(parts)
        if lost.any():
            without = structures.take(lost)
            for name, h in zip(without.material_id, without.hashes, strict=True):
                reason = found.located.refused.get(h) or why.get(h) or "its shard could not be made"
                self.refused.append((dataset, Refusal(str(name), "featurize", reason, str(h))))
        structures.forget()
        return found

    def _make_shards(self, dataset: str, structures: Catalogue, features: FeatureStore, stage: str) -> dict[str, str]:
        size, queue = self.campaign.features.shard_size, queue_name(dataset)
        groups = write_queue(self.store, queue, structures.groups(size))
        limit = self.campaign.cluster.shard_timeout
        futures = {}
        for number, hashes in enumerate(groups, start=1):
            job = ShardJob(self.store, queue, number - 1, features, features.shard_key(hashes), limit)
            futures[featurize_shard.submit(number, len(groups), job)] = hashes
        failed = self.wait(stage, list(futures), tolerate=True)
        poison = sum(sum(future.result()["poison"].values()) for future in futures if future not in failed)
        if poison:
            self.failures.append(f"{poison} structures of the {dataset} broke their workers and were left out")
        self.done["shards_made"] += len(futures) - len(failed)
        if failed:
            self.whole = False
            self.failures.append(f"{len(failed)} of {len(groups)} shards of the {dataset} could not be made")
        self.store.remove(queue)
        return {str(h): f"its shard failed: {error}" for future, error in failed.items() for h in futures[future]}

    def predict(self, model: str, pieces: Sequence[Piece], features: AnyStore | None = None) -> list[str]:
        """Apply the model to every shard that holds a candidate and has no predictions yet; names of all of them."""
        names = [predictions_name(model, piece.key) for piece in pieces]
        todo = [(piece, name) for piece, name in zip(pieces, names, strict=True) if not sound(self.store, name)]
        futures = [
            predict_shard.submit(number, len(todo), self.store, features or self.features, piece, model, name)
            for number, (piece, name) in enumerate(todo, start=1)
        ]
        self.wait("predict" if features is None else "predict cheaply", futures)
        self.done["shards_predicted"] += len(todo)
        return names

    def rank(self, chosen: Selection, predictions: Sequence[str], values: np.ndarray, model: InUse) -> Ranking:
        """Rank all candidates with a prediction."""
        objective, reach = self.campaign.objective, model.choice.get("beyond")
        of_class = self.campaign.wanted is not None
        # Of a class 1 is the best there is, and what is less probable than the class is frequent isn't wanted.
        best, middle = (1.0, values.mean()) if of_class else (values.max(), np.median(values))
        wish = Wish(
            goal="maximize" if of_class else objective.goal,
            value=objective.number,
            window=objective.window,
            acquisition=model.choice["acquisition"],
            kappa=objective.kappa,
            best=float(values.min() if objective.goal == "minimize" else best),
            shortlist=objective.shortlist,
            diversity=objective.diversity,
            median=float(middle),
            reach=float("nan") if reach is None else float(reach),
            outside=objective.outside,
        )
        training = self.campaign.training
        return rank(
            self.store, predictions, chosen.candidates, wish, training.transform, self.campaign.unit, self.features,
            model.folder,
        )  # fmt: skip

    def explain(self, chosen: Selection, ranking: Ranking, model: str) -> None:
        """Write down what stands behind the shortlist."""
        rows = np.sort(ranking.rows)
        structures = chosen.candidates.take(rows).structures()
        order = np.searchsorted(rows, ranking.rows)
        write_evidence(self.store, self.features, model, structures.take(order))

    def wait(self, stage: str, futures: list[PrefectFuture], tolerate: bool = False) -> dict[PrefectFuture, Exception]:
        """Wait for tasks, showing progress.

        Args:
            stage: shown.
            futures: of the tasks.
            tolerate: give failures back instead of raising the first; a store that can't be written or a scheduler that
                is gone raises always.
        """
        bar, failed = Stage(stage, self.campaign.name, len(futures)), {}
        for future in as_completed(futures):
            result = future.result(raise_on_failure=False)
            if isinstance(result, Exception):
                if not tolerate or isinstance(result, StorageError | SchedulerLostError):
                    raise result
                failed[future] = result
            bar.advance()
        return failed

    def show(self, summary: Mapping[str, Any], ranking: Ranking) -> None:
        """Publish the shortlist, the summary and the report as artifacts."""
        name = slug(self.campaign.name)
        rows = artifact_rows(summary, ranking.shortlist, read_crystals(self.store))
        publish(create_table_artifact, rows, key=f"{name}-shortlist", description=f"Shortlist of {self.campaign.name}")
        url = report_url(self.store)
        text = markdown(
            summary, [*figures.of_run(self.store, summary, ranking.shortlist), f"[The whole report]({url})"]
        )
        publish(create_markdown_artifact, text, key=f"{name}-summary", description=f"Summary of {self.campaign.name}")
        publish(
            create_link_artifact, url, "report", key=f"{name}-report", description=f"Report of {self.campaign.name}"
        )
