"""Which model a run predicts with: the champion of the campaign, a first one, or a challenger that won.

docs/standing-campaigns.md has the rules in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger
from prefect.futures import PrefectFuture

from atomsets_core.campaigns import (
    CARD,
    CHALLENGER,
    CHAMPION,
    KNEW_TOO_LITTLE,
    NO_DISCOVERY,
    OUT_OF_FOLD,
    Entry,
    Registry,
    digest,
    duel_name,
    freeze,
    model_files,
    read_frozen,
    read_registry,
    short,
    verdict,
    write_registry,
)
from atomsets_core.campaigns import on_discovery as judge_discovery
from atomsets_core.models import CONFIG, FORMAT_VERSION, RECIPE_VERSION, read_config
from atomsets_core.sources import class_name
from atomsets_core.storage import StorageError, Store
from atomsets_core.storage import sound as sealed_sound
from atomsets_flows.campaign import Campaign
from atomsets_flows.runs.learning import Learning
from atomsets_flows.runs.progress import note
from atomsets_flows.runs.summary import scores_of
from atomsets_tasks import duel_on_folds, simulate_champion

AGAINST = "\n## Against the champion\n"


@dataclass(frozen=True)
class InUse:
    """The model a run predicts with.

    Attributes:
        folder: where it lies.
        choice: head and acquisition, and what they were chosen by.
        discoveries: names of the simulated discoveries it was chosen by, as far as they are still there.
    """

    folder: str
    choice: dict[str, Any]
    discoveries: list[str]


def definition(campaign: Campaign, parent_digest: str) -> str:
    """Digest of all that decides what a model is for and how it is made, except the labels."""
    objective, training = campaign.objective, campaign.training
    query = training.materials_query()
    return digest(
        FORMAT_VERSION,
        RECIPE_VERSION,
        parent_digest,
        campaign.features.spec,
        {**training.asked(), "query": None if query is None else query.asked()},
        campaign.model.model_dump(mode="json"),
        campaign.discovery.model_dump(mode="json"),
        {"goal": objective.goal, "acquisition": objective.acquisition, "kappa": objective.kappa}
        | ({} if campaign.wanted is None else {"value": class_name(campaign.wanted)}),
    )


def sound(store: Store, folder: str) -> bool:
    """Whether a campaign's model is there whole: its files are those it was saved with."""
    return all(sealed_sound(store, name) for name in model_files(folder))


@dataclass
class Champions:
    """The models of a campaign as defined now.

    Attributes:
        campaign: what to do.
        store: of the campaign.
        definition: see `definition`.
        outcome: what `challenge` decided in this run: "promote", "why", "champion", "challenger"; empty without one.
    """

    campaign: Campaign
    store: Store
    definition: str
    outcome: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry: Registry = read_registry(self.store)

    @property
    def current(self) -> Entry | None:
        """The champion."""
        return self.registry.champion(self.definition)

    def is_sound(self, entry: Entry) -> bool:
        """Whether a model's files are there whole."""
        return sound(self.store, entry.folder)

    def learns(self, data: str) -> bool:
        """Whether a run on these labels learns from them; if not, the champion answers as it is."""
        champion = self.current
        if champion is None or champion.data == data:
            return True
        if not self.is_sound(champion):
            return True
        return self.campaign.standing.new_labels != "keep"

    def submit(self, learning: Learning) -> list[PrefectFuture]:
        """Start the simulated discoveries that `settle` will need."""
        return learning.submit_discoveries() if self.learns(learning.data) else []

    def settle(self, learning: Learning) -> InUse:
        """The model to predict with; trained, appointed and challenged as far as the campaign says so."""
        champion = self.current
        if champion is not None and not self.learns(learning.data):
            return self._as_it_is(champion)
        if champion is None:
            return self._appoint(learning, "the first model of the campaign as it is defined now", anew=False)
        if champion.data == learning.data:
            return self._restore(champion, learning)
        if not self.is_sound(champion):
            note(f"{champion.folder} is damaged and can't be trained again, since labels changed: another takes over")
            return self._appoint(learning, f"{champion.folder} was damaged", anew=True)
        self.challenge(learning, judge=self.campaign.standing.new_labels == "challenge")
        return self._as_it_is(self._champion())

    def challenge(self, learning: Learning, judge: bool = True) -> dict[str, Any]:
        """Train on today's labels, and let the champion and the new model compete, unless they did already.

        Args:
            learning: from today's labels, simulated discoveries done.
            judge: false: the new model takes over without a comparison.

        Returns:
            "champion", "challenger", "promote" and "why".
        """
        champion = self._champion()
        folder, digest_ = self.registry.founders[self.definition]
        read_frozen(self.store, folder, digest_)
        choice = learning.choose()
        challenger = learning.train(choice, (folder, digest_))
        self.registry = self.registry.add(self._entry(challenger, learning, choice))
        found: dict[str, Any] = {"champion": champion.folder, "challenger": challenger}
        if self.registry.entries[challenger].set_aside:
            found |= {"promote": False, "why": "it was set aside by hand; promote it by hand to have it back"}
        elif not judge:
            found |= {"promote": True, "why": "the campaign says that new labels replace the model"}
        else:
            found |= self._duel(learning, champion, self.registry.entries[challenger])
        self.outcome = found
        decide = self.registry.promote if found["promote"] else self.registry.keep
        if not self._decided(champion.folder, challenger):
            self.registry = decide(challenger, found["why"])
        write_registry(self.store, self.registry)
        verb = "replaces" if found["promote"] else "does not replace"
        get_run_logger().info("%s %s %s: %s", short(challenger), verb, short(champion.folder), found["why"])
        return found

    def _decided(self, champion: str, challenger: str) -> bool:
        """Whether the same decision stands in the log last."""
        last = self.registry.log[-1] if self.registry.log else None
        return last is not None and (last.model, last.other) == (champion, challenger)

    def _champion(self) -> Entry:
        champion = self.current
        if champion is None:
            raise StorageError(f"{self.store.root} has no champion: run `atomsets screen` or `atomsets retrain` first")
        return champion

    def _as_it_is(self, champion: Entry) -> InUse:
        there = all(self.store.exists(name) for name in champion.discoveries)
        return InUse(champion.folder, dict(champion.choice), list(champion.discoveries) if there else [])

    def _restore(self, champion: Entry, learning: Learning) -> InUse:
        """The champion of the very labels of today; trained again where its files are damaged."""
        if self.is_sound(champion):
            return InUse(champion.folder, dict(champion.choice), list(learning.discoveries))
        note(f"{champion.folder} is damaged or gone: it is trained again")
        self.store.remove(f"{champion.folder}/{CONFIG}")
        founder = self.registry.founders[self.definition]
        # a founder cut its folds itself, all others take them from it
        folder = learning.train(champion.choice, None if founder[0] == champion.folder else founder)
        if folder == champion.folder:
            return InUse(folder, dict(champion.choice), list(learning.discoveries))
        return self._appoint(learning, f"{champion.folder} was damaged", anew=True)

    def _appoint(self, learning: Learning, why: str, anew: bool) -> InUse:
        choice = learning.choose()
        folder = learning.train(choice)
        if not sound(self.store, folder):
            note(f"{folder} is damaged: it is trained again")
            self.store.remove(f"{folder}/{CONFIG}")
            folder = learning.train(choice)
        entry, folds = self._entry(folder, learning, choice), freeze(self.store, folder).digest
        self.registry = self.registry.appoint(entry, folds, why, anew=anew)
        write_registry(self.store, self.registry)
        return InUse(folder, choice, list(learning.discoveries))

    def _entry(self, folder: str, learning: Learning, choice: Mapping[str, Any]) -> Entry:
        table = self.store.read_table(f"{folder}/{OUT_OF_FOLD}").to_pandas()
        config = read_config(self.store, folder)
        return Entry(
            folder=folder,
            definition=self.definition,
            data=learning.data,
            n_train=len(table),
            trained=datetime.now(UTC).isoformat(timespec="seconds"),
            parameters=learning.recipes[choice["head"]],
            choice=dict(choice),
            discoveries=list(learning.discoveries),
            scores={
                **scores_of(self.campaign, table),
                "coverage": config["state"]["coverage"][0],
            },
        )

    def _duel(self, learning: Learning, champion: Entry, challenger: Entry) -> dict[str, Any]:
        """Both comparisons, from files where they are there; the verdict."""
        pair = (short(challenger.folder), short(champion.folder))
        name, folds = duel_name(*pair), duel_name(*pair, "folds")
        seeds = {seed: duel_name(*pair, f"seed-{seed}") for seed in range(len(learning.discoveries))}
        where = (self.store, learning.features)
        futures = [
            simulate_champion.submit(*where, champion.parameters, champion.folder, learning.options, seed, file)
            for seed, file in seeds.items()
            if not self.store.exists(file)
        ]
        if not self.store.exists(folds):
            futures.append(duel_on_folds.submit(*where, champion.folder, challenger.folder, folds))
        learning.wait("compare with the champion", futures)
        on_folds = self.store.read_json(folds)
        on_discovery, without = self._on_discovery(learning, champion, challenger, list(seeds.values()))
        told = verdict(on_folds, on_discovery, without)
        self.store.write_json(name, {"folds": on_folds, "discovery": on_discovery, **told})
        self.registry = self.registry.judged(challenger.folder, name)
        self._write_on_card(challenger.folder, champion.folder, told)
        return told

    def _on_discovery(
        self, learning: Learning, champion: Entry, challenger: Entry, files: list[str]
    ) -> tuple[dict[str, Any] | None, str]:
        if not files:
            return None, NO_DISCOVERY
        known = [self.store.read_json(name) for name in files]
        if any("acquisition" not in run for run in known):
            return None, KNEW_TOO_LITTLE
        runs = [self.store.read_json(name) for name in learning.discoveries]
        own = [run["heads"][challenger.choice["head"]] for run in runs]
        kinds = {CHAMPION: champion.choice["acquisition"], CHALLENGER: challenger.choice["acquisition"]}
        return judge_discovery(known, own, kinds, runs[0]["n_hidden"]), ""

    def _write_on_card(self, challenger: str, champion: str, told: Mapping[str, Any]) -> None:
        card = f"{challenger}/{CARD}"
        text = self.store.read(card).decode() if self.store.exists(card) else f"# {challenger}\n"
        outcome = "Promoted" if told["promote"] else "Not promoted"
        text = f"{text.partition(AGAINST)[0]}{AGAINST}\n{outcome} over `{short(champion)}`: {told['why']}.\n"
        self.store.write(card, text.encode())
