"""One HTML file from the results of a campaign: no network, no second file."""

from __future__ import annotations

from datetime import datetime
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from atomsets_core.campaigns import REPORT
from atomsets_core.report import answer, columns, findings, methods, periodic, words
from atomsets_core.report.candidates.cards import cards
from atomsets_core.report.candidates.crystals import with_crystals
from atomsets_core.report.changes import changes as changes_of
from atomsets_core.report.classes import findings as class_findings
from atomsets_core.report.classes import words as class_words
from atomsets_core.report.downloads import downloads
from atomsets_core.report.figures import figures
from atomsets_core.report.markup import citation, formula, material
from atomsets_core.report.results import Results, read_results
from atomsets_core.report.words import (
    NONE,
    comparison_sentences,
    minus,
    number,
    percent,
    scale_name,
)
from atomsets_core.storage import Store

NAMED_AFTER_FIRST = 4
"""Shortlisted candidates named beside the first in the answer."""

PLOTLY, VIEWER = "vendor/plotly-basic.min.js", "vendor/3Dmol-min.js"
"""Libraries in the page; see vendor.json. Plotly's basic bundle is a quarter of the whole one."""

MOST_FAILURES = 50
"""Rows of the ledger on the page."""

DISCOVERY_COLUMNS = (
    ("model", "The first is the one this campaign uses. AtomSets is the model as described; with a linear readout it "
     "has no hidden layer after pooling; the Gaussian process, ridge and random forest see the same features, pooled; "
     "ridge and random forest of the composition see the formula alone; a sum is the mean of both, and "
     "the mixture that of AtomSets, the Gaussian process and ridge of the composition; random draws "
     "blindly; the oracle knows the answer."),
    ("R-precision", "Share of the hidden best among the first k picks, k being how many were hidden; mean and standard "
     "error over the repeats."),
    ("enrichment", "How many times more hidden best are among these k picks than blind picking finds on average."),
    ("error outside", "Mean absolute error on the hidden best, which lie beyond every value the model was trained on."),
    ("error inside", "Mean absolute error on the others, within the range of the training values."),
    ("bias outside", "Mean of predicted minus true for the hidden best: negative means underestimated."),
    ("Spearman outside", "Rank correlation within the hidden best: 1 puts them in the right order, 0 in any."),
    ("intervals hold outside", "Share of the hidden best inside the intervals as trained, before they are made to fit "
     "the candidates; beside it how wide these are, as a median."),
)  # fmt: skip

CLASS_COLUMNS = (
    ("model", "The first is the one this campaign uses. AtomSets is the model as described; logistic regression sees "
     "the same features, pooled, or the formula alone, as the random forest does; the mixture averages the log odds of "
     "AtomSets and both logistic regressions; random draws blindly; the oracle knows the answer."),
    ("R-precision", "Share of the hidden members of the class among the first k picks, k being how many were hidden; "
     "mean and standard error over the repeats."),
    ("enrichment", "How many times more of them are among these k picks than blind picking finds on average."),
    ("ROC-AUC", "How often a hidden member of the class has a higher probability than one that is not of it."),
    ("Brier score", "Mean squared error of the probabilities of the pool."),
    ("log loss", "Mean of minus the logarithm of the probability of what was true."),
    ("calibration error", "Mean difference between probabilities and what was true, over bins of the pool, which holds "
     "more of the class or less than the training data."),
)  # fmt: skip


def write_report(store: Store) -> None:
    """Write report.html beside the results of a finished campaign.

    Args:
        store: of the campaign; read are summary.json and the files it names, ranking.parquet and failures.parquet.

    Raises:
        StorageError: one of them is missing or damaged, or the report can't be written.
    """
    store.write(REPORT, render(read_results(store), changes_of(store)).encode())


def render(results: Results, changes: dict[str, Any] | None = None) -> str:
    """The report as HTML, with what changed since the last run if there was one; the same input gives the same text."""
    return page_environment().get_template("page.html").render(**_content(results), changes=changes)


def page_environment() -> Environment:
    """Templates of reports, with their filters."""
    environment = Environment(
        loader=PackageLoader("atomsets_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value, digits=3: number(_missing(value), digits),
        "decimals": lambda value, digits: NONE if _missing(value) is None else minus(f"{value:.{digits}f}"),
        "minus": minus,
        "percent": percent,
        "formula": formula,
        "material": material,
        "citation": citation,
        "thousands": lambda value: f"{value:,}",
    }
    environment.globals |= {"interval": columns.interval, "badge": columns.badge}
    return environment


def _content(results: Results) -> dict[str, Any]:
    """What the template shows."""
    summary, shortlist = results.summary, with_crystals(results.shortlist, results.crystals)
    first = None if shortlist.empty else shortlist.iloc[0].to_dict()
    inside, candidates = findings.best_inside(results), cards(results)
    of_class = "class" in summary
    said = class_findings if of_class else findings
    table = columns.page_table(summary, shortlist, results.ranking, [card.row["material_id"] for card in candidates])
    return {
        "summary": summary,
        "finished": date_text(summary["finished"]),
        "unit": "" if of_class else results.unit,
        "lead": f"{class_words.probability_of(summary)} " if of_class else "",
        "known": (lambda value: class_words.known_class(summary, value)) if of_class else number,
        "goal": results.goal,
        "symbol": words.symbol_of(summary),
        "scale": scale_name(summary),
        "word": {dataset: words.material(summary, dataset) for dataset in ("training", "candidates")},
        "transform": results.transform,
        "question": said.question(results),
        "tiles": said.tiles(results),
        "trust": said.trust(results),
        "asked": methods.asked(summary),
        "sources": {name: (methods.source_name(summary, name), about) for name, about in summary["sources"].items()},
        "shortlist": table,
        "elements": periodic.places(shortlist["formula"]),
        "numbers": [
            (heading.key, heading.name)
            for heading in table.headings
            if heading.kind == "number" and heading.key != "space_group_number"
        ],
        "answer": shortlist.iloc[: 1 + NAMED_AFTER_FIRST].to_dict("records"),
        "what_it_is": answer.what_it_is(first, results.crystals.get(str(first["material_id"]))) if first else "",
        "why": answer.why(results),
        "winner": answer.winner(results),
        "compared": comparison_sentences(summary),
        "best_inside": None if inside is None else inside.to_dict(),
        "has_hull": results.has_hull,
        "cards": candidates,
        "downloads": downloads(results),
        "figures": figures(results),
        "tables": periodic.tables(results.element_counts(), len(results.ranking), len(shortlist)),
        "discovery": _discovery(results),
        "failures": results.failures.iloc[:MOST_FAILURES].to_dict("records"),
        "n_failures": len(results.failures),
        "provenance": _provenance(summary),
        "references": methods.references(summary),
        "methods": methods.paragraph(summary),
        "style": asset("templates/report.css"),
        "script": asset("templates/report.js") + asset("templates/table.js"),
        "viewer_script": asset("templates/viewer.js"),
        "plotly": asset(PLOTLY),
        "viewer": asset(VIEWER),
    }


def _discovery(results: Results) -> dict[str, Any] | None:
    summary = results.summary
    if not summary["discovery"]:
        return None
    found = summary["discovery"]
    return {
        "header": class_words.discovery_header(summary),
        "rows": class_words.discovery_rows(summary),
        "columns": CLASS_COLUMNS if "class" in summary else DISCOVERY_COLUMNS,
        "hidden": class_words.class_hidden(summary) if "class" in summary else "",
        "sentences": class_words.discovery_sentences(summary),
        "n_hidden": found["n_hidden"],
        "n_pool": found["n_pool"],
        "n_train": f"{min(found['n_train']):,} to {max(found['n_train']):,}",
        "repeats": len(found["files"]),
    }


def _provenance(summary: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Versions, machine, digests and timings, as name and text."""
    model, machine = summary["model"], summary["machine"]
    digests = [
        ("model", model["folder"]),
        ("features", f"{model['features']}, parent {model['parent_digest']}"),
        ("discovery", (summary["discovery"] or {}).get("files", ["none"])[0].partition("-seed-")[0]),
    ]
    for dataset, source in summary["sources"].items():
        digests += [(f"{dataset} {key}", str(value)) for key, value in source.items() if key.endswith("sha256")]
    return {
        "Versions": [(name, str(text)) for name, text in summary["versions"].items()],
        "Machine": [("system", machine["system"]), ("cores", str(machine["cores"]))],
        "Seconds in this run": [(name, f"{seconds:,.1f}") for name, seconds in summary["seconds"].items()],
        "Done in this run": [(name.replace("_", " "), f"{n:,}") for name, n in summary["done"].items()],
        "Files and digests": digests,
    }


def date_text(text: str) -> str:
    """A moment of ISO 8601 in words."""
    moment = datetime.fromisoformat(text)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _missing(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def asset(name: str) -> Markup:
    """A style or script of this package, as it stands in the page."""
    text = resources.files("atomsets_core.report").joinpath(name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  # a file of this package
