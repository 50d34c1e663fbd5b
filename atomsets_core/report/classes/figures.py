"""The figures of a campaign of a class, as Plotly JSON."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from atomsets_core.models import reliability as binned
from atomsets_core.report.classes.words import class_of, probability_of
from atomsets_core.report.plotting import BLUE, GREEN, GREY, ORANGE, Figure, faint, small, to_json
from atomsets_core.report.results import Results


def reliability(results: Results) -> Figure:
    """How many are of the class among those of each probability."""
    rows = results.out_of_fold
    found = {
        name: np.array(values)
        for name, values in binned(rows["value"].to_numpy(np.float64), rows["predicted"].to_numpy(np.float64)).items()
    }
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1}, name="as said", hoverinfo="skip"
    )
    figure.add_scatter(
        x=small(found["said"]),
        y=small(found["found"]),
        mode="lines+markers",
        marker={"color": BLUE, "size": 8},
        line={"color": BLUE, "width": 1.5},
        error_y={
            "array": small(found["high"] - found["found"]),
            "arrayminus": small(found["found"] - found["low"]),
            "color": faint(BLUE),
            "width": 0,
        },
        name="training structures",
        customdata=small(found["rows"]),
        hovertemplate="said %{x:.2f}, found %{y:.2f} of %{customdata}<extra></extra>",
    )
    figure.update_xaxes(title="mean probability, out of fold", range=[-0.02, 1.02])
    figure.update_yaxes(title=f"share that is {class_of(results.summary)}", range=[-0.02, 1.02])
    return Figure(
        "reliability",
        "Are the probabilities right?",
        "Training structures, sorted by their out-of-fold probability and cut into parts of as many each. On the line "
        "as many are of the class as the probability says; bars are 95 % intervals of so few rows.",
        to_json(figure),
    )


def operating(results: Results) -> Figure:
    """Which share of the class, and which share of the others, lies above each probability."""
    rows = results.out_of_fold
    p, truth = rows["predicted"].to_numpy(np.float64), rows["value"].to_numpy(np.float64) > 0.5
    order = np.argsort(-p, kind="stable")
    true = np.append(0.0, np.cumsum(truth[order]) / max(int(truth.sum()), 1))
    false = np.append(0.0, np.cumsum(~truth[order]) / max(int((~truth).sum()), 1))
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"}, name="blind choice",
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=small(false),
        y=small(true),
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        name="out of fold",
        hovertemplate="%{y:.0%} of the class, %{x:.0%} of the others<extra></extra>",
    )
    found = results.summary["model"]["confusion"]
    figure.add_scatter(
        x=[found["false_positive"] / max(found["false_positive"] + found["true_negative"], 1)],
        y=[found["true_positive"] / max(found["true_positive"] + found["false_negative"], 1)],
        mode="markers",
        marker={"color": GREEN, "size": 10, "symbol": "square"},
        name="from 0.5 on",
        hovertemplate="%{y:.0%} of the class, %{x:.0%} of the others<extra></extra>",
    )
    figure.update_xaxes(title="share of the others that is taken", range=[-0.02, 1.02])
    figure.update_yaxes(title=f"share of {class_of(results.summary)} that is taken", range=[-0.02, 1.02])
    return Figure(
        "operating",
        "What a threshold takes",
        "Taken is what has at least some probability; along the curve that falls from 1 to 0. The area below it is the "
        "ROC-AUC.",
        to_json(figure),
    )


def probabilities(results: Results) -> Figure:
    """Probabilities of the training structures, by class, and of the candidates, as step histograms."""
    known = results.out_of_fold
    truth = known["value"].to_numpy(np.float64) > 0.5
    name, edges, figure = class_of(results.summary), np.linspace(0.0, 1.0, 41), go.Figure()
    for data, what, color, dash in (
        (known["predicted"].to_numpy(np.float64)[truth], f"training, {name}", GREEN, "solid"),
        (known["predicted"].to_numpy(np.float64)[~truth], f"training, not {name}", ORANGE, "dash"),
        (results.ranking["predicted"].to_numpy(np.float64), "candidates", BLUE, "solid"),
    ):
        share = 100 * np.histogram(data, edges)[0] / max(len(data), 1)
        figure.add_scatter(
            x=small(edges),
            y=small(np.append(share, share[-1])),
            line={"color": color, "shape": "hv", "dash": dash, "width": 1.5},
            mode="lines",
            name=what,
            hovertemplate="%{y:.1f}% from %{x:.2f}<extra></extra>",
        )
    figure.update_xaxes(title=probability_of(results.summary), range=[0, 1])
    figure.update_yaxes(title="share of each set (%)", rangemode="tozero")
    return Figure(
        "distributions",
        "What was learned from, what is predicted",
        "Share of each set in equal steps of the probability, of training structures out of fold.",
        to_json(figure),
    )
