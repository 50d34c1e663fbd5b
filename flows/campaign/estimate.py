"""What a campaign would do and how long it may take, from a small piece of it done on this machine.

What can be wrong with a request is looked for as a run does it, so that a dry run fails with the run's own words.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
import pyarrow as pa

from atomsets_core.campaigns import FEATURES, property_folder
from atomsets_core.discovery import LINEAR, OWN
from atomsets_core.features import AnyStore, open_features
from atomsets_core.jobs import (
    FAILED,
    agreed_kinds,
    agreed_units,
    computed,
    kind_of,
    none_left,
    source_numbers,
)
from atomsets_core.sources import (
    AS_THEY_COME,
    MATERIALS_PROJECT,
    REPEATED,
    UNREAD,
    MaterialsQuery,
    Pulled,
    SourceError,
    SourceUnavailableError,
    already_seen,
    class_labels,
    deduplicate,
    filter_reasons,
    find_column,
    find_endpoint,
    find_key,
    is_table,
    label_values,
    labelled_query,
    pull,
    read_blocks,
    read_labels,
    unread_filters,
    usable_labels,
)
from atomsets_core.storage import Store
from atomsets_core.structures import COMPOSITIONS, STRUCTURES, Structures, as_compositions
from atomsets_flows.campaign.costs import PIECE, Cost, Shown, measure
from atomsets_flows.campaign.credentials import needed, provided
from atomsets_flows.campaign.joint import JointCampaign
from atomsets_flows.campaign.sections import Campaign, Candidates, Training

BLOCKS = 4
"""Blocks of a table that are read; its other rows are taken to be like them."""


@dataclass(frozen=True)
class Estimate:
    """A campaign that isn't run.

    Attributes:
        pulled: data set -> entries of its source; None where only the source itself can tell.
        missing: structures without features that pass the filters; None likewise.
        labelled: rows with a value.
        rate: structures featurised a second by one worker, measured.
        workers: that share the work.
        featurize: seconds that features may take; None where the number of structures is unknown.
        train: seconds that training and simulated discovery may take.
        trainings: how many trainings of networks that are.
        seconds: of the whole run, starting workers and reading included; None where features are unknown.
        materials: what the candidates are, "structures" or "compositions".
        features: what features of several parents cost, in sentences.
        notes: what the user should know, in sentences.
    """

    pulled: dict[str, int | None]
    missing: int | None
    labelled: int | None
    rate: float
    workers: int
    featurize: float | None
    train: float
    trainings: int
    seconds: float | None = None
    materials: str = STRUCTURES
    features: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def estimate_together(campaign: JointCampaign, out: str) -> dict[str, Estimate]:
    """Property -> the estimate of its part; what several properties share counts once, with the first.

    Raises:
        SourceError: as of `estimate`, or an objective names neither a property nor a column of numbers.
        ValueError: the labels of a property can't be learned from as the campaign asks.
    """
    store = Store(out)
    with provided(needed(campaign.campaign_of(campaign.properties[0].name, store.url(FEATURES)), out)):
        offered = look_at(campaign.candidates)
    if offered is not None:
        _check_objectives(campaign, offered)
    counted: dict[str, set[str]] = {}
    found: dict[str, Estimate] = {}
    age = _age()
    for name in [one.name for one in campaign.properties]:
        asked = campaign.campaign_of(name, store.url(FEATURES))
        try:
            one = estimate(asked, store.url(property_folder(name)), offered, counted, 0.0 if found else age)
        except SourceUnavailableError:
            raise
        except (SourceError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
        found[name] = one
    return found


def _check_objectives(campaign: JointCampaign, offered: Shown) -> None:
    """Raise `SourceError` for an objective that names neither a property nor a column of numbers."""
    learned, kind = {one.name for one in campaign.properties}, kind_of(offered.pulled.structures)
    held = [name for name in offered.pulled.columns.columns if name not in (UNREAD, REPEATED)]
    for one in campaign.objectives:
        if one.property in learned:
            continue
        try:
            there = source_numbers(offered.pulled, one.property) is not None or one.property in computed(kind)
            wrong = f"{one.property!r} is no property of this campaign, and the candidates have no such column"
        except SourceError as error:
            there, wrong = not offered.whole, str(error)
        if not there:
            raise SourceError(
                f"objectives: {wrong}; properties are {', '.join(sorted(learned))}, columns are "
                f"{', '.join(dict.fromkeys([*held, *computed(kind)]))}"
            )


def estimate(
    campaign: Campaign,
    out: str,
    offered: Shown | None = None,
    counted: dict[str, set[str]] | None = None,
    age: float | None = None,
) -> Estimate:
    """Read both sources (a database isn't asked), look for what a run would refuse, and measure rates on a piece.

    Args:
        campaign: what is asked.
        out: folder or URL of the campaign.
        offered: the candidates, where they were read already.
        counted: digest of a parent -> content hashes that are featurised for somebody else; those of this are added.
        age: seconds that importing everything took, 0 where workers run already; by default those of this process.

    Raises:
        SourceError: a source can't be read, or a column, element, filter or key isn't what a run needs.
        ValueError: the labels can't be learned from as the campaign asks.
    """
    campaign = campaign.settled()
    age, started = _age() if age is None else age, time.perf_counter()
    options = campaign.features
    specs = options.specs(options.is_open and campaign.of_formulas)
    shards = Store(options.store or Store(out).url(FEATURES))
    with provided(needed(campaign, out)):
        training, candidates = look_at(campaign.training), offered or look_at(campaign.candidates)
    values = check_labels(campaign, training, candidates) if training else None
    passing = check_filters(campaign, candidates, training) if candidates else None
    reading = time.perf_counter() - started
    labelled = None if training is None or values is None else round(_share(np.isfinite(values)) * training.n)
    cost = measure(campaign, training, values, candidates, specs, labelled or PIECE)
    missing: dict[str, int] | None = None
    if training and candidates and passing is not None and values is not None:
        kept = [(training, np.isfinite(values)), (candidates, passing)]
        missing = _missing(open_features(shards, cost.spec), kept, {} if counted is None else counted)
    cores = len(os.sched_getaffinity(0))
    workers = campaign.cluster.workers or cores
    at_once = min(workers, cores) if campaign.cluster.kind == "local" else workers
    seeds = 0 if campaign.objective.goal in ("target", "window") else campaign.discovery.seeds
    heads = len({OWN, LINEAR}.intersection(campaign.heads))
    learning = max((cost.training + seeds * cost.discovery) / at_once, cost.training, cost.discovery if seeds else 0.0)
    featurize = (
        None if missing is None else sum(n * cost.share(name) for name, n in missing.items()) / cost.rate / at_once
    )
    seconds = None
    if featurize is not None and candidates is not None and passing is not None:
        predicting = cost.predict * _share(passing) * candidates.n / at_once
        # this process and its workers import the same; the ranking with its evidence takes about as long once more
        around = age * (2 + workers / min(workers, cores))
        seconds = around + reading + featurize + learning + predicting
    return Estimate(
        pulled={"training": training.n if training else None, "candidates": candidates.n if candidates else None},
        missing=None if missing is None else max(missing.values()),
        labelled=labelled,
        rate=cost.rate,
        workers=workers,
        featurize=featurize,
        train=learning,
        trainings=1 + seeds * heads,
        seconds=seconds,
        materials=kind_of(candidates.pulled.structures) if candidates else STRUCTURES,
        features=tuple(_features_told(campaign, cost, missing, training, candidates)),
        notes=(*_units(campaign, training, candidates), *_kinds(training, candidates)),
    )


def _missing(features: AnyStore, kept: list[tuple[Shown, Any]], counted: dict[str, set[str]]) -> dict[str, int]:
    """Parent -> structures that it has yet to featurise, of those that are kept, each content once."""
    found: dict[str, int] = {}
    for part in features.parts:
        others, n = counted.setdefault(part.digest, set()), 0.0
        for shown, rows in kept:
            hashes = np.array([h for h in pd.unique(shown.pulled.structures.hashes[rows]) if h not in others], object)
            others.update(hashes)
            n += round(shown.n / max(1, shown.pulled.n_seen) * float(part.locate(hashes).missing.sum()))
        found[part.parent] = round(n)
    return found


def _features_told(
    campaign: Campaign, cost: Cost, missing: dict[str, int] | None, training: Shown | None, candidates: Shown | None
) -> Iterator[str]:
    """What features of each parent cost, in sentences; and of what may be chosen what all of it costs."""
    if missing is not None and len(missing) > 1:
        for part in cost.priced[cost.spec]:
            n = missing[part.parent]
            yield (
                f"features of {part.parent} ({'+'.join(part.levels)}): {n * part.seconds / 3600:.2g} CPU hours and "
                f"{n * part.size / 1e9:.2g} GB for {n:,}"
            )
    if not campaign.features.is_open:
        return
    n = sum(shown.n for shown in (training, candidates) if shown)
    for text, parts in cost.priced.items():
        hours, size = (sum(getattr(part, what) for part in parts) * n for what in ("seconds", "size"))
        within = hours / 3600 <= campaign.features.cpu_hours
        yield (
            f"{text}: {hours / 3600:.2g} CPU hours and {size / 1e9:.2g} GB for all {n:,}, "
            + ("may be chosen" if within else f"left out, since features.cpu_hours is {campaign.features.cpu_hours:g}")
        )


def _age() -> float:
    """Seconds since this process began: what importing all of it took."""
    return float(time.time() - psutil.Process().create_time())


def _share(kept: npt.NDArray[np.bool_]) -> float:
    return float(kept.mean()) if len(kept) else 0.0


def _kinds(training: Shown | None, candidates: Shown | None) -> list[str]:
    if training is None or candidates is None:
        return []
    return agreed_kinds(training.pulled.structures, candidates.pulled.structures)


def _units(campaign: Campaign, training: Shown | None, candidates: Shown | None) -> list[str]:
    if campaign.wanted is not None:
        return []
    labelled = training.pulled.provenance if training else {}
    offered = candidates.pulled.provenance if candidates else {}
    return agreed_units(labelled, offered, campaign.training.target, campaign.training.unit)


def check_labels(campaign: Campaign, training: Shown, candidates: Shown | None) -> npt.NDArray[np.float64]:
    """(n,) the labels of what was read, NaN where there is none that a run would learn from.

    Raises:
        SourceError: what a run says of the target and its unit.
    """
    section, wanted = campaign.training, campaign.wanted
    if wanted is not None:
        try:
            return class_labels(training.pulled, section.target, wanted).values
        except SourceError:
            if training.whole:
                raise
            return np.full(len(training.pulled.structures), np.nan)
    _units(campaign, training, candidates)
    _kinds(training, candidates)
    values = label_values(training.pulled, section.target)
    try:
        usable, _ = usable_labels(training.pulled, section.target, section.transform)
    except SourceError:
        if training.whole:
            raise
        usable = np.zeros(len(values), dtype=bool)
    return np.where(usable, values, np.nan)


def check_filters(campaign: Campaign, candidates: Shown, training: Shown | None) -> npt.NDArray[np.bool_]:
    """(n,) which of the candidates that were read pass the filters.

    Raises:
        SourceError: what a run says of filters, elements and columns, or that none passes.
    """
    section, pulled = campaign.candidates, candidates.pulled
    first = Pulled(pulled.structures.take(np.arange(min(1, len(pulled.structures)))), pulled.columns.iloc[:1], [], {})
    deduplicate(first, section.deduplicate, prefer=section.prefer)
    bounds = {name: (limit.min, limit.max) for name, limit in section.filters.items()}
    columns = [name for name in bounds if name not in ("n_atoms", "n_elements")]
    unread = unread_filters(pulled, columns)
    reasons = filter_reasons(pulled, bounds, section.exclude_elements, section.only_elements)
    reasons[list(unread)] = FAILED
    if section.exclude_seen and training is not None:
        passing = np.flatnonzero(reasons == "")
        reasons[passing] = already_seen(pulled.structures.take(passing), training.pulled.structures)
    kept = reasons == ""
    if not kept.any() and candidates.whole:
        raise none_left(pulled.n_seen, Counter(str(reason) for reason in reasons), list(unread.values()))
    return kept


def look_at(section: Training | Candidates) -> Shown | None:
    """A source that lies on this machine; None for a database, of which only the key is looked for."""
    source = section.source
    if source == MATERIALS_PROJECT:
        find_endpoint()
        find_key()
        if section.labels:
            query = labelled_query(
                section.materials_query() or MaterialsQuery(),
                section.labels,
                section.id_column,
                section.table_options(),
            )
            if isinstance(section, Training):
                check_target(section, query)
        return None
    if "optimade:" in source:
        return None
    if section.labels is None and section.take == AS_THEY_COME and is_table(source):
        n, blocks = read_blocks(source, section.id_column, columns=True)
        read = list(islice(blocks, BLOCKS))
        columns = pa.concat_tables([block.columns for block in read]).to_pandas() if read else pd.DataFrame()
        structures = Structures.concat([block.structures for block in read])
        columns = columns if len(columns.columns) else pd.DataFrame(index=range(len(structures)))
        refused = [refusal for block in read for refusal in block.refused]
        pulled = Pulled(structures, columns, refused, {"name": Path(source).name, "path": source})
        return Shown(pulled, n, pulled.n_seen >= n)
    many = Path(source).is_dir() or source.endswith(".zip")
    options = {**section.pull_options(), "workers": len(os.sched_getaffinity(0)) if many else None}
    whole: Pulled[Any] = pull(source, labels=section.labels, id_column=section.id_column, compositions=True, **options)
    if section.take == COMPOSITIONS:
        whole = replace(whole, structures=as_compositions(whole.structures))
    return Shown(whole, whole.n_seen, True)


def check_target(section: Training, query: MaterialsQuery) -> None:
    """Whether the table of labels, or the database, has the column that is learned.

    Raises:
        SourceError: neither has.
    """
    table, _, _ = read_labels(str(section.labels), section.table_options())
    columns = [*table.frame.columns, *(column.name for column in query.columns())]
    if find_column(columns, section.target) is None:
        raise SourceError(f"no column {section.target!r} in {section.labels}; found {', '.join(table.frame.columns)}")


def told(found: Estimate, duration: Any) -> list[str]:
    """The estimate in sentences."""
    lines = []
    for name, n in found.pulled.items():
        lines.append(f"{name}: {f'{n:,} entries' if n is not None else 'a database, which is not asked in a dry run'}")
    if found.labelled is not None:
        lines.append(f"{found.labelled:,} of the training entries have a value")
    if found.missing is None:
        lines.append(
            f"features: {found.rate:,.0f} {found.materials}/s on each of {found.workers} workers, measured here"
        )
    else:
        lines.append(
            f"features: {found.missing:,} {found.materials} have none yet; at {found.rate:,.0f} a second on "
            f"each of {found.workers} workers, measured here, about {duration(found.featurize or 0.0)}"
        )
    lines.extend(found.features)
    lines.append(f"training: {found.trainings} trainings, about {duration(found.train)} unless they are stored already")
    lines.extend(found.notes)
    if found.seconds is not None:
        lines.append(f"the whole run: about {duration(found.seconds)}, with starting workers, reading and the report")
    lines.append("nothing was written")
    return lines
