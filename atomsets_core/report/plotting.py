"""What the figures share: colours, axes, hover texts, and Plotly JSON that nothing from data can break.

The colours of the marks (after Okabe & Ito) can be told apart by colour-blind readers and stand out from a white and
from a black page; marks also differ in shape, lines in dashes. Colours of text and grid are set in the page.
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
from atomsets_core.report.words import symbol_of

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2c7fc0", "#d9770f", "#12936a", "#b0639b", "#858b94"
STYLES = (
    (BLUE, "solid"),
    (ORANGE, "dash"),
    (GREEN, "dashdot"),
    (PURPLE, "longdash"),
    (ORANGE, "solid"),
    (BLUE, "dash"),
    (PURPLE, "dashdot"),
    (GREEN, "longdash"),
)
REFERENCE_STYLES = {"random": (GREY, "dot"), "oracle": (GREY, "solid")}

FEW = 20
"""Structures below which a share of them says little."""

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


def thin(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """At most `MOST_POINTS` rows, evenly chosen, and a sentence on what is left out (empty if nothing is)."""
    if len(rows) <= MOST_POINTS:
        return rows, ""
    kept = np.unique(np.linspace(0, len(rows) - 1, MOST_POINTS).astype(int))
    return rows.iloc[kept], f" {len(kept):,} of {len(rows):,} are shown."


def axis_range(values: FloatArray, logarithmic: bool) -> list[float]:
    """Both ends of an axis that holds the values with a margin."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 10.0)
    if logarithmic:
        margin = 10 ** max(0.03 * math.log10(high / low), 0.02)
        return [low / margin, high * margin]
    margin = 0.03 * (high - low) or 0.5
    return [low - margin, high + margin]


def ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... from low to high; powers of ten alone where these would be many."""
    steps = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def even_ticks(low: float, high: float) -> list[float]:
    """Some five round numbers at equal distances from low to high."""
    if not high > low:
        return [low]
    rough = (high - low) / 5
    step = 10.0 ** math.floor(math.log10(rough))
    step *= next(times for times in (1, 2, 5, 10) if times * step >= rough)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def to_json(figure: go.Figure) -> Markup:
    """Plotly JSON for a script element; the same figure gives the same text."""
    figure.update_layout(template="none")
    return script_json(str(figure.to_json(engine="json")))


def axis(ends: Sequence[float], logarithmic: bool) -> dict[str, Any]:
    """Range and type of an axis."""
    if not logarithmic:
        return {"range": list(ends)}
    values = ticks(*ends)
    return {
        "type": "log",
        "range": [math.log10(end) for end in ends],
        "tickvals": values,
        "ticktext": [f"{value:g}" for value in values],
    }


def label(results: Results, what: str = "") -> str:
    """Title of an axis of the target, with its unit."""
    name = f"{symbol_of(results.summary)} {what}".strip()
    return html.escape(f"{name} ({results.unit})" if results.unit else name, quote=False)


def hover_unit(unit: str) -> str:
    """The unit after a number in a hover text."""
    return html.escape(f" {unit}", quote=False) if unit else ""


def names(rows: pd.DataFrame) -> list[list[str]]:
    """Identifier and formula of each row, escaped for Plotly's own subset of HTML."""
    return [
        [html.escape(str(name), quote=False), str(formula(text))]
        for name, text in zip(rows["material_id"], rows["formula"], strict=True)
    ]


def small(values: Any) -> npt.NDArray[np.float32]:
    """(n,) float32 of (n,) numbers: half the bytes, and a picture needs no more."""
    return np.asarray(values, dtype=np.float32)


def faint(color: str) -> str:
    """The colour as a fill behind marks."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.22)"
