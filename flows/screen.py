"""The screening flow: pull, select, featurise, train, simulate discovery, predict, rank, report.

What is already in the campaign's folder is not done again: the manifest of the feature store says which structures have
features, and models, simulated discoveries and predictions lie under keys made from everything they depend on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from atomsets_core import shards, stages
from atomsets_core.catalogue import Catalogue, Lines
from atomsets_core.discovery.choice import KINDS, choose, recipes
from atomsets_core.estimators import FORMAT_VERSION, RECIPE_VERSION
from atomsets_core.evidence import FeatureStore, write_evidence
from atomsets_core.hashes import HashIndex
from atomsets_core.labels import ledger_table
from atomsets_core.parents import load_parent
from atomsets_core.report import write_report
from atomsets_core.shards import Located, ShardEntry
from atomsets_core.storage import StorageError, Store
from atomsets_core.structures import Refusal
from flows.campaign import Campaign
from flows.progress import Pulling, Stage, note
from flows.status import recording
from flows.summary import markdown, summarize_run
from tasks import cluster
from tasks.featurize import featurize_shard
from tasks.isolate import ShardJob
from tasks.predict import predict_shard
from tasks.pull import pull_source
from tasks.rank import Ranking, rank
from tasks.select import Selection, select
from tasks.train import simulate_discovery, train_model

IN_FLIGHT = 32
"""Tasks that wait for the cluster at the same time."""


def _run_name() -> str:
    campaign = flow_run.parameters["campaign"]
    name = campaign["name"] if isinstance(campaign, Mapping) else campaign.name
    return f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="screen", flow_run_name=_run_name, task_runner=ThreadPoolTaskRunner(max_workers=IN_FLIGHT))  # type: ignore[arg-type]
def screen(campaign: Campaign, out: str | None = None) -> dict[str, Any]:
    """Run a screening campaign, or what is missing of it.

    Args:
        campaign: what to do; see flows/campaign.py.
        out: folder or URL of the campaign; by default campaigns/<name>.

    Returns:
        The content of summary.json.

    Raises:
        SourceError: a source, column or filter that doesn't fit; the message says what to change.
        StorageError: the folder can't be written, or another run is at work in it.
    """
    store = Store(out or f"campaigns/{campaign.name}")
    with store.lock(), recording(store):
        return _Run(campaign, store).screen()


@dataclass
class _Run:
    """One run of a campaign: what its stages share."""

    campaign: Campaign
    store: Store
    seconds: dict[str, float] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=lambda: {"shards_made": 0})
    refused: list[tuple[str, Refusal]] = field(default_factory=list)
    discoveries: list[str] = field(default_factory=list)
    data: str = ""

    def __post_init__(self) -> None:
        options = self.campaign.features
        self.features = Store(options.store or self.store.url("features"))
        self.parent, self.levels = options.parent, options.chosen
        self.digest = load_parent(self.parent).digest

    def screen(self) -> dict[str, Any]:
        started = time.perf_counter()
        with cluster.connect(self.campaign.cluster.start):
            with self.timed("pull"):
                chosen = self.select()
            with self.timed("featurize training"):
                training, values = self.featurize_training(chosen)
            futures = self.submit_discoveries(training, values)
            with self.timed("featurize candidates"):
                entries = self.featurize("candidates", chosen.candidates).entries
            with self.timed("simulate discovery"):
                self.wait("simulate discovery", futures)
                choice = self.choose()
            with self.timed("train"):
                model = self.train(choice)
            with self.timed("predict"):
                predictions = self.predict(model, entries)
        with self.timed("rank"):
            ranking = self.rank(chosen, predictions, values, choice)
            self.explain(chosen, ranking, model)
        self.store.write_table("failures.parquet", ledger_table(self.refused))
        summary = summarize_run(
            self.campaign, self.store, model, self.discoveries, chosen, ranking, self.refused,
            digest=self.digest, done=self.done, seconds=self.seconds, started=started, choice=choice,
        )  # fmt: skip
        self.store.write_json("summary.json", summary)
        with self.timed("report"):
            write_report(self.store)
        self.show(summary, ranking)
        return summary

    @contextmanager
    def timed(self, stage: str):  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)

    def select(self) -> Selection:
        """Pull both sources and choose what is learned from and what is ranked."""
        training, candidates = self.campaign.training, self.campaign.candidates
        labelled, offered = (
            pull_source(
                dataset, section.source, section.labels, section.id_column, self.store, section.materials_query(),
                Pulling(dataset, self.campaign.name), section.pull_options(), *same,
            )
            for dataset, section, same in (
                ("training", training, ()),
                ("candidates", candidates, (candidates.deduplicate, candidates.prefer)),
            )
        )  # fmt: skip
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
        )
        self.refused.extend(chosen.refused)
        self.done["pulled_training"], self.done["pulled_candidates"] = (labelled.n_seen, offered.n_seen)
        return chosen

    def featurize_training(self, chosen: Selection) -> tuple[Lines, np.ndarray]:
        """Features of the labelled structures; those the parent can't take leave the training data."""
        kept = self.featurize("training", chosen.training).found
        training, values = chosen.training.lines.take(np.flatnonzero(kept)), chosen.values[kept]
        table = pa.table(
            {
                "material_id": pa.array(training.material_id),
                "structure_hash": pa.array(training.hashes),
                "formula": pa.array(training.formulas),
                "value": values,
            }
        )
        self.store.write_table(stages.LABELLED, table)
        return training, values

    def featurize(self, dataset: str, structures: Catalogue) -> Located:
        """Make the shards that are missing.

        Returns:
            Where the features of each structure are; those that have none are in the ledger.
        """
        lines = structures.lines
        located = shards.locate(self.entries(), self.levels, lines.hashes)
        missing = located.missing.copy()
        for entry, reason in stages.damaged_shards(self.features, located.entries):
            note(f"{reason}: it is made again")
            shards.discard(self.features, entry)
            missing |= located.shard == located.entries.index(entry)
        failures: dict[str, str] = {}
        if missing.any():
            first = np.intersect1d(HashIndex(lines.hashes).first, np.flatnonzero(missing))
            failures = self._make_shards(dataset, structures.take(first))
            located = shards.locate(self.entries(), self.levels, lines.hashes)
        for row in np.flatnonzero(~located.found):
            name, h = str(lines.material_id[row]), str(lines.hashes[row])
            reason = located.refused.get(h) or failures.get(h) or "its shard could not be made"
            self.refused.append((dataset, Refusal(name, "featurize", reason, h)))
        return located

    def _make_shards(self, dataset: str, structures: Catalogue) -> dict[str, str]:
        size, queue = self.campaign.features.shard_size, f"structures/queue-{dataset}.parquet"
        groups = stages.write_queue(self.store, queue, structures.groups(size))
        limit = self.campaign.cluster.shard_timeout
        futures = {}
        for number, hashes in enumerate(groups, start=1):
            key = shards.shard_key(list(hashes), self.digest, self.levels)
            job = ShardJob(
                self.store.root, queue, number - 1, self.features.root, self.parent, self.digest, self.levels, key,
                limit,
            )  # fmt: skip
            futures[featurize_shard.submit(number, len(groups), job)] = hashes
        failed = self.wait(f"featurize {dataset}", list(futures), tolerate=True)
        self.done["shards_made"] += len(futures) - len(failed)
        self.store.remove(queue)
        return {str(h): f"its shard failed: {error}" for future, error in failed.items() for h in futures[future]}

    def entries(self) -> Iterable[ShardEntry]:
        """The manifest as it is now, one entry after the other."""
        return shards.iter_entries(self.features, self.parent, self.digest)

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the model as the campaign describes it."""
        campaign = self.campaign
        return {
            **campaign.model.model_dump(),
            "features": campaign.features.spec,
            "transform": campaign.training.transform,
        }

    def submit_discoveries(self, training: Lines, values: np.ndarray) -> list[PrefectFuture]:
        """Start what is missing of the simulated discoveries; the futures to wait for."""
        campaign = self.campaign
        self.data = hashlib.sha256(json.dumps([list(training.hashes), values.tolist()]).encode()).hexdigest()
        if campaign.objective.goal in ("target", "window"):
            self.done["discoveries_simulated"] = 0
            return []
        options = {
            "goal": "minimize" if campaign.objective.goal == "minimize" else "maximize",
            "quantile": campaign.discovery.quantile,
            "pool_share": campaign.discovery.pool_share,
            "kappa": campaign.objective.kappa,
        }
        key = _key(self.data, self.digest, self.parameters, options)
        self.discoveries = [f"discovery/{key}-seed-{seed}.json" for seed in range(campaign.discovery.seeds)]
        where = (self.store.root, self.features.root, self.parent, self.digest, self.parameters)
        futures = [
            simulate_discovery.submit(*where, options, seed, name)
            for seed, name in enumerate(self.discoveries)
            if not self.store.exists(name)
        ]
        self.done["discoveries_simulated"] = len(futures)
        return futures

    def choose(self) -> dict[str, Any]:
        """The model and acquisition that did best in the simulated discoveries, as far as the campaign leaves it open.

        Returns:
            As of `discovery.choice.choose`; without simulated discoveries only "head" and "acquisition".
        """
        kind = self.campaign.objective.acquisition
        heads = list(recipes(self.parameters))
        if not self.campaign.discovery.choose:
            heads = heads[:1]
        kinds = list(KINDS) if kind == "auto" else [kind]
        found = choose([self.store.read_json(name) for name in self.discoveries], heads, kinds)
        if found is None:
            return {"head": heads[0], "acquisition": "ucb" if kind == "auto" else kind}
        if not found["better_than_random"]:
            note(f"in the simulated discovery the ranking was no better than a blind choice ({found['head']})")
        return found

    def train(self, choice: Mapping[str, Any]) -> str:
        """Train the chosen model unless it is there; its folder."""
        campaign = self.campaign
        parameters = recipes(self.parameters)[choice["head"]]
        model = f"models/{_key(self.data, self.digest, parameters)}"
        about = {
            "campaign": campaign.name,
            "target": campaign.training.target,
            "unit": campaign.training.unit,
            "training_source": campaign.training.source,
            "training_data_sha256": self.data,
        }
        missing = not self.store.exists(f"{model}/model.json")
        if missing:
            where = (self.store.root, self.features.root, self.parent, self.digest, parameters)
            self.wait("train", [train_model.submit(*where, model, about)])
        self.done["models_trained"] = int(missing)
        return model

    def predict(self, model: str, entries: Sequence[ShardEntry]) -> list[str]:
        """Apply the model to every shard that holds a candidate and has no predictions yet; names of all of them."""
        names = [f"predictions/{model.partition('/')[2]}/{entry.key}.parquet" for entry in entries]
        todo = [(entry, name) for entry, name in zip(entries, names, strict=True) if not self.store.exists(name)]
        futures = [
            predict_shard.submit(number, len(todo), self.store.root, self.features.root, entry, model, name)
            for number, (entry, name) in enumerate(todo, start=1)
        ]
        self.wait("predict", futures)
        self.done["shards_predicted"] = len(todo)
        return names

    def rank(
        self, chosen: Selection, predictions: Sequence[str], values: np.ndarray, choice: Mapping[str, Any]
    ) -> Ranking:
        """Rank all candidates with a prediction."""
        objective = self.campaign.objective
        return rank(
            self.store, predictions, chosen.candidates,
            goal=objective.goal, value=objective.value, window=objective.window,
            kind=choice["acquisition"], kappa=objective.kappa,
            best=float(values.min() if objective.goal == "minimize" else values.max()),
            transform=self.campaign.training.transform, size=objective.shortlist, diversity=objective.diversity,
            unit=self.campaign.training.unit, features=(self.features, self.parent, self.digest, self.levels),
        )  # fmt: skip

    def explain(self, chosen: Selection, ranking: Ranking, model: str) -> None:
        """Write down what stands behind the shortlist."""
        best, candidates = ranking.shortlist, chosen.candidates
        rows = np.flatnonzero(candidates.lines.hashes.isin(best["structure_hash"]))
        structures = candidates.take(rows).structures()
        place = {key: row for row, key in enumerate(zip(structures.material_id, structures.hashes, strict=True))}
        order = [place[key] for key in zip(best["material_id"], best["structure_hash"], strict=True)]
        features = FeatureStore(self.features, self.parent, self.digest, self.levels)
        write_evidence(self.store, features, model, structures.take(order))

    def wait(self, stage: str, futures: list[PrefectFuture], tolerate: bool = False) -> dict[PrefectFuture, Exception]:
        """Wait for tasks, showing progress.

        Args:
            stage: shown.
            futures: of the tasks.
            tolerate: give failures back instead of raising the first; a store that can't be written raises always.
        """
        bar, failed = Stage(stage, self.campaign.name, len(futures)), {}
        for future in as_completed(futures):
            result = future.result(raise_on_failure=False)
            if isinstance(result, Exception):
                if not tolerate or isinstance(result, StorageError):
                    raise result
                failed[future] = result
            bar.advance()
        return failed

    def show(self, summary: Mapping[str, Any], ranking: Ranking) -> None:
        """Publish the shortlist, the summary and the report as artifacts."""
        name = "".join(c if c.isalnum() else "-" for c in self.campaign.name.lower()).strip("-")
        shortlist = ranking.shortlist.drop(columns=["shortlist", "structure_hash"])
        rows = json.loads(shortlist.to_json(orient="records", double_precision=4))
        create_table_artifact(rows, key=f"{name}-shortlist", description=f"Shortlist of {self.campaign.name}")
        create_markdown_artifact(
            markdown(summary), key=f"{name}-summary", description=f"Summary of {self.campaign.name}"
        )
        if self.store.is_local:
            url = self.store.local("report.html").resolve().as_uri()
            create_link_artifact(url, "report", key=f"{name}-report", description=f"Report of {self.campaign.name}")


def _key(*parts: Any) -> str:
    """16 hex digits from everything a result depends on."""
    return hashlib.sha256(json.dumps([FORMAT_VERSION, RECIPE_VERSION, *parts], sort_keys=True).encode()).hexdigest()[
        :16
    ]
