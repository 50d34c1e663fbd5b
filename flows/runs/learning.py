"""What is learned from today's labels: simulated discoveries, the choice they make, and the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prefect import get_run_logger
from prefect.futures import PrefectFuture

from atomsets_core.campaigns import discovery_name, model_files, model_folder
from atomsets_core.discovery import MEAN, UCB, choose, design_of, recipes, summarize
from atomsets_core.features import AnyStore
from atomsets_core.jobs import Choosing, read_labelled
from atomsets_core.models import FORMAT_VERSION, RECIPE_VERSION
from atomsets_core.sources import class_name
from atomsets_core.storage import Store, sound
from atomsets_flows.campaign import Campaign
from atomsets_flows.runs.progress import note
from atomsets_tasks import simulate_discovery, train_model

Wait = Callable[[str, list[PrefectFuture]], Any]
"""Waits for the tasks of a stage, showing progress."""

FEWEST_LEFT = 10
"""Labels that a simulated discovery learns from at least: below that, heads are compared by accident."""

CARD_SCORES = ("head", "r_precision", "enrichment", "mae_outside", "mae_inside")
CLASS_CARD_SCORES = ("head", "r_precision", "enrichment", "roc_auc", "brier")


@dataclass
class Learning:
    """Learning from the labels that lie in structures/labelled.parquet.

    Attributes:
        campaign: what to do.
        store: of the campaign.
        features: of the labelled structures.
        data: digest of the labels, see `labels_digest`.
        wait: waits for tasks.
        done: counts what was done.
        choosing: what features are chosen from, where the campaign leaves them open.
        discoveries: names of the simulated discoveries, once they were submitted.
    """

    campaign: Campaign
    store: Store
    features: AnyStore
    data: str
    wait: Wait
    done: dict[str, int] = field(default_factory=dict)
    choosing: Choosing | None = None
    discoveries: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the model as the campaign describes it."""
        return self.campaign.parameters

    @property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """The models that are compared, the preferred first."""
        return recipes(self.parameters, self.campaign.heads)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the simulated discovery."""
        campaign = self.campaign
        return {
            "goal": campaign.objective.goal if campaign.objective.goal in ("minimize", "class") else "maximize",
            "quantile": campaign.discovery.quantile,
            "pool_share": campaign.discovery.pool_share,
            "kappa": campaign.objective.kappa,
            "heads": list(self.recipes),
            "minutes": campaign.discovery.minutes / max(1, campaign.discovery.seeds),
        }

    def submit_discoveries(self) -> list[PrefectFuture]:
        """Start what is missing of the simulated discoveries; the futures to wait for."""
        if self.campaign.objective.goal in ("target", "window") or not self.campaign.discovery.seeds:
            return []
        if why := self._too_few():
            note(f"there is no simulated discovery: {why}")
            return []
        shared = (self.store, self.features, self.parameters, self.options)
        key = _key(self.data, self.features.digest, self.parameters, self.options, *self._chosen_from())
        self.discoveries = [discovery_name(key, seed) for seed in range(self.campaign.discovery.seeds)]
        futures = [
            simulate_discovery.submit(*shared, seed, name, self.choosing)
            for seed, name in enumerate(self.discoveries)
            if not sound(self.store, name)
        ]
        self.done["discoveries_simulated"] = len(futures)
        if futures:
            get_run_logger().info(
                "%d heads are compared, the cheapest first, within %g minutes of a worker for each of %d repeats",
                len(self.recipes), self.options["minutes"], len(self.discoveries),
            )  # fmt: skip
        return futures

    def _chosen_from(self) -> tuple[Any, ...]:
        """What repeats depend on besides, where each chooses its features."""
        return () if self.choosing is None else (self.choosing.features.digest, self.choosing.specs)

    def _too_few(self) -> str:
        """Why the labels are too few to hide some and learn from the others; empty where they aren't."""
        options, (table, values) = self.options, read_labelled(self.store)
        design = design_of(options)
        formula = np.array(table["formula"].to_pylist(), dtype=object)
        try:
            left = min(
                len(design.holdout(values, formula, seed).train) for seed in range(self.campaign.discovery.seeds)
            )
        except ValueError as error:
            return str(error)
        return "" if left >= FEWEST_LEFT else f"{left} labels would be left to learn from; {FEWEST_LEFT} are needed"

    def choose(self) -> dict[str, Any]:
        """The model and acquisition that did best in the simulated discoveries, as far as the campaign leaves it open.

        Returns:
            As of `discovery.choice.choose`; without simulated discoveries only "head" and "acquisition".
        """
        kind = self.campaign.objective.acquisition
        heads = list(self.recipes)
        if not self.campaign.discovery.choose:
            heads = heads[:1]
        kinds = list(self.campaign.kinds)
        runs = [self.store.read_json(name) for name in self.discoveries]
        found = choose(runs, heads, kinds, self.campaign.model.coverage)
        if found is None:
            usual = (MEAN if self.campaign.wanted is not None else UCB).name
            return {"head": heads[0], "acquisition": usual if kind == "auto" else kind}
        if not found["better_than_random"]:
            note(f"in the simulated discovery the ranking was no better than a blind choice ({found['head']})")
        left_out = [name for name in self.recipes if any(name in run["left_out"] for run in runs)]
        if left_out:
            note(f"no time was left to compare {', '.join(left_out)}: raise discovery.minutes to have them tried")
        return {**found, "left_out": left_out}

    def train(self, choice: Mapping[str, Any], frozen: tuple[str, str] | None = None) -> str:
        """Train the chosen model unless it is there; its folder.

        Args:
            choice: of `choose`.
            frozen: folder of the first model and digest of its folds, for a challenger; see `freeze`.
        """
        parameters = self.recipes[choice["head"]]
        parts = (self.data, self.features.digest, parameters)
        model = model_folder(_key(*parts) if frozen is None else _key(*parts, frozen[1]))
        missing = not all(sound(self.store, name) for name in model_files(model))
        if missing:
            future = train_model.submit(self.store, self.features, parameters, model, self._about(), frozen)
            self.wait("train", [future])
        self.done["models_trained"] = self.done.get("models_trained", 0) + int(missing)
        return model

    def _about(self) -> dict[str, Any]:
        """What is kept with the model and shown on its card."""
        campaign = self.campaign
        about: dict[str, Any] = {
            "campaign": campaign.name,
            "target": campaign.training.target,
            "unit": campaign.unit,
            "training_source": campaign.training.source,
            "training_data_sha256": self.data,
        }
        if campaign.wanted is not None:
            about["class"] = class_name(campaign.wanted)
        if self.discoveries:
            shown = CARD_SCORES if campaign.wanted is None else CLASS_CARD_SCORES
            runs = [self.store.read_json(name) for name in self.discoveries]
            about["discovery"] = {
                "seeds": len(runs),
                "n_hidden": runs[0]["n_hidden"],
                "n_pool": runs[0]["n_pool"],
                "heads": [{name: row[name] for name in shown} for row in summarize(runs)],
            }
        return about


def labels_digest(hashes: Sequence[str], values: Sequence[float]) -> str:
    """64 hex digits of structures and their values, in their order."""
    return hashlib.sha256(json.dumps([list(hashes), list(values)]).encode()).hexdigest()


def _key(*parts: Any) -> str:
    """16 hex digits from everything a result depends on."""
    return hashlib.sha256(json.dumps([FORMAT_VERSION, RECIPE_VERSION, *parts], sort_keys=True).encode()).hexdigest()[
        :16
    ]
