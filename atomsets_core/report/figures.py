"""The figures of the report, as Plotly JSON; colours of text and grid are set in the page, for light and dark.

The colours of the marks (after Okabe & Ito) can be told apart by colour-blind readers and stand out from a white and
from a black page; marks also differ in shape, lines in dashes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from atomsets_core.report.markup import formula, script_json
from atomsets_core.report.results import FloatArray, Results
from atomsets_core.wording import counted, number, percent, with_unit

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2c7fc0", "#d9770f", "#12936a", "#b0639b", "#858b94"
STYLES = ((BLUE, "solid"), (ORANGE, "dash"), (GREEN, "dashdot"), (PURPLE, "longdash"))
REFERENCE_STYLES = {"random": (GREY, "dot"), "oracle": (GREY, "solid")}

MOST_POINTS = 4000
"""Points in one figure; beyond that an even choice of them keeps the file small and the page quick."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: identifier in the page.
        title: heading.
        caption: how to read it.
        json: Plotly's data and layout, safe inside a script element.
    """

    name: str
    title: str
    caption: str
    json: Markup


def figures(results: Results) -> list[Figure]:
    """Every figure the campaign has data for."""
    made = [parity(results)]
    if results.discoveries:
        made.append(discovery(results))
    if results.has_hull:
        made.append(hull(results))
    if len(results.ranking):
        made.append(distributions(results))
    return made


def parity(results: Results) -> Figure:
    """Training values against their out-of-fold predictions."""
    rows, left_out = thin(results.out_of_fold)
    ends = axis_range(np.concatenate([rows[c].to_numpy(np.float64) for c in ("value", "predicted")]), results.is_log)
    figure = go.Figure()
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1}, name="predicted = true", hoverinfo="skip"
    )
    inside = rows["in_domain"].to_numpy(dtype=bool)
    for chosen, name, color, symbol in (
        (inside, "inside the domain", BLUE, "circle"),
        (~inside, "outside the domain", ORANGE, "diamond"),
    ):
        if chosen.any():
            figure.add_scatter(**_parity_points(rows[chosen], results.unit, color), name=name, marker_symbol=symbol)
    axis = _axis(ends, results.is_log)
    figure.update_xaxes(title=_label(results, "in the training data"), **axis)
    figure.update_yaxes(title=_label(results, "predicted out of fold"), **axis)
    coverage = results.summary["model"]["coverage"]
    return Figure(
        "parity",
        "Training values and their out-of-fold predictions",
        f"Each point is a training structure, predicted by networks that never saw it; bars are {percent(coverage)} "
        f"intervals.{left_out}",
        to_json(figure),
    )


def _parity_points(rows: pd.DataFrame, unit: str, color: str) -> dict[str, Any]:
    predicted = rows["predicted"].to_numpy(np.float64)
    return {
        "x": _small(rows["value"]),
        "y": _small(predicted),
        "mode": "markers",
        "marker": {"color": color, "size": 5, "opacity": 0.75},
        "error_y": {
            "array": _small(rows["upper"] - predicted),
            "arrayminus": _small(predicted - rows["lower"]),
            "color": _faint(color),
            "thickness": 1,
            "width": 0,
        },
        "customdata": _names(rows),
        "hovertemplate": f"%{{customdata[0]}}  %{{customdata[1]}}<br>training value %{{x:.4~g}}{_hover_unit(unit)}<br>"
        f"predicted %{{y:.4~g}}{_hover_unit(unit)}<extra></extra>",
    }


def discovery(results: Results) -> Figure:
    """Hidden best values found, against how many were looked at."""
    found, figure = results.summary["discovery"], go.Figure()
    budget = np.arange(1, found["n_pool"] + 1)
    own = next(iter(results.heads()))
    runs = np.array([run["heads"][own]["hits"] for run in results.discoveries], dtype=np.float64)
    if len(runs) > 1:
        figure.add_scatter(
            x=np.concatenate([budget, budget[::-1]]),
            y=_small(np.concatenate([runs.max(axis=0), runs.min(axis=0)[::-1]])),
            fill="toself",
            fillcolor=_faint(BLUE),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    styles = iter(STYLES * len(results.heads()))
    for name, head in results.heads().items():
        color, dash = REFERENCE_STYLES.get(name) or next(styles)
        figure.add_scatter(
            x=budget,
            y=_small(head["hits"]),
            mode="lines",
            line={"color": color, "dash": dash, "width": 1.2 if name in REFERENCE_STYLES else 2},
            name=html.escape(name, quote=False),
            hovertemplate="%{y:.1f}",
        )
    figure.add_vline(x=found["n_hidden"], line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="candidates looked at", range=[0, found["n_pool"]])
    figure.update_yaxes(title="hidden best found", rangemode="tozero")
    figure.update_layout(hovermode="x unified")
    return Figure(
        "discovery",
        "Simulated discovery",
        f"The {found['n_hidden']:,} best training values were hidden; the curves show how many of them are among the "
        f"first candidates of each ranking, on average over {counted(len(runs), 'repeat')} "
        f"(band: their range). The steeper, the fewer calculations "
        f"are wasted. The R-precision is read at the dotted line.",
        to_json(figure),
    )


def hull(results: Results) -> Figure:
    """Predictions against the energy above hull, the shortlist marked."""
    known = results.ranking[results.ranking["e_above_hull"].notna()]
    chosen = known["shortlist"].to_numpy(dtype=bool)
    others, left_out = thin(known[~chosen])
    figure = go.Figure()
    for rows, name, style in (
        (others, "candidates", {"color": GREY, "size": 4, "opacity": 0.5, "symbol": "circle"}),
        (known[chosen], "shortlist", {"color": ORANGE, "size": 9, "symbol": "diamond"}),
    ):
        figure.add_scatter(
            x=_small(rows["e_above_hull"]),
            y=_small(rows["predicted"]),
            mode="markers",
            marker=style,
            name=name,
            customdata=_names(rows),
            hovertemplate="%{customdata[0]}  %{customdata[1]}<br>"
            f"predicted %{{y:.4~g}}{_hover_unit(results.unit)}<br>"
            "%{x:.4~f} eV/atom above hull<extra></extra>",
        )
    figure.update_xaxes(title="energy above hull (eV/atom)")
    ends = axis_range(known["predicted"].to_numpy(np.float64), results.is_log)
    figure.update_yaxes(title=_label(results, "predicted"), **_axis(ends, results.is_log))
    missing = len(results.ranking) - len(known)
    return Figure(
        "hull",
        "Prediction and stability",
        f"0 eV/atom is stable at zero temperature in the source's own phase diagram.{left_out}"
        + (f" {missing:,} candidates without an energy above hull are not shown." if missing else ""),
        to_json(figure),
    )


def distributions(results: Results) -> Figure:
    """Training values and predictions for candidates, as step histograms of the same bins."""
    values = results.out_of_fold["value"].to_numpy(np.float64)
    predicted = results.ranking["predicted"].to_numpy(np.float64)
    ends = axis_range(np.concatenate([values, predicted]), results.is_log)
    low, high = ends
    edges = np.geomspace(low, high, 41) if results.is_log else np.linspace(low, high, 41)
    figure = go.Figure()
    for data, name, color, dash in (
        (values, "training values", GREY, "solid"),
        (predicted, "predictions for candidates", BLUE, "solid"),
    ):
        share = 100 * np.histogram(data, edges)[0] / len(data)
        figure.add_scatter(
            x=_small(edges),
            y=_small(np.append(share, share[-1])),
            line={"color": color, "shape": "hv", "dash": dash, "width": 1.5},
            fill="tozeroy",
            fillcolor=_faint(color),
            mode="lines",
            name=name,
            hovertemplate="%{y:.1f}% from %{x:.3~g}<extra>" + name + "</extra>",
        )
    shortlist = results.shortlist["predicted"]
    figure.add_scatter(
        x=_small(shortlist),
        y=np.zeros(len(shortlist)),
        mode="markers",
        marker={"color": ORANGE, "symbol": "diamond", "size": 8},
        name="shortlist",
        customdata=_names(results.shortlist),
        hovertemplate="%{customdata[0]}  %{customdata[1]}<br>"
        f"predicted %{{x:.4~g}}{_hover_unit(results.unit)}<extra></extra>",
        cliponaxis=False,
    )
    figure.update_xaxes(title=_label(results), **_axis(ends, results.is_log))
    figure.update_yaxes(title="share of each set (%)", rangemode="tozero")
    return Figure(
        "distributions",
        "What was learned from, what is predicted",
        f"Share of each set in equal steps{' of the logarithm' if results.is_log else ''}. Training values span "
        f"{number(values.min())} to {with_unit(number(values.max()), results.unit)}, predictions "
        f"{number(predicted.min())} to {with_unit(number(predicted.max()), results.unit)}.",
        to_json(figure),
    )


def thin(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """At most `MOST_POINTS` rows, evenly chosen, and a sentence on what is left out (empty if nothing is)."""
    if len(rows) <= MOST_POINTS:
        return rows, ""
    kept = np.unique(np.linspace(0, len(rows) - 1, MOST_POINTS).astype(int))
    return rows.iloc[kept], f" {len(kept):,} of {len(rows):,} are shown."


def axis_range(values: FloatArray, is_log: bool) -> list[float]:
    """Both ends of an axis that holds the values with a margin."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 10.0)
    if is_log:
        margin = 10 ** max(0.03 * math.log10(high / low), 0.02)
        return [low / margin, high * margin]
    margin = 0.03 * (high - low) or 0.5
    return [low - margin, high + margin]


def ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... from low to high; powers of ten alone where these would be many."""
    steps = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def to_json(figure: go.Figure) -> Markup:
    """Plotly JSON for a script element; the same figure gives the same text."""
    figure.update_layout(template="none")
    return script_json(str(figure.to_json(engine="json")))


def _axis(ends: Sequence[float], is_log: bool) -> dict[str, Any]:
    if not is_log:
        return {"range": list(ends)}
    values = ticks(*ends)
    return {
        "type": "log",
        "range": [math.log10(end) for end in ends],
        "tickvals": values,
        "ticktext": [f"{value:g}" for value in values],
    }


def _label(results: Results, what: str = "") -> str:
    name = f"{results.summary['target']} {what}".strip()
    return html.escape(f"{name} ({results.unit})" if results.unit else name, quote=False)


def _hover_unit(unit: str) -> str:
    return html.escape(f" {unit}", quote=False) if unit else ""


def _names(rows: pd.DataFrame) -> list[list[str]]:
    """Identifier and formula of each row, escaped for Plotly's own subset of HTML."""
    return [
        [html.escape(str(name), quote=False), str(formula(text))]
        for name, text in zip(rows["material_id"], rows["formula"], strict=True)
    ]


def _small(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.22)"
