"""One HTML file from the results of a campaign of several properties: no network, no second file."""

from __future__ import annotations

import html
import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from atomsets_core.campaigns import EVIDENCE, FAILURES, LABELLED, RANKING, REPORT, SUMMARY, property_folder
from atomsets_core.discovery import AXES
from atomsets_core.report.answer import what_it_is
from atomsets_core.report.candidates import drawing
from atomsets_core.report.candidates.crystals import crystal, facts
from atomsets_core.report.downloads import cif_zip, data_uri, safe_name
from atomsets_core.report.joint.words import (
    asked_names,
    called_in,
    chance,
    joint_sentences,
    label_of,
    question,
    search_rows,
    search_sentences,
    sought,
    unit_of,
    value_text,
)
from atomsets_core.report.markup import script_json
from atomsets_core.report.page import MOST_FAILURES, PLOTLY, VIEWER, asset, date_text, page_environment
from atomsets_core.report.periodic import places
from atomsets_core.report.plotting import (
    BLUE,
    GREY,
    ORANGE,
    Figure,
    axis,
    axis_range,
    faint,
    hover_unit,
    names,
    small,
    thin,
    to_json,
)
from atomsets_core.report.words import number, percent, scale_name, with_unit
from atomsets_core.storage import Store, csv_text
from atomsets_core.transforms import find_transform

MOST_PLOTS = 6
"""Pairs of properties that are drawn at most."""

MOST_CARDS = 30
"""Pictures on the page at most."""


@dataclass(frozen=True)
class JointCard:
    """One candidate: its row, its picture, its atoms for the rotatable one, its values and its crystal in words."""

    row: dict[str, Any]
    picture: Markup
    atoms: Markup
    legend: list[dict[str, Any]]
    values: list[tuple[str, str]]
    about: list[tuple[str, str]]


def write_joint_report(store: Store) -> None:
    """Write report.html beside the results of a finished campaign of several properties.

    Args:
        store: of the campaign; read are summary.json, ranking.parquet, evidence.json, failures.parquet and what the
            properties' own campaigns learned from.

    Raises:
        StorageError: one of them is missing or damaged, or the report can't be written.
    """
    store.write(REPORT, render(store).encode())


def render(store: Store) -> str:
    """The report as HTML; the same files give the same text."""
    summary = store.read_json(SUMMARY)
    ranking = store.read_table(RANKING).to_pandas()
    shortlist = ranking[ranking["shortlist"]]
    failures = store.read_table(FAILURES).to_pandas()
    asked = asked_names(summary)
    labels = {name: label_of(summary, name) for name in asked}
    limits = [name.removesuffix("_probability") for name in shortlist if name.endswith("_probability")]
    has_front = bool(shortlist["p_front"].notna().any())
    has_hull = "e_above_hull" in shortlist and bool(shortlist["e_above_hull"].notna().any())
    has_hull = has_hull and "e_above_hull" not in asked
    evidence = {row["material_id"]: row for row in store.read_json(EVIDENCE)["candidates"]}
    rows = shortlist.to_dict("records")
    return page_environment().get_template("joint.html").render(
        summary=summary,
        finished=date_text(summary["finished"]),
        question=question(summary),
        answer=rows[:5],
        asked=asked,
        units={name: unit_of(summary, name) for name in asked},
        value_text=value_text,
        chance=chance,
        sought=sought(summary),
        sentences=[line for line in joint_sentences(summary)[1:] if line not in search_sentences(summary)],
        tiles=_tiles(summary),
        searches=search_rows(summary),
        search_sentences=search_sentences(summary),
        shortlist=rows,
        known={name: f"{name}_known" in shortlist for name in asked},
        what_it_is=what_it_is(rows[0], crystal(evidence.get(rows[0]["material_id"], {}))) if rows else "",
        labels=labels,
        elements=places(shortlist["formula"]),
        numbers=[
            *labels.items(),
            *((f"{name}_probability", f"chance of {name}") for name in limits),
            *([("p_front", "on the front")] if has_front else []),
            *([("e_above_hull", "above hull (eV/atom)")] if has_hull else []),
        ],
        helps={
            "p_front": "Probability to be on the Pareto front and to meet all limits",
            **{f"{name}_probability": "Probability that the limit on it is met" for name in limits},
        },
        limits=limits,
        has_front=has_front,
        has_hull=has_hull,
        cards=[_card(summary, asked, row, evidence[row["material_id"]]) for row in rows[:MOST_CARDS]
               if row["material_id"] in evidence],
        figures=_figures(store, summary, ranking, shortlist),
        downloads=_downloads(summary, shortlist, evidence),
        failures=failures.iloc[:MOST_FAILURES].to_dict("records"),
        n_failures=len(failures),
        style=asset("templates/report.css"),
        script=asset("templates/report.js") + asset("templates/table.js"),
        viewer_script=asset("templates/viewer.js"),
        plotly=asset(PLOTLY),
        viewer=asset(VIEWER),
    )  # fmt: skip


def _tiles(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Numbers that say how far to trust it."""
    tiles = []
    for name, about in summary["properties"].items():
        model = about["model"]
        if "roc_auc" in model:
            tiles.append(
                {
                    "name": f"{name}: ROC-AUC out of fold",
                    "value": f"{model['roc_auc']:.3f}",
                    "note": f"{about['training']['learned_from']:,} labels",
                }
            )
        elif "mae" in model:
            scale = scale_name(about)
            tiles.append(
                {
                    "name": f"{name}: error out of fold",
                    "value": with_unit(number(model["mae"]), scale),
                    "note": f"R² {model['r2']:.3f}, {about['training']['learned_from']:,} values",
                }
            )
    together = summary["together"]
    found = {row["strategy"]: row for row in together["strategies"]}
    if summary["combine"] in found:
        row = found[summary["combine"]]
        tiles.append(
            {
                "name": f"Of {sought(summary)}, found in a tenth",
                "value": percent(row["found"]),
                "note": f"a blind choice finds {percent(found['random']['found'])}",
            }
        )
    return tiles


def _card(summary: dict[str, Any], asked: list[str], row: dict[str, Any], about: dict[str, Any]) -> JointCard:
    drawn = drawing.draw(np.array(about["lattice"]), about["numbers"], np.array(about["frac"]))
    colors = {symbol: drawing.color(symbol) for symbol in dict.fromkeys(drawn.symbol)}
    return JointCard(
        row,
        drawing.picture(drawn),
        script_json(json.dumps({**drawn.as_json(), "colors": colors, "shares": []})),
        drawing.legend(drawn),
        [(called_in(summary, name), value_text(row, name, unit_of(summary, name))) for name in asked],
        facts(crystal(about), row.get("matter")),
    )


def _downloads(
    summary: dict[str, Any], shortlist: pd.DataFrame, evidence: dict[str, dict[str, Any]]
) -> list[dict[str, str]]:
    name = safe_name(summary["campaign"])
    made = [
        {
            "text": "Shortlist (CSV)", "name": f"{name}-shortlist.csv",
            "url": data_uri("text/csv", csv_text(shortlist.drop(columns="shortlist")).encode()),
        }
    ]  # fmt: skip
    structures = [evidence[m] for m in shortlist["material_id"] if m in evidence]
    if structures:
        data, _ = cif_zip(structures)
        made.append({"text": "Structures (CIFs)", "name": f"{name}-cifs.zip", "url": data_uri("application/zip", data)})
    return made


def _figures(store: Store, summary: dict[str, Any], ranking: pd.DataFrame, shortlist: pd.DataFrame) -> list[Figure]:
    """Each pair of axes: candidates, the shortlist with its intervals, and materials of which both are known."""
    axes = [asked["property"] for asked in summary["settings"]["objectives"] if asked["goal"] in AXES]
    others = [name for name in asked_names(summary) if name not in axes]
    pairs = list(itertools.combinations(axes + others, 2))[:MOST_PLOTS]
    known = _known(store, summary)
    return [_pair(summary, ranking, shortlist, known, *pair) for pair in pairs]


def _known(store: Store, summary: dict[str, Any]) -> pd.DataFrame:
    """Values of the properties of every labelled material, NaN where one isn't known."""
    found = pd.DataFrame()
    for name in summary["properties"]:
        part = Store(store.url(property_folder(name)))
        table = part.read_table(LABELLED, ["material_id", "structure_hash", "formula", "value"]).to_pandas()
        table = table.drop_duplicates("structure_hash").set_index("structure_hash").rename(columns={"value": name})
        if found.empty:
            found = table
        else:
            found = found.combine_first(table[["material_id", "formula"]]).join(table[[name]], how="outer")
    return found


def _pair(
    summary: dict[str, Any], ranking: pd.DataFrame, shortlist: pd.DataFrame, known: pd.DataFrame, x: str, y: str
) -> Figure:
    both = known.dropna(subset=[x, y]) if x in known and y in known else known.iloc[:0]
    rows, left_out = thin(ranking)
    ends = {}
    for name in (x, y):
        about = summary["properties"].get(name)
        logarithmic = about is not None and find_transform(about["transform"]).logarithmic
        parts = [rows[name], shortlist[name], both[name] if name in both else pd.Series(dtype=float)]
        ends[name] = (
            axis_range(np.concatenate([part.to_numpy(np.float64) for part in parts]), logarithmic),
            logarithmic,
        )
    figure = go.Figure()
    for chosen, title, color, symbol, size in (
        (both, "known materials", GREY, "cross-thin-open", 6),
        (rows[~rows["shortlist"]], "other candidates", BLUE, "circle", 4),
        (shortlist, "shortlist", ORANGE, "diamond", 9),
    ):
        if not len(chosen):
            continue
        bars = {}
        if title == "shortlist":
            for key, name in (("error_x", x), ("error_y", y)):
                if f"{name}_lower" in chosen:
                    bars[key] = {
                        "array": small(chosen[f"{name}_upper"] - chosen[name]),
                        "arrayminus": small(chosen[name] - chosen[f"{name}_lower"]),
                        "color": faint(color), "thickness": 1, "width": 0,
                    }  # fmt: skip
        figure.add_scatter(
            x=small(chosen[x]), y=small(chosen[y]), mode="markers", name=title, customdata=names(chosen),
            marker={"color": color, "size": size, "opacity": 0.8, "symbol": symbol},
            hovertemplate="%{customdata[0]}  %{customdata[1]}"
            f"<br>{_safe(x)} %{{x:.4~g}}{hover_unit(unit_of(summary, x))}"
            f"<br>{_safe(y)} %{{y:.4~g}}{hover_unit(unit_of(summary, y))}<extra></extra>",
            **bars,
        )  # fmt: skip
    for update, name in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
        update(title=_safe(label_of(summary, name)), **axis(*ends[name]))
    return Figure(
        f"pair-{safe_name(x)}-{safe_name(y)}",
        f"{x} and {y}",
        "Each point is a candidate with its predicted or known values; diamonds are the shortlist, with intervals; "
        f"crosses are materials of which both are known.{left_out}",
        to_json(figure),
    )


def _safe(text: str) -> str:
    return html.escape(text, quote=False)
