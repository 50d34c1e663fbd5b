"""What a campaign would do and how long it may take, from a small piece of it done on this machine.

What can be wrong with a request is looked for as a run does it, so that a dry run fails with the run's own words.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
import pyarrow as pa
import torch

from atomsets_core.campaigns import FEATURES, property_folder
from atomsets_core.discovery import LINEAR, OWN, Rows, answer, campaign_heads, design_of
from atomsets_core.features import FeatureStore
from atomsets_core.jobs import (
    FAILED,
    agreed_kinds,
    agreed_units,
    computed,
    kind_of,
    none_left,
    source_numbers,
)
from atomsets_core.models import regressor_of
from atomsets_core.parents import load_parent
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
from atomsets_core.transforms import transform_target
from atomsets_flows.campaign.credentials import needed, provided
from atomsets_flows.campaign.joint import JointCampaign
from atomsets_flows.campaign.sections import Campaign, Candidates, Training

PIECE = 200
"""Structures that are featurised and learned from to measure a rate."""

BLOCKS = 4
"""Blocks of a table that are read; its other rows are taken to be like them."""

FEW, MORE = 2, 6
"""Epochs of the trainings that are timed: what the second takes longer is the cost of the epochs between."""

SQUARED = "Gaussian process"
"""Heads with this in their name take four times as long for twice the rows; the others twice as long."""


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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What was read of a source.

    Attributes:
        pulled: all of it, or the first blocks.
        n: entries that the source holds.
        whole: whether that is all.
    """

    pulled: Pulled
    n: int
    whole: bool


def estimate_together(campaign: JointCampaign, out: str) -> dict[str, Estimate]:
    """Property -> the estimate of its part; what several properties share counts once, with the first.

    Raises:
        SourceError: as of `estimate`, or an objective names neither a property nor a column of numbers.
        ValueError: the labels of a property can't be learned from as the campaign asks.
    """
    store = Store(out)
    with provided(needed(campaign.campaign_of(campaign.properties[0].name, store.url(FEATURES)), out)):
        offered = _read(campaign.candidates)
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
    shards = Store(campaign.features.store or Store(out).url(FEATURES))
    features = FeatureStore.of(shards, campaign.features.parent, campaign.features.chosen)
    with provided(needed(campaign, out)):
        training, candidates = _read(campaign.training), offered or _read(campaign.candidates)
    values = check_labels(campaign, training, candidates) if training else None
    passing = check_filters(campaign, candidates, training) if candidates else None
    reading = time.perf_counter() - started
    labelled = None if training is None or values is None else round(_share(np.isfinite(values)) * training.n)
    missing = None
    if training and candidates and passing is not None and values is not None:
        counts = []
        for shown, kept in ((training, np.isfinite(values)), (candidates, passing)):
            others = (counted if counted is not None else {}).setdefault(features.digest, set())
            hashes = np.array([h for h in pd.unique(shown.pulled.structures.hashes[kept]) if h not in others], object)
            others.update(hashes)
            counts.append(round(shown.n / max(1, shown.pulled.n_seen) * float(features.locate(hashes).missing.sum())))
        missing = sum(counts)
    cores = len(os.sched_getaffinity(0))
    workers = campaign.cluster.workers or cores
    at_once = min(workers, cores) if campaign.cluster.kind == "local" else workers
    cost = measure(campaign, training, values, candidates, features.levels, labelled or PIECE)
    seeds = 0 if campaign.objective.goal in ("target", "window") else campaign.discovery.seeds
    heads = len({OWN, LINEAR}.intersection(campaign.heads))
    learning = max((cost.training + seeds * cost.discovery) / at_once, cost.training, cost.discovery if seeds else 0.0)
    featurize = None if missing is None else missing / cost.rate / at_once
    seconds = None
    if featurize is not None and candidates is not None and passing is not None:
        predicting = cost.predict * _share(passing) * candidates.n / at_once
        # this process and its workers import the same; the ranking with its evidence takes about as long once more
        around = age * (2 + workers / min(workers, cores))
        seconds = around + reading + featurize + learning + predicting
    return Estimate(
        pulled={"training": training.n if training else None, "candidates": candidates.n if candidates else None},
        missing=missing,
        labelled=labelled,
        rate=cost.rate,
        workers=workers,
        featurize=featurize,
        train=learning,
        trainings=1 + seeds * heads,
        seconds=seconds,
        materials=kind_of(candidates.pulled.structures) if candidates else STRUCTURES,
        notes=(*_units(campaign, training, candidates), *_kinds(training, candidates)),
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


@dataclass(frozen=True)
class Cost:
    """What a piece of the work took.

    Attributes:
        rate: structures featurised a second by one worker.
        training: seconds of the training of the model.
        discovery: seconds of one simulated discovery.
        predict: seconds a candidate takes.
    """

    rate: float
    training: float
    discovery: float
    predict: float


def measure(
    campaign: Campaign,
    training: Shown | None,
    values: npt.NDArray[np.float64] | None,
    candidates: Shown | None,
    levels: tuple[str, ...],
    rows: int,
) -> Cost:
    """Featurise and learn from a piece of the data on one thread, as a worker has it.

    Args:
        campaign: what is asked.
        training: what was read of it; without any the embedded elastic data stand for it.
        values: of its rows, NaN where there is none.
        candidates: what was read of them.
        levels: of the parent.
        rows: that the model will learn from.
    """
    generator = np.random.default_rng(0)
    if training is None or values is None or not np.isfinite(values).any():
        known = pull("embedded:elastic")
        values, source = generator.lognormal(size=len(known.structures)), known.structures
        if campaign.wanted is not None:
            values = (values > 1.0).astype(np.float64)
    else:
        source = training.pulled.structures
    labelled = np.flatnonzero(np.isfinite(values))
    if campaign.wanted is None:
        chosen = np.sort(generator.permutation(labelled)[:PIECE])
    else:  # of a rare class none might be among so few
        kinds = [generator.permutation(labelled[values[labelled] == kind])[: PIECE // 2] for kind in (0.0, 1.0)]
        chosen = np.sort(np.concatenate(kinds))
    parent = load_parent(campaign.features.parent)
    with _one_thread():
        parent.featurize(source.take(chosen[:8]), levels)  # compiles, loads
        start = time.perf_counter()
        found = parent.featurize(source.take(chosen), levels)
        rate = len(chosen) / (time.perf_counter() - start)
        if candidates is not None:
            offered = candidates.pulled.structures
            some = offered.take(np.sort(generator.permutation(len(offered))[:PIECE]))
            start = time.perf_counter()
            parent.featurize(some, levels)
            slower = len(some) / (time.perf_counter() - start)
            n_offered = candidates.n
            rate = (n_offered + rows) / (n_offered / slower + rows / rate)
        of_name = dict(zip(source.material_id, values, strict=True))
        labels = np.array([of_name[name] for name in found.material_id])
        return _learning(campaign, campaign.parameters, found, labels, rows, rate)


def _learning(
    campaign: Campaign, options: dict[str, Any], found: Any, labels: npt.NDArray[np.float64], rows: int, rate: float
) -> Cost:
    """What training, simulated discovery and predicting cost, from a piece of each."""
    regressor_of({**options, "epochs": 1}).fit(found, labels)
    took = []
    for epochs in (FEW, MORE):
        start = time.perf_counter()
        model = regressor_of({**options, "epochs": epochs}).fit(found, labels)
        took.append(time.perf_counter() - start)
    epoch = max(0.0, (took[1] - took[0]) / (MORE - FEW))
    more = rows / len(found)
    network = more * (max(0.0, took[0] - FEW * epoch) + epoch * options["epochs"])
    start = time.perf_counter()
    model.predict_distribution(found)
    predict = (time.perf_counter() - start) / len(found)
    wanted, asked = campaign.discovery, campaign.objective.goal
    if not wanted.seeds or asked in ("target", "window"):
        return Cost(rate, network, 0.0, predict)
    goal = asked if asked in ("minimize", "class") else "maximize"
    design = design_of({"goal": goal, "quantile": wanted.quantile, "pool_share": wanted.pool_share})
    heads = campaign_heads({**options, "epochs": 1}, campaign.heads)
    target, seen = transform_target(labels, campaign.training.transform), Rows(found)
    spent = 0.0
    try:
        for name, head in heads.items():
            took_head = answer(head, seen, target, design, 0)["seconds"]
            if name in (OWN, LINEAR):
                spent += network * (1 - wanted.quantile) * (1 - wanted.pool_share)
            else:
                spent += took_head * (more**2 if SQUARED in name else more)
    except ValueError:  # too few labels to hide some: a run goes on without
        spent = 0.0
    allowed = 60.0 * wanted.minutes / wanted.seeds
    return Cost(rate, network, min(spent, max(allowed, network)), predict)


@contextmanager
def _one_thread():  # type: ignore[no-untyped-def]
    """As many threads as a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(section: Training | Candidates) -> Shown | None:
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
    lines.append(f"training: {found.trainings} trainings, about {duration(found.train)} unless they are stored already")
    lines.extend(found.notes)
    if found.seconds is not None:
        lines.append(f"the whole run: about {duration(found.seconds)}, with starting workers, reading and the report")
    lines.append("nothing was written")
    return lines
