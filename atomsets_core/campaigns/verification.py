"""Every file of a campaign against what it was written with, and what is missing between them.

Results are checked against their checksums (`storage/store.py`), feature shards against the manifest, models by
loading them, and the whole against its own numbers: every structure that is ranked has features and a prediction, and
the counts of the summary are those of the files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.campaigns.last_run import read_standing
from atomsets_core.campaigns.layout import (
    ASKED,
    FAILURES,
    FEATURES,
    JOINT_OUTCOME,
    LABELLED,
    MODELS,
    OUTCOME,
    PROPERTIES,
    RANKING,
    STRUCTURES,
    SUMMARY,
    is_known,
    is_passing,
    is_result,
    model_files,
    predictions_folder,
    property_folder,
)
from atomsets_core.features import FeatureStore, damaged_shards, entries_in, remove_faulty
from atomsets_core.models import load_regressor
from atomsets_core.storage import FOLDER, StorageError, Store, fault, sealed, unseal


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        file: name within the campaign, or path of a shared feature store's file.
        fault: what is wrong, a sentence without its subject.
        remove: files of the campaign to be removed so that a run makes them again; none where a run does it anyway.
        discard: the same of the feature store, manifest entries first; in a store outside of the campaign's folder only
            of shards that the campaign's last run used.
    """

    file: str
    fault: str
    remove: tuple[str, ...] = ()
    discard: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        checked: kind of file -> how many were checked.
        findings: all that is wrong; none where the campaign is whole.
        leftovers: unfinished files of stopped runs, which nobody reads.
        finished: whether there is a summary that can be read.
        features: the feature store.
        own: it lies within the campaign's folder.
        parts: folder of each property's own campaign -> what was found there, where there are several.
    """

    checked: dict[str, int]
    findings: tuple[Finding, ...]
    leftovers: tuple[str, ...]
    finished: bool
    features: Store
    own: bool
    parts: dict[str, Verification] = field(default_factory=dict)

    @property
    def everything(self) -> list[Finding]:
        """What is wrong here and with the properties' own campaigns, whose files are named with their folder."""
        inner = [
            replace(finding, file=f"{folder}/{finding.file}")
            for folder, part in self.parts.items()
            for finding in part.everything
        ]
        return [*self.findings, *inner]

    @property
    def whole(self) -> bool:
        """Whether there are a summary here and of each property, and nothing is wrong."""
        return self.finished and not self.findings and all(part.whole for part in self.parts.values())


def verify(store: Store, home: Store | None = None) -> Verification:
    """Check every file of a campaign, and of the campaigns of its properties where it has several.

    Args:
        store: of the campaign.
        home: store of the campaign of several properties that this is one of.

    Raises:
        StorageError: there is no campaign here.
    """
    names = [name for name in store.all_names(".", hidden=True) if not name.startswith(f"{FOLDER}/")]
    asked = _json(store, ASKED)
    if asked is not None and isinstance(asked.get("properties"), list):
        return _verify_together(store, names, asked["properties"])
    if not any(name in names for name in (ASKED, *OUTCOME, *STRUCTURES)):
        raise StorageError(f"{store.root} holds no campaign: there is neither a {SUMMARY} nor a {ASKED}")
    checked: Counter[str] = Counter()
    findings = [*_sealed(store, names, checked)]
    damaged = {finding.file for finding in findings}
    summary = _json(store, SUMMARY) if SUMMARY not in damaged else None
    features = _feature_store(store, summary, asked)
    place = home or store
    own = features.root == place.url(FEATURES) and place.holds(f"{FEATURES}/any")
    standing = None if own else read_standing(store)
    used = None if own else frozenset(standing.shards if standing else ())
    findings += _shards(features, used, checked)
    if summary is not None:
        findings += _model(store, summary, damaged)
        findings += _rows(store, features, summary, damaged | {finding.file for finding in findings})
    left = tuple(name for name in names if is_passing(name))
    return Verification(dict(checked), tuple(findings), left, summary is not None, features, own)


def _verify_together(store: Store, names: Sequence[str], properties: Sequence[Any]) -> Verification:
    """Check the joint files of a campaign of several properties, then the campaign of each."""
    inner = (f"{PROPERTIES}/", f"{FEATURES}/")
    checked: Counter[str] = Counter()
    findings = []
    there = [name for name in names if not name.startswith(inner)]
    for name in sorted({ASKED, *JOINT_OUTCOME, *sealed(store)}):
        checked[_kind(name)] += name in there
        if wrong := fault(store, name):
            findings.append(Finding(name, wrong, (name,)))
    parts = {}
    for one in properties:
        folder = property_folder(str(one.get("name") if isinstance(one, dict) else ""))
        if is_known(f"{folder}/{ASKED}") and store.exists(f"{folder}/{ASKED}"):
            parts[folder] = verify(Store(store.url(folder)), store)
            checked.update(parts[folder].checked)
        else:
            findings.append(Finding(folder, "is not there: this property was not learned yet"))
    left = tuple(name for name in there if is_passing(name))
    finished = _json(store, SUMMARY) is not None
    return Verification(
        dict(checked), tuple(findings), left, finished, Store(store.url(FEATURES)), own=True, parts=parts
    )


def repair(store: Store, found: Verification, features: str | None = None) -> None:
    """Remove what is damaged, so that the next run of the campaign makes just that again.

    The checksums of the outcome go too, so that the run goes through its stages instead of finding nothing new. What a
    file of the folder says of other places isn't followed: a folder may come from anybody.

    Args:
        store: of the campaign.
        found: what is wrong with it.
        features: the feature store, named again by whoever asks, where it lies outside of the campaign's folder.

    Raises:
        StorageError: a file can't be removed, lies behind a link, or in a store that wasn't named again.
    """
    for folder, part in found.parts.items():
        if not store.holds(f"{folder}/any"):
            raise StorageError(f"{store.url(folder)} lies behind a link that leads out of the folder")
        if part.findings or part.leftovers:
            repair(Store(store.url(folder)), part, features)
    discards = [finding.discard for finding in found.findings if finding.discard]
    if discards and not found.own and (features is None or not _same(Store(features), found.features)):
        raise StorageError(
            f"{len(discards)} shards to be made again lie outside of the campaign, in {found.features.root}, as its "
            f"files say: name that store again, --store {found.features.root}, if they may be removed there"
        )
    removed = [*(name for finding in found.findings for name in finding.remove), *found.leftovers]
    for name in removed:
        if not store.holds(name):
            raise StorageError(f"{store.url(name)} lies behind a link that leads out of the folder: nothing is removed")
    for finding in found.findings:
        for name in finding.remove:
            store.remove(name)
            unseal(store, name)
    for names in discards:
        remove_faulty(found.features, names)
    if found.everything:
        unseal(store, *(JOINT_OUTCOME if found.parts else OUTCOME))
    for name in found.leftovers:
        store.remove(name)


def _same(one: Store, other: Store) -> bool:
    if one.is_local and other.is_local:
        return one.local(".").resolve() == other.local(".").resolve()
    return one.root.rstrip("/") == other.root.rstrip("/")


def sweep(store: Store) -> None:
    """Remove what stopped runs left half written, except in a folder of features, where other campaigns may write.

    Raises:
        StorageError: a file can't be removed.
    """
    for name in store.all_names(".", hidden=True):
        if is_passing(name) and not name.startswith(f"{FEATURES}/"):
            store.remove(name)


def _sealed(store: Store, names: Iterable[str], checked: Counter[str]) -> Iterator[Finding]:
    """Results that are not what was written, that were never completed, or that a finished campaign lacks."""
    there = set(names)
    expected = {*OUTCOME, *STRUCTURES, ASKED, *sealed(store)} | {name for name in there if is_result(name)}
    expected = {name for name in expected if not is_passing(name)}
    for name in sorted(expected):
        checked[_kind(name)] += name in there
        wrong = fault(store, name)
        if wrong:
            # A model is made as a whole.
            files = [name] if not name.startswith(f"{MODELS}/") else _siblings(name, there)
            yield Finding(name, wrong, tuple(files))


def _siblings(name: str, there: Iterable[str]) -> list[str]:
    folder = name.rsplit("/", 1)[0] + "/"
    return sorted({name, *(other for other in there if other.startswith(folder))})


def _kind(name: str) -> str:
    folder = name.partition("/")[0] if "/" in name else ""
    return folder or "outcome"


def _shards(features: Store, used: frozenset[str] | None, checked: Counter[str]) -> Iterator[Finding]:
    """Shards that are not what the manifest says, entries that can't be read, and files that belong to no entry.

    Args:
        features: the store.
        used: shards of the campaign's last run, in a store that others share: theirs are named and left alone, and a
            file without an entry may be one that somebody is writing. None for a store of the campaign's own.
        checked: counts them.
    """
    folders: dict[str, set[str]] = {}
    for name in features.all_names("."):
        where, _, file = name.partition("/")
        if re.fullmatch(r".+-[0-9a-f]{16}", where) and file.endswith((".json", ".parquet")):
            folders.setdefault(where, set()).add(file)
    for where, files in sorted(folders.items()):
        entries = list(entries_in(features, where))
        listed = {entry.key for entry in entries}
        checked["shards"] += len(entries)
        for entry, reason in damaged_shards(features, entries):
            wrong = reason.partition(entry.file)[2].strip() or reason
            mine = used is None or entry.file in used
            yield Finding(features.url(entry.file), wrong, discard=(entry.manifest, entry.file) if mine else ())
        for file in sorted(files):
            key = file.rsplit(".", 1)[0]
            if key in listed:
                continue
            name = f"{where}/{file}"
            mine = used is None or f"{where}/{key}.parquet" in used
            if file.endswith(".json"):
                wrong = "is no readable manifest entry: it is damaged"
                yield Finding(features.url(name), wrong, discard=(name,) if mine else ())
            elif used is None and f"{key}.json" not in files:
                yield Finding(features.url(name), "is not in the manifest: a run was stopped at it", discard=(name,))


def _model(store: Store, summary: dict[str, Any], damaged: set[str]) -> Iterator[Finding]:
    folder = summary["model"]["folder"]
    files = tuple(model_files(folder))
    if damaged & set(files):
        return
    missing = [name for name in files if not store.exists(name)]
    if missing:
        yield Finding(missing[0], "is not there though the summary names its model", files)
        return
    try:
        load_regressor(store, folder)
    except StorageError as error:
        yield Finding(folder, f"can't be loaded: {error}", files)
    except (ValueError, FileNotFoundError) as error:
        # Its parent, not the file: nothing here is damaged, and nothing must be repaired.
        raise StorageError(f"{store.url(folder)}: the model can't be checked on this machine: {error}") from error


def _rows(store: Store, features: Store, summary: dict[str, Any], damaged: set[str]) -> Iterator[Finding]:
    """Structures without features or prediction, discoveries that are gone, counts that are not those of the files."""
    discoveries = (summary["discovery"] or {}).get("files", [])
    for name in discoveries:
        if name not in damaged and not store.exists(name):
            yield Finding(name, "is not there though the summary names it")
    if damaged & {RANKING, FAILURES, LABELLED}:
        return
    counts = summary["counts"]
    ranked = _column(store, RANKING, "structure_hash")
    for name, found, said in (
        (RANKING, len(ranked), counts["candidates"]["ranked"]),
        (
            FAILURES,
            store.read_table(FAILURES, ["dataset"]).num_rows,
            counts["training"]["failed"] + counts["candidates"]["failed"],
        ),
        (
            LABELLED,
            store.read_table(LABELLED, ["value"]).num_rows,
            counts["training"].get("labelled", counts["training"]["learned_from"]),
        ),
    ):
        if found != said:
            yield Finding(name, f"has {found} rows, and the summary says {said}", (name,))
    folder = predictions_folder(summary["model"]["folder"])
    predicted: set[str] = set()
    for name in store.names(folder, ".parquet"):
        if name not in damaged:
            predicted.update(_column(store, name, "structure_hash"))
    if lost := set(ranked) - predicted:
        yield Finding(folder, f"lacks {len(lost)} structures of the ranking, e.g. {min(lost)}")
    # Summaries of before there were several parents say it of one.
    one = {summary["settings"]["features"]["parent"]: summary["model"]["parent_digest"]}
    for parent, digest in summary["model"].get("parents", one).items():
        held = {h for entry in FeatureStore(features, parent, digest, ()).entries() for h in entry.hashes}
        if lost := {*ranked, *_column(store, LABELLED, "structure_hash")} - held:
            yield Finding(features.root, f"lacks the features of {len(lost)} structures by {parent}, e.g. {min(lost)}")


def _column(store: Store, name: str, column: str) -> list[str]:
    with store.open(name) as file:
        try:
            values: list[str] = pq.read_table(file, columns=[column])[column].to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            raise StorageError(f"{store.url(name)} can't be read: {error}") from error
    return values


def _json(store: Store, name: str) -> dict[str, Any] | None:
    try:
        raw = store.read_json(name)
    except StorageError:
        return None
    return raw if isinstance(raw, dict) else None


def _feature_store(store: Store, summary: dict[str, Any] | None, asked: dict[str, Any] | None) -> Store:
    """Where the campaign keeps its features."""
    for raw in ((summary or {}).get("settings"), asked):
        if raw and (place := (raw.get("features") or {}).get("store")):
            return Store(place)
    return Store(store.url(FEATURES))
