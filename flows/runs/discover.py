"""The discovery flow: how well each head finds values beyond any it was trained on, before anything is spent.

One file for each target, head and seed, so that a run that is stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import flow
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from atomsets_core.discovery import (
    ACQUISITIONS,
    CHOSEN,
    UCB,
    average,
    choices,
    lead,
    lineup,
    random_budget,
    read_estimate,
    scored,
    specifications,
    summarize,
    summarize_searches,
    verdict,
)
from atomsets_core.jobs import PLAN, ROWS, design_of, load_rows
from atomsets_core.parents import load_parent
from atomsets_core.report import write_discovery_report
from atomsets_core.sources import SourceError, TableOptions, label_values, pull, usable_labels
from atomsets_core.storage import Store
from atomsets_core.transforms import LOG10
from atomsets_flows.campaign import Cluster
from atomsets_flows.runs.progress import Stage, note
from atomsets_tasks import answer_one, connect, featurize_rows, search_one, start_local

SEARCHES = (
    ("random", "none"),
    *((kind, "none") for kind in ACQUISITIONS),
    (UCB.name, "k-centre"),
    (UCB.name, "determinantal"),
)
"""Acquisition and diversity of each search that is played."""

VERSION = 1
"""Raised when the same plan gives other answers."""


class SearchOptions(BaseModel):
    """Sequential discovery: choose a batch, learn its values, train again."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seeds: int = Field(0, ge=0, le=100, description="Repeats of each search; 0 plays none.")
    share: float = Field(0.01, gt=0, lt=0.5, description="Share of the rows that is to be found.")
    n_start: int = Field(100, ge=10, description="Rows known at the start, from the worse half.")
    batch: int = Field(25, ge=1, description="Rows chosen at a time.")
    rounds: int = Field(20, ge=1, description="Batches.")
    kappa: float = Field(1.0, ge=0, description=f"Weight of the uncertainty in {UCB.name}.")


class Asked(BaseModel):
    """What `atomsets discover` is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = "elastic"
    source: str = "embedded:elastic"
    labels: str | None = None
    id_column: str = "material_id"
    separator: str = ""
    decimal: str = ""
    sheet: str = ""
    targets: list[str] = Field(default_factory=lambda: ["K_VRH", "G_VRH"])
    unit: str = "GPa"
    transform: str = LOG10.name
    goal: str = "maximize"
    quantile: float = Field(0.1, gt=0, le=0.5)
    pool_share: float = Field(0.2, gt=0, lt=1)
    strict: bool = Field(True, description="No row is trained on whose formula is in the pool.")
    seeds: int = Field(10, ge=1, le=100)
    heads: list[str] = Field(default_factory=list, description="Only these; all where none is named.")
    parents: list[str] = Field(default_factory=list, description="Only these; all that are installed by default.")
    rows: int | None = Field(None, ge=50, description="At most so many rows, chosen at random.")
    features: str | None = Field(None, description="Feature store to share; by default features/ of the folder.")
    search: SearchOptions = SearchOptions()  # type: ignore[call-arg]
    cluster: Cluster = Cluster()  # type: ignore[call-arg]
    workers: int | None = Field(None, ge=1, description="Local worker processes, instead of what the cluster says.")

    def start(self) -> Any:
        """The cluster, for `atomsets_tasks.client.connect`."""
        return self.cluster.start() if self.workers is None else start_local(self.workers, "auto")


@flow(name="discover", flow_run_name="{asked.name}", task_runner=ThreadPoolTaskRunner(max_workers=32))  # type: ignore[arg-type]
def discover(asked: Asked, out: str) -> dict[str, Any]:
    """Compare heads in simulated discoveries, or do what is missing of it.

    Args:
        asked: what.
        out: folder or URL.

    Returns:
        The content of discovery.json.

    Raises:
        SourceError: a source, column or head that doesn't fit; the message says what to change.
    """
    started = time.perf_counter()
    store = Store(out)
    with store.lock():
        plan, counts = prepare(asked, store)
        with connect(asked.start, note):
            wait("features", asked.name, [featurize_rows.submit(store.root, name) for name in plan["parents"]])
            wait("discover", asked.name, submit_answers(store, plan))
            if plan["search"]["seeds"]:
                wait("search", asked.name, submit_searches(store, plan))
        result = {**summary(store, plan, counts), "seconds": round(time.perf_counter() - started, 1)}
        store.write_json("discovery.json", result)
        write_discovery_report(store)
        for told in result["targets"].values():
            if not told["verdict"]["better_than_random"]:
                note(f"{told['target']}: the ranking is no better than a blind choice")
        return result


def prepare(asked: Asked, store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pull the rows and write the plan.

    Returns:
        The plan, and how many entries were seen, used and refused.
    """
    table = TableOptions(asked.separator, asked.decimal, asked.sheet)
    pulled = pull(asked.source, labels=asked.labels, id_column=asked.id_column, table=table)
    usable = np.ones(len(pulled.structures), dtype=bool)
    for target in asked.targets:
        usable &= usable_labels(pulled, target, asked.transform)[0]
    rows = np.flatnonzero(usable)
    if asked.rows is not None and len(rows) > asked.rows:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[: asked.rows])
    table = pulled.structures.take(rows).to_arrow()
    for target in asked.targets:
        values = label_values(pulled, target)[rows]
        table = table.append_column(f"value:{target}", pa.array(values))
    parents = asked.parents or [name for name in ("megnet", "chgnet") if installed(name)]
    known = list(lineup(parents))
    wrong = [name for name in asked.heads if name not in known]
    if wrong:
        raise SourceError(f"no head {wrong[0]!r}; there are {', '.join(known)}")
    digests = {name: load_parent(name).digest for name in parents}
    options = asked.model_dump(include={"targets", "transform", "goal", "quantile", "pool_share", "strict"})
    content = [
        list(map(str, table["structure_hash"].to_pylist())),
        *(table[f"value:{t}"].to_pylist() for t in asked.targets),
    ]
    plan = {
        **options,
        "name": asked.name,
        "unit": asked.unit,
        "source": pulled.provenance,
        "parents": parents,
        "specifications": specifications(parents),
        "digests": digests,
        "heads": asked.heads or known,
        "seeds": asked.seeds,
        "search": asked.search.model_dump(),
        "features": asked.features,
        "key": _key(VERSION, content, digests, specifications(parents), options),
    }
    store.write_table(ROWS, table)
    store.write_json(PLAN, plan)
    counts = {"seen": pulled.n_seen, "usable": int(usable.sum()), "used": len(rows)}
    return plan, counts


def installed(parent: str) -> bool:
    """Whether the package with a parent's weights is there."""
    try:
        load_parent(parent)
    except (FileNotFoundError, ValueError):
        return False
    return True


def submit_answers(store: Store, plan: dict[str, Any]) -> list[PrefectFuture]:
    """Start what is missing of the answers, the slow ones first."""
    entries = lineup(plan["parents"])
    missing = [
        (target, head, seed, name)
        for target in plan["targets"]
        for head in plan["heads"]
        for seed in seeds_of(plan, head)
        if not store.exists(name := answer_name(plan, target, head, seed))
    ]
    missing.sort(key=lambda item: entries[item[1]].most_seeds is None)
    return [answer_one.submit(store.root, *item, priority=-place) for place, item in enumerate(missing)]


def seeds_of(plan: dict[str, Any], head: str) -> range:
    """The repeats a head gets."""
    most = lineup(plan["parents"])[head].most_seeds
    return range(plan["seeds"] if most is None else min(plan["seeds"], most))


def answer_name(plan: dict[str, Any], target: str, head: str, seed: int) -> str:
    """File of one answer."""
    return f"answers/{plan['key']}/{_slug(target)}--{_slug(head)}--seed-{seed}.json"


def submit_searches(store: Store, plan: dict[str, Any]) -> list[PrefectFuture]:
    """Start what is missing of the searches."""
    return [
        search_one.submit(store.root, target, kind, diversity, seed, name)
        for target in plan["targets"]
        for kind, diversity in SEARCHES
        for seed in range(plan["search"]["seeds"])
        if not store.exists(name := search_name(plan, target, kind, diversity, seed))
    ]


def search_name(plan: dict[str, Any], target: str, kind: str, diversity: str, seed: int) -> str:
    """File of one search."""
    rules = {name: value for name, value in plan["search"].items() if name != "seeds"}
    return f"searches/{_key(plan['key'], rules)}/{_slug(target)}--{kind}--{diversity}--seed-{seed}.json"


def wait(stage: str, name: str, futures: Sequence[PrefectFuture]) -> None:
    """Wait for tasks, showing progress; the first failure is raised."""
    bar = Stage(stage, name, len(futures))
    for future in as_completed(list(futures)):
        future.result()
        bar.advance()


def summary(store: Store, plan: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    """discovery.json from the answers and searches."""
    return {
        "name": plan["name"],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": {k: v for k, v in plan.items() if k not in ("source", "key")},
        "source": plan["source"],
        "counts": counts,
        "targets": {target: _of_target(store, plan, target) for target in plan["targets"]},
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("torch", "numpy", "scikit-learn")},
        },
        "machine": {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))},
    }


def _of_target(store: Store, plan: dict[str, Any], target: str) -> dict[str, Any]:
    rows, values = load_rows(store.root)
    entries = {name: entry for name, entry in lineup(plan["parents"]).items() if name in plan["heads"]}
    offered = choices(entries)
    runs, seconds = [], dict.fromkeys(entries, 0.0)
    for seed in range(plan["seeds"]):
        answers = {
            head: store.read_json(answer_name(plan, target, head, seed))
            for head in entries
            if seed in seeds_of(plan, head)
        }
        for head, found in answers.items():
            seconds[head] += found["seconds"]
        runs.append(scored(answers, values[target], rows.formula, design_of(plan), seed, offered or None))
    table = summarize(runs)
    best = next(row for row in table if row["head"] not in ("random", "oracle"))
    own = best["head"]
    rivals = [row["head"] for row in table if row["head"] not in (own, "random", "oracle")]
    return {
        "target": target,
        "runs": runs,
        "table": table,
        "chosen": [run["chosen"] for run in runs],
        "verdict": verdict(runs, best["r_precision"]),
        "leads": {
            rival: {score: lead(runs, own, rival, score) for score in ("r_precision", "mae_outside")}
            for rival in rivals
        }
        if own == CHOSEN
        else {},
        "seconds": {head: round(total, 1) for head, total in seconds.items()},
        "parity": _parity(store, plan, target, own, offered, runs[0]),
        "search": _searches(store, plan, target),
    }


def _parity(
    store: Store, plan: dict[str, Any], target: str, own: str, offered: dict[str, list[str]], run: dict[str, Any]
) -> dict[str, Any]:
    """The pool of the first repeat as one head sees it."""
    rows, values = load_rows(store.root)
    head = run["chosen"]["head"] if own == CHOSEN else own
    parts = [read_estimate(store.read_json(answer_name(plan, target, name, 0))) for name in offered.get(head, [head])]
    pool = design_of(plan).holdout(values[target], rows.formula, 0)
    return {
        "head": head,
        "boundary": run["boundary"],
        "true": values[target][pool.pool].tolist(),
        "predicted": average(parts).mean.tolist(),
        "hidden": pool.hidden.tolist(),
        "formula": [str(formula) for formula in rows.formula[pool.pool]],
    }


def _searches(store: Store, plan: dict[str, Any], target: str) -> dict[str, Any] | None:
    seeds = plan["search"]["seeds"]
    if not seeds:
        return None
    runs = [
        store.read_json(search_name(plan, target, kind, diversity, seed))
        for kind, diversity in SEARCHES
        for seed in range(seeds)
    ]
    first = runs[0]
    return {
        **{name: first[name] for name in ("n_start", "n_pool", "n_wanted")},
        "random_budget": random_budget(first["n_wanted"], first["n_pool"], 0.5),
        "table": summarize_searches(runs, 0.5),
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
