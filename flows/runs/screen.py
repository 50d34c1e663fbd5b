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
    choice_name,
    predictions_name,
    provenance_name,
    queue_name,
    structures_name,
    sweep,
)
from atomsets_core.features import (
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
from atomsets_core.jobs import Choosing, Ranking, Selection, Wish, write_evidence
from atomsets_core.report import artifact_rows, write_report
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
    choose_features,
    connect,
    featurize_shard,
    predict_shard,
    price_features,
    pull_source,
    rank,
    select,
)

IN_FLIGHT = 32
"""Tasks that wait for the cluster at the same time."""

PRICED = 16
"""Structures that features are priced on."""


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
                why = memory.news(parts) or self.damage()
            if not why:
                return self.nothing_new(memory)
            unseal(self.store, *OUTCOME)
            with self.timed("select"):
                chosen = self.select(*pulled)
            with self.timed("featurize training"):
                values, learning, learned = self.learn_from(chosen.training, chosen.values, chosen.candidates)
            futures = self.champions.submit(learning)
            with self.timed("featurize candidates"):
                offered = self.featurize("candidates", chosen.candidates)
            with self.timed("simulate discovery"):
                self.wait("simulate discovery", futures)
            with self.timed("train"):
                model = self.champions.settle(learning)
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
            labelled=len(values),
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
        choosing = self.choose_features(labelled, values, candidates) if self.campaign.features.is_open else None
        training, values, entries = self.featurize_training(labelled, values)
        data = labels_digest(list(training.hashes), values.tolist())
        learning = Learning(self.campaign, self.store, self.features, data, self.wait, self.done, choosing)
        return values, learning, entries

    def choose_features(self, labelled: Catalogue, values: np.ndarray, candidates: Catalogue | None) -> Choosing:
        """Decide which features are used, once for the campaign as it is defined; what they were chosen from.

        Every repeat of the simulated discovery chooses too, on what it may learn from, so all labelled structures get
        all features.
        """
        name, before = choice_name(self.champions.definition), len(self.refused)
        decided = self.store.read_json(name) if sound(self.store, name) else None
        priced = (
            decided["priced"] if decided else self.price([labelled] if candidates is None else [labelled, candidates])
        )
        specs = tuple(text for text, price in priced.items() if price["chosen_from"])
        self.features = open_features(self.shards, *specs)
        self.featurize_training(labelled, values)
        del self.refused[before:]  # what is chosen in the end may do without their features
        options, model = self.campaign.features, self.campaign.model
        choosing = Choosing(self.features, specs, model.left_open)
        if decided is None:
            task = choose_features.submit(self.store, choosing, self.campaign.parameters, priced, name)
            self.wait("choose features", [task])
            decided = self.store.read_json(name)
        note(f"features: {decided['features']}, chosen from {len(specs)}")
        self.campaign = self.campaign.model_copy(
            update={
                "features": options.model_copy(update={"specification": decided["features"]}),
                "model": model.with_choice(decided["parameters"]),
            }
        )
        self.features = open_features(self.shards, decided["features"])
        return choosing

    def price(self, materials: Sequence[Catalogue]) -> dict[str, dict[str, Any]]:
        """What these materials cost by each specification that may be chosen, and whether that is within bounds.

        Returns:
            Specification -> "seconds" of processor time and "bytes" a structure, "cpu_hours" and "gigabytes" of all,
            "chosen_from"; the cheapest is always chosen from.
        """
        queue, n = queue_name("sample"), sum(map(len, materials))
        shares = [max(1, round(PRICED * len(part) / n)) for part in materials]
        sample = [
            part.take(np.unique(np.linspace(0, len(part) - 1, share).astype(np.int64))).structures()
            for part, share in zip(materials, shares, strict=True)
            if part.kind == materials[0].kind  # crystals that are ranked by formulas count as their formulas
        ]
        write_queue(self.store, queue, [type(sample[0]).concat(sample)])
        task = price_features.submit(self.store, queue, self.specs)
        self.wait("price features", [task])
        self.store.remove(queue)
        found = {text: price for text, price in task.result().items() if price}
        cheapest = min(found, key=lambda text: found[text]["seconds"])
        most, told = self.campaign.features.cpu_hours, {}
        for text, price in found.items():
            hours, size = price["seconds"] * n / 3600, price["bytes"] * n / 1e9
            told[text] = {
                **price, "cpu_hours": hours, "gigabytes": size, "chosen_from": hours <= most or text == cheapest
            }  # fmt: skip
            if not told[text]["chosen_from"]:
                note(
                    f"features {text} are left out: {n:,} structures take about {hours:.3g} CPU hours and {size:.2g} "
                    f"GB, and features.cpu_hours is {most:g}"
                )
        return told

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

    def featurize(self, dataset: str, structures: Catalogue) -> Together:
        """Make the shards that are missing.

        Returns:
            Where the features of each structure are; those that have none are in the ledger.
        """
        hashes, why = structures.digests(), dict[str, str]()
        lost, parts = np.zeros(len(structures), dtype=bool), []
        for features in self.features.parts:
            located = features.locate(hashes)
            missing = located.missing.copy()
            for entry, reason in damaged_shards(features.store, located.entries):
                note(f"{reason}: it is made again")
                discard(features.store, entry)
                missing |= located.shard == located.entries.index(entry)
            missing &= ~lost  # what one parent can't take needs nothing of the next
            if missing.any():
                first = np.intersect1d(HashIndex(hashes).first, np.flatnonzero(missing))
                why |= self._make_shards(dataset, structures.take(first), features)
                located = features.locate(hashes)
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

    def _make_shards(self, dataset: str, structures: Catalogue, features: FeatureStore) -> dict[str, str]:
        size, queue = self.campaign.features.shard_size, queue_name(dataset)
        groups = write_queue(self.store, queue, structures.groups(size))
        limit = self.campaign.cluster.shard_timeout
        futures = {}
        for number, hashes in enumerate(groups, start=1):
            job = ShardJob(self.store, queue, number - 1, features, features.shard_key(hashes), limit)
            futures[featurize_shard.submit(number, len(groups), job)] = hashes
        by = f" by {features.parent}" if len(self.features.parts) > 1 else ""
        failed = self.wait(f"featurize {dataset}{by}", list(futures), tolerate=True)
        poison = sum(sum(future.result()["poison"].values()) for future in futures if future not in failed)
        if poison:
            self.failures.append(f"{poison} structures of the {dataset} broke their workers and were left out")
        self.done["shards_made"] += len(futures) - len(failed)
        if failed:
            self.whole = False
            self.failures.append(f"{len(failed)} of {len(groups)} shards of the {dataset} could not be made")
        self.store.remove(queue)
        return {str(h): f"its shard failed: {error}" for future, error in failed.items() for h in futures[future]}

    def predict(self, model: str, pieces: Sequence[Piece]) -> list[str]:
        """Apply the model to every shard that holds a candidate and has no predictions yet; names of all of them."""
        names = [predictions_name(model, piece.key) for piece in pieces]
        todo = [(piece, name) for piece, name in zip(pieces, names, strict=True) if not sound(self.store, name)]
        futures = [
            predict_shard.submit(number, len(todo), self.store, self.features, piece, model, name)
            for number, (piece, name) in enumerate(todo, start=1)
        ]
        self.wait("predict", futures)
        self.done["shards_predicted"] = len(todo)
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
        rows = artifact_rows(summary, ranking.shortlist)
        publish(create_table_artifact, rows, key=f"{name}-shortlist", description=f"Shortlist of {self.campaign.name}")
        url = report_url(self.store)
        text = markdown(
            summary, [*figures.of_run(self.store, summary, ranking.shortlist), f"[The whole report]({url})"]
        )
        publish(create_markdown_artifact, text, key=f"{name}-summary", description=f"Summary of {self.campaign.name}")
        publish(
            create_link_artifact, url, "report", key=f"{name}-report", description=f"Report of {self.campaign.name}"
        )
