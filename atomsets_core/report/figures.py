"""The figures of the report, as Plotly JSON."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import norm

from atomsets_core.report.classes.figures import operating, probabilities, reliability
from atomsets_core.report.classes.words import class_hidden
from atomsets_core.report.plotting import (
    BLUE,
    FEW,
    GREEN,
    GREY,
    ORANGE,
    REFERENCE_STYLES,
    STYLES,
    Figure,
    axis,
    axis_range,
    even_ticks,
    faint,
    hover_unit,
    label,
    names,
    small,
    thin,
    ticks,
    to_json,
)
from atomsets_core.report.results import NAMES, Results
from atomsets_core.report.words import counted, material, number, percent, with_unit


def figures(results: Results) -> list[Figure]:
    """Every figure the campaign has data for."""
    of_class = "class" in results.summary
    made = [reliability(results), operating(results)] if of_class else [parity(results), calibration(results)]
    if results.discoveries:
        made.append(discovery(results))
    if results.points is not None and results.plane is not None and len(results.points):
        made.append(plane(results, results.points, results.plane["explained"]))
    if results.has_hull:
        made.append(hull(results))
    if len(results.ranking):
        made.append((probabilities if of_class else distributions)(results))
    return made


def parity(results: Results) -> Figure:
    """Training values against their out-of-fold predictions."""
    rows, left_out = thin(results.out_of_fold)
    ends = axis_range(
        np.concatenate([rows[c].to_numpy(np.float64) for c in ("value", "predicted")]), results.transform.logarithmic
    )
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
    both = axis(ends, results.transform.logarithmic)
    figure.update_xaxes(title=label(results, "in the training data"), **both)
    figure.update_yaxes(title=label(results, "predicted out of fold"), **both)
    coverage = results.summary["model"]["coverage"]
    return Figure(
        "parity",
        "Training values and their out-of-fold predictions",
        f"Each point is a training {material(results.summary)}, predicted by networks that never saw it; bars "
        f"are {percent(coverage)} intervals.{left_out}",
        to_json(figure),
    )


def _parity_points(rows: pd.DataFrame, unit: str, color: str) -> dict[str, Any]:
    predicted = rows["predicted"].to_numpy(np.float64)
    return {
        "x": small(rows["value"]),
        "y": small(predicted),
        "mode": "markers",
        "marker": {"color": color, "size": 5, "opacity": 0.75},
        "error_y": {
            "array": small(rows["upper"] - predicted),
            "arrayminus": small(predicted - rows["lower"]),
            "color": faint(color),
            "thickness": 1,
            "width": 0,
        },
        "customdata": names(rows),
        "hovertemplate": f"%{{customdata[0]}}  %{{customdata[1]}}<br>training value %{{x:.4~g}}{hover_unit(unit)}<br>"
        f"predicted %{{y:.4~g}}{hover_unit(unit)}<extra></extra>",
    }


def calibration(results: Results) -> Figure:
    """Share of the training values inside intervals of every width, against what a normal distribution promises."""
    rows = results.out_of_fold
    model = results.summary["model"]
    value = rows["value"].to_numpy(np.float64)
    truth = results.transform.forward(value)
    # Campaigns before recipe 3 kept the deviation on the scale under the other name.
    std = rows["std_scale" if "std_scale" in rows else "std"].to_numpy(np.float64)
    wide = np.abs(truth - rows["mean"].to_numpy(np.float64)) / std
    asked = np.linspace(0.02, 0.98, 49)
    inside = rows["in_domain"].to_numpy(dtype=bool)
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", line={"color": GREY, "width": 1}, name="as promised", hoverinfo="skip"
    )
    for chosen, name, color, dash in (
        (inside, "inside the domain", BLUE, "solid"),
        (~inside, "outside the domain", ORANGE, "dash"),
    ):
        if chosen.sum() >= FEW:
            held = [100 * float(np.mean(wide[chosen] <= norm.ppf(0.5 + share / 2))) for share in asked]
            figure.add_scatter(
                x=small(100 * asked),
                y=small(held),
                mode="lines",
                line={"color": color, "dash": dash, "width": 2},
                name=f"{name} ({int(chosen.sum()):,})",
                hovertemplate="%{y:.0f}% inside, %{x:.0f}% promised<extra></extra>",
            )
    if model["coverage_out_of_fold"] is not None:  # of too few labels it isn't known
        figure.add_scatter(
            x=[100 * model["coverage"]],
            y=[100 * model["coverage_out_of_fold"]],
            mode="markers",
            marker={"color": GREEN, "size": 10, "symbol": "square"},
            name="intervals of this report",
            hovertemplate="%{y:.1f}% inside, %{x:.0f}% asked for<extra></extra>",
        )
    figure.update_xaxes(title="promised by the standard deviation (%)", range=[0, 100])
    figure.update_yaxes(title="training values inside (%)", range=[0, 100])
    return Figure(
        "calibration",
        "Calibration",
        "Share of the training values, predicted out of fold, inside intervals of every width. On the line the "
        "standard deviations are right; below it they are too small. The square is the interval this report "
        "gives everywhere.",
        to_json(figure),
    )


def plane(results: Results, points: pd.DataFrame, explained: Sequence[float]) -> Figure:
    """Training structures and candidates in feature space, coloured by value."""
    values = points["value"].to_numpy(np.float64)
    scale = results.transform
    shown = scale.forward(values)
    ends = [float(end) for end in np.quantile(shown, [0.01, 0.99])]
    known, chosen = (points[name].to_numpy(dtype=bool) for name in ("trained", "shortlist"))
    figure = go.Figure()
    bar: dict[str, Any] = {"title": {"text": label(results), "side": "right"}, "thickness": 12, "len": 0.9, "y": 0.55}
    if not scale.plain:
        marks = (ticks if scale.logarithmic else even_ticks)(*(float(scale.inverse(end)) for end in ends))
        bar |= {"tickvals": [float(scale.forward(mark)) for mark in marks], "ticktext": [f"{mark:g}" for mark in marks]}
    for rows, name, style in (
        (known, "training", {"symbol": "circle-open", "size": 5, "opacity": 0.7}),
        (~known & ~chosen, "candidates", {"symbol": "circle", "size": 5, "opacity": 0.7}),
        (chosen, "shortlist", {"symbol": "diamond", "size": 11, "line": {"color": GREY, "width": 1}}),
    ):
        if rows.any():
            figure.add_scatter(
                x=small(points["x"][rows]),
                y=small(points["y"][rows]),
                mode="markers",
                name=name,
                showlegend=False,
                marker={"color": small(shown[rows]), "coloraxis": "coloraxis", **style},
                customdata=[
                    [*called, number(value)] for called, value in zip(names(points[rows]), values[rows], strict=True)
                ],
                hovertemplate="%{customdata[0]}  %{customdata[1]}<br>%{customdata[2]}" + hover_unit(results.unit)
                + f"<extra>{name}</extra>",
            )  # fmt: skip
            # Points coloured by value have no colour of their own that a legend could show.
            figure.add_scatter(x=[None], y=[None], mode="markers", name=name, marker={"color": GREY, **style})
    figure.update_layout(
        coloraxis={"colorscale": "Viridis", "cmin": ends[0], "cmax": ends[1], "colorbar": bar},
        legend={"itemsizing": "constant"},
    )
    figure.update_xaxes(title=f"first component ({percent(explained[0])} of the variance)", showticklabels=False)
    figure.update_yaxes(title=f"second component ({percent(explained[1])})", showticklabels=False)
    others = len(results.ranking) - int((~known).sum())
    return Figure(
        "map",
        "Map of the candidates",
        f"Principal components of the features, of the training {material(results.summary)}s: near each other lies "
        "what is alike to the network. Colour is the training value or the prediction. A click on a diamond leads to "
        "the card of the candidate, with its crystal and the known materials nearest to it."
        + (f" The best candidates and a sample are shown; {others:,} are not." if others > 0 else ""),
        to_json(figure),
    )


def discovery(results: Results) -> Figure:
    """Hidden best values found, against how many were looked at."""
    found, figure = results.summary["discovery"], go.Figure()
    budget = np.arange(1, found["n_pool"] + 1)
    own = next(iter(results.heads()))
    runs = np.array([run["heads"][own]["hits"] for run in results.discoveries], dtype=np.float64)
    if len(runs) > 1:
        figure.add_scatter(
            x=np.concatenate([budget, budget[::-1]]),
            y=small(np.concatenate([runs.max(axis=0), runs.min(axis=0)[::-1]])),
            fill="toself",
            fillcolor=faint(BLUE),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    styles = iter(STYLES * len(results.heads()))
    for name, head in results.heads().items():
        color, dash = REFERENCE_STYLES.get(name) or next(styles)
        figure.add_scatter(
            x=budget,
            y=small(head["hits"]),
            mode="lines",
            line={"color": color, "dash": dash, "width": 1.2 if name in REFERENCE_STYLES else 2},
            name=html.escape(name, quote=False),
            hovertemplate="%{y:.1f}",
        )
    figure.add_vline(x=found["n_hidden"], line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="candidates looked at", range=[0, found["n_pool"]])
    of_class = "class" in results.summary
    figure.update_yaxes(title=f"hidden {'of the class' if of_class else 'best'} found", rangemode="tozero")
    figure.update_layout(hovermode="x unified")
    return Figure(
        "discovery",
        "Simulated discovery",
        (
            f"{class_hidden(results.summary)}; "
            if of_class
            else f"The {found['n_hidden']:,} best training values were hidden; "
        )
        + f"the curves show how many of them are among the "
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
    shown = results.rows(others.index, (*NAMES, "e_above_hull"))
    best = results.shortlist[results.shortlist["e_above_hull"].notna()]
    figure = go.Figure()
    for rows, name, style in (
        (shown, "candidates", {"color": GREY, "size": 4, "opacity": 0.5, "symbol": "circle"}),
        (best, "shortlist", {"color": ORANGE, "size": 9, "symbol": "diamond"}),
    ):
        figure.add_scatter(
            x=small(rows["e_above_hull"]),
            y=small(rows["predicted"]),
            mode="markers",
            marker=style,
            name=name,
            customdata=names(rows),
            hovertemplate="%{customdata[0]}  %{customdata[1]}<br>"
            f"predicted %{{y:.4~g}}{hover_unit(results.unit)}<br>"
            "%{x:.4~f} eV/atom above hull<extra></extra>",
        )
    figure.update_xaxes(title="energy above hull (eV/atom)")
    ends = axis_range(known["predicted"].to_numpy(np.float64), results.transform.logarithmic)
    figure.update_yaxes(title=label(results, "predicted"), **axis(ends, results.transform.logarithmic))
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
    ends = axis_range(np.concatenate([values, predicted]), results.transform.logarithmic)
    low, high = ends
    of_what = " of the logarithm" if results.transform.logarithmic else ""
    edges = np.geomspace(low, high, 41) if results.transform.logarithmic else np.linspace(low, high, 41)
    figure = go.Figure()
    for data, name, color, dash in (
        (values, "training values", GREY, "solid"),
        (predicted, "predictions for candidates", BLUE, "solid"),
    ):
        share = 100 * np.histogram(data, edges)[0] / len(data)
        figure.add_scatter(
            x=small(edges),
            y=small(np.append(share, share[-1])),
            line={"color": color, "shape": "hv", "dash": dash, "width": 1.5},
            fill="tozeroy",
            fillcolor=faint(color),
            mode="lines",
            name=name,
            hovertemplate="%{y:.1f}% from %{x:.3~g}<extra>" + name + "</extra>",
        )
    shortlist = results.shortlist["predicted"]
    figure.add_scatter(
        x=small(shortlist),
        y=np.zeros(len(shortlist)),
        mode="markers",
        marker={"color": ORANGE, "symbol": "diamond", "size": 8},
        name="shortlist",
        customdata=names(results.shortlist),
        hovertemplate="%{customdata[0]}  %{customdata[1]}<br>"
        f"predicted %{{x:.4~g}}{hover_unit(results.unit)}<extra></extra>",
        cliponaxis=False,
    )
    figure.update_xaxes(title=label(results), **axis(ends, results.transform.logarithmic))
    figure.update_yaxes(title="share of each set (%)", rangemode="tozero")
    return Figure(
        "distributions",
        "What was learned from, what is predicted",
        f"Share of each set in equal steps{of_what}. Training values span {number(values.min())} to "
        f"{with_unit(number(values.max()), results.unit)}, predictions {number(predicted.min())} to "
        f"{with_unit(number(predicted.max()), results.unit)}.",
        to_json(figure),
    )
