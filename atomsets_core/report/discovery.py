"""The report of `atomsets discover`: one HTML file with tables, hits against budget, parity with the range shaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined

from atomsets_core.campaigns import REPORT
from atomsets_core.discovery import REFERENCES
from atomsets_core.parents import about_parent
from atomsets_core.report import methods
from atomsets_core.report.discovery_words import (
    choice_sentence,
    search_rows,
    search_sentence,
    sentence,
    table_header,
    table_rows,
)
from atomsets_core.report.markup import citation
from atomsets_core.report.page import PLOTLY, asset
from atomsets_core.report.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, Figure, to_json
from atomsets_core.storage import Store
from atomsets_core.transforms import find_transform

LINES = ((BLUE, "solid"), (ORANGE, "dash"), (GREEN, "dashdot"), (PURPLE, "longdash"))
SHOWN = (
    "AtomSets, linear readout",
    "Gaussian process",
    "random forest",
    "MEGNet from scratch",
    "AtomSets from scratch",
)


def write_discovery_report(store: Store) -> None:
    """Write report.html beside discovery.json.

    Raises:
        StorageError: discovery.json is missing or damaged, or the report can't be written.
    """
    result = store.read_json("discovery.json")
    environment = Environment(
        loader=PackageLoader("atomsets_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["citation"] = citation
    sections = [
        {
            "target": target,
            "sentence": sentence(result, told),
            "choice": choice_sentence(told),
            "header": table_header(result),
            "rows": table_rows(told),
            "figures": figures(result, told),
            "search": search_sentence(told) if told["search"] else "",
            "search_rows": search_rows(told) if told["search"] else [],
        }
        for target, told in result["targets"].items()
    ]
    parents = [about_parent(name) for name in result["asked"].get("parents", ())]
    page = environment.get_template("discovery.html").render(
        result=result,
        sections=sections,
        parents=parents,
        references=methods.cited(parents, [result["source"]]),
        style=asset("templates/report.css"),
        script=asset("templates/report.js"),
        plotly=asset(PLOTLY),
    )
    store.write(REPORT, page.encode())


def figures(result: dict[str, Any], told: dict[str, Any]) -> list[Figure]:
    """Every figure there are data for."""
    made = [hits(told), parity(result, told)]
    if told["search"]:
        made.append(searches(told))
    return made


def shown(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table whose curves are drawn: the chosen, a few others, and the references."""
    rows = told["table"]
    first = [row for row in rows if row["head"] not in REFERENCES][:1]
    picked = [next((row for row in rows if row["head"].startswith(name)), None) for name in SHOWN]
    # Of the parents the last is the richest.
    last = [next((row for row in reversed(rows) if row["head"].startswith(name)), None) for name in SHOWN[:2]]
    found = [*first, *last, *picked[2:], *(row for row in rows if row["head"] in REFERENCES)]
    unique = {row["head"]: row for row in found if row is not None}
    return list(unique.values())


def hits(told: dict[str, Any]) -> Figure:
    """Hidden values found, against how many were looked at."""
    figure, run = go.Figure(), told["runs"][0]
    budget = np.arange(1, run["n_pool"] + 1)
    styles = iter(LINES * 3)
    for row in shown(told):
        color, dash = (
            (GREY, "dot" if row["head"] == "random" else "solid") if row["head"] in REFERENCES else next(styles)
        )
        figure.add_scatter(
            x=budget, y=np.round(row["hits"], 2), mode="lines", name=row["head"],
            line={"color": color, "dash": dash, "width": 1.2 if row["head"] in REFERENCES else 2},
        )  # fmt: skip
    figure.add_vline(x=run["n_hidden"], line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="looked at")
    figure.update_yaxes(title="hidden found", rangemode="tozero")
    return Figure(
        f"hits-{told['target']}",
        f"{told['target']}: hits against budget",
        "Hidden values among the first of each ranking, mean of the repeats; R-precision is read at the dotted line.",
        to_json(figure),
    )


def parity(result: dict[str, Any], told: dict[str, Any]) -> Figure:
    """Predictions of the first repeat against the true values; what lies beyond the training range is shaded."""
    found, figure = told["parity"], go.Figure()
    true, predicted, hidden = (np.array(found[name]) for name in ("true", "predicted", "hidden"))
    ends = [float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))]
    margin = 0.03 * (ends[1] - ends[0])
    ends = [ends[0] - margin, ends[1] + margin]
    beyond = [found["boundary"], ends[1]] if result["asked"]["goal"] == "maximize" else [ends[0], found["boundary"]]
    figure.add_vrect(x0=beyond[0], x1=beyond[1], fillcolor=ORANGE, opacity=0.12, line_width=0)
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1}, name="predicted = true", hoverinfo="skip"
    )
    for chosen, name, color, symbol in (
        (~hidden, "inside the training range", BLUE, "circle"),
        (hidden, "hidden", ORANGE, "diamond"),
    ):
        figure.add_scatter(
            x=np.round(true[chosen], 4), y=np.round(predicted[chosen], 4), mode="markers", name=name,
            marker={"color": color, "size": 6, "symbol": symbol, "opacity": 0.8},
            text=[f for f, c in zip(found["formula"], chosen, strict=True) if c],
        )  # fmt: skip
    label = find_transform(result["asked"]["transform"]).of(told["target"])
    figure.update_xaxes(title=f"{label}, true", range=ends)
    figure.update_yaxes(title=f"{label}, predicted", range=ends)
    return Figure(
        f"parity-{told['target']}",
        f"{told['target']}: the pool of the first repeat",
        f"{found['head']}. On the shaded ground lie values beyond every one it was trained on.",
        to_json(figure),
    )


def searches(told: dict[str, Any]) -> Figure:
    """Wanted rows found by each sequential search."""
    figure, asked = go.Figure(), told["search"]
    styles = iter(LINES * 3)
    for row in asked["table"]:
        color, dash = (GREY, "dot") if row["search"] == "random" else next(styles)
        budget = np.arange(1, len(row["curve"]) + 1)
        figure.add_scatter(
            x=budget, y=np.round(row["curve"], 2), mode="lines", name=row["search"],
            line={"color": color, "dash": dash, "width": 1.2 if row["search"] == "random" else 2},
        )  # fmt: skip
    length = max(len(row["curve"]) for row in asked["table"])
    budget = np.arange(1, length + 1)
    figure.add_scatter(
        x=budget, y=np.minimum(budget, asked["n_wanted"]), mode="lines", name="oracle", line={"color": GREY, "width": 1}
    )
    figure.add_hline(y=asked["n_wanted"] / 2, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="values learned")
    figure.update_yaxes(title=f"found of the {asked['n_wanted']:,} best", rangemode="tozero")
    return Figure(
        f"search-{told['target']}",
        f"{told['target']}: sequential search",
        "A Gaussian process chooses a batch, learns its values, and chooses again; mean of the repeats. Half of what "
        "is to be found is at the dotted line.",
        to_json(figure),
    )
