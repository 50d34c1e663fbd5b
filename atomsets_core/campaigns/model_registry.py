"""Which model answers: the champion of each definition of a campaign, its challengers, and what was decided when.

A definition is everything that decides what a model is for and how it is made, except the labels: target, features,
recipe, goal, simulated discovery. A campaign that is defined anew starts with a champion of its own; one that is
changed back finds the old one. Nothing is ever deleted: going back is a line in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from atomsets_core.campaigns.layout import MODELS, REGISTRY
from atomsets_core.storage import StorageError, Store

VERSION = 1

APPOINTED, PROMOTED, KEPT, RETURNED = "appointed", "promoted", "kept the champion", "went back"
KEPT_EVENTS = 1000


class RegistryError(Exception):
    """A model that isn't there, or can't be gone back to; the message says what there is."""


@dataclass(frozen=True)
class Entry:
    """One model of a campaign.

    Attributes:
        folder: where it lies, e.g. models/0123456789abcdef.
        definition: of the campaign it was made for.
        data: digest of the labels it learned from.
        n_train: rows it learned from.
        trained: when, ISO 8601.
        parameters: of its estimator.
        choice: head, acquisition and what they were chosen by, see `discovery.choice.choose`.
        discoveries: names of the simulated discoveries it was chosen by.
        scores: its out-of-fold scores.
        duel: name of the file with its comparison against the champion of the day; None of a first model.
        set_aside: whether somebody went back from it: it isn't promoted again on its own.
    """

    folder: str
    definition: str
    data: str
    n_train: int
    trained: str
    parameters: dict[str, Any]
    choice: dict[str, Any]
    discoveries: list[str]
    scores: dict[str, Any] = field(default_factory=dict)
    duel: str | None = None
    set_aside: bool = False


@dataclass(frozen=True)
class Event:
    """One decision.

    Attributes:
        at: when, ISO 8601.
        what: appointed, promoted, kept the champion, went back.
        model: folder of the champion from then on.
        other: folder of the model that it replaced or that was turned down.
        why: in words.
        definition: of the campaign.
    """

    at: str
    what: str
    model: str
    other: str | None
    why: str
    definition: str


@dataclass(frozen=True)
class Registry:
    """All models of a campaign's folder.

    Attributes:
        entries: folder -> model.
        champions: definition -> folder of its champion.
        founders: definition -> folder of its first model and digest of the folds that it froze.
        log: decisions, the latest last.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    founders: dict[str, tuple[str, str]] = field(default_factory=dict)
    log: tuple[Event, ...] = ()

    def champion(self, definition: str) -> Entry | None:
        """The model that answers for a definition."""
        folder = self.champions.get(definition)
        return None if folder is None else self.entries.get(folder)

    def add(self, entry: Entry) -> Registry:
        """With one more model; one that is known keeps what was decided of it."""
        known = self.entries.get(entry.folder)
        return self if known else replace(self, entries={**self.entries, entry.folder: entry})

    def appoint(self, entry: Entry, folds: str, why: str, anew: bool = False) -> Registry:
        """The first champion of a definition, whose folds all later ones are judged by.

        Args:
            entry: the model.
            folds: digest of its folds.
            why: in words.
            anew: its folds take the place of those of an earlier first one, which are lost.
        """
        added = self.add(entry)
        founders = {**added.founders}
        if anew or entry.definition not in founders:
            founders[entry.definition] = (entry.folder, folds)
        before = added.champions.get(entry.definition)
        return replace(added, founders=founders)._crown(entry.folder, APPOINTED, before, why)

    def promote(self, folder: str, why: str, what: str = PROMOTED) -> Registry:
        """Another champion for the definition of a model.

        Raises:
            RegistryError: there is no such model, or it is the champion already.
        """
        entry = self._entry(folder)
        before = self.champions.get(entry.definition)
        if before == folder:
            raise RegistryError(f"{folder} is the champion already")
        return self._crown(folder, what, before, why)

    def judged(self, folder: str, duel: str) -> Registry:
        """With the name of the file that holds a model's comparison with the champion."""
        return replace(self, entries={**self.entries, folder: replace(self._entry(folder), duel=duel)})

    def keep(self, challenger: str, why: str) -> Registry:
        """The champion stays; a challenger was turned down."""
        definition = self._entry(challenger).definition
        return self._note(KEPT, self.champions[definition], challenger, why, definition)

    def go_back(self, definition: str, why: str) -> Registry:
        """The champion before this one; the one gone back from is set aside.

        Raises:
            RegistryError: there was none before.
        """
        now = self.champions.get(definition)
        if now is None:
            raise RegistryError("there is no champion to go back from")
        before = self._before(definition, now)
        if before is None:
            raise RegistryError(f"{now} is the first champion: there is none to go back to")
        aside = replace(self._entry(now), set_aside=True)
        return replace(self, entries={**self.entries, now: aside})._crown(before, RETURNED, now, why)

    def _before(self, definition: str, now: str) -> str | None:
        """Whom the champion took over from, going back along returns as well."""
        reigns: list[str] = []
        for event in self.log:
            if event.definition != definition or event.what == KEPT:
                continue
            if event.what == RETURNED and event.model in reigns:
                reigns = reigns[: reigns.index(event.model) + 1]
            else:
                reigns.append(event.model)
        earlier = [folder for folder in reigns if folder != now and folder in self.entries]
        return earlier[-1] if earlier else None

    def _crown(self, folder: str, what: str, before: str | None, why: str) -> Registry:
        entry = self._entry(folder)
        chosen = replace(entry, set_aside=False)
        crowned = replace(
            self,
            entries={**self.entries, folder: chosen},
            champions={**self.champions, entry.definition: folder},
        )
        return crowned._note(what, folder, None if before == folder else before, why, entry.definition)

    def _note(self, what: str, model: str, other: str | None, why: str, definition: str) -> Registry:
        event = Event(datetime.now(UTC).isoformat(timespec="seconds"), what, model, other, why, definition)
        return replace(self, log=(*self.log, event)[-KEPT_EVENTS:])

    def _entry(self, folder: str) -> Entry:
        if folder not in self.entries:
            raise RegistryError(f"no model {folder!r}; there are {', '.join(self.entries) or 'none'}")
        return self.entries[folder]

    def find(self, name: str) -> str:
        """Folder of a model from its name or the beginning of it.

        Raises:
            RegistryError: none or several begin so.
        """
        wanted = name.removeprefix(f"{MODELS}/").rstrip("/")
        found = [folder for folder in self.entries if folder.rpartition("/")[2].startswith(wanted)] if wanted else []
        if len(found) != 1:
            what = f"{len(found)} models begin with" if found else "no model begins with"
            raise RegistryError(f"{what} {name!r}; there are {', '.join(self.entries) or 'none'}")
        return found[0]


def read_registry(store: Store) -> Registry:
    """The models of a campaign's folder; an empty registry where there is none.

    Raises:
        StorageError: it is damaged, or of a newer version.
    """
    if not store.exists(REGISTRY):
        return Registry()
    raw: Mapping[str, Any] = store.read_json(REGISTRY)
    try:
        if raw["version"] > VERSION:
            raise StorageError(
                f"{store.url(REGISTRY)} was written by a newer version ({raw['version']}). Update atomsets-screening"
            )
        return Registry(
            entries={entry["folder"]: Entry(**entry) for entry in raw["models"]},
            champions=dict(raw["champions"]),
            founders={name: (founder["folder"], founder["folds"]) for name, founder in raw["founders"].items()},
            log=tuple(Event(**event) for event in raw["log"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{store.url(REGISTRY)} is damaged ({error!r}). Delete it and run again: a champion is appointed anew"
        ) from error


def write_registry(store: Store, registry: Registry) -> None:
    """Write it, whole or not at all."""
    store.write_json(
        REGISTRY,
        {
            "version": VERSION,
            "champions": registry.champions,
            "founders": {name: {"folder": f, "folds": d} for name, (f, d) in registry.founders.items()},
            "models": [asdict(entry) for entry in registry.entries.values()],
            "log": [asdict(event) for event in registry.log],
        },
    )
